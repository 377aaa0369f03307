pub fn holes() -> u32 {
    7
}
