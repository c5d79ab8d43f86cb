//! One instruction of a processor: what is made of code in a simulated image.
//!
//! ```text
//!   a routine's prolog   push, sub rsp, lea, mov [rsp+n]: carried out, on registers and stack
//!   ret                  back to the caller
//!   00 00                what the images' routines are filled with: gone past
//! ```

use kd_protocol::VirtAddr;

use super::kernel::Kernel;
use super::layout::Step;
use super::processors::Processor;

/// In an x64 `CONTEXT`. Source: PROTOCOL.md 12.
const RIP: usize = 0xf8;
const REGISTERS: usize = 0x78;
const RSP: usize = 4;
const RET: u8 = 0xc3;

/// Executes the instruction that `processor` stands at.
pub(super) fn step(kernel: &mut Kernel, processor: &mut Processor) {
    let context = &mut processor.context;
    let rip = VirtAddr(word(context, RIP));
    if let Some(step) = kernel.step_at(rip) {
        prolog(kernel, context, step);
        return put(context, RIP, rip.0 + step.code().len() as u64);
    }
    let mut code = [0; 2];
    kernel.memory.read(rip, &mut code);
    match code {
        [RET, _] => {
            let at = word(context, register(RSP));
            let mut back = [0; 8];
            kernel.memory.read(VirtAddr(at), &mut back);
            put(context, register(RSP), at + 8);
            put(context, RIP, u64::from_le_bytes(back));
        }
        [0, 0] => put(context, RIP, rip.0 + 2),
        _ => put(context, RIP, rip.0 + 1),
    }
}

fn prolog(kernel: &mut Kernel, context: &mut [u8], step: Step) {
    let rsp = word(context, register(RSP));
    match step {
        Step::Trap { .. } => {}
        Step::Push(saved) => {
            kernel.write_u64(VirtAddr(rsp - 8), word(context, register(saved as usize)));
            put(context, register(RSP), rsp - 8);
        }
        Step::Allocate(bytes) => put(context, register(RSP), rsp - u64::from(bytes)),
        Step::SetFrame(frame, offset) => put(context, register(frame as usize), rsp + u64::from(offset)),
        Step::Save(saved, offset) => {
            kernel.write_u64(VirtAddr(rsp + u64::from(offset)), word(context, register(saved as usize)));
        }
    }
}

const fn register(number: usize) -> usize {
    REGISTERS + 8 * number
}

fn word(context: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(context[at..at + 8].try_into().expect("eight bytes"))
}

fn put(context: &mut [u8], at: usize, value: u64) {
    context[at..at + 8].copy_from_slice(&value.to_le_bytes());
}
