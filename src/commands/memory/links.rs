//! `dl`, `dlb`: a list, entry by entry, forwards or backwards.
//!
//! ```text
//!  dl ADDRESS [MOST [SIZE]]      MOST entries, 20 (hexadecimal) if nothing is said; SIZE words of each, 4
//! ```
//! ```text
//! 0: kd> dl nt!PsLoadedModuleList 2
//! fffff800`01654c90  fffffa80`03667890 fffffa80`03667590
//! fffff800`01654ca0  00000000`00000000 00000000`00000000
//! fffffa80`03667890  fffffa80`03667790 fffff800`01654c90
//! fffffa80`036678a0  00000000`00000000 00000000`00000000
//! ```
//! An entry's first word leads to the next; backwards it is the second. The list ends where the first entry comes again, at a null
//! link, or where an entry cannot be read, which is said.
//!
//! Source: Microsoft's page on `dl`; its columns from two published sessions.

use std::collections::HashSet;
use std::fmt::{self, Write};

use serde::{Serialize, Serializer};

use crate::commands::answer::{Facts, Found, Query, answer};
use crate::commands::arguments::Arguments;
use crate::commands::context::Context;
use crate::commands::error::QueryError;
use crate::commands::schema::Schema;
use crate::commands::spec::{Category, CommandSpec, Glued, Run, Takes};
use crate::output;
use crate::target::{Note, NoteCode, ReadCause, Target, VirtAddr};

/// Entries, and words of each, if nothing says how many; the most of both.
const USUAL: u64 = 0x20;
const WORDS: u64 = 4;
const MOST: u64 = 0x1000;
const MOST_WORDS: u64 = 0x40;
/// Bytes of a line.
const LINE: usize = 0x10;

macro_rules! commands {
    ($($spec:ident $name:literal $backwards:literal, $summary:literal;)*) => {$(
        pub(in crate::commands) static $spec: CommandSpec = CommandSpec {
            names: &[$name],
            usage: concat!($name, " ADDRESS [MOST [SIZE]]"),
            summary: $summary,
            takes: Takes::Arguments(Glued::Slash),
            category: Category::Memory,
            details: &[
                ("MOST", "entries at the most; 20 if nothing is said"),
                ("SIZE", "words of a pointer's size shown of each; 4 if nothing is said"),
            ],
            answers: &[Links::SCHEMA],
            run: Run::Query(|arguments, target| run(&$spec, $backwards, arguments, target)),
        };
    )*};
}

commands! {
    DL "dl" false, "show the entries of a list, from one to the next";
    DLB "dlb" true, "show the entries of a doubly linked list, from one to the one before";
}

struct LinksQuery {
    start: VirtAddr,
    most: usize,
    words: usize,
    backwards: bool,
}

/// Entries of a list.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub(super) struct Links {
    entries: Vec<Entry>,
    /// Why no more are shown.
    end: End,
}

/// One entry.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
struct Entry {
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    address: VirtAddr,
    /// Its words; `null` where they cannot be read.
    #[serde(serialize_with = "numbers")]
    #[schemars(with = "Vec<Option<output::Hex>>")]
    words: Vec<Option<u64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum End {
    /// The next is the first.
    Circle,
    /// The next is one of the others.
    InnerCircle,
    /// The link is null.
    NullLink,
    /// There are as many as were asked for.
    Limit,
    /// The next entry cannot be read.
    Unreadable,
}

fn numbers<S: Serializer>(words: &[Option<u64>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(words.iter().map(|word| word.map(|value| format!("{value:#x}"))))
}

impl Query for LinksQuery {
    type Facts = Links;

    fn run(&self, target: &Target<'_>) -> Result<Links, QueryError> {
        let size = target.pointer_size();
        let link = if self.backwards { size } else { 0 };
        // The link is read with an entry whose words are not all shown, too.
        let len = (self.words * size).max(link + size);
        let (mut entries, mut seen) = (Vec::new(), HashSet::new());
        let mut at = self.start;
        let end = loop {
            if entries.len() == self.most {
                break End::Limit;
            }
            seen.insert(at);
            let bytes = target.read_sparse(at, len);
            let Some(next) = bytes.uint(link, size) else {
                let why = bytes.over().or_else(|| bytes.missing()).unwrap_or(&ReadCause::NotMapped);
                let text =
                    format!("The list is not whole: its entry at {} cannot be read: {why}", target.shown(at));
                let note = Note::partial(NoteCode::ListBreaksOff, text);
                target.note(note.broken_off_if(bytes.over().is_some()));
                break End::Unreadable;
            };
            let words = (0..self.words).map(|index| bytes.uint(index * size, size)).collect();
            entries.push(Entry { address: at, words });
            at = target.address(next);
            if at == self.start {
                break End::Circle;
            }
            if at.is_null() {
                break End::NullLink;
            }
            if seen.contains(&at) {
                let text = format!("The list leads back to {}, which is not its start", target.shown(at));
                target.note(Note::partial(NoteCode::ListBreaksOff, text));
                break End::InnerCircle;
            }
        };
        Ok(Links { entries, end })
    }
}

fn run(spec: &'static CommandSpec, backwards: bool, text: &str, target: &Target<'_>) -> Found {
    let mut arguments = Arguments::new(spec, text);
    if arguments.is_empty() {
        return Err(arguments.usage("the address of an entry is missing"));
    }
    let start = arguments.address(target)?;
    let mut number = |usual: u64, most: u64| -> Result<usize, QueryError> {
        if arguments.is_empty() {
            return Ok(usual as usize);
        }
        match arguments.expression(target)? {
            number if (1..=most).contains(&number) => Ok(number as usize),
            number => Err(arguments.usage(format!("{number:#x} is none of 1 to {most:#x}"))),
        }
    };
    let (most, words) = (number(USUAL, MOST)?, number(WORDS, MOST_WORDS)?);
    arguments.end()?;
    answer(&LinksQuery { start, most, words, backwards }, target)
}

impl Links {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("links");
}

impl Facts for Links {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn Write) -> fmt::Result {
        let size = context.pointer_size;
        for entry in &self.entries {
            for (line, words) in (0..).zip(entry.words.chunks(LINE / size)) {
                write!(out, "{} ", context.address(entry.address.offset(line * LINE as u64)))?;
                for word in words {
                    match (word, size) {
                        (Some(word), 8) => write!(out, " {}", VirtAddr(*word).wide())?,
                        (Some(word), _) => write!(out, " {word:08x}")?,
                        (None, 8) => write!(out, " ????????`????????")?,
                        (None, _) => write!(out, " ????????")?,
                    }
                }
                writeln!(out)?;
            }
        }
        Ok(())
    }
}
