//! Who allocated some blocks that are there, whoever knows of them: the log's newest entry about each.
//!
//! ```text
//!  the target searches for each block     two searches and the entry
//!  the log is read, newest entry first    where that costs less, or where the target does not search
//! ```
//! The newest entry about a block's address made it, unless it is of a free, or of another size than the block can have, or does
//! not come through the caller that Driver Verifier's tracker names: then somebody who is not verified has the block, or the
//! entry is half written, and nothing is told of it.
//!
//! Source: verifier.md 4.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::super::frames::{Frame, Names};
use super::super::ring::{Filter, Ring};
use super::super::scan::{End, Scan, Seen};
use super::kind::{Kind, is_mixed};
use super::newest::Newest;
use super::source::Log;
use crate::memory::{ReadCause, requests, searches};
use crate::output::{self, grouped};
use crate::target::{Note, NoteCode, Target, VirtAddr, is_over};

/// Requests that stacks of one answer may take.
const ALLOWANCE: u64 = 150;

/// A block whose allocation is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// What its owner was given.
    pub address: VirtAddr,
    /// Bytes that it has room for.
    pub bytes: u64,
    /// A return address that its stack goes through, if that is known.
    pub caller: Option<VirtAddr>,
}

/// What the pool log says of a block's allocation.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct BlockTrace {
    /// Whether it says anything.
    pub outcome: TraceOutcome,
    /// Log entries since; nothing without an entry.
    pub age: Option<u64>,
    /// The thread that allocated it, an `_ETHREAD`.
    #[serde(serialize_with = "output::address_or_null")]
    #[schemars(with = "Option<output::Hex>")]
    pub thread: Option<VirtAddr>,
    /// Bytes that it asked for.
    pub size: Option<u64>,
    /// Return addresses, the innermost first.
    pub stack: Vec<Frame>,
}

/// Whether the pool log says anything of a block's allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TraceOutcome {
    /// Its newest entry about the block is of its allocation.
    Logged,
    /// It has no entry about the block.
    NotInLog,
    /// Its newest entry about the block's address is of something else.
    OtherEvent,
    /// Where the entry may be cannot be read.
    Unreadable,
    /// The block was not looked for.
    NotLookedUp,
}

impl BlockTrace {
    const fn none(outcome: TraceOutcome) -> Self {
        Self { outcome, age: None, thread: None, size: None, stack: Vec::new() }
    }
}

/// What the log says of each of `blocks`. What it does not say is noted, and where there is no log, that too.
pub fn block_traces(target: &Target<'_>, blocks: &[Asked]) -> Vec<BlockTrace> {
    let nothing = || vec![BlockTrace::none(TraceOutcome::NotLookedUp); blocks.len()];
    if blocks.is_empty() || target.over().is_some() {
        return nothing();
    }
    let log = match Log::read(target) {
        Ok(log) => log,
        Err(error) => {
            let note = Note::partial(NoteCode::NoLog, format!("No stack is known: {error}"));
            target.note(note.broken_off_if(error.is_of_link()));
            return nothing();
        }
    };
    let mut lookup = Lookup { target, log: &log, ring: log.ring, found: HashMap::new(), requests: 0 };
    lookup.run(blocks);
    let mut traces: Vec<_> = blocks.iter().map(|asked| lookup.trace_of(asked)).collect();
    let mut names = Names::new(target);
    names.name_all(traces.iter_mut().flat_map(|trace| &mut trace.stack));
    names.tell();
    traces.iter_mut().zip(blocks).for_each(|(trace, asked)| settle(trace, asked));
    note(target, &log, &traces);
    traces
}

