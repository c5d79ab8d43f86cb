//! Snapshots for tests.

use super::snapshot::{
    BootIdentity, Held, HexNumber, SavedBlock, SavedDriver, SavedFrame, SavedGroup, Snapshot,
};

/// A group of `blocks` blocks of the same size, its path innermost first.
pub(super) fn group(driver: &str, path: &[&str], blocks: u64, bytes: u64) -> SavedGroup {
    let size = bytes / blocks.max(1);
    let list = (0..blocks)
        .map(|it| SavedBlock {
            address: HexNumber(0xffff_fa80_0540_0000 + it * 0x10_0000),
            size,
            tag: "Leak".into(),
            event: u32::try_from(it).ok(),
            thread: Some(HexNumber(0xffff_fa80_03c0_1060)),
        })
        .collect();
    let frame = |name: &&str| SavedFrame {
        address: HexNumber(0xffff_f880_0447_d634),
        symbol: Some((*name).to_owned()),
    };
    SavedGroup {
        driver: driver.into(),
        held: Held { blocks, bytes },
        smallest: size,
        largest: size,
        tags: vec!["Leak".into()],
        newest_age: Some(1),
        oldest_age: Some(blocks),
        stacks_known: blocks,
        not_in_log: 0,
        allocator: vec![frame(&"nt!VerifierExAllocatePoolEx+0x1d")],
        path: path.iter().map(frame).collect(),
        list,
    }
}

/// A frame.
pub(super) fn frame(address: u64, symbol: &str) -> SavedFrame {
    SavedFrame { address: HexNumber(address), symbol: Some(symbol.into()) }
}

/// A group of blocks at these addresses, by the events that made them, as far as they are known. Whose stack is not known is not
/// in the log.
pub(super) fn of_blocks(path: &[SavedFrame], is_known: bool, blocks: &[(u64, Option<u32>)]) -> SavedGroup {
    let block = |(address, event): &(u64, Option<u32>)| SavedBlock {
        address: HexNumber(*address),
        size: 0x100,
        tag: "Leak".into(),
        event: *event,
        thread: None,
    };
    let count = blocks.len() as u64;
    SavedGroup {
        driver: "a.sys".into(),
        held: Held { blocks: count, bytes: count * 0x100 },
        smallest: 0x100,
        largest: 0x100,
        tags: vec!["Leak".into()],
        newest_age: None,
        oldest_age: None,
        stacks_known: if is_known { count } else { 0 },
        not_in_log: if is_known { 0 } else { count },
        allocator: Vec::new(),
        path: path.to_vec(),
        list: blocks.iter().map(block).collect(),
    }
}

/// A snapshot of these groups, a minute after the one before it.
pub(super) fn snapshot(minute: u64, groups: Vec<SavedGroup>) -> Snapshot {
    let mut drivers: Vec<SavedDriver> = Vec::new();
    for group in &groups {
        match drivers.iter_mut().find(|driver| driver.name == group.driver) {
            Some(driver) => {
                driver.held.blocks = driver.held.blocks.saturating_add(group.held.blocks);
                driver.held.bytes = driver.held.bytes.saturating_add(group.held.bytes);
            }
            None => drivers.push(SavedDriver { name: group.driver.clone(), held: group.held }),
        }
    }
    Snapshot {
        unix_ms: 1_764_115_200_000 + minute * 60_000,
        boot: BootIdentity { build: 7601, kernel_base: HexNumber(0xffff_f800_0280_0000), boot_time: None },
        drivers,
        groups,
        ..Snapshot::empty()
    }
}
