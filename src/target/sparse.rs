//! A range of memory with holes in it: one read where there are none.

use std::ops::Range;

use memchr::memmem;

use super::patience::is_over;
use crate::memory::{Memory, ReadCause, VirtAddr};

/// A hole is passed over page by page.
const PAGE: u64 = 0x1000;
/// Most holes that are passed over: unmapped ranges may be as long as the address space.
const MAX_HOLES: usize = 0x100;

/// The bytes of a range, as far as they can be read.
#[derive(Clone, Debug)]
pub struct SparseBytes {
    bytes: Vec<u8>,
    /// Offsets of the bytes that could be read, in order.
    readable: Vec<Range<usize>>,
    /// Where the reading ended; what lies behind was not asked for.
    end: usize,
    /// What ended the reading for good.
    over: Option<ReadCause>,
    /// Why the first byte that is missing could not be read.
    missing: Option<ReadCause>,
}

impl SparseBytes {
    /// Reads `len` bytes from `at`, in one read if none is missing; unreadable pages are passed over.
    pub(super) fn read(memory: &dyn Memory, at: VirtAddr, len: usize) -> Self {
        let mut sparse =
            Self { bytes: vec![0; len], readable: Vec::new(), over: None, missing: None, end: 0 };
        let mut from = 0;
        for _ in 0..MAX_HOLES {
            if from == len {
                break;
            }
            let read = memory.read_virtual(at.offset(from as u64), &mut sparse.bytes[from..]);
            let got = read.as_ref().map_or_else(|error| error.got.min(len - from), |()| len - from);
            if got > 0 {
                sparse.readable.push(from..from + got);
            }
            let Err(error) = read else {
                from = len;
                break;
            };
            sparse.missing.get_or_insert_with(|| error.cause.clone());
            if is_over(&error.cause) {
                sparse.over = Some(error.cause);
                from += got;
                break;
            }
            let bad = from + got;
            // A read that failed may have left anything behind what it says it got.
            sparse.bytes[bad..].fill(0);
            let left = PAGE - at.offset(bad as u64).0 % PAGE;
            from = bad.saturating_add(left as usize).min(len);
        }
        sparse.end = from;
        sparse
    }

    /// The bytes in `range`, if all of them could be read.
    #[must_use]
    pub fn get(&self, range: Range<usize>) -> Option<&[u8]> {
        let holds = |run: &Range<usize>| run.start <= range.start && range.end <= run.end;
        self.readable.iter().any(holds).then(|| &self.bytes[range])
    }

    /// A little-endian number of `size` bytes, at most 8.
    #[must_use]
    pub fn uint(&self, offset: usize, size: usize) -> Option<u64> {
        let mut word = [0; 8];
        word.get_mut(..size)?.copy_from_slice(self.get(offset..offset.checked_add(size)?)?);
        Some(u64::from_le_bytes(word))
    }

    /// Where `pattern` first lies whole in what could be read.
    #[must_use]
    pub fn find(&self, pattern: &[u8]) -> Option<usize> {
        let mut joined: Vec<Range<usize>> = Vec::new();
        // Reads that follow one another without a hole are one run.
        for run in &self.readable {
            match joined.last_mut().filter(|last| last.end == run.start) {
                Some(last) => last.end = run.end,
                None => joined.push(run.clone()),
            }
        }
        joined.into_iter().find_map(|run| Some(run.start + memmem::find(&self.bytes[run], pattern)?))
    }

    /// All of the range, with zeros where nothing could be read.
    #[must_use]
    pub fn with_zeros(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bytes were asked for.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True if none were asked for.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many of them could be read.
    #[must_use]
    pub fn readable_len(&self) -> usize {
        self.readable.iter().map(ExactSizeIterator::len).sum()
    }

    /// Why the first byte that is missing could not be read; nothing if none is.
    #[must_use]
    pub const fn missing(&self) -> Option<&ReadCause> {
        self.missing.as_ref()
    }

    /// Where the reading ended: at its length, unless it was broken off or met too many holes.
    #[must_use]
    pub const fn end(&self) -> usize {
        self.end
    }

    /// What ended the reading before the end of the range: Ctrl+C, a target that is gone.
    #[must_use]
    pub const fn over(&self) -> Option<&ReadCause> {
        self.over.as_ref()
    }
}

/// Bytes without a hole.
impl From<Vec<u8>> for SparseBytes {
    fn from(bytes: Vec<u8>) -> Self {
        let (all, end) = (0..bytes.len(), bytes.len());
        Self { bytes, readable: vec![all], over: None, missing: None, end }
    }
}
