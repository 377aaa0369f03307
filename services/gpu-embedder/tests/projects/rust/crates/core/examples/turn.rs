fn main() {
    println!("{}", mill_core::version());
    let turns = mill_core::wheel::turn(3);
    assert!(turns > 0);
}
