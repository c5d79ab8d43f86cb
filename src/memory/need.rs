//! What reading costs at the least: the model that a command's requests are held against.
//!
//! ```text
//!   asked for      |--|      |----|   |-|                      |------------------|
//!   one reply      |===============|                           |===============|===|
//!   requests        1                 2 with the next ..        as its bytes take
//! ```
//! Bytes that a question needs and that were not known before it came, each once, in as few requests as carry them where they
//! lie; a request for each hole, since only asking shows one; and the searches that the target did itself. What a question
//! asks for without need is not seen here: that is for the bars of `tests/request_budget/`.
//!
//! KD has no read of scattered places: a request carries one range, over KDNET of some 1,100 bytes. So the least of a
//! question about many things is a request for each block of pool and each page that it is about:
//!
//! | question, first in a boot | the least | because |
//! |---|---|---|
//! | `lm` | one a module | only a module's own entry has its name; entries are blocks of pool, at any distance |
//! | `!verifier 1` | three a driver | its node in the tree, its counters and its suspect entry, which alone has its name, are blocks of their own |
//! | that an address lies in no module | one a module | as `lm`; `dps` of pool does not name what may be in the next one |
//! | `dps` into a driver | three a driver | its entry says which it is, its headers where the debug directory is, that whose PDB it wants |
//!
//! A search by the target finds one place a request, and returns where, not what: it saves nothing here. Entries that happen
//! to be neighbours come with each other, since every read takes what a request carries; what was read of an entry, an image
//! and its identity is kept for the boot, so that the same question costs 4 to 6 in the next stop.

use std::collections::BTreeMap;

use serde::Serialize;

/// What was needed of a memory since somebody looked last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Need {
    /// The least requests that would do.
    pub requests: u64,
    /// Bytes that were asked for and not known before.
    pub bytes: u64,
    /// Ranges that they lie in.
    pub places: u64,
    /// Searches of the target's among the requests.
    pub searches: u64,
}

/// Collects what is asked for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Everything that was asked for, and what of it had to be read.
    asked: Ranges,
    read: Ranges,
    holes: u64,
    searches: u64,
}

impl Asked {
    pub(super) fn ask(&mut self, at: u64, len: u64) {
        self.asked.add(at, at.saturating_add(len));
    }

    pub(super) fn read(&mut self, at: u64, len: u64) {
        self.read.add(at, at.saturating_add(len));
    }

    pub(super) const fn meet_hole(&mut self) {
        self.holes += 1;
    }

    pub(super) const fn search(&mut self, requests: u64) {
        self.searches += requests;
    }

    /// What it comes to where a request carries `reply` bytes; 0 where there are no requests.
    pub(super) fn need(&self, reply: u64) -> Need {
        let mut need = Need { searches: self.searches, ..Need::default() };
        let mut carried = 0;
        for (start, end) in self.asked.common(&self.read) {
            need.places += 1;
            need.bytes += end - start;
            let from = start.max(carried);
            if reply > 0 && end > from {
                let requests = (end - from).div_ceil(reply);
                need.requests += requests;
                // The last bytes of the address space may be among them.
                carried = from.saturating_add(requests * reply);
            }
        }
        if reply > 0 {
            need.requests += self.holes + self.searches;
        }
        need
    }
}

/// Disjoint ranges, neighbours merged.
#[derive(Debug, Default)]
struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    fn add(&mut self, mut start: u64, mut end: u64) {
        if start >= end {
            return;
        }
        while let Some((before, until)) = self.0.range(..=end).next_back().map(|(from, to)| (*from, *to)) {
            if until < start {
                break;
            }
            (start, end) = (start.min(before), end.max(until));
            self.0.remove(&before);
        }
        self.0.insert(start, end);
    }

    /// What lies in both, in order.
    fn common<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (u64, u64)> + 'a {
        self.0.iter().flat_map(move |(start, end)| {
            let first = other.0.range(..=*start).next_back().map_or(*start, |(from, _)| *from);
            let parts = other.0.range(first..*end);
            parts.map(move |(from, to)| ((*start).max(*from), (*end).min(*to))).filter(|(from, to)| from < to)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(asked: &[(u64, u64)], read: &[(u64, u64)]) -> (u64, u64, u64) {
        let mut all = Asked::default();
        asked.iter().for_each(|(at, len)| all.ask(*at, *len));
        read.iter().for_each(|(at, len)| all.read(*at, *len));
        let need = all.need(0x400);
        (need.requests, need.bytes, need.places)
    }

    #[test]
    fn neighbours_are_carried_together() {
        let everything = [(0, 0x10_0000)];
        assert_eq!(need(&[(0x100, 8), (0x400, 8), (0x508, 8)], &everything), (2, 24, 3));
        assert_eq!(need(&[(0x508, 8), (0x100, 8), (0x400, 8), (0x400, 8)], &everything), (2, 24, 3));
        assert_eq!(need(&[(0x1000, 0x1001), (0x2001, 8)], &everything), (5, 0x1009, 1));
        assert_eq!(need(&[(0x1000, 0x100), (0x1200, 0x100), (0x1080, 0x200)], &everything), (1, 0x300, 1));
    }

    #[test]
    fn what_was_known_before_is_not_needed() {
        assert_eq!(need(&[(0x100, 8), (0x1000, 0x20)], &[(0x1010, 0x400)]), (1, 0x10, 1));
        assert_eq!(need(&[(0x100, 0x100)], &[(0, 0x110), (0x120, 0x10), (0x1f0, 0x1000)]), (1, 0x30, 3));
        assert_eq!(need(&[(0x100, 8)], &[]), (0, 0, 0));
        assert_eq!(need(&[(u64::MAX - 4, 8), (5, 0)], &[(u64::MAX - 4, 8)]), (1, 4, 1));
    }
}
