//! Entries that may be half written.
//!
//! ```text
//!  ++VfPoolTracesIndex        the slot is taken; it still holds what was logged a whole round ago
//!  Address, Size, Thread      written one by one
//!  StackTrace                 last
//! ```
//! A stopped target doesn't change, but each of its processors may have been stopped between two of these steps: so of the
//! newest entries as many as it has processors are unsettled. Nothing in an entry says whether it is whole. Signs that it
//! is not are looked for in those; an entry without a sign may be torn all the same, if what it replaces looks alike.
//!
//! Source: verifier.md 4.1, 4.5.

use std::collections::HashMap;

use super::super::ring::{self, Ring};
use super::kind::{self, Kind};
use super::log::{PoolLog, PoolLogEntry, TornSign};
use crate::target::{Note, NoteCode, Target, VirtAddr};

/// Pool blocks are multiples of this, on 32-bit kernels too: so is the size that a free logs.
const GRANULARITY: u64 = 8;

/// Marks the entries that show signs, and notes them. Kinds and names of frames are known by now.
pub(super) fn mark(log: &mut PoolLog, ring: &Ring, target: &Target<'_>) {
    let mut unsettled = ring::MAX_UNSETTLED;
    let mut signs = signs(log, ring, unsettled);
    // How many processors there are costs a request, so it is asked only where something looks torn.
    if signs.iter().any(Option::is_some) {
        log.unsettled = ring::unsettled(target);
        unsettled = log.unsettled.unwrap_or(ring::USUAL_UNSETTLED);
        signs = self::signs(log, ring, unsettled);
    }
    let mut damaged = 0;
    for (entry, sign) in log.entries.iter_mut().zip(signs) {
        let age = ring.age(entry.slot);
        entry.torn = sign;
        match sign {
            Some(sign) if age < unsettled => target.note(Note::remark(NoteCode::UnderWay, format!(
                "{} (slot {:#x}) may be torn: {}. A processor may have been stopped while it wrote the entry.",
                which(age),
                entry.slot,
                sign.reason()
            ))),
            Some(_) => damaged += 1,
            None => {}
        }
    }
    if damaged > 0 {
        target.note(Note::remark(NoteCode::Damaged, format!(
            "Entries without size or thread: {damaged}. They are too old to be half written, so the log is damaged there."
        )));
    }
}

fn which(age: u64) -> String {
    match age {
        0 => "The newest entry of the log".to_owned(),
        1 => "The newest entry of the log but one".to_owned(),
        age => format!("The entry of {age} events before the newest"),
    }
}

