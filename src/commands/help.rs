//! `.help`: the commands there are.

use std::fmt;

use serde::Serialize;

use super::answer::{Facts, Found};
use super::context::Context;
use super::known;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, Effect, Run, Takes};
use crate::output::write_columns;

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
            return Self { commands: vec![HelpEntry::of(spec, spec.details)] };
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

    fn write_text(&self, _: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        let rows: Vec<_> = self.commands.iter().map(|entry| [entry.usage, entry.summary]).collect();
        write_columns(out, &rows)?;
        if let [HelpEntry { names: [_, others @ ..], .. }] = &self.commands[..]
            && !others.is_empty()
        {
            writeln!(out, "  also typed {}", others.join(", "))?;
        }
        let details: Vec<_> = self.commands.iter().flat_map(|entry| &entry.details).collect();
        let rows: Vec<_> = details.iter().map(|Detail { form, meaning }| ["", *form, *meaning]).collect();
        write_columns(out, &rows)
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
        assert_eq!(text.lines().count(), COMMANDS.len());
        assert!(text.contains("!verifier"), "{text}");
        assert!(run("no such", COMMANDS).is_err());
    }

    #[test]
    fn help_for_one_command_shows_its_forms_and_for_a_part_of_names_all_that_have_it() {
        let names = |name| {
            let help = Help::about(name, COMMANDS);
            help.commands.iter().map(|entry| (entry.names[0], entry.details.len())).collect::<Vec<_>>()
        };
        assert_eq!(names("g"), [("g", 0)]);
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
