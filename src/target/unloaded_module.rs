//! A driver that was unloaded.

use std::sync::{Arc, OnceLock};

use crate::memory::VirtAddr;

/// One driver that was unloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnloadedModule {
    /// Where its image was.
    pub base: VirtAddr,
    /// First address past the image.
    pub end: VirtAddr,
    /// When it was unloaded: units of 100 ns since 1601.
    pub time: u64,
    /// Where its file name is, and its length in bytes.
    pub(super) name: (VirtAddr, usize),
    /// The name, once it was read.
    pub(super) text: Arc<OnceLock<String>>,
}

impl UnloadedModule {
    /// True if `address` lay in the image.
    #[must_use]
    pub fn contains(&self, address: VirtAddr) -> bool {
        (self.base..self.end).contains(&address)
    }

    /// True if `other` is the same unloading of the same driver.
    pub(super) fn is(&self, other: &Self) -> bool {
        let key = |driver: &Self| (driver.base, driver.end, driver.time, driver.name);
        key(self) == key(other)
    }
}
