//! Which call paths leak, and which only breathe, told from several snapshots.
//!
//! ```text
//!   kept:   blocks of the last snapshot that were there at each earlier one      0  60  120  180  ..   a leak's grow in every interval
//!   moved:  blocks that came, and blocks that went, between first and last       what breathes has as many of both
//! ```
//! A path leaks if blocks of every interval stayed to the end, and if what came outweighs what went by more than chance makes
//! it: twice the square root of their number where the path grew in every interval, three times otherwise. The last
//! interval's blocks had no time to go, so that at least [`LEAST`] snapshots are needed. A path of which nothing was ever seen to
//! go, and that is no leak by this, only grew: a slower leak, or a cache that fills. Who looks for longer will know.

use std::collections::{HashMap, HashSet};

use schemars::JsonSchema;
use serde::Serialize;

use super::diff::{Key, NotComparable, by_key, carried, compare_carried};
use super::snapshot::{Held, HexNumber, SavedBlock, SavedGroup, Snapshot};

/// So many snapshots are needed to tell a leak from a breath.
pub const LEAST: usize = 4;

/// What several snapshots of one boot say.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Verdict {
    /// Snapshots that it rests on; fewer than [`LEAST`] are too few.
    pub snapshots: usize,
    /// Milliseconds from the first to the last.
    pub elapsed_ms: u64,
    /// Call paths that leak, the fastest first.
    pub leaks: Vec<Growing>,
    /// Those that only grew: too little, or in too few intervals, to be told from chance; the fastest first.
    pub only_grew: Vec<Growing>,
    /// Those whose blocks come and go.
    pub breathing: Vec<Growing>,
    /// Those that have not changed.
    pub unchanged: usize,
}

/// A call path and how it grew.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Growing {
    /// The driver.
    pub driver: String,
    /// The path, from the caller on, by name; the caller alone where the stack is not known.
    pub path: Vec<String>,
    /// The stack of some of its blocks was read.
    pub is_stack_known: bool,
    /// The tags of its blocks.
    pub tags: Vec<String>,
    /// What it holds at last.
    pub held: Held,
    /// Bytes a minute that it grew.
    pub bytes_per_minute: f64,
    /// Blocks a minute.
    pub blocks_per_minute: f64,
}

/// Judges snapshots of one boot, the oldest first.
///
/// # Errors
/// [`NotComparable`].
///
/// # Panics
/// If there are fewer than two.
pub fn judge(snapshots: &[Snapshot]) -> Result<Verdict, NotComparable> {
    let snapshots = &carried(snapshots)[..];
    let compared = compare_carried(snapshots)?;
    let minutes = compared.elapsed_ms as f64 / 60_000.0;
    let mut verdict = Verdict {
        snapshots: snapshots.len(),
        elapsed_ms: compared.elapsed_ms,
        leaks: Vec::new(),
        only_grew: Vec::new(),
        breathing: Vec::new(),
        unchanged: 0,
    };
    let grouped: Vec<_> = snapshots.iter().map(by_key).collect();
    for group in compared.groups {
        let key = (&*group.driver, group.path.clone(), group.is_stack_known);
        let lists: Vec<_> = grouped.iter().map(|groups| blocks_of(groups, &key)).collect();
        let blocks = identities(&lists);
        let per_minute = |old: u64, new: u64| {
            if minutes > 0.0 { (i128::from(new) - i128::from(old)) as f64 / minutes } else { 0.0 }
        };
        let has_changed =
            group.history.iter().any(|held| *held != group.old) || blocks.windows(2).any(|it| it[0] != it[1]);
        let leaks =
            snapshots.len() >= LEAST && compared.is_same_boot && is_leak(&blocks, group.grew_each_time);
        let growing = Growing {
            driver: group.driver,
            path: group.path,
            is_stack_known: group.is_stack_known,
            tags: group.tags,
            held: group.new,
            bytes_per_minute: per_minute(group.old.bytes, group.new.bytes),
            blocks_per_minute: per_minute(group.old.blocks, group.new.blocks),
        };
        if leaks {
            verdict.leaks.push(growing);
        } else if only_grew(&blocks) {
            verdict.only_grew.push(growing);
        } else if has_changed {
            verdict.breathing.push(growing);
        } else {
            verdict.unchanged += 1;
        }
    }
    for fastest in [&mut verdict.leaks, &mut verdict.only_grew] {
        fastest.sort_by(|one, other| other.bytes_per_minute.total_cmp(&one.bytes_per_minute));
    }
    Ok(verdict)
}

