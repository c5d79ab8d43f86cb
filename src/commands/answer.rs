//! Questions and answers: a query asks the stopped target and gives plain data, its facts; notes say what must be known
//! beside them.

use std::fmt;
use std::path::Path;

use super::context::{Context, Style};
use super::error::QueryError;
use super::schema::Schema;
use crate::output::Screen;
use crate::target::{Note, NoteCode, NoteKind, ReadCause, Target};

/// A question to the stopped target.
pub trait Query {
    /// What it is answered with.
    type Facts: Facts + 'static;

    /// Reads what is needed, and no more. What is missing in the facts is [noted](Target::note).
    ///
    /// # Errors
    /// [`QueryError`] if there are no facts at all.
    fn run(&self, target: &Target<'_>) -> Result<Self::Facts, QueryError>;
}

/// What a command found: plain data, which may be printed by other threads. Text and JSON say the same.
pub trait Facts: erased_serde::Serialize + Send + Sync {
    /// The form of their JSON.
    fn schema(&self) -> Schema;

    /// Writes them as WinDbg would.
    ///
    /// # Errors
    /// The writer's.
    fn write_text(&self, context: &Context, out: &mut dyn fmt::Write) -> fmt::Result;

    /// Files that were asked for beside them. They are written when the answer is shown, not while the target is read.
    fn files(&self) -> Vec<AnswerFile<'_>> {
        Vec::new()
    }
}

/// A file that was asked for with an answer.
pub struct AnswerFile<'a> {
    /// Where.
    pub path: &'a Path,
    /// Writes it whole, or not at all and says why.
    pub write: Box<WriteFile<'a>>,
}

/// What writes a file.
pub type WriteFile<'a> = dyn Fn(&Moment<'_>) -> Result<(), String> + 'a;

/// Of which moment an answer is, and what had to be said of it.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// Bytes of a pointer in the target.
    pub pointer_size: usize,
    /// What was noted.
    pub notes: &'a [Note],
}

impl fmt::Debug for AnswerFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnswerFile").field(&self.path).finish()
    }
}

erased_serde::serialize_trait_object!(Facts);

/// What running a command gives: facts of any kind, and notes wherever they are collected.
pub type Found = Result<Box<dyn Facts>, QueryError>;

/// Facts, and what must be said of them.
#[derive(Clone, Debug)]
pub struct Answer<F = Box<dyn Facts>> {
    /// The facts.
    pub facts: F,
    /// What the reader must know beside them.
    pub notes: Vec<Note>,
    /// Bytes of a pointer in the target that they are of.
    pub pointer_size: usize,
}

impl Answer {
    /// An answer that is not of a target.
    #[must_use]
    pub fn of_no_target(facts: Box<dyn Facts>) -> Self {
        Self { facts, notes: Vec::new(), pointer_size: size_of::<u64>() }
    }

    /// Writes the facts as WinDbg would, in the reader's style.
    ///
    /// # Errors
    /// The writer's.
    pub fn write_text(&self, style: Style, out: &mut dyn fmt::Write) -> fmt::Result {
        write_text(&*self.facts, Some(self.pointer_size), style, out)
    }

    /// The facts as JSON.
    ///
    /// # Errors
    /// None for the facts of this program.
    pub fn to_json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(&self.facts)
    }
}

impl<F> Answer<F> {
    /// The worst of its notes; nothing if it has none.
    #[must_use]
    pub fn worst(&self) -> Option<NoteKind> {
        self.notes.iter().map(|note| note.kind).max()
    }
}

/// Writes facts as WinDbg would, in the reader's style; `pointer_size` is that of their target, if they have one.
///
/// # Errors
/// The writer's.
pub fn write_text(
    facts: &dyn Facts,
    pointer_size: Option<usize>,
    style: Style,
    out: &mut dyn fmt::Write,
) -> fmt::Result {
    // Whatever an answer prints reaches its reader through a screen: here, so that no command can forget it.
    let pointer_size = pointer_size.unwrap_or(size_of::<u64>());
    facts.write_text(&Context { pointer_size, style }, &mut Screen(out))
}

/// Runs a query, and sees to what every answer owes its reader: see [`told`].
///
/// # Errors
/// The query's; [`QueryError::Lost`].
pub fn ask(
    run: fn(&str, &Target<'_>) -> Found,
    arguments: &str,
    target: &Target<'_>,
) -> Result<Answer, QueryError> {
    told(run(arguments, target), target)
}

/// Facts with what was said of them and what has to be said of how they came about: that reading was broken off, that the
/// list of modules is not whole, which built-in layouts they rest on.
///
/// # Errors
/// The query's. [`QueryError::Lost`] if reading was broken off and the answer would tell something as not there: what was
/// not read is not known.
pub fn told<F>(found: Result<F, QueryError>, target: &Target<'_>) -> Result<Answer<F>, QueryError> {
    let mut notes = target.notes().take();
    let over = target.over();
    let facts = match (found, over) {
        (Ok(_), Some(cause)) if !bears(&notes, cause) => return Err(QueryError::Lost(cause.clone())),
        (Ok(facts), _) => facts,
        (Err(error), Some(cause)) if !error.is_of_link() => return Err(QueryError::Lost(cause.clone())),
        (Err(error), _) => return Err(error),
    };
    let is_said = |codes: &[NoteCode]| {
        notes.iter().any(|note| note.kind > NoteKind::Remark && codes.contains(&note.code))
    };
    if let Some(cause) = over {
        if !is_said(&[NoteCode::BrokenOff]) {
            let text = format!("Reading was broken off: {cause}. What is missing here is not known.");
            notes.push(Note::partial(NoteCode::BrokenOff, text));
        }
    } else if let Some(trouble) = target.missed_names()
        && !is_said(&[NoteCode::NamesMissing, NoteCode::ModulesBreakOff])
    {
        let text =
            format!("Some addresses have no name, because the list of modules is not whole: {trouble}");
        notes.push(Note::partial(NoteCode::NamesMissing, text));
    }
    let built_in = target.built_in_note();
    notes.extend(built_in.map(|text| Note::remark(NoteCode::BuiltInLayouts, text)));
    Ok(Answer { facts, notes, pointer_size: target.pointer_size() })
}

/// True if facts stay true although reading was broken off for `cause`: nothing in them is told as not there, and they
/// are not of two boots.
fn bears(notes: &[Note], cause: &ReadCause) -> bool {
    let is_claim = |note: &Note| note.kind == NoteKind::Failed && note.code != NoteCode::BrokenOff;
    *cause != ReadCause::TargetRestarted && !notes.iter().any(is_claim)
}

/// Runs a query and forgets the type of its facts.
pub(super) fn answer<Q: Query>(query: &Q, target: &Target<'_>) -> Found {
    Ok(Box::new(query.run(target)?))
}
