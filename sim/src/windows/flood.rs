//! Drivers that hold thousands of small blocks.

use kd_protocol::VirtAddr;

use super::growth;
use super::kernel::{Kernel, Site};
use super::pool::trackers;
use super::pool_account::Pool;
use super::pool_log::Event;
use super::processes::LEAKING_THREAD;
use super::verified::{Driver, MYFAULT, NETFILT, STORFILT};
use super::verifier::advanced::{self, Tracked};
use super::verifier::{self, Allocation};
use crate::paging::Access;
use crate::physical::PAGE_SIZE;

/// What a driver allocates.
struct Habit {
    driver: &'static Driver,
    pool: Pool,
    tag: [u8; 4],
    /// First of its blocks.
    start: VirtAddr,
    /// Call stack of its allocations, innermost first; the first of its own routines is the caller.
    stack: &'static [Site],
}

static HABITS: [Habit; 3] = [
    Habit {
        driver: &MYFAULT,
        pool: Pool::NonPaged,
        tag: *b"Leak",
        start: VirtAddr(0xffff_fa80_7000_0000),
        stack: &[
            ("nt", "VeAllocatePoolWithTagPriority", 0x2b6),
            ("nt", "VerifierExAllocatePoolEx", 0x1d),
            ("myfault", "MyfaultDeviceControl", 0x1c4),
            ("myfault", "MyfaultDispatch", 0xb7),
            ("nt", "IovCallDriver", 0xa0),
            ("nt", "IopXxxControlFile", 0x607),
            ("nt", "NtDeviceIoControlFile", 0x56),
            ("nt", "KiSystemServiceCopyEnd", 0x13),
        ],
    },
    Habit {
        driver: &NETFILT,
        pool: Pool::NonPaged,
        tag: *b"NfFl",
        start: VirtAddr(0xffff_fa80_7200_0000),
        stack: &[
            ("nt", "VeAllocatePoolWithTagPriority", 0x2b6),
            ("nt", "VerifierExAllocatePoolEx", 0x1d),
            ("netfilt", "FlowCreate", 0x5c),
            ("netfilt", "FilterSendNetBufferLists", 0x1b2),
            ("ndis", "NdisMSendNetBufferListsComplete", 0x41),
            ("nt", "KiRetireDpcList", 0x1bc),
            ("nt", "KiIdleLoop", 0x5a),
        ],
    },
    Habit {
        driver: &STORFILT,
        pool: Pool::Paged,
        tag: *b"StNm",
        start: VirtAddr(0xffff_f8a0_1000_0000),
        stack: &[
            ("nt", "VeAllocatePoolWithTagPriority", 0x2b6),
            ("nt", "VerifierExAllocatePoolEx", 0x1d),
            ("storfilt", "StorNameCacheInsert", 0x84),
            ("storfilt", "StorPostCreate", 0xfe),
            ("nt", "NtCreateFile", 0x78),
            ("nt", "KiSystemServiceCopyEnd", 0x13),
        ],
    },
];

/// Bytes of a pool header, which is in front of each block and rounds its size.
const HEADER: u64 = 0x10;
/// Driver Verifier keeps a pointer to the tracker in the last bytes of each block.
const TRACKER_POINTER: u64 = 8;
/// Blocks whose allocation is still in the log.
const LOGGED: usize = 1500;
/// How many events lie between two of these allocations.
const BETWEEN: u32 = 41;

/// Lets three drivers take so many blocks. Returns the newest allocations, each with how many events ago it was.
pub(super) fn until_first_stop(kernel: &mut Kernel, blocks: usize) -> Vec<(u32, Event)> {
    let mut taken = Vec::new();
    for (number, habit) in HABITS.iter().enumerate() {
        let share = blocks / HABITS.len() + usize::from(number < blocks % HABITS.len());
        taken.push(take(kernel, habit, share));
    }
    log(&mut taken)
}

/// Lets one driver take so many blocks.
pub(super) fn of_one(kernel: &mut Kernel, driver: &Driver, blocks: usize) -> Vec<(u32, Event)> {
    let taken = take(kernel, habit_of(driver), blocks);
    log(&mut [taken])
}

