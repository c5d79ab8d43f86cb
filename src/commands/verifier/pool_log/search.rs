//! Letting the target search its own pool log: a handful of requests instead of thousands.
//!
//! ```text
//!  Address field, little-endian      what is searched for                  finds blocks that begin
//!  | b0 b1 b2 b3 b4 b5 b6 b7 |       all 8 bytes                           at the address
//!          `--------------- 6 bytes  of the address, and one less          within 64 KiB before it
//!             `------------ 5 bytes  of the address, and one less          within 16 MiB before it
//!          `--------------- 6 bytes  up to 16 less, one after the other    within 1 MiB before it
//! ```
//! A hit counts only where an entry's Address field lies, and only if the entry's range has the address in it. A block
//! that begins at the address is what is nearly always meant; else most blocks that it can lie in are small. Then five
//! bytes are searched for as long as that is cheaper than the rest of the six, which then follow, from the address down to
//! the first that has such a block; where they have none, the five are gone on with. Not on a 32-bit target, whose
//! addresses have four.
//!
//! All of it may cost as many requests as reading the log would; then the log is read. So it is where the target does not
//! search, and where nothing was found and the log's ends are not readable, because a search passes over what is not mapped
//! without a word.
//!
//! Source: verifier.md 4.3, PROTOCOL.md 9.

use super::log::{Method, PoolLog};
use super::source::Log;
use crate::memory::{ReadCause, reply_len, searches};
use crate::target::{Note, NoteCode, Target, VirtAddr, is_over};

/// Low bytes of an address that are left open, so that blocks are found that begin in the same 64 KiB or 16 MiB.
const KIBS_64: usize = 2;
const MIBS_16: usize = 3;
/// How many times 64 KiB below the address are searched for one after the other.
const MOST_BELOW: u64 = 16;
/// A hit costs the request that finds it and the one that reads its entry.
const COST_OF_HIT: u64 = 2;

/// Why the log has to be read after all.
enum GiveUp {
    /// Going on costs more than reading.
    Cost,
    /// The target does not search, or not in time.
    Refused(ReadCause),
    /// Nothing more can be asked of the target.
    Over(ReadCause),
}

/// Searches for entries of blocks that `address` lies in, and adds them newest first. False if the log has to be read.
pub(super) fn find(source: &Log, target: &Target<'_>, address: VirtAddr, log: &mut PoolLog) -> bool {
    let reach = match target.refuses_search() {
        Some(cause) => Err(GiveUp::Refused(cause)),
        None => Search::new(source, target, address).run(log),
    };
    match reach {
        Ok(_) if log.entries.is_empty() && !source.ends_are_readable(target) => false,
        Ok(reach) => {
            log.method = Method::Search;
            log.parsed = log.length;
            target.note(Note::remark(NoteCode::Searched, format!(
                "The target searched its log for blocks that begin {reach}; others that reach over it were not looked for"
            )));
            true
        }
        Err(GiveUp::Over(cause)) => {
            let text = format!("Searching the log was broken off: {cause}");
            target.note(Note::partial(NoteCode::BrokenOff, text));
            true
        }
        Err(GiveUp::Refused(cause)) => {
            target.kernel().remember_refusal(&cause);
            let why = format!("The target did not search its memory ({cause}), so the log was read");
            target.note(Note::remark(NoteCode::NotSearched, why));
            false
        }
        Err(GiveUp::Cost) => false,
    }
}

/// A search for one address.
struct Search<'a> {
    source: &'a Log,
    target: &'a Target<'a>,
    address: VirtAddr,
    /// Requests that may still be spent: reading the log costs as many.
    left: u64,
}

impl<'a> Search<'a> {
    fn new(source: &'a Log, target: &'a Target<'_>, address: VirtAddr) -> Self {
        let reply = reply_len(target.memory());
        Self { source, target, address, left: source.ring.bytes().div_ceil(reply) }
    }

