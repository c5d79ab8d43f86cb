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

mod kind;
mod search;
mod torn;

use std::fmt;
use std::ops::Range;

use serde::Serialize;

pub use self::kind::Kind;
pub use self::torn::TornSign;
use super::format::Era;
use super::frames::{self, Frame, Names};
pub use super::ring::Wanted;
use super::ring::{self, Filter, PIECE, Ring, Variables};
use super::settings::{LEVEL_POOL_TRACKING, OPTION_NO_POOL_LOG, Settings};
use super::{failed, text};
use crate::commands::answer::{Facts, Query};
use crate::commands::context::Context;
use crate::commands::error::QueryError;
use crate::commands::schema::Schema;
use crate::output;
use crate::target::{Layout, Note, NoteCode, Place, Target, TargetError, VirtAddr};

/// Entries shown if neither an address nor a quantity is given. WinDbg's own default is not known; the whole log would
/// be tens of thousands.
const DEFAULT_QUANTITY: u64 = 0x40;
/// Most entries kept in one answer, and most return addresses of them all: some 40 MiB.
const MAX_ENTRIES: usize = 0x1_0000;
const MAX_FRAMES: usize = 0x10_0000;
/// Unused slots in a row after which nothing older is looked for, unless an address is searched for.
const MAX_UNUSED: u64 = 0x200;
/// Most unreadable pages of the log that are passed over: a wild pointer is not followed for a hundred thousand.
const MAX_HOLES: usize = 0x100;

const VARIABLES: Variables =
    Variables { pointer: "nt!VfPoolTraces", index: "nt!VfPoolTracesIndex", length: "nt!VfPoolTracesLength" };

/// Asks for entries of the pool log.
#[derive(Clone, Copy, Debug)]
pub struct PoolLogQuery {
    /// Which entries.
    pub wanted: Wanted,
    /// Say in the text of each entry whether it is an allocation or a free.
    pub verbose: bool,
}

/// Entries of the pool log, newest first.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct PoolLog {
    /// The time that the target's Windows is of.
    pub era: Era,
    /// Entries that the log has room for.
    pub length: u64,
    /// `VfPoolTracesIndex`: counts events, its low bits are the newest slot.
    pub index: u32,
    /// The address that was searched for, if one was.
    #[serde(serialize_with = "output::address_or_null")]
    #[schemars(with = "Option<output::Hex>")]
    pub address: Option<VirtAddr>,
    /// How many of the newest were asked for, if no address was.
    pub quantity: Option<u64>,
    /// How the log was looked through.
    pub method: Method,
    /// Entries that were looked at.
    pub parsed: u64,
    /// Entries among them that could not be read.
    pub unreadable: u64,
    /// How many of the log's newest entries may be half written, one per processor. Asked only if some look torn.
    pub unsettled: Option<u64>,
    /// What was found.
    pub entries: Vec<PoolLogEntry>,
    /// Text says of each entry whether it is an allocation or a free, which WinDbg doesn't.
    #[serde(skip)]
    pub verbose: bool,
}

/// How a log is looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Every entry was read.
    Read,
    /// The target searched its own memory.
    Search,
}

/// One allocation or free.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct PoolLogEntry {
    /// Its place in the log's array.
    pub slot: u64,
    /// What its stack says that it is; the kernel does not record it.
    pub kind: Kind,
    /// The block.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub address: VirtAddr,
    /// Bytes: of an allocation as asked for, of a free as the pool rounds them.
    pub size: u64,
    /// The thread that did it, an `_ETHREAD`.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub thread: VirtAddr,
    /// Return addresses, the innermost first; ends at the first empty one.
    pub stack: Vec<Frame>,
    /// The end of the stack could not be read.
    pub stack_cut: bool,
    /// Why it is taken to be half written, if it is: of the newest entries some may be.
    pub torn: Option<TornSign>,
}

impl Query for PoolLogQuery {
    type Facts = PoolLog;

