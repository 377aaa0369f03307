mod tables;

fn main() {
    tables::write(&std::env::var("OUT_DIR").unwrap());
}
