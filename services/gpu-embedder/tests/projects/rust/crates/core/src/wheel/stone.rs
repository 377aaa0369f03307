pub fn grind(times: u32) -> u32 {
    std::cmp::max(times, 1)
}
