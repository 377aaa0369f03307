// The first edition: paths of `use` begin at the root.
mod valve;
pub mod joint;

pub use valve::Valve;

pub struct Pipe(pub Valve);
