//! A target that stands still: its bytes, and the CPU that reported the stop.

use std::ops::Range;
use std::sync::Arc;

use kd_protocol::{PhysAddr, VirtAddr};

use super::error::{ReadCause, ReadError};
use super::translate::PageTables;

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

    /// Where the tables are that it is seen through, for whoever copies it.
    ///
    /// # Errors
    /// Why that is not known.
    fn page_tables(&self) -> Result<PageTables, ReadCause> {
        Err(ReadCause::Unsupported("the root of the page tables"))
    }

    /// Where RAM is, as far as it was kept; nothing where only the target's own kernel knows.
    fn ram(&self) -> Option<Vec<Range<u64>>> {
        None
    }

    /// Pages that were read so far, in this stop and others; nothing where nobody counts.
    fn touched(&self) -> Vec<VirtAddr> {
        Vec::new()
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

    fn page_tables(&self) -> Result<PageTables, ReadCause> {
        (**self).page_tables()
    }

    fn ram(&self) -> Option<Vec<Range<u64>>> {
        (**self).ram()
    }

    fn touched(&self) -> Vec<VirtAddr> {
        (**self).touched()
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

    /// The same of another processor, by its number.
    ///
    /// # Errors
    /// As [`context`](Self::context); [`ReadCause::Unsupported`] where the source has it nowhere but in the target's memory.
    fn context_of(&self, _processor: u16) -> Result<Vec<u8>, ReadCause> {
        Err(ReadCause::Unsupported("the context of another processor"))
    }

    /// True if the stop is over: what is read was kept of it, some time ago.
    fn is_kept(&self) -> bool {
        false
    }

    /// What was written down with the stop beside the memory.
    fn noted(&self) -> Noted {
        Noted::default()
    }
}

/// What was written down with a stop beside the memory: by the header of a crash dump. A live target has it in its memory
/// alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// Code and four parameters of the bug check.
    pub bug_check: Option<[u64; 5]>,
    /// When it was: units of 100 ns since 1601, UTC.
    pub system_time: Option<u64>,
    /// How long the machine had been running then, in units of 100 ns.
    pub up_time: Option<u64>,
    /// Where the kernel's debugger data block is.
    pub debugger_data: Option<VirtAddr>,
}
