//! What makes a target stop at an address: breakpoints in its code, as the target itself keeps them, and debug registers.

use kd_protocol::VirtAddr;
use kd_protocol::kd::Manipulate;
use kd_protocol::link::RequestError;

use crate::memory::Access;

/// Breakpoints that a kernel has room for. Source: PROTOCOL.md 9.
pub const BREAKPOINT_SLOTS: u32 = 32;
/// Addresses that a processor's debug registers watch.
pub const DEBUG_REGISTERS: usize = 4;

/// A place at which the target stops for this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Armed {
    /// Where.
    pub address: VirtAddr,
    /// By what.
    pub by: ArmedBy,
}

/// What makes a target stop at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArmedBy {
    /// A breakpoint in its code, by the target's number for it: its slot and one. Nothing where its answer has not come.
    Code(Option<u32>),
    /// A debug register, the same of every processor.
    Register(DebugRegister),
}

/// A debug register and what it watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DebugRegister {
    /// 0 to 3.
    pub number: usize,
    /// For what it stops the processor.
    pub access: Access,
    /// Bytes: 1, 2, 4 or 8; 1 for an instruction.
    pub size: u8,
}

impl Armed {
    /// The debug register, if it is one.
    #[must_use]
    pub const fn register(&self) -> Option<DebugRegister> {
        match self.by {
            ArmedBy::Code(_) => None,
            ArmedBy::Register(register) => Some(register),
        }
    }
}

/// The debug control register that has the debug registers of `armed` watch, and no others.
///
/// ```text
///  bit 2n  debug register n is on        16 + 4n  0 execute, 1 write, 3 read or write        18 + 4n  0 1 3 2: 1 2 4 8 bytes
/// ```
/// Source: docs/execution.md 2; Intel's manual, volume 3, "Debug registers".
#[must_use]
pub fn debug_control(armed: &[Armed]) -> u64 {
    armed.iter().filter_map(Armed::register).fold(Manipulate::DR7_NONE, |control, register| {
        let DebugRegister { number, access, size } = register;
        let kind = match access {
            Access::Execute => 0,
            Access::Write => 1,
            Access::Read => 3,
        };
        let length = match size {
            2 => 1,
            4 => 3,
            8 => 2,
            _ => 0,
        };
        control | 1 << (2 * number) | (kind | length << 2) << (16 + 4 * number)
    })
}

/// Why a breakpoint was not set, or not taken out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BreakpointError {
    /// Not a target that runs code.
    #[error("this target is not debugged live")]
    NotLive,
    /// The target has no room for another, or has one there already.
    #[error(
        "the target refuses it: status {status:#010x}; it has room for {BREAKPOINT_SLOTS}, one at an address"
    )]
    Refused {
        /// The target's.
        status: u32,
    },
    /// The target has refused it, and nothing can be read there.
    #[error(
        "the target refuses it: status {status:#010x}; nothing is mapped there, as a read shows: a wrong address, code that is paged \
         out, or a driver's INIT section, which is gone once the driver has started"
    )]
    NotMapped {
        /// The target's.
        status: u32,
    },
    /// The debug registers of a processor cannot be read or written.
    #[error(
        "the target does not give its debug registers away: status {status:#010x} on processor {processor}"
    )]
    NoRegisters {
        /// Of which processor.
        processor: u16,
        /// The target's.
        status: u32,
    },
    /// It did not answer, or runs.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// What stays behind in a target that could not be reached, and how it is taken away. Its pointers have `pointer_size` bytes.
#[must_use]
pub fn breakpoints_stay(armed: &[Armed], pointer_size: usize) -> String {
    let width = 2 * pointer_size;
    let shown = |fits: fn(ArmedBy) -> bool| {
        let those = armed.iter().filter(|it| fits(it.by));
        those.map(|it| format!("{:0width$x}", it.address.0)).collect::<Vec<_>>().join(", ")
    };
    let written = shown(|by| matches!(by, ArmedBy::Code(Some(_))));
    // The request that writes one was not answered.
    let doubtful = shown(|by| matches!(by, ArmedBy::Code(None)));
    let registers = shown(|by| matches!(by, ArmedBy::Register(_)));
    let mut told = Vec::new();
    let taken_out = "Attach again: verikd takes them out when it meets one. With WinDbg: bc *";
    if !written.is_empty() {
        told.push(format!(
            "breakpoints are still in its code ({written}), so that it stops there and waits for a debugger. {taken_out}"
        ));
    }
    if !doubtful.is_empty() {
        told.push(format!(
            "breakpoints may be in its code ({doubtful}): whether the target wrote them is not known, as it did not answer. Where it did, \
             it stops there and waits for a debugger. {taken_out}"
        ));
    }
    if !registers.is_empty() {
        told.push(format!(
            "its debug registers still watch {registers}, so that it stops for an access and waits for a debugger. Attach again: they \
             are switched off whenever verikd lets it run"
        ));
    }
    told.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_breakpoint_whose_request_was_not_answered_it_is_said_that_it_may_be_there() {
        let armed = |address, handle| Armed { address: VirtAddr(address), by: ArmedBy::Code(handle) };
        let told = breakpoints_stay(&[armed(0x1000, Some(1)), armed(0x2000, None)], 4);
        assert!(told.starts_with("breakpoints are still in its code (00001000), "), "{told}");
        assert!(told.contains("; breakpoints may be in its code (00002000): "), "{told}");
        let told = breakpoints_stay(&[armed(0x2000, None)], 8);
        assert!(told.starts_with("breakpoints may be in its code (0000000000002000): "), "{told}");
        assert!(!told.contains("still"), "{told}");
    }

    #[test]
    fn the_control_register_has_what_each_debug_register_watches() {
        let armed = |number, access, size| Armed {
            address: VirtAddr(0x1000),
            by: ArmedBy::Register(DebugRegister { number, access, size }),
        };
        assert_eq!(debug_control(&[]), 0x400);
        assert_eq!(debug_control(&[Armed { address: VirtAddr(1), by: ArmedBy::Code(Some(1)) }]), 0x400);
        assert_eq!(debug_control(&[armed(0, Access::Execute, 1)]), 0x401);
        // What Windows programs have there for a write of four bytes by the first register.
        assert_eq!(debug_control(&[armed(0, Access::Write, 4)]), 0xd_0401);
        assert_eq!(debug_control(&[armed(1, Access::Read, 8), armed(3, Access::Write, 2)]), 0x50b0_0444);
    }
}
