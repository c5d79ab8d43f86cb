//! Where code lies.

use std::ops::Range;

use crate::memory::VirtAddr;

/// Code that lies together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// Where: a whole function, unless the compiler split it.
    pub part: Range<VirtAddr>,
    /// Where the function begins.
    pub function: VirtAddr,
}
