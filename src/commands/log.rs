//! `.logopen`, `.logappend`, `.logclose`, `.logfile`: what is shown is kept in a file too.
//!
//! ```text
//! 0: kd> .logopen /tmp/leak.log
//! Opened log file '/tmp/leak.log'
//! 0: kd> .logclose
//! Closing open log file '/tmp/leak.log'
//! ```
//! The file has what the terminal shows: commands, answers, what the target prints. It holds memory of the target, so that
//! only its owner may read it. Values: the shell, which writes everything, has the file.

use std::fmt;

use serde::Serialize;

use super::answer::Facts;
use super::context::Context;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, ControlCommand, Glued, Run, Takes};

const DETAILS: &[(&str, &str)] = &[
    ("FILE", "without one: verikd.log in the current folder"),
    ("/t", "date and time of day are put into the name"),
];

pub(super) static LOGOPEN: CommandSpec = CommandSpec {
    names: &[".logopen"],
    usage: ".logopen [/t] [FILE]",
    summary: "keep what is shown in a new file too",
    takes: Takes::Arguments(Glued::Slash),
    category: Category::Session,
    details: DETAILS,
    answers: &[LogFile::SCHEMA],
    run: Run::Control(ControlCommand::LogOpen),
};

pub(super) static LOGAPPEND: CommandSpec = CommandSpec {
    names: &[".logappend"],
    usage: ".logappend [/t] [FILE]",
    summary: "keep what is shown at the end of a file too",
    takes: Takes::Arguments(Glued::Slash),
    category: Category::Session,
    details: DETAILS,
    answers: &[LogFile::SCHEMA],
    run: Run::Control(ControlCommand::LogAppend),
};

pub(super) static LOGCLOSE: CommandSpec = CommandSpec {
    names: &[".logclose"],
    usage: ".logclose",
    summary: "end the log file",
    takes: Takes::Nothing,
    category: Category::Session,
    details: &[],
    answers: &[LogFile::SCHEMA],
    run: Run::Control(ControlCommand::LogClose),
};

pub(super) static LOGFILE: CommandSpec = CommandSpec {
    names: &[".logfile"],
    usage: ".logfile",
    summary: "show whether a log file is open, and which",
    takes: Takes::Nothing,
    category: Category::Session,
    details: &[],
    answers: &[LogFile::SCHEMA],
    run: Run::Control(ControlCommand::LogFile),
};

/// What became of the log file.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct LogFile {
    /// Which; nothing if there is none.
    pub file: Option<String>,
    /// What became of it.
    pub state: LogState,
}

/// What became of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogState {
    /// It was begun.
    Opened,
    /// An old one is gone on with.
    Appended,
    /// It was open, and is not any more.
    Closed,
    /// It is open.
    Open,
    /// There is none.
    None,
}

impl LogFile {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("log_file");
}

impl Facts for LogFile {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, _: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        let file = self.file.as_deref().unwrap_or_default();
        match self.state {
            LogState::Opened => writeln!(out, "Opened log file '{file}'"),
            LogState::Appended => writeln!(out, "Opened log file '{file}' and goes on at its end"),
            LogState::Closed => writeln!(out, "Closing open log file '{file}'"),
            LogState::Open => writeln!(out, "Log file '{file}' is open"),
            LogState::None => writeln!(out, "No log file is open"),
        }
    }
}
