//! `?` and `.formats`: the value of an expression.
//!
//! ```text
//! 0: kd> ? nt!VfPoolTraces+8
//! Evaluate expression: -8796066713296 = fffff800`01917130
//! 0: kd> .formats 1c407e62
//! Evaluate expression:
//!   Hex:     00000000`1c407e62
//!   Decimal: 473988706
//!   Octal:   0000000000003420077142
//!   Binary:  00000000 00000000 00000000 00000000 00011100 01000000 01111110 01100010
//!   Chars:   .....@~b
//!   Time:    Mon Jan  7 23:31:46 1985
//!   Float:   low 6.36908e-22 high 0
//!   Double:  2.34182e-315
//! ```
//! Times are UTC: a number of up to 32 bits counts seconds since 1970, a longer one is a `FILETIME`.

use std::fmt;

use serde::Serialize;

use super::answer::{Facts, Found};
use super::arguments::Arguments;
use super::context::Context;
use super::error::QueryError;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, Glued, Run, Takes};
use crate::output::{Address, general, unix_ms_of_filetime, unix_time, unix_time_ms};
use crate::target::{Target, VirtAddr};

pub(super) static EVALUATE: CommandSpec = CommandSpec {
    names: &["?"],
    usage: "? EXPRESSION",
    summary: "show the value of an expression",
    takes: Takes::Arguments(Glued::Anything),
    category: Category::Memory,
    details: &[],
    answers: &[Evaluated::SCHEMA],
    run: Run::Query(evaluate),
};

pub(super) static FORMATS: CommandSpec = CommandSpec {
    names: &[".formats"],
    usage: ".formats EXPRESSION",
    summary: "show the value of an expression in every format",
    takes: Takes::Arguments(Glued::Slash),
    category: Category::Memory,
    details: &[],
    answers: &[Formats::SCHEMA],
    run: Run::Query(formats),
};

/// The value of an expression.
#[derive(Clone, Copy, Debug, Serialize, schemars::JsonSchema)]
pub(super) struct Evaluated {
    #[serde(serialize_with = "crate::output::address")]
    #[schemars(with = "crate::output::Hex")]
    value: VirtAddr,
    decimal: i64,
}

impl Evaluated {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("value");
}

impl Facts for Evaluated {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        let value = shown(self.value, context);
        writeln!(out, "Evaluate expression: {} = {value}", self.decimal)
    }
}

/// Bytes of a value in a target: on a 32-bit one what fits in 32 bits has no more.
const fn width(value: u64, pointer_size: usize) -> usize {
    if pointer_size == 4 && value >> 32 == 0 { 4 } else { 8 }
}

const fn shown(value: VirtAddr, context: &Context) -> Address {
    Address { address: value, pointer_size: width(value.0, context.pointer_size) }
}

/// A value of `width` bytes as a signed number.
const fn decimal(value: u64, width: usize) -> i64 {
    if width == 4 { value as i32 as i64 } else { value as i64 }
}

/// A number in every format.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub(super) struct Formats {
    #[serde(serialize_with = "crate::output::address")]
    #[schemars(with = "crate::output::Hex")]
    value: VirtAddr,
    decimal: i64,
    octal: String,
    binary: String,
    chars: String,
    /// Nothing if it is no time.
    time: Option<String>,
    float_low: f32,
    float_high: f32,
    double: f64,
}

impl Formats {
    fn of(value: u64, width: usize) -> Self {
        let bytes = value.to_be_bytes();
        let bytes = &bytes[8 - width..];
        let binary: Vec<_> = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
        let char_of = |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { *byte as char } else { '.' };
        Self {
            value: VirtAddr(value),
            decimal: decimal(value, width),
            octal: format!("{value:00$o}", if width == 4 { 11 } else { 22 }),
            binary: binary.join(" "),
            chars: bytes.iter().map(char_of).collect(),
            time: time(value),
            float_low: f32::from_bits(value as u32),
            float_high: f32::from_bits((value >> 32) as u32),
            double: f64::from_bits(value),
        }
    }
}

