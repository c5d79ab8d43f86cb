//! The log of recent pool allocations and frees: `nt!VfPoolTraces`.
//!
//! ```text
//!  VfPoolTraces -> _VF_POOL_TRACE[VfPoolTracesLength], a ring
//!                    ^ newest: VfPoolTracesIndex & (Length - 1); the one before it is the slot below
//!  entry: Address, Size, Thread, StackTrace[N], N = (sizeof - its offset) / pointer
//! ```
//! 8 MiB on Windows 7, up to 424 MiB on Windows 11: the target searches it itself (`search.rs`) where it can; otherwise it
//! is read in large pieces from the newest entry down, and only what matches is kept. The kernel does not record whether
//! an entry is an allocation or a free.
//!
//! Source: verifier.md 4.

mod search;

use std::fmt;
use std::ops::Range;

use serde::Serialize;

use super::format::Era;
use super::frames::{self, Frame, Names};
use super::{failed, text, usage};
use crate::commands::{Answer, Note, Query, QueryError, Style};
use crate::output;
use crate::target::{Layout, Place, ReadCause, Target, TargetError, VirtAddr, is_over};

/// Entries shown if neither an address nor a quantity is given. WinDbg's own default is not known; the whole log would
/// be tens of thousands.
const DEFAULT_QUANTITY: u64 = 0x40;
/// Longest log that any kernel makes, in entries.
const MAX_LENGTH: u64 = 0x80_0000;
/// Most entries kept in one answer, and most return addresses of them all: some 40 MiB.
const MAX_ENTRIES: usize = 0x1_0000;
const MAX_FRAMES: usize = 0x10_0000;
/// Bytes asked for at once; the layer below splits them as its transport needs.
const PIECE: u64 = 0x1_0000;
/// A hole is passed over page by page.
const PAGE: u64 = 0x1000;
/// Unused slots in a row after which nothing older is looked for, unless an address is searched for.
const MAX_UNUSED: u64 = 0x200;
/// Most unreadable pages of the log that are passed over: a wild pointer is not followed for a hundred thousand.
const MAX_HOLES: usize = 0x100;

/// Asks for entries of the pool log.
#[derive(Clone, Copy, Debug)]
pub struct PoolLogQuery {
    /// Which entries.
    pub wanted: Wanted,
}

/// Which entries of the log are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Those of the block that the address lies in.
    Address(VirtAddr),
    /// The newest ones, as many as given or as is usual.
    Newest(Option<u64>),
    /// What the user typed: up to the log's length a quantity, else an address.
    Number(u64),
}

/// Entries of the pool log, newest first.
#[derive(Clone, Debug, Serialize)]
pub struct PoolLog {
    /// The time that the target's Windows is of.
    pub era: Era,
    /// Entries that the log has room for.
    pub length: u64,
    /// `VfPoolTracesIndex`: counts events, its low bits are the newest slot.
    pub index: u32,
    /// The address that was searched for, if one was.
    #[serde(serialize_with = "output::address_or_null")]
    pub address: Option<VirtAddr>,
    /// How many of the newest were asked for, if no address was.
    pub quantity: Option<u64>,
    /// How the log was looked through.
    pub method: Method,
    /// Entries that were looked at.
    pub parsed: u64,
    /// Entries among them that could not be read.
    pub unreadable: u64,
    /// What was found.
    pub entries: Vec<PoolLogEntry>,
    /// What is missing.
    pub notes: Vec<Note>,
    /// Bytes of a pointer.
    #[serde(skip)]
    pub pointer_size: usize,
}

/// How a log is looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Every entry was read.
    Read,
    /// The target searched its own memory.
    Search,
}

/// One allocation or free.
#[derive(Clone, Debug, Serialize)]
pub struct PoolLogEntry {
    /// Its place in the log's array.
    pub slot: u64,
    /// The block.
    #[serde(serialize_with = "output::address")]
    pub address: VirtAddr,
    /// Bytes: of an allocation as asked for, of a free as the pool rounds them.
    pub size: u64,
    /// The thread that did it, an `_ETHREAD`.
    #[serde(serialize_with = "output::address")]
    pub thread: VirtAddr,
    /// Return addresses, the innermost first; ends at the first empty one.
    pub stack: Vec<Frame>,
    /// The end of the stack could not be read.
    pub stack_cut: bool,
}

