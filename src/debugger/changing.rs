//! The target as a command has it that changes it.

use std::sync::Arc;

use crate::memory::{CachedMemory, Changeable, ReadCause, VirtAddr, WriteError};
use crate::source::SourceMemory;

/// What was read before a change is forgotten with it.
pub(super) struct Changes<'a> {
    pub(super) memory: &'a CachedMemory<Arc<dyn SourceMemory>>,
    pub(super) source: &'a dyn Changeable,
}

impl Changeable for Changes<'_> {
    fn write_virtual(&self, address: VirtAddr, bytes: &[u8]) -> Result<(), WriteError> {
        let written = self.source.write_virtual(address, bytes);
        self.memory.forget();
        written
    }

    fn change_context(
        &self,
        processor: Option<u16>,
        change: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Vec<u8>, ReadCause> {
        self.source.change_context(processor, change)
    }
}
