mod common;

use common::stuck;
use mill_core::grain::{self, rye::Rye};
use mill_core::millstone::grind;

#[test]
fn grinds() {
    assert_eq!(grind(1), grain::Grain::weight(&Rye));
    println!("{:?}", stuck());
}
