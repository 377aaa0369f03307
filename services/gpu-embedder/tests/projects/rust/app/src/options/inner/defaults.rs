use crate::options::Options;

pub fn options() -> Options {
    Options("small")
}
