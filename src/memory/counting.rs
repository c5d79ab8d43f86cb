//! Counts what is asked of another memory: requests are what a query costs a stopped target.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::{ReadCause, ReadError};
use super::standing::{Memory, StopId};
use super::translate::PageTables;
use kd_protocol::{PhysAddr, VirtAddr};

/// Another memory, with counters.
#[derive(Debug, Default)]
pub struct CountingMemory<M> {
    inner: M,
    reads: AtomicU64,
    bytes: AtomicU64,
    searches: AtomicU64,
}

impl<M: Memory> CountingMemory<M> {
    /// Counts what is asked of `inner`.
    pub const fn new(inner: M) -> Self {
        Self { inner, reads: AtomicU64::new(0), bytes: AtomicU64::new(0), searches: AtomicU64::new(0) }
    }

    /// Calls of `read_virtual` and `read_physical`.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Bytes asked for by them.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Calls of `search_virtual`.
    pub fn searches(&self) -> u64 {
        self.searches.load(Ordering::Relaxed)
    }

    /// Starts counting anew.
    pub fn reset(&self) {
        for counter in [&self.reads, &self.bytes, &self.searches] {
            counter.store(0, Ordering::Relaxed);
        }
    }

    /// The memory behind it.
    pub fn into_inner(self) -> M {
        self.inner
    }

    fn count(&self, bytes: usize) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl<M: Memory> Memory for CountingMemory<M> {
    fn read_virtual(&self, address: VirtAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        self.count(buf.len());
        self.inner.read_virtual(address, buf)
    }

    fn read_physical(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        self.count(buf.len());
        self.inner.read_physical(address, buf)
    }

    fn search_virtual(&self, range: Range<VirtAddr>, pattern: &[u8]) -> Result<Option<VirtAddr>, ReadError> {
        self.searches.fetch_add(1, Ordering::Relaxed);
        self.inner.search_virtual(range, pattern)
    }

    fn page_tables(&self) -> Result<PageTables, ReadCause> {
        self.inner.page_tables()
    }

    fn ram(&self) -> Option<Vec<Range<u64>>> {
        self.inner.ram()
    }

    fn touched(&self) -> Vec<VirtAddr> {
        self.inner.touched()
    }

    fn request_len(&self) -> usize {
        self.inner.request_len()
    }

    fn stop(&self) -> StopId {
        self.inner.stop()
    }
}
