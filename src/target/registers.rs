//! The registers of an x64 CPU by the names that WinDbg knows them by.

use kd_protocol::kd::Context;
use kd_protocol::wire::Reader;

use crate::memory::VirtAddr;

/// What a CPU's registers held when it stopped.
#[derive(Clone, Debug)]
pub struct Registers {
    context: Context,
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
    /// The registers in a `CONTEXT`; nothing if it is cut off.
    pub(super) fn decode(context: &[u8]) -> Option<Self> {
        let context = Context::decode(&mut Reader::new("CONTEXT", context)).ok()?;
        Some(Self { context })
    }

    /// The program counter.
    #[must_use]
    pub const fn rip(&self) -> VirtAddr {
        self.context.rip
    }

    /// The flags register.
    #[must_use]
    pub const fn eflags(&self) -> u32 {
        self.context.e_flags
    }

    /// The register called `name`, in any case: `rax`, `eax`, `ax`, `al`, `r8d`, `efl`, `cs`, `dr7`, `zf`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Register> {
        let name = name.to_ascii_lowercase();
        let context = &self.context;
        if let Some(value) = self.general(&name) {
            return Some(Register { value, bits: 64 });
        }
        let segment = |value: u16| Some(Register { value: value.into(), bits: 16 });
        match name.as_str() {
            "efl" | "eflags" => return Some(Register { value: context.e_flags.into(), bits: 32 }),
            "cs" => return segment(context.seg_cs),
            "ds" => return segment(context.seg_ds),
            "es" => return segment(context.seg_es),
            "fs" => return segment(context.seg_fs),
            "gs" => return segment(context.seg_gs),
            "ss" => return segment(context.seg_ss),
            "dr6" => return Some(Register { value: context.dr6, bits: 64 }),
            "dr7" => return Some(Register { value: context.dr7, bits: 64 }),
            "iopl" => return Some(Register { value: u64::from(context.e_flags >> 12 & 3), bits: 2 }),
            "mxcsr" => return Some(Register { value: context.mx_csr.into(), bits: 32 }),
            _ => {}
        }
        if let Some(index) = name.strip_prefix("dr").and_then(|index| index.parse::<usize>().ok()) {
            return context.dr0_to_3.get(index).map(|value| Register { value: *value, bits: 64 });
        }
        if let Some((_, bit)) = FLAGS.iter().find(|(flag, _)| *flag == name) {
            return Some(Register { value: u64::from(context.e_flags >> bit & 1), bits: 1 });
        }
        self.part(&name)
    }

    fn general(&self, name: &str) -> Option<u64> {
        let context = &self.context;
        Some(match name {
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
        })
    }

    /// A part of a 64-bit register: `eax`, `ax`, `al`, `ah`, `r8d`, `r8w`, `r8b`.
    fn part(&self, name: &str) -> Option<Register> {
        let cut =
            |value: u64, shift: u32, bits: u32| Register { value: value >> shift & ((1 << bits) - 1), bits };
        let whole = |name: &str| self.general(name);
        if name.as_bytes().get(1).is_none_or(|second| second.is_ascii_digit() && !name.starts_with('r')) {
            return None;
        }
        if name.starts_with('r') {
            let (number, bits) = match name.as_bytes().last()? {
                b'd' => (&name[..name.len() - 1], 32),
                b'w' => (&name[..name.len() - 1], 16),
                b'b' => (&name[..name.len() - 1], 8),
                _ => return None,
            };
            return whole(number).map(|value| cut(value, 0, bits));
        }
        if let Some(rest) = name.strip_prefix('e') {
            return whole(&format!("r{rest}")).map(|value| cut(value, 0, 32));
        }
        let is_word = name.len() == 2 && name.bytes().all(|byte| byte.is_ascii_alphabetic());
        if let Some(value) = whole(&format!("r{name}")).filter(|_| is_word) {
            return Some(cut(value, 0, 16));
        }
        let stem = name.get(..name.len().checked_sub(1)?)?;
        match name.as_bytes().last()? {
            b'h' if matches!(stem, "a" | "b" | "c" | "d") => {
                whole(&format!("r{stem}x")).map(|value| cut(value, 8, 8))
            }
            b'l' if matches!(stem, "a" | "b" | "c" | "d") => {
                whole(&format!("r{stem}x")).map(|value| cut(value, 0, 8))
            }
            b'l' if matches!(stem, "si" | "di" | "sp" | "bp") => {
                whole(&format!("r{stem}")).map(|value| cut(value, 0, 8))
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
        let registers = Registers::decode(&bytes).unwrap();
        let value = |name| registers.get(name).map(|register: Register| (register.value, register.bits));
        assert_eq!(value("RAX"), Some((0x1122_3344_5566_7788, 64)));
        assert_eq!(value("eax"), Some((0x5566_7788, 32)));
        assert_eq!(value("ax"), Some((0x7788, 16)));
        assert_eq!((value("al"), value("ah")), (Some((0x88, 8)), Some((0x77, 8))));
        assert_eq!((value("r8"), value("r8b")), (Some((u64::MAX - 14, 64)), Some((0xf1, 8))));
        assert_eq!((value("zf"), value("cf"), value("if")), (Some((1, 1)), Some((0, 1)), Some((1, 1))));
        assert_eq!(registers.rip(), VirtAddr(0xffff_f800_0141_b000));
        for unknown in
            ["", "r", "rr", "r16", "r7", "rz", "e", "xh", "é", "st0", "cr3", "dr4", "rdd", "10", "e8"]
        {
            assert_eq!(value(unknown), None, "{unknown}");
        }
        assert!(Registers::decode(&bytes[..1000]).is_none());
    }
}
