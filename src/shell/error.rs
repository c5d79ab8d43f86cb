//! Why a session of the shell ends.

use crate::debugger::DebugError;

/// Why a session cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShellError {
    /// The target did not stop, does not say who it is, or was not let run.
    #[error(transparent)]
    Debug(#[from] DebugError),
    /// Answers cannot be written.
    #[error("cannot write the answer: {0}")]
    Output(std::io::Error),
    /// The terminal does not work.
    #[error("the terminal: {0}")]
    Terminal(std::io::Error),
}
