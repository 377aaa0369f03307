use crate::Store;
use core_of_mill::{self, errors::MillError, Wheat as Grain};

pub struct Bin<G>(pub Vec<G>);

pub fn fill(_: Store<Grain>) -> Result<(), MillError> {
    Err(core_of_mill::errors::MillError::Stuck)
}
