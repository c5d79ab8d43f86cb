//! myfault.sys leaking: blocks of nonpaged pool that it asks for and never frees, as the published case has them.

use kd_protocol::VirtAddr;

use super::growth::Growth;
use super::kernel::{Kernel, Site, span};
use super::place::Place;
use super::pool::hit::Use;
use super::pool::{big, trackers};
use super::pool_account::Pool;
use super::pool_log::{self, Event};
use super::processes::LEAKING_THREAD;
use super::processors;
use super::verified::{MYFAULT, NONPAGED_POOL_SIZE, NONPAGED_POOL_START, Tracking};
use super::verifier::advanced::{self, Tracked};
use super::verifier::{self, Allocation, Slot};
use crate::paging::Access;
use crate::physical::PAGE_SIZE;

/// Bytes that the driver asks for each time.
pub(super) const REQUEST: u64 = 0xf_a000;
/// Bytes that it gets: with the eight that Driver Verifier adds, and whole pages.
pub(super) const BLOCK: u64 = (REQUEST + TRACKER_POINTER).next_multiple_of(PAGE_SIZE);
/// Driver Verifier keeps a pointer to the tracker in the last bytes of each block.
const TRACKER_POINTER: u64 = 8;
/// Blocks that were leaked when the machine is first stopped.
pub(super) const BLOCKS_AT_FIRST_STOP: u64 = 10;

/// The leak's call stacks, innermost first; the first is that of the blocks before the first stop.
const STACKS: [&[Site]; Growth::MOST_CALLERS as usize] = [STACK, ROUTINE_STACK, PACKET_STACK];

/// A program's request.
const STACK: &[Site] = &[
    ("nt", "VeAllocatePoolWithTagPriority", 0x2b6),
    ("nt", "VerifierExAllocatePoolEx", 0x1d),
    ("myfault", "MyfaultDeviceControl", 0x358),
    ("myfault", "MyfaultDispatch", 0xb7),
    ("nt", "IovCallDriver", 0xa0),
    ("nt", "IopXxxControlFile", 0x607),
    ("nt", "NtDeviceIoControlFile", 0x56),
    ("nt", "KiSystemServiceCopyEnd", 0x13),
];

/// Another request of the program's.
const ROUTINE_STACK: &[Site] = &[
    ("nt", "VeAllocatePoolWithTagPriority", 0x2b6),
    ("nt", "VerifierExAllocatePool", 0x1c),
    ("myfault", "MyfaultLeakPool", 0x4b),
    ("myfault", "MyfaultDispatch", 0xd2),
    ("nt", "IovCallDriver", 0xa0),
    ("nt", "IopXxxControlFile", 0x607),
    ("nt", "NtDeviceIoControlFile", 0x56),
    ("nt", "KiSystemServiceCopyEnd", 0x13),
];

/// A deferred call that has interrupted the idle loop.
const PACKET_STACK: &[Site] = &[
    ("nt", "VeAllocatePoolWithTagPriority", 0x2b6),
    ("nt", "VerifierExAllocatePoolEx", 0x1d),
    ("myfault", "MyfaultLeakPool", 0x76),
    ("nt", "KiRetireDpcList", 0x1bc),
    ("nt", "KiDpcInterrupt", 0x16d),
    ("hal", "HalProcessorIdle", 0x9),
    ("nt", "KiIdleLoop", 0x10d),
];

/// The stack of the driver's small allocation when it was loaded.
const LOAD_STACK: &[Site] = &[
    ("nt", "VeAllocatePoolWithTagPriority", 0x2b6),
    ("nt", "VerifierExAllocatePool", 0x1c),
    ("myfault", "DriverEntry", 0x3c),
    ("nt", "IopLoadDriver", 0xa07),
    ("nt", "IopLoadUnloadDriver", 0x55),
    ("nt", "ExpWorkerThread", 0x111),
    ("nt", "PspSystemThreadStartup", 0x5a),
    ("nt", "KxStartSystemThread", 0x16),
];

/// The stack of the driver's frees when it is unloaded.
const UNLOAD_STACK: &[Site] = &[
    ("nt", "ExFreePoolWithTag", 0x22c),
    ("myfault", "MyfaultUnload", 0x5a),
    ("nt", "IopLoadUnloadDriver", 0x1b),
    ("nt", "ExpWorkerThread", 0x111),
    ("nt", "PspSystemThreadStartup", 0x5a),
    ("nt", "KxStartSystemThread", 0x16),
];

/// System's worker thread, which loads and unloads drivers.
const WORKER_THREAD: VirtAddr = VirtAddr(0xffff_fa80_036c_76b0);

