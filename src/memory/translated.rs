//! Virtual memory made of physical memory and page tables.

use std::ops::Range;
use std::sync::Arc;

use memchr::memmem::Finder;

use kd_protocol::{PhysAddr, VirtAddr};

use super::error::{Address, ReadCause, ReadError};
use super::physical::PhysicalMemory;
use super::standing::{Memory, StopId};
use super::translate::{PageTables, Paging, Translation, Translator};

/// Bytes that a search looks at in one piece.
const PIECE: u64 = 0x1_0000;

/// Physical memory, seen through the page tables at one root.
pub struct TranslatedMemory {
    physical: Arc<dyn PhysicalMemory>,
    translator: Translator,
}

impl TranslatedMemory {
    /// What a processor with this `cr3` sees of `physical`.
    #[must_use]
    pub fn new(physical: Arc<dyn PhysicalMemory>, cr3: u64, paging: Paging) -> Self {
        Self { physical, translator: Translator::new(cr3, paging) }
    }

    /// Forgets every table that was looked at: the machine has run.
    pub fn forget(&self) {
        self.translator.forget();
    }

    /// Where `address` leads.
    #[must_use]
    pub fn translate(&self, address: VirtAddr) -> Translation {
        self.translator.translate(&*self.physical, address)
    }
}

impl Memory for TranslatedMemory {
    fn read_virtual(&self, address: VirtAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        let wanted = buf.len();
        let fail = |got, cause| Err(ReadError { address: Address::Virtual(address), wanted, got, cause });
        let mut got = 0;
        while got < wanted {
            let Some(at) = address.0.checked_add(got as u64) else { return fail(got, ReadCause::NotMapped) };
            match self.translate(VirtAddr(at)) {
                Translation::Hole { cause, .. } => return fail(got, cause),
                Translation::Mapped { at, left } => {
                    let len = usize::try_from(left).unwrap_or(usize::MAX).min(wanted - got);
                    if let Err((some, cause)) = self.physical.read(at, &mut buf[got..got + len]) {
                        return fail(got + some, cause);
                    }
                    got += len;
                }
            }
        }
        Ok(())
    }

    fn read_physical(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        let wanted = buf.len();
        self.physical.read(address, buf).map_err(|(got, cause)| ReadError {
            address: Address::Physical(address),
            wanted,
            got,
            cause,
        })
    }

    /// Walks tables, not addresses: what is not mapped costs an entry, however large.
    fn search_virtual(&self, range: Range<VirtAddr>, pattern: &[u8]) -> Result<Option<VirtAddr>, ReadError> {
        if pattern.is_empty() {
            return Ok(None);
        }
        let finder = Finder::new(pattern);
        let fail = |at, cause| {
            Err(ReadError { address: Address::Virtual(VirtAddr(at)), wanted: pattern.len(), got: 0, cause })
        };
        // A match begins in the range; it may end behind it.
        let end = range.end.0.saturating_add(pattern.len() as u64 - 1);
        let mut at = range.start.0;
        // The end of what was looked at, in which a match may begin: it lies directly before `at`.
        let mut tail: Vec<u8> = Vec::new();
        while at < end {
            let (left, bytes) = match self.translate(VirtAddr(at)) {
                // What could not be looked at is no hole.
                Translation::Hole { cause, .. } if cause.is_of_link() => return fail(at, cause),
                Translation::Hole { left, .. } => (left, None),
                Translation::Mapped { at: physical, left } => {
                    let left = left.min(PIECE).min(end - at);
                    let mut bytes = vec![0; left as usize];
                    match self.physical.read(physical, &mut bytes) {
                        Ok(()) => (left, Some(bytes)),
                        Err((_, cause)) if cause.is_of_link() => return fail(at, cause),
                        Err(_) => (left, None),
                    }
                }
            };
            match bytes {
                None => tail.clear(),
                Some(bytes) => {
                    let begin = at - tail.len() as u64;
                    tail.extend_from_slice(&bytes);
                    if let Some(found) = finder.find(&tail) {
                        let found = VirtAddr(begin + found as u64);
                        return Ok(Some(found).filter(|found| range.contains(found)));
                    }
                    tail.drain(..tail.len().saturating_sub(pattern.len() - 1));
                }
            }
            let Some(next) = at.checked_add(left) else { break };
            at = next;
        }
        Ok(None)
    }

    fn page_tables(&self) -> Result<PageTables, ReadCause> {
        Ok(self.translator.page_tables())
    }

    fn ram(&self) -> Option<Vec<Range<u64>>> {
        Some(self.physical.ranges())
    }

    fn stop(&self) -> StopId {
        StopId(0)
    }
}
