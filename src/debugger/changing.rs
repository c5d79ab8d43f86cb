//! The target as a command has it that changes it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::memory::{CachedMemory, Changeable, ReadCause, VirtAddr, WriteError};
use crate::source::SourceMemory;

/// What was read before a change is forgotten with it.
pub(super) struct Changes<'a> {
    pub(super) memory: &'a CachedMemory<Arc<dyn SourceMemory>>,
    pub(super) source: &'a dyn Changeable,
    /// Where it was written, and how much.
    pub(super) written: Mutex<Vec<(VirtAddr, usize)>>,
}

impl Changeable for Changes<'_> {
    fn write_virtual(&self, address: VirtAddr, bytes: &[u8]) -> Result<(), WriteError> {
        let written = self.source.write_virtual(address, bytes);
        self.memory.forget();
        // What fails may have been written in part.
        self.written.lock().unwrap_or_else(PoisonError::into_inner).push((address, bytes.len()));
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
