//! What verified drivers hold, as whoever simulates them knows it: no byte of it is in the machine's memory, so that what a
//! debugger reads there can be held against it.

use std::collections::{BTreeMap, VecDeque};

use kd_protocol::VirtAddr;

/// A block that a driver has taken and not given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outstanding {
    /// The driver's module.
    pub driver: &'static str,
    /// Where the block is.
    pub address: VirtAddr,
    /// Bytes, as its tracker has them.
    pub size: u64,
    /// Its tag, in memory order; `None` if the driver gave none.
    pub tag: Option<[u8; 4]>,
    /// Return address in the driver.
    pub caller: VirtAddr,
}

/// Changes that are remembered.
const REMEMBERED: usize = 0x4_0000;

/// Blocks by the slots that track them, and how they came to be so.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    blocks: BTreeMap<VirtAddr, Outstanding>,
    changes: VecDeque<Change>,
}

/// What a slot tracked before something happened.
#[derive(Clone, Debug)]
struct Change {
    /// Events in the pool log before this one.
    index: u32,
    slot: VirtAddr,
    before: Option<Outstanding>,
}

impl Ledger {
    /// `index` is the pool log's, in which this is not logged yet.
    pub(super) fn took(&mut self, index: u32, slot: VirtAddr, block: Outstanding) {
        let before = self.blocks.insert(slot, block);
        self.remember(Change { index, slot, before });
    }

    /// See [`took`](Self::took).
    pub(super) fn gave_back(&mut self, index: u32, slot: VirtAddr) -> Option<Outstanding> {
        let before = self.blocks.remove(&slot);
        self.remember(Change { index, slot, before: before.clone() });
        before
    }

    fn remember(&mut self, change: Change) {
        if self.changes.len() == REMEMBERED {
            self.changes.pop_front();
        }
        self.changes.push_back(change);
    }

    /// What is outstanding, by address.
    pub(super) fn blocks(&self) -> Vec<Outstanding> {
        by_address(&self.blocks)
    }

    /// What was outstanding when the pool log's index was this; nothing if that is longer ago than is remembered.
    pub(super) fn blocks_at(&self, index: u32) -> Option<Vec<Outstanding>> {
        let is_later = |change: &&Change| change.index.wrapping_sub(index).cast_signed() >= 0;
        let later = self.changes.iter().rev().take_while(is_later).count();
        if later == REMEMBERED {
            return None;
        }
        let mut blocks = self.blocks.clone();
        for Change { slot, before, .. } in self.changes.iter().rev().take(later) {
            match before {
                Some(block) => drop(blocks.insert(*slot, block.clone())),
                None => drop(blocks.remove(slot)),
            }
        }
        Some(by_address(&blocks))
    }
}

fn by_address(blocks: &BTreeMap<VirtAddr, Outstanding>) -> Vec<Outstanding> {
    let mut blocks: Vec<_> = blocks.values().cloned().collect();
    blocks.sort_by_key(|block| block.address);
    blocks
}
