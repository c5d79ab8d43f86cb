//! One path for each block, whatever each snapshot knew of it.
//!
//! ```text
//!   one snapshot:   block A by its caller alone: not looked up, or the log held it no more      block B by its driver's offsets: no symbols
//!   another:        block A by its whole path                                                   block B by names
//!   both:           the path that most is known of
//! ```
//! A path is what a snapshot knows of a block, not the block: if the paths alone were compared, a machine on which nothing has
//! happened would seem to grow on one of them and to shrink on the other. What was guessed by other blocks of the same kind
//! gives way to what was read of the block itself.

use std::collections::{BTreeMap, HashMap};

use super::boot::{SameBoot, same_boot};
use super::carry::{put, recount};
use super::snapshot::{HexNumber, SavedBlock, SavedGroup, Snapshot};

/// A group of a snapshot, by their numbers.
type Place = (usize, usize);

/// What of a path is known, the most last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Known {
    Caller,
    /// The stack of the block, or of others of its kind.
    Path,
    /// The stack of this block.
    OwnPath,
}

/// A block in the snapshot before.
struct Before<'a> {
    number: usize,
    driver: &'a str,
    block: &'a SavedBlock,
    event: Option<u32>,
}

/// Gives each block of `snapshots`, the oldest first, the same path in each that is of the same boot.
pub(super) fn settle(snapshots: &mut [Snapshot]) {
    let mut from = 0;
    for to in 1..=snapshots.len() {
        let ends = snapshots.get(to).is_none_or(|new| same_boot(&snapshots[to - 1], new) == SameBoot::No);
        if ends {
            settle_boot(&mut snapshots[from..to]);
            from = to;
        }
    }
}

fn settle_boot(snapshots: &mut [Snapshot]) {
    if snapshots.len() < 2 {
        return;
    }
    name_alike(snapshots);
    let Numbered { numbers, learnt } = Numbered::of(snapshots);
    let homes = homes(snapshots, &numbers);
    let paths = path_numbers(snapshots);
    let path = |(snapshot, group): Place| paths[snapshot][group];
    let is_home = |at: Place, number: &usize| path(at) == path(homes[*number].1);
    let mut templates: HashMap<Place, SavedGroup> = HashMap::new();
    for (at, _) in places(snapshots) {
        for number in numbers[at.0][at.1].iter().filter(|number| !is_home(at, number)) {
            let home = homes[*number].1;
            templates.entry(home).or_insert_with(|| without_blocks(&snapshots[home.0].groups[home.1]));
        }
    }
    for (at, snapshot) in snapshots.iter_mut().enumerate() {
        let index = snapshot.log.map(|log| log.index);
        let mut moved: BTreeMap<Place, Vec<SavedBlock>> = BTreeMap::new();
        for (of, group) in snapshot.groups.iter_mut().enumerate() {
            let numbers = &numbers[at][of];
            for (block, number) in group.list.iter_mut().zip(numbers) {
                let was_there = |event: &u32| index.is_some_and(|index| !is_behind(*event, index));
                let told = learnt.get(number).filter(|(when, event)| *when > at && was_there(event));
                block.event = block.event.or_else(|| told.map(|(_, event)| *event));
            }
            if numbers.iter().all(|number| is_home((at, of), number)) {
                continue;
            }
            let (mut stay, list) = (Vec::new(), std::mem::take(&mut group.list));
            for (block, number) in list.into_iter().zip(numbers) {
                if is_home((at, of), number) {
                    stay.push(block);
                } else {
                    moved.entry(homes[*number].1).or_default().push(block);
                }
            }
            group.list = stay;
            let left = group.list.len() as u64;
            group.stacks_known = group.stacks_known.min(left);
            group.not_in_log = group.not_in_log.min(left);
            recount(group);
        }
        for (home, blocks) in moved {
            put(snapshot, &templates[&home], blocks);
        }
        snapshot.groups.retain(|group| group.held.blocks > 0);
    }
}

fn places(snapshots: &[Snapshot]) -> impl Iterator<Item = (Place, &SavedGroup)> {
    snapshots.iter().enumerate().flat_map(|(at, snapshot)| {
        snapshot.groups.iter().enumerate().map(move |(of, group)| ((at, of), group))
    })
}

/// True if an event was logged behind the moment at which the log's index was this: they wrap after 2^32.
const fn is_behind(event: u32, index: u32) -> bool {
    index.wrapping_sub(event) >= u32::MAX / 2
}

