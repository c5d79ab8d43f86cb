//! Segments of a 64-bit Windows, by where their descriptors stand in the global descriptor table.

pub(super) const KERNEL_CODE: u64 = 0x10;
pub(super) const KERNEL_DATA: u64 = 0x18;
pub(super) const USER_CODE_32: u64 = 0x20;
pub(super) const USER_DATA: u64 = 0x28;
pub(super) const USER_CODE: u64 = 0x30;
pub(super) const TASK_STATE: u64 = 0x40;
pub(super) const USER_TEB_32: u64 = 0x50;
