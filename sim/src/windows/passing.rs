//! Breakpoints in the way of the machine's work: the routines that allocate and free blocks are entered one after another and
//! left again, and a processor that comes to a breakpoint at one of these places stops there.
//!
//! ```text
//!   MyfaultDispatch ->| MyfaultDeviceControl ->| .. ->| ExAllocatePoolWithTag |-> .. |-> MyfaultDispatch+0xb7
//!                     entries, the outermost first                            return addresses, the innermost first
//! ```
//! That is how much of the machine's code is run: a routine's first byte, and where it goes on after a call. What it does there
//! has been done by then. \[uncertain: only that\]

use kd_protocol::VirtAddr;

use super::kernel::Kernel;
use super::place::CallFrame;

/// A processor that comes by an instruction.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    pub(super) at: VirtAddr,
    pub(super) processor: usize,
    /// The idle thread's if nothing.
    pub(super) thread: Option<VirtAddr>,
    /// Where its callers go on, innermost first.
    pub(super) callers: Vec<VirtAddr>,
    pub(super) user: Option<CallFrame>,
    /// What has come back to it, in Rax.
    pub(super) result: Option<u64>,
    /// What the pool's routine is given, in Rcx, Rdx and R8.
    pub(super) given: Option<[u64; 3]>,
}

/// A way into the pool's routine and back.
pub(super) struct Way {
    /// Where it stands in the innermost routine, and where those go on that called, innermost first.
    pub(super) places: Vec<VirtAddr>,
    pub(super) processor: usize,
    pub(super) thread: Option<VirtAddr>,
    pub(super) user: Option<CallFrame>,
    /// What comes back to those that called.
    pub(super) result: Option<u64>,
    /// What the pool's routine is given.
    pub(super) given: [u64; 3],
}

impl Way {
    /// Entries of the routines, the innermost last.
    pub(super) fn entries(&self, kernel: &Kernel) -> Vec<Pass> {
        let enter = |number: usize| {
            let pass = self.pass(kernel.entry_of(self.places[number])?, number + 1);
            Some(Pass { given: (number == 0).then_some(self.given), ..pass })
        };
        (0..self.places.len()).rev().filter_map(enter).collect()
    }

    /// Where those go on that called.
    pub(super) fn returns(&self) -> Vec<Pass> {
        let back = |number: usize| Pass { result: self.result, ..self.pass(self.places[number], number + 1) };
        (1..self.places.len()).map(back).collect()
    }

    /// Comes by `at`, called from the places from that `number` on.
    fn pass(&self, at: VirtAddr, number: usize) -> Pass {
        let Self { processor, thread, user, .. } = *self;
        let callers = self.places[number..].to_vec();
        Pass { at, processor, thread, callers, user, result: None, given: None }
    }
}
