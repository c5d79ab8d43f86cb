//! `!poolused`: how much pool each tag holds.
//!
//! ```text
//!  !poolused [FLAGS [TAG]]    flags: 1 allocations and frees too, 2 by nonpaged bytes, 4 by paged bytes
//!  -d                         what has changed since the last time
//!  -d FILE                    what has changed since a snapshot
//!  -save FILE                 keep a snapshot of every tag
//!  /t N                       the first N rows
//! ```
//! ```text
//! 0: kd> !poolused 0 Leak
//!  Sorting by Tag
//!
//!                NonPaged                  Paged
//!  Tag     Allocs         Used     Allocs         Used
//!
//!  Leak        10     10280960          0            0    UNKNOWN pooltag 'Leak', please update pooltag.txt
//!
//! TOTAL        10     10280960          0            0
//! ```
//! Every tag costs every processor's table. One tag costs a reply for each, since the kernel's own hash says where it is.
//!
//! A sum that lacks a processor's part is no sum: tags whose entry could not be read in every table have no row, and are told.
//! Of a target older than Windows 8.1 the text is that of its own debuggers; `.verifierformat` chooses another.
//!
//! Source: pool.md 2.

mod report;
mod row;
mod snapshot;
mod sum;
mod text;

pub(in crate::commands) use self::report::known_tags;
pub use self::report::{Order, PoolUsed, Since, SinceFile, UsedQuery};
pub use self::row::{Overflow, PoolSide, TagRow, Total};
pub use self::snapshot::{PoolSnapshot, SavedTag};
use std::path::PathBuf;
use std::sync::Arc;

use super::pattern::TagPattern;
use crate::commands::answer::{Found, answer};
use crate::commands::arguments::{Arguments, number};
use crate::commands::error::QueryError;
use crate::commands::spec::{Category, CommandSpec, Glued, Run, Takes};
use crate::target::{Note, NoteCode, Target};

pub(in crate::commands) static COMMAND: CommandSpec = CommandSpec {
    names: &["!poolused"],
    usage: "!poolused [-d [FILE]] [-save FILE] [/t N] [FLAGS [TAG]]",
    summary: "show how much pool each tag holds, by the kernel's own counters",
    takes: Takes::Arguments(Glued::Dash),
    category: Category::Pool,
    details: &[
        ("!poolused", "every tag, in their order"),
        ("!poolused 2", "by bytes of nonpaged pool, the most first"),
        ("!poolused 4", "by bytes of paged pool"),
        ("!poolused 0 TAG", "one tag, at the cost of a request or so for each processor; case counts"),
        ("!poolused 0 Le*", "tags that fit: * any characters, ? any one"),
        ("1", "a flag to add: allocations and frees too, and tags that hold nothing"),
        ("-d", "what has changed since the last !poolused of this boot"),
        ("-d FILE", "what has changed since a snapshot; a name that reads as a number stands in quotes"),
        ("-save FILE", "keep a snapshot of every tag"),
        ("/t N", "the first N (decimal) rows only"),
    ],
    answers: &[PoolUsed::SCHEMA],
    run: Run::Query(run),
};

/// Allocations and frees too.
const FLAG_VERBOSE: u64 = 1;
const FLAG_BY_NONPAGED: u64 = 2;
const FLAG_BY_PAGED: u64 = 4;
const FLAG_SESSION: u64 = 8;
const KNOWN: u64 = FLAG_VERBOSE | FLAG_BY_NONPAGED | FLAG_BY_PAGED | FLAG_SESSION;

fn run(text: &str, target: &Target<'_>) -> Found {
    answer(&parse(text, target)?, target)
}

fn parse(text: &str, target: &Target<'_>) -> Result<UsedQuery, QueryError> {
    let mut arguments = Arguments::new(&COMMAND, text);
    let mut query = UsedQuery::default();
    let (mut flags, mut tag) = (None, None);
    while !arguments.is_empty() {
        match arguments.option() {
            Some("d") => query.since = Some(since(&mut arguments)?),
            Some("save") => {
                let file = arguments.name().filter(|name| !name.is_empty());
                query.save = Some(file.ok_or_else(|| arguments.usage("-save needs a file's name"))?.into());
            }
            Some("t") => query.rows = Some(arguments.count("rows")?),
            Some(option) => {
                // `/t5`, as the same text with a blank.
                let glued = option.strip_prefix('t').and_then(|digits| digits.parse().ok());
                query.rows = Some(
                    glued.ok_or_else(|| arguments.usage(format!("`-{option}` is none of the options")))?,
                );
            }
            None if flags.is_none() => {
                let word = arguments.word().unwrap_or_default();
                flags = Some(number(word).ok_or_else(|| {
                    arguments.usage(format!("`{word}` is no hexadecimal number for flags"))
                })?);
            }
            None if tag.is_none() => tag = arguments.text(),
            None => arguments.end()?,
        }
    }
    if let Some(flags) = flags {
        check(flags, target).map_err(|problem| arguments.usage(problem))?;
        query.verbose = flags & FLAG_VERBOSE != 0;
        query.order = match flags & (FLAG_BY_NONPAGED | FLAG_BY_PAGED) {
            FLAG_BY_NONPAGED => Order::Nonpaged,
            FLAG_BY_PAGED => Order::Paged,
            _ => Order::Tag,
        };
    }
    if let Some(tag) = tag {
        query.tags = TagPattern::parse(tag).map_err(|problem| arguments.usage(problem))?;
        if tag.len() < 4 && !tag.contains('*') {
            let text = format!("'{tag}' was taken as '{tag:<4}': a tag has four characters");
            target.note(Note::remark(NoteCode::NotFound, text));
        }
    }
    if query.save.is_some() && query.tags != TagPattern::All {
        return Err(arguments.usage("-save keeps every tag: leave the tag out"));
    }
    Ok(query)
}

/// What differences are to: a file, if one is named.
fn since(arguments: &mut Arguments<'_>) -> Result<Since, QueryError> {
    let is_quoted = arguments.rest().starts_with('"');
    let is_file =
        arguments.peek().is_some_and(|word| !word.starts_with(['-', '/']) && number(word).is_none());
    // A path may begin with a slash, and no option but `/t` does.
    let is_path =
        arguments.peek().is_some_and(|word| word.starts_with('/') && word[1..].contains(['/', '.']));
    if !is_quoted && !is_file && !is_path {
        return Ok(Since::LastTime);
    }
    let path = PathBuf::from(arguments.name().unwrap_or_default());
    match PoolSnapshot::read(&path) {
        Ok(snapshot) => Ok(Since::Snapshot(path, Arc::new(snapshot))),
        Err(why) => Err(QueryError::NoData {
            command: COMMAND.names[0],
            reason: format!("cannot compare with {}: {why}", path.display()),
        }),
    }
}

fn check(flags: u64, target: &Target<'_>) -> Result<(), String> {
    if flags & !KNOWN != 0 {
        return Err(format!("{:#x} is none of the flags", flags & !KNOWN));
    }
    if flags & (FLAG_BY_NONPAGED | FLAG_BY_PAGED) == FLAG_BY_NONPAGED | FLAG_BY_PAGED {
        return Err("2 and 4 cannot be used together: rows have one order".to_owned());
    }
    match (flags & FLAG_SESSION, target.address_of("nt!ExpSessionPoolTrackTable")) {
        (0, _) => Ok(()),
        (_, Ok(_)) => Err("session pool is not read; use flag 0".to_owned()),
        (_, Err(_)) => Err("this kernel has no session pool (Windows 11)".to_owned()),
    }
}
