//! `.help`: the commands there are.

use std::fmt;

use serde::Serialize;

use super::answer::{Facts, Found};
use super::context::Context;
use super::known;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, Effect, Run, Takes};
use crate::output::write_term;

pub(super) static COMMAND: CommandSpec = CommandSpec {
    names: &[".help", "help", "/help", "!help", ".hh"],
    usage: ".help [COMMAND]",
    summary: "list the commands, or show the forms and options of one",
    takes: Takes::Command,
    category: Category::Session,
    details: &[],
    answers: &[Help::SCHEMA],
    run: Run::Local(run),
};

/// How each command answers on the simulated machine, by its name: the lines that were typed, and what was shown; `...`
/// stands for lines that are left out.
pub fn transcripts() -> impl Iterator<Item = (&'static str, &'static str)> {
    include_str!("transcripts.txt").split("=== ").filter_map(|part| part.split_once('\n'))
}

/// The commands, or those that a name fits.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Help {
    commands: Vec<HelpEntry>,
}

#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
struct HelpEntry {
    names: &'static [&'static str],
    usage: &'static str,
    summary: &'static str,
    category: Category,
    effect: Effect,
    /// Its forms and options, if it was asked for by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<Detail>,
    /// How it answers, if it was asked for by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    transcript: Option<&'static str>,
}

#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
struct Detail {
    form: &'static str,
    meaning: &'static str,
}

impl Help {
    /// Help for the command that `name` names among `commands`, with its forms; else for those whose names have it in them,
    /// and for all of them if it is empty.
    #[must_use]
    pub fn about(name: &str, commands: &[&'static CommandSpec]) -> Self {
        let is_named = |known: &&str| {
            known.eq_ignore_ascii_case(name)
                || known.trim_start_matches(['!', '.']).eq_ignore_ascii_case(name)
        };
        // `.help ds` and `.help dS` are two questions.
        let exact = commands.iter().find(|spec| spec.names.contains(&name));
        let named = || commands.iter().find(|spec| spec.names.iter().any(is_named));
        if let Some(spec) = exact.or_else(named) {
            let transcript = transcripts().find(|(name, _)| *name == spec.names[0]).map(|(_, text)| text);
            return Self { commands: vec![HelpEntry { transcript, ..HelpEntry::of(spec, spec.details) }] };
        }
        let has = |spec: &&&'static CommandSpec| spec.names.iter().any(|known| known.contains(name));
        Self { commands: commands.iter().filter(has).map(|spec| HelpEntry::of(spec, &[])).collect() }
    }
}

impl HelpEntry {
    fn of(spec: &CommandSpec, details: &[(&'static str, &'static str)]) -> Self {
        Self {
            names: spec.names,
            usage: spec.usage,
            summary: spec.summary,
            category: spec.category,
            effect: spec.effect(),
            details: details.iter().map(|(form, meaning)| Detail { form, meaning }).collect(),
            transcript: None,
        }
    }
}

impl Help {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("help");
}

impl Facts for Help {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        let columns = context.columns();
        let mut category = None;
        // Those of a kind together, otherwise in the order that they have.
        let mut entries: Vec<_> = self.commands.iter().collect();
        entries.sort_by_key(|entry| entry.category as u8);
        for (place, entry) in entries.into_iter().enumerate() {
            if self.commands.len() > 1 && category.replace(entry.category) != Some(entry.category) {
                writeln!(out, "{}{}:", if place == 0 { "" } else { "\n" }, entry.category.title())?;
            }
            write_term(out, (entry.usage, entry.summary), 0, columns)?;
        }
        let [entry] = &self.commands[..] else {
            return writeln!(out, "\n.help COMMAND shows the forms of one, and how it answers.");
        };
        if let [_, others @ ..] = entry.names
            && !others.is_empty()
        {
            writeln!(out, "  also typed {}", others.join(", "))?;
        }
        for Detail { form, meaning } in &entry.details {
            write_term(out, (form, meaning), 2, columns)?;
        }
        match entry.transcript {
            Some(transcript) => write!(out, "\n{transcript}"),
            None => Ok(()),
        }
    }
}

fn run(arguments: &str, commands: &'static [&'static CommandSpec]) -> Found {
    let help = Help::about(arguments, commands);
    if help.commands.is_empty() {
        return Err(known::unknown(arguments, commands));
    }
    Ok(Box::new(help))
}

#[cfg(test)]
mod tests {
    use super::super::answer::Answer;
    use super::super::context::Style;
    use super::super::registry::COMMANDS;
    use super::*;

    #[test]
    fn help_lists_every_command() {
        let mut text = String::new();
        let help = Answer::of_no_target(Box::new(Help::about("", COMMANDS)));
        help.write_text(Style::default(), &mut text).unwrap();
        let begins = |spec: &&&CommandSpec| text.lines().any(|line| line.starts_with(spec.names[0]));
        assert_eq!(COMMANDS.iter().filter(begins).count(), COMMANDS.len(), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(run("no such", COMMANDS).is_err());
    }

    #[test]
    fn every_command_has_a_transcript() {
        let named: Vec<&str> = transcripts().map(|(name, _)| name).collect();
        assert_eq!(named, COMMANDS.iter().map(|spec| spec.names[0]).collect::<Vec<_>>());
        for (name, text) in transcripts() {
            assert!(text.contains("> ") && text.contains(name), "{text}");
        }
    }

    #[test]
    fn help_for_one_command_shows_its_forms_and_for_a_part_of_names_all_that_have_it() {
        let names = |name| {
            let help = Help::about(name, COMMANDS);
            help.commands.iter().map(|entry| (entry.names[0], entry.details.len())).collect::<Vec<_>>()
        };
        assert_eq!(names("g"), [("g", 1)]);
        for name in ["x", "X"] {
            assert_eq!(names(name), [("x", examine_forms())]);
        }
        assert_eq!(names("ds"), [("ds", 0)]);
        assert_eq!(names("dS"), [("dS", 0)]);
        assert_eq!(names("reload")[0].0, ".reload");
        assert!(names("symp").len() == 2 && names("symp").iter().all(|(_, details)| *details == 0));
    }

    fn examine_forms() -> usize {
        COMMANDS.iter().find(|spec| spec.names[0] == "x").unwrap().details.len()
    }
}
