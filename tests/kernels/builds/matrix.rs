//! What every build prints in every scenario: a table to be read by people, in `tests/snapshots/verifier`.
//!
//! Builds that print the same share a paragraph. `INSTA_UPDATE=always` writes the files anew; the difference is reviewed.

use std::fmt::Write;

use verikd::commands::{NoteKind, VerifierFormat};
use verikd::target::Target;
use verikd_sim::windows::{BUILDS, Build, Machine, Scenario};

use super::stopped;
use crate::support::reviewed::assert_reviewed;
use crate::support::text::{run, text_in};

/// Lines of an answer that are kept at its start and at its end.
const KEPT: (usize, usize) = (72, 4);

#[test]
fn every_build_prints_what_was_reviewed_in_every_scenario() {
    // A bug check leaves Driver Verifier's records as they were.
    for scenario in Scenario::ALL.into_iter().filter(|scenario| !scenario.name().starts_with("bugcheck-")) {
        let mut paragraphs: Vec<(Vec<&str>, String)> = Vec::new();
        let mut add =
            |build: &Build, printed: String| match paragraphs.iter_mut().find(|(_, known)| *known == printed)
            {
                Some((builds, _)) => builds.push(build.name),
                None => paragraphs.push((vec![build.name], printed)),
            };
        for build in BUILDS {
            if let Err(error) = scenario.check(build) {
                add(build, format!("{}\n", error.to_string().replace(build.name, "BUILD")));
                continue;
            }
            let (machine, kernel) = stopped(build, Machine::with_scenario(build, scenario, 1));
            let target = Target::new(&machine, &kernel);
            for (format, line) in lines(scenario) {
                add(build, format!("{line} ({format})\n{}", printed(&target, format, line)));
            }
        }
        paragraphs.sort_by(|(_, a), (_, b)| a.lines().next().cmp(&b.lines().next()));
        let table: Vec<_> =
            paragraphs.iter().map(|(builds, text)| format!("== {}: {text}", builds.join(", "))).collect();
        assert_reviewed("verifier", &scenario.to_string(), &table.join("\n"));
    }
}

/// What is typed in a scenario.
fn lines(scenario: Scenario) -> Vec<(VerifierFormat, &'static str)> {
    let mut lines = vec![
        (VerifierFormat::Old, "!verifier 3"),
        (VerifierFormat::Auto, "!verifier 3"),
        (VerifierFormat::Auto, "!verifier 80 3"),
    ];
    let others = ["!verifier 4 2", "!verifier 8 2", "!verifier 40 2", "!verifier 100 2", "!verifier 200 2"];
    if scenario == Scenario::Logs {
        lines.extend(others.map(|line| (VerifierFormat::Auto, line)));
        lines.push((VerifierFormat::Auto, "!verifier 400"));
    }
    lines
}

/// An answer and its notes, shortened, without spaces at the ends of lines.
fn printed(target: &Target<'_>, format: VerifierFormat, line: &str) -> String {
    let shown = text_in(format, target, line);
    let lines: Vec<_> = shown.lines().map(str::trim_end).collect();
    let (first, last) = KEPT;
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        match lines.len() - number {
            left if number < first || left <= last => writeln!(text, "{line}").unwrap(),
            left if number == first => writeln!(text, "... {} lines ...", left - last).unwrap(),
            _ => {}
        }
    }
    for note in run(target, line).iter().flat_map(|answer| &answer.notes) {
        let kind = match note.kind {
            NoteKind::Remark => "note",
            NoteKind::Partial => "incomplete",
            NoteKind::Failed => "error",
        };
        writeln!(text, "{kind}: {}", note.text).unwrap();
    }
    text
}
