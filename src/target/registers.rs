//! The registers of a CPU by the names that WinDbg knows them by: those of x64, of x86, and of ARM64.

use kd_protocol::MachineType;
use kd_protocol::kd::{Context, ContextX86};
use kd_protocol::wire::Reader;

use super::registers_arm64::RegistersArm64;
use crate::memory::VirtAddr;

/// What a CPU's registers held when it stopped.
#[derive(Clone, Debug)]
pub struct Registers(Kind);

#[derive(Clone, Debug)]
enum Kind {
    X64(Box<Context>),
    X86(Box<ContextX86>),
    Arm64(Box<RegistersArm64>),
}

/// A register's value and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// What it holds.
    pub value: u64,
    /// Its width.
    pub bits: u32,
}

/// Names of the flags and their bits in EFlags.
const FLAGS: [(&str, u32); 9] =
    [("cf", 0), ("pf", 2), ("af", 4), ("zf", 6), ("sf", 7), ("tf", 8), ("if", 9), ("df", 10), ("of", 11)];

impl Registers {
    /// True if the registers of such a machine are known.
    pub(super) const fn knows(machine: MachineType) -> bool {
        Self::context_len(machine).is_some()
    }

    /// Bytes of a machine's `CONTEXT`.
    pub(super) const fn context_len(machine: MachineType) -> Option<usize> {
        match machine {
            MachineType::AMD64 => Some(Context::LEN),
            MachineType::I386 => Some(ContextX86::LEN),
            MachineType::ARM64 => Some(RegistersArm64::LEN),
            _ => None,
        }
    }

    /// The registers in a machine's `CONTEXT`; nothing if it is cut off, or the machine is not known.
    pub(super) fn decode(machine: MachineType, context: &[u8]) -> Option<Self> {
        let mut reader = Reader::new("CONTEXT", context);
        Some(Self(match machine {
            MachineType::AMD64 => Kind::X64(Box::new(Context::decode(&mut reader).ok()?)),
            MachineType::I386 => Kind::X86(Box::new(ContextX86::decode(&mut reader).ok()?)),
            MachineType::ARM64 => Kind::Arm64(Box::new(RegistersArm64::decode(context).ok()?)),
            _ => return None,
        }))
    }

    /// The program counter.
    #[must_use]
    pub fn program_counter(&self) -> VirtAddr {
        match &self.0 {
            Kind::X64(context) => context.rip,
            Kind::X86(context) => VirtAddr(context.eip.into()),
            Kind::Arm64(registers) => VirtAddr(registers.pc),
        }
    }

    /// The stack pointer.
    #[must_use]
    pub fn stack_pointer(&self) -> VirtAddr {
        match &self.0 {
            Kind::X64(context) => context.rsp,
            Kind::X86(context) => VirtAddr(context.esp.into()),
            Kind::Arm64(registers) => VirtAddr(registers.sp),
        }
    }

    /// The flags register: EFlags, or ARM64's Cpsr.
    #[must_use]
    pub fn eflags(&self) -> u32 {
        match &self.0 {
            Kind::X64(context) => context.e_flags,
            Kind::X86(context) => context.e_flags,
            Kind::Arm64(registers) => registers.cpsr,
        }
    }

    /// The machine whose CPU they are of.
    #[must_use]
    pub const fn machine(&self) -> MachineType {
        match self.0 {
            Kind::X64(_) => MachineType::AMD64,
            Kind::X86(_) => MachineType::I386,
            Kind::Arm64(_) => MachineType::ARM64,
        }
    }

