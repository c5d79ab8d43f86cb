//! `!vm 1`: memory, pool and commit of the machine as a whole.
//!
//! ```text
//! 0: kd> !vm 1
//! Page File: \??\C:\pagefile.sys
//!   Current:   2097152 Kb  Free Space:   2090068 Kb
//!   Minimum:   2097152 Kb  Maximum:      4194304 Kb
//!
//! Physical Memory:           524174 (    2096696 Kb)
//! Available Pages:           391022 (    1564088 Kb)
//! ...
//! NonPagedPool Usage:         19532 (      78128 Kb)
//! NonPagedPool Max:          387072 (    1548288 Kb)
//! PagedPool Usage:            27301 (     109204 Kb)
//! ```
//! A line whose counter this kernel does not have, or that cannot be read, is left out. A remark says how full each pool is and which
//! command tells whose it is.
//!
//! Source: pool.md 7.

mod report;
mod sources;
mod text;

pub use report::{PagingFile, VirtualMemory, VmQuery};

use crate::commands::answer::{Found, answer};
use crate::commands::arguments::{Arguments, number};
use crate::commands::spec::{Category, CommandSpec, Glued, Run, Takes};
use crate::target::{Note, NoteCode, Target};

pub(in crate::commands) static COMMAND: CommandSpec = CommandSpec {
    names: &["!vm"],
    usage: "!vm [1]",
    summary: "show how much memory, pool and commit the machine uses",
    takes: Takes::Arguments(Glued::Dash),
    category: Category::Pool,
    details: &[("!vm 1", "the machine as a whole; its processes are not listed")],
    answers: &[VirtualMemory::SCHEMA],
    run: Run::Query(run),
};

fn run(text: &str, target: &Target<'_>) -> Found {
    let mut arguments = Arguments::new(&COMMAND, text);
    let flags = match arguments.word() {
        None => 0,
        Some(word) => number(word)
            .ok_or_else(|| arguments.usage(format!("`{word}` is no hexadecimal number for flags")))?,
    };
    if flags > 1 {
        return Err(arguments.usage(format!("{flags:#x}: only flag 1 is known here")));
    }
    arguments.end()?;
    if flags == 0 {
        target.note(Note::remark(
            NoteCode::NextStep,
            "Processes are not listed: this is the answer of `!vm 1`",
        ));
    }
    answer(&VmQuery, target)
}
