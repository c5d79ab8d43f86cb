//! What verified drivers hold, as whoever simulates them knows it: no byte of it is in the machine's memory, so that what a
//! debugger reads there can be held against it.

use std::collections::BTreeMap;

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

/// Blocks by the slots that track them.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger(BTreeMap<VirtAddr, Outstanding>);

impl Ledger {
    pub(super) fn took(&mut self, slot: VirtAddr, block: Outstanding) {
        self.0.insert(slot, block);
    }

    pub(super) fn gave_back(&mut self, slot: VirtAddr) -> Option<Outstanding> {
        self.0.remove(&slot)
    }

    /// What is outstanding, by address.
    pub(super) fn blocks(&self) -> Vec<Outstanding> {
        let mut blocks: Vec<_> = self.0.values().cloned().collect();
        blocks.sort_by_key(|block| block.address);
        blocks
    }
}
