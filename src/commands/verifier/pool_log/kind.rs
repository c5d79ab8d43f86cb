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

use super::super::frames::Frame;

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

/// Beginnings of the kernel's routines that are Driver Verifier's.
const VERIFIER: [&str; 5] = ["Ve", "Vf", "Vi", "Iov", "Xdv"];

/// Allocation or free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
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
    pub(in super::super) fn of(stack: &[Frame]) -> Self {
        for (depth, frame) in stack.iter().enumerate() {
            match Routine::of(frame) {
                None => return Self::Unknown,
                Some(Routine::Driver) => return if depth == 0 { Self::Free } else { Self::Unknown },
                Some(Routine::Allocates(_)) => return Self::Allocation,
                Some(Routine::Frees) => return Self::Free,
                Some(Routine::Verifier | Routine::Kernel) => {}
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

/// What a frame of a stack is, as far as it tells an event.
enum Routine<'a> {
    /// Of the kernel or of VerifierExt: it allocates.
    Allocates(&'a str),
    /// It frees.
    Frees,
    /// Driver Verifier's own, which neither allocates nor frees.
    Verifier,
    /// Any other of the kernel's.
    Kernel,
    /// Another module's.
    Driver,
}

impl<'a> Routine<'a> {
    /// Nothing if the frame has no symbol.
    fn of(frame: &'a Frame) -> Option<Self> {
        let at = frame.symbol.as_deref()?;
        // Who was unloaded was a driver.
        let module = at.module.as_deref().unwrap_or_default();
        let routine = at.symbol.as_deref().unwrap_or_default();
        let begins = |names: &[&str]| names.iter().any(|name| routine.starts_with(name));
        Some(match module {
            _ if !KERNEL.contains(&module) => Self::Driver,
            _ if begins(&ALLOCATES) => Self::Allocates(routine),
            _ if begins(&FREES) => Self::Frees,
            "nt" if !begins(&VERIFIER) => Self::Kernel,
            _ => Self::Verifier,
        })
    }
}

/// What the routine that logged the event did with pool: nothing if it isn't known by name, or logged anything else.
pub(in super::super) fn begins(stack: &[Frame]) -> Option<Kind> {
    match Routine::of(stack.first()?)? {
        Routine::Allocates(routine) if routine.contains("Pool") => Some(Kind::Allocation),
        Routine::Frees => Some(Kind::Free),
        _ => None,
    }
}

/// True if a frame is known to be one of those that stand between a driver and the log.
pub(in super::super) fn is_of_kernel(frame: &Frame) -> bool {
    !matches!(Routine::of(frame), None | Some(Routine::Driver))
}

/// True if a stack begins as an allocation's or a free's and goes on as another event's.
///
/// Between whoever allocates and the driver stand Driver Verifier's own routines; of the kernel's other routines none does,
/// and none that frees. No free is made on behalf of an allocation.
pub(in super::super) fn is_mixed(stack: &[Frame]) -> bool {
    let mut routines = stack.iter().map_while(Routine::of);
    match routines.next() {
        Some(Routine::Allocates(_)) => {
            let mut others =
                routines.skip_while(|it| matches!(it, Routine::Allocates(_) | Routine::Verifier));
            matches!(others.next(), Some(Routine::Kernel | Routine::Frees))
        }
        Some(Routine::Frees) => {
            let mut others = routines.skip_while(|it| matches!(it, Routine::Frees | Routine::Verifier));
            matches!(others.next(), Some(Routine::Allocates(_)))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_shows_who_wrote_the_entry() {
        let kind = |names: &[&str]| {
            let frame = |name: &&str| Frame::called(name);
            Kind::of(&names.iter().map(frame).collect::<Vec<_>>())
        };
        assert_eq!(kind(&["nt!VeAllocatePoolWithTagPriority", "myfault!Control"]), Kind::Allocation);
        let wrapper = "VerifierExt!ExAllocatePoolWithTagPriority_internal_wrapper";
        assert_eq!(kind(&[wrapper, "nt!VerifierExAllocatePoolWithTag"]), Kind::Allocation);
        assert_eq!(kind(&["nt!ExFreePoolWithTag", "ndis!Free"]), Kind::Free);
        assert_eq!(kind(&["ndis!ndisFreeToNPagedPool", "ndis!ndisPplFree"]), Kind::Free);
        assert_eq!(kind(&["ndis", "ndis"]), Kind::Free);
        assert_eq!(kind(&["nt!IopXxxControlFile"]), Kind::Unknown);
        assert_eq!(kind(&["nt", "myfault!Control"]), Kind::Unknown, "no symbols");
        assert_eq!(kind(&[]), Kind::Unknown);
    }
}
