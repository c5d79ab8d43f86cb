//! What an entry of the pool log is about: the kernel keeps no such field, but who wrote the entry shows in its stack.
//!
//! ```text
//!  nt!VeAllocatePoolWithTagPriority+0x2b6       the routine that logged it: an allocation
//!  nt!VerifierExAllocatePoolEx+0x1d
//!  myfault!MyfaultDeviceControl+0x358           the driver
//!
//!  nt!ExFreePoolWithTag+0x8c                    a free
//!  ndis!ndisFreeToNPagedPool+0x39               a free too: an allocation never begins in a driver
//! ```
//! Source: verifier.md 4.2, verifier-samples.md S4c.

use serde::Serialize;

use super::Frame;

/// Whose routines stand between a driver and the log.
const KERNEL: [&str; 2] = ["nt", "VerifierExt"];
/// Beginnings of routines that allocate; also what is logged alike: descriptor lists, mapped and contiguous memory.
const ALLOCATES: [&str; 10] = [
    "VeAllocatePool",
    "VfHandlePoolAlloc",
    "VerifierExAllocatePool",
    "VerifierMmAllocate",
    "VerifierMmMap",
    "IovAllocate",
    "ExAllocatePool",
    "ExAllocateHeapPool",
    "MmAllocate",
    "MmMap",
];
/// Beginnings of routines that free.
const FREES: [&str; 6] =
    ["ExFreePool", "ExFreeHeapPool", "ExpFreePoolChecks", "VerifierExFreePool", "VeFreePool", "VfFreePool"];

/// Allocation or free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A block was allocated.
    Allocation,
    /// A block was freed.
    Free,
    /// The stack is empty, has no symbols or is not known.
    Unknown,
}

impl Kind {
    /// What a stack says.
    pub(super) fn of(stack: &[Frame]) -> Self {
        for (depth, frame) in stack.iter().enumerate() {
            let Some(symbol) = frame.symbol.as_deref() else { return Self::Unknown };
            // A module without symbols prints as `myfault+0x634`.
            let alone = || (symbol.split_once('+').map_or(symbol, |(module, _)| module), "");
            let (module, routine) = symbol.split_once('!').unwrap_or_else(alone);
            if !KERNEL.contains(&module) {
                return if depth == 0 { Self::Free } else { Self::Unknown };
            }
            let begins = |names: &[&str]| names.iter().any(|name| routine.starts_with(name));
            if begins(&ALLOCATES) {
                return Self::Allocation;
            }
            if begins(&FREES) {
                return Self::Free;
            }
        }
        Self::Unknown
    }

    /// As the text has it.
    pub(in super::super) const fn word(self) -> &'static str {
        match self {
            Self::Allocation => "allocation",
            Self::Free => "free",
            Self::Unknown => "allocation or free",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::VirtAddr;

    #[test]
    fn a_stack_shows_who_wrote_the_entry() {
        let kind = |names: &[&str]| {
            let frame = |name: &&str| Frame { address: VirtAddr(1), symbol: Some((*name).into()) };
            Kind::of(&names.iter().map(frame).collect::<Vec<_>>())
        };
        assert_eq!(kind(&["nt!VeAllocatePoolWithTagPriority+0x2b6", "myfault!Control"]), Kind::Allocation);
        let wrapper = "VerifierExt!ExAllocatePoolWithTagPriority_internal_wrapper+0x5b";
        assert_eq!(kind(&[wrapper, "nt!VerifierExAllocatePoolWithTag+0x24"]), Kind::Allocation);
        assert_eq!(kind(&["nt!ExFreePoolWithTag+0x8c", "ndis!Free"]), Kind::Free);
        assert_eq!(kind(&["ndis!ndisFreeToNPagedPool+0x39", "ndis!ndisPplFree+0x47"]), Kind::Free);
        assert_eq!(kind(&["ndis+0x39", "ndis+0x47"]), Kind::Free);
        assert_eq!(kind(&["nt!IopXxxControlFile+0x607"]), Kind::Unknown);
        assert_eq!(kind(&["nt+0x1234", "myfault!Control"]), Kind::Unknown, "no symbols");
        assert_eq!(kind(&[]), Kind::Unknown);
    }
}