    /// Adds the entries of blocks that the address lies in. Returns how far below it they were looked for.
    fn run(mut self, log: &mut PoolLog) -> Result<&'static str, GiveUp> {
        const AT: &str = "at this address";
        const NEAR: &str = "up to 64 KiB below this address";
        const MIB: &str = "up to 1 MiB below this address";
        const FAR: &str = "up to 16 MiB below this address";
        if self.finish([Sweep::new(self.source, self.address, 0, 0)], log)? {
            return Ok(AT);
        }
        // The upper bytes of a 32-bit address are too few to be told from anything else.
        if self.source.ring.pointer_size < 8 {
            return Err(GiveUp::Cost);
        }
        let sweep = |open_bytes, number| Sweep::new(self.source, self.address, open_bytes, number);
        let near = [sweep(KIBS_64, 0), sweep(KIBS_64, 1)];
        let mut far = [sweep(MIBS_16, 0), sweep(MIBS_16, 1)];
        let further: Vec<_> = (2..=MOST_BELOW).map(|number| sweep(KIBS_64, number)).collect();
        if self.finish(near, log)? {
            return Ok(NEAR);
        }
        let cost_of_further = further.len() as u64 * self.cost_of_nothing();
        let whole = self.left;
        self.left = whole.min(cost_of_further);
        let result = far.iter_mut().try_for_each(|sweep| self.go_on(sweep));
        self.left += whole.saturating_sub(cost_of_further);
        match result {
            Ok(()) => return self.finish(far, log).map(|_| FAR),
            Err(GiveUp::Cost) => {}
            Err(error) => return Err(error),
        }
        for sweep in further {
            if self.finish([sweep], log)? {
                return Ok(MIB);
            }
        }
        self.finish(far, log).map(|_| FAR)
    }

    /// What a search through the log costs that finds nothing.
    const fn cost_of_nothing(&self) -> u64 {
        searches(self.source.ring.bytes())
    }

    /// Takes the sweeps to their ends and adds the entries that they find; true if there were any.
    fn finish<const N: usize>(&mut self, mut sweeps: [Sweep; N], log: &mut PoolLog) -> Result<bool, GiveUp> {
        sweeps.iter_mut().try_for_each(|sweep| self.go_on(sweep))?;
        let mut slots: Vec<_> = sweeps.into_iter().flat_map(|sweep| sweep.slots).collect();
        slots.sort_by_key(|slot| self.source.ring.age(*slot));
        self.source.look_at(self.target, &slots, self.address, log);
        Ok(!log.entries.is_empty())
    }

    /// Adds the slots in whose Address field the sweep's pattern lies, to the end of the log or until the rest of the
    /// allowance is spent; may be called again.
    fn go_on(&mut self, sweep: &mut Sweep) -> Result<(), GiveUp> {
        let ring = &self.source.ring;
        let pattern = &sweep.prefix.0.to_le_bytes()[sweep.open_bytes..ring.pointer_size];
        let field = self.source.entry.address.offset + sweep.open_bytes as u64;
        let end = ring.at(ring.length);
        while sweep.at < end {
            if self.left == 0 {
                return Err(GiveUp::Cost);
            }
            let found = match self.target.memory().search_virtual(sweep.at..end, pattern) {
                Ok(Some(found)) if (sweep.at..end).contains(&found) => found.since(ring.start),
                // A hit outside of the range is none.
                Ok(_) => {
                    let rest = searches(end.since(sweep.at));
                    self.left = self.left.saturating_sub(rest);
                    sweep.at = end;
                    return Ok(());
                }
                Err(error) if is_over(&error.cause) && !matches!(error.cause, ReadCause::NoAnswer { .. }) => {
                    return Err(GiveUp::Over(error.cause));
                }
                Err(error) => return Err(GiveUp::Refused(error.cause)),
            };
            self.left = self.left.saturating_sub(COST_OF_HIT);
            let slot = found / ring.size;
            if found % ring.size == field {
                sweep.slots.push(slot);
            }
            self.target.advance("log entries", slot, ring.length);
            // On to the next place where an Address field lies: whatever stands between is no block's address.
            let next = if found % ring.size < field { slot } else { slot + 1 };
            sweep.at = ring.start.offset(next * ring.size + field);
        }
        Ok(())
    }
}

/// One pattern, and how far it was searched for.
struct Sweep {
    prefix: VirtAddr,
    open_bytes: usize,
    at: VirtAddr,
    slots: Vec<u64>,
}

impl Sweep {
    /// For blocks that begin where `address` does but for the low `open_bytes`, or `number` times as much as those hold below.
    fn new(source: &Log, address: VirtAddr, open_bytes: usize, number: u64) -> Self {
        let prefix = VirtAddr(address.0.wrapping_sub(number << (8 * open_bytes)));
        Self { prefix, open_bytes, at: source.ring.start, slots: Vec::new() }
    }
}
