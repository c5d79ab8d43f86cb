//! What an event of a plan leaves behind: a text and a JSON file, named by time and event.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::super::line;
use super::super::own_line::{OwnLine, own_line};
use crate::commands::Style;
use crate::debugger::{Answered, AskError, Stamp, Stats};
use crate::output::{self, whole_file};

/// A command of an event, and what became of it.
pub(super) struct Asked {
    pub(super) command: String,
    pub(super) answer: Result<Answered, AskError>,
    pub(super) stamp: Stamp,
    pub(super) stats: Stats,
}

/// One event.
pub(super) struct Record {
    pub(super) target: String,
    pub(super) number: u64,
    /// What happened: `every`, `bug-check`.
    pub(super) happening: &'static str,
    /// In words; empty if there is nothing to say.
    pub(super) detail: String,
    pub(super) unix_ms: u64,
    pub(super) asked: Vec<Asked>,
    /// How long the machine stood still for it.
    pub(super) frozen: Duration,
}

/// Where the files of an event are, without their extension: `night/vm1/2026-11-26T041500Z-001-every`.
pub(super) fn base(folder: &Path, unix_ms: u64, number: u64, happening: &str) -> PathBuf {
    // Colons are no part of a file's name everywhere.
    let time = output::iso_time(i64::try_from(unix_ms / 1000).unwrap_or_default()).replace(':', "");
    folder.join(format!("{time}Z-{number:03}-{happening}"))
}

/// One event, as JSON.
#[derive(Serialize, JsonSchema)]
pub struct Event<'a> {
    /// What the plan calls its target.
    pub target: &'a str,
    /// Its number, from 1.
    pub event: u64,
    /// What happened: `every`, `bug-check`.
    pub happening: &'a str,
    /// The same in words; empty if there is nothing to say.
    pub detail: &'a str,
    /// When: milliseconds since 1970.
    pub unix_ms: u64,
    /// How long the machine stood still for it, in microseconds.
    pub frozen_us: u64,
    /// What became of each command: objects of the schemas of commands.
    pub commands: Vec<Value>,
}

impl OwnLine for Event<'_> {
    const NAME: &'static str = "event";
}

impl Record {
    /// Writes both files, each whole or not at all, and those that commands were asked for. What could not be written, in
    /// sentences.
    pub(super) fn write(&self, base: &Path, style: Style) -> Vec<String> {
        let mut trouble = Vec::new();
        for written in
            self.asked.iter().filter_map(|it| it.answer.as_ref().ok()).flat_map(Answered::write_files)
        {
            trouble.extend(written.err());
        }
        let text = |extension: &str, text: String| -> io::Result<()> {
            whole_file(&with_extension(base, extension), |out| out.write_all(text.as_bytes()))
        };
        for (extension, written) in
            [("txt", text("txt", self.text(style))), ("json", text("json", self.json()))]
        {
            if let Err(error) = written {
                trouble
                    .push(format!("{} was not written: {error}", with_extension(base, extension).display()));
            }
        }
        trouble
    }

    fn text(&self, style: Style) -> String {
        let mut text = String::new();
        let time = output::unix_time(i64::try_from(self.unix_ms / 1000).unwrap_or_default());
        let infallible = "a String takes any text";
        writeln!(text, "* {} event {}: {}, {time} UTC", self.target, self.number, self.happening)
            .expect(infallible);
        for line in self.detail.lines() {
            writeln!(text, "* {line}").expect(infallible);
        }
        for Asked { command, answer, .. } in &self.asked {
            writeln!(text, "kd> {command}").expect(infallible);
            match answer {
                Ok(answered) => {
                    answered.write_text(style, &mut text).expect(infallible);
                    for note in &answered.notes {
                        writeln!(text, "{note}").expect(infallible);
                    }
                }
                Err(error) => writeln!(text, "error: {error}").expect(infallible),
            }
        }
        writeln!(text, "* the target stood still for {:.3?}", self.frozen).expect(infallible);
        output::screened(&text)
    }

    fn json(&self) -> String {
        let commands = self
            .asked
            .iter()
            .map(|Asked { command, answer, stamp, stats }| match answer {
                Ok(answered) => line::answered_value(command, answered),
                Err(error) => line::failed_value(command, error, *stamp, *stats),
            })
            .collect();
        own_line(&Event {
            target: &self.target,
            event: self.number,
            happening: self.happening,
            detail: &self.detail,
            unix_ms: self.unix_ms,
            frozen_us: u64::try_from(self.frozen.as_micros()).unwrap_or(u64::MAX),
            commands,
        })
    }
}

/// The name has dots of its own: an extension is put behind it, and replaces none.
fn with_extension(base: &Path, extension: &str) -> PathBuf {
    let mut name = base.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}
