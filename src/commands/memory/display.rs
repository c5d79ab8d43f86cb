//! The `d` commands: which bytes, and what lies at the pointers among them.

use serde::{Serialize, Serializer};

use super::characters::characters;
use super::format::Format;
use super::referenced;
use crate::commands::answer::{Found, Query, answer};
use crate::commands::arguments::Arguments;
use crate::commands::error::QueryError;
use crate::commands::schema::Schema;
use crate::commands::spec::{Category, CommandSpec, Glued, Run, Takes};
use crate::output;
use crate::target::{DisplayPosition, Note, NoteCode, ReadCause, SparseBytes, Target, TargetError, VirtAddr};

/// Most bytes shown by one command.
const MAX_SHOWN: u64 = 0x10_0000;

macro_rules! display_commands {
    ($($spec:ident $name:literal $format:expr, $summary:literal;)*) => {$(
        pub(in crate::commands) static $spec: CommandSpec = CommandSpec {
            names: &[$name],
            usage: concat!($name, " [/cCOLUMNS] [ADDRESS [L COUNT | END]]"),
            summary: $summary,
            takes: Takes::Arguments(Glued::Slash),
    category: Category::Memory,
    details: &[],
    answers: &[MemoryDisplay::SCHEMA],
    run: Run::Query(|arguments, target| run(&$spec, $format, arguments, target)),
        };
    )*};
}

display_commands! {
    D "d" None, "show memory as the last such command did";
    DA "da" Some(Format::Ascii), "show text of one byte a character";
    DB "db" Some(Format::Bytes), "show memory as bytes and characters";
    DC "dc" Some(Format::DoubleWordsAndCharacters), "show memory in words of four bytes and as characters";
    DD "dd" Some(Format::DoubleWords), "show memory in words of four bytes";
    DDS "dds" Some(Format::DoubleWordSymbols), "show words of four bytes and the symbols they point to";
    DP "dp" Some(Format::QuadWords), "show memory in words of a pointer's size";
    DPS "dps" Some(Format::Symbols), "show pointers and the symbols they point to";
    DQ "dq" Some(Format::QuadWords), "show memory in words of eight bytes";
    DQS "dqs" Some(Format::Symbols), "show words of eight bytes and the symbols they point to";
    DU "du" Some(Format::Unicode), "show text of two bytes a character";
    DW "dw" Some(Format::Words), "show memory in words of two bytes";
}

/// `ds` and `dS`, which differ in case only.
pub(in crate::commands) static DS_ANSI: CommandSpec = CommandSpec {
    names: &["ds"],
    usage: "ds ADDRESS",
    summary: "show the text of the _STRING at an address",
    takes: Takes::Arguments(Glued::Slash),
    category: Category::Memory,
    details: &[],
    answers: &[MemoryDisplay::SCHEMA],
    run: Run::Query(|arguments, target| string(&DS_ANSI, Format::Ascii, arguments, target)),
};

pub(in crate::commands) static DS_UNICODE: CommandSpec = CommandSpec {
    names: &["dS"],
    usage: "dS ADDRESS",
    summary: "show the text of the _UNICODE_STRING at an address",
    takes: Takes::Arguments(Glued::Slash),
    category: Category::Memory,
    details: &[],
    answers: &[MemoryDisplay::SCHEMA],
    run: Run::Query(|arguments, target| string(&DS_UNICODE, Format::Unicode, arguments, target)),
};

/// Asks for the bytes of a range.
#[derive(Clone, Copy, Debug)]
pub(super) struct MemoryQuery {
    /// First byte.
    start: VirtAddr,
    /// Bytes.
    len: usize,
    /// How they are to be shown.
    format: Format,
    /// Bytes of a line.
    line: usize,
}

