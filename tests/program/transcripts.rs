//! `.help COMMAND` shows how a command answers: each of those lines is what it answers today.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use verikd::commands::{Effect, effect_of, transcripts};

use crate::program::{Setup, command};

/// Lines of an answer that are shown; more would hide the command's forms.
const SHOWN: usize = 12;
/// Before a command, in what is printed.
const BEGIN: &str = "=== ";
/// Commands that show, or change, what others have done to the session.
const ALONE: [&str; 3] = [".kdstats", ".symfix", ".dump /used leak.dmp"];
/// What differs from run to run.
const CLOCKS: [&str; 4] = ["time:", "Uptime:", "datagrams", "frozen"];

/// `UPDATE_EXPECTED=1 cargo test --test program transcripts` writes them anew, from the first line of each.
#[test]
fn every_command_answers_as_its_help_shows() {
    let setup = Setup::new();
    let _target = setup.target(&[]);
    let typed: Vec<(&str, &str)> = transcripts().map(|(name, text)| (name, typed_in(text))).collect();
    let leaves = |line: &&str| effect_of(line).changes_machine() && effect_of(line) != Effect::Writes;
    let (leaving, mut staying): (Vec<_>, Vec<_>) =
        typed.iter().map(|(_, line)| *line).partition(|line| leaves(line) || ALONE.contains(line));
    // What is written is shown by nobody else.
    staying.sort_by_key(|line| effect_of(line) == Effect::Writes);
    // In one stop, so that all show one machine.
    let mut shown_of = answers(&setup, &staying);
    for line in leaving {
        let mut shown = answers(&setup, &[line]);
        if leaves(&line) {
            // What the machine does then comes when it comes, and is no answer.
            shown.values_mut().for_each(Vec::clear);
        }
        shown_of.extend(shown);
    }
    let mut today = String::new();
    for (name, line) in &typed {
        let answer = &shown_of[*line];
        writeln!(today, "=== {name}\n0: kd> {line}").unwrap();
        answer.iter().take(SHOWN).for_each(|line| writeln!(today, "{line}").unwrap());
        if answer.len() > SHOWN {
            today.push_str("...\n");
        }
    }
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/commands/transcripts.txt");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&file, &today).unwrap();
        return;
    }
    let shown: Vec<String> = transcripts().flat_map(|(_, text)| text.lines()).map(timeless).collect();
    let expected: Vec<String> =
        today.lines().filter(|line| !line.starts_with("=== ")).map(timeless).collect();
    for (shown, expected) in shown.iter().zip(&expected) {
        assert_eq!(shown, expected, "UPDATE_EXPECTED=1 writes src/commands/transcripts.txt anew");
    }
    assert_eq!(shown.len(), expected.len());
}

fn typed_in(text: &str) -> &str {
    text.lines()
        .next()
        .and_then(|line| line.strip_prefix("0: kd> "))
        .expect("a transcript begins with a command")
}

/// A line up to what differs from run to run.
fn timeless(line: &str) -> String {
    let end = CLOCKS.iter().filter_map(|clock| line.find(clock)).min();
    line[..end.unwrap_or(line.len())].trim_end().to_owned()
}

/// What commands show of themselves, answers and all else, in one session.
fn answers(setup: &Setup, typed: &[&str]) -> BTreeMap<String, Vec<String>> {
    let folder = setup.folder.path();
    std::fs::write(folder.join("night.txt"), ".echo from the file\n").unwrap();
    let mut script = String::new();
    for line in typed {
        writeln!(script, ".echo {BEGIN}{line}\n{line}").unwrap();
    }
    std::fs::write(folder.join("script"), script).unwrap();
    let both = folder.join("both");
    let file = std::fs::File::create(&both).unwrap();
    let symbols = setup.symbols().display().to_string();
    let connection = setup.connection("1.2.3.4");
    let arguments =
        ["-k", &connection, "-y", &symbols, "-b", "--write", "-cf", "script", "--stop-timeout", "1s"];
    let status = command(&arguments)
        .current_dir(folder)
        .stdin(std::process::Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .status()
        .unwrap();
    let text = std::fs::read_to_string(&both).unwrap();
    assert!(status.code().is_some(), "{text}");
    let mut answers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut line_of = "";
    for line in text.lines() {
        if let Some(line) = line.strip_prefix(BEGIN) {
            line_of = line;
            answers.insert(line_of.to_owned(), Vec::new());
            continue;
        }
        // What the machine prints when it pleases is no answer.
        let is_of_answer = !line.starts_with("myfault: ") && line != format!("0: kd> {line_of}");
        let shown = line.replace(&symbols, "/symbols").replace('\t', "    ").trim_end().to_owned();
        if let Some(answer) = answers.get_mut(line_of).filter(|_| is_of_answer && !line.contains(BEGIN)) {
            answer.push(shown);
        }
    }
    assert_eq!(answers.len(), typed.len(), "{text}");
    answers
}
