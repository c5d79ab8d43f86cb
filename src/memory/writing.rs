//! Changing a target that stands still. Only what a command that says so was given can do it.

use kd_protocol::VirtAddr;

use super::error::{Address, ReadCause};

/// A stopped target whose memory and registers can be changed.
pub trait Changeable: Send + Sync {
    /// Writes `bytes`, whatever the protection of their pages.
    ///
    /// # Errors
    /// [`WriteError`]. Where the target did not answer, the bytes may have been written all the same.
    fn write_virtual(&self, address: VirtAddr, bytes: &[u8]) -> Result<(), WriteError>;

    /// Lets `change` change the `CONTEXT` of a processor, by its number, of the one that stopped if none is named; and
    /// returns what the target says it is then.
    ///
    /// # Errors
    /// Why it cannot be read or written.
    fn change_context(
        &self,
        processor: Option<u16>,
        change: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Vec<u8>, ReadCause>;
}

/// A write that was not carried out whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wanted:#x} bytes at {address} were not written{}: {cause}", so_far(*written))]
pub struct WriteError {
    /// Where.
    pub address: Address,
    /// How many bytes were to be written.
    pub wanted: usize,
    /// How many were, from the start.
    pub written: usize,
    /// What stopped it.
    pub cause: ReadCause,
}

fn so_far(written: usize) -> String {
    if written == 0 { String::new() } else { format!(" but for the first {written:#x}") }
}
