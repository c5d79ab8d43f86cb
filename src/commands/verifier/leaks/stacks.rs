//! Who allocated each block: its newest entry in the pool log, for as few requests as will do.
//!
//! ```text
//!  the target searches for each block         2 requests and the entry, a block
//!  the log is read whole, newest first        its bytes, whatever the number of blocks
//!  the newest part of it is read              as much as is allowed: where the target does not search
//!  some blocks of each class are searched for where all are too many; a class is a driver's caller, tag and size
//! ```
//! Which of them is chosen by what they cost in requests, which is known before: blocks, bytes of the log, bytes of a reply.
//! The newest entry about a block's address made it, if its stack comes through the caller that the block's tracker names:
//! anything else is another event, and says nothing of this block.
//!
//! Source: verifier.md 3.2, 4.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::super::allocations::Block;
use super::super::frames::{Frame, Names};
use super::super::pool_log::{Log, Newest};
use super::super::ring::{Filter, Ring, events_since};
use super::super::scan::{self, End, Scan};
use super::super::stops::{Logged, NAMING};
use super::report::{LogUse, Method, sum};
use crate::commands::error::QueryError;
use crate::memory::{ReadCause, requests, searches};
use crate::target::{Note, NoteCode, Target, VirtAddr, is_over};

/// Requests for stacks that a question may take unless every stack is asked for.
const ALLOWANCE: u64 = 150;
/// Blocks of a class that are looked up, as long as they agree.
const SAMPLE: usize = 8;

/// An outstanding block of a driver.
pub(super) struct Held {
    pub(super) driver: Arc<str>,
    pub(super) block: Block,
}

/// What is known of a block's allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trace {
    /// Its tracker has the stack.
    InTracker { stack: usize },
    /// An entry of the log made it.
    Logged(Entry),
    /// The log has no entry about it.
    NotInLog,
    /// The newest entry about its address is not its allocation.
    OtherEvent,
    /// Where its entry may be cannot be read.
    Unreadable,
    /// It was not looked for.
    NotLookedUp,
}

/// An entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Events since.
    pub(super) age: u64,
    /// `VfPoolTracesIndex` when it was written.
    pub(super) event: u32,
    pub(super) thread: VirtAddr,
    /// Number of its stack.
    pub(super) stack: usize,
}

/// What was known before: of a list that was read over several stops.
#[derive(Default)]
pub(super) struct Known {
    /// `VfPoolTracesIndex` at the moment that the list is of; the present one, if nothing says so.
    pub(super) event: Option<u32>,
    /// Entries that made blocks of the list.
    pub(super) logged: HashMap<VirtAddr, Logged>,
}

/// What was found out.
pub(super) struct Lookup {
    /// Of each block.
    pub(super) traces: Vec<Trace>,
    /// Named, innermost frame first.
    pub(super) stacks: Vec<Vec<Frame>>,
    /// Blocks that are told by samples; each block alone is none of them.
    pub(super) classes: Vec<Vec<usize>>,
    pub(super) log: Option<LogUse>,
}

impl Lookup {
    /// Finds out about `held`, as far as stacks are needed; of every block if `all`.
    pub(super) fn of(
        target: &Target<'_>,
        held: &[Held],
        needs_stacks: bool,
        all: bool,
        known: &Known,
    ) -> Result<Self, QueryError> {
        let mut stacks = Stacks::default();
        let in_tracker = |it: &Held| match &it.block.stack {
            Some(stack) => {
                let addresses: Vec<_> = stack.iter().map(|frame| frame.address).collect();
                Trace::InTracker { stack: stacks.number(addresses) }
            }
            None => Trace::NotLookedUp,
        };
        let mut traces: Vec<_> = held.iter().map(in_tracker).collect();
        let wanted: Vec<_> = (0..held.len()).filter(|&at| traces[at] == Trace::NotLookedUp).collect();
        let (mut classes, mut log_use) = (Vec::new(), None);
        if needs_stacks && !wanted.is_empty() {
            match Log::read(target) {
                Ok(mut log) => {
                    if let Some(event) = known.event {
                        // What was logged behind the moment is not about its blocks.
                        log.ring.since = events_since(event, log.ring.index);
                        log.ring.index = event;
                    }
                    let mut search = Search::new(target, &log, held, wanted, &mut stacks);
                    search.take_known(&known.logged);
                    classes = search.run(all);
                    log_use = Some(search.log_use());
                    search.note();
                    let seen = search.seen;
                    for (it, trace) in held.iter().zip(&mut traces) {
                        if let Some(seen) = seen.get(&it.block.address).filter(|_| it.block.stack.is_none()) {
                            *trace = seen.trace_of(&it.block);
                        }
                    }
                }
                Err(error) => {
                    let text = format!("No stack is known: {error}");
                    let note = Note::partial(NoteCode::NoLog, text);
                    target.note(note.broken_off_if(error.is_of_link()));
                }
            }
        }
        target.make_room(NAMING).map_err(QueryError::Lost)?;
        let mut names = Names::new(target);
        let mut stacks: Vec<Vec<Frame>> = stacks.frames;
        names.name_all(stacks.iter_mut().flatten());
        names.tell();
        Ok(Self { traces, stacks, classes, log: log_use })
    }
}