/// The bytes of a range.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub(super) struct MemoryDisplay {
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub(super) start: VirtAddr,
    pub(super) format: Format,
    /// The elements as numbers; `null` where they cannot be read. Nothing for text.
    #[serde(serialize_with = "numbers")]
    #[schemars(with = "Vec<Option<output::Hex>>")]
    pub(super) elements: Vec<Option<u64>>,
    /// The symbols that elements point to, as many as there are elements.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) symbols: Vec<Option<String>>,
    /// The text, if it was asked for; characters that cannot be read are `?`.
    pub(super) text: Option<String>,
    #[serde(skip)]
    pub(super) line: usize,
    #[serde(skip)]
    pub(super) bytes: SparseBytes,
}

/// Numbers as hexadecimal text: JSON's own lose bits past 2^53.
fn numbers<S: Serializer>(elements: &[Option<u64>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(elements.iter().map(|element| element.map(|value| format!("{value:#x}"))))
}

impl Query for MemoryQuery {
    type Facts = MemoryDisplay;

    fn run(&self, target: &Target<'_>) -> Result<MemoryDisplay, QueryError> {
        let unit = self.format.unit();
        let bytes = target.read_sparse(self.start, self.len);
        let element = |index: usize| bytes.uint(index * unit, unit);
        // What was not asked for is not shown as if it could not be read.
        let mut elements: Vec<_> = (0..self.len.min(bytes.end()) / unit).map(element).collect();
        let mut display = MemoryDisplay {
            start: self.start,
            format: self.format,
            elements: Vec::new(),
            symbols: Vec::new(),
            text: None,
            line: self.line,
            bytes,
        };
        if self.format.is_text() {
            // What lies behind the end of a text is no part of it.
            let end = elements.iter().position(|element| *element == Some(0));
            elements.truncate(end.unwrap_or(elements.len()));
        }
        if matches!(self.format, Format::Symbols | Format::DoubleWordSymbols) {
            display.symbols = elements.iter().map(|element| symbol(target, (*element)?)).collect();
        }
        if let Some(cause) = display.bytes.over() {
            target.note(Note::partial(NoteCode::BrokenOff, format!("Reading was broken off: {cause}")));
        } else if display.bytes.end() < self.len {
            let at = target.shown(self.start.offset(display.bytes.end() as u64));
            target.note(Note::partial(
                NoteCode::Unreadable,
                format!("Too many pages cannot be read; {at} and beyond were not tried"),
            ));
        } else if display.bytes.readable_len() == 0 && self.len > 0 {
            target.note(Note::failed(
                NoteCode::Unreadable,
                match display.bytes.missing() {
                    None | Some(ReadCause::NotMapped) => {
                        format!("Nothing is mapped at {}", target.shown(self.start))
                    }
                    Some(refused) => {
                        format!("Nothing can be read at {}: {refused}", target.shown(self.start))
                    }
                },
            ));
        } else if let Some(hole) = elements.iter().position(Option::is_none) {
            let at = self.start.offset((hole * unit) as u64);
            referenced::note_holes(
                elements.iter().filter(|it| it.is_none()).count(),
                elements.len(),
                at,
                target,
            );
        }
        if self.format.is_text() {
            // What lies behind a hole is no part of the text.
            let end = elements.iter().position(|element| element.is_none_or(|unit| unit == 0));
            elements.truncate(end.unwrap_or(elements.len()));
            display.text = Some(characters(&elements));
        }
        display.elements = elements;
        Ok(display)
    }
}

impl MemoryDisplay {
    /// First byte after what is shown; text includes its 0.
    fn end(&self) -> VirtAddr {
        let zero = usize::from(self.text.is_some());
        self.start.offset(((self.elements.len() + zero) * self.format.unit()) as u64)
    }
}

impl MemoryDisplay {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("memory");
}

/// What lies at `address`; nothing outside of every module.
fn symbol(target: &Target<'_>, address: u64) -> Option<String> {
    let at = target.symbol_at(VirtAddr(address));
    at.is_named().then(|| at.to_string())
}

fn run(spec: &'static CommandSpec, format: Option<Format>, text: &str, target: &Target<'_>) -> Found {
    let mut arguments = Arguments::new(spec, text);
    let columns = columns(&mut arguments, target)?;
    let before = target.kernel().display_position();
    if let Some(command) = before.map(|before| before.command).filter(|_| spec.names[0] == "d")
        && let Some(found) = referenced::again(command, text, target)
    {
        return found;
    }
    let format = format.or_else(|| format_of(before?.command)).unwrap_or(Format::Bytes);
    let pointers = matches!(spec.names[0], "dp" | "dps") && target.pointer_size() == 4;
    let format = match format {
        Format::QuadWords if pointers => Format::DoubleWords,
        Format::Symbols if pointers => Format::DoubleWordSymbols,
        format => format,
    };
    let (start, len) = if arguments.is_empty() {
        let here = || target.registers().ok().map(|registers| registers.program_counter());
        let start = before.map(|position| position.next).or_else(here);
        (start.ok_or_else(|| arguments.usage("there is no address to go on from yet"))?, None)
    } else {
        let range = arguments.range(target, format.unit() as u64)?;
        arguments.end()?;
        (range.start, range.len)
    };
    let len = len.unwrap_or_else(|| format.usual() as u64);
    if len > MAX_SHOWN {
        return Err(arguments.usage(format!("{len:#x} bytes are more than the {MAX_SHOWN:#x} shown at once")));
    }
    let line = columns.map_or_else(|| format.line(), |columns| columns * format.unit());
    let query = MemoryQuery { start, len: len as usize, format, line };
    let display = query.run(target)?;
    let command =
        if spec.names[0] == "d" { before.map_or("db", |before| before.command) } else { spec.names[0] };
    target.kernel().set_display_position(DisplayPosition {
        command,
        next: display.end(),
        value: display.elements.last().copied().flatten(),
    });
    Ok(Box::new(display))
}

/// How many elements a line has, if `/cCOLUMNS` says it: `/c1`, `/c 1`.
fn columns(arguments: &mut Arguments<'_>, target: &Target<'_>) -> Result<Option<usize>, QueryError> {
    /// A line of a terminal has no more.
    const MOST: u64 = 0x80;
    if !arguments.skip("/c") {
        return Ok(None);
    }
    match arguments.expression(target)? {
        columns @ 1..=MOST => Ok(Some(columns as usize)),
        other => Err(arguments.usage(format!("a line has 1 to {MOST:#x} columns, not {other:#x}"))),
    }
}

/// The text of a `_STRING` or `_UNICODE_STRING`: length, room, and where it is.
fn string(spec: &'static CommandSpec, format: Format, text: &str, target: &Target<'_>) -> Found {
    let mut arguments = Arguments::new(spec, text);
    if arguments.is_empty() {
        return Err(arguments.usage("the address of a string is missing"));
    }
    let at = arguments.address(target)?;
    arguments.end()?;
    let pointer = target.pointer_size();
    let mut bytes = vec![0; 2 * pointer];
    let read = target.memory().read_virtual(at, &mut bytes);
    let failed =
        |error| QueryError::Target { command: spec.names[0], source: TargetError::read("string", error) };
    read.map_err(failed)?;
    let mut buffer = [0; 8];
    buffer[..pointer].copy_from_slice(&bytes[pointer..]);
    let (start, len) =
        (VirtAddr(u64::from_le_bytes(buffer)), usize::from(u16::from_le_bytes([bytes[0], bytes[1]])));
    answer(&MemoryQuery { start, len: len & !(format.unit() - 1), format, line: format.line() }, target)
}

/// What the command called `name` shows.
fn format_of(name: &str) -> Option<Format> {
    Some(match name {
        "db" => Format::Bytes,
        "dw" => Format::Words,
        "dd" => Format::DoubleWords,
        "dq" | "dp" => Format::QuadWords,
        "dc" => Format::DoubleWordsAndCharacters,
        "dps" | "dqs" => Format::Symbols,
        "dds" => Format::DoubleWordSymbols,
        "da" => Format::Ascii,
        "du" => Format::Unicode,
        _ => return None,
    })
}
