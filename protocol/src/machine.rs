//! Kinds of machines, as PE headers and KD number them.

use std::fmt;

/// Kind of a machine: `DBGKD_GET_VERSION64.MachineType`, `IMAGE_FILE_HEADER.Machine`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct MachineType(pub u16);

impl MachineType {
    /// 32-bit x86.
    pub const I386: Self = Self(0x14c);
    /// 32-bit ARM.
    pub const ARMNT: Self = Self(0x1c4);
    /// x64.
    pub const AMD64: Self = Self(0x8664);
    /// 64-bit ARM.
    pub const ARM64: Self = Self(0xaa64);

    /// In a word; nothing for one that is not known.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::I386 => Some("x86"),
            Self::ARMNT => Some("ARM"),
            Self::AMD64 => Some("x64"),
            Self::ARM64 => Some("ARM64"),
            _ => None,
        }
    }

    /// Bytes of a pointer; 8 for one that is not known.
    #[must_use]
    pub const fn pointer_size(self) -> usize {
        if matches!(self, Self::I386 | Self::ARMNT) { 4 } else { 8 }
    }
}

/// The name, or the number.
impl fmt::Display for MachineType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "machine {:#x}", self.0),
        }
    }
}

impl fmt::Debug for MachineType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_machine_prints_its_number_and_has_wide_pointers() {
        let shown = [MachineType::AMD64, MachineType::I386, MachineType(0x5064)].map(|it| it.to_string());
        assert_eq!(shown, ["x64", "x86", "machine 0x5064"]);
        assert_eq!(
            [MachineType::ARMNT, MachineType::ARM64, MachineType(0x5064)].map(MachineType::pointer_size),
            [4, 8, 8]
        );
    }
}
