//! Driver Verifier's state as a kernel keeps it, and the state of the published leak.

use std::sync::Arc;

use verikd::memory::VirtAddr;
use verikd::symbols::table::TableSymbols;
use verikd::symbols::{Guid, PdbIdentity, Symbols};

use super::layouts::{WINDOWS_7, windows_11};
use super::{PAGE, World};

pub const NT: VirtAddr = VirtAddr(0xffff_f800_0140_0000);
pub const NT_SIZE: u32 = 0x5e_a000;
pub const MYFAULT: VirtAddr = VirtAddr(0xffff_f880_0447_c000);
pub const MYFAULT_SIZE: u32 = 0x9000;
pub const TABLES: VirtAddr = VirtAddr(0xffff_fa80_0310_0000);
pub const NODE: VirtAddr = VirtAddr(0xffff_fa80_031b_5810);
pub const DATA: VirtAddr = VirtAddr(0xffff_fa80_0320_0000);
pub const SUSPECT: VirtAddr = VirtAddr(0xffff_fa80_0321_0000);
pub const TRACKERS: VirtAddr = VirtAddr(0xffff_fa80_0322_0000);
pub const LOG: VirtAddr = VirtAddr(0xffff_fa80_0400_0000);
pub const LEAK: u64 = u32::from_le_bytes(*b"Leak") as u64;
pub const CALLER: u64 = 0xffff_f880_0447_d634;

const DRIVER: &str = "_VF_TARGET_VERIFIED_DRIVER_DATA";
const SETTINGS: &str = "_MM_DRIVER_VERIFIER_DATA";
const IN_USE: &str = "_VI_POOL_ENTRY_INUSE";

/// Which kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    Windows7,
    Windows11,
}

/// Globals of Driver Verifier and routines of the published stack, at Windows 7 SP1's addresses.
const GLOBALS: &[(&str, u32)] = &[
    ("MmVerifierData", 0x23_a0e0),
    ("ViTargetDriversAvl", 0x1f_a6c0),
    ("ViTargetInitialized", 0x20_f5b4),
    ("VfOptionFlags", 0x20_dae4),
    ("VfSuspectDriversList", 0x21_a230),
    ("VfPoolTraces", 0x54_a128),
    ("VfPoolTracesIndex", 0x54_a14c),
    ("VfPoolTracesLength", 0x54_a058),
    ("PsLoadedModuleList", 0x23_9c90),
    ("MmUnloadedDrivers", 0x29_d1f0),
    ("ViFaultTraces", 0x4f_c130),
    ("ViFaultTracesIndex", 0x4f_c15c),
    ("ViFaultTracesLength", 0x4f_c06c),
    ("ViTrackIrqlQueue", 0x4f_c120),
    ("ViTrackIrqlIndex", 0x4f_c158),
    ("ViTrackIrqlQueueLength", 0x4f_c044),
    ("VfForcedPendingLog", 0x20_f570),
    ("VfForcedPendingIrps", 0x20_f564),
    ("VfForcedPendingLogLength", 0x1d_f584),
    ("IovIrpTraces", 0x20_f4f8),
    ("IovIrpTracesIndex", 0x20_f500),
    ("IovIrpTracesLength", 0x1d_f558),
    ("VfKeCriticalRegionTraces", 0x4f_c118),
    ("VfKeCriticalRegionTracesIndex", 0x4f_c150),
    ("VfKeCriticalRegionTracesLength", 0x4f_c040),
    ("VfWdIrpListHead", 0x4f_60f0),
    ("ViPoolInfoAvl", 0x53_b200),
    ("ViPoolInfoAvlInitialized", 0x53_b008),
];
const ROUTINES: &[(&str, u32)] = &[
    // Published return addresses less their displacements.
    ("VeAllocatePoolWithTagPriority", 0x52_7cc6 - 0x2b6),
    ("VerifierExAllocatePoolEx", 0x52_7d3d - 0x1d),
    ("IovCallDriver", 0x53_2750 - 0xa0),
    ("IopXxxControlFile", 0x3a_7a97 - 0x607),
    ("NtDeviceIoControlFile", 0x3a_82f6 - 0x56),
    ("KiSystemServiceCopyEnd", 0x08_bed3 - 0x13),
    ("ExFreePoolWithTag", 0x18_0000),
];

