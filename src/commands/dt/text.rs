//! Fields in WinDbg's columns.

use std::fmt::{self, Write};

use super::fields::{FieldView, Value};
use super::types;
use crate::commands::context::Context;
use crate::output::{dotted, general};
use crate::target::{BaseKind, Bits, Type, VirtAddr};

/// Spaces by which the fields of a structure stand to the right of it.
const INDENT: usize = 3;

pub(super) fn write_fields(
    fields: &[FieldView],
    level: usize,
    context: &Context,
    out: &mut dyn Write,
) -> fmt::Result {
    for field in fields {
        let shown = match (&field.value, field.bits) {
            (Some(value), _) => value_text(value, Some(&field.ty), context),
            (None, Some(bits)) => bits_text(bits),
            (None, None) => types::shown(&field.ty).to_string(),
        };
        let indent = level * INDENT;
        writeln!(out, "{:indent$}+0x{:03x} {:<16} : {shown}", "", field.offset, field.name)?;
        write_fields(&field.fields, level + 1, context, out)?;
    }
    Ok(())
}

fn bits_text(Bits { position, length }: Bits) -> String {
    format!("Pos {position}, {length} Bit{}", if length == 1 { "" } else { "s" })
}

/// A value of type `ty`; nothing for the whole structure that was asked for, whose name stands elsewhere.
pub(super) fn value_text(value: &Value, ty: Option<&Type>, context: &Context) -> String {
    // Of an array its length and the first element are shown.
    let (mut counts, mut element) = (String::new(), ty);
    while let Some(Type::Array { element: inner, count, .. }) = element {
        counts.push_str(&format!("[{count}] "));
        element = Some(inner);
    }
    let name = element.map(types::shown).unwrap_or_default();
    let (pointee, size) = match element {
        Some(Type::Pointer { to, size }) => (Some(&**to), *size),
        _ => (None, context.pointer_size as u64),
    };
    let is_byte = |kind: BaseKind| element == Some(&Type::Base { kind, size: 1 });
    let shown = match value {
        Value::Unreadable { is_pointer } => if *is_pointer { "????" } else { "??" }.to_owned(),
        Value::Unsigned { value } if is_byte(BaseKind::Unsigned) => {
            format!("{} {}", c_hex(*value), quoted(*value))
        }
        Value::Unsigned { value } => hex64(*value),
        Value::Signed { value } if is_byte(BaseKind::Signed) || is_byte(BaseKind::Character) => {
            format!("0n{value} {}", quoted(*value as u8 as u64))
        }
        Value::Signed { value } => format!("0n{value}"),
        Value::Character { value } => format!("{} {}", c_hex(*value), quoted(*value)),
        Value::Float { value } => general(*value),
        Value::Bits { value, length } => bits_value(*value, (*length).into()),
        Value::Constant { value, name: Some(name) } => format!("{value:x} ( {name} )"),
        Value::Constant { value, name: None } => format!("{} (No matching name)", c_hex(*value)),
        Value::Pointer { address: 0, .. } => "(null) ".to_owned(),
        Value::Pointer { address, symbol: Some(symbol), .. } => {
            format!("{}  {symbol}", pointer(*address, size))
        }
        Value::Pointer { address, to: Some(to), .. } => {
            format!("{} {}", pointer(*address, size), value_text(to, pointee, context))
        }
        Value::Pointer { address, .. } => {
            format!("{} {}", pointer(*address, size), pointee.map(types::shown).unwrap_or_default())
        }
        Value::List { flink, blink } => {
            format!("{name} [ {} - {} ]", pointer(*flink, size), pointer(*blink, size))
        }
        Value::Large { value } if value >> 32 == 0 => format!("{name} {value:#x}"),
        Value::Large { value } => format!("{name} {}", hex64(*value)),
        Value::Text { text, .. } => {
            let text = text.as_ref().map(|text| dotted(text.as_str()));
            let text = text.as_deref().unwrap_or("--- memory read error ---");
            // An array of characters stands two spaces before its text, a string's type one.
            if counts.is_empty() { format!("{name} \"{text}\"") } else { format!(" \"{text}\"") }
        }
    };
    format!("{counts}{shown}")
}

/// Bits in binary, all of them; more than four also as a number.
fn bits_value(value: u64, length: usize) -> String {
    match length {
        0..=4 => format!("0y{value:0length$b}"),
        _ => format!("0y{value:0length$b} ({})", c_hex(value)),
    }
}

/// As C's `%#x` prints it: 0 has no prefix.
fn c_hex(value: u64) -> String {
    if value == 0 { "0".to_owned() } else { format!("{value:#x}") }
}

/// A backtick in what needs more than 32 bits.
fn hex64(value: u64) -> String {
    if value >> 32 == 0 { c_hex(value) } else { format!("0x{}", VirtAddr(value).wide()) }
}

fn pointer(value: u64, size: u64) -> String {
    if size == 4 { format!("0x{value:08x}") } else { format!("0x{}", VirtAddr(value).wide()) }
}

/// A character in quotes, nothing between them if it cannot be printed.
fn quoted(value: u64) -> String {
    match u8::try_from(value).ok().filter(|byte| (0x20..0x7f).contains(byte)) {
        Some(byte) => format!("'{}'", byte as char),
        None => "''".to_owned(),
    }
}
