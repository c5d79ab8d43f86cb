//! Segment heaps, of which small pool is made since Windows 10 1809.
//!
//! ```text
//!  ExPoolState --> node --> heaps: nonpaged, nonpaged, paged, paged --> contexts --> segments
//!  segment, 1 MiB: | list, signature, descriptors | ... | VS range: chunks | LFH range: blocks of one size | pages of large blocks |
//! ```
//! Signatures, sizes and offsets are encoded with keys, as Windows encodes them.
//!
//! Source: pool.md 4.2 and 4.3.

use kd_protocol::VirtAddr;

use super::pages::put_header;
use super::trackers::allocated;
use crate::paging::Access;
use crate::windows::kernel::{Kernel, span};
use crate::windows::pool_account::{Pool, PoolBlock};

const STATE: &str = "_EX_POOL_HEAP_MANAGER_STATE";
const HEAP: &str = "_SEGMENT_HEAP";
const CONTEXT: &str = "_HEAP_SEG_CONTEXT";
const SEGMENT: &str = "_HEAP_PAGE_SEGMENT";
const DESCRIPTOR: &str = "_HEAP_PAGE_RANGE_DESCRIPTOR";
const LFH: &str = "_HEAP_LFH_SUBSEGMENT";

const HEAP_KEY: u64 = 0x5a17_91c3_e80b_44d2;
const LFH_KEY: u64 = 0x13c7_d08e_72a5_9f61;
/// What signatures are made with, up to Windows 11 23H2.
const CONSTANT: u64 = 0xa2e6_4ead_a2e6_4ead;
/// The first build whose signatures are made without it.
const WITHOUT_CONSTANT: u16 = 26100;
/// `_SEGMENT_HEAP.Signature`.
const SIGNATURE: u64 = 0xddee_ddee;
/// Bytes of a segment of each context, and the shift of its units.
const CONTEXTS: [(u64, u64); 2] = [(0x10_0000, 12), (0x100_0000, 16)];
/// Units that the segment's own head takes.
const FIRST_UNIT: u64 = 2;
const UNIT_SHIFT: u64 = 12;
/// Bytes of the head of a VS range, and of a chunk's header.
const VS_HEAD: u64 = 0x30;
const CHUNK: u64 = 0x10;

/// What ranges of units hold.
const IS_LFH: u64 = 0xb;
const IS_VS: u64 = 0xf;

/// A pool's heap and its small segments, in the order of its list.
struct Places {
    pool: Pool,
    heap: VirtAddr,
    segments: [VirtAddr; 2],
}

const PLACES: [Places; 2] = [
    Places {
        pool: Pool::NonPaged,
        heap: VirtAddr(0xffff_ab80_0000_1000),
        segments: [VirtAddr(0xffff_ab80_0010_0000), VirtAddr(0xffff_ab80_0030_0000)],
    },
    Places {
        pool: Pool::Paged,
        heap: VirtAddr(0xffff_ab80_0000_3000),
        segments: [VirtAddr(0xffff_ab80_0050_0000), VirtAddr(0xffff_ab80_0060_0000)],
    },
];

/// True if this kernel's small pool is made of them.
pub(in crate::windows) fn is_there(kernel: &Kernel) -> bool {
    kernel.find_symbol("ExPoolState").is_some()
}

/// Makes the heaps of both pools, each with empty segments.
pub(in crate::windows) fn start(kernel: &mut Kernel) {
    if !is_there(kernel) {
        return;
    }
    let state = kernel.symbol("ExPoolState");
    kernel.set(state, STATE, "NumberOfPools", 1);
    let node =
        state.offset(kernel.offset_of(STATE, "PoolNode") + kernel.offset_of("_EX_HEAP_POOL_NODE", "Heaps"));
    for (index, places) in (0..).zip([0, 0, 1, 1]) {
        kernel.write_u64(node.offset(index * 8), PLACES[places].heap.0);
    }
    let globals = kernel.symbol("RtlpHpHeapGlobals");
    kernel.set_all(globals, "_RTLP_HP_HEAP_GLOBALS", &[("HeapKey", HEAP_KEY), ("LfhKey", LFH_KEY)]);
    kernel.write_variables(&[("ExpHeapBackedPoolEnabledState", 1, 4)]);
    for places in &PLACES {
        kernel.map(span(places.heap, kernel.size_of(HEAP)), Access::Write);
        kernel.set(places.heap, HEAP, "Signature", SIGNATURE);
        for (index, (size, shift)) in (0..).zip(CONTEXTS) {
            let context = context_of(kernel, places.heap, index);
            let count = if index == 0 { places.segments.len() as u64 } else { 0 };
            let fields = [
                ("SegmentMask", !(size - 1)),
                ("UnitShift", shift),
                ("FirstDescriptorIndex", FIRST_UNIT),
                ("Heap", places.heap.0),
                ("SegmentCount", count),
            ];
            kernel.set_all(context, CONTEXT, &fields);
            let head = context.offset(kernel.offset_of(CONTEXT, "SegmentListHead"));
            kernel.list_init(head);
        }
        for segment in places.segments {
            kernel.map(span(segment, FIRST_UNIT << UNIT_SHIFT), Access::Write);
            let context = context_of(kernel, places.heap, 0);
            let constant = if kernel.layouts.release.number < WITHOUT_CONSTANT { CONSTANT } else { 0 };
            let signature = context.0 ^ HEAP_KEY ^ segment.0 ^ constant;
            kernel.set(segment, SEGMENT, "Signature", signature);
            let head = context.offset(kernel.offset_of(CONTEXT, "SegmentListHead"));
            kernel.list_append(head, segment);
        }
    }
}

