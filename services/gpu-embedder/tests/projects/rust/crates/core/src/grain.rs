pub mod rye;
pub mod wheat;

use std::fmt::{self, Display};

use self::rye::Rye;
use super::wheel::turn;

pub trait Grain: Display {
    fn weight(&self) -> u32;
    fn get(&self) -> u32 {
        turn(self.weight())
    }
}

impl Display for Rye {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "rye")
    }
}
