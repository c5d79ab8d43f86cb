//! The kernel's counters of pool by tag, written down by tests.

use std::sync::Arc;

use verikd::memory::VirtAddr;
use verikd::symbols::table::TableSymbols;
use verikd::symbols::{Guid, PdbIdentity, Symbols};

use super::World;

pub const NT: VirtAddr = VirtAddr(0xffff_f800_0140_0000);
pub const NT_SIZE: u32 = 0x100_0000;
/// The first processor's table; each further one lies this much higher.
pub const TABLES: VirtAddr = VirtAddr(0xffff_fa80_0600_0000);
pub const STRIDE: u64 = 0x10_0000;
pub const EXPANSION: VirtAddr = VirtAddr(0xffff_fa80_0f00_0000);
pub const ENTRY: &str = "_POOL_TRACKER_TABLE";
pub const MASK: u64 = 0x1f;
/// Entries of each table.
pub const ENTRIES: u64 = MASK + 2;

/// What tells blocks of the old pool.
const OLD_BLOCKS: &str = "_POOL_TRACKER_BIG_PAGES 18
  Va 0 ptr
  Key 8 u32
  PoolType c u32
  NumberOfBytes 10 u64
_POOL_HEADER 10
  PreviousSize 0 u32:0,8
  PoolIndex 0 u32:8,8
  BlockSize 0 u32:10,8
  PoolType 0 u32:18,8
  PoolTag 4 u32
  ProcessBilled 8 ptr
";

const OLD: &str = "_POOL_TRACKER_TABLE 28
  Key 0 u32
  NonPagedAllocs 4 u32
  NonPagedFrees 8 u32
  NonPagedBytes 10 u64
  PagedAllocs 18 u32
  PagedFrees 1c u32
  PagedBytes 20 u64
_VI_POOL_ENTRY_INUSE 20
  VirtualAddress 0 ptr
  CallingAddress 8 ptr
  NumberOfBytes 10 u64
  Tag 18 u64
_VI_POOL_ENTRY 20
  InUse 0 _VI_POOL_ENTRY_INUSE
";

const NEW: &str = "_POOL_TRACKER_TABLE 50
  Key 0 u32
  NonPagedBytes 8 u64
  NonPagedAllocs 10 u64
  NonPagedFrees 18 u64
  PagedBytes 20 u64
  PagedAllocs 28 u64
  PagedFrees 30 u64
_POOL_TRACKER_BIG_PAGES 20
  Va 0 u64
  Key 8 u32
  Pattern c u32:0,8
  PoolType c u32:8,c
  SlushSize c u32:14,c
  NumberOfBytes 10 u64
  ProcessBilled 18 ptr
_POOL_HEADER 10
  PreviousSize 0 u16:0,8
  PoolIndex 0 u16:8,8
  BlockSize 2 u16:0,8
  PoolType 2 u16:8,8
  PoolTag 4 u32
  ProcessBilled 8 ptr
_RTLP_HP_HEAP_GLOBALS 40
  HeapKey 0 u64
  LfhKey 8 u64
_EX_HEAP_POOL_NODE 20c0
  Heaps 0 ptr[4]
_EX_POOL_HEAP_MANAGER_STATE 86940
  NumberOfPools 38e0 u32
  PoolNode 3900 u8[83000]
_HEAP_SEG_CONTEXT c0
  SegmentMask 0 u64
  UnitShift 8 u8
  FirstDescriptorIndex a u8
  Heap 38 ptr
  SegmentListHead 48 u8[10]
  SegmentCount 58 u64
_SEGMENT_HEAP 840
  Signature 10 u32
  SegContexts 140 u8[180]
_HEAP_PAGE_SEGMENT 2000
  ListEntry 0 u8[10]
  Signature 10 u64
_HEAP_PAGE_RANGE_DESCRIPTOR 20
  TreeSignature 0 u32
  RangeFlags 18 u8
  CommittedPageCount 19 u8
  UnitSize 1f u8
_HEAP_VS_SUBSEGMENT 28
  Size 20 u16
_HEAP_VS_CHUNK_HEADER 10
  Sizes 0 u64
_HEAP_LFH_SUBSEGMENT 38
  BlockCount 22 u16
  BlockOffsets 28 u32
  BlockBitmap 30 u64[1]
";

/// Where a Windows 7 has them: beside each other, and the processors' slots right behind.
const GLOBALS: &[(&str, u32)] = &[
    ("PoolBigPageTableSize", 0x21_0f58),
    ("PoolBigPageTable", 0x21_0f60),
    ("PoolTrackTableExpansionSize", 0x21_0f68),
    ("PoolTrackTableExpansion", 0x21_0f70),
    ("PoolTrackTableMask", 0x21_0f78),
    ("PoolTrackTableSize", 0x21_0f80),
    ("PoolTrackTable", 0x21_0f88),
    ("ExPoolTagTables", 0x21_0fa0),
    ("ExpBigTableExpansionFailed", 0x21_17a0),
    ("MmNonPagedPoolStart", 0x22_0000),
    ("MiNonPagedPoolEnd", 0x22_0008),
    ("MmAllocatedNonPagedPool", 0x22_0010),
    ("KeNumberProcessors", 0x29_d000),
    ("KeBootTime", 0x29_d100),
];

