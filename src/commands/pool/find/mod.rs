//! `!poolfind`: where the blocks of a tag are.
//!
//! ```text
//!  !poolfind TAG                   large blocks; if there are none, small ones
//!  !poolfind TAG -small -large     either, or both
//!  !poolfind TAG 0|1               nonpaged, paged: WinDbg's -nonpaged, -paged
//!  !poolfind -tag "TAG TAG ..."    several tags
//!  !poolfind -k TAG                each with the stack that allocated it, where Driver Verifier's pool log has it
//! ```
//! ```text
//! 0: kd> !poolfind Leak
//!
//! Scanning large pool allocation table for tag 0x6b61654c (Leak) (fffffa8002300000 : fffffa8002318000)
//!
//! fffffa8004a66000 : tag Leak, size    0xfb000, Nonpaged pool
//! fffffa8004c00000 : tag Leak, size    0xfb000, Nonpaged pool
//! ```
//! Large blocks are found in the kernel's own table, which the target searches: a request or two a block. Small ones have none: all of the
//! pool that they can be in is searched, which is told before it begins. Blocks that were freed are not listed.
//!
//! Source: pool.md 3.

mod report;
mod text;

pub use report::{FindQuery, FoundBlock, PoolFind, TagScan};

use super::kind::PoolKind;
use super::tag::PoolTag;
use crate::commands::answer::{Found, answer};
use crate::commands::arguments::{Arguments, number};
use crate::commands::error::QueryError;
use crate::commands::spec::{Category, CommandSpec, Glued, Run, Takes};
use crate::target::{Note, NoteCode, Target};

pub(in crate::commands) static COMMAND: CommandSpec = CommandSpec {
    names: &["!poolfind"],
    usage: "!poolfind [-k] [-nonpaged|-paged] [-small] [-large] TAG [0|1] | -tag \"TAG ...\"",
    summary: "find the pool blocks of a tag",
    takes: Takes::Arguments(Glued::Dash),
    category: Category::Pool,
    details: &[
        ("!poolfind TAG", "large blocks, a request or two each; if there are none, small ones"),
        ("-large", "large blocks only"),
        ("-small", "small blocks, for which the target searches its pool; -large too for both"),
        ("-nonpaged, 0", "nonpaged pool only"),
        ("-paged, 1", "paged pool only"),
        ("-k", "each with the stack that allocated it, as far as Driver Verifier's pool log has it"),
        ("-tag \"A B\"", "several tags"),
        ("0x6b61654c", "the tag as a number"),
    ],
    answers: &[PoolFind::SCHEMA],
    run: Run::Query(run),
};

/// Most tags of one question.
const MAX_TAGS: usize = 16;

fn run(text: &str, target: &Target<'_>) -> Found {
    answer(&parse(text, target)?, target)
}

fn parse(text: &str, target: &Target<'_>) -> Result<FindQuery, QueryError> {
    let mut arguments = Arguments::new(&COMMAND, text);
    let mut query = FindQuery::default();
    let (mut words, mut kinds): (Vec<String>, Vec<PoolKind>) = (Vec::new(), Vec::new());
    while !arguments.is_empty() {
        let is_quoted = arguments.rest().starts_with('"');
        let Some(word) = arguments.text() else { break };
        let option = word.strip_prefix(['-', '/']).filter(|_| !is_quoted);
        match option.map(str::to_ascii_lowercase).as_deref() {
            None => words.push(word.to_owned()),
            Some("small") => query.small = true,
            Some("large") => query.large = true,
            Some("k") => query.stacks = true,
            Some("nonpaged") => kinds.push(PoolKind::Nonpaged),
            Some("paged") => kinds.push(PoolKind::Paged),
            Some("tag") => {
                let tags = arguments.name().ok_or_else(|| arguments.usage("-tag needs tags"))?;
                words.splice(0..0, tags.split_whitespace().map(str::to_owned));
                query.tags.reserve(tags.len() / 4);
                let tags = std::mem::take(&mut words);
                for tag in tags {
                    query.tags.push(parse_tag(&tag, target).map_err(|problem| arguments.usage(problem))?);
                }
            }
            Some(option @ ("global" | "session" | "process" | "x")) => {
                return Err(arguments
                    .usage(format!("-{option} is not supported; -nonpaged, -paged, -small and -large are")));
            }
            Some(option) => return Err(arguments.usage(format!("`-{option}` is none of the options"))),
        }
    }
    let mut words = words.into_iter();
    if query.tags.is_empty() {
        let tag = words.next().ok_or_else(|| arguments.usage("which tag?"))?;
        query.tags.push(parse_tag(&tag, target).map_err(|problem| arguments.usage(problem))?);
    }
    if let Some(word) = words.next() {
        kinds.push(match number(&word) {
            Some(0) => PoolKind::Nonpaged,
            Some(1) => PoolKind::Paged,
            Some(2) => {
                return Err(
                    arguments.usage("special pool has no table of its tags: !verifier 3 lists its blocks")
                );
            }
            Some(4) => return Err(arguments.usage("session pool is not searched; use 0 or 1")),
            _ => return Err(arguments.usage(format!("`{word}` is no pool type: 0 nonpaged, 1 paged"))),
        });
    }
    // Of both the answer has both.
    kinds.dedup();
    query.kind = kinds.first().copied().filter(|_| kinds.len() == 1);
    if let Some(word) = words.next() {
        return Err(arguments.usage(format!("`{word}` is one argument too many")));
    }
    if query.tags.len() > MAX_TAGS {
        return Err(arguments.usage(format!("more than {MAX_TAGS} tags")));
    }
    Ok(query)
}

fn parse_tag(text: &str, target: &Target<'_>) -> Result<PoolTag, String> {
    let tag = PoolTag::named(text)?;
    if text.len() < 4 && PoolTag::parse(text) == Some(tag) {
        let note = format!("'{text}' was taken as '{tag}': a tag has four characters");
        target.note(Note::remark(NoteCode::NotFound, note));
    }
    Ok(tag)
}