/// The same name for the same address, where one of them knew only the module.
fn name_alike(snapshots: &mut [Snapshot]) {
    let is_name = |symbol: &str| symbol.contains('!');
    let mut names: HashMap<HexNumber, Option<String>> = HashMap::new();
    let groups = snapshots.iter().flat_map(|it| &it.groups);
    for frame in groups.flat_map(|group| group.allocator.iter().chain(&group.path)) {
        let Some(symbol) = frame.symbol.as_ref().filter(|it| is_name(it)) else { continue };
        let known = names.entry(frame.address).or_insert_with(|| Some(symbol.clone()));
        // Another driver was loaded there meanwhile.
        if known.as_ref().is_some_and(|known| known != symbol) {
            *known = None;
        }
    }
    for group in snapshots.iter_mut().flat_map(|it| &mut it.groups) {
        for frame in group.allocator.iter_mut().chain(&mut group.path) {
            if frame.symbol.as_deref().is_none_or(|it| !is_name(it))
                && let Some(Some(name)) = names.get(&frame.address)
            {
                frame.symbol = Some(name.clone());
            }
        }
    }
}

/// Blocks by numbers.
#[derive(Default)]
struct Numbered {
    /// A number for each block of each group of each snapshot, the same in every snapshot that has it.
    numbers: Vec<Vec<Vec<usize>>>,
    /// The event that made a block of which earlier snapshots do not know it, and the snapshot that told.
    learnt: HashMap<usize, (usize, u32)>,
}

impl Numbered {
    fn of(snapshots: &[Snapshot]) -> Self {
        let mut found = Self::default();
        let mut next = 0;
        let mut before: HashMap<HexNumber, Before<'_>> = HashMap::new();
        let mut index = None;
        for (at, snapshot) in snapshots.iter().enumerate() {
            let mut now = HashMap::new();
            let mut of_snapshot = Vec::with_capacity(snapshot.groups.len());
            for group in &snapshot.groups {
                let mut of_group = Vec::with_capacity(group.list.len());
                for block in &group.list {
                    let earlier = before.get(&block.address);
                    let earlier = earlier.filter(|it| it.is_same(&group.driver, block, index));
                    let number = earlier.map_or(next, |it| it.number);
                    next = next.max(number + 1);
                    let event = block.event.or_else(|| earlier.and_then(|it| it.event));
                    if let (Some(Before { event: None, .. }), Some(event)) = (earlier, block.event) {
                        found.learnt.insert(number, (at, event));
                    }
                    of_group.push(number);
                    now.insert(block.address, Before { number, driver: &group.driver, block, event });
                }
                of_snapshot.push(of_group);
            }
            found.numbers.push(of_snapshot);
            (before, index) = (now, snapshot.log.map(|log| log.index));
        }
        found
    }
}

impl Before<'_> {
    /// True if `block` is this one, or nobody knows better. `index` is the log's in the snapshot of this one.
    fn is_same(&self, driver: &str, block: &SavedBlock, index: Option<u32>) -> bool {
        let is_alike = self.driver == driver && self.block.size == block.size && self.block.tag == block.tag;
        is_alike
            && match (self.event, block.event) {
                (Some(one), Some(other)) => one == other,
                // An event that was there then has made it; a newer one has made another.
                (None, Some(event)) => index.is_none_or(|index| !is_behind(event, index)),
                (_, None) => true,
            }
    }
}

/// Where most is known of each block, the last of several such places.
fn homes(snapshots: &[Snapshot], numbers: &[Vec<Vec<usize>>]) -> Vec<(Known, Place)> {
    let count = numbers.iter().flatten().flatten().max().map_or(0, |last| last + 1);
    let mut homes = vec![(Known::Caller, (0, 0)); count];
    for (at, group) in places(snapshots) {
        for (block, number) in group.list.iter().zip(&numbers[at.0][at.1]) {
            let known = match block.event {
                _ if group.stacks_known == 0 => Known::Caller,
                None => Known::Path,
                Some(_) => Known::OwnPath,
            };
            homes[*number] = homes[*number].max((known, at));
        }
    }
    homes
}

/// A number for each group, the same for the same driver and path.
fn path_numbers(snapshots: &[Snapshot]) -> Vec<Vec<usize>> {
    let mut numbers: HashMap<(&str, Vec<HexNumber>, bool), usize> = HashMap::new();
    let mut of_snapshots = Vec::with_capacity(snapshots.len());
    for snapshot in snapshots {
        let mut of_groups = Vec::with_capacity(snapshot.groups.len());
        for group in &snapshot.groups {
            let path = group.path.iter().map(|frame| frame.address).collect();
            let next = numbers.len();
            of_groups.push(*numbers.entry((&group.driver, path, group.stacks_known > 0)).or_insert(next));
        }
        of_snapshots.push(of_groups);
    }
    of_snapshots
}

/// What a group is, without its blocks.
fn without_blocks(group: &SavedGroup) -> SavedGroup {
    let SavedGroup { driver, tags, allocator, path, .. } = group;
    let (driver, tags, allocator, path) = (driver.clone(), tags.clone(), allocator.clone(), path.clone());
    SavedGroup {
        driver,
        tags,
        allocator,
        path,
        list: Vec::new(),
        newest_age: None,
        oldest_age: None,
        ..*group
    }
}

