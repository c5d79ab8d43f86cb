//! Small and large pool blocks, written down by tests: the table of large ones, pages of the old pool, a segment heap.

use verikd::memory::VirtAddr;

use super::World;
use super::pool::number;

/// The table of large blocks.
pub const BIG: VirtAddr = VirtAddr(0xffff_fa80_0700_0000);
pub const BIG_ENTRIES: u64 = 0x400;
pub const BIG_ENTRY: &str = "_POOL_TRACKER_BIG_PAGES";

pub const HEAP_KEY: u64 = 0x5a17_91c3_e80b_44d2;
pub const LFH_KEY: u64 = 0x13c7_d08e_72a5_9f61;
const CONSTANT: u64 = 0xa2e6_4ead_a2e6_4ead;
/// Nonpaged pool's heap, and paged pool's.
pub const HEAPS: [VirtAddr; 2] = [VirtAddr(0xffff_ab80_0000_1000), VirtAddr(0xffff_ab80_0000_3000)];
/// A small segment of each.
pub const SEGMENTS: [VirtAddr; 2] = [VirtAddr(0xffff_ab80_0010_0000), VirtAddr(0xffff_ab80_0030_0000)];
/// Ranges of units in a segment.
pub const VS_UNIT: u64 = 0x10;
pub const LFH_UNIT: u64 = 0x20;
pub const PLAIN_UNIT: u64 = 0x30;

/// Makes a table without blocks.
pub fn put_big_table(world: &mut World) {
    let size = world.size(BIG_ENTRY);
    world.map(BIG, size * BIG_ENTRIES);
    for index in 0..BIG_ENTRIES {
        world.write(BIG.offset(index * size), &1_u64.to_le_bytes());
    }
    for (name, value) in [("PoolBigPageTable", BIG.0), ("PoolBigPageTableSize", BIG_ENTRIES)] {
        super::pool::put_global(world, name, value);
    }
}

/// Enters a block at an index; bit 0 of its address is that of a free one.
pub fn put_big(world: &mut World, index: u64, address: u64, tag: &str, is_paged: bool, bytes: u64) {
    let at = BIG.offset(index * world.size(BIG_ENTRY));
    for (name, value) in [("Va", address), ("Key", number(tag).into()), ("NumberOfBytes", bytes)] {
        world.put(BIG_ENTRY, at, name, value);
    }
    if world.has(BIG_ENTRY, "PoolFlags") {
        world.put(BIG_ENTRY, at, "PoolFlags", if is_paged { 0x100 } else { 0x40 });
    } else {
        world.put(BIG_ENTRY, at, "PoolType", is_paged.into());
    }
}

/// A block of a page of the old pool: tag, bytes with the header, and its pool type as it is written there.
pub type OldBlock<'a> = (&'a str, u64, u64);

/// Writes a page of the old pool. Returns where each header is.
pub fn put_page(world: &mut World, page: VirtAddr, blocks: &[OldBlock<'_>]) -> Vec<VirtAddr> {
    world.map(page, 0x1000);
    let (mut offset, mut previous) = (0, 0);
    let mut headers = Vec::new();
    for (tag, size, ty) in blocks {
        let at = page.offset(offset);
        put_header(world, at, tag, *size, previous, *ty);
        headers.push(at);
        (offset, previous) = (offset + size, *size);
    }
    assert_eq!(offset, 0x1000, "a page is filled");
    headers
}

pub fn put_header(world: &mut World, at: VirtAddr, tag: &str, size: u64, previous: u64, ty: u64) {
    let unit = world.size("_POOL_HEADER");
    for (name, value) in [
        ("PreviousSize", previous / unit),
        ("BlockSize", size / unit),
        ("PoolType", ty),
        ("PoolTag", number(tag).into()),
    ] {
        world.put("_POOL_HEADER", at, name, value);
    }
}

/// Makes the heaps of both pools, each with one small segment that has nothing in it.
pub fn put_heaps(world: &mut World) {
    let state = world.global("ExPoolState");
    let globals = world.global("RtlpHpHeapGlobals");
    let at = |world: &World, ty: &str, path: &str| world.offset(ty, path);
    let count = state.offset(at(world, "_EX_POOL_HEAP_MANAGER_STATE", "NumberOfPools"));
    world.write(count, &1_u32.to_le_bytes());
    let node = state.offset(at(world, "_EX_POOL_HEAP_MANAGER_STATE", "PoolNode"));
    let [nonpaged, paged] = HEAPS.map(|heap| heap.0);
    world.put_pointers(
        node.offset(at(world, "_EX_HEAP_POOL_NODE", "Heaps")),
        &[nonpaged, nonpaged, paged, paged],
    );
    for (name, value) in [("HeapKey", HEAP_KEY), ("LfhKey", LFH_KEY)] {
        world.write(globals.offset(at(world, "_RTLP_HP_HEAP_GLOBALS", name)), &value.to_le_bytes());
    }
    if world.nt.address_of("ExpHeapBackedPoolEnabledState").is_some() {
        let choice = world.global("ExpHeapBackedPoolEnabledState");
        world.write(choice, &1_u32.to_le_bytes());
    }
    for (heap, segment) in HEAPS.into_iter().zip(SEGMENTS) {
        world.map(heap, world.size("_SEGMENT_HEAP"));
        world.put("_SEGMENT_HEAP", heap, "Signature", 0xddee_ddee);
        for (index, (size, shift)) in (0..).zip([(0x10_0000_u64, 12), (0x100_0000, 16)]) {
            let context = context(world, heap, index);
            let head = context.offset(at(world, "_HEAP_SEG_CONTEXT", "SegmentListHead"));
            world.put("_HEAP_SEG_CONTEXT", context, "SegmentMask", !(size - 1));
            world.put("_HEAP_SEG_CONTEXT", context, "UnitShift", shift);
            world.put("_HEAP_SEG_CONTEXT", context, "FirstDescriptorIndex", 2);
            let first = if index == 0 { segment } else { head };
            world.put_pointers(head, &[first.0, first.0]);
            world.put("_HEAP_SEG_CONTEXT", context, "SegmentCount", u64::from(index == 0));
        }
        let context = context(world, heap, 0);
        let head = context.offset(at(world, "_HEAP_SEG_CONTEXT", "SegmentListHead"));
        world.map(segment, 0x2000);
        world.put_pointers(segment, &[head.0, head.0]);
        let constant = if world.version.build < 26100 { CONSTANT } else { 0 };
        let signature = context.0 ^ HEAP_KEY ^ segment.0 ^ constant;
        world.put("_HEAP_PAGE_SEGMENT", segment, "Signature", signature);
    }
}

fn context(world: &World, heap: VirtAddr, index: u64) -> VirtAddr {
    let contexts = world.offset("_SEGMENT_HEAP", "SegContexts");
    heap.offset(contexts + index * world.size("_HEAP_SEG_CONTEXT"))
}

/// Describes a range of units. `flags` say what it is: 3 pages, 0xb LFH, 0xf VS.
pub fn put_range(world: &mut World, segment: VirtAddr, first: u64, units: u64, flags: u64) -> VirtAddr {
    let size = world.size("_HEAP_PAGE_RANGE_DESCRIPTOR");
    for unit in 0..units {
        let at = segment.offset((first + unit) * size);
        let (flags, count) = if unit == 0 { (flags, units) } else { (flags & !2, unit) };
        world.put("_HEAP_PAGE_RANGE_DESCRIPTOR", at, "RangeFlags", flags);
        world.put("_HEAP_PAGE_RANGE_DESCRIPTOR", at, "UnitSize", count);
    }
    let start = segment.offset(first << 12);
    world.map(start, units << 12);
    start
}

/// A chunk of a VS range: tag, bytes of the block with its header, in use.
pub type VsBlock<'a> = (&'a str, u64, bool);

