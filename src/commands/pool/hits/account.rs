//! Hits summed up by call path.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::hit::{Hit, HitKind, HitStack};
use super::report::{Counted, HitEnd, HitGroup, HitReport, StoodStill};
use crate::commands::pool::tag::PoolTag;
use crate::target::VirtAddr;

/// Call paths that are told apart: whatever calls by more is counted together.
pub const MOST_GROUPS: usize = 10_000;
/// Blocks that are followed to their frees.
const MOST_HELD: usize = 1_000_000;
/// Threads of a group that are told apart.
const MOST_THREADS: usize = 1000;

/// What hits of a group have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Path(HitKind, bool, Vec<VirtAddr>),
    /// Their stack was not taken, as nobody asked for it or it took too long.
    NoStack(HitKind),
}

/// The hits of a tag so far.
#[derive(Clone, Debug)]
pub struct HitAccount {
    tag: PoolTag,
    counted: Counted,
    groups: HashMap<Key, usize>,
    list: Vec<HitGroup>,
    threads: Vec<BTreeSet<VirtAddr>>,
    /// Blocks that are held as far as is known, and by which group.
    held: HashMap<VirtAddr, usize>,
}

impl HitAccount {
    /// None.
    #[must_use]
    pub fn new(tag: PoolTag) -> Self {
        Self {
            tag,
            counted: Counted::default(),
            groups: HashMap::new(),
            list: Vec::new(),
            threads: Vec::new(),
            held: HashMap::new(),
        }
    }

    /// Whose they are.
    #[must_use]
    pub const fn tag(&self) -> PoolTag {
        self.tag
    }

    /// How many there are.
    #[must_use]
    pub const fn counted(&self) -> Counted {
        self.counted
    }

    /// Adds one. Which group it is of, for [`returned`](Self::returned).
    pub fn add(&mut self, hit: Hit) -> usize {
        if let (HitKind::Free, Some(block)) = (hit.kind, hit.block)
            && let Some(of) = self.held.remove(&block)
        {
            self.list[of].freed += 1;
        }
        self.counted.hits += 1;
        match hit.kind {
            HitKind::Allocation => self.counted.allocations += 1,
            HitKind::Free => self.counted.frees += 1,
            HitKind::Use => self.counted.uses += 1,
        }
        self.counted.stacks += u64::from(hit.stack.is_some());
        let key = match &hit.stack {
            Some(HitStack { allocator, path, breaks_off, .. }) if self.list.len() < MOST_GROUPS => {
                let addresses = allocator.iter().chain(path).map(|frame| frame.address).collect();
                Key::Path(hit.kind, breaks_off.is_none(), addresses)
            }
            _ => Key::NoStack(hit.kind),
        };
        let at = match self.groups.get(&key) {
            Some(at) => *at,
            None => self.begin(key, &hit),
        };
        let (group, threads) = (&mut self.list[at], &mut self.threads[at]);
        group.hits += 1;
        if let Some(size) = hit.size {
            group.smallest = Some(group.smallest.map_or(size, |it| it.min(size)));
            group.largest = Some(group.largest.map_or(size, |it| it.max(size)));
            group.bytes = group.bytes.saturating_add(size);
            group.sized += 1;
        }
        if threads.len() < MOST_THREADS {
            threads.insert(hit.thread);
        }
        group.threads = threads.len() as u64;
        if let Err(place) = group.processors.binary_search(&hit.processor) {
            group.processors.insert(place, hit.processor);
        }
        at
    }

    /// The block that an allocation of this group has come to.
    pub fn returned(&mut self, group: usize, block: VirtAddr) {
        if self.held.len() < MOST_HELD {
            self.list[group].followed += 1;
            self.held.insert(block, group);
        }
    }

    fn begin(&mut self, key: Key, hit: &Hit) -> usize {
        let stack = hit.stack.as_ref().filter(|_| matches!(key, Key::Path(..)));
        self.list.push(HitGroup::new(hit.kind, stack.cloned()));
        self.threads.push(BTreeSet::new());
        self.groups.insert(key, self.list.len() - 1);
        self.list.len() - 1
    }

    /// What it comes to after `elapsed`.
    #[must_use]
    pub fn report(&self, end: HitEnd, elapsed: Duration, stood_still: StoodStill) -> HitReport {
        HitReport {
            tag: self.tag,
            counted: self.counted,
            groups: self.groups(),
            end,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            stood_still,
            is_cleared: false,
            files: Vec::new(),
        }
    }

    /// Its groups, the largest first.
    #[must_use]
    pub fn groups(&self) -> Vec<HitGroup> {
        let mut groups = self.list.clone();
        for group in &mut groups {
            group.share = group.hits as f64 / self.counted.hits as f64;
        }
        groups.sort_by_key(|group| (std::cmp::Reverse(group.hits), group.kind));
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::verifier::frames::Frame;

    fn hit(kind: HitKind, path: Option<&[u64]>, size: Option<u64>, thread: u64) -> Hit {
        let frames = |path: &[u64]| {
            path.iter().map(|at| Frame { address: VirtAddr(*at), symbol: None }).collect::<Vec<_>>()
        };
        let stack = path.map(|path| HitStack {
            allocator: frames(&path[..1]),
            path: frames(&path[1..]),
            driver: None,
            breaks_off: None,
            returns_to: None,
        });
        Hit { kind, processor: (thread % 4) as u16, thread: VirtAddr(thread), size, block: None, stack }
    }

    #[test]
    fn hits_by_one_path_are_one_group() {
        let mut account = HitAccount::new(PoolTag::parse("Leak").unwrap());
        for number in 0..10 {
            account.add(hit(HitKind::Allocation, Some(&[1, 2, 3]), Some(16 + number), number));
        }
        account.add(hit(HitKind::Allocation, Some(&[1, 2, 4]), None, 0));
        account.add(hit(HitKind::Free, Some(&[1, 2, 3]), None, 0));
        account.add(hit(HitKind::Allocation, None, None, 0));
        let groups = account.groups();
        let seen: Vec<_> = groups.iter().map(|group| (group.kind, group.hits, group.path.len())).collect();
        assert_eq!(seen[0], (HitKind::Allocation, 10, 2));
        assert_eq!(groups.len(), 4, "{seen:?}");
        let first = &groups[0];
        assert_eq!((first.smallest, first.largest, first.sized, first.bytes), (Some(16), Some(25), 10, 205));
        assert_eq!((first.threads, &first.processors[..]), (10, &[0, 1, 2, 3][..]));
        let counted = account.counted();
        assert_eq!((counted.hits, counted.allocations, counted.frees, counted.stacks), (13, 12, 1, 12));
    }

    #[test]
    fn paths_without_end_are_counted_and_not_kept() {
        let mut account = HitAccount::new(PoolTag::parse("Leak").unwrap());
        for number in 0..MOST_GROUPS as u64 + 50 {
            account.add(hit(HitKind::Allocation, Some(&[1, number]), None, 0));
        }
        assert_eq!(account.groups().len(), MOST_GROUPS + 1);
        assert_eq!(account.groups()[0].hits, 50, "those that found no room");
    }
}
