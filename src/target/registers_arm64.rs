//! The registers of an ARM64 CPU, as its `CONTEXT` has them.
//!
//! ```text
//!  0 ContextFlags | 4 Cpsr | 8 X0 .. X28 | f0 Fp | f8 Lr | 100 Sp | 108 Pc | 110 V0 .. V31 | 310 Fpcr | 314 Fpsr | .. 390
//! ```
//! Source: `ARM64_NT_CONTEXT` of the Windows SDK's `winnt.h`; seen in a small dump of build 22000, whose Sp, Pc and X18 are the
//! top of its stack, the address of its exception and its KPCR.

use kd_protocol::wire::{DecodeError, Reader};

/// A CPU's registers but for its vectors and breakpoints.
#[derive(Clone, Debug)]
pub(super) struct RegistersArm64 {
    pub(super) cpsr: u32,
    /// X0 to X28, Fp, Lr.
    x: [u64; 31],
    pub(super) sp: u64,
    pub(super) pc: u64,
    fpcr: u32,
    fpsr: u32,
}

impl RegistersArm64 {
    /// Bytes of the `CONTEXT`.
    pub(super) const LEN: usize = 0x390;
    /// Of its vectors.
    const VECTORS: usize = 32 * 16;

    pub(super) fn decode(context: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("CONTEXT", context);
        let _flags = reader.u32()?;
        let cpsr = reader.u32()?;
        let mut x = [0; 31];
        for register in &mut x {
            *register = reader.u64()?;
        }
        let (sp, pc) = (reader.u64()?, reader.u64()?);
        reader.bytes(Self::VECTORS)?;
        let (fpcr, fpsr) = (reader.u32()?, reader.u32()?);
        reader.bytes(Self::LEN - 0x318)?;
        Ok(Self { cpsr, x, sp, pc, fpcr, fpsr })
    }

    /// The value and the bits of the register called `name`, in lower case: `x0`, `fp`, `lr`, `sp`, `pc`, `w0`, `psr`.
    pub(super) fn get(&self, name: &str) -> Option<(u64, u32)> {
        let numbered = |digits: &str| {
            let number: usize =
                digits.parse().ok().filter(|_| digits == "0" || !digits.starts_with(['0', '+']))?;
            self.x.get(number).copied()
        };
        Some(match name {
            "fp" => (self.x[29], 64),
            "lr" => (self.x[30], 64),
            "sp" => (self.sp, 64),
            "pc" => (self.pc, 64),
            "psr" | "cpsr" => (self.cpsr.into(), 32),
            "fpcr" => (self.fpcr.into(), 32),
            "fpsr" => (self.fpsr.into(), 32),
            _ => match (name.strip_prefix('x'), name.strip_prefix('w')) {
                (Some(digits), _) => (numbered(digits)?, 64),
                (_, Some(digits)) => (numbered(digits)? & 0xffff_ffff, 32),
                _ => return None,
            },
        })
    }
}