/// Stacks, each once.
#[derive(Default)]
struct Stacks {
    numbers: HashMap<Vec<VirtAddr>, usize>,
    frames: Vec<Vec<Frame>>,
}

impl Stacks {
    fn number(&mut self, addresses: Vec<VirtAddr>) -> usize {
        let next = self.frames.len();
        *self.numbers.entry(addresses).or_insert_with_key(|addresses| {
            self.frames.push(addresses.iter().copied().map(Frame::nameless).collect());
            next
        })
    }
}

/// What the log says of an address.
enum Seen {
    Entry { entry: Entry, stack: Vec<VirtAddr> },
    Nothing,
    Unreadable,
}

impl Seen {
    /// What that is for the block that is there.
    fn trace_of(&self, block: &Block) -> Trace {
        match self {
            Self::Entry { entry, stack } if stack.contains(&block.caller) => Trace::Logged(*entry),
            Self::Entry { .. } => Trace::OtherEvent,
            Self::Nothing => Trace::NotInLog,
            Self::Unreadable => Trace::Unreadable,
        }
    }
}

/// How the stacks are come by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plan {
    Read,
    Newest,
    Search,
    Sample,
}

struct Search<'a> {
    target: &'a Target<'a>,
    log: &'a Log,
    /// Where it is now: a target that breathes writes it on.
    ring: Ring,
    held: &'a [Held],
    /// Which of them, in the order of their lists.
    wanted: Vec<usize>,
    stacks: &'a mut Stacks,
    seen: HashMap<VirtAddr, Seen>,
    requests: u64,
    read: u64,
    unreadable: u64,
    /// Why the first of them could not be read.
    missing: ReadCause,
    method: Method,
    /// Requests that reading the log whole takes.
    whole: u64,
}

impl<'a> Search<'a> {
    fn new(
        target: &'a Target<'_>,
        log: &'a Log,
        held: &'a [Held],
        wanted: Vec<usize>,
        stacks: &'a mut Stacks,
    ) -> Self {
        let used = (u64::from(log.ring.index) + 1).min(log.ring.length);
        let whole = requests(target.memory(), used * log.ring.size);
        Self {
            target,
            log,
            ring: log.ring,
            held,
            wanted,
            stacks,
            seen: HashMap::new(),
            requests: 0,
            read: 0,
            unreadable: 0,
            missing: ReadCause::NotMapped,
            method: Method::Search,
            whole,
        }
    }

    /// What needs not be looked up.
    fn take_known(&mut self, logged: &HashMap<VirtAddr, Logged>) {
        for at in &self.wanted {
            let address = self.held[*at].block.address;
            let Some(Logged { event, thread, stack }) = logged.get(&address) else { continue };
            let age = events_since(*event, self.ring.index);
            let number = self.stacks.number(stack.clone());
            let entry = Entry { age, event: *event, thread: *thread, stack: number };
            self.seen.insert(address, Seen::Entry { entry, stack: stack.clone() });
        }
    }

    /// Requests that a block's search takes: to its entry and on to the end, and the entry.
    const fn cost_of_one(&self) -> u64 {
        searches(self.ring.bytes()) + 2
    }

    fn plan(&self, all: bool) -> Plan {
        let searching = self.wanted.len() as u64 * self.cost_of_one();
        let allowed = if all { u64::MAX } else { ALLOWANCE };
        if self.target.refuses_search().is_some() {
            return if self.whole <= allowed { Plan::Read } else { Plan::Newest };
        }
        match searching.min(self.whole) {
            least if least > allowed => Plan::Sample,
            least if least == self.whole => Plan::Read,
            _ => Plan::Search,
        }
    }

