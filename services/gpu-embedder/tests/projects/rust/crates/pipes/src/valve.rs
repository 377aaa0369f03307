use joint::Joint;

pub struct Valve(pub Joint);
