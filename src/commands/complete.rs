//! What Tab makes of a line: names of commands, and the words that a command's spec knows.
//!
//! ```text
//!  lm; !ver         the name of a command          !verifier
//!  .help .sy        the name of a command          .sympath .sympath+ .symfix ..
//!  x /              a word of its usage or forms   /0 /1 /2 /n /a       capitals are for the user to fill in
//! ```

use super::registry::{COMMANDS, find};
use super::spec::{CommandSpec, Takes};

/// Where the word begins that ends `line`, and what it may become, in the order in which `.help` lists it.
#[must_use]
pub fn completions(line: &str) -> (usize, Vec<&'static str>) {
    // In quotes stands what only the user knows.
    if line.matches('"').count() % 2 == 1 {
        return (line.len(), Vec::new());
    }
    let command = line.rfind([';', '\n']).map_or(0, |at| at + 1);
    let command = line.len() - line[command..].trim_start().len();
    let word = line.rfind([' ', '\t']).map_or(0, |at| at + 1).max(command);
    let known = if word == command { names() } else { words_after(&line[command..word]) };
    let begins = |known: &&str| {
        known.get(..line.len() - word).is_some_and(|start| start.eq_ignore_ascii_case(&line[word..]))
    };
    (word, known.into_iter().filter(begins).collect())
}

fn names() -> Vec<&'static str> {
    COMMANDS.iter().flat_map(|spec| spec.names).copied().collect()
}

/// What may stand behind `typed`, a command and perhaps some of its arguments.
fn words_after(typed: &str) -> Vec<&'static str> {
    match find(typed) {
        Ok((spec, _)) if spec.takes == Takes::Command => names(),
        Ok((spec, _)) => words_of(spec),
        Err(_) => Vec::new(),
    }
}

/// The words of a command's usage and forms that are typed as they stand, each once.
fn words_of(spec: &'static CommandSpec) -> Vec<&'static str> {
    let mut words = Vec::new();
    let forms = spec.details.iter().map(|(form, _)| *form);
    for word in [spec.usage].into_iter().chain(forms).flat_map(literals) {
        // A single letter is typed sooner than it is completed.
        if word.len() > 1 && !words.contains(&word) && !spec.names.contains(&word) {
            words.push(word);
        }
    }
    words
}

/// The words of a form that are no names of what the user fills in: those are in capitals.
fn literals(form: &'static str) -> impl Iterator<Item = &'static str> {
    form.split(|c: char| c.is_whitespace() || "[]|,".contains(c)).filter(|word| {
        word.chars().any(char::is_alphanumeric)
            && !word.contains(|c: char| c.is_uppercase() || "*!.".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_where_a_command_begins() {
        for (line, at, names) in [
            ("!ver", 0, vec!["!verifier"]),
            ("!VER", 0, vec!["!verifier"]),
            ("lm; .sympath", 4, vec![".sympath", ".sympath+"]),
            ("  .rebo", 2, vec![".reboot"]),
            ("nothing", 0, vec![]),
            (".echo \"a; .rebo", 15, vec![]),
            (".help .sympath", 6, vec![".sympath", ".sympath+"]),
        ] {
            assert_eq!(completions(line), (at, names), "{line}");
        }
        assert_eq!(completions("").1, names());
    }

    #[test]
    fn arguments_are_completed_from_the_spec() {
        for (line, at, words) in [
            ("!sym ", 5, vec!["noisy", "quiet"]),
            ("!sym q", 5, vec!["quiet"]),
            ("lm; x /", 6, vec!["/0", "/1", "/2", "/n", "/a"]),
            (".reload /", 8, vec!["/f", "/u"]),
            (".verifierformat o", 16, vec!["old"]),
            ("g ", 2, vec![]),
            ("nothing /", 8, vec![]),
        ] {
            assert_eq!(completions(line), (at, words), "{line}");
        }
        assert!(!completions("!verifier ").1.is_empty());
    }

    #[test]
    fn whatever_stands_before_the_cursor_gets_an_answer_within_it() {
        for line in ["é", ".echo é", "lm;é \u{2013}", "\"", ";;;", "!é\n", "dt nt!_VF\u{301} "] {
            assert!(
                completions(line).0 <= line.len() && line.is_char_boundary(completions(line).0),
                "{line:?}"
            );
        }
    }
}
