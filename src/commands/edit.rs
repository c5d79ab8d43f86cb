//! `e`: changes the target's memory.
//!
//! ```text
//! 0: kd> ed nt!PoolHitTag 'kaeL'
//! 0: kd> eb fffffa80`0310a000 1 2 3
//! ```
//! Says nothing if it took; what was written is read again, and what is there otherwise is told. Only where writing is allowed:
//! `--write`, `.allow_write`. Words are little-endian, characters as in an expression: the first one is the highest.

use std::fmt;

use serde::{Serialize, Serializer};

use super::answer::{Facts, Found};
use super::arguments::Arguments;
use super::context::Context;
use super::error::QueryError;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, Glued, Run, Takes};
use crate::output;
use crate::target::{Note, NoteCode, Target, VirtAddr};

/// Most bytes that one line changes.
const MOST: usize = 0x1000;
const WORDS: &str = "the values, one behind the other; each an expression, 'text' for characters";

macro_rules! edit {
    ($name:ident, $command:literal, $usage:literal, $summary:literal, $details:expr, $run:expr) => {
        pub(super) static $name: CommandSpec = CommandSpec {
            names: &[$command],
            usage: $usage,
            summary: $summary,
            takes: Takes::Arguments(Glued::Slash),
            category: Category::Memory,
            details: $details,
            answers: &[Written::SCHEMA],
            run: Run::Change($run),
        };
    };
}

edit!(EA, "ea", "ea ADDRESS \"TEXT\"", "write text without a 0 at its end", &[], |text, target| {
    characters(&EA, text, target, 1, false)
});
edit!(EB, "eb", "eb ADDRESS VALUE ...", "write bytes", &[("VALUE ...", WORDS)], |text, target| {
    words(&EB, text, target, 1)
});
edit!(ED, "ed", "ed ADDRESS VALUE ...", "write words of 4 bytes", &[("VALUE ...", WORDS)], |text, target| {
    words(&ED, text, target, 4)
});
edit!(EP, "ep", "ep ADDRESS VALUE ...", "write pointers", &[("VALUE ...", WORDS)], |text, target| {
    words(&EP, text, target, target.pointer_size())
});
edit!(EQ, "eq", "eq ADDRESS VALUE ...", "write words of 8 bytes", &[("VALUE ...", WORDS)], |text, target| {
    words(&EQ, text, target, 8)
});
edit!(EU, "eu", "eu ADDRESS \"TEXT\"", "write text of two bytes a character", &[], |text, target| {
    characters(&EU, text, target, 2, false)
});
edit!(EW, "ew", "ew ADDRESS VALUE ...", "write words of 2 bytes", &[("VALUE ...", WORDS)], |text, target| {
    words(&EW, text, target, 2)
});
edit!(EZA, "eza", "eza ADDRESS \"TEXT\"", "write text and a 0", &[], |text, target| {
    characters(&EZA, text, target, 1, true)
});
edit!(
    EZU,
    "ezu",
    "ezu ADDRESS \"TEXT\"",
    "write text of two bytes a character, and a 0",
    &[],
    |text, target| { characters(&EZU, text, target, 2, true) }
);

/// What was written.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub(super) struct Written {
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    address: VirtAddr,
    /// In hexadecimal, the first byte in front.
    #[serde(serialize_with = "hexadecimal")]
    #[schemars(with = "String")]
    bytes: Vec<u8>,
    /// True if the target has them there now.
    took: bool,
}

fn hexadecimal<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&shown(bytes))
}

fn shown(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

impl Written {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("written");
}

impl Facts for Written {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    /// As WinDbg: nothing.
    fn write_text(&self, _: &Context, _: &mut dyn fmt::Write) -> fmt::Result {
        Ok(())
    }
}

/// Writes words of `unit` bytes.
fn words(spec: &'static CommandSpec, text: &str, target: &Target<'_>, unit: usize) -> Found {
    let mut arguments = Arguments::new(spec, text);
    let address = arguments.address(target)?;
    let mut bytes = Vec::new();
    while !arguments.is_empty() {
        let value = arguments.expression(target)?;
        // A negative number is as wide as every other.
        let is_wider = unit < 8 && value >> (8 * unit) != 0 && (value as i64) >> (8 * unit - 1) != -1;
        if is_wider {
            return Err(
                arguments.usage(format!("{value:#x} does not fit {}", output::counted(unit as u64, "byte")))
            );
        }
        bytes.extend_from_slice(&value.to_le_bytes()[..unit]);
        if bytes.len() > MOST {
            return Err(arguments.usage(format!("more than {MOST:#x} bytes are not written at once")));
        }
    }
    if bytes.is_empty() {
        return Err(arguments.usage("a value is missing; nothing is asked for one by one"));
    }
    write(spec, target, address, bytes)
}

/// Writes text, of one or two bytes a character.
fn characters(
    spec: &'static CommandSpec,
    text: &str,
    target: &Target<'_>,
    unit: usize,
    ends_with_zero: bool,
) -> Found {
    let mut arguments = Arguments::new(spec, text);
    let address = arguments.address(target)?;
    let Some(quoted) = arguments.rest().strip_prefix('"') else {
        return Err(arguments.usage("the text stands in quotes"));
    };
    let inside = quoted.trim_end().strip_suffix('"').unwrap_or(quoted);
    let mut bytes: Vec<u8> = match unit {
        1 if inside.is_ascii() => inside.bytes().collect(),
        1 => return Err(arguments.usage("text of one byte a character is ASCII; eu writes other characters")),
        _ => inside.encode_utf16().flat_map(u16::to_le_bytes).collect(),
    };
    bytes.extend(std::iter::repeat_n(0, if ends_with_zero { unit } else { 0 }));
    match bytes.len() {
        0 => Err(arguments.usage("the text is empty")),
        1..=MOST => write(spec, target, address, bytes),
        _ => Err(arguments.usage(format!("more than {MOST:#x} bytes are not written at once"))),
    }
}

fn write(spec: &'static CommandSpec, target: &Target<'_>, address: VirtAddr, bytes: Vec<u8>) -> Found {
    let there = target.overwrite(address, &bytes);
    let there = there.map_err(|source| QueryError::Target { command: spec.names[0], source })?;
    let took = there == bytes;
    if !took {
        let text = format!(
            "{} has {} there: the write did not take. The page may be protected from the kernel itself, or something \
             writes there at once.",
            target.shown(address),
            shown(&there)
        );
        target.note(Note::failed(NoteCode::NotWritten, text));
    }
    Ok(Box::new(Written { address, bytes, took }))
}
