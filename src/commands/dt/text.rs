//! Fields in WinDbg's columns.

use std::fmt::{self, Write};

use super::fields::{FieldView, Value};
use crate::output::{dotted, general};
use crate::target::{BaseKind, Bits, Type, VirtAddr};

/// Spaces by which the fields of a structure stand to the right of it.
const INDENT: usize = 3;

pub(super) fn write_fields(fields: &[FieldView], level: usize, out: &mut dyn Write) -> fmt::Result {
    for field in fields {
        let shown = match (&field.value, field.bits) {
            (Some(value), _) => value_text(value, &field.ty.to_string()),
            (None, Some(bits)) => bits_text(bits),
            (None, None) => field.ty.to_string(),
        };
        let indent = level * INDENT;
        writeln!(out, "{:indent$}+0x{:03x} {:<16} : {shown}", "", field.offset, field.name)?;
        write_fields(&field.fields, level + 1, out)?;
    }
    Ok(())
}

/// A type as WinDbg writes it: `[28] Ptr64 _KTHREAD`, `Uint4B`.
pub(super) fn type_name(ty: &Type) -> String {
    match ty {
        Type::Base { kind, size } => match (kind, size) {
            (BaseKind::Void, _) => "Void".into(),
            (BaseKind::Unsigned, 1) => "UChar".into(),
            (BaseKind::Signed | BaseKind::Character, 1) => "Char".into(),
            (BaseKind::Character, 2) => "Wchar".into(),
            (BaseKind::Boolean, 1) => "Bool".into(),
            (BaseKind::Unsigned | BaseKind::Boolean | BaseKind::Character, size) => format!("Uint{size}B"),
            (BaseKind::Signed, size) => format!("Int{size}B"),
            (BaseKind::Float, 8) => "Double".into(),
            (BaseKind::Float, 4) => "Float".into(),
            (BaseKind::Float, size) => format!("Float{size}B"),
            (BaseKind::Other, _) => "Unknown".into(),
        },
        Type::Pointer { to, size } => format!("Ptr{} {}", 8 * size, type_name(to)),
        Type::Array { element, count, .. } => format!("[{count}] {}", type_name(element)),
        Type::Record { name, .. } | Type::Enum { name, .. } => name.to_string(),
        Type::Function => "Function".into(),
        Type::Unknown => "Unknown".into(),
    }
}

fn bits_text(Bits { position, length }: Bits) -> String {
    format!("Pos {position}, {length} Bit{}", if length == 1 { "" } else { "s" })
}

pub(super) fn value_text(value: &Value, ty: &str) -> String {
    // Of an array its length and the first element are shown.
    let (counts, element) = match ty.rfind("] ") {
        Some(end) => ty.split_at(end + 2),
        None => ("", ty),
    };
    let name = element.strip_prefix("Ptr64 ").or_else(|| element.strip_prefix("Ptr32 ")).unwrap_or(element);
    let shown = match value {
        Value::Unreadable { is_pointer } => if *is_pointer { "????" } else { "??" }.to_owned(),
        Value::Unsigned { value, size: 1 } if element == "UChar" => {
            format!("{} {}", c_hex(*value), quoted(*value))
        }
        Value::Unsigned { value, .. } => hex64(*value),
        Value::Signed { value, size: 1 } => format!("0n{value} {}", quoted(*value as u8 as u64)),
        Value::Signed { value, .. } => format!("0n{value}"),
        Value::Character { value } => format!("{} {}", c_hex(*value), quoted(*value)),
        Value::Float { value } => general(*value),
        Value::Bits { value, length } => bits_value(*value, (*length).into()),
        Value::Constant { value, name: Some(name) } => format!("{value:x} ( {name} )"),
        Value::Constant { value, name: None } => format!("{} (No matching name)", c_hex(*value)),
        Value::Pointer { address: 0, .. } => "(null) ".to_owned(),
        Value::Pointer { address, symbol: Some(symbol), size, .. } => {
            format!("{}  {symbol}", pointer(*address, *size))
        }
        Value::Pointer { address, to: Some(to), size, .. } => {
            format!("{} {}", pointer(*address, *size), value_text(to, name))
        }
        Value::Pointer { address, size, .. } => format!("{} {name}", pointer(*address, *size)),
        Value::List { flink, blink } => {
            format!("{element} [ {} - {} ]", pointer(*flink, 8), pointer(*blink, 8))
        }
        Value::Large { value } if value >> 32 == 0 => format!("{element} {value:#x}"),
        Value::Large { value } => format!("{element} {}", hex64(*value)),
        Value::Text { text, .. } => {
            let text = text.as_ref().map(|text| dotted(text.as_str()));
            let text = text.as_deref().unwrap_or("--- memory read error ---");
            // An array of characters stands two spaces before its text, a string's type one.
            if counts.is_empty() { format!("{element} \"{text}\"") } else { format!(" \"{text}\"") }
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
    if value >> 32 == 0 { c_hex(value) } else { format!("0x{}", VirtAddr(value)) }
}

fn pointer(value: u64, size: u64) -> String {
    if size == 4 { format!("0x{value:08x}") } else { format!("0x{}", VirtAddr(value)) }
}

/// A character in quotes, nothing between them if it cannot be printed.
fn quoted(value: u64) -> String {
    match u8::try_from(value).ok().filter(|byte| (0x20..0x7f).contains(byte)) {
        Some(byte) => format!("'{}'", byte as char),
        None => "''".to_owned(),
    }
}
