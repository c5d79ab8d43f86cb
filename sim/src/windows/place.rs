//! Where a processor is.

use kd_protocol::VirtAddr;

/// The registers of the first processor at a stop.
pub(super) struct Place {
    pub(super) rip: VirtAddr,
    pub(super) rcx: u64,
    /// Return addresses on its stack, innermost first.
    pub(super) stack: Vec<VirtAddr>,
}