impl Query for PoolLogQuery {
    type Answer = PoolLog;

    fn run(&self, target: &Target<'_>) -> Result<PoolLog, QueryError> {
        let ring = Ring::read(target)?;
        let filter = ring.filter(self.wanted)?;
        let (address, quantity) = match filter {
            Filter::Covers(address) => (Some(address), None),
            Filter::Newest(quantity) => (None, Some(quantity)),
        };
        let mut log = PoolLog {
            era: Era::of(target),
            length: ring.length,
            index: ring.index,
            address,
            quantity,
            method: Method::Read,
            parsed: 0,
            unreadable: 0,
            entries: Vec::new(),
            notes: Vec::new(),
            pointer_size: ring.entry.pointer_size,
        };
        let is_found = match address {
            Some(address) if ring.is_worth_searching() => search::find(&ring, target, address, &mut log),
            _ => false,
        };
        if !is_found {
            ring.scan(target, &filter, &mut log);
        }
        let mut names = Names::new(target);
        names.name_all(log.entries.iter_mut().flat_map(|entry| &mut entry.stack));
        log.notes.extend(names.notes());
        if let (true, Some(address), true) = (log.entries.is_empty(), address, log.parsed == log.length) {
            log.notes.push(Note::failed(format!(
                "No entry of the log is about a block that {address} lies in. It was allocated before the oldest of the \
                 log's {:#x} entries, by a driver that is not verified, or the address is not in a pool block.",
                log.length
            )));
        }
        Ok(log)
    }
}

enum Filter {
    Covers(VirtAddr),
    Newest(u64),
}

impl Filter {
    fn takes(&self, address: VirtAddr, size: u64) -> bool {
        match self {
            // The block's own address always matches, whatever its size says.
            Self::Covers(wanted) => *wanted == address || wanted.since(address) < size,
            Self::Newest(_) => true,
        }
    }
}

/// The log as an array in the target.
struct Ring {
    start: VirtAddr,
    length: u64,
    index: u32,
    entry: EntryLayout,
}

/// Where an entry's fields are.
struct EntryLayout {
    size: u64,
    pointer_size: usize,
    address: Place,
    bytes: Place,
    thread: Place,
    stack: usize,
}

impl EntryLayout {
    fn of(layout: &Layout) -> Result<Self, TargetError> {
        Ok(Self {
            size: layout.size() as u64,
            pointer_size: layout.pointer_size(),
            address: layout.place("Address")?,
            bytes: layout.place("Size")?,
            thread: layout.place("Thread")?,
            stack: layout.offset("StackTrace")? as usize,
        })
    }

    /// Block address, size and thread.
    fn head(&self, bytes: &[u8]) -> Option<(VirtAddr, u64, VirtAddr)> {
        let read = |place: &Place| place.uint(bytes);
        Some((VirtAddr(read(&self.address)?), read(&self.bytes)?, VirtAddr(read(&self.thread)?)))
    }

    fn stack(&self, bytes: &[u8]) -> Vec<Frame> {
        frames::stack(bytes.get(self.stack..).unwrap_or_default(), self.pointer_size)
    }
}

