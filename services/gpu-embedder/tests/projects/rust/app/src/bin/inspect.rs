use mill::options::read;
use mill_core::sieve;

fn main() {
    let _ = (read(), sieve::shake());
}
