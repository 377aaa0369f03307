pub struct Joint;
