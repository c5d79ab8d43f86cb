//! Driver Verifier's records of one verified driver: counters, pool trackers, and the tree they are found by.
//!
//! ```text
//!  ViTargetDriversAvl -> table -> node | _VF_TARGET_DRIVER -> _VF_TARGET_VERIFIED_DRIVER_DATA -> _VF_SUSPECT_DRIVER_ENTRY
//!                                        (printed Entry)       | PoolPageHeaders     PoolTrackers
//!                                                              v                     v
//!                                       tracker page: | header | 1 | 2 | ..  free slots, a list  .. | 126 | 127 |
//! ```
//! A page has 127 slots behind its header. Free ones are a list that starts with the highest, so the newest allocation has
//! the lowest slot of those in use. A slot that was never used has `NumberOfBytes` 1; a freed one keeps its size with
//! bit 0 set.

use kd_protocol::VirtAddr;

use super::kernel::{Kernel, span};
use super::modules;
use crate::sim::paging::Access;
use crate::sim::physical::PAGE_SIZE;

/// First byte of nonpaged pool.
pub(super) const NONPAGED_POOL_START: VirtAddr = VirtAddr(0xffff_fa80_00c0_0000);
/// Most that nonpaged pool grows to: three quarters of RAM.
pub(super) const NONPAGED_POOL_SIZE: u64 = 0x6000_0000;

/// What `!verifier` prints as Entry: the `_VF_TARGET_DRIVER` of myfault.sys.
const TARGET_DRIVER: VirtAddr = VirtAddr(0xffff_fa80_031b_5830);
const VERIFIED_DATA: VirtAddr = VirtAddr(0xffff_fa80_031b_5c10);
const SUSPECT_ENTRY: VirtAddr = VirtAddr(0xffff_fa80_031b_4e10);
const SUSPECT_NAME: VirtAddr = VirtAddr(0xffff_fa80_031b_4e60);
const SUSPECT_FULL_NAME: VirtAddr = VirtAddr(0xffff_fa80_031b_4ec0);
const TABLES: VirtAddr = VirtAddr(0xffff_fa80_0319_9010);
/// The driver's `_DRIVER_OBJECT`, and its name.
const DRIVER_OBJECT: VirtAddr = VirtAddr(0xffff_fa80_044c_0e40);
const DRIVER_NAME: VirtAddr = VirtAddr(0xffff_fa80_044c_0fd0);
/// Tracker pages are taken one behind the other from here.
const FIRST_TRACKER_PAGE: VirtAddr = VirtAddr(0xffff_fa80_031b_c000);
/// Room for them: as many as blocks of a mebibyte that nonpaged pool has room for need, many times over.
const TRACKER_PAGES: u64 = 0x40;

/// `_VF_TARGET_VERIFIED_DRIVER_DATA.Signature`.
const DATA_SIGNATURE: u64 = 0x9876_1940;
/// `_VI_POOL_PAGE_HEADER.Signature`.
const PAGE_SIGNATURE: u64 = 0x2132_1345;
/// `NumberOfBytes` of a slot that was never used, and the bit that marks free ones.
const FREE: u64 = 1;
/// "All pool allocations checked on unload".
const LEVEL_POOL_TRACKING: u64 = 8;

const DATA: &str = "_VF_TARGET_VERIFIED_DRIVER_DATA";
const ENTRY: &str = "_VI_POOL_ENTRY";

/// One kind of pool, and the words its counters are named by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pool {
    Paged,
    NonPaged,
}

/// A tracked allocation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allocation {
    pub(super) pool: Pool,
    pub(super) address: VirtAddr,
    /// Bytes of the pool's block, which is what the tracker keeps.
    pub(super) size: u64,
    /// Return address in the driver.
    pub(super) caller: VirtAddr,
    /// The tag, in memory order; `None` if the driver gave none.
    pub(super) tag: Option<[u8; 4]>,
}

/// The slot that tracks an allocation: address of its `_VI_POOL_ENTRY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(pub(super) VirtAddr);