/// Fills a VS range with chunks; the last one takes what is left, and is free. Returns where each pool header is.
pub fn put_vs(world: &mut World, segment: VirtAddr, units: u64, blocks: &[VsBlock<'_>]) -> Vec<VirtAddr> {
    let start = put_range(world, segment, VS_UNIT, units, 0xf);
    let end = start.offset(units << 12);
    let (mut at, mut previous) = (start.offset(0x30), 0_u64);
    let mut headers = Vec::new();
    for (tag, size, is_allocated) in blocks {
        let len = chunk_len(at, *size);
        put_chunk(world, at, len, previous, *is_allocated);
        let body = at.offset(0x10);
        let crosses = *size < 0xff0 && body.0 % 0x1000 + (len - 0x10) > 0x1000;
        let header = if crosses { VirtAddr((body.0 | 0xfff) + 1) } else { body };
        put_header(world, header, tag, *size, 0, 2);
        headers.push(header);
        (at, previous) = (at.offset(len), len);
    }
    put_chunk(world, at, end.since(at), previous, false);
    headers
}

/// A block that would cross a page begins at the next one, and its chunk is so much longer.
fn chunk_len(at: VirtAddr, size: u64) -> u64 {
    let body = at.0 % 0x1000 + 0x10;
    if size < 0xff0 && body + size > 0x1000 { 0x10 + (0x1000 - body) + size } else { 0x10 + size }
}

fn put_chunk(world: &mut World, at: VirtAddr, len: u64, previous: u64, is_allocated: bool) {
    let word = 0x11 | (len / 16) << 16 | (previous / 16) << 32 | u64::from(is_allocated) << 48;
    let sizes = world.offset("_HEAP_VS_CHUNK_HEADER", "Sizes");
    world.write(at.offset(sizes), &(word ^ HEAP_KEY ^ at.0).to_le_bytes());
}

/// Fills an LFH range with blocks of one size. Returns where each pool header is.
pub fn put_lfh(
    world: &mut World,
    segment: VirtAddr,
    units: u64,
    size: u64,
    blocks: &[(&str, bool)],
) -> Vec<VirtAddr> {
    let start = put_range(world, segment, LFH_UNIT, units, 0xb);
    let bitmap = world.offset("_HEAP_LFH_SUBSEGMENT", "BlockBitmap");
    let first = (bitmap + 8 * (1 + blocks.len() as u64 / 32)).next_multiple_of(16);
    world.put("_HEAP_LFH_SUBSEGMENT", start, "BlockCount", blocks.len() as u64);
    let offsets = (size as u32 | (first as u32) << 16) ^ LFH_KEY as u32 ^ (start.0 >> 12) as u32;
    world.write(start.offset(world.offset("_HEAP_LFH_SUBSEGMENT", "BlockOffsets")), &offsets.to_le_bytes());
    let mut bits = vec![0_u8; blocks.len().div_ceil(4)];
    let mut headers = Vec::new();
    for (index, (tag, is_allocated)) in blocks.iter().enumerate() {
        bits[index / 4] |= u8::from(*is_allocated) << (index % 4 * 2);
        let header = start.offset(first + index as u64 * size);
        put_header(world, header, tag, size, 0, 2);
        headers.push(header);
    }
    world.write(start.offset(bitmap), &bits);
    headers
}
