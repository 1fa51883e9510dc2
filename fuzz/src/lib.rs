//! What the fuzz targets share: bytes cut into pieces, slow readers to compare with, and a count of
//! what was allocated.
//!
//! Every target asserts properties, not only that nothing panics: what is read says all that its bytes
//! say, what is accepted is within its limits and exact, and no input costs more memory than its
//! length explains. `scripts/fuzz.sh` builds and runs them.

pub mod bytes;
pub mod memory;
pub mod slow;
