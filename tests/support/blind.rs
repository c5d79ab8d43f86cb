//! A memory that does not search, as a target may refuse to.

use std::ops::Range;

use verikd::memory::{Address, Memory, PhysAddr, ReadCause, ReadError, StopId, VirtAddr};

/// Another memory, which answers searches with `refusal` if it has one.
pub struct Blind<M> {
    pub inner: M,
    pub refusal: Option<ReadCause>,
}

/// What a target answers that does not have the API.
pub const UNKNOWN_API: ReadCause = ReadCause::Status(0xc000_0001);

impl<M: Memory> Memory for Blind<M> {
    fn read_virtual(&self, address: VirtAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        self.inner.read_virtual(address, buf)
    }

    fn read_physical(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        self.inner.read_physical(address, buf)
    }

    fn search_virtual(&self, range: Range<VirtAddr>, pattern: &[u8]) -> Result<Option<VirtAddr>, ReadError> {
        let Some(cause) = self.refusal.clone() else { return self.inner.search_virtual(range, pattern) };
        Err(ReadError { address: Address::Virtual(range.start), wanted: pattern.len(), got: 0, cause })
    }

    fn stop(&self) -> StopId {
        self.inner.stop()
    }
}