fn blocks_of<'k, 's>(groups: &HashMap<Key<'k>, Vec<&'s SavedGroup>>, key: &Key<'k>) -> Vec<&'s SavedBlock> {
    groups.get(key).into_iter().flatten().flat_map(|it| &it.list).collect()
}

/// A block, the same in every snapshot that has it.
type Identity = usize;

/// Numbers the blocks of each snapshot. One at the same address is the same block unless its size or the event that made it
/// is known to be another: where stacks are sampled an event may be known in one snapshot and not in the next.
fn identities(snapshots: &[Vec<&SavedBlock>]) -> Vec<HashSet<Identity>> {
    let mut next = 0;
    let mut before: HashMap<HexNumber, (Identity, u64, Option<u32>)> = HashMap::new();
    let mut numbered = Vec::with_capacity(snapshots.len());
    for blocks in snapshots {
        let mut now = HashMap::with_capacity(blocks.len());
        for block in blocks {
            let is_same = |&&(_, size, event): &&(Identity, u64, Option<u32>)| {
                size == block.size && event.zip(block.event).is_none_or(|(one, other)| one == other)
            };
            let (number, event) = match before.get(&block.address).filter(is_same) {
                Some((number, _, event)) => (*number, block.event.or(*event)),
                None => {
                    next += 1;
                    (next, block.event)
                }
            };
            now.insert(block.address, (number, block.size, event));
        }
        numbered.push(now.values().map(|(number, ..)| *number).collect());
        before = now;
    }
    numbered
}

/// True if blocks came, and none that was ever seen went.
fn only_grew(snapshots: &[HashSet<Identity>]) -> bool {
    let [first, .., last] = snapshots else { return false };
    last.len() > first.len() && snapshots.iter().all(|blocks| blocks.is_subset(last))
}

fn is_leak(snapshots: &[HashSet<Identity>], grew_each_time: bool) -> bool {
    let [first, .., last] = snapshots else { return false };
    let mut seen: HashMap<&Identity, usize> = HashMap::new();
    for (number, blocks) in snapshots.iter().enumerate() {
        for block in blocks {
            seen.entry(block).or_insert(number);
        }
    }
    // Blocks of each interval that are there at the end; the first snapshot's are of none, the last interval's had no time.
    let mut stayed = vec![0_u64; snapshots.len()];
    for block in last {
        stayed[seen[block]] += 1;
    }
    if stayed[1..snapshots.len() - 1].contains(&0) {
        return false;
    }
    let came = last.difference(first).count() as f64;
    let went = first.difference(last).count() as f64;
    let by_chance = (came + went).sqrt();
    came - went > if grew_each_time { 2.0 } else { 3.0 } * by_chance
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same for a seed; any generator would do.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % limit
        }
    }

    fn set(blocks: impl IntoIterator<Item = u64>) -> HashSet<Identity> {
        blocks.into_iter().map(|it| it as usize).collect()
    }

    #[test]
    fn an_event_that_is_not_known_each_time_makes_no_other_block() {
        let block = |address, event| SavedBlock {
            address: HexNumber(address),
            size: 0x10,
            tag: "Leak".into(),
            event,
            thread: None,
        };
        let looks = [
            vec![block(1, Some(5)), block(2, None)],
            vec![block(1, None), block(2, Some(7))],
            vec![block(1, Some(5)), block(2, Some(9))],
            vec![block(1, Some(6))],
        ];
        let lists: Vec<Vec<&SavedBlock>> = looks.iter().map(|it| it.iter().collect()).collect();
        let numbered = identities(&lists);
        assert_eq!(numbered[0], numbered[1]);
        assert_eq!(numbered[1].intersection(&numbered[2]).count(), 1, "2 was allocated again");
        assert_eq!(numbered[2].intersection(&numbered[3]).count(), 0, "and 1 later");
    }

    #[test]
    fn what_stays_of_every_interval_leaks() {
        let leak: Vec<_> = (0..6).map(|number| set(0..10 + number)).collect();
        assert!(is_leak(&leak, true));
        assert!(!is_leak(&leak[..2], true), "two snapshots tell nothing");
        let once = [set(0..10), set(0..30), set(0..30), set(0..30), set(0..30)];
        assert!(!is_leak(&once, false), "it grew once and no more");
    }

    #[test]
    fn what_never_lost_a_block_only_grew() {
        let once = [set(0..10), set(0..10), set(0..11), set(0..11)];
        assert!(only_grew(&once) && !is_leak(&once, false), "one block in one interval of three");
        assert!(!only_grew(&[set(0..10), set(0..10)]), "it has not changed");
        assert!(!only_grew(&[set(0..10), set(1..12), set(1..14)]), "one went");
        assert!(!only_grew(&[set(0..10), set(0..12), set((0..11).chain(20..30))]), "one came and went");
    }

    #[test]
    fn what_comes_and_goes_breathes_however_long_it_lives() {
        for lifetime in [1, 3, 5, 20] {
            for seed in 0..100 {
                let mut random = Chance(seed);
                let (mut live, mut next) = (Vec::new(), 0);
                let (mut snapshots, mut counts) = (Vec::new(), Vec::new());
                // How a cache fills at first is no breath.
                let warm = std::iter::once(3000);
                for steps in warm.chain([300 / lifetime; 6]) {
                    for _ in 0..steps {
                        // The fewer it has, the likelier it takes one.
                        if random.below(80) >= live.len() {
                            live.push(next);
                            next += 1;
                        } else {
                            live.swap_remove(random.below(live.len()));
                        }
                    }
                    snapshots.push(set(live.iter().copied()));
                    counts.push(live.len());
                }
                let (snapshots, counts) = (&snapshots[1..], &counts[1..]);
                let grew = counts.windows(2).all(|it| it[1] > it[0]);
                assert!(!is_leak(snapshots, grew), "lifetime {lifetime}, seed {seed}: {counts:?}");
            }
        }
    }

    #[test]
    fn a_leak_among_what_breathes_by_the_same_path_is_seen() {
        for seed in 0..100 {
            let mut random = Chance(seed);
            let (mut live, mut next) = (Vec::new(), 1_000_000);
            let mut leaked = 0;
            let mut snapshots = Vec::new();
            for _ in 0..6 {
                for second in 0..60 * 300 {
                    if random.below(80) >= live.len() {
                        live.push(next);
                        next += 1;
                    } else {
                        live.swap_remove(random.below(live.len()));
                    }
                    leaked += u64::from(second % 300 == 0);
                }
                snapshots.push(set(live.iter().copied().chain(0..leaked)));
            }
            assert!(is_leak(&snapshots, false), "seed {seed}");
        }
    }
}
