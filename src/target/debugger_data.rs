//! `KDDEBUGGER_DATA64`: the block in which a kernel tells a debugger where its variables are.
//!
//! ```text
//!  GetVersion.DebuggerDataList -> LIST_ENTRY -> | links 16 | 'KDBG' | Size | KernBase | ... |
//! ```
//! The block is the same on 32-bit kernels, where its addresses are sign-extended; the list's head is as wide as theirs.
//! Newer kernels have longer blocks: a field past `Size` is absent. The way to the level and the counters of Driver
//! Verifier when the kernel's PDB is missing.
//!
//! A kernel that was not booted for debugging keeps its block encoded, links and all, with two of its variables and the
//! address of a third; nothing but its symbols leads to them. What is decoded is believed if it has the tag and the base of
//! the kernel.
//!
//! Source: PROTOCOL.md 13, checked there on a real Windows 8.1 block; docs/dumps.md 6 for the encoding.

use kd_protocol::wire::Reader;

use super::error::TargetError;
use super::width::Width;
use crate::memory::{Memory, VirtAddr};

/// Bytes known of the longest block; fits in one reply.
const KNOWN: usize = 0x3a8;
const TAG: &[u8; 4] = b"KDBG";
/// Bytes of an encoded block: those of any kernel.
const ENCODED: std::ops::RangeInclusive<usize> = 0x200..=0x800;
const WHAT: &str = "debugger data block";

/// What a kernel encodes its block with, quadword by quadword.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Encoding {
    /// The values of `nt!KiWaitNever` and `nt!KiWaitAlways`.
    pub(super) never: u64,
    pub(super) always: u64,
    /// Where `nt!KdpDataBlockEncoded` is.
    pub(super) flag: VirtAddr,
}

impl Encoding {
    /// A quadword as it was.
    const fn decode(self, word: u64) -> u64 {
        let word = (word ^ self.never).rotate_left(self.never as u32 & 63);
        (word ^ self.flag.0).swap_bytes() ^ self.always
    }

    fn decode_all(self, bytes: &mut [u8]) {
        for word in bytes.chunks_exact_mut(8) {
            let decoded = self.decode(u64::from_le_bytes((&*word).try_into().expect("eight bytes")));
            word.copy_from_slice(&decoded.to_le_bytes());
        }
    }
}

/// A kernel's debugger data block.
#[derive(Clone, Debug)]
pub struct DebuggerData {
    address: VirtAddr,
    /// The block up to its `Size`, or to what is known of it, or to what could be read.
    bytes: Vec<u8>,
    width: Width,
    encoding: Option<Encoding>,
}

impl DebuggerData {
    const KERN_BASE: usize = 0x18;
    const PS_LOADED_MODULE_LIST: usize = 0x48;
    const PS_ACTIVE_PROCESS_HEAD: usize = 0x50;
    const KI_BUGCHECK_DATA: usize = 0x88;
    const NT_BUILD_LAB: usize = 0x208;
    const KI_PROCESSOR_BLOCK: usize = 0x218;
    const MM_UNLOADED_DRIVERS: usize = 0x220;
    const MM_VERIFIER_DATA: usize = 0x248;
    const OFFSET_PRCB_PROC_STATE_CONTEXT: usize = 0x2bc;
    const OFFSET_PRCB_CONTEXT: usize = 0x338;

    /// The address of the first block of the list whose head is at `list`.
    ///
    /// # Errors
    /// [`TargetError::Read`]; [`TargetError::Unexpected`] if there is no list.
    pub(super) fn first_of(
        memory: &dyn Memory,
        list: VirtAddr,
        width: Width,
    ) -> Result<VirtAddr, TargetError> {
        if list.is_null() {
            let wrong = "the kernel gave no list of them".to_owned();
            return Err(TargetError::Unexpected { what: WHAT, address: width.shown(list), wrong });
        }
        let mut link = [0; 8];
        memory
            .read_virtual(list, &mut link[..width.bytes()])
            .map_err(|error| TargetError::read("debugger data list", error))?;
        Ok(VirtAddr(u64::from_le_bytes(link)))
    }

