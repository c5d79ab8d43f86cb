//! `nt!PoolHitTag`: the pool stops the machine where somebody allocates or frees a block with the tag that is in it.
//!
//! ```text
//!  ExAllocatePoolWithTag:  cmp tag, [PoolHitTag]    jne    int3    <-- here it stands, whoever called, on any processor
//! ```
//! The instruction is compiled into the kernel; the variable arms it. Source: the variable is in every kernel's public
//! symbols, and WinDbg's documentation says what it is for. \[uncertain: where in its routines the kernel stops, what the
//! variable holds at boot, and that the routine has stored its arguments where its caller leaves room for them\]

use std::collections::VecDeque;

use kd_protocol::VirtAddr;

use crate::windows::debug_registers::DebugRegisters;
use crate::windows::kernel::{Kernel, Site};
use crate::windows::passing::{Pass, Way};
use crate::windows::place::{CallFrame, Place};

/// From there to where the routine has counted what it gave.
const BEHIND: u64 = 0x10;
/// What the variable holds at boot: no tag.
const NONE: u32 = 0xffff_ffff;
/// What a debugger writes that wants no stop any more: `ed nt!PoolHitTag 0`.
const CLEARED: u32 = 0;
/// A tag's bit of protected blocks, with which it is never compared.
const PROTECTED: u32 = 1 << 31;
/// The two instructions.
const ALLOCATED: Site = ("nt", "ExAllocatePoolWithTag", 0x881);
const FREED: Site = ("nt", "ExFreePoolWithTag", 0x1a4);

/// A stop at a block of a tag, as whoever simulates it knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolHit {
    /// In memory order.
    pub tag: [u8; 4],
    /// The block was freed, not allocated.
    pub is_free: bool,
    /// The processor that reported it.
    pub processor: usize,
    /// The thread that it ran.
    pub thread: VirtAddr,
    /// Bytes that were asked for, or the block that was given back.
    pub given: u64,
    /// The block, which the machine has told nobody yet where it is allocated.
    pub block: VirtAddr,
    /// Where each frame goes on, the one that runs first in front.
    pub frames: Vec<VirtAddr>,
}

/// Somebody allocates or frees a block.
#[derive(Clone, Debug)]
pub(in crate::windows) struct Use {
    pub(in crate::windows) tag: [u8; 4],
    pub(in crate::windows) is_free: bool,
    /// Bytes that are asked for, or the block that is given back.
    pub(in crate::windows) given: u64,
    pub(in crate::windows) block: VirtAddr,
    pub(in crate::windows) processor: usize,
    /// The idle thread's if nothing.
    pub(in crate::windows) thread: Option<VirtAddr>,
    /// Callers of the pool's routine.
    pub(in crate::windows) callers: Vec<VirtAddr>,
    pub(in crate::windows) user: Option<CallFrame>,
}

/// What processors come to on the ways of which the machine has not stopped yet.
#[derive(Clone, Debug, Default)]
pub(in crate::windows) struct Hits {
    coming: VecDeque<Coming>,
    /// A debugger's.
    breakpoints: Vec<VirtAddr>,
}

/// Something that may stop a processor.
#[derive(Clone, Debug)]
pub(in crate::windows) enum Coming {
    /// An instruction, if there is a breakpoint.
    Pass(Pass),
    /// A use of a tag, if it is watched for.
    Use(Box<Use>),
    /// A write to what this debug register watches: the processor stands behind it.
    Access(Pass, usize),
}

impl Hits {
    /// Takes note of a use if the machine may have to stop for it, or on the way to it and back.
    pub(in crate::windows) fn note(
        &mut self,
        kernel: &Kernel,
        registers: &mut DebugRegisters,
        used: impl FnOnce() -> Use,
        tag: [u8; 4],
    ) {
        if !self.breakpoints.is_empty() || registers.is_on() {
            let used = used();
            let Use { processor, thread, user, .. } = used;
            let callers = used.callers.clone();
            let way = used.way(kernel);
            self.coming.extend(way.entries(kernel).into_iter().map(Coming::Pass));
            let behind = used.site(kernel).offset(BEHIND);
            self.coming.push_back(Coming::Use(Box::new(used)));
            for register in registers.changed(processor, kernel) {
                let callers = callers.clone();
                let pass = Pass { at: behind, processor, thread, callers, user, result: None, given: None };
                self.coming.push_back(Coming::Access(pass, register));
            }
            self.coming.extend(way.returns().into_iter().map(Coming::Pass));
        } else if is_watched(kernel, tag) {
            let used = used();
            let returns = used.way(kernel).returns();
            self.coming.push_back(Coming::Use(Box::new(used)));
            // A breakpoint may be set there while it stands at the use.
            self.coming.extend(returns.into_iter().map(Coming::Pass));
        }
    }

