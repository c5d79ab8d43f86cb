//! Physical memory that is kept somewhere: what a dump or a virtual machine has, before anybody's page tables are read.

use std::ops::Range;

use kd_protocol::PhysAddr;

use super::error::ReadCause;

/// RAM, or as much of it as was kept.
pub trait PhysicalMemory: Send + Sync {
    /// Fills `buf` from `address` on.
    ///
    /// # Errors
    /// How many bytes from the start were there, and why no more: [`ReadCause::NotKept`], [`ReadCause::CutShort`],
    /// [`ReadCause::File`].
    fn read(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), (usize, ReadCause)>;

    /// What can be looked through quickly, from the lowest address on: a search for page tables reads it all.
    fn ranges(&self) -> Vec<Range<u64>>;

    /// Where, from `address` on, the next byte lies that may be other than 0, or is not kept: in between is a hole of a file,
    /// which is not worth a read.
    fn next_written(&self, address: PhysAddr) -> PhysAddr {
        address
    }

    /// The first byte behind the last that is kept: a frame number beyond it is none.
    fn end(&self) -> PhysAddr;
}
