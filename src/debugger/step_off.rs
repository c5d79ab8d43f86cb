//! One instruction at a place where the target is to stop, so that it does not stop there again at once.

use std::time::Duration;

use bytes::Bytes;
use kd_protocol::kd::{NtStatus, StateChange};

use super::stop::is_exception;
use crate::memory::VirtAddr;
use crate::source::{BootId, Control, Halt, IGNORE, Resumed, Wait};

/// One instruction is over within this, or is one that waits.
const ONE_INSTRUCTION: Duration = Duration::from_secs(2);

/// What became of the instruction.
pub(super) enum Stepped {
    /// The processor stands behind it.
    Off,
    /// The same, and the target is to stop there too.
    AtAnother,
    /// It stopped for something else, which is to be told.
    Elsewhere,
    /// It was not stopped again.
    Not(Resumed),
}

/// Has the processor carry out the instruction where it stands, while nothing is armed. `place` tells where a stop is.
pub(super) fn step_off(
    control: &dyn Control,
    boot: BootId,
    place: impl Fn(&StateChange) -> Option<VirtAddr>,
    stops_before: impl Fn(VirtAddr) -> bool,
) -> Stepped {
    match control.trace() {
        Resumed::Running => {}
        other => return Stepped::Not(other),
    }
    let deadline = control.deadline_after(ONE_INSTRUCTION);
    let change = loop {
        match control.wait_for_halt(Some(boot), Some(deadline)) {
            Wait::Done(Halt::Stopped(change)) => break change,
            Wait::Done(Halt::Prompt(prompt)) => {
                control.answer_prompt(prompt, Bytes::from_static(IGNORE));
            }
            Wait::Done(Halt::Restarted) => return Stepped::Elsewhere,
            Wait::TimedOut | Wait::Interrupted | Wait::Ended(_) => return Stepped::Not(Resumed::Running),
        }
    };
    match place(&change).filter(|_| is_exception(&change, NtStatus::SINGLE_STEP)) {
        None => Stepped::Elsewhere,
        Some(at) if stops_before(at) => Stepped::AtAnother,
        Some(_) => Stepped::Off,
    }
}
