//! Typing a line and comparing what comes back.

use std::fmt::Write;

use verikd::commands::{AnyAnswer, COMMANDS, Note, QueryError, Run, Style, VerifierFormat, ask, find};
use verikd::target::Target;

pub fn run(target: &Target<'_>, line: &str) -> Result<Box<dyn AnyAnswer>, QueryError> {
    let (spec, arguments) = find(line)?;
    match spec.run {
        Run::Query(run) => ask(run, arguments, target),
        Run::Local(run) => run(arguments, COMMANDS),
        Run::Symbols(run) => run(arguments, target.kernel().symbol_source(), Some(target)),
        Run::Control(control) => panic!("{control:?} is for the shell"),
    }
}

pub fn text(target: &Target<'_>, line: &str) -> String {
    text_in(VerifierFormat::Auto, target, line)
}

pub fn text_in(verifier: VerifierFormat, target: &Target<'_>, line: &str) -> String {
    let mut text = String::new();
    match run(target, line) {
        Ok(answer) => answer.write_styled(&Style { verifier }, &mut text).unwrap(),
        Err(error) => write!(text, "{error}").unwrap(),
    }
    text
}

pub fn notes(target: &Target<'_>, line: &str) -> Vec<Note> {
    run(target, line).unwrap_or_else(|error| panic!("{line}: {error}")).notes().to_vec()
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
