//! Questions and answers: a query asks the stopped target and gives plain data; notes say what must be known beside it.

use std::fmt;

use serde::Serialize;

use super::error::{QueryError, narrow};
use super::verifier::VerifierFormat;
use crate::output::{Screen, screened};
use crate::target::{ReadCause, Target};

/// A question to the stopped target.
pub trait Query {
    /// What it is answered with.
    type Answer: Answer;

    /// Reads what is needed, and no more.
    ///
    /// # Errors
    /// [`QueryError`] if there is no answer at all; an answer with gaps says so in its [`notes`](Answer::notes).
    fn run(&self, target: &Target<'_>) -> Result<Self::Answer, QueryError>;
}

/// What a command found: plain data.
pub trait Answer: Serialize {
    /// Writes it as WinDbg would, without the notes.
    ///
    /// # Errors
    /// The writer's.
    fn write_text(&self, out: &mut dyn fmt::Write) -> fmt::Result;

    /// Writes it in a style that the reader chose; most answers have one only.
    ///
    /// # Errors
    /// The writer's.
    fn write_styled(&self, _style: &Style, out: &mut dyn fmt::Write) -> fmt::Result {
        self.write_text(out)
    }

    /// What the reader must know beside it: what is missing, and why.
    fn notes(&self) -> &[Note] {
        &[]
    }
}

/// What a reader has chosen about the text of answers. No fact in an answer depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// How `!verifier` prints.
    pub verifier: VerifierFormat,
}

/// Something said beside an answer; text shows it after the answer, JSON in `notes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// How much it takes from the answer.
    pub kind: NoteKind,
    /// One or more sentences.
    pub text: String,
}

impl Note {
    /// Worth knowing; the answer is whole.
    pub fn remark(text: impl AsRef<str>) -> Self {
        Self::new(NoteKind::Remark, text.as_ref())
    }

    /// Something is missing in the answer.
    pub fn partial(text: impl AsRef<str>) -> Self {
        Self::new(NoteKind::Partial, text.as_ref())
    }

    /// What was asked for is not there.
    pub fn failed(text: impl AsRef<str>) -> Self {
        Self::new(NoteKind::Failed, text.as_ref())
    }

    /// Notes are sentences for people, also in JSON.
    fn new(kind: NoteKind, text: &str) -> Self {
        Self { kind, text: screened(text) }
    }
}

/// How much a [`Note`] takes from its answer; a script's exit code follows the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NoteKind {
    /// Nothing.
    Remark,
    /// A part of it.
    Partial,
    /// What was asked for.
    Failed,
}

/// An [`Answer`] whose type is not known: what the shell gets of any command. It may be printed by another thread.
pub trait AnyAnswer: Send {
    /// Writes it as WinDbg would, without the notes.
    ///
    /// # Errors
    /// The writer's.
    fn write_text(&self, out: &mut dyn fmt::Write) -> fmt::Result;

    /// The same in a style that the reader chose.
    ///
    /// # Errors
    /// The writer's.
    fn write_styled(&self, style: &Style, out: &mut dyn fmt::Write) -> fmt::Result;

    /// What the reader must know beside it.
    fn notes(&self) -> &[Note];

    /// The worst of its notes; nothing if it has none.
    fn worst(&self) -> Option<NoteKind> {
        self.notes().iter().map(|note| note.kind).max()
    }

    /// All its facts, notes included.
    ///
    /// # Errors
    /// None for the answers of this program.
    fn to_json(&self) -> serde_json::Result<serde_json::Value>;
}

impl<A: Answer + Send> AnyAnswer for A {
    // Whatever an answer prints reaches its reader through a screen: here, so that no command can forget it.
    fn write_text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        Answer::write_text(self, &mut Screen(out))
    }

    fn write_styled(&self, style: &Style, out: &mut dyn fmt::Write) -> fmt::Result {
        Answer::write_styled(self, style, &mut Screen(out))
    }

    fn notes(&self) -> &[Note] {
        Answer::notes(self)
    }

    fn to_json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }
}

