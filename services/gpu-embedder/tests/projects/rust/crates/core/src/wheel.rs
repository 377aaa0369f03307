pub mod stone;
#[path = "hub.rs"]
mod hub;

pub fn turn(times: u32) -> u32 {
    stone::grind(times) + hub::grease()
}
