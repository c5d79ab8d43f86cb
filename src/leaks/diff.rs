//! What has become of each call path between two snapshots.
//!
//! ```text
//!   the same boot:    a block is its address and the log event that made it      appeared, went, stayed
//!   two boots:        blocks have nothing in common; paths are compared by name  counts and bytes only
//! ```
//! A block whose event is not known in both is told by its address alone, and counted as such: it may have been freed and
//! allocated again.

use std::collections::{HashMap, HashSet};

use schemars::JsonSchema;
use serde::Serialize;

use super::boot::{SameBoot, same_boot};
use super::carry::carry;
use super::home::settle;
use super::snapshot::{Held, SavedBlock, SavedGroup, Snapshot};

/// Why two snapshots cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotComparable {
    /// They have no driver in common.
    #[error("they are of different drivers: {old}; {new}")]
    Drivers {
        /// Those of the older.
        old: String,
        /// Those of the newer.
        new: String,
    },
    /// Their paths begin at different places.
    #[error("their call paths begin at different places: -skip {old}; -skip {new}")]
    Skips {
        /// The older's.
        old: String,
        /// The newer's.
        new: String,
    },
    /// They are of blocks with different tags.
    #[error("they are of different tags: {old}; {new}")]
    Tags {
        /// The older's.
        old: String,
        /// The newer's.
        new: String,
    },
}

/// What has become of everything between two snapshots, or over several.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Comparison {
    /// Both are of one boot, or nothing says that they are not.
    pub is_same_boot: bool,
    /// Whether they are is known: each says when its machine booted, or they cannot be of the same.
    pub is_boot_known: bool,
    /// Milliseconds between them.
    pub elapsed_ms: u64,
    /// What the first has.
    pub old: Held,
    /// What the last has.
    pub new: Held,
    /// Drivers that only one of them is about.
    pub drivers_of_one_only: Vec<String>,
    /// Each call path, those that grew the most first; of those that grew the same, those that hold the most.
    pub groups: Vec<GroupDiff>,
}

/// What has become of one call path.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct GroupDiff {
    /// The driver.
    pub driver: String,
    /// The path, from the caller on, by name; the caller alone where the stack is not known.
    pub path: Vec<String>,
    /// The stack of some of its blocks was read. Blocks of one caller of which it was not are a path of their own.
    pub is_stack_known: bool,
    /// The tags of its blocks.
    pub tags: Vec<String>,
    /// What the first has.
    pub old: Held,
    /// What the last has.
    pub new: Held,
    /// What it held in each snapshot, the first to the last.
    pub history: Vec<Held>,
    /// It grew from each snapshot to the next.
    pub grew_each_time: bool,
    /// What of it came and went; nothing between two boots.
    pub difference: Option<Difference>,
    /// Bytes an hour that it grew; nothing if no time has passed.
    pub bytes_per_hour: Option<f64>,
    /// Blocks an hour.
    pub blocks_per_hour: Option<f64>,
}

/// Blocks that came, went and stayed between two moments of a boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Difference {
    /// Only the newer has them.
    pub appeared: Held,
    /// Only the older has them.
    pub went: Held,
    /// Both have them: the same address, allocated by the same event.
    pub stayed: Held,
    /// Both have a block at the address; whether it is the same is not known, since its event is not.
    pub same_address: Held,
}

impl Held {
    fn add(&mut self, block: &SavedBlock) {
        *self = self.plus(Self { blocks: 1, bytes: block.size });
    }
}

/// What a group is known by in every boot: its driver and the names of its path.
pub(super) type Key<'a> = (&'a str, Vec<String>, bool);

pub(super) fn key(group: &SavedGroup) -> Key<'_> {
    let path = group.path.iter().map(|frame| frame.name().into_owned()).collect();
    (&group.driver, path, group.stacks_known > 0)
}

/// Compares snapshots, the oldest first: the last with the first, and how each path grew between.
///
/// # Errors
/// [`NotComparable`].
///
/// # Panics
/// If there are fewer than two.
pub fn compare(snapshots: &[Snapshot]) -> Result<Comparison, NotComparable> {
    compare_carried(&carried(snapshots))
}