/// An entry that is not of the block's allocation says nothing of it.
fn settle(trace: &mut BlockTrace, asked: &Asked) {
    if trace.outcome != TraceOutcome::Logged {
        return;
    }
    let is_through = |caller: VirtAddr| trace.stack.iter().any(|frame| frame.address == caller);
    let is_its = Kind::of(&trace.stack) != Kind::Free
        && !is_mixed(&trace.stack)
        && trace.size.is_some_and(|size| size <= asked.bytes)
        && asked.caller.is_none_or(is_through);
    if !is_its {
        *trace = BlockTrace::none(TraceOutcome::OtherEvent);
    }
}

/// Says of how many blocks nothing is told, and why.
fn note(target: &Target<'_>, log: &Log, traces: &[BlockTrace]) {
    let count = |outcome| traces.iter().filter(|trace| trace.outcome == outcome).count();
    let of_all = |count: usize| match traces.len() {
        1 => "The block".to_owned(),
        all => format!("{} of {} blocks", grouped(count as u64), grouped(all as u64)),
    };
    let tell = |outcome, make: fn(NoteCode, String) -> Note, code, why: &str| {
        let count = count(outcome);
        if count > 0 {
            target.note(make(code, format!("{}: {why}", of_all(count))));
        }
    };
    let remark = |code, text: String| Note::remark(code, text);
    let partial = |code, text: String| Note::partial(code, text);
    let gone = format!(
        "the log no longer holds the allocation: it is older than the oldest of {} entries, or of a driver that is not verified",
        grouped(log.ring.length)
    );
    tell(TraceOutcome::NotInLog, remark, NoteCode::NoEntry, &gone);
    tell(
        TraceOutcome::OtherEvent,
        remark,
        NoteCode::NoEntry,
        "the log's newest entry about the address is not of its allocation, which is of a driver that is not verified, or older than \
         the log",
    );
    tell(TraceOutcome::Unreadable, partial, NoteCode::Unreadable, "its entry of the log cannot be read");
    tell(
        TraceOutcome::NotLookedUp,
        partial,
        NoteCode::Limit,
        "not looked for in the log, which would take more requests than one answer may; `!verifier 80 ADDRESS` asks for one, `!leaks` \
         groups what verified drivers hold",
    );
}

/// What an entry of the log has.
struct Entry {
    age: u64,
    thread: VirtAddr,
    size: u64,
    stack: Vec<Frame>,
}

/// What was found of an address.
enum Found {
    Entry(Entry),
    Nothing,
    Unreadable,
}

struct Lookup<'a> {
    target: &'a Target<'a>,
    log: &'a Log,
    /// Where it is now: a target that breathes writes it on.
    ring: Ring,
    found: HashMap<VirtAddr, Found>,
    requests: u64,
}