    /// Takes note of what somebody else wrote to what debug registers watch: the first processor, in the clock's interrupt.
    pub(in crate::windows) fn note_accesses(
        &mut self,
        kernel: &Kernel,
        registers: &mut DebugRegisters,
        place: impl Fn() -> Place,
    ) {
        for register in registers.changed(0, kernel) {
            let Place { stack, user, thread, .. } = place();
            let [at, callers @ ..] = &stack[..] else { continue };
            let callers = callers.to_vec();
            let pass = Pass { at: *at, processor: 0, thread, callers, user, result: None, given: None };
            self.coming.push_back(Coming::Access(pass, register));
        }
    }

    /// Where a debugger has breakpoints from now on.
    pub(in crate::windows) fn set_breakpoints(&mut self, breakpoints: Vec<VirtAddr>) {
        self.breakpoints = breakpoints;
    }

    /// True if the machine may have to stop at any moment.
    pub(in crate::windows) fn has_breakpoints(&self) -> bool {
        !self.breakpoints.is_empty()
    }

    /// True if the machine is to stop before it does anything else.
    pub(in crate::windows) fn is_due(&mut self, kernel: &Kernel, registers: &DebugRegisters) -> bool {
        while let Some(coming) = self.coming.front() {
            let stops = match coming {
                Coming::Pass(pass) => {
                    self.breakpoints.contains(&pass.at)
                        || registers.executed(pass.processor, pass.at).is_some()
                }
                Coming::Access(..) => registers.is_on(),
                // A debugger may have changed its mind.
                Coming::Use(used) => is_watched(kernel, used.tag),
            };
            if stops {
                return true;
            }
            self.coming.pop_front();
        }
        false
    }

    /// What stops it then.
    pub(in crate::windows) fn next(&mut self, kernel: &Kernel, registers: &DebugRegisters) -> Option<Coming> {
        if self.is_due(kernel, registers) { self.coming.pop_front() } else { None }
    }
}

impl Use {
    /// Where the processor stands then.
    pub(in crate::windows) fn place(&self, kernel: &Kernel) -> Place {
        let rip = self.site(kernel);
        let [first, second, third] = self.arguments();
        let (arguments, stack) = (Some([first, second, third, 0]), self.callers.clone());
        Place { rip, rcx: 0, stack, user: self.user, arguments, thread: self.thread }
    }
}

impl Use {
    /// What the pool's routine was given.
    fn arguments(&self) -> [u64; 3] {
        let tag = u64::from(u32::from_le_bytes(self.tag));
        if self.is_free { [self.given, tag, 0] } else { [0, self.given, tag] }
    }

    /// The way to it and back.
    fn way(&self, kernel: &Kernel) -> Way {
        let Self { processor, thread, user, .. } = *self;
        let places = [&[self.site(kernel)], &self.callers[..]].concat();
        let result = (!self.is_free).then_some(self.block.0);
        Way { places, processor, thread, user, result, given: self.arguments() }
    }

    /// The instruction in the pool's routine.
    pub(in crate::windows) fn site(&self, kernel: &Kernel) -> VirtAddr {
        let (module, routine, displacement) = if self.is_free { FREED } else { ALLOCATED };
        kernel.address_in(module, routine, displacement)
    }
}

/// Writes the instructions, and that no tag is watched.
pub(in crate::windows) fn start(kernel: &mut Kernel) {
    const INT3: u8 = 0xcc;
    let Some(variable) = kernel.find_symbol("PoolHitTag") else { return };
    kernel.write_u32(variable, NONE);
    for (module, routine, displacement) in [ALLOCATED, FREED] {
        let at = kernel.address_in(module, routine, displacement);
        kernel.write(at, &[INT3]);
    }
}

/// What the variable holds, unless that is what it held at boot, or 0, with which WinDbg's users clear it, or this kernel has
/// none: no block has either for a tag.
pub(in crate::windows) fn watched(kernel: &Kernel) -> Option<[u8; 4]> {
    let mut tag = [0; 4];
    let is_there = kernel.memory.read(kernel.find_symbol("PoolHitTag")?, &mut tag) == tag.len();
    (is_there && ![NONE, CLEARED].contains(&u32::from_le_bytes(tag))).then_some(tag)
}

fn is_watched(kernel: &Kernel, tag: [u8; 4]) -> bool {
    watched(kernel).is_some_and(|watched| u32::from_le_bytes(watched) == u32::from_le_bytes(tag) & !PROTECTED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::kernel::assert_sites_lie_in_their_routines;

    #[test]
    fn stops_lie_in_their_routines() {
        assert_sites_lie_in_their_routines([ALLOCATED, FREED].iter());
    }
}