/// Turns Driver Verifier on for myfault.sys, with pool tracking and nothing else.
pub(super) fn start(kernel: &mut Kernel) {
    let global = kernel.symbol("MmVerifierData");
    kernel.set_all(global, "_MM_DRIVER_VERIFIER_DATA", &[("Level", LEVEL_POOL_TRACKING), ("Loads", 1)]);
    kernel.write_variables(&[
        ("ViVerifierEnabled", 1, 4),
        ("VerifierIsTrackingPool", 1, 4),
        ("ViAvlInitialized", 1, 4),
        ("ViTargetInitialized", 1, 4),
    ]);
    // The mode of a boot with verified drivers; a guess, no source gives its value.
    const MODE: u64 = 3;
    kernel.set_existing(global, "_MM_DRIVER_VERIFIER_DATA", &[("VerifyMode", MODE)]);
    // Builds since 1809 decide by the word of rule classes, whose low bits are the level's.
    kernel.write_variables(&[("VfVerifyMode", MODE, 4), ("VfRuleClasses", LEVEL_POOL_TRACKING, 8)]);

    let excluded = kernel.symbol("VfExcludedDriversList");
    kernel.list_init(excluded);
    let suspects = kernel.symbol("VfSuspectDriversList");
    kernel.list_init(suspects);
    kernel.pool_block(SUSPECT_ENTRY, kernel.size_of("_VF_SUSPECT_DRIVER_ENTRY"), b"VfSD");
    kernel.set(SUSPECT_ENTRY, "_VF_SUSPECT_DRIVER_ENTRY", "Loads", 1);
    let name = SUSPECT_ENTRY.offset(kernel.offset_of("_VF_SUSPECT_DRIVER_ENTRY", "BaseName"));
    kernel.pool_block(SUSPECT_NAME, 0x20, b"VfSN");
    kernel.unicode_string(name, SUSPECT_NAME, "myfault.sys");
    if kernel.has("_VF_SUSPECT_DRIVER_ENTRY", "FullName") {
        let name = SUSPECT_ENTRY.offset(kernel.offset_of("_VF_SUSPECT_DRIVER_ENTRY", "FullName"));
        kernel.pool_block(SUSPECT_FULL_NAME, 0x60, b"VfSN");
        let full_name = modules::full_name(kernel.image("myfault"));
        kernel.unicode_string(name, SUSPECT_FULL_NAME, &full_name);
    }
    kernel.list_append(suspects, SUSPECT_ENTRY);

    verified_data(kernel);
    target_drivers(kernel);
}

/// Records an allocation that the pool has made: takes a slot and counts it.
///
/// Returns `None`, and counts a failed allocation, if no page for slots can be had.
pub(super) fn allocated(kernel: &mut Kernel, allocation: &Allocation) -> Option<Slot> {
    let Allocation { pool, address, size, caller, tag } = *allocation;
    let Some(slot) = take_slot(kernel) else {
        failed(kernel);
        return None;
    };
    let fields = [
        ("InUse.VirtualAddress", address.0),
        ("InUse.CallingAddress", caller.0),
        ("InUse.NumberOfBytes", size),
        ("InUse.Tag", u32::from_le_bytes(tag.unwrap_or(*b"None")).into()),
    ];
    kernel.set_all(slot.0, ENTRY, &fields);

    let global = kernel.symbol("MmVerifierData");
    kernel.add(global, "_MM_DRIVER_VERIFIER_DATA", "AllocationsAttempted", 1);
    kernel.add(global, "_MM_DRIVER_VERIFIER_DATA", "AllocationsSucceeded", 1);
    if pool == Pool::NonPaged {
        // The published transcript counts each of the leak's blocks here, though special pool is off.
        kernel.add(global, "_MM_DRIVER_VERIFIER_DATA", "AllocationsSucceededSpecialPool", 1);
    }
    for (at, aggregate) in [(global, "_MM_DRIVER_VERIFIER_DATA"), (VERIFIED_DATA, DATA)] {
        if tag.is_none() {
            kernel.add(at, aggregate, "AllocationsWithNoTag", 1);
        }
        let counters = pool.counters();
        kernel.add(at, aggregate, counters.allocations, 1);
        kernel.add(at, aggregate, counters.bytes, size.cast_signed());
        for (now, peak) in
            [(counters.allocations, counters.peak_allocations), (counters.bytes, counters.peak_bytes)]
        {
            let highest = kernel.get(at, aggregate, now).max(kernel.get(at, aggregate, peak));
            kernel.set(at, aggregate, peak, highest);
        }
    }
    Some(slot)
}

/// Records that an allocation failed.
pub(super) fn failed(kernel: &mut Kernel) {
    let global = kernel.symbol("MmVerifierData");
    kernel.add(global, "_MM_DRIVER_VERIFIER_DATA", "AllocationsAttempted", 1);
    kernel.add(global, "_MM_DRIVER_VERIFIER_DATA", "AllocationsFailed", 1);
    kernel.add(VERIFIED_DATA, DATA, "AllocationsFailed", 1);
}

