//! What an earlier snapshot knows of blocks whose allocation the log holds no more.
//!
//! ```text
//!   earlier:  block, event 100, path           log: | 90 ........ 400 |
//!   later:    block, not in the log                       log: | 350 ........ 660 |
//! ```
//! Had the block been freed and its address allocated again since, that event would be newer than the earlier snapshot. Where the log
//! has not gone once around between the two, it would be in the later log. It is not, so that the block is the same.

use std::collections::HashMap;

use super::boot::SameBoot;
use super::snapshot::{Held, SavedBlock, SavedGroup, Snapshot};

/// Moves blocks of `later` that the log holds no more to the paths that `earlier` knows of them.
pub fn carry(earlier: &Snapshot, later: &mut Snapshot) {
    let Some((old, new)) = earlier.log.zip(later.log) else { return };
    if earlier.boot.is_same(&later.boot) == SameBoot::No
        || u64::from(new.index.wrapping_sub(old.index)) >= new.length
    {
        return;
    }
    let known: HashMap<_, _> = earlier
        .groups
        .iter()
        .filter(|group| group.stacks_known > 0)
        .flat_map(|group| group.list.iter().map(move |block| (block.address, (group, block))))
        .filter(|(_, (_, block))| block.event.is_some())
        .collect();
    let mut moved: Vec<(&SavedGroup, SavedBlock)> = Vec::new();
    for group in &mut later.groups {
        if group.stacks_known > 0 || group.not_in_log != group.held.blocks {
            continue;
        }
        let caller = group.path.first().map(|frame| frame.address);
        group.list.retain(|block| {
            let same = known.get(&block.address).filter(|(of, before)| {
                of.driver == group.driver
                    && before.size == block.size
                    && of.path.first().map(|frame| frame.address) == caller
            });
            if let Some((of, before)) = same {
                moved.push((of, (*before).clone()));
            }
            same.is_none()
        });
        group.not_in_log = group.list.len() as u64;
        recount(group);
    }
    for (of, block) in moved {
        put(later, of, vec![block]);
    }
    later.groups.retain(|group| group.held.blocks > 0);
}

/// Puts blocks into the group of the path that `home` has, with their stack known as it is there.
pub(super) fn put(snapshot: &mut Snapshot, home: &SavedGroup, blocks: Vec<SavedBlock>) {
    let is_known = home.stacks_known > 0;
    let same_path = |it: &SavedGroup| {
        (it.stacks_known > 0) == is_known && it.driver == home.driver && it.path == home.path
    };
    let at = snapshot.groups.iter().position(same_path).unwrap_or_else(|| {
        snapshot.groups.push(SavedGroup {
            held: Held::default(),
            list: Vec::new(),
            stacks_known: 0,
            not_in_log: 0,
            newest_age: None,
            oldest_age: None,
            ..home.clone()
        });
        snapshot.groups.len() - 1
    });
    let group = &mut snapshot.groups[at];
    group.stacks_known += if is_known { blocks.len() as u64 } else { 0 };
    group.list.extend(blocks);
    recount(group);
}

/// What a group holds, by its list.
pub(super) fn recount(group: &mut SavedGroup) {
    let sizes = || group.list.iter().map(|block| block.size);
    let held = Held { blocks: group.list.len() as u64, bytes: sizes().fold(0, u64::saturating_add) };
    let (smallest, largest) = (sizes().min().unwrap_or(0), sizes().max().unwrap_or(0));
    (group.held, group.smallest, group.largest) = (held, smallest, largest);
}

#[cfg(test)]
mod tests {
    use super::super::sample::{frame, of_blocks};
    use super::super::snapshot::LogState;
    use super::*;

    fn group(path: &[&str], known: bool, blocks: &[(u64, Option<u32>)]) -> SavedGroup {
        let path: Vec<_> = (1..).zip(path).map(|(at, name)| frame(at, name)).collect();
        of_blocks(&path, known, blocks)
    }

    fn snapshot(index: u32, groups: Vec<SavedGroup>) -> Snapshot {
        Snapshot { log: Some(LogState { length: 0x100, index }), groups, ..Snapshot::empty() }
    }

    #[test]
    fn a_block_that_fell_out_of_the_log_keeps_its_path_as_long_as_the_log_tells() {
        let earlier =
            snapshot(0x200, vec![group(&["a!x", "a!y"], true, &[(1, Some(0x110)), (2, Some(0x180))])]);
        let later = |index| {
            let known = group(&["a!x", "a!y"], true, &[(2, Some(0x180)), (3, Some(0x230))]);
            snapshot(index, vec![known, group(&["a!x"], false, &[(1, None), (9, None)])])
        };
        let mut carried = later(0x240);
        carry(&earlier, &mut carried);
        let counts: Vec<_> =
            carried.groups.iter().map(|it| (it.held.blocks, it.stacks_known, it.not_in_log)).collect();
        assert_eq!(counts, [(3, 3, 0), (1, 0, 1)], "9 was never known");
        assert_eq!(carried.groups[0].list[2].event, Some(0x110));
        let mut overtaken = later(0x300);
        carry(&earlier, &mut overtaken);
        assert_eq!(overtaken, later(0x300), "the log went once around: it may be another block");
    }
}
