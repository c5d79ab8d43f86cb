//! What a stop needs so that the target goes on from it instead of stopping there again.
//!
//! | the stop | program counter | status of Continue |
//! |---|---|---|
//! | a break-in, a hard-coded breakpoint (`80000003` at an `int3`) | behind the instruction | `DBG_CONTINUE` |
//! | a failed assertion (`c0000420` at an `int 2c`) | behind the instruction | `DBG_CONTINUE` |
//! | a step (`80000004`) | stays | `DBG_CONTINUE` |
//! | a module was loaded, anything that is no exception | stays | `DBG_CONTINUE` |
//! | any other exception (an access violation) | stays | `DBG_EXCEPTION_NOT_HANDLED` |
//!
//! The context that a target would continue with points at the breakpoint instruction itself, so that continued as it is,
//! it stops there again at once. An exception that nobody has mended is the target's own to handle: called handled, the
//! same instruction would run into it again for ever. Source: PROTOCOL.md 14, "Going on from a stop".

use bytes::Bytes;
use kd_protocol::kd::{Arm, Manipulate, NtStatus, StateChange, StateDetail};
use kd_protocol::link::RequestError;
use kd_protocol::{MachineType, VirtAddr};

use super::context::{self, Layout};

/// How a stop is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leaving {
    /// What Continue says.
    pub(super) status: NtStatus,
    /// The program counter is moved behind the instruction that it is at, if it is one of these.
    skips: Option<Skips>,
}

/// Instructions that stop a machine, and that are left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Skips {
    Breakpoint,
    Assertion,
}

/// Status of a failed assertion: `STATUS_ASSERTION_FAILURE`.
pub(super) const ASSERTION_FAILURE: NtStatus = NtStatus(0xc000_0420);

impl Leaving {
    pub(super) fn of(change: &StateChange) -> Self {
        let goes_on = |skips| Self { status: NtStatus::DBG_CONTINUE, skips };
        let StateDetail::Exception(exception) = &change.detail else { return goes_on(None) };
        match exception.exception_code {
            NtStatus::BREAKPOINT => goes_on(Some(Skips::Breakpoint)),
            ASSERTION_FAILURE => goes_on(Some(Skips::Assertion)),
            NtStatus::SINGLE_STEP => goes_on(None),
            _ => Self { status: NtStatus::DBG_EXCEPTION_NOT_HANDLED, skips: None },
        }
    }

    /// Moves the program counter where the stop needs it. `machine` is what the target says of itself. By how many bytes; nothing
    /// if it has stayed.
    ///
    /// # Errors
    /// `request`'s: the target does not answer, or runs. A target that refuses its context is continued as it is.
    pub(super) fn prepare(
        self,
        change: &StateChange,
        machine: MachineType,
        mut request: impl FnMut(Manipulate) -> Result<Manipulate, RequestError>,
    ) -> Result<Option<u64>, RequestError> {
        let (Some(skips), Some(layout)) = (self.skips, Layout::of(machine)) else { return Ok(None) };
        let at = instruction_at(change, &layout, &mut request)?;
        let Some(len) = skips.len(machine, &at) else { return Ok(None) };
        let Some(mut context) = context::read(change.processor, &layout, &mut request)? else {
            return Ok(None);
        };
        if context.program_counter(&layout) != Some(layout.cut(change.program_counter)) {
            // Somebody has moved it already.
            return Ok(None);
        }
        context.set_program_counter(&layout, change.program_counter.offset(len));
        context::write(change.processor, &context, request)?;
        Ok(Some(len))
    }
}

/// The stop that a processor is in whose program counter was moved over the instruction that stopped it, which is all that a step
/// there does.
pub(super) fn stepped_over(change: &StateChange, len: u64) -> StateChange {
    let mut stepped = change.clone();
    stepped.program_counter = change.program_counter.offset(len);
    if let StateDetail::Exception(exception) = &mut stepped.detail {
        exception.exception_code = NtStatus::SINGLE_STEP;
        exception.exception_address = stepped.program_counter;
    }
    let report = &mut stepped.control_report;
    let (skipped, known) = (len as usize, usize::from(report.instruction_count));
    report.dr6 = 0;
    report.instruction_stream.copy_within(skipped.., 0);
    report.instruction_count = known.saturating_sub(skipped) as u16;
    stepped
}