/// What a kernel with segment heaps has beside them.
const HEAP_GLOBALS: &[(&str, u32)] = &[("RtlpHpHeapGlobals", 0x30_0000), ("ExPoolState", 0x31_0000)];

/// Counters of one kind of pool: allocations, frees, bytes.
pub type Counts = [u64; 3];

/// A kernel with 32-bit counters and as many processors, in whose tables nothing is counted yet.
pub fn windows_7(processors: u64) -> World {
    put_tables(World::new(NT, NT_SIZE, symbols(&(OLD.to_owned() + OLD_BLOCKS), &[])), processors)
}

/// The same with 64-bit counters.
pub fn windows_11(processors: u64) -> World {
    let mut world = World::new(NT, NT_SIZE, symbols(NEW, HEAP_GLOBALS));
    world.version.build = 22621;
    put_tables(world, processors)
}

/// Gives other symbols what tells blocks of the old pool.
pub fn with_old_blocks(nt: TableSymbols) -> TableSymbols {
    let globals = GLOBALS.iter().filter(|(name, _)| name.starts_with("PoolBig"));
    globals.fold(nt, |nt, (name, rva)| nt.symbol(name, *rva)).types(OLD_BLOCKS)
}

fn symbols(types: &str, more: &[(&str, u32)]) -> Arc<dyn Symbols> {
    let nt = TableSymbols::new(PdbIdentity::new("ntkrnlmp.pdb", Guid([7; 16]), 1));
    Arc::new(GLOBALS.iter().chain(more).fold(nt, |nt, (name, rva)| nt.symbol(name, *rva)).types(types))
}

/// Gives a kernel empty tables.
pub fn put_tables(mut world: World, processors: u64) -> World {
    let size = world.size(ENTRY) * ENTRIES;
    for number in 0..processors {
        world.map(table(number), size);
    }
    let slots = world.global("ExPoolTagTables");
    world.map(slots, 0x1000);
    world.put_pointers(slots, &(0..processors).map(|number| table(number).0).collect::<Vec<_>>());
    for (name, value) in [
        ("PoolTrackTable", TABLES.0),
        ("PoolTrackTableSize", ENTRIES),
        ("PoolTrackTableMask", MASK),
        ("PoolTrackTableExpansion", 0),
        ("PoolTrackTableExpansionSize", 0),
    ] {
        put_global(&mut world, name, value);
    }
    if world.nt.address_of("KeNumberProcessors").is_some() {
        let at = world.global("KeNumberProcessors");
        world.write(at, &(processors as u32).to_le_bytes());
    }
    world
}

pub fn put_global(world: &mut World, name: &str, value: u64) {
    let at = world.global(name);
    world.write(at, &value.to_le_bytes());
}

pub fn table(processor: u64) -> VirtAddr {
    TABLES.offset(processor * STRIDE)
}

/// Where a processor counts what is at this index.
pub fn entry(world: &World, processor: u64, index: u64) -> VirtAddr {
    table(processor).offset(index * world.size(ENTRY))
}

/// Where the kernel puts a tag first.
pub fn index_of(tag: &str) -> u64 {
    let product = u64::from(number(tag)) * 40543;
    ((product as u32) ^ (product >> 32) as u32) as u64 & MASK
}

pub fn number(tag: &str) -> u32 {
    u32::from_le_bytes(tag.as_bytes().try_into().unwrap())
}

/// Has a processor count something of a tag, at the tag's own place; the table that has every key has it then, too.
pub fn put_tag(world: &mut World, processor: u64, tag: &str, nonpaged: Counts, paged: Counts) {
    put_at(world, processor, index_of(tag), tag, nonpaged, paged);
}

/// The same at another place.
pub fn put_at(world: &mut World, processor: u64, index: u64, tag: &str, nonpaged: Counts, paged: Counts) {
    let master = entry(world, 0, index);
    world.put(ENTRY, master, "Key", number(tag).into());
    let at = entry(world, processor, index);
    put_counts(world, at, tag, nonpaged, paged);
}

pub fn put_counts(world: &mut World, at: VirtAddr, tag: &str, nonpaged: Counts, paged: Counts) {
    world.put(ENTRY, at, "Key", number(tag).into());
    for (kind, counts) in [("NonPaged", nonpaged), ("Paged", paged)] {
        for (name, value) in ["Allocs", "Frees", "Bytes"].into_iter().zip(counts) {
            world.put(ENTRY, at, &format!("{kind}{name}"), value);
        }
    }
}