/// Runs a query, and sees to what every answer owes its reader: see [`told`].
///
/// # Errors
/// The query's; [`QueryError::Lost`].
pub fn ask(run: fn(&str, &Target<'_>) -> Answered, arguments: &str, target: &Target<'_>) -> Answered {
    told(run(arguments, target), target)
}

/// An answer with what has to be said of how it came about: that reading was broken off, that the list of modules is not
/// whole, which built-in layouts it rests on. On a 32-bit target its notes and errors have addresses of eight digits.
///
/// # Errors
/// The query's. [`QueryError::Lost`] if reading was broken off and the answer would tell something as not there: what was
/// not read is not known.
pub fn told(answered: Answered, target: &Target<'_>) -> Answered {
    let is_narrow = target.pointer_size() == 4;
    let over = target.over();
    let answer = match (answered, over) {
        (Ok(answer), Some(cause)) if !bears(&*answer, cause) => return Err(QueryError::Lost(cause.clone())),
        (Ok(answer), _) => answer,
        (Err(error), Some(cause)) if !names(&error.to_string(), cause) => {
            return Err(QueryError::Lost(cause.clone()));
        }
        (Err(error), _) if is_narrow => return Err(QueryError::Narrow(Box::new(error))),
        (Err(error), _) => return Err(error),
    };
    let mut added = Vec::new();
    let is_said = |what: &str| answer.notes().iter().any(|note| note.text.contains(what));
    if let Some(cause) = over.filter(|cause| !is_said_of(&*answer, cause)) {
        added.push(Note::partial(format!(
            "Reading was broken off: {cause}. What is missing here is not known."
        )));
    } else if let Some(trouble) = target.missed_names().filter(|trouble| !is_said(trouble)) {
        added.push(Note::partial(format!(
            "Some addresses have no name, because the list of modules is not whole: {trouble}"
        )));
    }
    added.extend(target.built_in_note().map(Note::remark));
    if added.is_empty() && !is_narrow {
        return Ok(answer);
    }
    let mut notes = answer.notes().to_vec();
    notes.extend(added);
    if is_narrow {
        notes.iter_mut().for_each(|note| note.text = narrow(&note.text));
    }
    Ok(Box::new(Announced { answer, notes }))
}

/// True if an answer stays true although reading was broken off for `cause`: nothing in it is told as not there, and it
/// is not of two boots.
fn bears(answer: &dyn AnyAnswer, cause: &ReadCause) -> bool {
    let is_claim = |note: &Note| note.kind == NoteKind::Failed && !names(&note.text, cause);
    *cause != ReadCause::TargetRestarted && !answer.notes().iter().any(is_claim)
}

/// True if a note says that something is missing for `cause`.
fn is_said_of(answer: &dyn AnyAnswer, cause: &ReadCause) -> bool {
    answer.notes().iter().any(|note| note.kind > NoteKind::Remark && names(&note.text, cause))
}

fn names(text: &str, cause: &ReadCause) -> bool {
    text.contains(&cause.to_string())
}

/// An answer, and what has to be said of it besides.
struct Announced {
    answer: Box<dyn AnyAnswer>,
    /// The answer's, and more.
    notes: Vec<Note>,
}

impl AnyAnswer for Announced {
    fn write_text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        self.answer.write_text(out)
    }

    fn write_styled(&self, style: &Style, out: &mut dyn fmt::Write) -> fmt::Result {
        self.answer.write_styled(style, out)
    }

    fn notes(&self) -> &[Note] {
        &self.notes
    }

    fn to_json(&self) -> serde_json::Result<serde_json::Value> {
        let mut json = self.answer.to_json()?;
        if let Some(facts) = json.as_object_mut() {
            facts.insert("notes".to_owned(), serde_json::to_value(&self.notes)?);
        }
        Ok(json)
    }
}

/// What running a command gives.
pub type Answered = Result<Box<dyn AnyAnswer>, QueryError>;

/// Runs a query and forgets the type of its answer.
pub(super) fn answer<Q: Query>(query: &Q, target: &Target<'_>) -> Answered
where
    Q::Answer: Send + 'static,
{
    Ok(Box::new(query.run(target)?))
}
