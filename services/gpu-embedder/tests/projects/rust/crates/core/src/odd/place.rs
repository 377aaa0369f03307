mod mesh;

use mesh::holes;

pub fn shake() -> u32 {
    holes()
}
