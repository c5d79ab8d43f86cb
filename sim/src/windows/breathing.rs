//! A driver at work: it takes small blocks and gives them back, some sooner and some later, and holds some dozens at any
//! time. What it holds goes up and down and does not grow.

use std::time::Duration;

use kd_protocol::VirtAddr;

use super::debug_registers::DebugRegisters;
use super::kernel::{Kernel, Site};
use super::place::Place;
use super::pool::hit::{Hits, Use};
use super::pool_account::Pool;
use super::pool_log::{self, Event};
use super::processes::LEAKING_THREAD;
use super::processors;
use super::verified::MYFAULT;
use super::verifier::{self, Allocation, Slot};

/// The tag of its blocks.
const TAG: [u8; 4] = *b"Busy";
/// How often it does something.
const EVERY: Duration = Duration::from_millis(10);
/// Blocks that it holds: the more, the likelier it gives one back.
const USUAL: usize = 80;
/// Its blocks lie here, each in a cell of its own, and a cell is used again and again.
const CELLS: u64 = 256;
const CELL: u64 = 0x400;
const START: VirtAddr = VirtAddr(0xffff_f8a0_02c0_0010);

const TAKES: &[Site] = &[
    ("nt", "VeAllocatePoolWithTagPriority", 0x2b6),
    ("nt", "VerifierExAllocatePoolEx", 0x1d),
    ("myfault", "MyfaultDispatch", 0xb7),
    ("nt", "IovCallDriver", 0xa0),
    ("nt", "IopXxxControlFile", 0x607),
    ("nt", "NtDeviceIoControlFile", 0x56),
    ("nt", "KiSystemServiceCopyEnd", 0x13),
];

const GIVES_BACK: &[Site] = &[
    ("nt", "ExFreePoolWithTag", 0x22c),
    ("myfault", "MyfaultDispatch", 0xe4),
    ("nt", "IovCallDriver", 0xa0),
    ("nt", "IopXxxControlFile", 0x607),
    ("nt", "NtDeviceIoControlFile", 0x56),
    ("nt", "KiSystemServiceCopyEnd", 0x13),
];

/// What it holds, and how far it has come.
#[derive(Clone, Debug)]
pub(super) struct Breathing {
    random: fastrand::Rng,
    live: Vec<Held>,
    /// Machine time up to which its work is done.
    until: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    address: VirtAddr,
    size: u64,
    slot: Slot,
}

impl Breathing {
    pub(super) const fn new(random: fastrand::Rng) -> Self {
        Self { random, live: Vec::new(), until: Duration::ZERO }
    }

    /// When it does something next.
    pub(super) fn due(&self) -> Duration {
        self.until + EVERY
    }

    /// Does what is due at `now`: as many blocks a second as the machine's [`Growth`](super::Growth) says are taken, and as
    /// many given back.
    pub(super) fn work(
        &mut self,
        kernel: &mut Kernel,
        now: Duration,
        hits: &mut Hits,
        registers: &mut DebugRegisters,
    ) {
        let a_second = 2 * u64::from(kernel.growth.busy);
        let done = |at: Duration| at.as_millis() as u64 * a_second / 1000;
        for _ in done(self.until)..done(now) {
            if self.live.is_empty() || self.random.usize(0..2 * USUAL) >= self.live.len() + USUAL / 2 {
                self.take(kernel, hits, registers);
            } else {
                self.give_back(kernel, hits, registers);
            }
        }
        self.until = now;
    }

    fn take(&mut self, kernel: &mut Kernel, hits: &mut Hits, registers: &mut DebugRegisters) {
        let Self { random, live, .. } = self;
        let is_free = |address: &VirtAddr| live.iter().all(|held| held.address != *address);
        let cells = std::iter::repeat_with(|| START.offset(random.u64(0..CELLS) * CELL));
        let Some(address) = cells.take(1000).find(is_free) else { return };
        let size = (self.random.u64(1..0x38) + 1) * 0x10;
        let caller = kernel.address_in("myfault", "MyfaultDispatch", 0xb7);
        let allocation =
            Allocation { pool: Pool::Paged, address, size, caller, tag: Some(TAG), is_special: false };
        // A debugger may have spoiled the lists: then there is no room, and the driver goes without.
        let Some(slot) = verifier::allocated(kernel, &MYFAULT, &allocation) else { return };
        self.live.push(Held { address, size, slot });
        let stack = kernel.stack(TAKES);
        let used = Use { given: size - 8, ..usage(kernel, address, false, &stack) };
        pool_log::append(kernel, &Event { address, size: size - 8, thread: LEAKING_THREAD, stack });
        hits.note(kernel, registers, || used, TAG);
    }

    fn give_back(&mut self, kernel: &mut Kernel, hits: &mut Hits, registers: &mut DebugRegisters) {
        let Held { address, size, slot } = self.live.swap_remove(self.random.usize(0..self.live.len()));
        verifier::freed(kernel, &MYFAULT, Pool::Paged, slot);
        let stack = kernel.stack(GIVES_BACK);
        let used = usage(kernel, address, true, &stack[1..]);
        pool_log::append(kernel, &Event { address, size, thread: LEAKING_THREAD, stack });
        hits.note(kernel, registers, || used, TAG);
    }
}

/// A block of its, at an address that chooses the processor.
fn usage(kernel: &Kernel, address: VirtAddr, is_free: bool, callers: &[VirtAddr]) -> Use {
    Use {
        tag: TAG,
        is_free,
        given: address.0,
        block: address,
        processor: (address.0 / CELL) as usize % processors::count(kernel),
        thread: Some(LEAKING_THREAD),
        callers: callers.to_vec(),
        user: Place::USER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::kernel::assert_sites_lie_in_their_routines;

    #[test]
    fn call_stacks_lie_in_their_routines() {
        assert_sites_lie_in_their_routines(TAKES.iter().chain(GIVES_BACK));
    }
}