/// A kernel on which nothing is verified yet.
pub fn kernel(build: Build) -> World {
    kernel_on(Arc::new(symbols(build)), NT_SIZE)
}

fn symbols(build: Build) -> TableSymbols {
    let nt = TableSymbols::new(PdbIdentity::new("ntkrnlmp.pdb", Guid([7; 16]), 1));
    let names = GLOBALS.iter().chain(ROUTINES);
    let nt = names.fold(nt, |nt, (name, rva)| nt.symbol(name, *rva));
    let types = match build {
        Build::Windows7 => WINDOWS_7.to_owned(),
        Build::Windows11 => windows_11(),
    };
    nt.types(&types)
}

/// The same with any kernel's symbols.
fn kernel_on(nt: Arc<dyn Symbols>, size: u32) -> World {
    let mut world = World::new(NT, size, nt);
    // Real kernels have those of their own time.
    for (name, _) in GLOBALS {
        if world.nt.address_of(name).is_some() {
            world.map(world.global(name), 0x200);
        }
    }
    let suspects = world.global("VfSuspectDriversList");
    world.put_pointers(suspects, &[suspects.0; 2]);
    world
}

/// The state of the published leak: myfault.sys, ten blocks of 0xfa000 bytes, one of them in the log.
pub fn leak(build: Build) -> World {
    put_leak(kernel(build))
}

/// The same on a Windows 7 whose symbols say more.
pub fn leak_with(more: fn(TableSymbols) -> TableSymbols) -> World {
    leak_on(Arc::new(more(symbols(Build::Windows7))), NT_SIZE)
}

/// The same, laid out by any kernel's symbols.
pub fn leak_on(nt: Arc<dyn Symbols>, size: u32) -> World {
    put_leak(kernel_on(nt, size))
}

fn put_leak(mut world: World) -> World {
    add_modules(&mut world);
    let settings = world.global("MmVerifierData");
    for (field, value) in [
        ("Level", 8),
        ("AllocationsAttempted", 0xb),
        ("AllocationsSucceeded", 0xb),
        ("AllocationsSucceededSpecialPool", 0xa),
        ("AllocationsWithNoTag", 1),
        ("PeakPagedPoolAllocations", 1),
        ("PeakPagedBytes", 0x80),
        ("CurrentNonPagedPoolAllocations", 0xa),
        ("NonPagedBytes", 0x9c_e000),
        ("PeakNonPagedPoolAllocations", 0xa),
        ("PeakNonPagedBytes", 0x9c_e000),
    ] {
        world.put(SETTINGS, settings, field, value);
    }
    add_tree(&mut world);
    add_driver(&mut world, NODE, DATA, SUSPECT, "myfault.sys");
    set_root(&mut world, NODE);
    for (field, value) in [
        ("CurrentNonPagedPoolAllocations", 0xa),
        ("PeakNonPagedPoolAllocations", 0xa),
        ("PeakPagedPoolAllocations", 1),
        ("NonPagedBytes", 0x9c_e000),
        ("PeakNonPagedBytes", 0x9c_e000),
        ("PeakPagedBytes", 0x80),
    ] {
        world.put(DRIVER, DATA, field, value);
    }
    let blocks: Vec<_> = [
        0x0540_0000,
        0x052f_b000,
        0x0520_0000,
        0x050f_b000,
        0x0500_0000,
        0x04ef_b000,
        0x04e0_0000,
        0x04cf_b000,
        0x04c0_0000,
        0x04a6_6000_u64,
    ]
    .iter()
    .map(|low| Slot { address: 0xffff_fa80_0000_0000 | low, size: 0xf_b000 })
    .collect();
    set_trackers(&mut world, DATA, &[(TRACKERS, &blocks)]);
    add_log(&mut world, 0x1_0000, 0x1234);
    let stack = [
        0xffff_f800_0192_7cc6,
        0xffff_f800_0192_7d3d,
        CALLER,
        0xffff_f880_0447_d727,
        0xffff_f800_0193_2750,
        0xffff_f800_017a_7a97,
        0xffff_f800_017a_82f6,
        0xffff_f800_0148_bed3,
    ];
    log_entry(&mut world, 0x1230, 0xffff_fa80_0540_0000, 0xf_a000, &stack);
    world
}

