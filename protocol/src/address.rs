//! Addresses in the target: two kinds that must never be mixed up.

use std::fmt;

/// Sixteen digits with a backtick, whatever the target: see [`VirtAddr::wide`].
#[derive(Clone, Copy, Debug)]
pub struct Wide(u64);

impl fmt::Display for Wide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}`{:08x}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The address `bytes` further on, wrapping at 2^64 as a CPU would.
            #[must_use]
            pub const fn offset(self, bytes: u64) -> Self {
                Self(self.0.wrapping_add(bytes))
            }

            /// How many bytes `self` lies above `base`, wrapping below it.
            #[must_use]
            pub const fn since(self, base: Self) -> u64 {
                self.0.wrapping_sub(base.0)
            }

            /// Prints as WinDbg does of a 64-bit target: ``fffff807`1c2d3000``. An address alone does not print: how many
            /// digits it has depends on its target.
            #[must_use]
            pub const fn wide(self) -> Wide {
                Wide(self.0)
            }

            /// True for address 0, the kernel's "none".
            #[must_use]
            pub const fn is_null(self) -> bool {
                self.0 == 0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.wide(), f)
            }
        }

        /// Plain hexadecimal digits, for `%p` columns: `{:016x}`.
        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

address! {
    /// A virtual address in the target, translated by the page tables of the CPU that stopped.
    VirtAddr
}

address! {
    /// A physical address in the target.
    PhysAddr
}

impl fmt::Display for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.wide(), f)
    }
}

impl VirtAddr {
    /// True where x64 puts the kernel: the upper half, sign-extended from bit 47.
    #[must_use]
    pub const fn is_kernel(self) -> bool {
        self.0 >= 0xffff_8000_0000_0000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_prints_with_windbgs_backtick() {
        assert_eq!(VirtAddr(0xffff_f807_1c2d_3000).wide().to_string(), "fffff807`1c2d3000");
        assert_eq!(PhysAddr(0x1a_b000).to_string(), "00000000`001ab000");
        assert_eq!(format!("{:016x}", VirtAddr(0x10)), "0000000000000010");
    }

    #[test]
    fn only_the_canonical_upper_half_is_kernel() {
        assert!(VirtAddr(0xffff_8000_0000_0000).is_kernel());
        assert!(!VirtAddr(0x7fff_ffff_ffff).is_kernel());
        assert!(!VirtAddr(0xffff_7fff_ffff_ffff).is_kernel());
    }
}