/// Brings the machine to where it is first stopped: the driver was loaded, and has leaked ten blocks. Returns what is to be
/// logged, each with how many events ago it was.
pub(super) fn until_first_stop(kernel: &mut Kernel, tracking: Tracking) -> Vec<(u32, Event)> {
    if tracking == Tracking::List {
        return until_blocks_are_leaked(kernel).0;
    }
    for number in 0..BLOCKS_AT_FIRST_STOP {
        let block = map_block(kernel, number).expect("RAM and pool hold the first blocks");
        charge(kernel, block);
    }
    if tracking == Tracking::None {
        return Vec::new();
    }
    let blocks: Vec<_> = (0..BLOCKS_AT_FIRST_STOP).map(|number| tracked(kernel, number)).collect();
    advanced::track(kernel, &blocks);
    (0..BLOCKS_AT_FIRST_STOP).map(|number| (age(number), event(kernel, number))).collect()
}

/// Brings the machine to where the driver, which had leaked ten blocks, has freed them and was unloaded.
pub(super) fn until_unloaded(kernel: &mut Kernel) -> Vec<(u32, Event)> {
    let (mut events, slots) = until_blocks_are_leaked(kernel);
    // Half as long ago as the newest was leaked, one behind the other.
    let age_of_last = NEWEST / 2;
    for (number, slot) in (0..).zip(slots) {
        verifier::freed(kernel, &MYFAULT, Pool::NonPaged, slot);
        let stack = kernel.stack(UNLOAD_STACK);
        let freed = Event { address: block_address(number), size: BLOCK, thread: WORKER_THREAD, stack };
        events.push((age_of_last + (BLOCKS_AT_FIRST_STOP - 1 - number) as u32, freed));
    }
    events
}

/// How many events ago the driver was loaded, how many the newest block was leaked, and how many lie between blocks.
const LOADED: u32 = 0x3a11;
const NEWEST: u32 = 0x11c;
const BETWEEN: u32 = 0x34d;

fn until_blocks_are_leaked(kernel: &mut Kernel) -> (Vec<(u32, Event)>, Vec<Slot>) {
    // Loading, the driver takes a small paged block without a tag and frees it: the peak counters remember.
    let caller = kernel.address_in("myfault", "DriverEntry", 0x3c);
    let paged = VirtAddr(0xffff_f8a0_02b3_cf80);
    let small =
        Allocation { pool: Pool::Paged, address: paged, size: 0x80, caller, tag: None, is_special: false };
    let slot = verifier::allocated(kernel, &MYFAULT, &small).expect("the first page of trackers fits");
    verifier::freed(kernel, &MYFAULT, Pool::Paged, slot);
    let load = Event { address: paged, size: 0x70, thread: WORKER_THREAD, stack: kernel.stack(LOAD_STACK) };
    let mut events = vec![(LOADED, load)];
    let mut slots = Vec::new();
    for number in 0..BLOCKS_AT_FIRST_STOP {
        let (_, slot) = take_block(kernel, number).expect("RAM and pool hold the first blocks");
        events.push((age(number), event(kernel, number)));
        slots.push(slot);
    }
    (events, slots)
}

/// Leaks one more block: the `number`th, counted from 0. Returns its address, or `None` if the pool has no more room.
pub(super) fn leak(kernel: &mut Kernel, number: u64, tracking: Tracking) -> Option<VirtAddr> {
    let block = match tracking {
        Tracking::None => return map_block(kernel, number).inspect(|block| charge(kernel, *block)),
        Tracking::List => take_block(kernel, number).map(|(address, _)| address),
        Tracking::Tree => map_block(kernel, number).inspect(|block| {
            charge(kernel, *block);
            let block = tracked(kernel, number);
            advanced::track(kernel, &[block]);
        }),
    };
    // Windows logs a failed allocation as well, with address 0.
    let event = Event { address: block.unwrap_or_default(), ..event(kernel, number) };
    pool_log::append(kernel, &event);
    block
}

/// Allocations and frees of the newest leaked block's address before it was leaked, the oldest first: by the driver, which
/// frees what it leaks no more.
pub(super) fn reuse(kernel: &Kernel, times: u32) -> Vec<Event> {
    let newest = BLOCKS_AT_FIRST_STOP - 1;
    let frees = kernel.stack(UNLOAD_STACK);
    let pair = |_| {
        let allocated = event(kernel, newest);
        let freed = Event { size: BLOCK, thread: WORKER_THREAD, stack: frees.clone(), ..allocated.clone() };
        [allocated, freed]
    };
    (0..times).flat_map(pair).collect()
}

fn take_block(kernel: &mut Kernel, number: u64) -> Option<(VirtAddr, Slot)> {
    let Some(address) = map_block(kernel, number) else {
        verifier::failed(kernel, &MYFAULT);
        return None;
    };
    let allocation = Allocation {
        pool: Pool::NonPaged,
        address,
        size: BLOCK,
        caller: caller(kernel, number),
        tag: Some(*b"Leak"),
        is_special: false,
    };
    let slot = verifier::allocated(kernel, &MYFAULT, &allocation)?;
    kernel.write_u64(address.offset(BLOCK - TRACKER_POINTER), slot.0.0);
    Some((address, slot))
}

