//! Letting the target find the newest entry of its pool log for a block.
//!
//! ```text
//!  oldest ...... newest | newest+1 ...... end      the part up to the newest slot is searched first
//!     ^-- hit, hit, ..                             a search gives the lowest slot: from two hits on the rest is halved
//! ```
//! A block that was never freed costs two searches: one that finds its entry, one that finds no newer.
//!
//! Source: verifier.md 4.1, PROTOCOL.md 9.

use std::ops::Range;

use super::super::ring::Ring;
use super::source::Log;
use crate::memory::{ReadError, searches};
use crate::target::{Target, VirtAddr};

/// Searches in a log, and what they came to.
pub(in super::super) struct Newest<'a> {
    pub(in super::super) log: &'a Log,
    /// Where it is now.
    pub(in super::super) ring: Ring,
    pub(in super::super) target: &'a Target<'a>,
    /// Requests so far.
    pub(in super::super) requests: u64,
}

impl Newest<'_> {
    /// The newest slot whose entry is about a block that begins at `address`.
    ///
    /// # Errors
    /// [`ReadError`] if the target did not search.
    pub(in super::super) fn slot(&mut self, address: VirtAddr) -> Result<Option<u64>, ReadError> {
        for part in self.ring.parts() {
            let last = self.last_in(part, address)?;
            if last.is_some() {
                return Ok(last);
            }
        }
        Ok(None)
    }

    fn last_in(&mut self, part: Range<u64>, address: VirtAddr) -> Result<Option<u64>, ReadError> {
        let Some(first) = self.first_in(part.clone(), address)? else { return Ok(None) };
        let Some(mut last) = self.first_in(first + 1..part.end, address)? else { return Ok(Some(first)) };
        let (mut from, mut end) = (last + 1, part.end);
        while from < end {
            let middle = from + (end - from) / 2;
            match self.first_in(middle..end, address)? {
                Some(later) => (last, from) = (later, later + 1),
                None => end = middle,
            }
        }
        Ok(Some(last))
    }

    fn first_in(&mut self, mut slots: Range<u64>, address: VirtAddr) -> Result<Option<u64>, ReadError> {
        let ring = &self.ring;
        let field = self.log.entry.address.offset;
        let bytes = address.0.to_le_bytes();
        while !slots.is_empty() {
            let range = ring.at(slots.start).offset(field)..ring.at(slots.end);
            let found = self.target.memory().search_virtual(range.clone(), &bytes[..ring.pointer_size])?;
            // A hit outside of the range is none.
            let found = found.filter(|found| range.contains(found));
            let looked_at = found.unwrap_or(range.end).since(range.start);
            self.requests += searches(looked_at).max(1);
            let Some(offset) = found.map(|found| found.since(ring.start)) else { return Ok(None) };
            let slot = offset / ring.size;
            if offset % ring.size == field {
                return Ok(Some(slot));
            }
            // What stands elsewhere in an entry is no block's address.
            slots.start = if offset % ring.size < field { slot } else { slot + 1 };
        }
        Ok(None)
    }
}