    /// The register called `name`, in any case: `rax`, `eax`, `ax`, `al`, `r8d`, `efl`, `cs`, `dr7`, `zf`. One of 32 bits has
    /// none of the 64-bit ones; of ARM64 `x0`, `w0`, `fp`, `lr`, `sp`, `pc`, `psr`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Register> {
        let name = name.to_ascii_lowercase();
        if let Kind::Arm64(registers) = &self.0 {
            return registers.get(&name).map(|(value, bits)| Register { value, bits });
        }
        if let Some(value) = self.general(&name) {
            return Some(Register { value, bits: self.bits() });
        }
        match name.as_str() {
            "efl" | "eflags" => return Some(Register { value: self.eflags().into(), bits: 32 }),
            "iopl" => return Some(Register { value: u64::from(self.eflags() >> 12 & 3), bits: 2 }),
            _ => {}
        }
        if let Some((_, bit)) = FLAGS.iter().find(|(flag, _)| *flag == name) {
            return Some(Register { value: u64::from(self.eflags() >> bit & 1), bits: 1 });
        }
        self.special(&name).or_else(|| self.part(&name))
    }

    const fn bits(&self) -> u32 {
        if matches!(self.0, Kind::X86(_)) { 32 } else { 64 }
    }

    /// Segments, debug registers, and the control of vector arithmetic.
    fn special(&self, name: &str) -> Option<Register> {
        let debug = |index: &str| index.parse::<usize>().ok();
        let (value, bits) = match &self.0 {
            Kind::X64(context) => match name {
                "cs" => (context.seg_cs.into(), 16),
                "ds" => (context.seg_ds.into(), 16),
                "es" => (context.seg_es.into(), 16),
                "fs" => (context.seg_fs.into(), 16),
                "gs" => (context.seg_gs.into(), 16),
                "ss" => (context.seg_ss.into(), 16),
                "dr6" => (context.dr6, 64),
                "dr7" => (context.dr7, 64),
                "mxcsr" => (context.mx_csr.into(), 32),
                _ => (*context.dr0_to_3.get(debug(name.strip_prefix("dr")?)?)?, 64),
            },
            Kind::X86(context) => match name {
                // What stands above a segment's 16 bits is whatever lay on the stack.
                "cs" => (u64::from(context.seg_cs & 0xffff), 16),
                "ds" => (u64::from(context.seg_ds & 0xffff), 16),
                "es" => (u64::from(context.seg_es & 0xffff), 16),
                "fs" => (u64::from(context.seg_fs & 0xffff), 16),
                "gs" => (u64::from(context.seg_gs & 0xffff), 16),
                "ss" => (u64::from(context.seg_ss & 0xffff), 16),
                "dr6" => (context.dr6.into(), 32),
                "dr7" => (context.dr7.into(), 32),
                _ => ((*context.dr0_to_3.get(debug(name.strip_prefix("dr")?)?)?).into(), 32),
            },
            Kind::Arm64(_) => return None,
        };
        Some(Register { value, bits })
    }

    /// A register as wide as the machine.
    fn general(&self, name: &str) -> Option<u64> {
        Some(match &self.0 {
            Kind::X64(context) => match name {
                "rax" => context.rax,
                "rbx" => context.rbx,
                "rcx" => context.rcx,
                "rdx" => context.rdx,
                "rsi" => context.rsi,
                "rdi" => context.rdi,
                "rsp" => context.rsp.0,
                "rbp" => context.rbp,
                "rip" => context.rip.0,
                _ => {
                    let number: usize = name.strip_prefix('r')?.parse().ok()?;
                    *context.r8_to_15.get(number.checked_sub(8)?)?
                }
            },
            Kind::X86(context) => u64::from(match name {
                "eax" => context.eax,
                "ebx" => context.ebx,
                "ecx" => context.ecx,
                "edx" => context.edx,
                "esi" => context.esi,
                "edi" => context.edi,
                "esp" => context.esp,
                "ebp" => context.ebp,
                "eip" => context.eip,
                _ => return None,
            }),
            Kind::Arm64(_) => return None,
        })
    }

    /// A part of a register: `eax` of `rax`, `ax`, `al`, `ah`, `r8d`, `r8w`, `r8b`.
    fn part(&self, name: &str) -> Option<Register> {
        let cut =
            |value: u64, shift: u32, bits: u32| Register { value: value >> shift & ((1 << bits) - 1), bits };
        let wide = if self.bits() == 64 { 'r' } else { 'e' };
        let whole = |rest: &str| self.general(&format!("{wide}{rest}"));
        if !name.is_ascii() || name.len() < 2 {
            return None;
        }
        if let Some(numbered) = name.strip_prefix('r') {
            let (number, width) = numbered.split_at(numbered.len() - 1);
            let bits = match width {
                "d" => 32,
                "w" => 16,
                "b" => 8,
                _ => return None,
            };
            number.parse::<u8>().ok()?;
            return whole(number).map(|value| cut(value, 0, bits));
        }
        let is_letters = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphabetic());
        if let Some(rest) = name.strip_prefix('e').filter(|rest| is_letters(rest)) {
            return whole(rest).map(|value| cut(value, 0, 32));
        }
        if let Some(value) = whole(name).filter(|_| name.len() == 2 && is_letters(name)) {
            return Some(cut(value, 0, 16));
        }
        let (stem, which) = name.split_at(name.len() - 1);
        match (which, stem) {
            ("h", "a" | "b" | "c" | "d") => whole(&format!("{stem}x")).map(|value| cut(value, 8, 8)),
            ("l", "a" | "b" | "c" | "d") => whole(&format!("{stem}x")).map(|value| cut(value, 0, 8)),
            ("l", "si" | "di" | "sp" | "bp") if self.bits() == 64 => {
                whole(stem).map(|value| cut(value, 0, 8))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_register_is_known_whole_and_in_part() {
        let mut bytes = vec![0; Context::LEN];
        let mut put = |at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        put(0x78, 0x1122_3344_5566_7788);
        put(0xb8, 0xffff_ffff_ffff_fff1);
        put(0xf8, 0xffff_f800_0141_b000);
        bytes[0x44..0x48].copy_from_slice(&0x246_u32.to_le_bytes());
        let registers = Registers::decode(MachineType::AMD64, &bytes).unwrap();
        let value = |name| registers.get(name).map(|register: Register| (register.value, register.bits));
        assert_eq!(value("RAX"), Some((0x1122_3344_5566_7788, 64)));
        assert_eq!(value("eax"), Some((0x5566_7788, 32)));
        assert_eq!(value("ax"), Some((0x7788, 16)));
        assert_eq!((value("al"), value("ah")), (Some((0x88, 8)), Some((0x77, 8))));
        assert_eq!((value("r8"), value("r8b")), (Some((u64::MAX - 14, 64)), Some((0xf1, 8))));
        assert_eq!((value("zf"), value("cf"), value("if")), (Some((1, 1)), Some((0, 1)), Some((1, 1))));
        assert_eq!(registers.program_counter(), VirtAddr(0xffff_f800_0141_b000));
        for unknown in
            ["", "r", "rr", "r16", "r7", "rz", "e", "xh", "é", "st0", "cr3", "dr4", "rdd", "10", "e8"]
        {
            assert_eq!(value(unknown), None, "{unknown}");
        }
        assert!(Registers::decode(MachineType::AMD64, &bytes[..1000]).is_none());
        assert!(Registers::decode(MachineType(0x200), &bytes).is_none());
    }

    #[test]
    fn a_register_of_arm64_has_its_own_names() {
        let mut bytes = vec![0; RegistersArm64::LEN];
        let mut put = |at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        for register in 0..33 {
            put(8 + 8 * register, 0xffff_f803_0000_0000 + register as u64);
        }
        put(0x310, 0x0000_0009_0000_0008);
        bytes[4..8].copy_from_slice(&0x8000_0144_u32.to_le_bytes());
        let registers = Registers::decode(MachineType::ARM64, &bytes).unwrap();
        let value = |name| registers.get(name).map(|register: Register| (register.value, register.bits));
        for (number, names) in [
            (0, &["x0", "X0"][..]),
            (28, &["x28"]),
            (29, &["x29", "fp"]),
            (30, &["lr", "x30"]),
            (31, &["sp"]),
        ] {
            for name in names {
                assert_eq!(value(name), Some((0xffff_f803_0000_0000 + number, 64)), "{name}");
            }
        }
        assert_eq!((value("w28"), value("psr")), (Some((28, 32)), Some((0x8000_0144, 32))));
        assert_eq!((value("fpcr"), value("fpsr")), (Some((8, 32)), Some((9, 32))));
        assert_eq!(registers.program_counter(), VirtAddr(0xffff_f803_0000_0020));
        for unknown in ["x31", "w31", "x", "x00", "x+1", "rax", "eip", "zf", "efl", "cs", "dr0", "é", "x1é"]
        {
            assert_eq!(value(unknown), None, "{unknown}");
        }
        assert!(Registers::decode(MachineType::ARM64, &bytes[..0x38f]).is_none());
    }

    #[test]
    fn a_register_of_x86_has_32_bits_and_no_name_of_x64() {
        let mut bytes = vec![0; ContextX86::LEN];
        let mut put = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        put(0x14, 0xffff_0ff0);
        put(0x90, 0xabcd_0030);
        put(0xb0, 0x1122_3344);
        put(0xb8, 0x8052_7bdc);
        put(0xc0, 0x3246);
        let registers = Registers::decode(MachineType::I386, &bytes).unwrap();
        let value = |name| registers.get(name).map(|register: Register| (register.value, register.bits));
        assert_eq!((value("EAX"), value("ax")), (Some((0x1122_3344, 32)), Some((0x3344, 16))));
        assert_eq!((value("al"), value("ah")), (Some((0x44, 8)), Some((0x33, 8))));
        assert_eq!((value("fs"), value("dr6")), (Some((0x30, 16)), Some((0xffff_0ff0, 32))));
        assert_eq!((value("zf"), value("cf"), value("iopl")), (Some((1, 1)), Some((0, 1)), Some((3, 2))));
        assert_eq!(registers.program_counter(), VirtAddr(0x8052_7bdc));
        for unknown in ["rax", "rip", "r8", "r8d", "sil", "spl", "mxcsr", "dr4", "e", "ex", "eeax", "é", "x"]
        {
            assert_eq!(value(unknown), None, "{unknown}");
        }
        assert!(Registers::decode(MachineType::I386, &bytes[..0x2cb]).is_none());
    }
}
