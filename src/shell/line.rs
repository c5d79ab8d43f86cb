//! A command and what became of it, as one JSON object on one line.

use serde::Serialize;

use crate::commands::{Facts, Note};
use crate::debugger::{Answered, AskError, ErrorCode, Stamp, Stats};
use crate::output;

/// What becomes of a command: one object, whatever the command was.
#[derive(Serialize)]
struct Line<'a> {
    /// The command as it was typed.
    command: &'a str,
    /// What it found; nothing if it failed.
    answer: Option<&'a dyn Facts>,
    /// What must be known beside it.
    notes: &'a [Note],
    /// Why there is no answer.
    errors: &'a [Problem],
    /// What it took.
    stats: Stats,
    /// Of which moment it is.
    stamp: Stamp,
}

/// Why there is no answer.
#[derive(Serialize)]
struct Problem {
    /// What went wrong, for programs.
    code: ErrorCode,
    /// The same for people.
    text: String,
}

/// The line of a command that was answered.
pub(super) fn answered(command: &str, answered: &Answered) -> String {
    let Answered { facts, notes, stamp, cost } = answered;
    line(&Line { command, answer: Some(&**facts), notes, errors: &[], stats: *cost, stamp: *stamp })
}

/// The line of a command that has no answer.
pub(super) fn failed(command: &str, error: &AskError, stamp: Stamp, stats: Stats) -> String {
    let problem = Problem { code: error.code(), text: output::screened(&error.to_string()) };
    line(&Line { command, answer: None, notes: &[], errors: &[problem], stats, stamp })
}

/// The line of what was paid beside commands: for a `(stop)`, a `(resume)`.
pub(super) fn beside(what: &str, stats: Stats) -> String {
    output::json(&serde_json::json!({ "of": what, "stats": stats })) + "\n"
}

fn line(line: &Line<'_>) -> String {
    let json = serde_json::to_value(line).expect("facts are structures, lists, texts and numbers");
    output::json(&json) + "\n"
}
