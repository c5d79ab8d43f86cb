//! `.allow_write`: lets commands change the target.

use std::fmt;

use serde::Serialize;

use super::answer::Facts;
use super::context::Context;
use super::error::QueryError;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, ControlCommand, Glued, Run, Takes};

pub(super) static COMMAND: CommandSpec = CommandSpec {
    names: &[".allow_write"],
    usage: ".allow_write [0|1]",
    summary: "let commands change the target's memory and registers; a script needs --write",
    takes: Takes::Arguments(Glued::Slash),
    category: Category::Session,
    details: &[("0", "no more"), ("1", "from here on, as without a number")],
    answers: &[WritesAllowed::SCHEMA],
    run: Run::Control(ControlCommand::AllowWrite),
};

/// Whether the target may be changed.
#[derive(Clone, Copy, Debug, Serialize, schemars::JsonSchema)]
pub struct WritesAllowed {
    /// By `e` and `r REGISTER=VALUE`.
    pub allowed: bool,
}

impl WritesAllowed {
    /// What the arguments of `.allow_write` ask for.
    ///
    /// # Errors
    /// [`QueryError::Usage`].
    pub fn parse(arguments: &str) -> Result<Self, QueryError> {
        match arguments.trim() {
            "" | "1" => Ok(Self { allowed: true }),
            "0" => Ok(Self { allowed: false }),
            other => Err(QueryError::Usage {
                command: COMMAND.names[0],
                problem: format!("`{other}` is neither 0 nor 1"),
                usage: COMMAND.usage,
            }),
        }
    }

    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("writes_allowed");
}

impl Facts for WritesAllowed {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, _: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        let what = if self.allowed { "can change" } else { "cannot change" };
        writeln!(out, "Commands {what} the target")
    }
}