    /// Reads the block at `address`, in one read unless it is encoded: `encoding` finds out with what.
    ///
    /// # Errors
    /// [`TargetError::Read`]; [`TargetError::Unexpected`] if there is no block, or it belongs to another kernel than
    /// the one at `kernel_base`.
    pub(super) fn read(
        memory: &dyn Memory,
        address: VirtAddr,
        kernel_base: VirtAddr,
        width: Width,
        encoding: impl FnOnce() -> Option<Encoding>,
    ) -> Result<Self, TargetError> {
        let unexpected = |wrong| TargetError::Unexpected { what: WHAT, address: width.shown(address), wrong };
        let read = |len: usize| {
            let mut bytes = vec![0; len];
            match memory.read_virtual(address, &mut bytes) {
                Err(error) if error.got < Self::KERN_BASE + 8 => Err(TargetError::read(WHAT, error)),
                Err(error) => {
                    bytes.truncate(error.got);
                    Ok(bytes)
                }
                Ok(()) => Ok(bytes),
            }
        };
        let mut bytes = read(KNOWN)?;
        let mut used = None;
        if &bytes[0x10..0x14] != TAG {
            // What was never written is not encoded either.
            if bytes.iter().any(|byte| *byte != 0) {
                used = encoding();
            }
            if let Some(encoding) = used {
                encoding.decode_all(&mut bytes);
            }
            if &bytes[0x10..0x14] != TAG {
                return Err(unexpected("it has no KDBG tag".to_owned()));
            }
        }
        let size = Reader::new(WHAT, &bytes[0x14..]).u32().unwrap_or(0) as usize;
        if size < Self::KERN_BASE + 8 || used.is_some() && !ENCODED.contains(&size) {
            return Err(unexpected(format!("its size is {size:#x}")));
        }
        if let Some(encoding) = used.filter(|_| size > KNOWN) {
            bytes = read(size)?;
            encoding.decode_all(&mut bytes);
        }
        bytes.truncate(size);
        let data = Self { address, bytes, width, encoding: used };
        match data.kern_base() {
            Some(base) if base == kernel_base => Ok(data),
            other => Err(unexpected(format!(
                "it belongs to a kernel at {}, the target's is at {}",
                width.shown(other.unwrap_or_default()),
                width.shown(kernel_base)
            ))),
        }
    }

    /// The block as debuggers look for it, and the address of the byte that says that the target's own is encoded; nothing
    /// if it is not.
    #[must_use]
    pub fn decoded(&self) -> Option<(&[u8], VirtAddr)> {
        self.encoding.map(|encoding| (&*self.bytes, encoding.flag))
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

    /// Head of the list of processes.
    #[must_use]
    pub fn ps_active_process_head(&self) -> Option<VirtAddr> {
        self.field(Self::PS_ACTIVE_PROCESS_HEAD)
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

    /// The array of the addresses of the processors' `_KPRCB`s.
    #[must_use]
    pub fn ki_processor_block(&self) -> Option<VirtAddr> {
        self.field(Self::KI_PROCESSOR_BLOCK)
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

    /// Where a `_KPRCB` has the address of its processor's `CONTEXT`, and where it has a `CONTEXT` itself; kernels fill the
    /// one or the other.
    #[must_use]
    pub fn offsets_of_context(&self) -> [Option<u64>; 2] {
        [Self::OFFSET_PRCB_CONTEXT, Self::OFFSET_PRCB_PROC_STATE_CONTEXT].map(|offset| {
            let bytes = self.bytes.get(offset..)?.first_chunk()?;
            Some(u64::from(u16::from_le_bytes(*bytes))).filter(|offset| *offset != 0)
        })
    }

    /// An address in the block; nothing if the block ends before it, or it is 0.
    fn field(&self, offset: usize) -> Option<VirtAddr> {
        let bytes = self.bytes.get(offset..)?.first_chunk()?;
        let address = self.width.cut(VirtAddr(u64::from_le_bytes(*bytes)));
        Some(address).filter(|address| !address.is_null())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with the inverse, by hand; both orders of writing it agree.
    #[test]
    fn an_encoded_word_is_decoded() {
        let encoding = Encoding {
            never: 0x6aaf_2a00_34c5_5443,
            always: 0x0069_8a9f_15d5_e840,
            flag: VirtAddr(0xffff_f800_2ce6_a378),
        };
        for (encoded, plain) in [
            (0x8751_5307_02b7_d2f3, 0xffff_f800_2ce5_e4d0),
            (0x7425_47ea_72a8_ad0c, 0x0000_0380_4742_444b),
            (0x9d4d_dba7_02b7_d2f3, 0xffff_f800_2ca0_0000),
        ] {
            assert_eq!(encoding.decode(encoded), plain, "{encoded:x}");
        }
    }
}
