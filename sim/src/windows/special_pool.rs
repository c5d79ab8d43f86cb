//! A driver whose blocks lie in special pool: each at the end of a page of its own, with a page behind it that nobody may
//! touch.
//!
//! ```text
//!  | 0     0x10                      .. 0x1000 - size, aligned |            not mapped           |
//!  | header, pointer to the tracker         the block          |                                 |
//! ```
//! Trackers keep the size that was asked for, which may be odd.

use kd_protocol::VirtAddr;

use super::kernel::{Kernel, Site, span};
use super::pool_account::Pool;
use super::pool_log::Event;
use super::processes::LEAKING_THREAD;
use super::verified::MYFAULT;
use super::verifier::{self, Allocation};
use crate::paging::Access;
use crate::physical::PAGE_SIZE;

/// First page of special pool.
const START: VirtAddr = VirtAddr(0xffff_f980_0100_0000);
/// Where in a block's page the pointer to its tracker is.
const TRACKER_POINTER: u64 = 0x10;
/// Blocks end at multiples of this.
const ALIGNMENT: u64 = 0x10;
/// Sizes asked for, in turn; all fit into a page beside the tracker's address. Every fourth block is paged.
const SIZES: &[u64] = &[0x4, 0x3c, 0x34, 0x1, 0x7f, 0xe59, 0x100, 0x3e5, 0x20, 0xfe0, 0x81, 0x333];
/// Blocks taken.
const BLOCKS: u64 = 0x30;
/// How many events lie between two allocations.
const BETWEEN: u32 = 29;

const STACK: &[Site] = &[
    ("nt", "VeAllocatePoolWithTagPriority", 0x2b6),
    ("nt", "VerifierExAllocatePoolEx", 0x1d),
    ("myfault", "MyfaultDeviceControl", 0x2e1),
    ("myfault", "MyfaultDispatch", 0xb7),
    ("nt", "IovCallDriver", 0xa0),
    ("nt", "IopXxxControlFile", 0x607),
    ("nt", "NtDeviceIoControlFile", 0x56),
    ("nt", "KiSystemServiceCopyEnd", 0x13),
];

/// Lets the driver take its blocks. Returns the allocations, each with how many events ago it was.
pub(super) fn until_first_stop(kernel: &mut Kernel) -> Vec<(u32, Event)> {
    let caller = kernel.address_in("myfault", "MyfaultDeviceControl", 0x2e1);
    let stack = kernel.stack(STACK);
    let mut events = Vec::new();
    for (number, size) in (0..BLOCKS).zip(SIZES.iter().cycle().copied()) {
        let page = START.offset(number * 2 * PAGE_SIZE);
        kernel.map(span(page, PAGE_SIZE), Access::Write);
        let address = page.offset(PAGE_SIZE - size.next_multiple_of(ALIGNMENT));
        let pool = if number % 4 == 3 { Pool::Paged } else { Pool::NonPaged };
        let allocation = Allocation { pool, address, size, caller, tag: Some(*b"MyfC"), is_special: true };
        let slot = verifier::allocated(kernel, &MYFAULT, &allocation).expect("trackers for some blocks");
        kernel.write_u64(page.offset(TRACKER_POINTER), slot.0.0);
        let age = 3 + BETWEEN * (BLOCKS - 1 - number) as u32;
        events.push((age, Event { address, size, thread: LEAKING_THREAD, stack: stack.clone() }));
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::kernel::assert_sites_lie_in_their_routines;

    #[test]
    fn call_stacks_lie_in_their_routines() {
        assert_sites_lie_in_their_routines(STACK);
    }
}
