mod screen;
mod missing;

use anyhow::Result;
use granary::{Absent, Store};
use mill::options;

fn main() -> Result<()> {
    screen::draw(options::read());
    Ok(())
}
