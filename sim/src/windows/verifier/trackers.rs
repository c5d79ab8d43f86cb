//! Outstanding pool allocations of a verified driver: its counters, and its pages of trackers.
//!
//! ```text
//!  _VF_TARGET_VERIFIED_DRIVER_DATA
//!    PoolPageHeaders     PoolTrackers
//!    v                   v
//!    tracker page: | header | 1 | 2 | ..  free slots, a list  .. | 126 | 127 |
//! ```
//! A page has 127 slots behind its header. Free ones are a list that starts with the highest, so the newest allocation has
//! the lowest slot of those in use. A slot that was never used has `NumberOfBytes` 1; a freed one keeps its size with
//! bit 0 set.

use kd_protocol::VirtAddr;

use crate::paging::Access;
use crate::physical::PAGE_SIZE;
use crate::windows::kernel::{Kernel, span};
use crate::windows::ledger::Outstanding;
use crate::windows::pool::{big, trackers as tags};
use crate::windows::pool_account::Pool;
use crate::windows::pool_log;
use crate::windows::verified::Driver;

/// Tracker pages that a driver may have.
const TRACKER_PAGES: u64 = 0x100;
/// `_VI_POOL_PAGE_HEADER.Signature`.
const PAGE_SIGNATURE: u64 = 0x2132_1345;
/// `NumberOfBytes` of a slot that was never used, and the bit that marks free ones.
const FREE: u64 = 1;
/// Bytes of a slot, `_VI_POOL_ENTRY` on every x64 build; a page has this many behind its header.
const SLOT_SIZE: u64 = 0x20;
const SLOTS: u64 = PAGE_SIZE / SLOT_SIZE - 1;
/// Blocks larger than this are whole pages, and counted as if they came from special pool.
const SMALL: u64 = 0xfe0;
/// Bytes of a pool header, which is in front of each block.
const POOL_HEADER: u64 = 0x10;
/// What is written where a driver gave no tag.
const NO_TAG: [u8; 4] = *b"None";

pub(super) const DATA: &str = "_VF_TARGET_VERIFIED_DRIVER_DATA";
const GLOBAL: &str = "_MM_DRIVER_VERIFIER_DATA";
const ENTRY: &str = "_VI_POOL_ENTRY";

/// A tracked allocation.
#[derive(Clone, Copy, Debug)]
pub(in crate::windows) struct Allocation {
    pub(in crate::windows) pool: Pool,
    pub(in crate::windows) address: VirtAddr,
    /// Bytes that the tracker keeps: of the pool's block, in special pool those asked for.
    pub(in crate::windows) size: u64,
    /// Return address in the driver.
    pub(in crate::windows) caller: VirtAddr,
    /// The tag, in memory order; `None` if the driver gave none.
    pub(in crate::windows) tag: Option<[u8; 4]>,
    /// True if it lies in special pool.
    pub(in crate::windows) is_special: bool,
}

/// The slot that tracks an allocation: address of its `_VI_POOL_ENTRY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::windows) struct Slot(pub(in crate::windows) VirtAddr);

/// Gives a driver empty lists.
pub(super) fn initialize(kernel: &mut Kernel, driver: &Driver) {
    for list in ["PoolPageHeaders", "PoolTrackers"] {
        // The 16-byte form of list header, which every CPU with cmpxchg16b uses; later builds know no other.
        kernel.set_existing(driver.data, DATA, &[(&format!("{list}.HeaderX64.HeaderType"), 1)]);
    }
}

/// Records an allocation that the pool has made: takes a slot and counts it.
///
/// Returns `None`, and counts a failed allocation, if no page for slots can be had.
pub(in crate::windows) fn allocated(
    kernel: &mut Kernel,
    driver: &Driver,
    allocation: &Allocation,
) -> Option<Slot> {
    let Some(slot) = take_slot(kernel, driver) else {
        failed(kernel, driver);
        return None;
    };
    kernel.write(slot.0, &contents(allocation));
    count(kernel, driver, std::slice::from_ref(allocation));
    charge(kernel, std::slice::from_ref(allocation));
    took(kernel, driver, std::slice::from_ref(allocation), &[slot]);
    Some(slot)
}