impl Formats {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("formats");
}

impl Facts for Formats {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(out, "Evaluate expression:")?;
        writeln!(out, "  Hex:     {}", shown(self.value, context))?;
        writeln!(out, "  Decimal: {}", self.decimal)?;
        writeln!(out, "  Octal:   {}", self.octal)?;
        writeln!(out, "  Binary:  {}", self.binary)?;
        writeln!(out, "  Chars:   {}", self.chars)?;
        writeln!(out, "  Time:    {}", self.time.as_deref().unwrap_or("***** Invalid FILETIME"))?;
        let (low, high) = (general(self.float_low.into()), general(self.float_high.into()));
        writeln!(out, "  Float:   low {low} high {high}")?;
        writeln!(out, "  Double:  {}", general(self.double))
    }
}

/// The time that a number means.
fn time(value: u64) -> Option<String> {
    match u32::try_from(value) {
        Ok(seconds) => Some(unix_time(seconds.into())),
        Err(_) => unix_ms_of_filetime(value).map(|time| format!("{} (UTC)", unix_time_ms(time))),
    }
}

fn evaluate(arguments: &str, target: &Target<'_>) -> Found {
    let value = only_expression(&EVALUATE, arguments, target)?;
    let decimal = decimal(value, width(value, target.pointer_size()));
    Ok(Box::new(Evaluated { value: VirtAddr(value), decimal }))
}

fn formats(arguments: &str, target: &Target<'_>) -> Found {
    let value = only_expression(&FORMATS, arguments, target)?;
    Ok(Box::new(Formats::of(value, width(value, target.pointer_size()))))
}

fn only_expression(
    spec: &'static CommandSpec,
    arguments: &str,
    target: &Target<'_>,
) -> Result<u64, QueryError> {
    let mut arguments = Arguments::new(spec, arguments);
    if arguments.is_empty() {
        return Err(arguments.usage("an expression is missing"));
    }
    let value = arguments.expression(target)?;
    arguments.end()?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::super::context::Style;
    use super::*;

    fn context(pointer_size: usize) -> Context {
        Context { pointer_size, style: Style::default() }
    }

    #[test]
    fn formats_are_those_of_microsofts_example() {
        let mut text = String::new();
        Formats::of(0x1c40_7e62, 8).write_text(&context(8), &mut text).unwrap();
        let expected = "\
Evaluate expression:
  Hex:     00000000`1c407e62
  Decimal: 473988706
  Octal:   0000000000003420077142
  Binary:  00000000 00000000 00000000 00000000 00011100 01000000 01111110 01100010
  Chars:   .....@~b
  Time:    Mon Jan  7 23:31:46 1985
  Float:   low 6.36908e-22 high 0
  Double:  2.34182e-315
";
        assert_eq!(text, expected);
        // Microsoft's own example is of a 32-bit target.
        let mut text = String::new();
        Formats::of(0x1c40_7e62, 4).write_text(&context(4), &mut text).unwrap();
        let expected = "\
Evaluate expression:
  Hex:     1c407e62
  Decimal: 473988706
  Octal:   03420077142
  Binary:  00011100 01000000 01111110 01100010
  Chars:   .@~b
  Time:    Mon Jan  7 23:31:46 1985
  Float:   low 6.36908e-22 high 0
  Double:  2.34182e-315
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_long_number_is_a_filetime_or_no_time() {
        let time = |value| Formats::of(value, 8).time;
        assert_eq!(time(0x01d7_0000_0000_0000).as_deref(), Some("Wed Feb 10 22:56:43.071 2021 (UTC)"));
        assert_eq!(time(0xffff_f800_0141_b000), None);
        assert_eq!(time(0).as_deref(), Some("Thu Jan  1 00:00:00 1970"));
    }
}
