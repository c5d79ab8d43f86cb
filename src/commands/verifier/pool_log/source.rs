//! The pool log in the target, and reading it from the newest entry down.

use super::super::common::failed;
use super::super::frames::{self, Frame};
use super::super::ring::{self, Filter, Ring, Variables};
use super::super::scan::{self, Scan, Seen};
use super::super::settings::{LEVEL_POOL_TRACKING, OPTION_NO_POOL_LOG, Settings};
use super::kind::Kind;
use super::log::{PoolLog, PoolLogEntry};
use crate::commands::error::QueryError;
use crate::memory::PIECE;
use crate::target::{Layout, Note, NoteCode, Place, ReadCause, Target, TargetError, VirtAddr};

/// Most entries kept in one answer, and most return addresses of them all: some 40 MiB.
const MAX_ENTRIES: usize = 0x1_0000;
const MAX_FRAMES: usize = 0x10_0000;

const VARIABLES: Variables =
    Variables { pointer: "nt!VfPoolTraces", index: "nt!VfPoolTracesIndex", length: "nt!VfPoolTracesLength" };

/// The log in the target.
pub(in super::super) struct Log {
    pub(in super::super) ring: Ring,
    pub(in super::super) entry: EntryLayout,
}

/// Where an entry's fields are.
pub(in super::super) struct EntryLayout {
    pub(super) pointer_size: usize,
    pub(in super::super) address: Place,
    pub(super) bytes: Place,
    pub(super) thread: Place,
    pub(super) stack: usize,
}

impl EntryLayout {
    pub(super) fn of(layout: &Layout) -> Result<Self, TargetError> {
        Ok(Self {
            pointer_size: layout.pointer_size(),
            address: layout.place("Address")?,
            bytes: layout.place("Size")?,
            thread: layout.place("Thread")?,
            stack: layout.offset("StackTrace")? as usize,
        })
    }

    /// Block address, size and thread.
    pub(in super::super) fn head(&self, bytes: &[u8]) -> Option<(VirtAddr, u64, VirtAddr)> {
        let read = |place: &Place| place.uint(bytes);
        Some((VirtAddr(read(&self.address)?), read(&self.bytes)?, VirtAddr(read(&self.thread)?)))
    }

    pub(in super::super) fn stack(&self, bytes: &[u8]) -> Vec<Frame> {
        frames::stack(bytes.get(self.stack..).unwrap_or_default(), self.pointer_size)
    }
}

impl Log {
    pub(in super::super) fn read(target: &Target<'_>) -> Result<Self, QueryError> {
        let layout = target.layout("nt!_VF_POOL_TRACE").map_err(failed)?;
        let entry = EntryLayout::of(&layout).map_err(failed)?;
        let ring = Ring::read(target, &VARIABLES, layout.size() as u64, entry.pointer_size)?;
        let ring = ring.ok_or_else(|| ring::no_log(&VARIABLES, &why_no_log(target)))?;
        Ok(Self { ring, entry })
    }

    /// Return addresses that an entry has room for.
    pub(super) const fn depth(&self) -> u64 {
        self.ring.size.saturating_sub(self.entry.stack as u64) / self.ring.pointer_size as u64
    }

    /// A log of a few requests is read sooner than it is searched.
    pub(super) const fn is_worth_searching(&self) -> bool {
        self.ring.bytes() > PIECE
    }

    /// True if the first, the last and the newest entry can be read: a search of what is not there finds nothing, too.
    pub(in super::super) fn ends_are_readable(&self, target: &Target<'_>) -> bool {
        let ring = &self.ring;
        let ranges = [0, ring.length - 1, ring.newest()].map(|slot| (ring.at(slot), ring.size as usize));
        target.read_ranges(&ranges).iter().all(Result::is_ok)
    }

    /// Reads from the newest entry down and once around, until the filter has enough.
    pub(super) fn scan(&self, target: &Target<'_>, filter: Filter, log: &mut PoolLog) {
        let mut kept = Kept::new(self, target, filter, log);
        let scan = Scan::new(&self.ring, target, filter);
        // That there is no entry about an address is said of the whole log.
        let mut scan = if matches!(filter, Filter::Address(_)) { scan.whole() } else { scan };
        scan.run(&mut |slot, bytes| kept.look(slot, bytes)).note(target);
        kept.unreadable.note(target, &scan.why_unreadable());
        (log.parsed, log.unreadable) = (scan.parsed, scan.unreadable);
    }

