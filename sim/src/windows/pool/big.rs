//! The table of blocks that are whole pages, by address.
//!
//! A hash table with open addressing: an entry that was used before is marked by bit 0 of its address and keeps everything else, its
//! tag too; one that never was has the mark alone.
//!
//! Source: pool.md 3.

use kd_protocol::VirtAddr;

use super::trackers::allocated;
use crate::paging::Access;
use crate::windows::kernel::{Kernel, span};
use crate::windows::pool_account::{Pool, PoolBlock};

/// Entries, a power of two.
const ENTRIES: u64 = 0x1000;
const TABLE: VirtAddr = VirtAddr(0xffff_fa80_0230_0000);
const ENTRY: &str = "_POOL_TRACKER_BIG_PAGES";
/// Marks an entry that is free.
const FREE: u64 = 1;
const HASH: u64 = 40543;

/// Makes the table, with some blocks in it that any machine has.
pub(in crate::windows) fn start(kernel: &mut Kernel) {
    let size = kernel.size_of(ENTRY);
    kernel.map(span(TABLE, size * ENTRIES), Access::Write);
    let mut bytes = vec![0; (size * ENTRIES) as usize];
    bytes.chunks_exact_mut(size as usize).for_each(|entry| entry[0] = FREE as u8);
    kernel.write(TABLE, &bytes);
    kernel.write_variables(&[("PoolBigPageTable", TABLE.0, 8), ("PoolBigPageTableSize", ENTRIES, 8)]);
    insert(kernel, TABLE, *b"Pool", Pool::NonPaged, (size * ENTRIES).next_multiple_of(0x1000));
    for number in 0..40 {
        let (tag, pool, base) = match number % 4 {
            0 => (*b"EtwB", Pool::NonPaged, 0xffff_fa80_3000_0000),
            1 => (*b"NDpp", Pool::NonPaged, 0xffff_fa80_3100_0000),
            2 => (*b"CM25", Pool::Paged, 0xffff_f8a0_3000_0000),
            _ => (*b"MmSt", Pool::Paged, 0xffff_f8a0_3100_0000),
        };
        let address = VirtAddr(base + number * 0x1_0000);
        insert(kernel, address, tag, pool, 0x1000 << (number % 4));
        // Every seventh was freed again.
        if number % 7 == 0 {
            remove(kernel, address);
        }
    }
}

/// Allocates large blocks of both pools, some of which were freed again: their entries keep the tag.
pub(in crate::windows) fn furnish(kernel: &mut Kernel) {
    for number in 0..24 {
        let (pool, base) = match number % 2 {
            0 => (Pool::NonPaged, 0xffff_fa80_3800_0000),
            _ => (Pool::Paged, 0xffff_f8a0_3800_0000),
        };
        let tag = if number % 3 == 0 { *b"Leak" } else { *b"Big " };
        let (address, bytes) = (VirtAddr(base + number * 0x20_0000), 0x1000 << (number % 6));
        // Those of the leak were all freed.
        let is_allocated = number % 3 != 0 && number % 8 != 5;
        insert(kernel, address, tag, pool, bytes);
        if is_allocated {
            allocated(kernel, PoolBlock { address, bytes, tag, pool, is_allocated });
        } else {
            remove(kernel, address);
        }
    }
}

/// Enters a block. Nothing happens if there is no room, or no table.
pub(in crate::windows) fn insert(kernel: &mut Kernel, block: VirtAddr, tag: [u8; 4], pool: Pool, bytes: u64) {
    let Some(at) = places(kernel, block).find(|at| kernel.read_u64(*at) & FREE != 0) else { return };
    // Since 25H2 the word has flags of its own: 0x40 nonpaged, 0x100 paged.
    let (name, ty) = match (kernel.has(ENTRY, "PoolFlags"), pool) {
        (true, Pool::NonPaged) => ("PoolFlags", 0x40),
        (true, Pool::Paged) => ("PoolFlags", 0x100),
        (false, Pool::NonPaged) if kernel.has(ENTRY, "Pattern") => ("PoolType", 0x200),
        (false, Pool::NonPaged) => ("PoolType", 0),
        (false, Pool::Paged) => ("PoolType", 1),
    };
    let key = u32::from_le_bytes(tag).into();
    kernel.set_all(at, ENTRY, &[("Va", block.0), ("Key", key), (name, ty), ("NumberOfBytes", bytes)]);
}

/// Marks the entry of a block as free, if it has one.
pub(in crate::windows) fn remove(kernel: &mut Kernel, block: VirtAddr) {
    // Behind an entry that was never used there is none that was moved on from its place: most blocks are small, and in no
    // entry at all.
    let mut used = places(kernel, block).take_while(|at| kernel.read_u64(*at) != FREE);
    if let Some(at) = used.find(|at| kernel.read_u64(*at) == block.0) {
        kernel.write_u64(at, block.0 | FREE);
    }
}

/// Where the entry of a block may be, the likeliest first.
fn places(kernel: &Kernel, block: VirtAddr) -> impl Iterator<Item = VirtAddr> + use<> {
    let page = block.0 >> 12;
    let (hash, low) = (HASH.wrapping_mul(page), HASH.wrapping_mul(page & 0xffff_ffff));
    let first = u64::from(hash as u32 ^ (low >> 32) as u32) & (ENTRIES - 1);
    let size = kernel.size_of(ENTRY);
    (0..ENTRIES).map(move |step| TABLE.offset(((first + step) & (ENTRIES - 1)) * size))
}
