//! `dpp`, `dpa`, `dpu` and their like: pointers, and what lies where they point to.
//!
//! ```text
//!  dpp ddp dqp     the word there, and the symbol that it points to
//!  dpa dda dqa     the text of one byte a character there
//!  dpu ddu dqu     the text of two bytes a character there
//!  `-- pointers of the target's size, of four bytes, of eight
//! ```
//! ```text
//! 0: kd> dpu fffffa80`03667930 L2
//! fffffa80`03667930  00000000`001a0018
//! fffffa80`03667938  fffffa80`03667a00 "ntoskrnl.exe"
//! ```
//! Where nothing can be read, nothing is shown behind the pointer. Each pointer costs a request.
//!
//! Source: Microsoft's page on these commands; the columns of `dpu` from a published session.

use std::fmt::{self, Write};

use serde::Serialize;

use super::characters::characters;
use crate::commands::answer::{Facts, Found, Query, answer};
use crate::commands::arguments::Arguments;
use crate::commands::context::Context;
use crate::commands::error::QueryError;
use crate::commands::schema::Schema;
use crate::commands::spec::{Category, CommandSpec, Glued, Run, Takes};
use crate::output;
use crate::target::{DisplayPosition, Note, NoteCode, Target, VirtAddr};

/// Pointers that are shown if no range is given; most that are.
const USUAL: usize = 0x10;
const MOST: u64 = 0x1000;
/// Most characters of a text.
const LONGEST: usize = 0x100;
/// Nothing is ever mapped below.
const LOWEST: u64 = 0x1_0000;

/// What is shown of the place that a pointer points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    /// The word there.
    Word,
    /// Text of one byte a character.
    Ascii,
    /// Text of two bytes a character.
    Unicode,
}

macro_rules! commands {
    ($($spec:ident $name:literal $what:expr, $size:expr, $summary:literal;)*) => {
        $(pub(in crate::commands) static $spec: CommandSpec = CommandSpec {
            names: &[$name],
            usage: concat!($name, " [ADDRESS [L COUNT | END]]"),
            summary: $summary,
            takes: Takes::Arguments(Glued::Slash),
            category: Category::Memory,
            details: &[],
            answers: &[Referenced::SCHEMA],
            run: Run::Query(|arguments, target| run(&$spec, $what, $size, arguments, target)),
        };)*

        /// What the command of this family that is called `name` answers, where it goes on.
        pub(super) fn again(name: &str, arguments: &str, target: &Target<'_>) -> Option<Found> {
            match name {
                $($name => Some(run(&$spec, $what, $size, arguments, target)),)*
                _ => None,
            }
        }
    };
}

commands! {
    DDA "dda" What::Ascii, Some(4), "show pointers of four bytes and the text of one byte a character there";
    DDP "ddp" What::Word, Some(4), "show pointers of four bytes and the words there";
    DDU "ddu" What::Unicode, Some(4), "show pointers of four bytes and the text of two bytes a character there";
    DPA "dpa" What::Ascii, None, "show pointers and the text of one byte a character there";
    DPP "dpp" What::Word, None, "show pointers, the words there and the symbols those point to";
    DPU "dpu" What::Unicode, None, "show pointers and the text of two bytes a character there";
    DQA "dqa" What::Ascii, Some(8), "show pointers of eight bytes and the text of one byte a character there";
    DQP "dqp" What::Word, Some(8), "show pointers of eight bytes and the words there";
    DQU "dqu" What::Unicode, Some(8), "show pointers of eight bytes and the text of two bytes a character there";
}

/// Asks what lies where some pointers point to.
#[derive(Clone, Copy, Debug)]
struct ReferencedQuery {
    start: VirtAddr,
    count: usize,
    /// Bytes of a pointer.
    size: usize,
    what: What,
}

/// Pointers, and what lies there.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub(super) struct Referenced {
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    start: VirtAddr,
    what: What,
    pointers: Vec<Pointer>,
    /// Bytes of a pointer.
    size: usize,
}

/// One pointer.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
struct Pointer {
    /// Its value; nothing if it cannot be read.
    #[serde(serialize_with = "output::address_or_null")]
    #[schemars(with = "Option<output::Hex>")]
    value: Option<VirtAddr>,
    /// The word there, if it was asked for and can be read.
    #[serde(serialize_with = "output::address_or_null")]
    #[schemars(with = "Option<output::Hex>")]
    word: Option<VirtAddr>,
    /// What the word there points to: `nt!KeBugCheckEx+0x18`.
    symbol: Option<String>,
    /// The text there, if it was asked for and something can be read.
    text: Option<String>,
}

/// Says that some of what is shown could not be read, the first of it `at`.
pub(super) fn note_holes(unread: usize, of: usize, at: VirtAddr, target: &Target<'_>) {
    let text = format!("{unread:#x} of {of:#x} cannot be read, the first at {}", target.shown(at));
    target.note(Note::partial(NoteCode::Unreadable, text));
}