impl Skips {
    /// Bytes of the instruction at the program counter, if it is one that is skipped.
    fn len(self, machine: MachineType, bytes: &[u8]) -> Option<u64> {
        const INT3: &[u8] = &[0xcc];
        const INT_2C: &[u8] = &[0xcd, 0x2c];
        /// `brk #0xf000` and `brk #0xf001`. \[uncertain: no ARM64 target was seen\]
        const BRK: &[u8] = &[0x00, 0x00, 0x3e, 0xd4];
        const BRK_ASSERT: &[u8] = &[0x20, 0x00, 0x3e, 0xd4];
        let instruction = match (machine, self) {
            (MachineType::ARM64, Self::Breakpoint) => BRK,
            (MachineType::ARM64, Self::Assertion) => BRK_ASSERT,
            (_, Self::Breakpoint) => INT3,
            (_, Self::Assertion) => INT_2C,
        };
        bytes.starts_with(instruction).then_some(instruction.len() as u64)
    }
}

/// The first bytes at the program counter. An x64 target's state change has them; others, whose report is laid out
/// otherwise, are asked.
fn instruction_at(
    change: &StateChange,
    layout: &Layout,
    request: &mut impl FnMut(Manipulate) -> Result<Manipulate, RequestError>,
) -> Result<Bytes, RequestError> {
    const LONGEST: u32 = 4;
    let report = &change.control_report;
    if layout.reports_instructions && report.instruction_count > 0 {
        let len = usize::from(report.instruction_count).min(report.instruction_stream.len());
        return Ok(Bytes::copy_from_slice(&report.instruction_stream[..len]));
    }
    for len in [LONGEST, 2, 1] {
        // Near the end of a page fewer bytes can be read.
        let reply = request(Manipulate::read_virtual(VirtAddr(change.program_counter.0), len))?;
        if let (true, Arm::ReadMemory(_)) = (reply.return_status.is_success(), reply.arm) {
            return Ok(reply.data);
        }
    }
    Ok(Bytes::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kd_protocol::kd::Exception;

    fn stop(code: u32) -> StateChange {
        let exception = Exception {
            exception_code: NtStatus(code),
            exception_flags: 0,
            exception_record: VirtAddr(0),
            exception_address: VirtAddr(0),
            number_parameters: 0,
            padding: 0,
            exception_information: [0; 15],
            first_chance: 1,
            tail_padding: 0,
        };
        let mut reader = kd_protocol::wire::Reader::new("control report", &[0; 48]);
        StateChange::exception(exception, kd_protocol::kd::ControlReport::decode(&mut reader).unwrap())
    }

    #[test]
    fn what_nobody_has_mended_is_not_called_handled() {
        assert_eq!(Leaving::of(&stop(0xc000_0005)).status, NtStatus::DBG_EXCEPTION_NOT_HANDLED);
        for code in [0x8000_0003, 0x8000_0004, 0xc000_0420] {
            assert_eq!(Leaving::of(&stop(code)).status, NtStatus::DBG_CONTINUE, "{code:x}");
        }
    }

    #[test]
    fn only_the_instruction_that_stopped_is_skipped() {
        assert_eq!(Skips::Breakpoint.len(MachineType::AMD64, &[0xcc, 0xc3]), Some(1));
        assert_eq!(Skips::Assertion.len(MachineType::AMD64, &[0xcd, 0x2c, 0x90]), Some(2));
        assert_eq!(Skips::Breakpoint.len(MachineType::AMD64, &[0xcd, 0x2c]), None);
        assert_eq!(Skips::Assertion.len(MachineType::I386, &[0xcc]), None);
        assert_eq!(Skips::Breakpoint.len(MachineType::AMD64, &[]), None);
    }
}
