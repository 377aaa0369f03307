pub use crate::errors::MillError;
pub use crate::{grain::Grain, wheel::*};
