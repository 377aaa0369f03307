use mill_core::{errors, platform::name};

mod inner {
    pub mod defaults;
    use super::Options;
    pub fn of() -> Options {
        defaults::options()
    }
}

pub struct Options(pub &'static str);

pub fn read() -> Result<Options, errors::MillError> {
    let _ = name();
    Ok(inner::of())
}
