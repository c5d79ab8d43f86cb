//! An answer as a front end gets it: facts, notes, of which moment they are, and what they cost.

use std::fmt;
use std::time::SystemTime;

use serde::Serialize;

use super::cost::Stats;
use crate::commands::{self, Answer, AnswerFile, Facts, Moment, Note, NoteCode, NoteKind, Style};

/// What a command is answered with.
#[derive(Clone, Debug)]
pub struct Answered<F = Box<dyn Facts>> {
    /// The facts.
    pub facts: F,
    /// What the reader must know beside them.
    pub notes: Vec<Note>,
    /// Of which moment of which target they are.
    pub stamp: Stamp,
    /// What it took.
    pub cost: Stats,
}

/// A moment of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Stamp {
    /// When the answer was complete: milliseconds since 1970.
    pub unix_ms: u64,
    /// The boot, counted since the debugger began; nothing while no target has said who it is.
    pub boot: Option<u64>,
    /// The stop, counted likewise; nothing while the target runs.
    pub stop: Option<u64>,
    /// The target's Windows build.
    pub build: Option<u16>,
    /// Bytes of a pointer in the target.
    pub pointer_size: Option<usize>,
}

impl Stamp {
    /// Now, of no target.
    pub(super) fn now() -> Self {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            unix_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            boot: None,
            stop: None,
            build: None,
            pointer_size: None,
        }
    }
}

impl Answered {
    /// Writes the facts as WinDbg would, in the reader's style.
    ///
    /// # Errors
    /// The writer's.
    pub fn write_text(&self, style: Style, out: &mut dyn fmt::Write) -> fmt::Result {
        commands::write_text(&*self.facts, self.stamp.pointer_size, style, out)
    }

    /// Writes the files that were asked for with it. Of each, that it was written, or why not: an answer that was broken off
    /// takes no whole one's place.
    #[must_use]
    pub fn write_files(&self) -> Vec<Result<String, String>> {
        let moment = self.moment();
        let files = self.facts.files();
        let written = |file: &AnswerFile<'_>| match self.is_broken_off() {
            true => Err("the answer was broken off".to_owned()),
            false => (file.write)(&moment),
        };
        let write = |file: &AnswerFile<'_>| match written(file) {
            Ok(()) => Ok(format!("Wrote {}", file.path.display())),
            Err(why) => Err(format!("error: {} was not written: {why}", file.path.display())),
        };
        files.iter().map(write).collect()
    }
}

impl<F> Answered<F> {
    pub(super) fn new(answer: Answer<F>, stamp: Stamp, cost: Stats) -> Self {
        Self { facts: answer.facts, notes: answer.notes, stamp, cost }
    }

    /// Of which moment it is, and what was noted: for files.
    #[must_use]
    pub fn moment(&self) -> Moment<'_> {
        Moment {
            unix_ms: self.stamp.unix_ms,
            pointer_size: self.stamp.pointer_size.unwrap_or(size_of::<u64>()),
            notes: &self.notes,
        }
    }

    /// True if reading ended before it was whole.
    #[must_use]
    pub fn is_broken_off(&self) -> bool {
        self.notes.iter().any(|note| note.code == NoteCode::BrokenOff)
    }

    /// The worst of its notes; nothing if it has none.
    #[must_use]
    pub fn worst(&self) -> Option<NoteKind> {
        self.notes.iter().map(|note| note.kind).max()
    }
}