    fn run(&self, target: &Target<'_>) -> Result<PoolLog, QueryError> {
        let source = Log::read(target)?;
        let ring = &source.ring;
        let filter = ring.filter(target, self.wanted, DEFAULT_QUANTITY)?;
        let (address, quantity) = filter.parts();
        let mut log = PoolLog {
            era: Era::of(target),
            address,
            quantity,
            verbose: self.verbose,
            ..PoolLog::empty(ring)
        };
        let is_found = match address {
            Some(address) if source.is_worth_searching() => search::find(&source, target, address, &mut log),
            _ => false,
        };
        if !is_found {
            source.scan(target, &filter, &mut log);
        }
        let mut names = Names::new(target);
        names.name_all(log.entries.iter_mut().flat_map(|entry| &mut entry.stack));
        names.tell();
        for entry in &mut log.entries {
            entry.kind = Kind::of(&entry.stack);
        }
        torn::mark(&mut log, ring, target);
        let has_full_stack = |entry: &PoolLogEntry| entry.stack.len() as u64 == source.depth();
        if log.entries.iter().any(has_full_stack) && target.address_of("nt!VfPoolTracesEx").is_ok() {
            target.note(Note::remark(NoteCode::StacksCut, format!(
                "Stacks of {} frames may go on: this kernel has nt!VfPoolTracesEx beside the log, which is thought to hold \
                 further frames, but is in no public symbols",
                source.depth()
            )));
        }
        if let (true, Some(address), true) = (log.entries.is_empty(), address, log.parsed == log.length) {
            target.note(Note::failed(NoteCode::NoEntry, format!(
                "No entry of the log is about a block that {} lies in. It was allocated before the oldest of the \
                 log's {:#x} entries, by a driver that is not verified, or the address is not in a pool block.",
                target.shown(address),
                log.length
            )));
        }
        Ok(log)
    }
}

impl PoolLog {
    /// An answer about `ring` with nothing in it.
    const fn empty(ring: &Ring) -> Self {
        Self {
            era: Era::Windows7,
            length: ring.length,
            index: ring.index,
            address: None,
            quantity: None,
            method: Method::Read,
            parsed: 0,
            unreadable: 0,
            unsettled: None,
            entries: Vec::new(),
            verbose: false,
        }
    }
}

/// True if `wanted` lies in the block. The block's own address always does, whatever its size says.
fn covers(wanted: VirtAddr, address: VirtAddr, size: u64) -> bool {
    wanted == address || wanted.since(address) < size
}

/// The log in the target.
struct Log {
    ring: Ring,
    entry: EntryLayout,
}

/// Where an entry's fields are.
struct EntryLayout {
    pointer_size: usize,
    address: Place,
    bytes: Place,
    thread: Place,
    stack: usize,
}

impl EntryLayout {
    fn of(layout: &Layout) -> Result<Self, TargetError> {
        Ok(Self {
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

impl Log {
    fn read(target: &Target<'_>) -> Result<Self, QueryError> {
        let layout = target.layout("nt!_VF_POOL_TRACE").map_err(failed)?;
        let entry = EntryLayout::of(&layout).map_err(failed)?;
        let ring = Ring::read(target, &VARIABLES, layout.size() as u64, entry.pointer_size)?;
        let ring = ring.ok_or_else(|| ring::no_log(&VARIABLES, &why_no_log(target)))?;
        Ok(Self { ring, entry })
    }

    /// Return addresses that an entry has room for.
    const fn depth(&self) -> u64 {
        self.ring.size.saturating_sub(self.entry.stack as u64) / self.ring.pointer_size as u64
    }

    /// A log of a few requests is read sooner than it is searched.
    const fn is_worth_searching(&self) -> bool {
        self.ring.length * self.ring.size > PIECE
    }

    /// Reads from the newest entry down and once around, until the filter has enough.
    fn scan(&self, target: &Target<'_>, filter: &Filter, log: &mut PoolLog) {
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
    fn scan_piece(
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

    fn note(&self, target: &Target<'_>) {
        if self.slots > 0 {
            let Self { slots, lowest, highest, .. } = self;
            target.note(Note::partial(NoteCode::Unreadable, format!(
                "{slots:#x} entries of the log cannot be read (slots {lowest:#x} to {highest:#x}: not mapped)"
            )));
        }
    }
}

impl PoolLog {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("pool_log");
}

impl Facts for PoolLog {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        text::write_pool_log(self, context, out)
    }
}
