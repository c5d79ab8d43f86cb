//! The pool log in the target, and reading it from the newest entry down.

use std::ops::Range;

use super::super::common::failed;
use super::super::frames::{self, Frame};
use super::super::ring::{self, Filter, PIECE, Ring, Variables};
use super::super::settings::{LEVEL_POOL_TRACKING, OPTION_NO_POOL_LOG, Settings};
use super::kind::Kind;
use super::log::{PoolLog, PoolLogEntry};
use crate::commands::error::QueryError;
use crate::target::{Layout, Note, NoteCode, Place, Target, TargetError, VirtAddr};

/// Most entries kept in one answer, and most return addresses of them all: some 40 MiB.
const MAX_ENTRIES: usize = 0x1_0000;
const MAX_FRAMES: usize = 0x10_0000;
/// Unused slots in a row after which nothing older is looked for, unless an address is searched for.
const MAX_UNUSED: u64 = 0x200;
/// Most unreadable pages of the log that are passed over: a wild pointer is not followed for a hundred thousand.
const MAX_HOLES: usize = 0x100;

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
        self.ring.length * self.ring.size > PIECE
    }

    /// Reads from the newest entry down and once around, until the filter has enough.
    pub(super) fn scan(&self, target: &Target<'_>, filter: &Filter, log: &mut PoolLog) {
        let mut progress = Progress::default();
        for part in self.ring.parts() {
            let mut end = part.end;
            while end > part.start {
                let whole = PIECE / self.ring.size;
                let most = match filter {
                    Filter::Address(_) => whole,
                    // Whoever meets unused slots has to look further than was asked for.
                    Filter::Newest(_) if progress.unused > 0 => whole,
                    Filter::Newest(quantity) => (quantity - log.entries.len() as u64).clamp(1, whole),
                };
                let slots = end.saturating_sub(most).max(part.start)..end;
                end = slots.start;
                if !self.scan_piece(target, slots, filter, log, &mut progress) {
                    progress.note(target);
                    return;
                }
                target.advance("log entries", log.parsed, self.ring.length);
            }
        }
        progress.note(target);
    }

    /// Looks at some slots, the highest first; false if that was enough.
    pub(super) fn scan_piece(
        &self,
        target: &Target<'_>,
        slots: Range<u64>,
        filter: &Filter,
        log: &mut PoolLog,
        progress: &mut Progress,
    ) -> bool {
        let size = self.ring.size;
        let piece = self.ring.piece(target, &slots);
        progress.pages += piece.holes.len();
        if let Some(cause) = piece.over {
            let text = format!("Reading the log was broken off: {cause}");
            target.note(Note::partial(NoteCode::BrokenOff, text));
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
                if matches!(filter, Filter::Newest(_)) && self.ring.is_newest(slot) {
                    target.note(ring::newest_is_empty(slot));
                }
                progress.unused += 1;
                continue;
            }
            progress.unused = 0;
            if matches!(filter, Filter::Address(wanted) if !covers(*wanted, address, block_size)) {
                continue;
            }
            let stack_cut = (bytes.len() as u64) < size;
            let stack = self.entry.stack(bytes);
            let (size, kind, torn) = (block_size, Kind::Unknown, None);
            log.entries.push(PoolLogEntry { slot, kind, address, size, thread, stack, stack_cut, torn });
            if matches!(filter, Filter::Newest(quantity) if log.entries.len() as u64 == *quantity) {
                return false;
            }
            progress.frames += log.entries.last().map_or(0, |entry| entry.stack.len());
            if log.entries.len() == MAX_ENTRIES || progress.frames >= MAX_FRAMES {
                let kept = log.entries.len();
                target.note(Note::partial(
                    NoteCode::Limit,
                    format!("Only the newest {kept:#x} of the entries that fit are shown"),
                ));
                return false;
            }
        }
        if progress.pages > MAX_HOLES {
            let pages = progress.pages;
            let text = format!("Reading the log was given up after {pages} unreadable pages");
            target.note(Note::partial(NoteCode::Unreadable, text));
            return false;
        }
        // The ring fills in order: below a run of slots that were never used there are only more of them.
        progress.unused < MAX_UNUSED || matches!(filter, Filter::Address(_))
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

/// What a scan has met so far beside entries.
#[derive(Default)]
pub(super) struct Progress {
    /// Unused slots since the last used one.
    pub(super) unused: u64,
    /// Return addresses kept.
    pub(super) frames: usize,
    /// Unreadable pages.
    pub(super) pages: usize,
    /// Unreadable slots, and the first and last of them.
    pub(super) slots: u64,
    pub(super) lowest: u64,
    pub(super) highest: u64,
}

impl Progress {
    pub(super) fn add_unreadable(&mut self, slot: u64) {
        if self.slots == 0 {
            (self.lowest, self.highest) = (slot, slot);
        }
        self.slots += 1;
        (self.lowest, self.highest) = (self.lowest.min(slot), self.highest.max(slot));
    }

    pub(super) fn note(&self, target: &Target<'_>) {
        if self.slots > 0 {
            let Self { slots, lowest, highest, .. } = self;
            target.note(Note::partial(NoteCode::Unreadable, format!(
                "{slots:#x} entries of the log cannot be read (slots {lowest:#x} to {highest:#x}: not mapped)"
            )));
        }
    }
}