/// What is wrong with each entry.
fn signs(log: &PoolLog, ring: &Ring, unsettled: u64) -> Vec<Option<TornSign>> {
    let is_young = |entry: &PoolLogEntry| ring.age(entry.slot) < unsettled;
    let is_known = |entry: &PoolLogEntry| entry.stack.is_empty() || entry.kind != Kind::Unknown;
    let others_are_known = log.entries.iter().any(|entry| entry.kind != Kind::Unknown)
        && log.entries.iter().all(|entry| is_young(entry) || is_known(entry));
    // From the oldest on: whether the last that was said of a block is that it was allocated.
    let mut is_allocated: HashMap<VirtAddr, bool> = HashMap::new();
    let sign = |entry: &PoolLogEntry| {
        let allocates = kind::begins(&entry.stack) == Some(Kind::Allocation);
        // A failed allocation has no block.
        let was_allocated =
            !entry.address.is_null() && is_allocated.insert(entry.address, allocates).unwrap_or_default();
        if entry.thread.is_null() || entry.size == 0 {
            return Some(TornSign::Incomplete);
        }
        if !is_young(entry) {
            return None;
        }
        if kind::is_mixed(&entry.stack) {
            return Some(TornSign::MixedStack);
        }
        let frees = kind::begins(&entry.stack) == Some(Kind::Free);
        if frees && !entry.size.is_multiple_of(GRANULARITY) {
            return Some(TornSign::OddFree);
        }
        if others_are_known && !is_known(entry) {
            return Some(TornSign::UnknownLogger);
        }
        (allocates && was_allocated).then_some(TornSign::AllocatedTwice)
    };
    let mut signs: Vec<_> = log.entries.iter().rev().map(sign).collect();
    signs.reverse();
    signs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::verifier::frames::Frame;

    const ALLOCATION: &[&str] = &["nt!VeAllocatePoolWithTagPriority", "myfault!Control"];
    const FREE: &[&str] = &["nt!ExFreePoolWithTag", "ndis!NdisFreeMemory"];

    /// A ring of 8 whose newest is slot 5.
    const RING: Ring = Ring {
        start: VirtAddr(0x1000),
        length: 8,
        index: 5,
        index_at: VirtAddr(0x800),
        since: 0,
        size: 0x80,
        pointer_size: 8,
    };

    fn entry(slot: u64, address: u64, size: u64, stack: &[&str]) -> PoolLogEntry {
        let frame = |name: &&str| Frame::called(name);
        let stack: Vec<_> = stack.iter().map(frame).collect();
        let kind = Kind::of(&stack);
        let (address, thread) = (VirtAddr(address), VirtAddr(0x7000));
        PoolLogEntry { slot, kind, address, size, thread, stack, stack_cut: false, torn: None }
    }

    fn signs(entries: &[PoolLogEntry]) -> Vec<Option<TornSign>> {
        super::signs(&PoolLog { entries: entries.to_vec(), ..PoolLog::empty(&RING) }, &RING, 2)
    }

    #[test]
    fn whole_entries_show_no_sign() {
        let entries = [
            entry(5, 0x100, 0x31, ALLOCATION),
            entry(4, 0x200, 0x40, FREE),
            entry(3, 0x100, 0x38, FREE),
            entry(2, 0x100, 0x33, ALLOCATION),
        ];
        assert_eq!(signs(&entries), [None; 4]);
    }

    #[test]
    fn a_stack_of_two_events_is_a_sign() {
        let mixed = [ALLOCATION[0], "nt!ObfDereferenceObject", "nt!ObpCloseHandle"];
        assert_eq!(signs(&[entry(5, 0x100, 0x40, &mixed)]), [Some(TornSign::MixedStack)]);
        let mixed = [FREE[0], ALLOCATION[0], ALLOCATION[1]];
        assert_eq!(signs(&[entry(4, 0x100, 0x40, &mixed)]), [Some(TornSign::MixedStack)]);
        assert_eq!(signs(&[entry(3, 0x100, 0x40, &mixed)]), [None], "too old to be half written");
    }

    #[test]
    fn a_free_of_what_is_no_blocks_size_is_a_sign() {
        assert_eq!(signs(&[entry(5, 0x100, 0x31, FREE)]), [Some(TornSign::OddFree)]);
        let of_a_driver = ["myfault!Control", "nt!IovCallDriver"];
        assert_eq!(signs(&[entry(5, 0x100, 0x31, &of_a_driver)]), [None], "perhaps no free");
    }

    #[test]
    fn a_stack_that_no_logger_begins_is_a_sign_where_others_are_known() {
        let unknown = entry(5, 0x100, 0x40, &["nt!IopXxxControlFile"]);
        assert_eq!(signs(&[unknown.clone(), entry(3, 0x200, 0x40, FREE)])[0], Some(TornSign::UnknownLogger));
        let also = entry(3, 0x200, 0x40, &["nt!IopXxxControlFile"]);
        assert_eq!(signs(&[unknown.clone(), also])[0], None, "this build's loggers have other names");
        assert_eq!(signs(&[unknown]), [None]);
    }

    #[test]
    fn a_block_that_is_allocated_twice_is_a_sign() {
        let twice = [entry(5, 0x100, 0x31, ALLOCATION), entry(1, 0x100, 0x31, ALLOCATION)];
        assert_eq!(signs(&twice), [Some(TornSign::AllocatedTwice), None]);
        let mapped = ["nt!VerifierMmMapIoSpace", "myfault!Map"];
        let twice = [entry(5, 0x100, 0x31, &mapped), entry(1, 0x100, 0x31, &mapped)];
        assert_eq!(signs(&twice), [None, None], "that it is unmapped is not logged");
        let failed = [entry(5, 0, 0x31, ALLOCATION), entry(1, 0, 0x31, ALLOCATION)];
        assert_eq!(signs(&failed), [None, None]);
    }
}
