//! One boot of a target: which it is, and what its kernel says of itself.

use kd_protocol::{MachineType, VirtAddr};

/// One boot of a target: what was read in one is nothing in another. 0: no target has connected yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootId(pub u64);

/// What the target says of its kernel when a debugger asks (`DBGKD_GET_VERSION64`).
///
/// Source: PROTOCOL.md 9.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelVersion {
    /// `MajorVersion`: low byte 0xf for a free build, 0xc for a checked one.
    pub major: u16,
    /// `MinorVersion`: the build, 7601.
    pub build: u16,
    /// `Flags`: 1 multiprocessor, 4 64-bit pointers.
    pub flags: u16,
    /// `MachineType`.
    pub machine: MachineType,
    /// `KernBase`: the kernel's image.
    pub base: VirtAddr,
    /// `PsLoadedModuleList`: head of the list of modules.
    pub module_list: VirtAddr,
    /// `DebuggerDataList`: head of the list of debugger data blocks; 0 in a boot debugger.
    pub debugger_data_list: VirtAddr,
}

impl KernelVersion {
    /// `Flags`: pointers have 64 bits.
    pub const PTR64: u16 = 4;

    /// True if its pointers have 64 bits.
    #[must_use]
    pub const fn is_64_bit(&self) -> bool {
        self.flags & Self::PTR64 != 0
    }
}
