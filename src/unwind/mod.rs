//! One step up a stack of x64 code: from a frame's registers to its caller's.
//!
//! ```text
//!  PC -> RUNTIME_FUNCTION (begin, end, info) -> UNWIND_INFO: what the prolog did, undone backwards
//!        none: a leaf        bit 0: another       |-> chained: another RUNTIME_FUNCTION's info as well
//!  frame 0, behind an interrupt: is PC in an epilog? then what is left of it is done instead
//! ```
//! Pure: registers in, registers out, bytes through a closure; no image is read whole, no table, no name. Frame pointers
//! are not followed, nothing is guessed: what cannot be known is a [`Fault`].
//!
//! Source: Microsoft, "x64 exception handling"; docs/stacks.md, which says what is not in that page and how it was checked.

mod epilog;
mod fault;
mod frame;
mod info;
mod part;
mod registers;
mod table;

pub use fault::{Fault, Read, What};
pub use part::FunctionPart;
pub use registers::Registers;
pub use table::{Function, Image};

use frame::Frame;

/// From a trap frame's first byte to its `Rip`: the five words that a processor pushes are the end of a `_KTRAP_FRAME`.
const RIP_IN_TRAP_FRAME: u64 = 0x168;

/// How far the program counter of a frame is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// The instruction that runs next: of the frame where the CPU stopped, or that an interrupt or a fault broke into.
    Exact,
    /// A return address: the instruction before it is the call, and belongs to the frame.
    Return,
}

/// How a frame was left for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The code has no unwind information, as code that calls nothing needs none.
    Leaf,
    /// By its unwind information.
    Call,
    /// A processor pushed the caller's registers: an interrupt or a fault.
    Trap {
        /// Where the `_KTRAP_FRAME` begins that ends with them.
        frame: u64,
    },
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// How the frame was left.
    pub kind: Kind,
    /// Where the code begins, relative to the image's base, whose part the program counter is in; nothing for a leaf.
    pub begin: Option<u32>,
    /// The registers of the caller.
    pub caller: Registers,
    /// What its program counter is.
    pub counter: Counter,
}

/// Steps from a frame to its caller.
///
/// `image` is the one that the program counter lies in; `read` is asked for its bytes and for the stack's.
///
/// # Errors
/// [`Fault`]: bytes that are away, or make no sense.
pub fn step<E>(
    image: &Image,
    registers: &Registers,
    counter: Counter,
    read: &mut Read<'_, E>,
) -> Result<Step, Fault<E>> {
    let offset = registers.rip.wrapping_sub(image.base);
    let looked_up = match counter {
        Counter::Exact => offset,
        Counter::Return => offset.wrapping_sub(1),
    };
    let function = match u32::try_from(looked_up) {
        Ok(rva) => image.function_at(rva, read)?,
        Err(_) => None,
    };
    let mut frame = Frame::new(image, registers.clone(), read);
    let Some(function) = function else {
        frame.pop_return_address()?;
        frame.registers.forget_volatile();
        return Ok(Step { kind: Kind::Leaf, begin: None, caller: frame.registers, counter: Counter::Return });
    };
    let chain = frame.chain(function)?;
    let whole = chain.last().expect("a chain has a first link");
    let begin = Some(whole.function.prolog_at);
    // Of a part whose entry leads to another, that one's prolog ran long before.
    let rva = u32::try_from(offset).ok();
    let within = rva.and_then(|rva| rva.checked_sub(function.prolog_at)).unwrap_or(u32::MAX);
    // Before the prolog's end too: registers that only some ways through a function need are saved behind an early way out.
    let left = counter == Counter::Exact && epilog::finish(&mut frame, &chain)?;
    let trap = if left { None } else { frame.undo(&chain, within)? };
    // The registers that an interrupt may have changed lie in the trap frame, where nobody asks for them.
    frame.registers.forget_volatile();
    let (kind, counter) = match trap {
        Some(at) => (Kind::Trap { frame: at.wrapping_sub(RIP_IN_TRAP_FRAME) }, Counter::Exact),
        None => (Kind::Call, Counter::Return),
    };
    Ok(Step { kind, begin, caller: frame.registers, counter })
}

#[cfg(test)]
mod tests;