fn add_modules(world: &mut World) {
    let head = world.global("PsLoadedModuleList");
    world.version.module_list = head;
    let entries = [(NT, NT_SIZE, "ntoskrnl.exe"), (MYFAULT, MYFAULT_SIZE, "myfault.sys")];
    let at = |index: usize| VirtAddr(0xffff_fa80_0330_0000 + index as u64 * 0x200);
    world.write(head, &at(0).0.to_le_bytes());
    for (index, (base, size, name)) in entries.iter().enumerate() {
        let next = if index + 1 == entries.len() { head } else { at(index + 1) };
        world.write(at(index), &next.0.to_le_bytes());
        world.write(at(index).offset(0x30), &base.0.to_le_bytes());
        world.write(at(index).offset(0x40), &size.to_le_bytes());
        world.put_string(at(index).offset(0x58), at(index).offset(0xe0), name);
    }
    let myfault = TableSymbols::new(PdbIdentity::new("myfault.pdb", Guid([8; 16]), 1))
        .symbol("MyfaultDeviceControl", 0x1634 - 0x358)
        .symbol("MyfaultDispatch", 0x1727 - 0xb7);
    world.symbols(MYFAULT, MYFAULT_SIZE, myfault);
}

/// Makes a tree of one table without nodes.
fn add_tree(world: &mut World) {
    let tree = world.global("ViTargetDriversAvl");
    world.put("_VF_AVL_TREE", tree, "Tables", TABLES.0);
    world.put("_VF_AVL_TREE", tree, "TablesNo", 1);
    let initialized = world.global("ViTargetInitialized");
    world.write(initialized, &1_u32.to_le_bytes());
    world.map(TABLES, PAGE);
}

pub fn set_root(world: &mut World, node: VirtAddr) {
    world.put("_VF_AVL_TABLE", TABLES, "RtlTable.BalancedRoot.RightChild", node.0);
}

/// Where a node's driver entry is.
pub fn entry_of(node: VirtAddr) -> VirtAddr {
    node.offset(0x20)
}

/// A node of the tree with its driver, loaded once, and its place in the list of suspects.
pub fn add_driver(world: &mut World, node: VirtAddr, data: VirtAddr, suspect: VirtAddr, name: &str) {
    let entry = entry_of(node);
    let tree_node =
        if world.has("_VF_TARGET_DRIVER", "TreeNode.Base.p") { "TreeNode.Base" } else { "TreeNode" };
    world.put("_VF_TARGET_DRIVER", entry, &format!("{tree_node}.p"), MYFAULT.0);
    world.put("_VF_TARGET_DRIVER", entry, &format!("{tree_node}.RangeSize"), MYFAULT_SIZE.into());
    world.put("_VF_TARGET_DRIVER", entry, "VerifiedData", data.0);
    world.put(DRIVER, data, "Signature", 0x9876_1940);
    world.put(DRIVER, data, "SuspectDriverEntry", suspect.0);
    add_suspect(world, suspect, name, 1, 0);
    set_head(world, data, "PoolPageHeaders", VirtAddr(0), 0);
    set_head(world, data, "PoolTrackers", VirtAddr(0), 0);
}

/// Puts a driver at the front of the list of those chosen.
pub fn add_suspect(world: &mut World, at: VirtAddr, name: &str, loads: u64, unloads: u64) {
    let head = world.global("VfSuspectDriversList");
    let first = world.read(head, world.pointer_size());
    let size = world.size("_VF_SUSPECT_DRIVER_ENTRY");
    let name_at = at.offset(world.offset("_VF_SUSPECT_DRIVER_ENTRY", "BaseName"));
    world.write(at, &first);
    world.put("_VF_SUSPECT_DRIVER_ENTRY", at, "Loads", loads);
    world.put("_VF_SUSPECT_DRIVER_ENTRY", at, "Unloads", unloads);
    world.put_string(name_at, at.offset(size), name);
    world.put_pointers(head, &[at.0]);
}

