//! Breakpoints in a target's code, as the target itself keeps them.

use kd_protocol::VirtAddr;
use kd_protocol::link::RequestError;

/// Breakpoints that a kernel has room for. Source: PROTOCOL.md 9.
pub const BREAKPOINT_SLOTS: u32 = 32;

/// A breakpoint that is in the target's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InCode {
    /// Where.
    pub address: VirtAddr,
    /// The target's number for it: its slot and one. Nothing where its answer has not come.
    pub handle: Option<u32>,
}

/// Why a breakpoint was not set, or not taken out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BreakpointError {
    /// Not a target that runs code.
    #[error("this target is not debugged live")]
    NotLive,
    /// The target has no room for another, or has one there already.
    #[error(
        "the target refuses it: status {status:#010x}; it has room for {BREAKPOINT_SLOTS}, one at an address"
    )]
    Refused {
        /// The target's.
        status: u32,
    },
    /// It did not answer, or runs.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// What stays behind in a target that could not be reached, and how it is taken away.
#[must_use]
pub fn breakpoints_stay(addresses: &[VirtAddr]) -> String {
    let shown: Vec<_> = addresses.iter().map(|it| format!("{:016x}", it.0)).collect();
    format!(
        "breakpoints are still in its code ({}), so that it stops there and waits for a debugger. Attach again: verikd takes them \
         out when it meets one. With WinDbg: bc *",
        shown.join(", ")
    )
}
