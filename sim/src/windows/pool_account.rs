//! What the pool holds of each tag, as whoever simulates it knows it: no byte of it is in the machine's memory, so that what a
//! debugger adds up there can be held against it.

use std::collections::BTreeMap;

use kd_protocol::VirtAddr;

/// One kind of pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// May be paged out.
    Paged,
    /// Always in memory.
    NonPaged,
}

/// A small block of the pool, as whoever made it knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolBlock {
    /// What its owner was given.
    pub address: VirtAddr,
    /// Bytes, its header with it.
    pub bytes: u64,
    /// Its tag.
    pub tag: [u8; 4],
    /// Which pool it is of.
    pub pool: Pool,
    /// It is not freed.
    pub is_allocated: bool,
}

/// What was allocated and freed with one tag in one kind of pool since the machine started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolUse {
    /// Allocations.
    pub allocs: u64,
    /// Frees.
    pub frees: u64,
    /// Bytes that are allocated and not freed, with the pool's own headers.
    pub bytes: u64,
}

/// What one tag holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TagUse {
    /// Nonpaged pool.
    pub nonpaged: PoolUse,
    /// Paged pool.
    pub paged: PoolUse,
}

/// Every tag's use, and which processor is the next to allocate or free.
#[derive(Clone, Debug, Default)]
pub(super) struct PoolAccount {
    tags: BTreeMap<[u8; 4], TagUse>,
    blocks: Vec<PoolBlock>,
    turn: u64,
}

impl PoolAccount {
    /// The use of a tag in one kind of pool, to be changed.
    pub(super) fn of(&mut self, tag: [u8; 4], pool: Pool) -> &mut PoolUse {
        let tag = self.tags.entry(tag).or_default();
        match pool {
            Pool::Paged => &mut tag.paged,
            Pool::NonPaged => &mut tag.nonpaged,
        }
    }

    /// The number of the next event.
    pub(super) const fn turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }

    /// Remembers a small block.
    pub(super) fn lay(&mut self, block: PoolBlock) {
        self.blocks.push(block);
    }

    /// Small blocks that are known one by one.
    pub(super) fn blocks(&self) -> &[PoolBlock] {
        &self.blocks
    }

    /// Bytes of one kind of pool that all tags hold.
    pub(super) fn held(&self, pool: Pool) -> u64 {
        let of = |tag: &TagUse| match pool {
            Pool::Paged => tag.paged.bytes,
            Pool::NonPaged => tag.nonpaged.bytes,
        };
        self.tags.values().map(of).fold(0, u64::saturating_add)
    }

    /// What every tag holds.
    pub(super) const fn tags(&self) -> &BTreeMap<[u8; 4], TagUse> {
        &self.tags
    }
}
