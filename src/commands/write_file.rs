//! `.writemem`: a piece of the target's memory as a file.
//!
//! ```text
//! 0: kd> .writemem tracker.bin poi(nt!VfPoolTraces) L1000
//! Writing 1000 bytes..
//! ```
//! A file that is there already is overwritten, as WinDbg does. Nothing is written to the target. What lies behind a page
//! that cannot be read is not in the file.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::answer::{AnswerFile, Facts, Found};
use super::arguments::Arguments;
use super::context::Context;
use super::error::QueryError;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, Glued, Run, Takes};
use crate::output::{self, whole_file};
use crate::target::{Note, NoteCode, Target, TargetError, VirtAddr};

pub(super) static COMMAND: CommandSpec = CommandSpec {
    names: &[".writemem"],
    usage: ".writemem FILE RANGE",
    summary: "write a range of the target's memory to a file",
    takes: Takes::Arguments(Glued::Slash),
    category: Category::Memory,
    details: &[("RANGE", "ADDRESS L BYTES (hexadecimal), or ADDRESS and the last one")],
    answers: &[MemoryFile::SCHEMA],
    run: Run::Query(run),
};

/// Bytes between two dots.
const DOT: u64 = 0x800;
/// More dots say nothing.
const MOST_DOTS: u64 = 64;
/// Bytes that are read at once.
const PIECE: usize = 0x1_0000;

/// What was written where.
#[derive(Clone, Serialize, schemars::JsonSchema)]
pub(super) struct MemoryFile {
    file: PathBuf,
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    address: VirtAddr,
    bytes: u64,
    #[serde(skip)]
    content: Vec<u8>,
}

impl MemoryFile {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("memory_file");
}

impl Facts for MemoryFile {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, _: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        let dots = ".".repeat(self.bytes.div_ceil(DOT).min(MOST_DOTS) as usize);
        writeln!(out, "Writing {:x} bytes{dots}", self.bytes)
    }

    fn files(&self) -> Vec<AnswerFile<'_>> {
        let write = || whole_file(&self.file, |out| out.write_all(&self.content));
        vec![AnswerFile {
            path: &self.file,
            write: Box::new(move |_| write().map_err(|error| error.to_string())),
        }]
    }
}

/// Files that a command writes: none is named twice.
pub(super) fn are_different<'a>(
    command: &'static str,
    files: impl Iterator<Item = &'a Path>,
) -> Result<(), QueryError> {
    let mut named = Vec::new();
    for file in files {
        if named.contains(&file) {
            let reason = format!("{} is named twice: one would be written over the other", file.display());
            return Err(QueryError::File { command, reason });
        }
        named.push(file);
    }
    Ok(())
}

/// The same for one that takes long, before it begins: each can be written. Of others the answer is there whatever becomes of it.
pub(super) fn may_write<'a>(
    command: &'static str,
    mut files: impl Iterator<Item = &'a Path> + Clone,
) -> Result<(), QueryError> {
    are_different(command, files.clone())?;
    let failed = |why: std::io::Error| QueryError::File { command, reason: why.to_string() };
    files.try_for_each(output::may_write).map_err(failed)
}

fn run(text: &str, target: &Target<'_>) -> Found {
    let mut arguments = Arguments::new(&COMMAND, text);
    let Some(file) = arguments.name().filter(|name| !name.is_empty()) else {
        return Err(arguments.usage("no file"));
    };
    let range = arguments.range(target, 1)?;
    arguments.end()?;
    let Some(len) = range.len.filter(|len| *len > 0) else {
        return Err(arguments.usage("a range is missing: ADDRESS L BYTES, or an end"));
    };
    let mut content = Vec::new();
    while (content.len() as u64) < len {
        let at = range.start.offset(content.len() as u64);
        let mut piece = vec![0; PIECE.min((len - content.len() as u64) as usize)];
        let Err(error) = target.memory().read_virtual(at, &mut piece) else {
            content.append(&mut piece);
            target.advance("bytes", content.len() as u64, len);
            continue;
        };
        piece.truncate(error.got);
        content.append(&mut piece);
        if content.is_empty() {
            let source = TargetError::read("memory", error);
            return Err(QueryError::Target { command: COMMAND.names[0], source });
        }
        let end = target.shown(range.start.offset(content.len() as u64));
        let text = format!(
            "The file ends at {end}, {:#x} bytes before the range does: {error}",
            len - content.len() as u64
        );
        target.note(Note::partial(NoteCode::Unreadable, text).broken_off_if(error.cause.is_of_link()));
        break;
    }
    let bytes = content.len() as u64;
    Ok(Box::new(MemoryFile { file: PathBuf::from(file), address: range.start, bytes, content }))
}
