//! `KDDEBUGGER_DATA64`: the block in which a kernel tells a debugger where its variables are.
//!
//! ```text
//!  GetVersion.DebuggerDataList -> LIST_ENTRY -> | links 16 | 'KDBG' | Size | KernBase | ... |
//! ```
//! The block is the same on 32-bit kernels, where its addresses are sign-extended; the list's head is as wide as theirs.
//! Newer kernels have longer blocks: a field past `Size` is absent. The way to the level and the counters of Driver
//! Verifier when the kernel's PDB is missing.
//!
//! Source: PROTOCOL.md 13, checked there on a real Windows 8.1 block.

use kd_protocol::wire::Reader;

use super::error::TargetError;
use super::width::Width;
use crate::memory::{Memory, VirtAddr};

/// Bytes known of the longest block; fits in one reply.
const KNOWN: usize = 0x3a8;
const TAG: &[u8; 4] = b"KDBG";

/// A kernel's debugger data block.
#[derive(Clone, Debug)]
pub struct DebuggerData {
    address: VirtAddr,
    /// The block up to its `Size`, or to what is known of it, or to what could be read.
    bytes: Vec<u8>,
    width: Width,
}

impl DebuggerData {
    const KERN_BASE: usize = 0x18;
    const PS_LOADED_MODULE_LIST: usize = 0x48;
    const KI_BUGCHECK_DATA: usize = 0x88;
    const NT_BUILD_LAB: usize = 0x208;
    const MM_UNLOADED_DRIVERS: usize = 0x220;
    const MM_VERIFIER_DATA: usize = 0x248;

    /// Reads the first block of the list whose head is at `list`, in two reads.
    ///
    /// # Errors
    /// [`TargetError::Read`]; [`TargetError::Unexpected`] if there is no block, or it belongs to another kernel than
    /// the one at `kernel_base`.
    pub(super) fn read(
        memory: &dyn Memory,
        list: VirtAddr,
        kernel_base: VirtAddr,
        width: Width,
    ) -> Result<Self, TargetError> {
        const WHAT: &str = "debugger data block";
        if list.is_null() {
            let wrong = "the kernel gave no list of them".to_owned();
            return Err(TargetError::Unexpected { what: WHAT, address: width.shown(list), wrong });
        }
        let mut link = [0; 8];
        memory
            .read_virtual(list, &mut link[..width.bytes()])
            .map_err(|error| TargetError::read("debugger data list", error))?;
        let address = VirtAddr(u64::from_le_bytes(link));
        let unexpected = |wrong| TargetError::Unexpected { what: WHAT, address: width.shown(address), wrong };
        let mut bytes = vec![0; KNOWN];
        if let Err(error) = memory.read_virtual(address, &mut bytes) {
            bytes.truncate(error.got);
            if error.got < Self::KERN_BASE + 8 {
                return Err(TargetError::read(WHAT, error));
            }
        }
        if &bytes[0x10..0x14] != TAG {
            return Err(unexpected("it has no KDBG tag".to_owned()));
        }
        let size = Reader::new(WHAT, &bytes[0x14..]).u32().unwrap_or(0) as usize;
        if size < Self::KERN_BASE + 8 {
            return Err(unexpected(format!("its size is {size:#x}")));
        }
        bytes.truncate(size);
        let data = Self { address, bytes, width };
        match data.kern_base() {
            Some(base) if base == kernel_base => Ok(data),
            other => Err(unexpected(format!(
                "it belongs to a kernel at {}, the target's is at {}",
                width.shown(other.unwrap_or_default()),
                width.shown(kernel_base)
            ))),
        }
    }

    /// Where the block is.
    #[must_use]
    pub const fn address(&self) -> VirtAddr {
        self.address
    }

    /// Base of the kernel's image.
    #[must_use]
    pub fn kern_base(&self) -> Option<VirtAddr> {
        self.field(Self::KERN_BASE)
    }

    /// Head of the list of loaded modules.
    #[must_use]
    pub fn ps_loaded_module_list(&self) -> Option<VirtAddr> {
        self.field(Self::PS_LOADED_MODULE_LIST)
    }

    /// Code and parameters of a bug check: five words, the first 0 while there is none.
    #[must_use]
    pub fn ki_bugcheck_data(&self) -> Option<VirtAddr> {
        self.field(Self::KI_BUGCHECK_DATA)
    }

    /// The kernel's build as text, ended by a 0.
    #[must_use]
    pub fn nt_build_lab(&self) -> Option<VirtAddr> {
        self.field(Self::NT_BUILD_LAB)
    }

    /// The variable that points to the array of unloaded drivers.
    #[must_use]
    pub fn mm_unloaded_drivers(&self) -> Option<VirtAddr> {
        self.field(Self::MM_UNLOADED_DRIVERS)
    }

    /// Driver Verifier's level and counters, `_MM_DRIVER_VERIFIER_DATA`.
    #[must_use]
    pub fn mm_verifier_data(&self) -> Option<VirtAddr> {
        self.field(Self::MM_VERIFIER_DATA)
    }

    /// An address in the block; nothing if the block ends before it, or it is 0.
    fn field(&self, offset: usize) -> Option<VirtAddr> {
        let bytes = self.bytes.get(offset..)?.first_chunk()?;
        let address = self.width.cut(VirtAddr(u64::from_le_bytes(*bytes)));
        Some(address).filter(|address| !address.is_null())
    }
}
