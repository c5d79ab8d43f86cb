//! Letting the target search its own pool log: a handful of requests instead of thousands.
//!
//! ```text
//!  Address field, little-endian      what is searched for                  finds blocks that begin
//!  | b0 b1 b2 b3 b4 b5 b6 b7 |       all 8 bytes                           at the address
//!             `------------ 5 bytes  of the address, and one less          within 16 MiB before it
//!          `--------------- 6 bytes  of the address, and up to 16 less     within 1 MiB before it
//! ```
//! A hit counts only where an entry's Address field lies, and only if the entry's range has the address in it. A block
//! that begins at the address is what is nearly always meant. Else the upper bytes are searched for: five, and where that
//! has too many hits to be cheap, six; not on a 32-bit target, whose addresses have four. Where that finds nothing either,
//! or the target does not search, the log is read; so it is where its ends are not readable, because a search passes over
//! what is not mapped without a word.
//!
//! Source: verifier.md 4.3, PROTOCOL.md 9.

use super::{Filter, Log, Method, PoolLog, Progress};

use crate::memory::ReadCause;
use crate::target::{Note, NoteCode, Target, VirtAddr, is_over};

/// Hits of one pattern that are followed: each costs a request, and another one where it is looked at.
const MAX_HITS: usize = 0x40;

/// Part of a search: what of the address is searched for.
struct Step {
    /// Low bytes that are left open.
    open_bytes: usize,
    /// How many values of the upper bytes, from the address's own down.
    prefixes: u64,
    /// Where the blocks begin that it finds.
    reach: &'static str,
}

const EXACT: Step = Step { open_bytes: 0, prefixes: 1, reach: "at this address" };
const WIDE: Step = Step { open_bytes: 3, prefixes: 2, reach: "up to 16 MiB below this address" };
const NARROW: Step = Step { open_bytes: 2, prefixes: 17, reach: "up to 1 MiB below this address" };

/// Why the log has to be read after all.
enum GiveUp {
    /// More hits than reading is worth.
    Hits,
    /// The target does not search, or not in time.
    Refused(ReadCause),
    /// Nothing more can be asked of the target.
    Over(ReadCause),
}

/// Searches for entries of blocks that `address` lies in, and adds them newest first. False if the log has to be read.
pub(super) fn find(source: &Log, target: &Target<'_>, address: VirtAddr, log: &mut PoolLog) -> bool {
    let refusal = target.refuses_search();
    let mut carry_out = |step| match &refusal {
        Some(cause) => Err(GiveUp::Refused(cause.clone())),
        None => carry_out(step, source, target, address, log),
    };
    let (step, outcome) = match carry_out(&EXACT) {
        // The upper bytes of a 32-bit address are too few to be told from anything else.
        Ok(false) if source.ring.pointer_size < 8 => return false,
        Ok(false) => match carry_out(&WIDE) {
            Err(GiveUp::Hits) => {
                (NARROW, carry_out(&NARROW).and_then(|found| if found { Ok(()) } else { Err(GiveUp::Hits) }))
            }
            outcome => (WIDE, outcome.map(drop)),
        },
        outcome => (EXACT, outcome.map(drop)),
    };
    match outcome {
        Ok(()) if log.entries.is_empty() && !is_readable(source, target) => false,
        Ok(()) => {
            log.method = Method::Search;
            log.parsed = log.length;
            target.note(Note::remark(NoteCode::Searched, format!(
                "The target searched its log for blocks that begin {}; others that reach over it were not looked for",
                step.reach
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
        Err(GiveUp::Hits) => false,
    }
}

/// Adds the entries that one step finds; true if there were any.
fn carry_out(
    step: &Step,
    source: &Log,
    target: &Target<'_>,
    address: VirtAddr,
    log: &mut PoolLog,
) -> Result<bool, GiveUp> {
    let mut slots = Vec::new();
    for number in 0..step.prefixes {
        let prefix = VirtAddr(address.0.wrapping_sub(number << (8 * step.open_bytes)));
        search(source, target, prefix, step.open_bytes, &mut slots)?;
    }
    slots.sort_by_key(|slot| source.ring.age(*slot));
    let mut progress = Progress::default();
    for slot in slots {
        if !source.scan_piece(target, slot..slot + 1, &Filter::Address(address), log, &mut progress) {
            break;
        }
    }
    Ok(!log.entries.is_empty())
}

/// True if the first, the last and the newest entry can be read: a search of what is not there finds nothing, too.
fn is_readable(source: &Log, target: &Target<'_>) -> bool {
    let ring = &source.ring;
    let ranges = [0, ring.length - 1, ring.newest()].map(|slot| (ring.at(slot), ring.size as usize));
    target.read_ranges(&ranges).iter().all(Result::is_ok)
}

/// Adds the slots in whose Address field the upper bytes of `prefix` lie.
fn search(
    source: &Log,
    target: &Target<'_>,
    prefix: VirtAddr,
    open_bytes: usize,
    slots: &mut Vec<u64>,
) -> Result<(), GiveUp> {
    let bytes = prefix.0.to_le_bytes();
    let ring = &source.ring;
    let pattern = &bytes[open_bytes..ring.pointer_size];
    let size = ring.size;
    let field = source.entry.address.offset + open_bytes as u64;
    let end = ring.at(ring.length);
    let mut at = ring.start;
    let mut hits = 0;
    while at < end {
        let found = match target.memory().search_virtual(at..end, pattern) {
            Ok(Some(found)) if (at..end).contains(&found) => found.since(ring.start),
            // A hit outside of the range is none.
            Ok(_) => break,
            Err(error) if is_over(&error.cause) && !matches!(error.cause, ReadCause::NoAnswer { .. }) => {
                return Err(GiveUp::Over(error.cause));
            }
            Err(error) => return Err(GiveUp::Refused(error.cause)),
        };
        if found % size == field {
            slots.push(found / size);
        }
        hits += 1;
        if hits > MAX_HITS {
            return Err(GiveUp::Hits);
        }
        // On to the next place where an Address field lies: whatever stands between is no block's address.
        let next = if found % size < field { found / size } else { found / size + 1 };
        at = ring.start.offset(next * size + field);
    }
    Ok(())
}
