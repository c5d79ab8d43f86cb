//! `.more`: the next rows of an answer that was too long for the screen.
//!
//! ```text
//! 0: kd> !verifier 3 busy.sys
//! ...
//! 20 of 6,674 rows; .more shows the next ones, .more all the 6,654 that are left
//! 0: kd> .more
//! ```
//! Only at the prompt of a terminal: whoever keeps answers gets them whole. A value: the shell has the rows.

use std::fmt;

use serde::Serialize;

use super::answer::Facts;
use super::context::Context;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, ControlCommand, Glued, Run, Takes};

pub(super) static COMMAND: CommandSpec = CommandSpec {
    names: &[".more"],
    usage: ".more [all]",
    summary: "show the next rows of an answer that was too long for the screen, or all of them",
    takes: Takes::Arguments(Glued::Slash),
    category: Category::Session,
    details: &[],
    answers: &[More::SCHEMA],
    run: Run::Control(ControlCommand::More),
};

/// Rows of an answer that were left.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct More {
    /// They, as text.
    pub rows: String,
    /// How many are left behind them.
    pub left: usize,
}

impl More {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("more");
}

impl Facts for More {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, _: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        out.write_str(&self.rows)?;
        match (self.left, self.rows.is_empty()) {
            (0, true) => writeln!(out, "No rows are left"),
            (0, false) => Ok(()),
            (left, _) => writeln!(out, "{left} rows are left"),
        }
    }
}