/// Records that an allocation was freed: gives its slot back and counts it.
pub(super) fn freed(kernel: &mut Kernel, pool: Pool, slot: Slot) {
    let size = kernel.get(slot.0, ENTRY, "InUse.NumberOfBytes");
    kernel.set(slot.0, ENTRY, "InUse.NumberOfBytes", size | FREE);
    push(kernel, "PoolTrackers", slot.0);
    let counters = pool.counters();
    let global = kernel.symbol("MmVerifierData");
    for (at, aggregate) in [(global, "_MM_DRIVER_VERIFIER_DATA"), (VERIFIED_DATA, DATA)] {
        kernel.add(at, aggregate, counters.allocations, -1);
        kernel.add(at, aggregate, counters.bytes, size.cast_signed().wrapping_neg());
    }
}

fn verified_data(kernel: &mut Kernel) {
    kernel.pool_block(VERIFIED_DATA, kernel.size_of(DATA), b"VfVD");
    let fields = [("SuspectDriverEntry", SUSPECT_ENTRY.0), ("Signature", DATA_SIGNATURE)];
    kernel.set_all(VERIFIED_DATA, DATA, &fields);
    for list in ["EtwHandlesListHead", "ContiguousMemoryListHead"] {
        let head = VERIFIED_DATA.offset(kernel.offset_of(DATA, list));
        kernel.list_init(head);
    }
    for list in ["PoolPageHeaders", "PoolTrackers"] {
        // The 16-byte form of list header, which every CPU with cmpxchg16b uses; later builds know no other.
        kernel.set_existing(VERIFIED_DATA, DATA, &[(&format!("{list}.HeaderX64.HeaderType"), 1)]);
    }
}

/// The tree of verified drivers: tables by image address, each a tree; here each but one is empty, and that has one node.
fn target_drivers(kernel: &mut Kernel) {
    let image = kernel.image("myfault");
    let (base, size) = (image.base, image.size_of_image());
    let tree = kernel.symbol("ViTargetDriversAvl");
    let node_size = kernel.size_of("_VF_TARGET_DRIVER");
    let tables_no = u64::from(kernel.layouts.release.driver_tables);
    let fields =
        [("Tables", TABLES.0), ("TablesNo", tables_no), ("NodeCount", 1), ("u1.NodeSize", node_size)];
    kernel.set_all(tree, "_VF_AVL_TREE", &fields);
    let table_size = kernel.size_of("_VF_AVL_TABLE");
    kernel.pool_block(TABLES, table_size * tables_no, b"VfAT");

    let links_size = kernel.size_of("_RTL_BALANCED_LINKS");
    let node = VirtAddr(TARGET_DRIVER.0 - links_size);
    let number_of = (base / PAGE_SIZE) % tables_no;
    for number in 0..tables_no {
        let table = TABLES.offset(number * table_size);
        let root = table.offset(kernel.offset_of("_VF_AVL_TABLE", "RtlTable.BalancedRoot"));
        let fields = [
            ("RtlTable.BalancedRoot.Parent", root.0),
            ("RtlTable.CompareRoutine", kernel.symbol("ViAvlCompareNode").0),
            ("RtlTable.AllocateRoutine", kernel.symbol("ViAvlAllocateNode").0),
        ];
        kernel.set_all(table, "_VF_AVL_TABLE", &fields);
        if number == number_of {
            let fields = [
                ("RtlTable.BalancedRoot.RightChild", node.0),
                ("RtlTable.NumberGenericTableElements", 1),
                ("RtlTable.DepthOfTree", 1),
            ];
            kernel.set_all(table, "_VF_AVL_TABLE", &fields);
            kernel.pool_block(node, links_size + node_size, b"VfTD");
            kernel.set(node, "_RTL_BALANCED_LINKS", "Parent", root.0);
        }
    }
    let driver_object = driver_object(kernel, "myfault");
    // Trees that can be told apart by session have the range inside another structure.
    let range = if kernel.has("_VF_TARGET_DRIVER", "TreeNode.Base.p") { "TreeNode.Base" } else { "TreeNode" };
    let fields = [
        (&*format!("{range}.p"), base),
        (&*format!("{range}.RangeSize"), size.into()),
        ("VerifiedData", VERIFIED_DATA.0),
    ];
    kernel.set_all(TARGET_DRIVER, "_VF_TARGET_DRIVER", &fields);
    kernel.set_existing(TARGET_DRIVER, "_VF_TARGET_DRIVER", &[("DriverObject", driver_object.0)]);
}