/// Has the pool count a block of which Driver Verifier keeps no list.
fn charge(kernel: &mut Kernel, block: VirtAddr) {
    trackers::charge(kernel, *b"Leak", Pool::NonPaged, 1, BLOCK);
    big::insert(kernel, block, *b"Leak", Pool::NonPaged, BLOCK);
}

/// Finds room for a block; `None` if the pool has no more.
fn map_block(kernel: &mut Kernel, number: u64) -> Option<VirtAddr> {
    let address = block_address(number);
    let end_of_pool = NONPAGED_POOL_START.offset(NONPAGED_POOL_SIZE);
    // Trackers and page tables need pages as well; a pool that used the last page would leave none for anything else.
    let pages_needed = BLOCK / PAGE_SIZE + 4;
    let room = address.offset(BLOCK) <= end_of_pool && kernel.memory.free_pages() > pages_needed;
    let mapped = room && kernel.memory.map(span(address, BLOCK), Access::Write).is_ok();
    mapped.then_some(address)
}

/// Where the `number`th block lies: the first fills a gap, then two in every 2 MiB.
fn block_address(number: u64) -> VirtAddr {
    let Some(pair) = number.checked_sub(1) else { return VirtAddr(0xffff_fa80_04a6_6000) };
    VirtAddr(0xffff_fa80_04c0_0000 + pair / 2 * 0x20_0000 + pair % 2 * BLOCK)
}

/// How many events ago the `number`th block was leaked, at the first stop.
const fn age(number: u64) -> u32 {
    NEWEST + BETWEEN * (BLOCKS_AT_FIRST_STOP - 1 - number) as u32
}

fn tracked(kernel: &Kernel, number: u64) -> Tracked {
    let stack = kernel.stack(path(kernel, number));
    Tracked { address: block_address(number), size: REQUEST, tag: *b"Leak", nonpaged: true, stack }
}

fn event(kernel: &Kernel, number: u64) -> Event {
    let thread = thread(kernel, number);
    Event { address: block_address(number), size: REQUEST, thread, stack: kernel.stack(path(kernel, number)) }
}

/// The `number`th block being leaked, of which the pool takes note.
pub(super) fn usage(kernel: &Kernel, number: u64, block: VirtAddr, tracking: Tracking) -> Use {
    let path = path(kernel, number);
    let of_verifier = path.iter().take_while(|(module, ..)| *module == "nt").count();
    let sites = match tracking {
        Tracking::None => path[of_verifier..].to_vec(),
        Tracking::List | Tracking::Tree => [&[ASKS], &path[1..]].concat(),
    };
    Use {
        tag: *b"Leak",
        is_free: false,
        given: REQUEST,
        block,
        processor: processor(kernel, number),
        thread: Some(thread(kernel, number)),
        callers: kernel.stack(&sites),
        user: Place::USER.filter(|_| path != PACKET_STACK),
    }
}

/// Where Driver Verifier asks the pool for a block, before it takes note of the stack.
const ASKS: Site = ("nt", "VeAllocatePoolWithTagPriority", 0x1e8);

/// The call path by which the `number`th block is leaked.
fn path(kernel: &Kernel, number: u64) -> &'static [Site] {
    if number < BLOCKS_AT_FIRST_STOP {
        return STACK;
    }
    let callers = kernel.growth.callers.clamp(1, Growth::MOST_CALLERS);
    STACKS[(number % u64::from(callers)) as usize]
}

fn caller(kernel: &Kernel, number: u64) -> VirtAddr {
    let in_driver = path(kernel, number).iter().find(|(module, ..)| *module == MYFAULT.module);
    let (module, routine, displacement) = in_driver.expect("the driver is on each of its call paths");
    kernel.address_in(module, routine, *displacement)
}

/// Requests and deferred calls come on any processor.
fn processor(kernel: &Kernel, number: u64) -> usize {
    (number / 2) as usize % processors::count(kernel)
}

fn thread(kernel: &Kernel, number: u64) -> VirtAddr {
    if path(kernel, number) == PACKET_STACK {
        processors::idle_thread(kernel, processor(kernel, number))
    } else {
        LEAKING_THREAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::kernel::assert_sites_lie_in_their_routines;

    #[test]
    fn call_stacks_lie_in_their_routines() {
        let leaks = STACKS.iter().flat_map(|stack| *stack).chain(&[ASKS]);
        assert_sites_lie_in_their_routines(leaks.chain(LOAD_STACK).chain(UNLOAD_STACK));
    }

    #[test]
    fn the_first_blocks_lie_where_the_published_transcript_has_them() {
        let printed = [
            0x0540_0000,
            0x052f_b000,
            0x0520_0000,
            0x050f_b000,
            0x0500_0000,
            0x04ef_b000,
            0x04e0_0000,
            0x04cf_b000,
            0x04c0_0000,
            0x04a6_6000,
        ];
        for (number, low) in (0..BLOCKS_AT_FIRST_STOP).zip(printed.into_iter().rev()) {
            assert_eq!(block_address(number), VirtAddr(0xffff_fa80_0000_0000 + low));
        }
    }
}