    /// Looks at these slots, in their order, for entries of blocks that `address` lies in, until reading ends.
    pub(super) fn look_at(&self, target: &Target<'_>, slots: &[u64], address: VirtAddr, log: &mut PoolLog) {
        let filter = Filter::Address(address);
        let mut kept = Kept::new(self, target, filter, log);
        let mut scan = Scan::new(&self.ring, target, filter).whole();
        for slot in slots.iter().copied() {
            if let Some(end) = scan.look_at(slot..slot + 1, &mut |slot, bytes| kept.look(slot, bytes)) {
                end.note(target);
                break;
            }
        }
        log.unreadable += scan.unreadable;
    }
}

/// What is kept of a log while it is looked at.
struct Kept<'a> {
    source: &'a Log,
    target: &'a Target<'a>,
    filter: Filter,
    log: &'a mut PoolLog,
    /// Return addresses of the entries.
    frames: usize,
    unreadable: Unreadable,
}

impl<'a> Kept<'a> {
    fn new(source: &'a Log, target: &'a Target<'a>, filter: Filter, log: &'a mut PoolLog) -> Self {
        Self { source, target, filter, log, frames: 0, unreadable: Unreadable::default() }
    }

    /// What an entry is to the question; it is kept if it is part of the answer.
    fn look(&mut self, slot: u64, bytes: &[u8]) -> Seen {
        let Log { ring, entry } = self.source;
        let Some((address, size, thread)) = entry.head(bytes) else {
            self.unreadable.add(slot);
            return Seen::Unreadable;
        };
        if address.is_null() && size == 0 && thread.is_null() {
            return Seen::Unused;
        }
        if matches!(self.filter, Filter::Address(wanted) if !covers(wanted, address, size)) {
            return Seen::Other;
        }
        let stack_cut = (bytes.len() as u64) < ring.size;
        let stack = entry.stack(bytes);
        self.frames += stack.len();
        let entries = &mut self.log.entries;
        let (kind, torn) = (Kind::Unknown, None);
        entries.push(PoolLogEntry { slot, kind, address, size, thread, stack, stack_cut, torn });
        if matches!(self.filter, Filter::Newest(quantity) if entries.len() as u64 == quantity) {
            return Seen::Last;
        }
        if entries.len() == MAX_ENTRIES || self.frames >= MAX_FRAMES {
            self.target.note(scan::only_the_newest(entries.len(), "entries"));
            return Seen::Last;
        }
        Seen::Kept
    }
}

/// True if `wanted` lies in the block. The block's own address always does, whatever its size says.
fn covers(wanted: VirtAddr, address: VirtAddr, size: u64) -> bool {
    wanted == address || wanted.since(address) < size
}

/// Why a kernel has no log, as far as its settings tell.
fn why_no_log(target: &Target<'_>) -> String {
    let turn_on = "Turn pool tracking on with verifier.exe on the target (/flags 0x8) and restart it.";
    let Ok(settings) = Settings::read(target) else {
        return format!("Driver Verifier is off, or keeps none with its options. {turn_on}");
    };
    if settings.level == 0 {
        return format!("Driver Verifier is off. {turn_on}");
    }
    if settings.option_flags.is_some_and(|flags| flags & OPTION_NO_POOL_LOG != 0) {
        return "VfOptionFlags has 0x2, which switches it off.".to_owned();
    }
    match settings.level & LEVEL_POOL_TRACKING {
        0 => format!("pool tracking is not among its options (Level {:#x}). {turn_on}", settings.level),
        _ => format!("pool tracking is on (Level {:#x}), but the kernel has made no log.", settings.level),
    }
}

/// Entries that cannot be read: how many, and the slots of the first and last of them.
#[derive(Default)]
struct Unreadable {
    count: u64,
    lowest: u64,
    highest: u64,
}

impl Unreadable {
    fn add(&mut self, slot: u64) {
        if self.count == 0 {
            (self.lowest, self.highest) = (slot, slot);
        }
        self.count += 1;
        (self.lowest, self.highest) = (self.lowest.min(slot), self.highest.max(slot));
    }

    fn note(&self, target: &Target<'_>, cause: &ReadCause) {
        if self.count > 0 {
            let Self { count, lowest, highest } = self;
            target.note(Note::partial(NoteCode::Unreadable, format!(
                "{count:#x} entries of the log cannot be read (slots {lowest:#x} to {highest:#x}: {cause})"
            )));
        }
    }
}
