//! What was logged while the target was let run, read a little at every stop.
//!
//! ```text
//!   first stop .................. the stop before | this stop
//!   | read, oldest first --> ... | readable       | may be half written: read at a later stop
//! ```
//! An entry is read only at a stop behind the one in which its slot was taken: whoever was stopped while it wrote it has
//! gone on since. What the log has written over before it was read is lost, and counted.

use std::collections::HashMap;
use std::ops::Range;

use super::super::frames::Frame;
use super::super::pool_log::Log;
use super::super::ring::{USUAL_UNSETTLED, events_since};
use crate::memory::reply_len;
use crate::target::{ReadCause, Target, VirtAddr};

/// Most entries that are kept: more are counted as lost.
const MAX_ENTRIES: usize = 0x10_0000;

/// An entry that was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Events since the first stop, this one included.
    pub(super) at: u64,
    pub(super) address: VirtAddr,
    pub(super) size: u64,
    pub(super) thread: VirtAddr,
    /// Number of its stack.
    pub(super) stack: usize,
}

/// The log since the first stop.
pub(super) struct Entries {
    pub(super) log: Log,
    /// Events since the first stop that there were at this one, and at the one before.
    now: u64,
    before: u64,
    /// Up to which event it was read.
    pub(super) read_to: u64,
    pub(super) entries: Vec<Entry>,
    /// Each stack once.
    pub(super) stacks: Vec<Vec<Frame>>,
    numbers: HashMap<Vec<VirtAddr>, usize>,
    /// Events that are not known.
    pub(super) lost: Vec<Range<u64>>,
}

impl Entries {
    /// From the present stop on, at which `log` was read.
    pub(super) fn new(log: Log) -> Self {
        Self {
            log,
            now: 0,
            before: 0,
            read_to: 0,
            entries: Vec::new(),
            stacks: Vec::new(),
            numbers: HashMap::new(),
            lost: Vec::new(),
        }
    }

    /// Events since the first stop.
    pub(super) const fn now(&self) -> u64 {
        self.now
    }

    /// `VfPoolTracesIndex` after so many events.
    pub(super) const fn index_at(&self, event: u64) -> u32 {
        self.log.ring.index.wrapping_add(event as u32)
    }

    /// Learns how far the log has come: the target was let run.
    pub(super) fn next_stop(&mut self, target: &Target<'_>) -> Result<(), ReadCause> {
        let index = self.log.ring.read_index(target).map_err(|error| error.cause)?;
        self.before = self.now;
        self.now = self.now.max(events_since(self.log.ring.index, index));
        Ok(())
    }

    /// True once so much was logged that what was not read is about to be written over.
    pub(super) const fn is_pressing(&self) -> bool {
        self.now - self.read_to > self.log.ring.length / 4
    }

    /// Events up to `end` that can be read at this stop, and were not.
    pub(super) fn readable(&self, end: u64) -> u64 {
        self.before.min(end).saturating_sub(self.read_to)
    }

    /// Reads on towards the event `end`, for as many requests as given, one entry at the least if there is one to be read.
    pub(super) fn read(&mut self, target: &Target<'_>, end: u64, requests: u64) -> Result<(), ReadCause> {
        let ring = self.log.ring;
        let mut budget = (requests.saturating_mul(reply_len(target.memory())) / ring.size).max(1);
        self.pass_over(self.now.saturating_sub(ring.length.saturating_sub(USUAL_UNSETTLED)), end);
        while budget > 0 && self.readable(end) > 0 {
            if self.entries.len() >= MAX_ENTRIES {
                self.pass_over(end, end);
                return Ok(());
            }
            let slot = u64::from(self.index_at(self.read_to + 1)) & (ring.length - 1);
            let count = self.readable(end).min(budget).min(ring.length - slot);
            let piece = ring.piece(target, &(slot..slot + count));
            if let Some(cause) = piece.over {
                return Err(cause);
            }
            for number in 0..count {
                self.keep(self.read_to + 1 + number, piece.entry(number * ring.size, ring.size));
            }
            self.read_to += count;
            budget -= count;
        }
        Ok(())
    }

    /// Counts the events up to `to` as lost, as far as they are not read and wanted.
    fn pass_over(&mut self, to: u64, end: u64) {
        let to = to.min(end);
        if to > self.read_to {
            self.lose(self.read_to + 1..to + 1);
            self.read_to = to;
        }
    }

    fn lose(&mut self, events: Range<u64>) {
        match self.lost.last_mut().filter(|last| last.end == events.start) {
            Some(last) => last.end = events.end,
            None => self.lost.push(events),
        }
    }

    fn keep(&mut self, at: u64, bytes: &[u8]) {
        let Some((address, size, thread)) = self.log.entry.head(bytes) else { return self.lose(at..at + 1) };
        if address.is_null() && size == 0 && thread.is_null() {
            // Taken, and never written.
            return self.lose(at..at + 1);
        }
        if address.is_null() {
            // A failed allocation.
            return;
        }
        let frames = self.log.entry.stack(bytes);
        let next = self.stacks.len();
        let stack = *self.numbers.entry(frames.iter().map(|frame| frame.address).collect()).or_insert(next);
        if stack == next {
            self.stacks.push(frames);
        }
        self.entries.push(Entry { at, address, size, thread, stack });
    }
}