impl Ring {
    fn read(target: &Target<'_>) -> Result<Self, QueryError> {
        let layout = target.layout("nt!_VF_POOL_TRACE").map_err(failed)?;
        let entry = EntryLayout::of(&layout).map_err(failed)?;
        let names = ["nt!VfPoolTraces", "nt!VfPoolTracesIndex", "nt!VfPoolTracesLength"];
        let sizes = [entry.pointer_size, 4, 4];
        let mut ranges = Vec::new();
        for (name, size) in names.iter().zip(sizes) {
            ranges.push((target.address_of(name).map_err(failed)?, size));
        }
        let mut values = [0; 3];
        for ((value, name), answer) in values.iter_mut().zip(names).zip(target.read_ranges(&ranges)) {
            let bytes = answer.map_err(|error| failed(TargetError::read(name, error)))?;
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(&bytes);
            *value = u64::from_le_bytes(word);
        }
        let [start, index, length] = values;
        if start == 0 {
            let reason = "this kernel keeps no pool log (nt!VfPoolTraces is 0): Driver Verifier is off, pool tracking is \
                          not among its options, or the log is switched off. Turn pool tracking on with verifier.exe on \
                          the target (/flags 0x8) and restart it.";
            return Err(QueryError::NoData { command: super::NAME, reason: reason.to_owned() });
        }
        let unexpected =
            |wrong| failed(TargetError::Unexpected { what: "pool log", address: VirtAddr(start), wrong });
        if !length.is_power_of_two() || length > MAX_LENGTH {
            return Err(unexpected(format!(
                "nt!VfPoolTracesLength is {length:#x}; every kernel's log has a power of two, at most {MAX_LENGTH:#x}"
            )));
        }
        if !(1..=PIECE).contains(&entry.size) {
            return Err(unexpected(format!("the symbols say that an entry has {:#x} bytes", entry.size)));
        }
        Ok(Self { start: VirtAddr(start), length, index: index as u32, entry })
    }

    fn filter(&self, wanted: Wanted) -> Result<Filter, QueryError> {
        let quantity = |quantity: u64| Filter::Newest(quantity.min(self.length));
        match wanted {
            Wanted::Address(address) => Ok(Filter::Covers(address)),
            Wanted::Newest(given) => Ok(quantity(given.unwrap_or(DEFAULT_QUANTITY))),
            Wanted::Number(0) => Ok(quantity(DEFAULT_QUANTITY)),
            Wanted::Number(number) if number <= self.length => Ok(quantity(number)),
            Wanted::Number(number) if self.is_kernel(number) => Ok(Filter::Covers(VirtAddr(number))),
            Wanted::Number(number) => Err(usage(format!(
                "{number:#x} is no kernel address, and more than the {:#x} entries of the log",
                self.length
            ))),
        }
    }

    fn is_kernel(&self, address: u64) -> bool {
        if self.entry.pointer_size == 8 { VirtAddr(address).is_kernel() } else { address >= 0x8000_0000 }
    }

    /// A log of a few requests is read sooner than it is searched.
    fn is_worth_searching(&self) -> bool {
        self.length * self.entry.size > PIECE
    }

    /// How many events ago the slot was written.
    fn age(&self, slot: u64) -> u64 {
        u64::from(self.index).wrapping_sub(slot) & (self.length - 1)
    }

    /// Reads from the newest entry down and once around, until the filter has enough.
    fn scan(&self, target: &Target<'_>, filter: &Filter, log: &mut PoolLog) {
        let newest = u64::from(self.index) & (self.length - 1);
        let mut progress = Progress::default();
        for part in [0..newest + 1, newest + 1..self.length] {
            let mut end = part.end;
            while end > part.start {
                let most = match filter {
                    Filter::Covers(_) => PIECE / self.entry.size,
                    // Whoever meets unused slots has to look further than was asked for.
                    Filter::Newest(_) if progress.unused > 0 => PIECE / self.entry.size,
                    Filter::Newest(quantity) => {
                        (quantity - log.entries.len() as u64).clamp(1, PIECE / self.entry.size)
                    }
                };
                let slots = end.saturating_sub(most).max(part.start)..end;
                end = slots.start;
                if !self.scan_piece(target, slots, filter, log, &mut progress) {
                    progress.note(log);
                    return;
                }
            }
        }
        progress.note(log);
    }

