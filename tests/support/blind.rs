//! A memory that does not search, as a target may refuse to.

use std::ops::Range;

use verikd::memory::{Address, Memory, PhysAddr, ReadCause, ReadError, StopId, VirtAddr};

/// Another memory, which is searched only if `searches`.
pub struct Blind<M> {
    pub inner: M,
    pub searches: bool,
}

impl<M: Memory> Memory for Blind<M> {
    fn read_virtual(&self, address: VirtAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        self.inner.read_virtual(address, buf)
    }

    fn read_physical(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        self.inner.read_physical(address, buf)
    }

    fn search_virtual(&self, range: Range<VirtAddr>, pattern: &[u8]) -> Result<Option<VirtAddr>, ReadError> {
        if self.searches {
            return self.inner.search_virtual(range, pattern);
        }
        let (address, wanted) = (Address::Virtual(range.start), pattern.len());
        Err(ReadError { address, wanted, got: 0, cause: ReadCause::Status(0xc000_0001) })
    }

    fn stop(&self) -> StopId {
        self.inner.stop()
    }
}
