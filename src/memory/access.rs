//! What is done with memory, as a debug register tells it apart.

use std::fmt;

use serde::Serialize;

/// An access that stops a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// The instruction there is about to be carried out.
    Execute,
    /// It was written.
    Write,
    /// It was read or written.
    Read,
}

impl Access {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Execute, Self::Write, Self::Read];

    /// Its letter in `ba` and `bl`.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::Execute => 'e',
            Self::Write => 'w',
            Self::Read => 'r',
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.letter())
    }
}
