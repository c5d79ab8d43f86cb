//! How wide a target's addresses are.
//!
//! KD's requests and answers have 64 bits for an address on every machine, and on a 32-bit one it is sign-extended there:
//! `0xffffffff84226b28`. What lies in such a target's memory, and what a user types, has 32 bits. Inside verikd an address
//! of a 32-bit target never has an upper half, so that the two forms compare; its kernel drops the upper half anyway.

use kd_protocol::MachineType;

use crate::memory::{Address as Place, VirtAddr};
use crate::output::Address;

/// How wide a target's addresses are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Bits32,
    Bits64,
}

impl Width {
    /// That of a machine.
    pub(super) const fn of(machine: MachineType) -> Self {
        if machine.pointer_size() == 4 { Self::Bits32 } else { Self::Bits64 }
    }

    /// Bytes of a pointer.
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::Bits32 => 4,
            Self::Bits64 => 8,
        }
    }

    /// The address as it prints.
    pub(super) const fn shown(self, address: VirtAddr) -> Address {
        Address { address, pointer_size: self.bytes() }
    }

    /// Where a read failed, as it prints.
    pub(super) const fn place(self, place: Place) -> Place {
        match place {
            Place::Virtual(address) => Place::of_target(address, self.bytes()),
            place => place,
        }
    }

    /// The address without what its target does not have.
    pub(super) const fn cut(self, address: VirtAddr) -> VirtAddr {
        match self {
            Self::Bits32 => VirtAddr(address.0 & 0xffff_ffff),
            Self::Bits64 => address,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_32_bit_targets_addresses_lose_the_sign_that_kd_gave_them() {
        let x86 = Width::of(MachineType::I386);
        assert_eq!((x86.bytes(), x86.cut(VirtAddr(0xffff_ffff_8422_6b28))), (4, VirtAddr(0x8422_6b28)));
        let x64 = Width::of(MachineType::AMD64);
        let kernel = VirtAddr(0xffff_ffff_8422_6b28);
        assert_eq!((x64.bytes(), x64.cut(kernel)), (8, kernel));
    }
}