impl Lookup<'_> {
    fn trace_of(&mut self, asked: &Asked) -> BlockTrace {
        match self.found.get(&asked.address) {
            Some(Found::Entry(entry)) => BlockTrace {
                outcome: TraceOutcome::Logged,
                age: Some(entry.age),
                thread: Some(entry.thread),
                size: Some(entry.size),
                stack: entry.stack.clone(),
            },
            Some(Found::Nothing) => BlockTrace::none(TraceOutcome::NotInLog),
            Some(Found::Unreadable) => BlockTrace::none(TraceOutcome::Unreadable),
            None => BlockTrace::none(TraceOutcome::NotLookedUp),
        }
    }

    fn run(&mut self, blocks: &[Asked]) {
        let used = (u64::from(self.ring.index) + 1).min(self.ring.length);
        let whole = requests(self.target.memory(), used * self.ring.size);
        let searching = blocks.len() as u64 * self.cost_of_one();
        if self.target.refuses_search().is_some() || whole <= searching.min(ALLOWANCE) {
            return self.read_down(blocks);
        }
        for asked in blocks {
            if self.requests + self.cost_of_one() > ALLOWANCE.max(self.cost_of_one()) {
                break;
            }
            match self.look_up(asked.address) {
                Ok(found) => {
                    self.found.insert(asked.address, found);
                }
                Err(cause) if is_over(&cause) && !matches!(cause, ReadCause::NoAnswer { .. }) => {
                    return self.broken_off(&cause);
                }
                Err(cause) => {
                    self.target.kernel().remember_refusal(&cause);
                    let why = format!("The target did not search its memory ({cause}), so the log was read");
                    self.target.note(Note::remark(NoteCode::NotSearched, why));
                    return self.read_down(blocks);
                }
            }
            self.target.advance("stacks", self.found.len() as u64, blocks.len() as u64);
        }
        let is_missing = self.found.values().any(|found| matches!(found, Found::Nothing));
        // A search passes over what is not mapped without a word.
        if is_missing && !self.log.ends_are_readable(self.target) {
            let missing = self.found.values_mut().filter(|found| matches!(found, Found::Nothing));
            missing.for_each(|found| *found = Found::Unreadable);
        }
    }

    /// Requests that a block's search takes: to its entry and on to the end, and the entry.
    const fn cost_of_one(&self) -> u64 {
        searches(self.ring.bytes()) + 2
    }

    /// Lets the target search for one block.
    fn look_up(&mut self, address: VirtAddr) -> Result<Found, ReadCause> {
        if self.target.make_room(self.cost_of_one())? {
            self.ring.catch_up(self.target).map_err(|error| error.cause)?;
        }
        let mut newest = Newest { log: self.log, ring: self.ring, target: self.target, requests: 0 };
        let slot = newest.slot(address);
        self.requests += newest.requests;
        let Some(slot) = slot.map_err(|error| error.cause)? else { return Ok(Found::Nothing) };
        let piece = self.ring.piece(self.target, &(slot..slot + 1));
        self.requests += 1;
        match piece.over {
            Some(cause) => Err(cause),
            None => Ok(self.entry_at(slot, piece.entry(0, self.ring.size))),
        }
    }

    /// What the bytes of an entry say.
    fn entry_at(&self, slot: u64, bytes: &[u8]) -> Found {
        let Some((_, size, thread)) = self.log.entry.head(bytes) else { return Found::Unreadable };
        let stack = self.log.entry.stack(bytes);
        Found::Entry(Entry { age: self.ring.age(slot), thread, size, stack })
    }

    /// Reads the log from its newest entry down, for as many requests as are allowed, or until every block was met.
    fn read_down(&mut self, blocks: &[Asked]) {
        let (log, target) = (self.log, self.target);
        let wanted: HashSet<_> = blocks.iter().map(|asked| asked.address).collect();
        let ring = self.ring;
        // That there is no entry about a block is said of the whole log.
        let scan = Scan::new(&ring, target, Filter::All).whole();
        let mut scan = scan.within(ALLOWANCE.saturating_sub(self.requests));
        let end = scan.run(&mut |slot, bytes| {
            let Some((address, size, thread)) = log.entry.head(bytes) else { return Seen::Unreadable };
            // The first that is met is the newest.
            if wanted.contains(&address) && !self.found.contains_key(&address) {
                let found = self.entry_at(slot, bytes);
                self.found.insert(address, found);
            }
            match (address.is_null() && size == 0 && thread.is_null(), self.found.len() == wanted.len()) {
                (_, true) => Seen::Last,
                (true, _) => Seen::Unused,
                _ => Seen::Other,
            }
        });
        let is_torn = scan.unreadable > 0;
        match end {
            End::Over(cause) => self.broken_off(&cause),
            End::Allowance => {}
            End::Holes(_) => end.note(target),
            End::Overtaken(_) | End::Through | End::Enough => {
                end.note(target);
                for address in wanted {
                    let nothing = || if is_torn { Found::Unreadable } else { Found::Nothing };
                    self.found.entry(address).or_insert_with(nothing);
                }
            }
        }
    }

    fn broken_off(&self, cause: &ReadCause) {
        let text = format!("Looking for stacks in the log was broken off: {cause}");
        self.target.note(Note::partial(NoteCode::BrokenOff, text));
    }
}
