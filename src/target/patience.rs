//! A target's memory that is not asked again once nobody can read it.

use std::ops::Range;
use std::sync::OnceLock;

use super::width::Width;
use crate::memory::{Address, Memory, PageTables, PhysAddr, ReadCause, ReadError, StopId, VirtAddr};

/// A memory that answers every read with the same cause after the first that means the end: Ctrl+C, a target that runs,
/// restarted or fell silent.
///
/// A query that goes on with its other parts then ends at once, with what it has found, instead of waiting for the
/// target at each of them.
pub(super) struct Patience<'a> {
    inner: &'a dyn Memory,
    width: Width,
    over: OnceLock<ReadCause>,
}

impl<'a> Patience<'a> {
    pub(super) const fn new(inner: &'a dyn Memory, width: Width) -> Self {
        Self { inner, width, over: OnceLock::new() }
    }

    /// What ended all reading; nothing while it goes on.
    pub(super) fn over(&self) -> Option<&ReadCause> {
        self.over.get()
    }

    /// Reads nothing any more, for `cause`.
    pub(super) fn end(&self, cause: &ReadCause) {
        self.over.get_or_init(|| cause.clone());
    }

    fn ask<T>(
        &self,
        address: Address,
        wanted: usize,
        is_over: impl FnOnce(&ReadCause) -> bool,
        ask: impl FnOnce() -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let address = self.width.place(address);
        if let Some(cause) = self.over.get() {
            return Err(ReadError { address, wanted, got: 0, cause: cause.clone() });
        }
        ask().map_err(|error| {
            if is_over(&error.cause) {
                self.over.get_or_init(|| error.cause.clone());
            }
            ReadError { address: self.width.place(error.address), ..error }
        })
    }
}

impl Memory for Patience<'_> {
    fn read_virtual(&self, address: VirtAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        let address = self.width.cut(address);
        self.ask(Address::Virtual(address), buf.len(), is_over, || self.inner.read_virtual(address, buf))
    }

    fn read_physical(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        self.ask(Address::Physical(address), buf.len(), is_over, || self.inner.read_physical(address, buf))
    }

    fn search_virtual(&self, range: Range<VirtAddr>, pattern: &[u8]) -> Result<Option<VirtAddr>, ReadError> {
        // The end may lie at the end of the address space, just above what it has addresses for.
        let start = self.width.cut(range.start);
        let range = start..start.offset(range.end.since(range.start));
        let address = Address::Virtual(range.start);
        // A target that is silent at a search may still answer reads.
        let is_over = |cause: &ReadCause| is_over(cause) && !matches!(cause, ReadCause::NoAnswer { .. });
        let found =
            self.ask(address, pattern.len(), is_over, || self.inner.search_virtual(range, pattern))?;
        Ok(found.map(|at| self.width.cut(at)))
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

/// True if a read failed because nothing can be read at this time, whatever the address.
#[must_use]
pub const fn is_over(cause: &ReadCause) -> bool {
    cause.is_of_link()
}
