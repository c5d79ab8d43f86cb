//! `.help`: the commands there are.

use std::fmt;

use serde::Serialize;

use super::answer::{Facts, Found};
use super::context::Context;
use super::known;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, Effect, Glued, Run, Takes};
use crate::output::write_columns;

pub(super) static COMMAND: CommandSpec = CommandSpec {
    names: &[".help", "help", "/help", "!help", ".hh"],
    usage: ".help [COMMAND]",
    summary: "list the commands",
    takes: Takes::Arguments(Glued::Slash),
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
    /// Help for the command that `name` means among `commands`, or for all of them if it is empty.
    #[must_use]
    pub fn about(name: &str, commands: &[&'static CommandSpec]) -> Self {
        let meant = |spec: &&&'static CommandSpec| {
            name.is_empty() || spec.names.iter().any(|known| known.contains(name))
        };
        let entry = |spec: &&'static CommandSpec| HelpEntry {
            names: spec.names,
            usage: spec.usage,
            summary: spec.summary,
            category: spec.category,
            effect: spec.effect(),
            details: if name.is_empty() { Vec::new() } else { details(spec) },
        };
        Self { commands: commands.iter().filter(meant).map(entry).collect() }
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
        let details: Vec<_> = self.commands.iter().flat_map(|entry| &entry.details).collect();
        let rows: Vec<_> = details.iter().map(|Detail { form, meaning }| ["", *form, *meaning]).collect();
        write_columns(out, &rows)
    }
}

fn details(spec: &CommandSpec) -> Vec<Detail> {
    spec.details.iter().map(|(form, meaning)| Detail { form, meaning }).collect()
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
}
