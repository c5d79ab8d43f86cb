//! What calls, interrupts and system calls leave on a stack.
//!
//! ```text
//!  KiIdleLoop  --interrupt-->  KiInterruptDispatch  --call-->  HalpClockInterrupt  --call-->  ..
//!  its prolog                  SS RSP EFLAGS CS RIP, its prolog        return address, its prolog
//! ```
//! Every routine's prolog is carried out, so that who knows the images' tables finds every frame, and every register that
//! frames are found by.

use kd_protocol::VirtAddr;

use super::kernel::Kernel;
use super::layout::{Register, Step};
use super::place::{CallFrame, Place};
use super::segments::{KERNEL_CODE, KERNEL_DATA, USER_CODE, USER_DATA};

/// A processor's registers and the frames on its stack.
pub(super) struct Called {
    /// As instructions number them.
    pub(super) registers: [u64; 16],
    /// The one that runs first.
    pub(super) frames: Vec<CallFrame>,
}

pub(super) const RSP: usize = 4;
/// `EFLAGS` of interrupted code: interrupts are on.
const FLAGS: u64 = 0x246;

/// Lays out the stack of `place` below `top`.
pub(super) fn lay_out(kernel: &mut Kernel, top: VirtAddr, place: &Place, registers: [u64; 16]) -> Called {
    /// More than any stack here takes.
    const LONGEST: u64 = 0x1800;
    let start = VirtAddr(top.0 - LONGEST);
    kernel.write(start, &[0; LONGEST as usize]);
    let mut calls = Calls { kernel, called: Called { registers, frames: Vec::new() } };
    calls.called.registers[RSP] = top.0 - 0x40;
    calls.called.frames.extend(place.user);
    for at in place.stack.iter().rev().copied() {
        calls.enter(at, None);
    }
    calls.enter(place.rip, place.arguments);
    let mut called = calls.called;
    assert!(called.registers[RSP] > start.0, "a stack is longer than {LONGEST:#x} bytes");
    called.frames.reverse();
    called
}

struct Calls<'k> {
    kernel: &'k mut Kernel,
    called: Called,
}

impl Calls<'_> {
    /// The last frame calls, or is interrupted by, the routine that `at` lies in, which has come as far as that. `given` is what
    /// it has stored of its arguments.
    fn enter(&mut self, at: VirtAddr, given: Option<[u64; 4]>) {
        let steps = self.kernel.prolog_at(at);
        let trap = steps.iter().find_map(|step| match step {
            Step::Trap { has_error_code } => Some(*has_error_code),
            _ => None,
        });
        let caller = self.called.frames.last_mut();
        match trap {
            None => {
                let caller = caller.map_or(0, |caller| caller.program_counter.0);
                self.leave_arguments(given);
                self.push(caller);
            }
            Some(has_error_code) => {
                let caller = caller.expect("something is interrupted");
                caller.is_interrupted = true;
                let CallFrame { program_counter, stack_pointer, .. } = *caller;
                let (code, data) = if program_counter.is_kernel() {
                    (KERNEL_CODE, KERNEL_DATA)
                } else {
                    (USER_CODE | 3, USER_DATA | 3)
                };
                self.called.registers[RSP] &= !0xf;
                for word in [data, stack_pointer.0, FLAGS, code, program_counter.0] {
                    self.push(word);
                }
                if has_error_code {
                    self.push(0);
                }
            }
        }
        let mut saved = Vec::new();
        for step in steps {
            match *step {
                Step::Trap { .. } => {}
                Step::Push(register) => {
                    self.push(self.called.registers[register as usize]);
                    saved.push(register);
                }
                Step::Allocate(bytes) => self.called.registers[RSP] -= u64::from(bytes),
                Step::SetFrame(register, offset) => {
                    self.called.registers[register as usize] = self.called.registers[RSP] + u64::from(offset);
                    saved.retain(|it| *it != register);
                }
                Step::Save(register, offset) => {
                    let to = VirtAddr(self.called.registers[RSP]).offset(offset.into());
                    self.kernel.write_u64(to, self.called.registers[register as usize]);
                    saved.push(register);
                }
            }
        }
        for register in saved {
            self.called.registers[register as usize] = used(at, register);
        }
        let stack_pointer = VirtAddr(self.called.registers[RSP]);
        self.called.frames.push(CallFrame { program_counter: at, stack_pointer, is_interrupted: false });
    }

    /// Writes what a caller may have left where its callee finds room for four arguments.
    fn leave_arguments(&mut self, given: Option<[u64; 4]>) {
        let at = self.called.registers[RSP];
        let depth = self.called.frames.len() as u64;
        let whatever = [self.called.registers[Register::Rsi as usize], depth, 0, at + 0x40];
        for (number, word) in (0..).zip(given.unwrap_or(whatever)) {
            self.kernel.write_u64(VirtAddr(at).offset(number * 8), word);
        }
    }

    fn push(&mut self, word: u64) {
        let to = self.called.registers[RSP] - 8;
        self.kernel.write_u64(VirtAddr(to), word);
        self.called.registers[RSP] = to;
    }
}

/// What a routine has in a register that it saved: a pointer of its own.
const fn used(at: VirtAddr, register: Register) -> u64 {
    0xffff_fa80_0310_0000 | (at.0 & 0xfff) << 8 | (register as u64) << 4
}
