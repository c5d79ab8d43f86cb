//! `s`: where in a range a pattern lies.
//!
//! ```text
//!  s [-b] RANGE BYTE ...          -w -d -q  words of 2, 4 and 8 bytes, at multiples of their size from the start
//!  s -a RANGE "TEXT"              -u        text of one and two bytes a character; quotes are needed for spaces at its ends
//!  -[1]b                          addresses only
//! ```
//! ```text
//! 0: kd> s -a nt Lf000 "7601"
//! fffff800`01425150  37 36 30 31 2e 32 34 35-34 30 2e 61 6d 64 36 34  7601.24540.amd64
//! fffff800`01425230  37 36 30 31 2e 32 34 35-34 30 2e 61 6d 64 36 34  7601.24540.amd64
//! ```
//! The target searches by itself, so a megabyte costs one request; one that does not is read. What is not mapped matches
//! nothing.

use std::fmt;

use serde::{Serialize, Serializer};

use super::format::Format;
use super::text::write_line;
use crate::commands::answer::{Facts, Found};
use crate::commands::arguments::Arguments;
use crate::commands::context::Context;
use crate::commands::error::QueryError;
use crate::commands::schema::Schema;
use crate::commands::spec::{Category, CommandSpec, Glued, Run, Takes};
use crate::output;
use crate::target::{Note, NoteCode, NoteKind, Searched, Target, TargetError, VirtAddr, is_over};

pub(in crate::commands) static S: CommandSpec = CommandSpec {
    names: &["s"],
    usage: "s [-b|-w|-d|-q|-a|-u] RANGE PATTERN",
    summary: "search memory",
    takes: Takes::Arguments(Glued::Dash),
    category: Category::Memory,
    details: &[
        ("-b, -w, -d, -q", "bytes, words of 2, 4 and 8 bytes"),
        ("-a, -u", "text of one and two bytes a character"),
        ("-[1]b", "addresses only"),
    ],
    answers: &[Matches::SCHEMA],
    run: Run::Query(run),
};

/// Most matches shown, each of which costs a request or two.
const MAX_MATCHES: usize = 0x400;
/// Most places that are looked at for them: a word may be found where it is not aligned.
const MAX_FINDS: usize = 0x2000;
/// Longest pattern: it has to fit in one packet.
const MAX_PATTERN: usize = 0x100;
/// Bytes shown of a match.
const SHOWN: usize = 16;

/// Where a pattern lies.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
struct Matches {
    matches: Vec<Match>,
    #[serde(skip)]
    format: Option<Format>,
}

#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
struct Match {
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    address: VirtAddr,
    /// What lies there; `null` where it cannot be read.
    #[serde(serialize_with = "bytes_or_null")]
    #[schemars(with = "Vec<Option<u64>>")]
    bytes: Vec<Option<u64>>,
}

fn bytes_or_null<S: Serializer>(bytes: &[Option<u64>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(bytes)
}

impl Matches {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("matches");
}

impl Facts for Matches {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        for Match { address, bytes } in &self.matches {
            let address = context.address(*address);
            match self.format {
                Some(format) => write_line(address, bytes, (format, format.line()), true, out)?,
                None => writeln!(out, "0x{address}")?,
            }
        }
        Ok(())
    }
}

/// What the letter after `-` asks for.
struct Kind {
    format: Format,
    is_text: bool,
    /// Addresses only.
    is_short: bool,
}

fn run(text: &str, target: &Target<'_>) -> Found {
    let mut arguments = Arguments::new(&S, text);
    let kind = kind(&mut arguments)?;
    let unit = kind.format.unit();
    let range = arguments.range(target, unit as u64)?;
    let Some(len) = range.len else {
        return Err(arguments.usage("a range is missing: ADDRESS L COUNT, or an end"));
    };
    let pattern =
        if kind.is_text { text_pattern(&arguments, unit)? } else { numbers(&mut arguments, target, unit)? };
    if pattern.is_empty() || pattern.len() > MAX_PATTERN {
        return Err(arguments.usage(format!("a pattern has 1 to {MAX_PATTERN:#x} bytes")));
    }
    let end = VirtAddr(range.start.0.saturating_add(len));
    let format = Some(kind.format);
    let mut found = Matches { matches: Vec::new(), format };
    let addresses = search(target, range.start, end, &pattern, unit as u64)?;
    if kind.is_short {
        found.format = None;
    }
    let ranges: Vec<_> = addresses.iter().map(|at| (*at, SHOWN)).collect();
    let shown = if kind.is_short { Vec::new() } else { target.read_ranges(&ranges) };
    let mut shown = shown.into_iter();
    found.matches = addresses
        .into_iter()
        .map(|address| {
            let read = shown.next().and_then(Result::ok).unwrap_or_else(|| pattern.clone());
            let bytes = (0..SHOWN).map(|offset| read.get(offset).map(|byte| u64::from(*byte))).collect();
            Match { address, bytes }
        })
        .collect();
    if found.matches.is_empty() && target.notes().worst() <= Some(NoteKind::Remark) {
        target.note(Note::remark(NoteCode::NotFound, "not found"));
    }
    Ok(Box::new(found))
}

