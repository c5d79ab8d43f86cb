//! Where a register lies in a machine's `CONTEXT`, for whoever changes it. Source: PROTOCOL.md 12; for ARM64 the Windows SDK's
//! `winnt.h`.

use kd_protocol::MachineType;

/// A register's bits in a `CONTEXT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterPlace {
    offset: usize,
    /// Bytes of the word that it is in.
    bytes: usize,
    /// The lowest of its bits in that word.
    shift: u32,
    /// How many it has.
    pub bits: u32,
}

const X64: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];
/// The last of the general ones is the program counter.
const X86: [(&str, usize); 9] = [
    ("edi", 0x9c),
    ("esi", 0xa0),
    ("ebx", 0xa4),
    ("edx", 0xa8),
    ("ecx", 0xac),
    ("eax", 0xb0),
    ("ebp", 0xb4),
    ("eip", 0xb8),
    ("esp", 0xc4),
];
/// Flags of x86 and x64 that are written, and their bits in EFlags. Not `tf`: a step would be nobody's.
const FLAGS: [(&str, u32); 8] =
    [("cf", 0), ("pf", 2), ("af", 4), ("zf", 6), ("sf", 7), ("if", 9), ("df", 10), ("of", 11)];

/// The register that WinDbg calls `$ip`, `$csp` or `$retreg` (without the dollar sign here), whatever the machine.
#[must_use]
pub fn pseudo_register(machine: MachineType, name: &str) -> Option<&'static str> {
    let [ip, csp, retreg] = match machine {
        MachineType::ARM64 => ["pc", "sp", "x0"],
        MachineType::I386 => ["eip", "esp", "eax"],
        _ => ["rip", "rsp", "rax"],
    };
    match name {
        "ip" => Some(ip),
        "csp" => Some(csp),
        "retreg" => Some(retreg),
        _ => None,
    }
}

impl RegisterPlace {
    /// Of the register that is called so, in any case: general ones and their parts, the program counter, the flags. Segments,
    /// debug registers and those of floating point have none here.
    #[must_use]
    pub fn of(machine: MachineType, name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        match machine {
            MachineType::AMD64 => {
                Self::flag(&name, 0x44).or_else(|| Self::whole_x64(&name)).or_else(|| Self::part_x64(&name))
            }
            MachineType::I386 => {
                Self::flag(&name, 0xc0).or_else(|| Self::whole_x86(&name)).or_else(|| Self::part_x86(&name))
            }
            MachineType::ARM64 => Self::of_arm64(&name),
            _ => None,
        }
    }

    /// Writes its bits, and leaves the others of its word as they are.
    pub(super) fn put(self, context: &mut [u8], value: u64) {
        let Some(word) = context.get_mut(self.offset..self.offset + self.bytes) else { return };
        let mut whole = [0; 8];
        whole[..self.bytes].copy_from_slice(word);
        let mask = (u64::MAX >> (64 - self.bits)) << self.shift;
        let changed = u64::from_le_bytes(whole) & !mask | value << self.shift & mask;
        word.copy_from_slice(&changed.to_le_bytes()[..self.bytes]);
    }

    const fn wide(offset: usize, bytes: usize) -> Self {
        Self { offset, bytes, shift: 0, bits: bytes as u32 * 8 }
    }

    fn flag(name: &str, offset: usize) -> Option<Self> {
        let word = Self::wide(offset, 4);
        match name {
            "efl" | "eflags" => return Some(word),
            "iopl" => return Some(Self { shift: 12, bits: 2, ..word }),
            _ => {}
        }
        FLAGS.iter().find(|(flag, _)| *flag == name).map(|(_, bit)| Self { shift: *bit, bits: 1, ..word })
    }

    fn whole_x64(name: &str) -> Option<Self> {
        if name == "rip" {
            return Some(Self::wide(0xf8, 8));
        }
        X64.iter().position(|known| *known == name).map(|number| Self::wide(0x78 + 8 * number, 8))
    }

    fn whole_x86(name: &str) -> Option<Self> {
        X86.iter().find(|(known, _)| *known == name).map(|(_, at)| Self::wide(*at, 4))
    }

