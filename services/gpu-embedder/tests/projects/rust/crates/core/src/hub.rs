pub fn grease() -> u32 {
    0
}
