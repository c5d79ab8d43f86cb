//! Counters of allocations by tag: one table a processor, of which the first has every key.
//!
//! A processor counts in its own table what it allocates and frees, so that its sums may be negative, and 32-bit counters wrap:
//! only the sum over all tables says what is outstanding.
//!
//! Source: pool.md 2.

use kd_protocol::VirtAddr;

use crate::paging::Access;
use crate::physical::PAGE_SIZE;
use crate::windows::kernel::{Kernel, span};
use crate::windows::pool_account::{Pool, PoolBlock};
use crate::windows::processors;

/// Entries of a table: a power of two, and one for what finds no room anywhere.
pub(in crate::windows) const ENTRIES: u64 = 0x801;
const MASK: u64 = ENTRIES - 2;
/// The first processor's table; the others' lie behind it.
const TABLES: VirtAddr = VirtAddr(0xffff_fa80_0180_0000);
/// The table for tags that find no room, near the end of a page, and its entries.
const EXPANSION: VirtAddr = VirtAddr(0xffff_fa80_022a_0d00);
pub(in crate::windows) const EXPANSION_ENTRIES: u64 = 8;
const ENTRY: &str = "_POOL_TRACKER_TABLE";
/// Multiplier of the hash.
const HASH: u64 = 40543;

/// Names of one kind of pool's counters.
struct Counters {
    allocs: &'static str,
    frees: &'static str,
    bytes: &'static str,
}

const fn counters(pool: Pool) -> Counters {
    match pool {
        Pool::Paged => Counters { allocs: "PagedAllocs", frees: "PagedFrees", bytes: "PagedBytes" },
        Pool::NonPaged => {
            Counters { allocs: "NonPagedAllocs", frees: "NonPagedFrees", bytes: "NonPagedBytes" }
        }
    }
}

/// Makes a table for every processor, and lets the kernel have been running for a while.
pub(in crate::windows) fn start(kernel: &mut Kernel) {
    let processors = processors::count(kernel);
    let size = kernel.size_of(ENTRY) * ENTRIES;
    let slots = kernel.symbol("ExPoolTagTables");
    for number in 0..processors {
        let table = table_of(kernel, number);
        kernel.map(span(table, size), Access::Write);
        kernel.write_u64(slots.offset(number as u64 * 8), table.0);
    }
    kernel.write_variables(&[
        ("PoolTrackTable", TABLES.0, 8),
        ("PoolTrackTableSize", ENTRIES, 8),
        ("PoolTrackTableMask", MASK, 8),
    ]);
    for usual in USUAL {
        for (pool, counts) in [(Pool::NonPaged, usual.nonpaged), (Pool::Paged, usual.paged)] {
            spread(kernel, usual.tag, pool, counts);
        }
    }
    let bytes = size.next_multiple_of(PAGE_SIZE);
    charge(kernel, *b"Pool", Pool::NonPaged, processors as u64, processors as u64 * bytes);
}

/// Makes the table for tags that find no room in the others, with some in it.
pub(in crate::windows) fn expand(kernel: &mut Kernel) {
    let size = kernel.size_of(ENTRY) * EXPANSION_ENTRIES;
    kernel.map(EXPANSION..EXPANSION.offset(size), Access::Write);
    kernel.write_variables(&[
        ("PoolTrackTableExpansion", EXPANSION.0, 8),
        ("PoolTrackTableExpansionSize", EXPANSION_ENTRIES, 8),
    ]);
    for (index, (tag, allocs, frees, bytes)) in (0..).zip(EXPANDED.iter().copied()) {
        let at = EXPANSION.offset(index * kernel.size_of(ENTRY));
        kernel.set(at, ENTRY, "Key", u32::from_le_bytes(*tag).into());
        count(kernel, at, Pool::Paged, [allocs, frees, bytes]);
        let sum = kernel.pool.of(*tag, Pool::Paged);
        (sum.allocs, sum.frees, sum.bytes) = (allocs, frees, bytes);
    }
}

/// Fills the table for tags that find no room to the last entry of its page, so that a reader goes on behind it.
pub(in crate::windows) fn fill_expansion(kernel: &mut Kernel) {
    let size = kernel.size_of(ENTRY);
    let room = (PAGE_SIZE - EXPANSION.0 % PAGE_SIZE) / size;
    for index in EXPANDED.len() as u64..room {
        let at = EXPANSION.offset(index * size);
        let tag = *format!("X{index:03}").as_bytes().first_chunk().expect("four characters");
        kernel.set(at, ENTRY, "Key", u32::from_le_bytes(tag).into());
        count(kernel, at, Pool::Paged, [index, 1, 0x40]);
        let sum = kernel.pool.of(tag, Pool::Paged);
        (sum.allocs, sum.frees, sum.bytes) = (index, 1, 0x40);
    }
}

