//! Records that are not as they should be: caught half-written, or overwritten by a bug.
//!
//! Both are met on real machines: a debugger stops a machine at any instruction, and the drivers one looks for write where
//! they should not.

use fastrand::Rng;
use kd_protocol::VirtAddr;

use super::kernel::Kernel;
use super::pool::trackers;
use super::verified::{Driver, MYFAULT, NETFILT, STORFILT};
use super::{modules, pool_log};
use crate::physical::PAGE_SIZE;

const DATA: &str = "_VF_TARGET_VERIFIED_DRIVER_DATA";
const PAGE: &str = "_VI_POOL_PAGE_HEADER";
const ENTRY: &str = "_VI_POOL_ENTRY";
const SUSPECT: &str = "_VF_SUSPECT_DRIVER_ENTRY";
const TRACE: &str = "_VF_POOL_TRACE";
/// Bytes of a tracker.
const SLOT_SIZE: u64 = 0x20;

/// Leaves an allocation of myfault.sys unfinished: its tracker is taken off the free list but not filled, it is counted, and
/// the record of it in the log is new up to some step, and as the slot's former one after it.
///
/// ```text
///  seed % 4   0, 1  address, size and one frame of the stack
///                2  nothing: the slot is taken, no more
///                3  address and size, an odd one
/// ```
pub(super) fn tear(kernel: &mut Kernel, seed: u64) {
    let data = MYFAULT.data;
    let free = VirtAddr(kernel.get(data, DATA, "PoolTrackers.HeaderX64.NextEntry") << 4);
    let next = kernel.read_u64(free);
    kernel.set(data, DATA, "PoolTrackers.HeaderX64.NextEntry", next >> 4);
    kernel.add(data, DATA, "PoolTrackers.HeaderX64.Depth", -1);
    kernel.add(data, DATA, "CurrentNonPagedPoolAllocations", 1);
    // The newest finished block still has the mark that a tracker has while its block is being made.
    let newest = free.offset(SLOT_SIZE);
    let address = kernel.get(newest, ENTRY, "InUse.VirtualAddress");
    kernel.set(newest, ENTRY, "InUse.VirtualAddress", address | 1);

    let record = pool_log::advance(kernel);
    let size = match seed % 4 {
        2 => return,
        3 => 0x31,
        _ => 0xf_a000,
    };
    kernel.set_all(record, TRACE, &[("Address", 0xffff_fa80_054f_b000), ("Size", size)]);
    if size != 0xf_a000 {
        return;
    }
    let frame = kernel.address_in("nt", "VeAllocatePoolWithTagPriority", 0x2b6);
    let stack = record.offset(kernel.offset_of(TRACE, "StackTrace"));
    kernel.write_u64(stack, frame.0);
}

/// Leaves the tables of pool tags while the kernel makes room for more of them.
///
/// ```text
///  seed % 2   0  the table of tags that found no room has its new size, and is where the smaller one was
///             1  the size of the other tables is that of larger ones, and the mask of their hash is still the old one
/// ```
pub(super) fn tear_trackers(kernel: &mut Kernel, seed: u64) {
    trackers::expand(kernel);
    let variable = match seed % 2 {
        0 => ("PoolTrackTableExpansionSize", 4 * trackers::EXPANSION_ENTRIES, 8),
        _ => ("PoolTrackTableSize", 2 * trackers::ENTRIES - 1, 8),
    };
    kernel.write_variables(&[variable]);
    if seed.is_multiple_of(2) {
        trackers::fill_expansion(kernel);
    }
}

/// One way of spoiling records.
type Damage = fn(&mut Kernel, &mut Rng);

/// Ways of spoiling records, of which a seed chooses some.
const DAMAGES: &[Damage] = &[
    page_signature,
    page_of_another_driver,
    page_cycle,
    page_nowhere,
    page_unmapped,
    free_list_cycle,
    depth,
    counters,
    trackers,
    data_signature,
    name_length,
    suspect_cycle,
    tree_cycle,
    tree_nowhere,
    log_records,
    log_stacks,
    module_list,
    module_name,
];