    /// Looks at some slots, the highest first; false if that was enough.
    fn scan_piece(
        &self,
        target: &Target<'_>,
        slots: Range<u64>,
        filter: &Filter,
        log: &mut PoolLog,
        progress: &mut Progress,
    ) -> bool {
        let size = self.entry.size;
        let at = self.start.offset(slots.start * size);
        let piece = Piece::read(target, at, (slots.end - slots.start) * size);
        progress.pages += piece.holes.len();
        if let Some(cause) = piece.over {
            log.notes.push(Note::partial(format!("Reading the log was broken off: {cause}")));
            return false;
        }
        for slot in slots.clone().rev() {
            let from = (slot - slots.start) * size;
            log.parsed += 1;
            let bytes = piece.entry(from, size);
            let Some((address, block_size, thread)) = self.entry.head(bytes) else {
                log.unreadable += 1;
                progress.add_unreadable(slot);
                continue;
            };
            if address.is_null() && block_size == 0 && thread.is_null() {
                progress.unused += 1;
                continue;
            }
            progress.unused = 0;
            if !filter.takes(address, block_size) {
                continue;
            }
            let stack_cut = (bytes.len() as u64) < size;
            let stack = self.entry.stack(bytes);
            log.entries.push(PoolLogEntry { slot, address, size: block_size, thread, stack, stack_cut });
            if matches!(filter, Filter::Newest(quantity) if log.entries.len() as u64 == *quantity) {
                return false;
            }
            progress.frames += log.entries.last().map_or(0, |entry| entry.stack.len());
            if log.entries.len() == MAX_ENTRIES || progress.frames >= MAX_FRAMES {
                let kept = log.entries.len();
                log.notes.push(Note::partial(format!(
                    "Only the newest {kept:#x} of the entries that fit are shown"
                )));
                return false;
            }
        }
        if progress.pages > MAX_HOLES {
            let pages = progress.pages;
            log.notes
                .push(Note::partial(format!("Reading the log was given up after {pages} unreadable pages")));
            return false;
        }
        // The ring fills in order: below a run of slots that were never used there are only more of them.
        progress.unused < MAX_UNUSED || matches!(filter, Filter::Covers(_))
    }
}

/// A piece of the log, perhaps with unreadable pages in it.
struct Piece {
    bytes: Vec<u8>,
    /// Unreadable bytes, in order.
    holes: Vec<Range<u64>>,
    /// Why reading anything more is pointless.
    over: Option<ReadCause>,
}

impl Piece {
    fn read(target: &Target<'_>, at: VirtAddr, len: u64) -> Self {
        let mut piece = Self { bytes: vec![0; len as usize], holes: Vec::new(), over: None };
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
        }
        piece
    }

    /// The bytes of an entry up to the first that could not be read.
    fn entry(&self, from: u64, size: u64) -> &[u8] {
        let hole = self.holes.iter().find(|hole| from < hole.end && hole.start < from + size);
        let end = hole.map_or(from + size, |hole| hole.start.max(from));
        &self.bytes[from as usize..end as usize]
    }
}

/// What a scan has met so far beside entries.
#[derive(Default)]
struct Progress {
    /// Unused slots since the last used one.
    unused: u64,
    /// Return addresses kept.
    frames: usize,
    /// Unreadable pages.
    pages: usize,
    /// Unreadable slots, and the first and last of them.
    slots: u64,
    lowest: u64,
    highest: u64,
}

impl Progress {
    fn add_unreadable(&mut self, slot: u64) {
        if self.slots == 0 {
            (self.lowest, self.highest) = (slot, slot);
        }
        self.slots += 1;
        (self.lowest, self.highest) = (self.lowest.min(slot), self.highest.max(slot));
    }

    fn note(&self, log: &mut PoolLog) {
        if self.slots > 0 {
            let Self { slots, lowest, highest, .. } = self;
            log.notes.push(Note::partial(format!(
                "{slots:#x} entries of the log cannot be read (slots {lowest:#x} to {highest:#x}: not mapped)"
            )));
        }
    }
}

impl Answer for PoolLog {
    fn write_text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        self.write_styled(&Style::default(), out)
    }

    fn write_styled(&self, style: &Style, out: &mut dyn fmt::Write) -> fmt::Result {
        text::write_pool_log(self, style.verifier.dialect(self.era), out)
    }

    fn notes(&self) -> &[Note] {
        &self.notes
    }
}
