//! What is asked of the driver, and how each kind of order is answered.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use kd_protocol::kd::{DebugIo, Manipulate, NtStatus, StateChange};
use kd_protocol::link::RequestError;

use crate::memory::{ReadCause, StopId};

/// Which memory a read is of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Space {
    Virtual,
    Physical,
}

/// What a session asks of its driver. What is asked of the target names the stop that it is of: the driver, which alone
/// knows what happens on the link, refuses those of another.
#[derive(Debug)]
pub(super) enum Order {
    Request(Reply<Replied>, StopId, Box<Manipulate>),
    Reboot(Reply<Result<(), RequestError>>, StopId),
    Read(Reply<Read>, StopId, Space, u64, usize),
    Resume(Reply<Left>, NtStatus),
    /// One instruction of the processor that stopped.
    Trace(Reply<Left>, NtStatus),
    /// The processor that stopped was moved over the instruction that stopped it, and stands here now.
    Stepped(Reply<Left>, Box<StateChange>),
    /// What nobody waits for any more is forgotten.
    Forget,
    BreakIn,
    CancelBreakIn,
    AnswerPrompt(DebugIo, Bytes),
    End,
    /// Panics, as a bug of ours would.
    #[cfg(test)]
    Panic,
}

/// A request's reply, or why there is none.
pub(super) type Replied = Result<Box<Manipulate>, RequestError>;

/// Bytes from the start of a read, and what stopped it if they are not all.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) bytes: Vec<u8>,
    pub(super) stopped_by: Option<ReadCause>,
}

/// What became of a target that was told to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// It runs: it said so.
    Runs,
    /// It does not answer, so that nobody knows.
    Unproven,
    /// It is stopped again, or still.
    StoppedAgain,
    /// There was nothing to leave: it is not stopped.
    NotStopped,
}

/// Why an order was not waited for to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// By Ctrl+C, or the program's end.
    Interrupted,
    /// The stop has taken as long as it may.
    BudgetSpent,
    /// The session ended.
    Ended,
}

impl From<Cut> for ReadCause {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::Interrupted => Self::Interrupted,
            Cut::BudgetSpent => Self::FreezeBudget,
            Cut::Ended => Self::SessionEnded,
        }
    }
}

/// Where the driver puts what became of an order, and whoever gave it finds that.
#[derive(Debug)]
pub(super) struct Reply<T>(Arc<Mutex<Option<T>>>);

impl<T> Reply<T> {
    /// The two ends.
    pub(super) fn ends() -> (Self, Self) {
        let slot = Arc::new(Mutex::new(None));
        (Self(Arc::clone(&slot)), Self(slot))
    }

    pub(super) fn put(&self, what: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
    }

    pub(super) fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// False once the other end is gone.
    pub(super) fn is_awaited(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// What a failed request means for a read.
pub(super) fn cause_of(error: RequestError) -> ReadCause {
    match error {
        RequestError::TargetRunning => ReadCause::TargetRunning,
        RequestError::NotKnown | RequestError::NotConnected => ReadCause::NotKnown,
        RequestError::TargetRestarted => ReadCause::TargetRestarted,
        RequestError::Disconnected => ReadCause::Disconnected,
        RequestError::Refused { status } => ReadCause::Status(status.0),
        RequestError::NoAnswer { after, .. } => ReadCause::NoAnswer { seconds: after.as_secs() },
        _ => ReadCause::SessionEnded,
    }
}
