//! `.echo`: says what it is given, so that a script's output can be found one's way in.

use std::fmt;

use serde::Serialize;

use super::answer::{Facts, Found};
use super::context::Context;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, Glued, Run, Takes};

pub(super) static COMMAND: CommandSpec = CommandSpec {
    names: &[".echo"],
    usage: ".echo TEXT",
    summary: "print a text",
    takes: Takes::Arguments(Glued::Slash),
    category: Category::Session,
    details: &[],
    answers: &[Echo::SCHEMA],
    run: Run::Local(run),
};

/// A text.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub(super) struct Echo {
    text: String,
}

impl Echo {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("echo");
}

impl Facts for Echo {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, _: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(out, "{}", self.text)
    }
}

/// Quotes around the whole text protect it and are not part of it.
fn run(arguments: &str, _: &'static [&'static CommandSpec]) -> Found {
    let inside = arguments.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    Ok(Box::new(Echo { text: inside.unwrap_or(arguments).to_owned() }))
}