    /// `eax`, `ax`, `al`, `ah`, `r8d`, `r8w`, `r8b`, `sil`.
    fn part_x64(name: &str) -> Option<Self> {
        let numbered = X64[8..].iter().find_map(|whole| Some((*whole, name.strip_prefix(whole)?)));
        if let Some((whole, width)) = numbered.filter(|(_, width)| width.len() == 1) {
            let bits = match width {
                "d" => 32,
                "w" => 16,
                "b" => 8,
                _ => return None,
            };
            return Self::whole_x64(whole).map(|place| Self { bits, ..place });
        }
        let stem = name.strip_prefix('e').unwrap_or(name);
        if let Some(place) = Self::whole_x64(&format!("r{stem}")).filter(|_| stem.len() == 2) {
            let is_wide = stem.len() < name.len();
            let is_letters = stem.bytes().all(|byte| byte.is_ascii_alphabetic());
            return is_letters.then_some(Self { bits: if is_wide { 32 } else { 16 }, ..place });
        }
        let low = name.strip_suffix('l').filter(|stem| matches!(*stem, "si" | "di" | "sp" | "bp"));
        if let Some(stem) = low {
            return Self::whole_x64(&format!("r{stem}")).map(|place| Self { bits: 8, ..place });
        }
        Self::byte(name, |stem| Self::whole_x64(&format!("r{stem}x")))
    }

    fn part_x86(name: &str) -> Option<Self> {
        if let Some(place) = Self::whole_x86(&format!("e{name}")).filter(|_| name.len() == 2) {
            return Some(Self { bits: 16, ..place });
        }
        Self::byte(name, |stem| Self::whole_x86(&format!("e{stem}x")))
    }

    fn byte(name: &str, whole: impl Fn(&str) -> Option<Self>) -> Option<Self> {
        let shift = match name {
            "al" | "bl" | "cl" | "dl" => 0,
            "ah" | "bh" | "ch" | "dh" => 8,
            _ => return None,
        };
        whole(&name[..1]).map(|place| Self { shift, bits: 8, ..place })
    }

    fn of_arm64(name: &str) -> Option<Self> {
        let number = match name {
            "fp" => 29,
            "lr" => 30,
            "sp" => 31,
            "pc" => 32,
            "psr" | "cpsr" => return Some(Self::wide(4, 4)),
            _ => {
                let digits = name.strip_prefix('x')?;
                let number: usize = digits.parse().ok()?;
                // Written so, and no otherwise.
                if number > 30 || number.to_string() != digits {
                    return None;
                }
                number
            }
        };
        Some(Self::wide(8 + 8 * number, 8))
    }
}

#[cfg(test)]
mod tests {
    use super::super::registers::Registers;
    use super::*;

    /// Every register that can be written is the one that is read by its name, and writing it changes no other bit.
    #[test]
    fn what_is_written_is_what_is_read() {
        let machines: [(MachineType, &[&str]); 3] = [
            (
                MachineType::AMD64,
                &[
                    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", "rip", "r8", "r9", "r10", "r11",
                    "r12", "r13", "r14", "r15", "eax", "esi", "ax", "bp", "al", "ah", "ch", "sil", "spl",
                    "r8d", "r9w", "r15b", "efl", "zf", "cf", "of", "df", "if", "iopl",
                ],
            ),
            (
                MachineType::I386,
                &[
                    "eax", "ebx", "ecx", "edx", "esi", "edi", "esp", "ebp", "eip", "ax", "sp", "al", "dh",
                    "efl", "zf",
                ],
            ),
            (MachineType::ARM64, &["x0", "x1", "x28", "x29", "fp", "lr", "sp", "pc", "psr"]),
        ];
        for (machine, names) in machines {
            for name in names {
                for fill in [0x00, 0xff] {
                    let mut context = vec![fill; Registers::context_len(machine).unwrap()];
                    let place = RegisterPlace::of(machine, name).unwrap();
                    let value = 0x1122_3344_5566_7788 ^ if fill == 0 { u64::MAX } else { 0 };
                    place.put(&mut context, value);
                    let read = Registers::decode(machine, &context).unwrap().get(name).unwrap();
                    let mask = u64::MAX >> (64 - read.bits);
                    assert_eq!((read.value, read.bits), (value & mask, place.bits), "{name} of {machine}");
                    let changed = context.iter().filter(|byte| **byte != fill).count();
                    assert!(changed <= read.bits.div_ceil(8) as usize, "{name} of {machine}: {changed}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_written_has_no_place() {
        for name in [
            "cs", "dr7", "tf", "mxcsr", "r16", "r8x", "eaxx", "r", "e", "x", "", "é", "rr8", "er8", "10",
            "e8d",
        ] {
            assert_eq!(RegisterPlace::of(MachineType::AMD64, name), None, "{name}");
        }
        for name in ["rax", "r8", "sil", "cs", "e", "eeax"] {
            assert_eq!(RegisterPlace::of(MachineType::I386, name), None, "{name}");
        }
        for name in ["x31", "x00", "x+1", "w0", "rax"] {
            assert_eq!(RegisterPlace::of(MachineType::ARM64, name), None, "{name}");
        }
        assert_eq!(RegisterPlace::of(MachineType(0x200), "rax"), None);
    }
}