    /// Looks up what the plan says. Returns the classes that samples stand for.
    fn run(&mut self, all: bool) -> Vec<Vec<usize>> {
        let mut classes = Vec::new();
        let searched = match self.plan(all) {
            Plan::Read => {
                self.read_down(u64::MAX);
                Ok(())
            }
            Plan::Newest => {
                self.read_down(ALLOWANCE);
                Ok(())
            }
            Plan::Search => self.wanted.clone().into_iter().try_for_each(|at| self.look_up(at)),
            Plan::Sample => {
                classes = self.classes();
                self.sample(&classes)
            }
        };
        if let Err(cause) = searched {
            if is_over(&cause) && !matches!(cause, ReadCause::NoAnswer { .. }) {
                self.broken_off(&cause);
            } else {
                self.target.kernel().remember_refusal(&cause);
                let why = format!("The target did not search its memory ({cause}), so the log was read");
                self.target.note(Note::remark(NoteCode::NotSearched, why));
                classes.clear();
                let allowed = if all { u64::MAX } else { ALLOWANCE };
                self.read_down(allowed);
            }
        } else if self.method == Method::Search && !self.ends_are_readable() {
            // A search passes over what is not mapped without a word.
            for seen in self.seen.values_mut().filter(|seen| matches!(seen, Seen::Nothing)) {
                *seen = Seen::Unreadable;
            }
        }
        classes
    }

    /// Blocks of one driver with one caller, tag and size; without the size where those would be too many to ask for one
    /// of each. The ones that hold the most come first.
    fn classes(&self) -> Vec<Vec<usize>> {
        let by = |with_size: bool| {
            let mut classes: HashMap<_, Vec<usize>> = HashMap::new();
            for &at in &self.wanted {
                let Held { driver, block } = &self.held[at];
                let size = if with_size { block.size } else { 0 };
                classes.entry((driver, block.caller, block.tag_number, size)).or_default().push(at);
            }
            classes
        };
        let fine = by(true);
        let fits = fine.len() as u64 * 2 * self.cost_of_one() <= ALLOWANCE;
        let mut classes: Vec<_> =
            if fits { fine } else { by(false) }.into_values().map(|class| spread(&class)).collect();
        let bytes = |class: &Vec<usize>| sum(class.iter().map(|at| self.held[*at].block.size));
        classes.sort_by_cached_key(|class| (std::cmp::Reverse(bytes(class)), class.first().copied()));
        classes
    }

