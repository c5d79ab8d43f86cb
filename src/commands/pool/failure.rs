//! Why a question about pool has no answer.

use crate::commands::error::QueryError;
use crate::target::TargetError;

/// Why there is no answer.
pub(super) enum Failure {
    /// The target did not give what is needed.
    Target(TargetError),
    /// What it gave cannot be: a sentence that says so.
    Reason(String),
}

impl Failure {
    /// The same as the error of a command.
    pub(super) fn of(self, command: &'static str) -> QueryError {
        match self {
            Self::Target(source) => QueryError::Target { command, source },
            Self::Reason(reason) => QueryError::NoData { command, reason },
        }
    }
}

impl From<TargetError> for Failure {
    fn from(error: TargetError) -> Self {
        Self::Target(error)
    }
}
