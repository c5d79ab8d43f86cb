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
    /// A gate was not passed: 4.
    Over,
    /// No target connected in time.
    NoTarget,
    /// The target was lost while it was asked.
    Lost,
    /// The target was stopped, and has not said that it runs.
    MayBeStopped,
}

/// Which exit codes tell what became of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codes {
    /// A debugger's: 1 for a target that did not come or was lost, 4 for one that may stand still.
    Debugger,
    /// Those of a run that a program judges: 5 for a target that did not come, 6 for one that was lost or may stand still; 4
    /// is the gate's.
    Run,
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
    pub const fn exit_code(self, codes: Codes) -> u8 {
        match (self, codes) {
            (Self::Fine, _) => 0,
            (Self::Partial, _) => 3,
            (Self::Failed, _) | (Self::NoTarget | Self::Lost, Codes::Debugger) => 1,
            (Self::Usage, _) => 2,
            (Self::Over, _) | (Self::MayBeStopped, Codes::Debugger) => 4,
            (Self::NoTarget, Codes::Run) => 5,
            (Self::Lost | Self::MayBeStopped, Codes::Run) => 6,
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
