#[derive(Default)]
pub struct Flour(pub u32);
