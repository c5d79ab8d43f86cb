//! Getting off a breakpoint instruction before the target runs on.
//!
//! A break-in stops on the `int3` of `nt!DbgBreakPointWithStatus`, and the context that the target would continue with
//! points at it: continued as it is, the target stops there again at once. So the debugger moves Rip behind it.
//! Source: kd-serial.md, "resuming from int3"; WinDbg reads and writes the context in the captures.

use bytes::Bytes;
use kd_protocol::kd::{Manipulate, NtStatus, StateChange, StateDetail};
use kd_protocol::link::RequestError;

use super::Session;
use super::context::{self, PIECE};

/// `int3`.
const INT3: u8 = 0xcc;
/// Where Rip lies in an x64 CONTEXT. Source: kdnet.md 11.
const RIP: std::ops::Range<usize> = 0xf8..0x100;

/// Moves Rip behind the `int3` that the stop was at, if it was at one.
pub(super) fn step_over(session: &Session, change: &StateChange) -> Result<(), RequestError> {
    let StateDetail::Exception(exception) = &change.detail else { return Ok(()) };
    let report = &change.control_report;
    let is_at_int3 = report.instruction_count > 0 && report.instruction_stream[0] == INT3;
    if exception.exception_code != NtStatus::BREAKPOINT || !is_at_int3 {
        return Ok(());
    }
    let read = context::read(change.processor, |request| session.request(request))?;
    let Some((mut context, in_pieces)) = read else { return Ok(()) };
    let Some(rip) = context.get_mut(RIP) else { return Ok(()) };
    if *rip != change.program_counter.0.to_le_bytes() {
        // Somebody has moved it already.
        return Ok(());
    }
    rip.copy_from_slice(&change.program_counter.offset(1).0.to_le_bytes());
    write(session, change.processor, context.into(), in_pieces)
}

fn write(session: &Session, processor: u16, context: Bytes, in_pieces: bool) -> Result<(), RequestError> {
    if !in_pieces {
        return session.request(Manipulate::set_context(processor, context)).map(drop);
    }
    let total = context.len() as u32;
    for start in (0..context.len()).step_by(PIECE) {
        let piece = context.slice(start..context.len().min(start + PIECE));
        session.request(Manipulate::set_context_ex(processor, start as u32, total, piece))?;
    }
    Ok(())
}