/// Records allocations in the order given, as so many calls of [`allocated`] would, in much less time.
///
/// Returns as many slots as there was room for.
pub(in crate::windows) fn allocated_many(
    kernel: &mut Kernel,
    driver: &Driver,
    allocations: &[Allocation],
) -> Vec<Slot> {
    let mut slots = Vec::with_capacity(allocations.len());
    // One by one while the newest page has free slots, then whole pages.
    for allocation in allocations {
        if first(kernel, driver, "PoolTrackers").is_null() {
            break;
        }
        let slot = pop(kernel, driver, "PoolTrackers");
        kernel.write(slot, &contents(allocation));
        slots.push(Slot(slot));
    }
    for group in allocations[slots.len()..].chunks(SLOTS as usize) {
        let Some(page) = add_page(kernel, driver, group) else { break };
        slots.extend((0..group.len() as u64).map(|number| Slot(page.offset((SLOTS - number) * SLOT_SIZE))));
    }
    count(kernel, driver, &allocations[..slots.len()]);
    charge(kernel, &allocations[..slots.len()]);
    took(kernel, driver, allocations, &slots);
    slots
}

fn took(kernel: &mut Kernel, driver: &Driver, allocations: &[Allocation], slots: &[Slot]) {
    let index = pool_log::index(kernel);
    for (&Allocation { address, size, tag, caller, .. }, slot) in allocations.iter().zip(slots) {
        let block = Outstanding { driver: driver.module, address, size, tag, caller };
        kernel.ledger.took(index, slot.0, block);
    }
}

/// Records that an allocation failed.
pub(in crate::windows) fn failed(kernel: &mut Kernel, driver: &Driver) {
    let global = kernel.symbol("MmVerifierData");
    kernel.add(global, GLOBAL, "AllocationsAttempted", 1);
    kernel.add(global, GLOBAL, "AllocationsFailed", 1);
    kernel.add(driver.data, DATA, "AllocationsFailed", 1);
}

/// Records that an allocation was freed: gives its slot back and counts it.
pub(in crate::windows) fn freed(kernel: &mut Kernel, driver: &Driver, pool: Pool, slot: Slot) {
    let size = kernel.get(slot.0, ENTRY, "InUse.NumberOfBytes");
    kernel.set(slot.0, ENTRY, "InUse.NumberOfBytes", size | FREE);
    let index = pool_log::index(kernel);
    if let Some(block) = kernel.ledger.gave_back(index, slot.0) {
        tags::discharge(kernel, block.tag.unwrap_or(NO_TAG), pool, 1, charged(block.size));
        big::remove(kernel, block.address);
    }
    push(kernel, driver, "PoolTrackers", slot.0);
    let counters = pool.counters();
    let global = kernel.symbol("MmVerifierData");
    for (at, aggregate) in [(global, GLOBAL), (driver.data, DATA)] {
        kernel.add(at, aggregate, counters.allocations, -1);
        kernel.add(at, aggregate, counters.bytes, size.cast_signed().wrapping_neg());
    }
    if kernel.has(GLOBAL, "AllocationFreed") {
        kernel.add(global, GLOBAL, "AllocationFreed", 1);
    }
}

/// Counts allocations by their tags, as the pool does whoever makes them, and enters those that are whole pages.
fn charge(kernel: &mut Kernel, allocations: &[Allocation]) {
    for of_one in allocations.chunk_by(|one, other| (one.tag, one.pool) == (other.tag, other.pool)) {
        let (tag, pool) = (of_one[0].tag.unwrap_or(NO_TAG), of_one[0].pool);
        let bytes = |it: &Allocation| if it.is_special { PAGE_SIZE } else { charged(it.size) };
        tags::charge(kernel, tag, pool, of_one.len() as u64, of_one.iter().map(bytes).sum());
        for block in of_one.iter().filter(|block| !block.is_special && block.size > SMALL) {
            big::insert(kernel, block.address, tag, pool, block.size);
        }
    }
}

/// What the pool counts of a block: its header too, or whole pages.
const fn charged(size: u64) -> u64 {
    if size > SMALL { size } else { size + POOL_HEADER }
}