/// Allocates small blocks of many sizes in both pools, some of which were freed again, as Windows does: from VS chunks.
pub(in crate::windows) fn furnish(kernel: &mut Kernel) {
    for places in &PLACES {
        for (number, segment) in (0..).zip(places.segments) {
            let sizes: [(u64, bool); 12] = [
                (0x640, true),
                (0x90, true),
                (0x200, false),
                (0xb00, true),
                (0x40, true),
                (0xfd0, true),
                (0x310, false),
                (0x310, true),
                (0x2b0, true),
                (0x70, false),
                (0x880, true),
                (0x20, true),
            ];
            let blocks: Vec<_> = (0..)
                .zip(sizes)
                .map(|(index, (size, is_allocated))| {
                    let tag = if (index + number) % 3 == 0 { *b"File" } else { *b"Smal" };
                    (tag, size, is_allocated)
                })
                .collect();
            vs(kernel, places.pool, segment, 0x10, 6, &blocks);
        }
    }
}

/// The same with blocks of one size each, from LFH subsegments.
pub(in crate::windows) fn furnish_lfh(kernel: &mut Kernel) {
    for places in &PLACES {
        for (segment, (unit, size)) in places.segments.into_iter().zip([(0x40, 0x80), (0x60, 0x2c0)]) {
            let blocks: Vec<_> = (0_u64..40)
                .map(|index| (if index % 4 == 1 { *b"Even" } else { *b"Smal" }, index % 5 != 2))
                .collect();
            lfh(kernel, places.pool, segment, unit, size, &blocks);
        }
    }
}

fn context_of(kernel: &Kernel, heap: VirtAddr, index: u64) -> VirtAddr {
    heap.offset(kernel.offset_of(HEAP, "SegContexts") + index * kernel.size_of(CONTEXT))
}

/// Describes a range of units, and maps it.
fn range(kernel: &mut Kernel, segment: VirtAddr, first: u64, units: u64, flags: u64) -> VirtAddr {
    let size = kernel.size_of(DESCRIPTOR);
    for unit in 0..units {
        let at = segment.offset((first + unit) * size);
        let (flags, count) = if unit == 0 { (flags, units) } else { (flags & !2, unit) };
        kernel.set_all(at, DESCRIPTOR, &[("RangeFlags", flags), ("UnitSize", count)]);
    }
    let start = segment.offset(first << UNIT_SHIFT);
    kernel.map(span(start, units << UNIT_SHIFT), Access::Write);
    start
}

type Vs = ([u8; 4], u64, bool);

/// A range of chunks; the last one takes what is left, and is free.
fn vs(kernel: &mut Kernel, pool: Pool, segment: VirtAddr, first: u64, units: u64, blocks: &[Vs]) {
    let start = range(kernel, segment, first, units, IS_VS);
    let end = start.offset(units << UNIT_SHIFT);
    let (mut at, mut previous) = (start.offset(VS_HEAD), 0);
    for (tag, size, is_allocated) in blocks {
        let body = at.offset(CHUNK);
        // A block that would cross a page begins at the next one, and its chunk is so much longer. What is free has no block.
        let in_page = body.0 % 0x1000;
        let skipped = if *is_allocated && in_page + size > 0x1000 { 0x1000 - in_page } else { 0 };
        let len = CHUNK + skipped + size;
        chunk(kernel, at, len, previous, *is_allocated);
        let header = body.offset(skipped);
        put_header(kernel, header, *tag, *size, 0, 2);
        let address = header.offset(0x10);
        allocated(kernel, PoolBlock { address, bytes: *size, tag: *tag, pool, is_allocated: *is_allocated });
        (at, previous) = (at.offset(len), len);
    }
    chunk(kernel, at, end.since(at), previous, false);
}

fn chunk(kernel: &mut Kernel, at: VirtAddr, len: u64, previous: u64, is_allocated: bool) {
    let word = 0x11 | (len / 16) << 16 | (previous / 16) << 32 | u64::from(is_allocated) << 48;
    let sizes = kernel.offset_of("_HEAP_VS_CHUNK_HEADER", "Sizes");
    kernel.write_u64(at.offset(sizes), word ^ HEAP_KEY ^ at.0);
}

/// A range of blocks of one size.
fn lfh(
    kernel: &mut Kernel,
    pool: Pool,
    segment: VirtAddr,
    first: u64,
    size: u64,
    blocks: &[([u8; 4], bool)],
) {
    let bitmap = kernel.offset_of(LFH, "BlockBitmap");
    let head = (bitmap + 8 * (1 + blocks.len() as u64 / 32)).next_multiple_of(16);
    let units = (head + size * blocks.len() as u64).div_ceil(0x1000);
    let start = range(kernel, segment, first, units, IS_LFH);
    kernel.set(start, LFH, "BlockCount", blocks.len() as u64);
    let offsets = (size as u32 | (head as u32) << 16) ^ LFH_KEY as u32 ^ (start.0 >> 12) as u32;
    kernel.write_u32(start.offset(kernel.offset_of(LFH, "BlockOffsets")), offsets);
    let mut bits = vec![0_u8; blocks.len().div_ceil(4)];
    for (index, (tag, is_allocated)) in blocks.iter().enumerate() {
        bits[index / 4] |= u8::from(*is_allocated) << (index % 4 * 2);
        let header = start.offset(head + index as u64 * size);
        put_header(kernel, header, *tag, size, 0, 2);
        let address = header.offset(0x10);
        allocated(kernel, PoolBlock { address, bytes: size, tag: *tag, pool, is_allocated: *is_allocated });
    }
    kernel.write(start.offset(bitmap), &bits);
}