#[cfg(test)]
mod tests {
    use super::super::diff::{Comparison, Difference, compare};
    use super::super::sample::{frame, of_blocks as group};
    use super::super::snapshot::{BootIdentity, Held, LogState, SavedFrame};
    use super::*;

    fn snapshot(minute: u64, index: u32, groups: Vec<SavedGroup>) -> Snapshot {
        Snapshot {
            unix_ms: minute * 60_000,
            boot: BootIdentity { build: 7601, kernel_base: HexNumber(7), boot_time: Some(HexNumber(9)) },
            log: Some(LogState { length: 0x1_0000, index }),
            groups,
            ..Snapshot::empty()
        }
    }

    fn changes(compared: &Comparison) -> Vec<(Vec<String>, u64, u64, Difference)> {
        let groups = compared.groups.iter();
        groups.map(|it| (it.path.clone(), it.old.blocks, it.new.blocks, it.difference.unwrap())).collect()
    }

    const fn held(blocks: u64) -> Held {
        Held { blocks, bytes: blocks * 0x100 }
    }

    fn path() -> [SavedFrame; 2] {
        [frame(0x1634, "a!Get+0x34"), frame(0x2000, "a!Work+0x10")]
    }

    #[test]
    fn what_one_snapshot_did_not_look_up_is_no_growth() {
        let blocks = [(1, Some(5)), (2, Some(6))];
        let sampled = || SavedGroup { not_in_log: 0, ..group(&path()[..1], false, &[(1, None), (2, None)]) };
        let all = || group(&path(), true, &blocks);
        let of_both = |old, new| {
            changes(&compare(&[snapshot(0, 100, vec![old]), snapshot(1, 120, vec![new])]).unwrap())
        };
        let names = vec!["a!Get+0x34".to_owned(), "a!Work+0x10".to_owned()];
        // What a later snapshot tells of the event is true of the earlier one too.
        let stayed = Difference { stayed: held(2), ..Difference::default() };
        assert_eq!(of_both(sampled(), all()), [(names.clone(), 2, 2, stayed)]);
        // Whether what was not looked up since is the same block is not known.
        let same_address = Difference { same_address: held(2), ..Difference::default() };
        assert_eq!(of_both(all(), sampled()), [(names, 2, 2, same_address)]);
    }

    #[test]
    fn a_guess_by_others_of_the_kind_gives_way_to_what_was_read() {
        let other = [frame(0x1634, "a!Get+0x34"), frame(0x3000, "a!Idle+0x10")];
        let guessed = || vec![group(&path(), true, &[(1, Some(5)), (2, None)])];
        let read = || vec![group(&path(), true, &[(1, Some(5))]), group(&other, true, &[(2, Some(6))])];
        for (old, new) in [(guessed(), read()), (read(), guessed())] {
            let compared = compare(&[snapshot(0, 100, old), snapshot(1, 120, new)]).unwrap();
            assert!(compared.groups.iter().all(|it| (it.old, it.new) == (held(1), held(1))), "{compared:#?}");
        }
    }

    #[test]
    fn a_path_without_its_driver_s_symbols_is_the_same_path() {
        let bare = [frame(0x1634, "a+0x634"), frame(0x2000, "a+0x1000")];
        let old = snapshot(0, 100, vec![group(&bare, true, &[(1, Some(5)), (9, Some(7))])]);
        let new = snapshot(1, 120, vec![group(&path(), true, &[(1, Some(5))])]);
        let compared = compare(&[old, new]).unwrap();
        let [only] = &compared.groups[..] else { panic!("{compared:#?}") };
        let expected = Difference { went: held(1), stayed: held(1), ..Difference::default() };
        assert_eq!((only.difference, &*only.path[0]), (Some(expected), "a!Get+0x34"));
    }

    #[test]
    fn a_block_of_a_newer_event_is_another_and_stays_where_it_was() {
        let old = snapshot(0, 100, vec![group(&path()[..1], false, &[(1, None)])]);
        let new = snapshot(1, 120, vec![group(&path(), true, &[(1, Some(110))])]);
        let compared = changes(&compare(&[old, new]).unwrap());
        let went = Difference { went: held(1), ..Difference::default() };
        let appeared = Difference { appeared: held(1), ..Difference::default() };
        assert_eq!(compared.iter().map(|it| it.3).collect::<Vec<_>>(), [appeared, went]);
    }

    #[test]
    fn another_boot_has_nothing_to_do_with_it() {
        let old = snapshot(0, 100, vec![group(&path()[..1], false, &[(1, None)])]);
        let mut new = snapshot(1, 120, vec![group(&path(), true, &[(1, Some(5))])]);
        new.boot.kernel_base = HexNumber(8);
        let compared = compare(&[old, new]).unwrap();
        assert_eq!((compared.is_same_boot, compared.groups.len()), (false, 2));
    }
}
