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

mod blocks;
mod kind;
mod log;
mod newest;
mod search;
mod source;
mod torn;

pub use self::blocks::{Asked, BlockTrace, TraceOutcome, block_traces};
pub use self::kind::Kind;
pub(super) use self::kind::{begins, is_mixed, is_of_kernel};
pub use self::log::{Method, PoolLog, PoolLogEntry, TornSign};
pub(super) use self::newest::Newest;
pub(super) use self::source::Log;
use super::format::Era;
use super::frames::Names;
pub use super::ring::Wanted;
use crate::commands::answer::Query;
use crate::commands::error::QueryError;
use crate::target::{Note, NoteCode, Target};

/// Entries shown if neither an address nor a quantity is given. WinDbg's own default is not known; the whole log would
/// be tens of thousands.
const DEFAULT_QUANTITY: u64 = 0x40;
/// Asks for entries of the pool log.
#[derive(Clone, Copy, Debug)]
pub struct PoolLogQuery {
    /// Which entries.
    pub wanted: Wanted,
    /// Say in the text of each entry whether it is an allocation or a free.
    pub verbose: bool,
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
            source.scan(target, filter, &mut log);
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