/// Spoils records of three verified drivers in about half of all known ways.
pub(super) fn corrupt(kernel: &mut Kernel, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut spoilt = false;
    for damage in DAMAGES {
        if rng.bool() {
            damage(kernel, &mut rng);
            spoilt = true;
        }
    }
    if !spoilt {
        page_signature(kernel, &mut rng);
    }
}

fn page_signature(kernel: &mut Kernel, rng: &mut Rng) {
    let page = page(kernel, &MYFAULT, 1);
    kernel.set(page, PAGE, "Signature", rng.u64(..));
}

fn page_of_another_driver(kernel: &mut Kernel, _: &mut Rng) {
    let page = page(kernel, &NETFILT, 2);
    kernel.set(page, PAGE, "VerifierEntry", STORFILT.data.0);
}

fn page_cycle(kernel: &mut Kernel, _: &mut Rng) {
    let (first, third) = (page(kernel, &STORFILT, 0), page(kernel, &STORFILT, 2));
    kernel.write_u64(third, first.0);
}

fn page_nowhere(kernel: &mut Kernel, rng: &mut Rng) {
    let page = page(kernel, &NETFILT, 3);
    let wild = wild(rng);
    kernel.write_u64(page, wild);
}

fn page_unmapped(kernel: &mut Kernel, _: &mut Rng) {
    let page = page(kernel, &STORFILT, 4);
    kernel.memory.unmap(page);
}

fn free_list_cycle(kernel: &mut Kernel, rng: &mut Rng) {
    let free = VirtAddr(kernel.get(NETFILT.data, DATA, "PoolTrackers.HeaderX64.NextEntry") << 4);
    let next = if rng.bool() { free.0 } else { wild(rng) };
    kernel.write_u64(free, next);
}

fn depth(kernel: &mut Kernel, rng: &mut Rng) {
    let list = if rng.bool() { "PoolPageHeaders" } else { "PoolTrackers" };
    let depth = rng.u64(..0x1_0000);
    kernel.set(MYFAULT.data, DATA, &format!("{list}.HeaderX64.Depth"), depth);
}

fn counters(kernel: &mut Kernel, rng: &mut Rng) {
    let fields = [
        ("CurrentPagedPoolAllocations", rng.u32(..).into()),
        ("NonPagedBytes", rng.u64(..)),
        ("PeakNonPagedBytes", rng.u64(..)),
    ];
    kernel.set_all(STORFILT.data, DATA, &fields);
}

/// Overwrites trackers here and there: addresses of nothing, absurd lengths, tags that are no characters.
fn trackers(kernel: &mut Kernel, rng: &mut Rng) {
    let page = page(kernel, &MYFAULT, 0);
    for _ in 0..8 {
        let slot = page.offset(rng.u64(1..PAGE_SIZE / SLOT_SIZE) * SLOT_SIZE);
        match rng.u8(..3) {
            0 => kernel.set(slot, ENTRY, "InUse.VirtualAddress", wild(rng)),
            1 => kernel.set(slot, ENTRY, "InUse.NumberOfBytes", u64::MAX - 1),
            _ => kernel.set(slot, ENTRY, "InUse.Tag", 0x1b07_000a),
        }
    }
}

fn data_signature(kernel: &mut Kernel, rng: &mut Rng) {
    kernel.set(NETFILT.data, DATA, "Signature", rng.u64(..));
}

fn name_length(kernel: &mut Kernel, rng: &mut Rng) {
    kernel.set(NETFILT.suspect, SUSPECT, "BaseName.Length", 0xffff);
    if rng.bool() {
        kernel.set(NETFILT.suspect, SUSPECT, "BaseName.Buffer", wild(rng));
    }
}

