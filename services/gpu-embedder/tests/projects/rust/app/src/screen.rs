use crate::missing::Gone;
use mill::options::Options;

pub fn draw<E>(_: std::result::Result<Options, E>) {
    helper::<Gone>();
}

fn helper<T>() {}
