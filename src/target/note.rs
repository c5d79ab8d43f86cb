//! What has to be said beside an answer. Whoever reads the target says it when it happens; the target collects it.

use std::cell::RefCell;
use std::fmt;

use serde::Serialize;

use crate::output::screened;

/// Something said beside an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Note {
    /// How much it takes from the answer.
    pub kind: NoteKind,
    /// What it is about, for programs.
    pub code: NoteCode,
    /// One or more sentences, for people.
    pub text: String,
}

/// With what it takes from the answer in front.
impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            NoteKind::Remark => "note",
            NoteKind::Partial => "incomplete",
            NoteKind::Failed => "error",
        };
        write!(f, "{kind}: {}", self.text)
    }
}

impl Note {
    /// Worth knowing; the answer is whole.
    pub fn remark(code: NoteCode, text: impl AsRef<str>) -> Self {
        Self::new(NoteKind::Remark, code, text)
    }

    /// Something is missing in the answer.
    pub fn partial(code: NoteCode, text: impl AsRef<str>) -> Self {
        Self::new(NoteKind::Partial, code, text)
    }

    /// What was asked for is not there.
    pub fn failed(code: NoteCode, text: impl AsRef<str>) -> Self {
        Self::new(NoteKind::Failed, code, text)
    }

    /// Notes are sentences for people, also in JSON.
    pub fn new(kind: NoteKind, code: NoteCode, text: impl AsRef<str>) -> Self {
        Self { kind, code, text: screened(text.as_ref()) }
    }

    /// The same, as [`NoteCode::BrokenOff`] if it tells an error that is one `of_link`.
    #[must_use]
    pub fn broken_off_if(mut self, of_link: bool) -> Self {
        if of_link {
            self.code = NoteCode::BrokenOff;
        }
        self
    }
}

/// How much a [`Note`] takes from its answer; a script's exit code follows the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NoteKind {
    /// Nothing.
    Remark,
    /// A part of it.
    Partial,
    /// What was asked for.
    Failed,
}

/// What a [`Note`] is about. Its text may change from version to version, this does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NoteCode {
    /// The link, the session, the freeze budget or the user ended the reading: what is missing is not known.
    BrokenOff,
    /// Something that was wanted lies where no memory can be read.
    Unreadable,
    /// A structure of the target's is not what it should be.
    Damaged,
    /// A list, tree or log of the target's is not whole.
    ListBreaksOff,
    /// The list of loaded modules is not whole.
    ModulesBreakOff,
    /// Addresses have no name, because the list of modules is not whole.
    NamesMissing,
    /// Nothing that fits what was asked for is there.
    NotFound,
    /// There is more than is shown.
    Limit,
    /// A module has no symbols.
    NoSymbols,
    /// A module has no symbols but what its image exports.
    ExportSymbols,
    /// Modules were passed over, because their symbols are not loaded.
    SymbolsDeferred,
    /// Public symbols do not say this.
    PublicSymbols,
    /// An image does not name its PDB.
    NoPdb,
    /// Structures were read by layouts that are built in.
    BuiltInLayouts,
    /// Driver Verifier is off.
    VerifierOff,
    /// Driver Verifier has not begun to keep this.
    VerifierEmpty,
    /// Driver Verifier tracks no pool.
    PoolTrackingOff,
    /// The kernel keeps allocations in trees of all drivers together.
    AdvancedPoolTracking,
    /// Whether, and why not, the driver is verified.
    DriverNotVerified,
    /// What is listed and what is counted are not the same.
    CountsDiffer,
    /// A processor may have been stopped in the middle of this.
    UnderWay,
    /// A log has no entry that was asked for.
    NoEntry,
    /// A log of those asked for cannot be shown.
    NoLog,
    /// Stacks may go on beyond what is recorded of them.
    StacksCut,
    /// The target searched its memory by itself.
    Searched,
    /// The target did not search, so its memory was read.
    NotSearched,
    /// The symbol path has no places.
    SymbolPathEmpty,
    /// A folder of the symbol path is not there, or another one is used in its place.
    SymbolPathFolder,
    /// No target is stopped.
    NoTarget,
    /// In how many stops it was read, and of which moment it is.
    ShortStops,
    /// A processor's registers are not those of the moment.
    RegistersKept,
    /// Of some blocks less is known than of the others, because they came while the target was let run.
    FromLogAlone,
    /// Of some blocks it is not known whether they are there.
    Undecided,
    /// User mode is not looked at.
    UserMode,
    /// What to ask next.
    NextStep,
    /// A stack ends where its caller cannot be found.
    StackBreaksOff,
    /// Code that calls has no unwind information, so that the frames behind it may be wrong.
    NoUnwindInformation,
    /// The target did not take what was written.
    NotWritten,
}

/// Notes, in the order in which they were made.
#[derive(Debug, Default)]
pub struct Notes(RefCell<Vec<Note>>);

impl Notes {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self(RefCell::new(Vec::new()))
    }

    /// Adds one.
    pub fn add(&self, note: Note) {
        self.0.borrow_mut().push(note);
    }

    /// Those so far; none are left.
    #[must_use]
    pub fn take(&self) -> Vec<Note> {
        self.0.take()
    }

    /// The worst of those so far; nothing if there are none.
    #[must_use]
    pub fn worst(&self) -> Option<NoteKind> {
        self.0.borrow().iter().map(|note| note.kind).max()
    }
}
