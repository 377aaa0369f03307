use mill::options::read;
use mill_core::sieve;
use pipes::joint::Joint;

fn main() {
    let _ = (read(), sieve::shake(), Joint);
}