/// Counts that `count` blocks of a tag, `bytes` in all, were allocated, each by the next processor.
pub(in crate::windows) fn charge(kernel: &mut Kernel, tag: [u8; 4], pool: Pool, count: u64, bytes: u64) {
    let sum = kernel.pool.of(tag, pool);
    (sum.allocs, sum.bytes) = (sum.allocs + count, sum.bytes + bytes);
    by_turns(kernel, tag, pool, count, bytes, false);
}

/// Keeps account of a block, and has it counted if it is held.
pub(super) fn allocated(kernel: &mut Kernel, block: PoolBlock) {
    if block.is_allocated {
        charge(kernel, block.tag, block.pool, 1, block.bytes);
    }
    kernel.pool.lay(block);
}

/// Counts that they were freed, each by the next processor: another than the one that allocated it, as likely as not.
pub(in crate::windows) fn discharge(kernel: &mut Kernel, tag: [u8; 4], pool: Pool, count: u64, bytes: u64) {
    let sum = kernel.pool.of(tag, pool);
    (sum.frees, sum.bytes) = (sum.frees + count, sum.bytes - bytes);
    by_turns(kernel, tag, pool, count, bytes, true);
}

/// Allocations and frees of a second in which nothing comes of it: every processor's counters move, no sum of bytes does.
pub(in crate::windows) fn work(kernel: &mut Kernel) {
    for (tag, pool, blocks, size) in BUSY {
        charge(kernel, **tag, *pool, *blocks, blocks * size);
        discharge(kernel, **tag, *pool, *blocks, blocks * size);
    }
}

fn by_turns(kernel: &mut Kernel, tag: [u8; 4], pool: Pool, blocks: u64, bytes: u64, is_free: bool) {
    let processors = processors::count(kernel) as u64;
    let turn = kernel.pool.turn();
    for share in 0..processors.min(blocks) {
        let number = (turn + share) % processors;
        // What cannot be divided is the first one's.
        let part = |all: u64| {
            all / processors.min(blocks) + if share == 0 { all % processors.min(blocks) } else { 0 }
        };
        let Some(at) = entry_of(kernel, number as usize, tag) else { return };
        let (allocs, frees, bytes) = match is_free {
            false => (part(blocks), 0, part(bytes)),
            true => (0, part(blocks), part(bytes).wrapping_neg()),
        };
        count(kernel, at, pool, [allocs, frees, bytes]);
    }
}

/// Spreads what a tag has come to over the processors: some allocate more than they free, and the others the other way round.
fn spread(kernel: &mut Kernel, tag: &[u8; 4], pool: Pool, [allocs, frees, bytes]: [u64; 3]) {
    if allocs == 0 {
        return;
    }
    let sum = kernel.pool.of(*tag, pool);
    (sum.allocs, sum.frees, sum.bytes) = (allocs, frees, bytes);
    // Tags of little use were only ever used on the first processor.
    let processors = if allocs < 0x10 { 1 } else { processors::count(kernel) as u64 };
    let weights = processors * (processors + 1) / 2;
    let (mut rest_of_allocs, mut rest_of_frees) = (allocs, frees);
    for number in 0..processors {
        let is_last = number + 1 == processors;
        let mine = if is_last { rest_of_allocs } else { allocs / weights * (number + 1) };
        let freed = if is_last { rest_of_frees } else { frees / weights * (processors - number) };
        (rest_of_allocs, rest_of_frees) = (rest_of_allocs - mine, rest_of_frees - freed);
        // The first has everything that is held, and what the others have freed of the first one's on top.
        let skew = bytes / 2 + 0x100;
        let held = match number {
            0 => bytes.wrapping_add(skew * (processors - 1)),
            _ => skew.wrapping_neg(),
        };
        if let Some(at) = entry_of(kernel, number as usize, *tag) {
            count(kernel, at, pool, [mine, freed, held]);
        }
    }
}

fn count(kernel: &mut Kernel, at: VirtAddr, pool: Pool, [allocs, frees, bytes]: [u64; 3]) {
    let names = counters(pool);
    for (name, value) in [(names.allocs, allocs), (names.frees, frees), (names.bytes, bytes)] {
        kernel.add(at, ENTRY, name, value.cast_signed());
    }
}

/// A tag's entry in a processor's table, taken if the tag has none yet; nothing if there is no room.
fn entry_of(kernel: &mut Kernel, processor: usize, tag: [u8; 4]) -> Option<VirtAddr> {
    let (size, key) = (kernel.size_of(ENTRY), u32::from_le_bytes(tag));
    let hash = HASH.wrapping_mul(key.into());
    let first = MASK & u64::from(hash as u32 ^ (hash >> 32) as u32);
    let index = (0..=MASK).map(|step| (first + step) & MASK).find(|index| {
        let there = kernel.read_u32(TABLES.offset(index * size));
        there == key || there == 0
    })?;
    let at = table_of(kernel, processor).offset(index * size);
    for at in [TABLES.offset(index * size), at] {
        kernel.set(at, ENTRY, "Key", key.into());
    }
    Some(at)
}

