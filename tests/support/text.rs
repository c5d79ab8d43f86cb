//! Typing a line and comparing what comes back.

use std::fmt::Write;

use serde_json::Value;
use verikd::commands::{Answer, COMMANDS, Note, QueryError, Run, Style, VerifierFormat, ask, find, told};
use verikd::target::Target;

pub fn run(target: &Target<'_>, line: &str) -> Result<Answer, QueryError> {
    let (spec, arguments) = find(line)?;
    match spec.run {
        Run::Query(run) | Run::Change(run) => ask(run, arguments, target),
        Run::Local(run) => run(arguments, COMMANDS).map(Answer::of_no_target),
        Run::Symbols(run) => {
            let source = target.kernel().symbol_source();
            told(run(arguments, source, Some(target), target.notes()), target)
        }
        Run::Control(control) => panic!("{control:?} is for the shell"),
    }
}

/// An answer's facts, its notes among them.
pub trait WithNotes {
    fn with_notes(&self) -> Value;
}

impl WithNotes for Answer {
    fn with_notes(&self) -> Value {
        let mut json = self.to_json().unwrap();
        json["notes"] = serde_json::to_value(&self.notes).unwrap();
        json
    }
}

pub fn text(target: &Target<'_>, line: &str) -> String {
    text_in(VerifierFormat::Auto, target, line)
}

pub fn text_in(verifier: VerifierFormat, target: &Target<'_>, line: &str) -> String {
    let mut text = String::new();
    match run(target, line) {
        Ok(answer) => answer.write_text(Style { verifier, ..Style::default() }, &mut text).unwrap(),
        Err(error) => write!(text, "{error}").unwrap(),
    }
    text
}

pub fn notes(target: &Target<'_>, line: &str) -> Vec<Note> {
    run(target, line).unwrap_or_else(|error| panic!("{line}: {error}")).notes
}

/// The indent of option names may differ, since copies of the transcript disagree on it; nothing else.
pub fn assert_same_text(found: &str, expected: &str) {
    let lines = |text: &str| -> Vec<String> {
        let line = |line: &str| match line.strip_prefix(['\t', ' ']) {
            Some(name) => format!("\t{}", name.trim_start()),
            None => line.trim_end().to_owned(),
        };
        text.lines().map(line).collect()
    };
    assert_eq!(lines(found), lines(expected), "\n{found}");
}
