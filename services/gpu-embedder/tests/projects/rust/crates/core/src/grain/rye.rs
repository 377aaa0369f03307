use super::Grain;

pub struct Rye;

impl Grain for Rye {
    fn weight(&self) -> u32 {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grain::wheat::Wheat;

    #[test]
    fn rye_is_lighter() {
        assert!(Rye.weight() < Wheat.weight());
    }
}