/// The bytes of a slot in use.
fn contents(allocation: &Allocation) -> [u8; SLOT_SIZE as usize] {
    let tag = u32::from_le_bytes(allocation.tag.unwrap_or(NO_TAG)).into();
    let words = [allocation.address.0, allocation.caller.0, allocation.size, tag];
    let mut bytes = [0; SLOT_SIZE as usize];
    for (word, place) in words.into_iter().zip(bytes.chunks_exact_mut(8)) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// Counts allocations that succeeded, of the driver and of all.
fn count(kernel: &mut Kernel, driver: &Driver, allocations: &[Allocation]) {
    let number = |wanted: &dyn Fn(&Allocation) -> bool| {
        allocations.iter().filter(|allocation| wanted(allocation)).count() as i64
    };
    let global = kernel.symbol("MmVerifierData");
    let all = allocations.len() as i64;
    kernel.add(global, GLOBAL, "AllocationsAttempted", all);
    kernel.add(global, GLOBAL, "AllocationsSucceeded", all);
    // Large blocks are counted here too, though they do not come from special pool.
    let special = number(&|allocation| allocation.is_special || allocation.size > SMALL);
    kernel.add(global, GLOBAL, "AllocationsSucceededSpecialPool", special);
    for (at, aggregate) in [(global, GLOBAL), (driver.data, DATA)] {
        kernel.add(at, aggregate, "AllocationsWithNoTag", number(&|allocation| allocation.tag.is_none()));
        for pool in [Pool::Paged, Pool::NonPaged] {
            let counters = pool.counters();
            let of_pool = allocations.iter().filter(|allocation| allocation.pool == pool);
            let bytes: u64 = of_pool.map(|allocation| allocation.size).sum();
            kernel.add(at, aggregate, counters.allocations, number(&|allocation| allocation.pool == pool));
            kernel.add(at, aggregate, counters.bytes, bytes.cast_signed());
            for (now, peak) in
                [(counters.allocations, counters.peak_allocations), (counters.bytes, counters.peak_bytes)]
            {
                let highest = kernel.get(at, aggregate, now).max(kernel.get(at, aggregate, peak));
                kernel.set(at, aggregate, peak, highest);
            }
        }
    }
}

fn take_slot(kernel: &mut Kernel, driver: &Driver) -> Option<Slot> {
    if first(kernel, driver, "PoolTrackers").is_null() {
        add_page(kernel, driver, &[])?;
    }
    Some(Slot(pop(kernel, driver, "PoolTrackers")))
}

/// Takes a page for trackers and puts it in front of the driver's pages, which have no free slot. Its highest slots track
/// `allocations`, the others are the free list.
fn add_page(kernel: &mut Kernel, driver: &Driver, allocations: &[Allocation]) -> Option<VirtAddr> {
    let number = kernel.get(driver.data, DATA, "PoolPageHeaders.HeaderX64.Depth");
    if number >= TRACKER_PAGES {
        return None;
    }
    let page = driver.trackers.offset(number * PAGE_SIZE);
    kernel.memory.map(span(page, PAGE_SIZE), Access::Write).ok()?;
    let free = SLOTS - allocations.len() as u64;
    let mut bytes = [0; PAGE_SIZE as usize];
    for (number, slot) in bytes.chunks_exact_mut(SLOT_SIZE as usize).enumerate().skip(1) {
        let number = number as u64;
        if number > free {
            slot.copy_from_slice(&contents(&allocations[(SLOTS - number) as usize]));
        } else {
            let next = if number > 1 { page.0 + (number - 1) * SLOT_SIZE } else { 0 };
            slot[..8].copy_from_slice(&next.to_le_bytes());
            slot[16..24].copy_from_slice(&FREE.to_le_bytes());
        }
    }
    kernel.write(page, &bytes);
    let fields = [("VerifierEntry", driver.data.0), ("Signature", PAGE_SIGNATURE)];
    kernel.set_all(page, "_VI_POOL_PAGE_HEADER", &fields);
    if free > 0 {
        set_first(kernel, driver, "PoolTrackers", page.offset(free * SLOT_SIZE), free.cast_signed());
    }
    push(kernel, driver, "PoolPageHeaders", page);
    Some(page)
}

/// First entry of one of the driver's lists.
fn first(kernel: &Kernel, driver: &Driver, list: &str) -> VirtAddr {
    VirtAddr(kernel.get(driver.data, DATA, &format!("{list}.HeaderX64.NextEntry")) << 4)
}

/// Pushes an entry, whose first quadword links it, as `RtlInterlockedPushEntrySList` does.
fn push(kernel: &mut Kernel, driver: &Driver, list: &str, entry: VirtAddr) {
    let next = first(kernel, driver, list);
    kernel.write_u64(entry, next.0);
    set_first(kernel, driver, list, entry, 1);
    kernel.add(driver.data, DATA, &format!("{list}.HeaderX64.Sequence"), 1);
}

/// Takes the first entry off a list that is not empty.
fn pop(kernel: &mut Kernel, driver: &Driver, list: &str) -> VirtAddr {
    let entry = first(kernel, driver, list);
    let next = VirtAddr(kernel.read_u64(entry));
    set_first(kernel, driver, list, next, -1);
    entry
}

fn set_first(kernel: &mut Kernel, driver: &Driver, list: &str, entry: VirtAddr, longer: i64) {
    kernel.add(driver.data, DATA, &format!("{list}.HeaderX64.Depth"), longer);
    kernel.set(driver.data, DATA, &format!("{list}.HeaderX64.NextEntry"), entry.0 >> 4);
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