fn table_of(kernel: &Kernel, processor: usize) -> VirtAddr {
    let room = (kernel.size_of(ENTRY) * ENTRIES).next_multiple_of(PAGE_SIZE);
    TABLES.offset(processor as u64 * room)
}

/// A tag, and what it has come to since the machine started: allocations, frees, bytes.
struct Usual {
    tag: &'static [u8; 4],
    nonpaged: [u64; 3],
    paged: [u64; 3],
}

const fn usual(tag: &'static [u8; 4], nonpaged: [u64; 3], paged: [u64; 3]) -> Usual {
    Usual { tag, nonpaged, paged }
}

const NONE: [u64; 3] = [0; 3];

/// What is in use on any machine. The counters of the busiest have wrapped where they have 32 bits; `Cctx` is where `Leak` would be, and
/// `SeqG`, whose place at the end has `Ntcl`, is at the beginning.
const USUAL: &[Usual] = &[
    usual(b"File", [0x1_0000_2f31, 0x1_0000_1c05, 0x12_ec40], NONE),
    usual(b"Irp ", [0x2_ffff_fff0, 0x2_ffff_fd11, 0x3_a2c0], NONE),
    usual(b"Ntfx", [0x4_1d0f, 0x3_0aa1, 0x15_9760], NONE),
    usual(b"Thre", [0x2f18, 0x2c61, 0xd_1300], NONE),
    usual(b"Proc", [0x3c1, 0x371, 0x2_5d00], NONE),
    usual(b"MmCa", [0x9_a0c1, 0x9_6a10, 0x6_c2b0], NONE),
    usual(b"MmSt", NONE, [0x8_8121, 0x8_50c1, 0x1a_1e70]),
    usual(b"CM25", NONE, [0x1_9041, 0x1_4e01, 0x54_0000]),
    usual(b"CM31", NONE, [0x1204, 0x98c, 0x87_8000]),
    usual(b"Ntff", NONE, [0x2_a3e1, 0x2_83a0, 0x5a_a4d0]),
    usual(b"FMfn", NONE, [0x11_0ca1, 0x10_e0c0, 0x1c_0a30]),
    usual(b"Toke", NONE, [0xc_a121, 0xc_9e02, 0x9_cd80]),
    usual(b"Vad ", [0x1d_c0a1, 0x1d_9e33, 0x2_26e0], NONE),
    usual(b"EtwB", [0xe1, 0x5c, 0x2a_9000], [0x1c, 0xa, 0x9_0000]),
    usual(b"Even", [0x8c_1201, 0x8b_ff13, 0x8_f700], NONE),
    usual(b"Mm  ", [0x2c1, 0x288, 0x3_8f00], [0x91, 0x55, 0x1_3c00]),
    usual(b"Sema", [0x2_1001, 0x2_0f42, 0x5f80], NONE),
    usual(b"TcpE", [0x4_4d01, 0x4_4c20, 0x1_1940], NONE),
    usual(b"NDpp", [0x51, 0xc, 0xe_a000], NONE),
    usual(b"Wmi\x07", [0x33, 0x30, 0x180], [0x5, 0, 0x500]),
    usual(b"8042", [4, 0, 0xf68], NONE),
    usual(b"MmPh", [1, 0, 0x50], NONE),
    usual(b"Cctx", [0x1a1, 0x190, 0x880], NONE),
    usual(b"Ntcl", [0x71, 0x60, 0x660], NONE),
    usual(b"SeqG", [0x20, 0x1c, 0x100], [0x8, 0x2, 0x1e0]),
    // Long freed.
    usual(b"Init", [0xc, 0xc, 0], [0x41, 0x41, 0]),
    usual(b"NfFl", [0x31, 0x31, 0], NONE),
];

/// What is allocated and freed every second: blocks, bytes each.
const BUSY: &[(&[u8; 4], Pool, u64, u64)] = &[
    (b"Irp ", Pool::NonPaged, 311, 0x1c0),
    (b"File", Pool::NonPaged, 47, 0x150),
    (b"FMfn", Pool::Paged, 23, 0x90),
];

/// Tags that came when the tables were full: allocations, frees, bytes, all of paged pool.
const EXPANDED: &[(&[u8; 4], u64, u64, u64)] =
    &[(b"Late", 0x213, 0x1f0, 0x8c0), (b"Lat2", 0x1_0000_0003, 0xffff_fffe, 0x140), (b"Lat3", 9, 9, 0)];