/// Writes a single list's head in this kernel's form.
pub fn set_head(world: &mut World, data: VirtAddr, field: &str, first: VirtAddr, depth: u64) {
    if world.has(DRIVER, &format!("{field}.Next")) {
        // The first field of the structure, or the pointer itself.
        let at = data.offset(world.offset(DRIVER, field));
        world.put_pointers(at, &[first.0]);
        world.put(DRIVER, data, &format!("{field}.Depth"), depth);
        return;
    }
    let form =
        if world.has(DRIVER, &format!("{field}.Header16.NextEntry")) { "Header16" } else { "HeaderX64" };
    if form == "Header16" {
        world.put(DRIVER, data, &format!("{field}.Header16.HeaderType"), 1);
    }
    world.put(DRIVER, data, &format!("{field}.{form}.NextEntry"), first.0 >> 4);
    world.put(DRIVER, data, &format!("{field}.{form}.Depth"), depth);
}

#[derive(Clone, Copy, Debug)]
pub struct Slot {
    pub address: u64,
    pub size: u64,
}

/// A block, its tag and the return address of who took it.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    pub block: Slot,
    pub tag: u32,
    pub caller: u64,
}

/// Lays out pages of trackers, newest page first; blocks newest first, as the kernel hands slots out from the last down.
///
/// The slots between are never used or freed, all on the free list.
pub fn set_trackers(world: &mut World, data: VirtAddr, pages: &[(VirtAddr, &[Slot])]) {
    let taken = |block: &Slot| Taken { block: *block, tag: LEAK as u32, caller: CALLER };
    let pages: Vec<(_, Vec<_>)> =
        pages.iter().map(|(page, blocks)| (*page, blocks.iter().map(taken).collect())).collect();
    set_taken(world, data, &pages);
}

/// The same for blocks of any tag and caller.
pub fn set_taken(world: &mut World, data: VirtAddr, pages: &[(VirtAddr, Vec<Taken>)]) {
    let size = world.size("_VI_POOL_ENTRY");
    let slots = PAGE / size;
    let mut free = Vec::new();
    for (index, (page, blocks)) in pages.iter().enumerate() {
        let next = pages.get(index + 1).map_or(0, |(next, _)| next.0);
        world.map(*page, PAGE);
        world.put("_VI_POOL_PAGE_HEADER", *page, "NextPage", next);
        world.put("_VI_POOL_PAGE_HEADER", *page, "VerifierEntry", data.0);
        world.put("_VI_POOL_PAGE_HEADER", *page, "Signature", 0x2132_1345);
        let first = slots - blocks.len() as u64;
        for (slot, taken) in (first..).zip(blocks) {
            let at = page.offset(slot * size);
            for (field, value) in [
                ("VirtualAddress", taken.block.address),
                ("CallingAddress", taken.caller),
                ("NumberOfBytes", taken.block.size),
                ("Tag", taken.tag.into()),
            ] {
                world.put(IN_USE, at, field, value);
            }
        }
        for slot in 1..first {
            let at = page.offset(slot * size);
            // The last of them was freed once: its old size, with the low bit set.
            world.put(IN_USE, at, "NumberOfBytes", if slot + 1 == first { 0x81 } else { 1 });
            free.push(at);
        }
    }
    for (index, at) in free.iter().enumerate() {
        let next = free.get(index + 1).map_or(0, |next| next.0);
        world.put("_VI_POOL_ENTRY", *at, "NextFree", next);
    }
    let first = |list: &[VirtAddr]| list.first().copied().unwrap_or_default();
    set_head(
        world,
        data,
        "PoolPageHeaders",
        pages.first().map_or(VirtAddr(0), |page| page.0),
        pages.len() as u64,
    );
    set_head(world, data, "PoolTrackers", first(&free), free.len() as u64);
}

