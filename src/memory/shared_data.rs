//! `KUSER_SHARED_DATA`: a page that every kernel has at the same address, in every process.
//!
//! Source: docs/dumps.md 2 and 6; `_KUSER_SHARED_DATA` in the symbols of kernels from 7601 to 19041.

use kd_protocol::VirtAddr;

/// Where it is, and what stands where in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedData;

impl SharedData {
    /// `InterruptTime` and `SystemTime`, each a `_KSYSTEM_TIME` {LowPart, High1Time, High2Time}.
    pub(crate) const INTERRUPT_TIME: usize = 0x8;
    pub(crate) const SYSTEM_TIME: usize = 0x14;
    /// Of kernels from 10 on.
    pub(crate) const NT_BUILD_NUMBER: u64 = 0x260;
    pub(crate) const NT_MAJOR_VERSION: u64 = 0x26c;

    /// Its address in a kernel of so many bits.
    pub(crate) const fn address(is_64_bit: bool) -> VirtAddr {
        VirtAddr(if is_64_bit { 0xffff_f780_0000_0000 } else { 0xffdf_0000 })
    }
}
