pub mod stone;

pub fn turn(times: u32) -> u32 {
    stone::grind(times)
}
