//! Names that would take over a terminal: in images, drivers, symbols, types, texts, PDBs. None gets through, whatever is
//! asked, as text or as JSON, and none makes a line of its own.

use crate::support::Booted;
use crate::support::everything::{LINES, named};
use crate::support::text::WithNotes as _;
use crate::support::text::run;
use proptest::prelude::*;
use verikd::commands::{Answer, COMMANDS, NoteKind, QueryError, Run, Style};
use verikd::output::{is_hazard, json};

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_name_reaches_the_terminal_as_it_is(
        name in "[a-c]{1,3}[\\n\\r\\t\\x00\\x07\\x1b\\x7f\\x9b\u{85}\u{ad}\u{200b}\u{200f}\u{2028}\u{202e}\u{2066}\u{feff}\u{e0041}]{1,6}[a-c]{1,3}"
    ) {
        let harmless: String = name.chars().map(|c| if is_hazard(c) { 'h' } else { c }).collect();
        let (hostile, harmless) = (named(&name).boot(), named(&harmless).boot());
        let mut seen = 0;
        for line in LINES {
            let (shown, document) = both(&hostile, line);
            let (expected, _) = both(&harmless, line);
            let raw = shown.find(|c| is_hazard(c) && !matches!(c, '\n' | '\t'));
            prop_assert_eq!(raw, None, "{}: {:?}", line, shown);
            prop_assert_eq!(shown.lines().count(), expected.lines().count(), "{}:\n{}\n{}", line, shown, expected);
            prop_assert!(!document.contains(is_hazard), "{}: {:?}", line, document);
            let escapes = ["\\x", "\\u{", "\\n", "\\r", "\\t"];
            seen += usize::from(escapes.iter().any(|escape| shown.contains(escape)));
        }
        // Dots stand for texts of memory, so a name of newlines alone shows in fewer of them.
        prop_assert!(seen >= 8, "only {} answers showed the name", seen);
    }
}

/// A command that is not among the lines could print what it likes.
#[test]
fn every_command_that_asks_a_target_is_tried() {
    let tried = |name: &str| {
        LINES.iter().any(|line| line.split([' ', '/']).next().is_some_and(|it| it.starts_with(name)))
    };
    for spec in COMMANDS.iter().filter(|spec| matches!(spec.run, Run::Query(_))) {
        // Those of a kind share their text.
        let of_a_kind = spec.names[0].starts_with('d') || matches!(spec.names[0], "version");
        assert!(of_a_kind || spec.names.iter().any(|name| tried(name)), "{}", spec.names[0]);
    }
}

/// What a person and what a program is shown, notes and errors included.
fn both(booted: &Booted, line: &str) -> (String, String) {
    let target = booted.target();
    match run(&target, line) {
        Ok(answer) => (text_of(&answer), json(&answer.with_notes())),
        Err(error) => (error_text(&error), json(&serde_json::json!({ "error": error.to_string() }))),
    }
}

fn text_of(answer: &Answer) -> String {
    let mut text = String::new();
    answer.write_text(Style::default(), &mut text).unwrap();
    for note in &answer.notes {
        let kind = if note.kind == NoteKind::Failed { "error" } else { "note" };
        text += &format!("{kind}: {}\n", note.text);
    }
    text
}

/// Errors go through the same screen as everything that is no answer.
fn error_text(error: &QueryError) -> String {
    verikd::output::screened(&error.to_string())
}
