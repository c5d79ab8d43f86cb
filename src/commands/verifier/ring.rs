//! Driver Verifier's logs are rings: an array of records, and an index that counts what was ever written.
//!
//! ```text
//!  pointer -> record[Length], a power of two
//!               ^ newest: Index & (Length - 1); the one before it is the slot below
//! ```
//! Read in large pieces from the newest record down. Whoever writes a record counts first and fills it in after, so
//! on a machine that was stopped in between the newest may still have parts of the one that it replaces.
//!
//! Source: verifier.md 4.1, 5.

use std::ops::Range;

use super::common::{NAME, failed, usage};

use crate::commands::error::QueryError;
use crate::memory::PIECE;
use crate::target::{Note, NoteCode, ReadCause, ReadError, Target, TargetError, VirtAddr, is_over};

/// Longest ring that any kernel makes, in records.
const MAX_LENGTH: u64 = 0x80_0000;
/// Newest records that may be half written: no machine has more processors than this, and most have not as many as that.
pub(super) const MAX_UNSETTLED: u64 = 0x800;
pub(super) const USUAL_UNSETTLED: u64 = 0x40;
/// A hole is passed over page by page.
const PAGE: u64 = 0x1000;

/// Which records of a log are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Those that the address is part of.
    Address(VirtAddr),
    /// The newest ones, as many as given or as is usual.
    Newest(Option<u64>),
    /// What the user typed: up to the longest log's length a quantity, else an address.
    Number(u64),
}

/// Which records a scan keeps.
#[derive(Clone, Copy, Debug)]
pub(super) enum Filter {
    All,
    Address(VirtAddr),
    Newest(u64),
}

impl Filter {
    /// The address and the quantity that it is, one of which is nothing.
    pub(super) const fn parts(self) -> (Option<VirtAddr>, Option<u64>) {
        match self {
            Self::All => (None, None),
            Self::Address(address) => (Some(address), None),
            Self::Newest(quantity) => (None, Some(quantity)),
        }
    }
}

/// The kernel's variables of a ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Variables {
    /// Points to the first record; 0 if there is no log.
    pub(super) pointer: &'static str,
    pub(super) index: &'static str,
    pub(super) length: &'static str,
}

/// A ring in the target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring {
    pub(super) start: VirtAddr,
    pub(super) length: u64,
    pub(super) index: u32,
    /// The kernel's variable that it is.
    pub(super) index_at: VirtAddr,
    /// Events since: so many of the oldest records were written over by then.
    pub(super) since: u64,
    /// Bytes of a record.
    pub(super) size: u64,
    pub(super) pointer_size: usize,
}

impl Ring {
    /// Reads the variables of a ring whose records have `size` bytes; nothing if its pointer is 0.
    pub(super) fn read(
        target: &Target<'_>,
        names: &Variables,
        size: u64,
        pointer_size: usize,
    ) -> Result<Option<Self>, QueryError> {
        let variables = [(names.pointer, pointer_size), (names.index, 4), (names.length, 4)];
        let mut ranges = Vec::new();
        for (name, size) in variables {
            ranges.push((target.address_of(name).map_err(failed)?, size));
        }
        let mut values = [0; 3];
        for ((value, (name, _)), answer) in values.iter_mut().zip(variables).zip(target.read_ranges(&ranges))
        {
            let bytes = answer.map_err(|error| failed(TargetError::read(name, error)))?;
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(&bytes);
            *value = u64::from_le_bytes(word);
        }
        let [start, index, length] = values;
        if start == 0 {
            return Ok(None);
        }
        let unexpected = |wrong| {
            failed(TargetError::Unexpected { what: "log", address: target.shown(VirtAddr(start)), wrong })
        };
        if !length.is_power_of_two() || length > MAX_LENGTH {
            return Err(unexpected(format!(
                "{} is {length:#x}; every kernel's log has a power of two, at most {MAX_LENGTH:#x}",
                names.length
            )));
        }
        if !(1..=PIECE).contains(&size) {
            return Err(unexpected(format!("the symbols say that an entry has {size:#x} bytes")));
        }
        let (start, index, index_at) = (VirtAddr(start), index as u32, ranges[1].0);
        Ok(Some(Self { start, length, index, index_at, since: 0, size, pointer_size }))
    }

    /// Reads the index anew, of a target that was let run.
    pub(super) fn read_index(&self, target: &Target<'_>) -> Result<u32, ReadError> {
        let bytes = target.read_ranges(&[(self.index_at, 4)]).pop().expect("one answer per range")?;
        Ok(bytes.try_into().map_or(self.index, u32::from_le_bytes))
    }

    /// Learns how many events came since, of a target that was let run.
    pub(super) fn catch_up(&mut self, target: &Target<'_>) -> Result<(), ReadError> {
        self.since = events_since(self.index, self.read_index(target)?);
        Ok(())
    }

    /// Records that hold what they held when the index was as it is here; those that may be being written over are none.
    pub(super) fn kept(&self) -> u64 {
        match self.since {
            0 => self.length,
            since => self.length.saturating_sub(since + USUAL_UNSETTLED),
        }
    }

    /// The slot of the record that was written so many events before the newest.
    pub(super) fn slot_of(&self, age: u64) -> u64 {
        self.newest().wrapping_sub(age) & (self.length - 1)
    }

