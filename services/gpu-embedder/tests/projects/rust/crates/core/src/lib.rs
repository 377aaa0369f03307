//! What a mill does.

#[macro_use]
mod macros;
pub mod grain;
mod imp;
pub mod prelude;
pub mod wheel;

#[path = "odd/place.rs"]
pub mod sieve;

pub use grain::{Grain, wheat::Wheat};
pub use imp::platform;
pub use wheel::stone as millstone;

pub mod errors {
    pub mod detail;

    #[derive(Debug)]
    pub enum MillError {
        Stuck,
    }
}

/// The version of the mill.
pub fn version() -> u32 {
    twice!(1)
}