    /// Looks up the samples of each class, the first of each first; of classes whose blocks differ, more.
    fn sample(&mut self, classes: &[Vec<usize>]) -> Result<(), ReadCause> {
        let most = classes.iter().map(Vec::len).max().unwrap_or(0);
        for round in 0..most {
            let mut goes_on = false;
            for class in classes.iter().filter(|class| round < class.len()) {
                if round >= SAMPLE && !self.differs(class) {
                    continue;
                }
                if self.requests + self.cost_of_one() > ALLOWANCE {
                    return Ok(());
                }
                goes_on = true;
                self.look_up(class[round])?;
            }
            // Nothing was asked, so that no class differs in the next round either: whoever looks again looks at every block.
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    /// True if what was found of a class are several stacks.
    fn differs(&self, class: &[usize]) -> bool {
        let mut stacks = class.iter().filter_map(|at| {
            let block = &self.held[*at].block;
            match self.seen.get(&block.address)?.trace_of(block) {
                Trace::Logged(entry) => Some(entry.stack),
                _ => None,
            }
        });
        let first = stacks.next();
        stacks.any(|other| Some(other) != first)
    }

    /// Lets the target search for one block.
    fn look_up(&mut self, at: usize) -> Result<(), ReadCause> {
        let address = self.held[at].block.address;
        if self.seen.contains_key(&address) {
            return Ok(());
        }
        if self.target.make_room(self.cost_of_one())? {
            self.ring.catch_up(self.target).map_err(|error| error.cause)?;
        }
        let mut newest = Newest { log: self.log, ring: self.ring, target: self.target, requests: 0 };
        let slot = newest.slot(address);
        self.requests += newest.requests;
        let seen = match slot.map_err(|error| error.cause)? {
            Some(slot) => self.entry(slot)?,
            None => Seen::Nothing,
        };
        self.seen.insert(address, seen);
        self.target.advance("stacks", self.seen.len() as u64, self.wanted.len() as u64);
        Ok(())
    }

    fn entry(&mut self, slot: u64) -> Result<Seen, ReadCause> {
        let piece = self.ring.piece(self.target, &(slot..slot + 1));
        self.requests += 1;
        self.read += 1;
        if let Some(cause) = piece.over {
            return Err(cause);
        }
        Ok(self.seen_at(slot, piece.entry(0, self.ring.size)))
    }

    /// What the bytes of an entry say.
    fn seen_at(&mut self, slot: u64, bytes: &[u8]) -> Seen {
        let Some((.., thread)) = self.log.entry.head(bytes) else { return Seen::Unreadable };
        let frames = self.log.entry.stack(bytes);
        let stack: Vec<_> = frames.iter().map(|frame| frame.address).collect();
        let age = self.ring.age(slot);
        let event = self.ring.index.wrapping_sub(age as u32);
        let number = self.stacks.number(stack.clone());
        Seen::Entry { entry: Entry { age, event, thread, stack: number }, stack }
    }

    /// Reads the log from its newest entry down, for as many requests as are `allowed`, or until every block was met.
    fn read_down(&mut self, allowed: u64) {
        let log = self.log;
        let wanted: HashSet<_> = self.wanted.iter().map(|at| self.held[*at].block.address).collect();
        let allowed = allowed.saturating_sub(self.requests);
        let mut scan = Scan::new(&self.ring, self.target, Filter::All).within(allowed);
        let end = scan.run(&mut |slot, bytes| {
            let Some((address, size, thread)) = log.entry.head(bytes) else { return scan::Seen::Unreadable };
            // The first that is met is the newest.
            if wanted.contains(&address) && !self.seen.contains_key(&address) {
                let seen = self.seen_at(slot, bytes);
                self.seen.insert(address, seen);
            }
            match (address.is_null() && size == 0 && thread.is_null(), self.seen.len() == wanted.len()) {
                (_, true) => scan::Seen::Last,
                (true, _) => scan::Seen::Unused,
                _ => scan::Seen::Other,
            }
        });
        self.requests += scan.requests;
        self.read += scan.parsed;
        if self.unreadable == 0 {
            self.missing = scan.why_unreadable();
        }
        self.unreadable += scan.unreadable;
        let cut = match end {
            End::Over(cause) => {
                self.broken_off(&cause);
                return;
            }
            End::Holes(_) => {
                end.note(self.target);
                true
            }
            End::Allowance => true,
            // Whoever is not met may have been written over: the log holds their allocation no more.
            End::Overtaken(_) => {
                end.note(self.target);
                false
            }
            End::Through | End::Enough => false,
        };
        self.method = if cut { Method::Newest } else { Method::Read };
        if !cut {
            for address in wanted {
                let nothing = || if self.unreadable > 0 { Seen::Unreadable } else { Seen::Nothing };
                self.seen.entry(address).or_insert_with(nothing);
            }
        }
    }

    fn ends_are_readable(&self) -> bool {
        if !self.seen.values().any(|seen| matches!(seen, Seen::Nothing)) {
            return true;
        }
        self.log.ends_are_readable(self.target)
    }

    fn broken_off(&self, cause: &ReadCause) {
        let text = format!("Looking for stacks in the log was broken off: {cause}");
        self.target.note(Note::partial(NoteCode::BrokenOff, text));
    }

    fn log_use(&self) -> LogUse {
        LogUse {
            length: self.ring.length,
            index: self.ring.index,
            method: self.method,
            entries_read: self.read,
            looked_up: self.seen.len() as u64,
        }
    }

    /// Says how the stacks were come by, and what cannot be read.
    fn note(&self) {
        let (blocks, looked_up, requests) = (self.wanted.len(), self.seen.len(), self.requests);
        let how = match self.method {
            Method::Search => format!("the target searched its log for {looked_up} of {blocks} blocks"),
            Method::Newest => format!("the newest {} entries of the log were read", self.read),
            Method::Read => format!("the log was read, {} entries of it", self.read),
        };
        let text = format!(
            "Stacks: {how}; some {requests} requests. To search for every block takes some {}, to read the log whole {}.",
            blocks as u64 * self.cost_of_one(),
            self.whole
        );
        self.target.note(Note::remark(NoteCode::Searched, text));
        if self.unreadable > 0 {
            let text = format!("{} entries of the log cannot be read ({})", self.unreadable, self.missing);
            self.target.note(Note::partial(NoteCode::Unreadable, text));
        }
    }
}

/// The same with samples in front: the first, the last, and more and more of those near the first, whose allocations are the
/// likeliest to be in the log. The lists have the newest first.
fn spread(class: &[usize]) -> Vec<usize> {
    let Some(last) = class.len().checked_sub(1) else { return Vec::new() };
    let halved = (1..).map(|times| class.len() >> times).take_while(|at| *at > 0);
    let samples = [0, last].into_iter().chain(halved);
    let mut is_taken = vec![false; class.len()];
    let order = samples.chain(0..class.len()).filter(|at| !std::mem::replace(&mut is_taken[*at], true));
    order.map(|at| class[at]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_the_first_the_last_and_some_near_the_first() {
        assert_eq!(spread(&[0, 1, 2, 3, 4, 5, 6, 7, 8]), [0, 8, 4, 2, 1, 3, 5, 6, 7]);
        assert_eq!(spread(&[7]), [7]);
        assert_eq!(spread(&[]), [] as [usize; 0]);
        let mut all = spread(&(0..1000).collect::<Vec<_>>());
        all.sort_unstable();
        assert_eq!(all, (0..1000).collect::<Vec<_>>(), "each once");
    }
}
