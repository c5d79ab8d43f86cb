//! A stack as it was found: its frames, and why there are no more; the code that they run.

use std::ops::Range;

use super::image::ImageError;
use super::symbol_at::SymbolAt;
use crate::memory::{ReadError, VirtAddr};
use crate::unwind::{Registers as Unwound, What};

/// One frame.
#[derive(Clone, Debug)]
pub struct StackFrame {
    /// Its stack pointer: that with which it calls.
    pub stack_pointer: VirtAddr,
    /// The instruction that runs next in it.
    pub program_counter: VirtAddr,
    /// Where its caller goes on; nothing if that is not known.
    pub return_address: Option<VirtAddr>,
    /// The four words where a function finds room for its first arguments: whatever lies there.
    pub arguments: Option<[u64; 4]>,
    /// How it was left.
    pub kind: FrameKind,
    /// What its program counter is called.
    pub symbol: SymbolAt,
}

/// How a frame leads to its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// By its unwind information.
    Call,
    /// It has none, as code that calls nothing needs none.
    Leaf,
    /// It has none, and calls.
    Missing,
    /// An interrupt or a fault broke into its caller.
    Trap {
        /// The `_KTRAP_FRAME`.
        frame: VirtAddr,
    },
    /// It does not: see [`StackEnd`].
    Last,
}

/// Why a stack ends where it does.
#[derive(Clone, Debug)]
pub enum StackEnd {
    /// Nobody called the last frame.
    Whole,
    /// As many frames as were asked for.
    Limit,
    /// The last frame is of user mode, which is not looked into.
    UserMode,
    /// The last frame lies in no module that is known.
    NoModule,
    /// The caller's stack pointer is none: not above the last frame's.
    NotAbove(VirtAddr),
    /// What leads to the caller could not be read, or makes no sense.
    Broken(StackTrouble),
}

/// What broke a walk off.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StackTrouble {
    /// The headers of the image do not say where its unwind information is.
    #[error("the headers of {module} do not say where its unwind information is: {source}")]
    Headers {
        /// The module.
        module: String,
        /// Why not.
        source: ImageError,
    },
    /// Bytes are away.
    #[error("the {what}{} is not readable: {source}", of(.module))]
    Read {
        /// What they are.
        what: What,
        /// The module, unless it is the stack.
        module: Option<String>,
        /// Why not.
        source: ReadError,
    },
    /// Unwind information makes no sense.
    #[error("the unwind information of {module} at {at:#x} is not understood: {what}")]
    Unknown {
        /// The module.
        module: String,
        /// Where it is.
        at: VirtAddr,
        /// What is wrong.
        what: &'static str,
    },
    /// A frame is found by a register that is not known.
    #[error("the frame is found by a register whose value is not known here")]
    Register,
}

fn of(module: &Option<String>) -> String {
    module.as_ref().map_or_else(String::new, |module| format!(" of {module}"))
}

/// A stack, the frame that runs first.
#[derive(Clone, Debug)]
pub struct CallStack {
    /// Its frames.
    pub frames: Vec<StackFrame>,
    /// Why there are no more.
    pub end: StackEnd,
}

/// Where a stack begins.
#[derive(Clone, Debug)]
pub struct StackStart(pub(super) Unwound);

impl StackStart {
    /// A program counter and the stack pointer there; no other register is known.
    #[must_use]
    pub fn at(stack_pointer: VirtAddr, program_counter: VirtAddr) -> Self {
        Self(Unwound { rip: program_counter.0, rsp: stack_pointer.0, ..Unwound::default() })
    }
}

/// A part of a function, as its image's unwind information has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodePart {
    /// Its bytes.
    pub range: Range<VirtAddr>,
    /// Where the function begins whose part it is.
    pub function: VirtAddr,
}
