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
