//! What is asked of the driver, and what becomes of it.

use bytes::Bytes;
use kd_protocol::kd::{DebugIo, Manipulate, NtStatus};
use kd_protocol::link::RequestError;

use crate::memory::{ReadCause, StopId};

/// Which memory a read is of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Space {
    Virtual,
    Physical,
}

/// What a session asks of its driver. Requests and reads name the stop that they are of: the driver, which alone knows
/// what happens on the link, refuses those of another.
#[derive(Debug)]
pub(super) enum Order {
    Request(Ticket, StopId, Box<Manipulate>),
    Read(Ticket, StopId, Space, u64, usize),
    Cancel(Ticket),
    BreakIn,
    CancelBreakIn,
    Resume(Ticket, NtStatus),
    AnswerPrompt(DebugIo, Bytes),
    End,
    /// Panics, as a bug of ours would.
    #[cfg(test)]
    Panic,
}

/// Names one order whose outcome somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ticket(pub(super) u64);

/// What became of an order.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A request's reply.
    Reply(Box<Manipulate>),
    /// A request that has none was acknowledged.
    Accepted,
    /// A request without one.
    Failed(RequestError),
    /// A read: the bytes from the start, and what stopped it if they are not all.
    Bytes(Vec<u8>, Option<ReadCause>),
    /// The target runs: it said so.
    Resumed,
    /// The target does not answer, so that nobody knows whether it runs.
    ResumeUnproven,
    /// It was told to run, and is stopped again or still.
    StoppedAgain,
    /// There was nothing to resume: it is not stopped.
    NotStopped,
    /// Ctrl+C while waiting.
    Interrupted,
    /// The stop has taken as long as it may.
    BudgetSpent,
    /// The session ended while waiting.
    Ended,
}

/// What a failed request means for a read.
pub(super) fn cause_of(error: RequestError) -> ReadCause {
    match error {
        RequestError::TargetRunning => ReadCause::TargetRunning,
        RequestError::TargetRestarted => ReadCause::TargetRestarted,
        RequestError::Disconnected => ReadCause::Disconnected,
        RequestError::NoAnswer { after, .. } => ReadCause::NoAnswer { seconds: after.as_secs() },
        _ => ReadCause::SessionEnded,
    }
}
