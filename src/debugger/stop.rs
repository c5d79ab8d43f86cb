//! A stop, described: why the target stopped, where, and whether it is a bug check.

use kd_protocol::MachineType;
use kd_protocol::kd::{NtStatus, StateChange, StateDetail};

use super::breakpoints::StopCause;
use crate::commands::{BugCheck, BugCheckQuery, InstructionLine, Query, instruction_at};
use crate::memory::VirtAddr;
use crate::target::{SymbolAt, Target};

/// A stop.
#[derive(Clone, Debug)]
pub struct Stop {
    /// As the target announced it.
    pub change: StateChange,
    /// Where it stopped, as wide as the target's addresses.
    pub program_counter: VirtAddr,
    /// Bytes of a pointer.
    pub pointer_size: usize,
    /// What is there.
    pub symbol: SymbolAt,
    /// The instruction there, if it is known.
    pub instruction: Option<InstructionLine>,
    /// Whether that was wanted.
    pub cause: StopCause,
    /// The bug check that it stopped for. A machine that does not say is taken to have none.
    pub bug_check: Option<BugCheck>,
    /// The driver that the bug check names, if it does.
    pub driver_at_fault: Option<String>,
}

impl Stop {
    pub(super) fn describe(change: &StateChange, target: &Target<'_>) -> Self {
        let program_counter = target.address(change.program_counter.0);
        let bug_check = BugCheckQuery.run(target).ok().filter(BugCheck::happened);
        Self {
            change: change.clone(),
            program_counter,
            pointer_size: target.pointer_size(),
            symbol: target.symbol_at(program_counter),
            instruction: instruction_at(target, program_counter, reported(change, target)),
            driver_at_fault: bug_check.as_ref().and_then(|it| it.driver_at_fault(target)),
            bug_check,
            cause: StopCause::Event,
        }
    }
}

/// The instruction of a breakpoint in x64 code.
pub(super) const INT3: u8 = 0xcc;

/// True for a stop at an exception with this code.
pub(super) fn is_exception(change: &StateChange, code: NtStatus) -> bool {
    matches!(&change.detail, StateDetail::Exception(it) if it.exception_code == code)
}

/// The bytes of the instruction that an x64 target reports with a stop; others lay the report out otherwise.
pub(super) fn reported<'a>(change: &'a StateChange, target: &Target<'_>) -> &'a [u8] {
    let report = &change.control_report;
    let is_known = target.kernel().version().machine == MachineType::AMD64;
    let count = usize::from(report.instruction_count).min(report.instruction_stream.len());
    &report.instruction_stream[..if is_known { count } else { 0 }]
}