    /// What `wanted` means for this ring; `usual` is how many are shown if nothing says how many.
    pub(super) fn filter(
        &self,
        target: &Target<'_>,
        wanted: Wanted,
        usual: u64,
    ) -> Result<Filter, QueryError> {
        let quantity = |quantity: u64| Filter::Newest(quantity.min(self.length));
        match wanted {
            Wanted::Address(address) => Ok(Filter::Address(target.address(address.0))),
            Wanted::Newest(given) => Ok(quantity(given.unwrap_or(usual))),
            Wanted::Number(0) => Ok(quantity(usual)),
            Wanted::Number(number) if number <= MAX_LENGTH => Ok(quantity(number)),
            Wanted::Number(number) if target.is_kernel(target.address(number)) => {
                Ok(Filter::Address(target.address(number)))
            }
            Wanted::Number(number) => Err(usage(format!(
                "{number:#x} is no kernel address, and more than the {:#x} entries of the log",
                self.length
            ))),
        }
    }

    /// How long it is, in bytes.
    pub(super) const fn bytes(&self) -> u64 {
        self.length * self.size
    }

    /// Where a record is.
    pub(super) const fn at(&self, slot: u64) -> VirtAddr {
        self.start.offset(slot * self.size)
    }

    /// The slot that was written last.
    pub(super) fn newest(&self) -> u64 {
        u64::from(self.index) & (self.length - 1)
    }

    /// True if the slot is that of the newest of the records that were ever written.
    pub(super) fn is_newest(&self, slot: u64) -> bool {
        self.index > 0 && slot == self.newest()
    }

    /// How many events ago the slot was written.
    pub(super) fn age(&self, slot: u64) -> u64 {
        u64::from(self.index).wrapping_sub(slot) & (self.length - 1)
    }

    /// The slots in the order of a scan: down from the newest, and from the last down to the oldest that is
    /// [kept](Self::kept).
    pub(super) fn parts(&self) -> [Range<u64>; 2] {
        let (newest, gone) = (self.newest(), self.length - self.kept());
        [
            gone.saturating_sub(self.length - newest - 1)..newest + 1,
            (newest + 1 + gone).min(self.length)..self.length,
        ]
    }

    /// Reads some slots.
    pub(super) fn piece(&self, target: &Target<'_>, slots: &Range<u64>) -> Piece {
        Piece::read(target, self.at(slots.start), (slots.end - slots.start) * self.size)
    }
}

/// Events from one index to a later one. A kernel takes a slot back whose event it cannot log, so that an index may be a
/// little less than it was.
///
/// Source: verifier.md 4.1.
pub(super) const fn events_since(earlier: u32, later: u32) -> u64 {
    let events = later.wrapping_sub(earlier);
    if events.wrapping_neg() as u64 <= USUAL_UNSETTLED { 0 } else { events as u64 }
}

/// Says that the slot of the newest record has nothing in it.
pub(super) fn newest_is_empty(slot: u64) -> Note {
    Note::remark(
        NoteCode::UnderWay,
        format!(
            "The newest slot of the log ({slot:#x}) is empty: a processor was stopped between taking it and writing into it"
        ),
    )
}

/// How many of the newest records may be half written: each processor may have been stopped while it wrote one. One
/// request; nothing if the kernel doesn't say how many it has.
pub(super) fn unsettled(target: &Target<'_>) -> Option<u64> {
    let at = target.address_of("nt!KeNumberProcessors").ok()?;
    let count = target.read_ranges(&[(at, 4)]).pop()?.ok()?;
    // A byte in kernels that have 64 processors at most, and 4 later, whose upper ones are the next variable's then.
    let count = u64::from(*count.first()?);
    (count > 0).then_some(count)
}

/// A ring whose pointer is 0.
pub(super) fn no_log(names: &Variables, why: &str) -> QueryError {
    let reason = format!("this kernel keeps no such log ({} is 0): {why}", names.pointer);
    QueryError::NoData { command: NAME, reason }
}

/// A piece of a log, perhaps with unreadable pages in it.
pub(super) struct Piece {
    bytes: Vec<u8>,
    /// Unreadable bytes, in order.
    pub(super) holes: Vec<Range<u64>>,
    /// Why the first of them could not be read.
    pub(super) missing: Option<ReadCause>,
    /// Why reading anything more is pointless.
    pub(super) over: Option<ReadCause>,
}

impl Piece {
    fn read(target: &Target<'_>, at: VirtAddr, len: u64) -> Self {
        let mut piece = Self { bytes: vec![0; len as usize], holes: Vec::new(), missing: None, over: None };
        let mut from = 0;
        while from < len {
            let here = at.offset(from);
            let Err(error) = target.memory().read_virtual(here, &mut piece.bytes[from as usize..]) else {
                break;
            };
            if is_over(&error.cause) {
                piece.over = Some(error.cause);
                break;
            }
            let bad = from + (error.got as u64).min(len - from);
            let next_page = bad + (PAGE - at.offset(bad).0 % PAGE);
            from = next_page.min(len);
            piece.holes.push(bad..from);
            piece.missing.get_or_insert(error.cause);
        }
        piece
    }

    /// The bytes of a record up to the first that could not be read.
    pub(super) fn entry(&self, from: u64, size: u64) -> &[u8] {
        let hole = self.holes.iter().find(|hole| from < hole.end && hole.start < from + size);
        let end = hole.map_or(from + size, |hole| hole.start.max(from));
        &self.bytes[from as usize..end as usize]
    }
}
