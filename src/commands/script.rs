//! `$<FILE`: runs the commands of a file, line by line, as if they had been typed.
//!
//! ```text
//!  $<FILE    $><FILE      the file's name goes on to the end of the line
//!  $$< FILE  $$>< FILE    up to the next `;`
//! ```
//! With `>` the lines are one: a command that fails keeps those behind it from changing the machine.

use std::fmt;

use serde::Serialize;

use super::answer::Facts;
use super::context::Context;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, ControlCommand, Glued, Run, Takes};

pub(super) static COMMAND: CommandSpec = CommandSpec {
    names: &["$<", "$$<", "$><", "$$><"],
    usage: "$<FILE",
    summary: "run the commands of a file",
    takes: Takes::Arguments(Glued::Anything),
    category: Category::Session,
    details: &[
        ("$<FILE, $><FILE", "the name goes on to the end of the line"),
        ("$$< FILE, $$>< FILE", "it ends before the next semicolon"),
        (
            "$>< and $$><",
            "take all lines for one: the rest of it is not run behind a failed command if it changes the machine",
        ),
    ],
    answers: &[FileRead::SCHEMA],
    run: Run::Control(ControlCommand::File),
};

/// How they are typed, the longer ones first.
pub(super) const FORMS: [&str; 4] = ["$$><", "$$<", "$><", "$<"];

/// A file of commands as a line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedFile<'a> {
    /// Its name, without quotes.
    pub name: &'a str,
    /// Its lines are one.
    pub is_one_line: bool,
}

/// The file that `command` names; nothing if it is another command.
#[must_use]
pub fn named_file(command: &str) -> Option<NamedFile<'_>> {
    let form = FORMS.iter().find(|form| command.starts_with(**form))?;
    let name = command[form.len()..].trim();
    let name = name.strip_prefix('"').and_then(|it| it.strip_suffix('"')).unwrap_or(name);
    Some(NamedFile { name, is_one_line: form.contains('>') })
}

/// The text of a file of commands: UTF-8, or what Windows' editors and shells write, UTF-16 behind a mark of its order.
///
/// # Errors
/// A sentence if it is neither.
pub fn text_of(bytes: &[u8]) -> Result<String, String> {
    let wide = |order: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes[2..].chunks_exact(2).map(|pair| order([pair[0], pair[1]])).collect();
        String::from_utf16(&units)
    };
    let text = match bytes {
        [0xff, 0xfe, ..] => wide(u16::from_le_bytes).ok(),
        [0xfe, 0xff, ..] => wide(u16::from_be_bytes).ok(),
        _ => std::str::from_utf8(bytes).ok().map(str::to_owned),
    };
    text.ok_or_else(|| "it is no text in UTF-8 or UTF-16".into())
}

/// A file was read; its commands follow.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct FileRead {
    /// As it was named.
    pub file: String,
    /// Its lines.
    pub lines: usize,
}

impl FileRead {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("file_read");
}

impl Facts for FileRead {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    // Its commands are shown as they are run.
    fn write_text(&self, _: &Context, _: &mut dyn fmt::Write) -> fmt::Result {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_in_four_ways() {
        let named = |command| named_file(command).map(|it| (it.name, it.is_one_line));
        assert_eq!(named("$<a b.txt"), Some(("a b.txt", false)));
        assert_eq!(named("$$< \"a b.txt\""), Some(("a b.txt", false)));
        assert_eq!(named("$><a"), Some(("a", true)));
        assert_eq!(named("$$>< a"), Some(("a", true)));
        assert_eq!(named("lm"), None);
    }

    #[test]
    fn files_of_windows_are_read() {
        let wide = |order: fn(u16) -> [u8; 2]| -> Vec<u8> {
            "\u{feff}lm\r\né".encode_utf16().flat_map(order).collect()
        };
        for bytes in [wide(u16::to_le_bytes), wide(u16::to_be_bytes)] {
            assert_eq!(text_of(&bytes).unwrap(), "lm\r\né");
        }
        assert_eq!(text_of("\u{feff}lm".as_bytes()).unwrap(), "\u{feff}lm", "the grammar leaves it out");
        assert!(text_of(&[0xff, 0xfe, 0, 0xd8]).is_err() && text_of(&[0xc3]).is_err());
    }
}