/// Lets one driver take so many blocks, of which a kernel with advanced pool tracking keeps account.
pub(super) fn of_one_in_the_tree(kernel: &mut Kernel, driver: &Driver, blocks: usize) -> Vec<(u32, Event)> {
    let habit = habit_of(driver);
    let (allocations, events) = map_blocks(kernel, habit, blocks);
    let bytes = allocations.iter().map(|allocation| allocation.size + HEADER).sum();
    trackers::charge(kernel, habit.tag, habit.pool, blocks as u64, bytes);
    let tracked = allocations.iter().zip(&events).map(|(allocation, event)| Tracked {
        address: event.address,
        size: event.size,
        tag: habit.tag,
        nonpaged: allocation.pool == Pool::NonPaged,
        stack: event.stack.clone(),
    });
    advanced::track(kernel, &tracked.collect::<Vec<_>>());
    log(&mut [events])
}

fn habit_of(driver: &Driver) -> &'static Habit {
    HABITS.iter().find(|habit| habit.driver.module == driver.module).expect("each has a habit")
}

/// The newest allocations of all drivers, which took turns.
fn log(taken: &mut [Vec<Event>]) -> Vec<(u32, Event)> {
    let mut events = Vec::new();
    let mut age = 7;
    while events.len() < LOGGED && taken.iter().any(|events| !events.is_empty()) {
        for newest in taken.iter_mut().filter_map(Vec::pop) {
            events.push((age, newest));
            age += BETWEEN;
        }
    }
    events
}

/// Takes blocks one behind the other, and returns their allocations, the oldest first.
fn take(kernel: &mut Kernel, habit: &Habit, blocks: usize) -> Vec<Event> {
    let (allocations, events) = map_blocks(kernel, habit, blocks);
    let slots = verifier::allocated_many(kernel, habit.driver, &allocations);
    assert_eq!(slots.len(), blocks, "a driver has room for its trackers");
    for (allocation, slot) in allocations.iter().zip(slots) {
        kernel.write_u64(allocation.address.offset(allocation.size - TRACKER_POINTER), slot.0.0);
    }
    events
}

/// Blocks one behind the other, as the pool gives them out and as the log has them; the oldest first.
fn map_blocks(kernel: &mut Kernel, habit: &Habit, blocks: usize) -> (Vec<Allocation>, Vec<Event>) {
    let stack = kernel.stack(habit.stack);
    let own = habit.stack.iter().find(|(module, ..)| *module == habit.driver.module);
    let (module, routine, displacement) = own.expect("a driver's stack goes through it");
    let caller = kernel.address_in(module, routine, *displacement);
    let mut at = habit.start.offset(HEADER);
    let (mut allocations, mut events) = (Vec::with_capacity(blocks), Vec::with_capacity(blocks));
    for number in 0..blocks as u64 {
        // 0x18 to 0x3d1 bytes, in no order.
        let request = 0x18 + number * 0x9d % 0x3ba;
        let size = (request + TRACKER_POINTER).next_multiple_of(HEADER);
        allocations.push(Allocation {
            pool: habit.pool,
            address: at,
            size,
            caller,
            tag: Some(habit.tag),
            is_special: false,
        });
        events.push(Event { address: at, size: request, thread: LEAKING_THREAD, stack: stack.clone() });
        at = at.offset(size + HEADER);
    }
    kernel.map(habit.start..at, Access::Write);
    (allocations, events)
}

/// Gives the further drivers that are verified what they hold: none, one or two blocks each.
pub(super) fn of_further(kernel: &mut Kernel) {
    for (number, driver) in growth::DRIVERS[..kernel.growth.verified()].iter().enumerate() {
        let caller = VirtAddr(kernel.image(driver.module).base + 0x1100);
        for block in 0..number % 3 {
            let address = VirtAddr(growth::BLOCKS + number as u64 * PAGE_SIZE + block as u64 * 0x400 + 0x10);
            kernel.pool_block(address, 0x200, b"Grow");
            let allocation = Allocation {
                pool: Pool::NonPaged,
                address,
                size: 0x200,
                caller,
                tag: Some(*b"Grow"),
                is_special: false,
            };
            verifier::allocated(kernel, driver, &allocation).expect("the first page of trackers fits");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::kernel::assert_sites_lie_in_their_routines;

    #[test]
    fn call_stacks_lie_in_their_routines() {
        assert_sites_lie_in_their_routines(HABITS.iter().flat_map(|habit| habit.stack));
    }
}
