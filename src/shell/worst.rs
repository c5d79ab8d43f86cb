//! How a session went, in exit codes.

use crate::commands::NoteKind;
use crate::session::Quit;

/// How the worst command of a session went; the exit code of a script.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Worst {
    /// Everything was answered whole: 0.
    #[default]
    Fine,
    /// An answer has gaps: 3.
    Partial,
    /// Something was not answered: 1.
    Failed,
    /// A line was not understood: 2.
    Usage,
    /// The target was stopped, and has not said that it runs: 4.
    MayBeStopped,
}

impl Worst {
    /// How a command went whose worst note is of this kind.
    pub(super) const fn of(kind: NoteKind) -> Self {
        match kind {
            NoteKind::Remark => Self::Fine,
            NoteKind::Partial => Self::Partial,
            NoteKind::Failed => Self::Failed,
        }
    }

    /// The process's exit code.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Partial => 3,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::MayBeStopped => 4,
        }
    }
}

/// Why the program ends, and its exit code for that.
#[must_use]
pub const fn exit_code_of(quit: Quit) -> u8 {
    match quit {
        Quit::Signal(signal) => 128 + signal.number(),
        Quit::Deadline(_) => 1,
    }
}
