//! Reads that did not fill their buffer, and why.

use std::fmt;

use kd_protocol::{PhysAddr, VirtAddr};

/// An address of either kind, for errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// Virtual.
    Virtual(VirtAddr),
    /// Virtual, of a 32-bit target: it has eight digits.
    Virtual32(VirtAddr),
    /// Physical.
    Physical(PhysAddr),
}

impl Address {
    /// A virtual address of a target whose pointers have `pointer_size` bytes.
    #[must_use]
    pub const fn of_target(address: VirtAddr, pointer_size: usize) -> Self {
        if pointer_size == 4 { Self::Virtual32(address) } else { Self::Virtual(address) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Virtual(address) => write!(f, "{}", address.wide()),
            Self::Virtual32(address) => write!(f, "{:08x}", address.0 & 0xffff_ffff),
            Self::Physical(address) => write!(f, "physical {address}"),
        }
    }
}

/// Why a read stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadCause {
    /// No page is mapped there, or a live target does not say that it is paged out.
    #[error("not mapped")]
    NotMapped,
    /// The page is in a page file, or compressed in memory.
    #[error("paged out (page file {file})")]
    PagedOut {
        /// Which.
        file: u8,
    },
    /// A dump of this kind does not have the page.
    #[error("the page is not in this dump")]
    NotKept,
    /// A small memory dump holds a stack and a few blocks.
    #[error(
        "a small memory dump does not hold it; let the machine write automatic or kernel dumps (Startup and Recovery, or \
         wmic recoveros set DebugInfoType = 7) and reproduce it"
    )]
    NotInSmallDump,
    /// The dump ends before the page that it says it has.
    #[error("the dump is cut short: it ends before the page")]
    CutShort,
    /// The file cannot be read.
    #[error("the file cannot be read: {0}")]
    File(Box<str>),
    /// A virtual machine's monitor does not do what it is told.
    #[error("the virtual machine's monitor: {0}")]
    Monitor(Box<str>),
    /// The user pressed Ctrl+C.
    #[error("interrupted")]
    Interrupted,
    /// The target has stood still for as long as it may.
    #[error("the freeze budget of this stop is spent")]
    FreezeBudget,
    /// The target runs; it can be read only while it is stopped.
    #[error("the target is running; break in first (Ctrl+C)")]
    TargetRunning,
    /// It stopped by itself while it was let run between two stops of one question.
    #[error("the target stopped by itself while it was let run between two short stops")]
    StoppedByItself,
    /// It was let run between two stops of one question, and may stand still: nobody knows.
    #[error("the target was let run between two short stops, and may still stand still: {0}")]
    MayBeStopped(Box<str>),
    /// It was let run between two stops of one question, and could not be stopped again.
    #[error("the target was let run between two short stops, and was not stopped again: {0}")]
    NotStoppedAgain(Box<str>),
    /// Whether the target runs is not known; it can be read only while it is stopped.
    #[error("whether the target runs is not known; break in first (Ctrl+C)")]
    NotKnown,
    /// The target went away or started anew while it was being read.
    #[error("the target restarted")]
    TargetRestarted,
    /// The line to the target ended.
    #[error("the line to the target has ended")]
    Disconnected,
    /// The target stopped answering.
    #[error("no answer from the target within {seconds} s")]
    NoAnswer {
        /// How long it was waited for.
        seconds: u64,
    },
    /// The target refused with this status.
    #[error("the target answered with status {0:08X}")]
    Status(u32),
    /// The session has ended.
    #[error("the session has ended")]
    SessionEnded,
    /// This kind of memory cannot do that.
    #[error("{0} is not available here")]
    Unsupported(&'static str),
}

impl ReadCause {
    /// True if nothing can be read at this time, whatever the address: the link, the session or the user ended it, so it
    /// says nothing of the memory. Else it is a fact about the memory: not mapped, or the target refuses it.
    #[must_use]
    pub const fn is_of_link(&self) -> bool {
        match self {
            Self::NotMapped
            | Self::PagedOut { .. }
            | Self::NotKept
            | Self::NotInSmallDump
            | Self::CutShort
            | Self::Status(_)
            | Self::Unsupported(_) => false,
            Self::File(_)
            | Self::Monitor(_)
            | Self::Interrupted
            | Self::FreezeBudget
            | Self::TargetRunning
            | Self::NotKnown
            | Self::StoppedByItself
            | Self::MayBeStopped(_)
            | Self::NotStoppedAgain(_)
            | Self::TargetRestarted
            | Self::Disconnected
            | Self::NoAnswer { .. }
            | Self::SessionEnded => true,
        }
    }
}

/// A read that did not fill its buffer: the first `got` of `wanted` bytes were read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read {got:#x} of {wanted:#x} bytes at {address}: {cause}")]
pub struct ReadError {
    /// Where the read began.
    pub address: Address,
    /// Bytes asked for.
    pub wanted: usize,
    /// Bytes from the start that were read and are in the buffer.
    pub got: usize,
    /// What stopped it.
    pub cause: ReadCause,
}