/// A driver object for a module, with its name; where it is.
fn driver_object(kernel: &mut Kernel, module: &str) -> VirtAddr {
    const DRIVER: &str = "_DRIVER_OBJECT";
    const TYPE_DRIVER: u64 = 4;
    let object_size = kernel.size_of(DRIVER);
    let header_size = kernel.offset_of("_OBJECT_HEADER", "Body");
    let header = VirtAddr(DRIVER_OBJECT.0 - header_size);
    kernel.pool_block(header, header_size + object_size, b"Driv");
    kernel.set_all(header, "_OBJECT_HEADER", &[("PointerCount", 3), ("HandleCount", 0)]);
    let image = kernel.image(module);
    let (base, size) = (image.base, image.size_of_image());
    let fields = [
        ("Type", TYPE_DRIVER),
        ("Size", object_size),
        ("DriverStart", base),
        ("DriverSize", size.into()),
        ("DriverSection", modules::entry_of(kernel, module).0),
    ];
    kernel.set_all(DRIVER_OBJECT, DRIVER, &fields);
    kernel.pool_block(DRIVER_NAME, 0x20, b"IoNm");
    let name = DRIVER_OBJECT.offset(kernel.offset_of(DRIVER, "DriverName"));
    kernel.unicode_string(name, DRIVER_NAME, &format!(r"\Driver\{}", module.to_uppercase()));
    DRIVER_OBJECT
}

fn take_slot(kernel: &mut Kernel) -> Option<Slot> {
    if first(kernel, "PoolTrackers").is_null() {
        add_tracker_page(kernel)?;
    }
    Some(Slot(pop(kernel, "PoolTrackers")))
}

/// Takes a page for trackers, puts it in front of the driver's pages and its slots on the free list.
fn add_tracker_page(kernel: &mut Kernel) -> Option<()> {
    let number = kernel.get(VERIFIED_DATA, DATA, "PoolPageHeaders.HeaderX64.Depth");
    if number >= TRACKER_PAGES {
        return None;
    }
    let page = FIRST_TRACKER_PAGE.offset(number * PAGE_SIZE);
    kernel.memory.map(span(page, PAGE_SIZE), Access::Write).ok()?;
    let fields = [("VerifierEntry", VERIFIED_DATA.0), ("Signature", PAGE_SIGNATURE)];
    kernel.set_all(page, "_VI_POOL_PAGE_HEADER", &fields);
    let slot_size = kernel.size_of(ENTRY);
    for slot in 1..PAGE_SIZE / slot_size {
        let at = page.offset(slot * slot_size);
        kernel.set(at, ENTRY, "InUse.NumberOfBytes", FREE);
        push(kernel, "PoolTrackers", at);
    }
    push(kernel, "PoolPageHeaders", page);
    Some(())
}

/// First entry of one of the driver's lists.
fn first(kernel: &Kernel, list: &str) -> VirtAddr {
    VirtAddr(kernel.get(VERIFIED_DATA, DATA, &format!("{list}.HeaderX64.NextEntry")) << 4)
}

/// Pushes an entry, whose first quadword links it, as `RtlInterlockedPushEntrySList` does.
fn push(kernel: &mut Kernel, list: &str, entry: VirtAddr) {
    let next = first(kernel, list);
    kernel.write_u64(entry, next.0);
    set_first(kernel, list, entry, 1);
    kernel.add(VERIFIED_DATA, DATA, &format!("{list}.HeaderX64.Sequence"), 1);
}

/// Takes the first entry off a list that is not empty.
fn pop(kernel: &mut Kernel, list: &str) -> VirtAddr {
    let entry = first(kernel, list);
    let next = VirtAddr(kernel.read_u64(entry));
    set_first(kernel, list, next, -1);
    entry
}

fn set_first(kernel: &mut Kernel, list: &str, entry: VirtAddr, longer: i64) {
    kernel.add(VERIFIED_DATA, DATA, &format!("{list}.HeaderX64.Depth"), longer);
    kernel.set(VERIFIED_DATA, DATA, &format!("{list}.HeaderX64.NextEntry"), entry.0 >> 4);
}

/// Names of the counters of one kind of pool.
struct Counters {
    allocations: &'static str,
    peak_allocations: &'static str,
    bytes: &'static str,
    peak_bytes: &'static str,
}

impl Pool {
    const fn counters(self) -> Counters {
        match self {
            Self::Paged => Counters {
                allocations: "CurrentPagedPoolAllocations",
                peak_allocations: "PeakPagedPoolAllocations",
                bytes: "PagedBytes",
                peak_bytes: "PeakPagedBytes",
            },
            Self::NonPaged => Counters {
                allocations: "CurrentNonPagedPoolAllocations",
                peak_allocations: "PeakNonPagedPoolAllocations",
                bytes: "NonPagedBytes",
                peak_bytes: "PeakNonPagedBytes",
            },
        }
    }
}
