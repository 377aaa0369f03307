use mill_core::prelude::*;

pub fn stuck() -> MillError {
    MillError::Stuck
}
