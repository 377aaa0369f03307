mod data;

use mill_core::Wheat;

fn main() {
    data::rows(Wheat);
}
