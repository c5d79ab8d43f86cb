//! Reading a target's bytes: what a query needs of a target, whatever the target is.
//!
//! A live target, a dump and a test's image implement [`Memory`]; no query can tell them apart. Knows no network.

mod cached;
mod counting;
mod image;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

pub use cached::CachedMemory;
pub use counting::CountingMemory;
pub use image::ImageMemory;
pub use kd_protocol::{PhysAddr, VirtAddr};

/// One stop of a target: bytes read during the same stop belong together, bytes of two stops may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StopId(pub u64);

/// A target's memory, standing still while it is read.
pub trait Memory: Send + Sync {
    /// Fills `buf` whole or fails; [`ReadError::got`] says how many bytes from the start were read.
    fn read_virtual(&self, address: VirtAddr, buf: &mut [u8]) -> Result<(), ReadError>;

    /// The same for a physical address.
    fn read_physical(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError>;

    /// First match of `pattern` in `range`. A live target searches itself; others read and scan.
    fn search_virtual(&self, range: Range<VirtAddr>, pattern: &[u8]) -> Result<Option<VirtAddr>, ReadError>;

    /// Bytes that one request carries: a shorter read costs as much. 0 if there are no requests.
    fn request_len(&self) -> usize {
        0
    }

    /// The stop these bytes belong to: a cache drops its lines by itself when this changes.
    fn stop(&self) -> StopId;
}

impl<M: Memory + ?Sized> Memory for Arc<M> {
    fn read_virtual(&self, address: VirtAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        (**self).read_virtual(address, buf)
    }

    fn read_physical(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        (**self).read_physical(address, buf)
    }

    fn search_virtual(&self, range: Range<VirtAddr>, pattern: &[u8]) -> Result<Option<VirtAddr>, ReadError> {
        (**self).search_virtual(range, pattern)
    }

    fn request_len(&self) -> usize {
        (**self).request_len()
    }

    fn stop(&self) -> StopId {
        (**self).stop()
    }
}

/// The CPU that reported a stop: whose registers a prompt speaks of.
pub trait StoppedCpu: Send + Sync {
    /// Its `CONTEXT`, as the target's kernel lays it out.
    ///
    /// # Errors
    /// Why it cannot be read; [`ReadCause::Unsupported`] where no CPU is known.
    fn context(&self) -> Result<Vec<u8>, ReadCause>;
}

/// An address of either kind, for errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// Virtual.
    Virtual(VirtAddr),
    /// Physical.
    Physical(PhysAddr),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Virtual(address) => write!(f, "{address}"),
            Self::Physical(address) => write!(f, "physical {address}"),
        }
    }
}

/// Why a read stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadCause {
    /// No page is mapped there, or it is paged out.
    #[error("not mapped")]
    NotMapped,
    /// The user pressed Ctrl+C.
    #[error("interrupted")]
    Interrupted,
    /// The target has stood still for as long as it may.
    #[error("the freeze budget of this stop is spent")]
    FreezeBudget,
    /// The target runs; it can be read only while it is stopped.
    #[error("the target is running; break in first (Ctrl+C)")]
    TargetRunning,
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
            Self::NotMapped | Self::Status(_) | Self::Unsupported(_) => false,
            Self::Interrupted
            | Self::FreezeBudget
            | Self::TargetRunning
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
