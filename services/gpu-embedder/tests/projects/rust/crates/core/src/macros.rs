macro_rules! twice {
    ($value:expr) => {
        $crate::wheel::turn($value) + $value
    };
}
