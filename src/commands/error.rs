//! Why a command has no answer.

use super::expression::{ExpressionCause, ExpressionError};
use crate::target::{OfLink, ReadCause, TargetError};

/// Why a command has no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum QueryError {
    /// No command has this name.
    #[error("unknown command {name}{}; .help lists the commands", meant(.nearest))]
    Unknown {
        name: String,
        /// Commands whose names are near.
        nearest: Vec<&'static str>,
    },
    /// WinDbg has this command, this program has not.
    #[error("{name}: {sentence}")]
    NotHere {
        name: String,
        /// What it would need, and what comes nearest.
        sentence: &'static str,
    },
    /// Reading was broken off, so there is no answer that would not tell what is not known.
    #[error("reading was broken off: {0}; nothing was found out")]
    Lost(ReadCause),
    /// A line cannot be carried out as it is meant.
    #[error("{reason}")]
    Line {
        /// Why, and what to do.
        reason: String,
    },
    /// An argument is not of a form that the command takes.
    #[error("{command}: {problem}\nusage: {usage}")]
    Usage {
        command: &'static str,
        problem: String,
        /// What it takes.
        usage: &'static str,
    },
    /// The target did not give what the command needs.
    #[error("{command}: {source}")]
    Target { command: &'static str, source: TargetError },
    /// An argument is an expression without a value.
    #[error("{command}: {source}")]
    Expression { command: &'static str, source: ExpressionError },
    /// A file on this machine was not written.
    #[error("{command}: {reason}")]
    File {
        command: &'static str,
        /// Which, why, and what to do.
        reason: String,
    },
    /// The kernel keeps no such log.
    #[error("{command}: {reason}")]
    NoData {
        command: &'static str,
        /// Why, and what to do.
        reason: String,
    },
}

/// `, which may be !verifier`.
fn meant(nearest: &[&str]) -> String {
    if nearest.is_empty() { String::new() } else { format!(" (is {} meant?)", nearest.join(" or ")) }
}

impl QueryError {
    /// True if the link, the session or the user ended the reading: it says nothing of what was asked for.
    #[must_use]
    pub fn is_of_link(&self) -> bool {
        match self {
            Self::Lost(_) => true,
            Self::Target { source, .. } => source.is_of_link(),
            Self::Expression { source, .. } => {
                matches!(source.cause(), ExpressionCause::Target(error) if error.is_of_link())
            }
            _ => false,
        }
    }

    /// True if the user's line is wrong, not the target: exit code 2.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Unknown { .. } | Self::NotHere { .. } | Self::Line { .. } | Self::Usage { .. } => true,
            Self::Expression { source, .. } => matches!(source.cause(), ExpressionCause::Syntax(_)),
            _ => false,
        }
    }
}