impl Query for ReferencedQuery {
    type Facts = Referenced;

    fn run(&self, target: &Target<'_>) -> Result<Referenced, QueryError> {
        let bytes = target.read_sparse(self.start, self.count * self.size);
        let mut pointers = Vec::new();
        for index in 0..self.count.min(bytes.end() / self.size) {
            let value =
                bytes.uint(index * self.size, self.size).map(|value| self.sign_extended(value, target));
            target.advance("pointers", index as u64, self.count as u64);
            pointers.push(self.look(value, target));
            if target.over().is_some() {
                break;
            }
        }
        if let Some(cause) = target.over() {
            target.note(Note::partial(NoteCode::BrokenOff, format!("Reading was broken off: {cause}")));
        } else if bytes.readable_len() == 0 {
            let text = format!("Nothing can be read at {}", target.shown(self.start));
            target.note(Note::failed(NoteCode::Unreadable, text));
        } else if let Some(hole) = pointers.iter().position(|it| it.value.is_none()) {
            let at = self.start.offset((hole * self.size) as u64);
            note_holes(pointers.iter().filter(|it| it.value.is_none()).count(), pointers.len(), at, target);
        }
        Ok(Referenced { start: self.start, what: self.what, pointers, size: self.size })
    }
}

impl ReferencedQuery {
    /// Addresses of 32-bit targets are sign-extended, as KD has them.
    fn sign_extended(&self, value: u64, target: &Target<'_>) -> VirtAddr {
        if target.pointer_size() == 4 { target.address(value) } else { VirtAddr(value) }
    }

    fn look(&self, value: Option<VirtAddr>, target: &Target<'_>) -> Pointer {
        let mut pointer = Pointer { value, word: None, symbol: None, text: None };
        let Some(at) = value.filter(|at| at.0 >= LOWEST) else { return pointer };
        if self.what == What::Word {
            let (bytes, missing) = target.read_some(at, target.pointer_size());
            if missing.is_none() {
                let word = bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
                let word = self.sign_extended(word, target);
                let symbol = target.symbol_at(word);
                pointer.symbol = symbol.is_named().then(|| symbol.to_string());
                pointer.word = Some(word);
            }
            return pointer;
        }
        let unit = if self.what == What::Unicode { 2 } else { 1 };
        let (bytes, _) = target.read_some(at, LONGEST * unit);
        let units = bytes
            .chunks_exact(unit)
            .map(|unit| unit.iter().rev().fold(0, |sum, it| sum << 8 | u64::from(*it)));
        let units: Vec<Option<u64>> = units.take_while(|unit| *unit != 0).map(Some).collect();
        pointer.text = (bytes.len() >= unit).then(|| characters(&units));
        pointer
    }
}

fn run(
    spec: &'static CommandSpec,
    what: What,
    size: Option<usize>,
    text: &str,
    target: &Target<'_>,
) -> Found {
    let mut arguments = Arguments::new(spec, text);
    let size = size.unwrap_or_else(|| target.pointer_size());
    let (start, len) = if arguments.is_empty() {
        let before = target.kernel().display_position().map(|position| position.next);
        let here = || target.registers().ok().map(|registers| registers.program_counter());
        let start = before.or_else(here);
        (start.ok_or_else(|| arguments.usage("there is no address to go on from yet"))?, None)
    } else {
        let range = arguments.range(target, size as u64)?;
        arguments.end()?;
        (range.start, range.len)
    };
    let count = len.map_or(USUAL as u64, |len| len / size as u64);
    if count > MOST {
        let text =
            format!("{count:#x} pointers are more than the {MOST:#x} shown at once: each costs a request");
        return Err(arguments.usage(text));
    }
    let query = ReferencedQuery { start, count: count as usize, size, what };
    target.kernel().set_display_position(DisplayPosition {
        command: spec.names[0],
        next: start.offset(count * size as u64),
        value: None,
    });
    answer(&query, target)
}

impl Referenced {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("referenced");
}

impl Facts for Referenced {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn Write) -> fmt::Result {
        for (pointer, index) in self.pointers.iter().zip(0..) {
            let at = self.start.offset(index * self.size as u64);
            write!(out, "{}  {}", context.address(at), shown(pointer.value, self.size))?;
            match (&pointer.word, &pointer.text) {
                (Some(word), _) => {
                    write!(out, " {}", shown(Some(*word), context.pointer_size))?;
                    if let Some(symbol) = &pointer.symbol {
                        write!(out, " {symbol}")?;
                    }
                }
                (None, Some(text)) => write!(out, " \"{text}\"")?,
                (None, None) => {}
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

/// A number with all its digits.
fn shown(value: Option<VirtAddr>, size: usize) -> String {
    match (value, size) {
        (Some(value), 8) => value.wide().to_string(),
        (Some(value), _) => format!("{:08x}", value.0 as u32),
        (None, 8) => "????????`????????".to_owned(),
        (None, _) => "????????".to_owned(),
    }
}
