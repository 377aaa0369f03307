mod flour;

use super::super::errors::{detail::explain, MillError};
use super::Grain;
use flour::Flour;

pub struct Wheat;

impl Grain for Wheat {
    fn weight(&self) -> u32 {
        explain(&MillError::Stuck).len() as u32 + Flour::default().0
    }
}

impl std::fmt::Display for Wheat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("wheat")
    }
}