/// Every match whose whole lies in the range, `unit` bytes apart.
fn search(
    target: &Target<'_>,
    start: VirtAddr,
    end: VirtAddr,
    pattern: &[u8],
    unit: u64,
) -> Result<Vec<VirtAddr>, QueryError> {
    let mut addresses = Vec::new();
    let mut from = start;
    for _ in 0..MAX_FINDS {
        if from >= end {
            return Ok(addresses);
        }
        let searched = target.search(from..end, pattern);
        if let Ok(Searched { refusal: Some(cause), .. }) = &searched
            && from == start
        {
            let why = format!("The target did not search its memory ({cause}), so it was read");
            target.note(Note::remark(NoteCode::NotSearched, why));
        }
        if let Ok(Searched { given_up: Some(at), .. }) = &searched {
            let text = format!("What lies at {} and beyond was not read", target.shown(*at));
            target.note(Note::partial(NoteCode::Unreadable, text));
        }
        let at = match searched.map(|searched| searched.found) {
            Ok(Some(at))
                if at >= from && at.0.checked_add(pattern.len() as u64).is_some_and(|last| last <= end.0) =>
            {
                at
            }
            Ok(_) => return Ok(addresses),
            Err(error) if is_over(&error.cause) && !addresses.is_empty() => {
                let text = format!("The search was broken off at {}: {}", target.shown(from), error.cause);
                target.note(Note::partial(NoteCode::BrokenOff, text));
                return Ok(addresses);
            }
            Err(error) => {
                return Err(QueryError::Target { command: "s", source: TargetError::read("search", error) });
            }
        };
        let beyond = at.since(start) % unit;
        if beyond == 0 {
            addresses.push(at);
            if addresses.len() == MAX_MATCHES {
                break;
            }
        }
        from = VirtAddr(at.0.saturating_add(unit - beyond));
    }
    target.note(Note::partial(
        NoteCode::Limit,
        format!("Only the first {:#x} matches are shown; there may be more", addresses.len()),
    ));
    Ok(addresses)
}

fn kind(arguments: &mut Arguments<'_>) -> Result<Kind, QueryError> {
    let Some(flags) = arguments.peek().and_then(|word| word.strip_prefix('-')) else {
        return Ok(Kind { format: Format::Bytes, is_text: false, is_short: false });
    };
    let (is_short, letter) = flags.strip_prefix("[1]").map_or((false, flags), |letter| (true, letter));
    let (format, is_text) = match letter {
        "b" => (Format::Bytes, false),
        "w" => (Format::Words, false),
        "d" => (Format::DoubleWordsAndCharacters, false),
        "q" => (Format::QuadWords, false),
        "a" => (Format::Bytes, true),
        "u" => (Format::Words, true),
        _ => return Err(arguments.usage(format!("`-{flags}` is no kind of search"))),
    };
    arguments.word();
    Ok(Kind { format, is_text, is_short })
}

fn text_pattern(arguments: &Arguments<'_>, unit: usize) -> Result<Vec<u8>, QueryError> {
    // Without quotes the text is the rest of the line, as in WinDbg.
    let rest = arguments.rest();
    let text = match rest.strip_prefix('"') {
        Some(quoted) => {
            quoted.strip_suffix('"').ok_or_else(|| arguments.usage("the text's quote is not closed"))?
        }
        None => rest,
    };
    if unit == 2 {
        Ok(text.encode_utf16().flat_map(u16::to_le_bytes).collect())
    } else {
        Ok(text.as_bytes().to_vec())
    }
}

/// Numbers and, in single quotes, characters, each as one element.
fn numbers(arguments: &mut Arguments<'_>, target: &Target<'_>, unit: usize) -> Result<Vec<u8>, QueryError> {
    let mut pattern = Vec::new();
    while !arguments.is_empty() && pattern.len() <= MAX_PATTERN {
        let characters = arguments.peek().and_then(|word| word.strip_prefix('\'')?.strip_suffix('\''));
        let value = match characters {
            Some(characters) => {
                arguments.word();
                let mut word = [0; 8];
                let Some(start) = word.get_mut(..characters.len()).filter(|_| characters.len() <= unit)
                else {
                    return Err(arguments.usage(format!("'{characters}' has more than {unit} characters")));
                };
                start.copy_from_slice(characters.as_bytes());
                u64::from_le_bytes(word)
            }
            None => arguments.expression(target)?,
        };
        if unit < 8 && value >> (8 * unit) != 0 {
            return Err(
                arguments.usage(format!("{value:#x} does not fit in the {} bits of an element", 8 * unit))
            );
        }
        pattern.extend_from_slice(&value.to_le_bytes()[..unit]);
    }
    Ok(pattern)
}