/// The same for snapshots that have what the others know.
pub(super) fn compare_carried(snapshots: &[Snapshot]) -> Result<Comparison, NotComparable> {
    let [old, .., new] = snapshots else { panic!("two snapshots at the least") };
    if old.tag != new.tag {
        let tag = |it: &Snapshot| it.tag.clone().unwrap_or_else(|| "all".to_owned());
        return Err(NotComparable::Tags { old: tag(old), new: tag(new) });
    }
    if old.skip != new.skip {
        let skip = |it: &Snapshot| it.skip.join(" ");
        return Err(NotComparable::Skips { old: skip(old), new: skip(new) });
    }
    let names = |it: &Snapshot| it.drivers.iter().map(|driver| driver.name.clone()).collect::<Vec<_>>();
    let (of_old, of_new) = (names(old), names(new));
    let in_one = |name: &&String| !of_old.contains(name) || !of_new.contains(name);
    let drivers_of_one_only: Vec<_> = of_old.iter().chain(&of_new).filter(in_one).cloned().collect();
    let is_common = of_old.iter().any(|name| of_new.contains(name));
    if !is_common && (of_old.len() + of_new.len()) > 0 {
        return Err(NotComparable::Drivers { old: of_old.join(", "), new: of_new.join(", ") });
    }
    let boots: Vec<_> = snapshots.windows(2).map(|pair| same_boot(&pair[0], &pair[1])).collect();
    let is_same_boot = !boots.contains(&SameBoot::No);
    let is_boot_known = !boots.contains(&SameBoot::NotKnown) || !is_same_boot;
    let elapsed_ms = new.unix_ms.saturating_sub(old.unix_ms);
    let grouped: Vec<HashMap<Key<'_>, Vec<&SavedGroup>>> = snapshots.iter().map(by_key).collect();
    let keys: HashSet<&Key<'_>> = grouped.iter().flat_map(HashMap::keys).collect();
    let mut groups: Vec<_> =
        keys.into_iter().map(|key| group_diff(key, &grouped, is_same_boot, elapsed_ms)).collect();
    let rank = |group: &GroupDiff| {
        (i128::from(group.new.bytes) - i128::from(group.old.bytes), group.new.bytes, group.new.blocks)
    };
    // No two have the same name, so that the order is one and the same each time.
    let name = |group: &GroupDiff| (group.driver.clone(), group.path.clone(), group.is_stack_known);
    groups.sort_by(|one, other| rank(other).cmp(&rank(one)).then_with(|| name(one).cmp(&name(other))));
    let (old, new) = (old.held(), new.held());
    Ok(Comparison { is_same_boot, is_boot_known, elapsed_ms, old, new, drivers_of_one_only, groups })
}

/// Each with what the others know.
pub(super) fn carried(snapshots: &[Snapshot]) -> Vec<Snapshot> {
    let mut carried: Vec<Snapshot> = Vec::with_capacity(snapshots.len());
    for snapshot in snapshots {
        let mut snapshot = snapshot.clone();
        if let Some(earlier) = carried.last() {
            carry(earlier, &mut snapshot);
        }
        carried.push(snapshot);
    }
    settle(&mut carried);
    carried
}

pub(super) fn by_key(snapshot: &Snapshot) -> HashMap<Key<'_>, Vec<&SavedGroup>> {
    let mut groups: HashMap<_, Vec<_>> = HashMap::new();
    for group in &snapshot.groups {
        groups.entry(key(group)).or_default().push(group);
    }
    groups
}

fn group_diff(
    key: &Key<'_>,
    grouped: &[HashMap<Key<'_>, Vec<&SavedGroup>>],
    is_same_boot: bool,
    elapsed_ms: u64,
) -> GroupDiff {
    let of = |snapshot: &HashMap<Key<'_>, Vec<&SavedGroup>>| -> Held {
        snapshot.get(key).into_iter().flatten().fold(Held::default(), |sum, group| sum.plus(group.held))
    };
    let history: Vec<Held> = grouped.iter().map(of).collect();
    let (first, last) = (&grouped[0], &grouped[grouped.len() - 1]);
    let (old, new) = (history[0], history[history.len() - 1]);
    let mut tags: Vec<String> = [first, last]
        .iter()
        .flat_map(|it| it.get(key).into_iter().flatten())
        .flat_map(|group| group.tags.iter().cloned())
        .collect();
    tags.sort();
    tags.dedup();
    let hours = elapsed_ms as f64 / 3_600_000.0;
    let per_hour =
        |old: u64, new: u64| (elapsed_ms > 0).then(|| (i128::from(new) - i128::from(old)) as f64 / hours);
    GroupDiff {
        driver: key.0.to_owned(),
        path: key.1.clone(),
        is_stack_known: key.2,
        tags,
        old,
        new,
        grew_each_time: history.windows(2).all(|pair| pair[1].bytes > pair[0].bytes),
        history,
        difference: is_same_boot.then(|| difference(first.get(key), last.get(key))),
        bytes_per_hour: per_hour(old.bytes, new.bytes),
        blocks_per_hour: per_hour(old.blocks, new.blocks),
    }
}

