//! Why a target is not stopped, and why a question has no answer.

use kd_protocol::MachineType;
use kd_protocol::link::RequestError;
use serde::Serialize;

use crate::commands::QueryError;
use crate::memory::ReadCause;
use crate::source::{BreakInError, PlantError};
use crate::target::TargetError;

/// Why a target could not be stopped, identified or let run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DebugError {
    /// It did not stop.
    #[error(transparent)]
    BreakIn(#[from] BreakInError),
    /// It does not say who it is.
    #[error("the target stopped, but does not say who it is: {0}")]
    Version(#[from] RequestError),
    /// It restarted each time that it was stopped.
    #[error(
        "the target restarted again and again while it was being stopped; wait until it has booted, and try again"
    )]
    RestartsAgain,
    /// It was stopped, and nobody knows whether it runs.
    #[error("the target may still be stopped: {0}")]
    NotResumed(String),
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The command's own reason.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// It runs.
    #[error("the target is running; break in first (Ctrl+C)")]
    Running,
    /// It has not said whether it runs.
    #[error(
        "it is not known whether the target runs or is stopped (last sign of life: {last_heard}); Ctrl+C tries to break in"
    )]
    Unknown {
        /// When it was heard last.
        last_heard: String,
    },
    /// Nothing leads to it.
    #[error("the line to the target is gone ({why}); whether the target runs is not known")]
    LineGone {
        /// What the system says.
        why: String,
    },
    /// It has not said who it is.
    #[error("the target is stopped, but has not said who it is; g lets it run, Ctrl+C breaks in again")]
    NotIdentified,
    /// Something that the answer would rest on could not be read, and not because of what is in memory.
    #[error("{}", not_read(.0))]
    NotRead(ReadCause),
    /// What was to be run never runs.
    #[error("{command}: {place} is memory that was kept: it never runs")]
    NeverRuns {
        /// What was typed.
        command: String,
        /// Where the target is.
        place: String,
    },
    /// Nobody waits for uses of a tag.
    #[error("!poolhit: {0}")]
    NotWatched(Box<HitsError>),
    /// Nobody has allowed a change of the target.
    #[error(
        "{command}: verikd changes nothing of a target unless that is allowed: start it with --write, or type .allow_write at \
         the prompt"
    )]
    NotAllowed {
        /// Which.
        command: &'static str,
    },
    /// The target is none that is changed.
    #[error("{command}: {place} is only looked at: nothing of it is changed")]
    NotChangeable {
        /// Which.
        command: &'static str,
        /// Where the target is.
        place: String,
    },
    /// The machine was not told to restart.
    #[error(".reboot: {0}")]
    NotRestarted(RequestError),
    /// It was not tried.
    #[error("not run: {0}")]
    NotRun(String),
}

/// Why nobody waits for uses of a tag.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HitsError {
    /// The target is not stopped.
    #[error(transparent)]
    NotStopped(AskError),
    /// Neither where the processor stands nor who called is known of this machine.
    #[error("uses of a tag are looked at on x64 targets alone, and this is one of {0}")]
    Machine(MachineType),
    /// Where the tag is to be written is not known.
    #[error("the target cannot be made to stop at a tag: {0}")]
    Variable(TargetError),
    /// The target's memory was not written.
    #[error(transparent)]
    Plant(PlantError),
    /// The target did not stop, so that the tag is still there.
    #[error("the tag could not be taken back yet: {0}")]
    NotReached(BreakInError),
}

/// What went wrong, for programs: the sentence may change from version to version, this does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// No command has this name.
    UnknownCommand,
    /// WinDbg has this command, verikd has not.
    NotHere,
    /// A line cannot be carried out as it is meant.
    Line,
    /// An argument is not of a form that the command takes.
    Usage,
    /// An argument is an expression without a value.
    Expression,
    /// The target did not give what the command needs.
    Target,
    /// The kernel keeps no such data.
    NoData,
    /// A file on this machine was not written.
    File,
    /// Reading was broken off, so that nothing was found out.
    BrokenOff,
    /// The target runs.
    Running,
    /// It is not known whether the target runs.
    StateUnknown,
    /// The line to the target is not there.
    LineGone,
    /// The target has not said who it is.
    NotIdentified,
    /// The target cannot run.
    NeverRuns,
    /// The target was not made to stop at uses of a tag.
    NotWatched,
    /// Nobody has allowed a change of the target.
    NotAllowed,
    /// The target is none that is changed.
    NotChangeable,
    /// The machine was not told to restart.
    NotRestarted,
    /// The command was not tried.
    NotRun,
}

impl AskError {
    /// True if the user's line is wrong, not the target: exit code 2.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Query(error) if error.is_usage())
    }

    /// What went wrong, for programs.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Query(QueryError::Unknown { .. }) => ErrorCode::UnknownCommand,
            Self::Query(QueryError::NotHere { .. }) => ErrorCode::NotHere,
            Self::Query(QueryError::Line { .. }) => ErrorCode::Line,
            Self::Query(QueryError::Usage { .. }) => ErrorCode::Usage,
            Self::Query(QueryError::Expression { .. }) => ErrorCode::Expression,
            Self::Query(QueryError::Target { .. }) => ErrorCode::Target,
            Self::Query(QueryError::NoData { .. }) => ErrorCode::NoData,
            Self::Query(QueryError::File { .. }) => ErrorCode::File,
            Self::Query(QueryError::Lost(_)) | Self::NotRead(_) => ErrorCode::BrokenOff,
            Self::Running => ErrorCode::Running,
            Self::Unknown { .. } => ErrorCode::StateUnknown,
            Self::LineGone { .. } => ErrorCode::LineGone,
            Self::NotIdentified => ErrorCode::NotIdentified,
            Self::NeverRuns { .. } => ErrorCode::NeverRuns,
            Self::NotWatched(_) => ErrorCode::NotWatched,
            Self::NotAllowed { .. } => ErrorCode::NotAllowed,
            Self::NotChangeable { .. } => ErrorCode::NotChangeable,
            Self::NotRestarted(_) => ErrorCode::NotRestarted,
            Self::NotRun(_) => ErrorCode::NotRun,
        }
    }

    /// True if what was read before is true: the user, or the budget, ended it.
    pub(super) const fn leaves_parts(cause: &ReadCause) -> bool {
        matches!(cause, ReadCause::Interrupted | ReadCause::FreezeBudget)
    }
}

fn not_read(cause: &ReadCause) -> String {
    let why = match cause {
        ReadCause::NoAnswer { seconds } => format!("the target is lost: no answer within {seconds} s"),
        ReadCause::TargetRestarted => "the target restarted in the middle of it".into(),
        ReadCause::TargetRunning => "the target ran on in the middle of it".into(),
        other => other.to_string(),
    };
    format!("{why}. What was not read is not told")
}