fn suspect_cycle(kernel: &mut Kernel, rng: &mut Rng) {
    let next = if rng.bool() { NETFILT.suspect.0 } else { wild(rng) };
    kernel.set(STORFILT.suspect, SUSPECT, "Links.Flink", next);
}

fn tree_cycle(kernel: &mut Kernel, _: &mut Rng) {
    let node = node(kernel, &STORFILT);
    kernel.set(node, "_RTL_BALANCED_LINKS", "LeftChild", node.0);
}

fn tree_nowhere(kernel: &mut Kernel, rng: &mut Rng) {
    let node = node(kernel, &NETFILT);
    let wild = wild(rng);
    kernel.set(node, "_RTL_BALANCED_LINKS", "RightChild", wild);
}

/// Overwrites records of the log: absurd sizes, addresses of nothing.
fn log_records(kernel: &mut Kernel, rng: &mut Rng) {
    for _ in 0..64 {
        let record = log_record(kernel, rng);
        let fields = [("Address", wild(rng)), ("Size", if rng.bool() { u64::MAX } else { rng.u64(..) })];
        kernel.set_all(record, TRACE, &fields);
    }
}

/// Overwrites call stacks of the log, to their last frame.
fn log_stacks(kernel: &mut Kernel, rng: &mut Rng) {
    let (start, end) = (kernel.offset_of(TRACE, "StackTrace"), kernel.size_of(TRACE));
    for _ in 0..64 {
        let record = log_record(kernel, rng);
        let mut stack = vec![0; usize::try_from(end - start).unwrap_or(0)];
        rng.fill(&mut stack);
        kernel.write(record.offset(start), &stack);
    }
}

fn module_list(kernel: &mut Kernel, rng: &mut Rng) {
    let last = modules::entry_of(kernel, "storfilt");
    let next = if rng.bool() { modules::entry_of(kernel, "hal").0 } else { wild(rng) };
    kernel.write_u64(last, next);
}

fn module_name(kernel: &mut Kernel, rng: &mut Rng) {
    let entry = modules::entry_of(kernel, "ndis");
    let aggregate = kernel.first_of(&modules::ENTRY);
    let buffer = wild(rng);
    kernel.set_all(entry, aggregate, &[("BaseDllName.Length", 0xfffe), ("BaseDllName.Buffer", buffer)]);
    kernel.set(entry, aggregate, "SizeOfImage", 0xffff_ffff);
}

/// A driver's page of trackers, counted from the newest; the last one if there are not as many.
fn page(kernel: &Kernel, driver: &Driver, number: usize) -> VirtAddr {
    let mut page = VirtAddr(kernel.get(driver.data, DATA, "PoolPageHeaders.HeaderX64.NextEntry") << 4);
    for _ in 0..number {
        match kernel.get(page, PAGE, "NextPage") {
            0 => break,
            next => page = VirtAddr(next),
        }
    }
    page
}

/// A driver's node in the tree.
fn node(kernel: &Kernel, driver: &Driver) -> VirtAddr {
    VirtAddr(driver.entry.0 - kernel.size_of("_RTL_BALANCED_LINKS"))
}

/// A record of the log, any.
fn log_record(kernel: &Kernel, rng: &mut Rng) -> VirtAddr {
    let length = kernel.read_u32(kernel.symbol("VfPoolTracesLength"));
    let ring = VirtAddr(kernel.read_u64(kernel.symbol("VfPoolTraces")));
    ring.offset(rng.u64(..u64::from(length)) * kernel.size_of(TRACE))
}

/// A pointer to nothing: null, not canonical, not aligned, text, or of user mode.
fn wild(rng: &mut Rng) -> u64 {
    match rng.u8(..6) {
        0 => 0,
        1 => 0x4141_4141_4141_4141,
        2 => 0xffff_fa80_0000_0003,
        3 => u64::MAX,
        4 => 0x7ff_1234_5678,
        _ => rng.u64(..),
    }
}
