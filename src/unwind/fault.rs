//! What a step up a stack reads, and why there may be none.

use std::fmt;

/// What the bytes at an address are read with: all of them, or an error.
pub type Read<'a, E> = dyn FnMut(What, u64, &mut [u8]) -> Result<(), E> + 'a;

/// What a step reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// `RUNTIME_FUNCTION` entries of an image.
    Functions,
    /// An `UNWIND_INFO`.
    Info,
    /// Instructions.
    Code,
    /// Words of the stack.
    Stack,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Functions => "table of functions",
            Self::Info => "unwind information",
            Self::Code => "code",
            Self::Stack => "stack",
        })
    }
}

/// Why there is no step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault<E> {
    /// Bytes could not be read.
    Read {
        /// What they are.
        what: What,
        /// Where they are.
        at: u64,
        /// Why not.
        error: E,
    },
    /// The unwind information says something that no compiler writes, or newer ones than this.
    Unknown {
        /// Where it stands.
        at: u64,
        /// What it says.
        what: &'static str,
    },
    /// The frame is found by a register that is not known.
    Register {
        /// Its number.
        number: u8,
    },
}
