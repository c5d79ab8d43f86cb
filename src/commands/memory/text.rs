//! Memory in WinDbg's columns.

use std::fmt::{self, Write};

use super::characters::characters;
use super::display::MemoryDisplay;
use super::format::Format;
use crate::commands::answer::Facts;
use crate::commands::context::Context;
use crate::commands::schema::Schema;
use crate::output::Address;
use crate::target::VirtAddr;

/// Bytes between which `db` puts a dash.
const HALF: usize = 8;

impl Facts for MemoryDisplay {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn Write) -> fmt::Result {
        write(self, context, out)
    }
}

fn write(display: &MemoryDisplay, context: &Context, out: &mut dyn Write) -> fmt::Result {
    match display.format {
        Format::Ascii | Format::Unicode => write_text(display, context, out),
        Format::Symbols | Format::DoubleWordSymbols => write_symbols(display, context, out),
        _ => write_numbers(display, context, out),
    }
}

fn write_numbers(display: &MemoryDisplay, context: &Context, out: &mut dyn Write) -> fmt::Result {
    let format = display.format;
    let has_characters = matches!(format, Format::Bytes | Format::DoubleWordsAndCharacters);
    let len = display.elements.len() * format.unit();
    for (index, from) in (0..len).step_by(display.line).enumerate() {
        let offsets = from..len.min(from + display.line);
        let bytes: Vec<_> = offsets.map(|offset| display.bytes.uint(offset, 1)).collect();
        write_line(at(display, context, index), &bytes, (format, display.line), has_characters, out)?;
    }
    Ok(())
}

/// Writes one line of numbers, and its bytes as characters if that is wanted.
pub(super) fn write_line(
    at: Address,
    bytes: &[Option<u64>],
    (format, len): (Format, usize),
    has_characters: bool,
    out: &mut dyn Write,
) -> fmt::Result {
    let unit = format.unit();
    let mut line = String::new();
    for (column, element) in bytes.chunks(unit).enumerate() {
        if column > 0 {
            line.push(if format == Format::Bytes && column == HALF { '-' } else { ' ' });
        }
        let add = |value: Option<u64>, byte: &Option<u64>| Some(value? << 8 | (*byte)?);
        line.push_str(&number(element.iter().rev().fold(Some(0), add), unit));
    }
    write!(out, "{at}  {line}")?;
    if has_characters {
        let width = len / unit * (number(None, unit).len() + 1) - 1;
        write!(out, "{:1$}  {2}", "", width - line.len(), characters(bytes))?;
    }
    out.write_char('\n')
}

fn write_symbols(display: &MemoryDisplay, context: &Context, out: &mut dyn Write) -> fmt::Result {
    for (index, (element, symbol)) in display.elements.iter().zip(&display.symbols).enumerate() {
        let address = display.start.offset((index * display.format.unit()) as u64);
        write!(out, "{}  {}", context.address(address), number(*element, display.format.unit()))?;
        match symbol {
            Some(symbol) => writeln!(out, " {symbol}")?,
            None => writeln!(out)?,
        }
    }
    Ok(())
}

fn write_text(display: &MemoryDisplay, context: &Context, out: &mut dyn Write) -> fmt::Result {
    let a_line = display.line / display.format.unit();
    let text: Vec<char> = display.text.iter().flat_map(|text| text.chars()).collect();
    if text.is_empty() {
        let unreadable = display.bytes.get(0..1).is_none();
        let shown = if unreadable { "?".repeat(a_line) } else { String::new() };
        return writeln!(out, "{}  \"{shown}\"", at(display, context, 0));
    }
    for (index, line) in text.chunks(a_line).enumerate() {
        writeln!(out, "{}  \"{}\"", at(display, context, index), String::from_iter(line))?;
    }
    Ok(())
}

/// The address of a line.
fn at(display: &MemoryDisplay, context: &Context, line: usize) -> Address {
    context.address(display.start.offset((line * display.line) as u64))
}

/// An element with all its digits.
fn number(element: Option<u64>, unit: usize) -> String {
    match (element, unit) {
        (Some(value), 8) => VirtAddr(value).wide().to_string(),
        (None, 8) => "????????`????????".to_owned(),
        (Some(value), _) => format!("{value:0width$x}", width = 2 * unit),
        (None, _) => "?".repeat(2 * unit),
    }
}