pub fn add_log(world: &mut World, length: u32, index: u32) {
    let (pointer, len, at) =
        (world.global("VfPoolTraces"), world.global("VfPoolTracesLength"), world.global("VfPoolTracesIndex"));
    world.put_pointers(pointer, &[LOG.0]);
    world.write(len, &length.to_le_bytes());
    world.write(at, &index.to_le_bytes());
    let size = world.size("_VF_POOL_TRACE");
    world.map(LOG, u64::from(length) * size);
}

/// Fills the trees of advanced pool tracking: address, size and stack of each block.
pub fn add_tracked(world: &mut World, blocks: &[(u64, u64, &[u64])]) {
    const NODES: VirtAddr = VirtAddr(0xffff_fa80_0900_0000);
    let (table, initialized) = (world.global("ViPoolInfoAvl"), world.global("ViPoolInfoAvlInitialized"));
    world.write(initialized, &1_u32.to_le_bytes());
    world.put("_RTL_AVL_TABLE", table, "BalancedRoot.RightChild", NODES.0);
    for (index, (address, size, frames)) in (0..).zip(blocks) {
        let (node, stack) = (NODES.offset(index * 0x40), NODES.offset(0x1_0000 + index * 0x200));
        let next = if index + 1 == blocks.len() as u64 { 0 } else { node.0 + 0x40 };
        world.put("_RTL_BALANCED_LINKS", node, "RightChild", next);
        world.write(node.offset(0x20), &[*address, *size, stack.0].map(u64::to_le_bytes).concat());
        world.map(stack, 0x1b8);
        world.write(stack, &[LEAK.to_le_bytes(), 1_u64.to_le_bytes()].concat());
        let frames: Vec<u8> = frames.iter().flat_map(|frame| frame.to_le_bytes()).collect();
        world.write(stack.offset(0x28), &frames);
    }
}

/// Makes an empty log of any kind at `at`: variables for its pointer, its index and its length.
pub fn add_ring(world: &mut World, names: [&str; 3], at: VirtAddr, len: u32, newest: u32) {
    let [pointer, index, length] = names.map(|name| world.global(name));
    world.write(pointer, &at.0.to_le_bytes());
    world.write(index, &newest.to_le_bytes());
    world.write(length, &len.to_le_bytes());
    world.map(at, u64::from(len) * 0x200);
}

/// Where logs other than that of pool may be.
pub const RING: VirtAddr = VirtAddr(0xffff_fa80_0600_0000);

/// Pointer, index and length of each of the smaller logs, its record and flag.
pub const RINGS: [([&str; 3], &str, u64); 5] = [
    (["ViFaultTraces", "ViFaultTracesIndex", "ViFaultTracesLength"], "_VI_FAULT_TRACE", 4),
    (["ViTrackIrqlQueue", "ViTrackIrqlIndex", "ViTrackIrqlQueueLength"], "_VI_TRACK_IRQL", 8),
    (
        ["VfForcedPendingLog", "VfForcedPendingIrps", "VfForcedPendingLogLength"],
        "_IOV_FORCED_PENDING_TRACE",
        0x40,
    ),
    (["IovIrpTraces", "IovIrpTracesIndex", "IovIrpTracesLength"], "_IOV_IRP_TRACE", 0x100),
    (
        ["VfKeCriticalRegionTraces", "VfKeCriticalRegionTracesIndex", "VfKeCriticalRegionTracesLength"],
        "_VF_KE_CRITICAL_REGION_TRACE",
        0x200,
    ),
];

pub fn log_entry(world: &mut World, slot: u64, address: u64, size: u64, stack: &[u64]) {
    let at = LOG.offset(slot * world.size("_VF_POOL_TRACE"));
    world.put("_VF_POOL_TRACE", at, "Address", address);
    world.put("_VF_POOL_TRACE", at, "Size", size);
    world.put("_VF_POOL_TRACE", at, "Thread", 0xffff_fa80_044c_eb60);
    let frames = at.offset(world.offset("_VF_POOL_TRACE", "StackTrace"));
    let bytes: Vec<u8> = stack.iter().flat_map(|address| address.to_le_bytes()).collect();
    world.write(frames, &bytes);
}
