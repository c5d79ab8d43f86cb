//! Changing the stopped target: only where it was [given](Target::with_changes) what that takes.

use super::error::TargetError;
use super::register_place::RegisterPlace;
use super::registers::Registers;
use super::{ReadCause, Target, VirtAddr};
use crate::memory::{Changeable, Memory};

impl<'a> Target<'a> {
    /// The same target, which `changes` can change.
    #[must_use]
    pub const fn with_changes(mut self, changes: &'a dyn Changeable) -> Self {
        self.changes = Some(changes);
        self
    }

    /// Overwrites bytes of its memory, and reads them again: what is there afterwards.
    ///
    /// # Errors
    /// [`TargetError::Write`], [`TargetError::Read`].
    pub fn overwrite(&self, address: VirtAddr, bytes: &[u8]) -> Result<Vec<u8>, TargetError> {
        self.changes()?.write_virtual(address, bytes).map_err(TargetError::Write)?;
        let mut there = vec![0; bytes.len()];
        let read = self.memory.read_virtual(address, &mut there);
        read.map_err(|error| TargetError::read("what was written cannot be read again", error))?;
        Ok(there)
    }

    /// Writes values to registers of the CPU that stopped, or was chosen; all registers as the target says they are
    /// afterwards.
    ///
    /// # Errors
    /// [`TargetError::NoRegisters`].
    pub fn change_registers(&self, values: &[(RegisterPlace, u64)]) -> Result<Registers, TargetError> {
        let processor = self.kernel.chosen_processor();
        let mut change = |context: &mut [u8]| {
            for (place, value) in values {
                place.put(context, *value);
            }
        };
        let changed = self.changes()?.change_context(processor, &mut change);
        // Whatever came of it, what was read before is not to be told.
        self.kernel.forget_contexts();
        let context = changed.map_err(TargetError::NoRegisters)?;
        let decoded = Registers::decode(self.kernel.version().machine, &context);
        decoded.ok_or(TargetError::NoRegisters(ReadCause::Unsupported("a whole CONTEXT")))
    }

    fn changes(&self) -> Result<&dyn Changeable, TargetError> {
        self.changes.ok_or(TargetError::NotChangeable)
    }
}