fn difference(old: Option<&Vec<&SavedGroup>>, new: Option<&Vec<&SavedGroup>>) -> Difference {
    let blocks = |groups: Option<&Vec<&SavedGroup>>| -> Vec<SavedBlock> {
        groups.into_iter().flatten().flat_map(|group| group.list.iter().cloned()).collect()
    };
    let (old, new) = (blocks(old), blocks(new));
    let mut before: HashMap<_, _> = old.iter().map(|block| (block.address, block)).collect();
    let mut difference = Difference::default();
    for block in &new {
        match before.remove(&block.address) {
            None => difference.appeared.add(block),
            Some(earlier) => match (earlier.event, block.event) {
                (Some(one), Some(other)) if one == other => difference.stayed.add(block),
                (Some(_), Some(_)) => {
                    difference.went.add(earlier);
                    difference.appeared.add(block);
                }
                _ => difference.same_address.add(block),
            },
        }
    }
    before.values().for_each(|block| difference.went.add(block));
    difference
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::{BootIdentity, HexNumber, LogState, SavedDriver, SavedFrame};
    use super::*;

    fn block(address: u64, event: Option<u32>) -> SavedBlock {
        SavedBlock { address: HexNumber(address), size: 0x100, tag: "Leak".into(), event, thread: None }
    }

    fn snapshot(unix_ms: u64, base: u64, blocks: &[(u64, Option<u32>)]) -> Snapshot {
        let list: Vec<_> = blocks.iter().map(|(address, event)| block(*address, *event)).collect();
        let held = Held { blocks: list.len() as u64, bytes: list.len() as u64 * 0x100 };
        let frame =
            SavedFrame { address: HexNumber(base + 0x1634), symbol: Some("myfault!Control+0x34".into()) };
        Snapshot {
            unix_ms,
            boot: BootIdentity { build: 7601, kernel_base: HexNumber(base), boot_time: None },
            log: Some(LogState { length: 0x1_0000, index: 1000 }),
            drivers: vec![SavedDriver { name: "myfault.sys".into(), held }],
            groups: vec![SavedGroup {
                driver: "myfault.sys".into(),
                held,
                smallest: 0x100,
                largest: 0x100,
                tags: vec!["Leak".into()],
                newest_age: None,
                oldest_age: None,
                stacks_known: held.blocks,
                not_in_log: 0,
                allocator: Vec::new(),
                path: vec![frame],
                list,
            }],
            ..Snapshot::empty()
        }
    }

    const fn held(blocks: u64) -> Held {
        Held { blocks, bytes: blocks * 0x100 }
    }

    #[test]
    fn a_block_at_the_same_address_by_another_event_is_another_block() {
        let old = snapshot(0, 0x1000, &[(1, Some(5)), (2, Some(6)), (3, None), (4, Some(8)), (7, Some(3))]);
        let new = snapshot(
            3_600_000,
            0x1000,
            // The log was at 1000 when the older one was made: what made the third is older.
            &[(1, Some(5)), (2, Some(9)), (3, Some(7)), (5, Some(10)), (6, Some(11)), (7, None)],
        );
        let compared = compare(&[old, new]).unwrap();
        let [group] = &compared.groups[..] else { panic!("{compared:#?}") };
        let expected =
            Difference { appeared: held(3), went: held(2), stayed: held(2), same_address: held(1) };
        assert_eq!(group.difference, Some(expected));
        assert_eq!((group.bytes_per_hour, group.blocks_per_hour), (Some(256.0), Some(1.0)));
        assert!(compared.is_same_boot && group.grew_each_time);
    }

    #[test]
    fn paths_that_differ_in_what_is_known_of_them_alone_have_their_order() {
        let of = |at| {
            let mut snapshot = snapshot(at, 0x1000, &[(1, Some(5))]);
            let mut unknown = snapshot.groups[0].clone();
            (unknown.stacks_known, unknown.not_in_log) = (0, 1);
            unknown.list[0].address = HexNumber(2);
            let mut other = snapshot.groups[0].clone();
            other.driver = "a.sys".into();
            snapshot.groups.extend([unknown, other]);
            snapshot
        };
        // A hash's order is another each time.
        for _ in 0..20 {
            let compared = compare(&[of(0), of(1000)]).unwrap();
            let order: Vec<_> =
                compared.groups.iter().map(|group| (&*group.driver, group.is_stack_known)).collect();
            assert_eq!(order, [("a.sys", true), ("myfault.sys", false), ("myfault.sys", true)]);
        }
    }

    #[test]
    fn two_boots_compare_by_name() {
        let compared =
            compare(&[snapshot(0, 0x1000, &[(1, Some(5))]), snapshot(1000, 0x7000, &[(1, Some(5))])])
                .unwrap();
        assert!(!compared.is_same_boot);
        let [group] = &compared.groups[..] else { panic!("{compared:#?}") };
        assert_eq!((group.difference, group.old, group.new), (None, held(1), held(1)));
        assert_eq!(group.path, ["myfault!Control+0x34"]);
    }

    #[test]
    fn what_breathes_has_not_grown_each_time() {
        let of = |at, count: u64| {
            snapshot(at, 0x1000, &(0..count).map(|it| (it, Some(it as u32))).collect::<Vec<_>>())
        };
        let compared = compare(&[of(0, 3), of(1, 5), of(2, 4)]).unwrap();
        assert!(!compared.groups[0].grew_each_time && compared.groups[0].new > compared.groups[0].old);
        assert_eq!(compared.groups[0].history.len(), 3);
    }

    #[test]
    fn different_things_are_not_compared() {
        let mut other = snapshot(0, 0x1000, &[]);
        other.drivers[0].name = "netfilt.sys".into();
        let error = compare(&[snapshot(0, 0x1000, &[]), other.clone()]).unwrap_err();
        assert_eq!(error.to_string(), "they are of different drivers: myfault.sys; netfilt.sys");
        other.tag = Some("Leak".into());
        let error = compare(&[snapshot(0, 0x1000, &[]), other]).unwrap_err();
        assert_eq!(error.to_string(), "they are of different tags: all; Leak");
    }
}
