//! CodeView type records: the structures of a layout file as a `.debug$T` section.
//!
//! ```text
//!  section: | 4 (signature) | record | record | ..
//!  record:  | u16 length of the rest | u16 kind | fields of the kind | f3 f2 f1 padding to 4 bytes |
//! ```
//! A record refers to earlier ones by index, the first being 0x1000; indices below that are the C types themselves.
//! As in a kernel's public PDB, structures refer to each other by forward references, which readers resolve by name.
//! Sources: Microsoft's `cvinfo.h` (kinds and fields), LLVM's `CodeView.h`.

use std::collections::HashMap;

use verikd_sim::windows::layout::{Aggregate, BaseType, Field, Type, Types};

/// The contents of a `.debug$T` section with every type of `types`.
pub(crate) fn type_section(types: &Types) -> Vec<u8> {
    let mut records = Records { types, bytes: SIGNATURE.to_le_bytes().to_vec(), known: HashMap::new() };
    for (name, aggregate) in &types.aggregates {
        records.define(name, aggregate, None);
    }
    // Those that no field has: a kernel's symbols list them all the same.
    for name in types.enumerations.keys() {
        records.enumeration(name);
    }
    records.bytes
}

const SIGNATURE: u32 = 4;
const FIRST_INDEX: u32 = 0x1000;

const LF_POINTER: u16 = 0x1002;
const LF_FIELDLIST: u16 = 0x1203;
const LF_BITFIELD: u16 = 0x1205;
const LF_INDEX: u16 = 0x1404;
const LF_ENUMERATE: u16 = 0x1502;
const LF_ARRAY: u16 = 0x1503;
const LF_STRUCTURE: u16 = 0x1505;
const LF_UNION: u16 = 0x1506;
const LF_ENUM: u16 = 0x1507;
const LF_MEMBER: u16 = 0x150d;

const PUBLIC: u16 = 3;
const FORWARD_REFERENCE: u16 = 0x80;
/// `LF_POINTER` attributes of a plain 64-bit pointer: kind 12, eight bytes; of a 32-bit one: kind 10, four bytes.
const POINTER_64: u32 = 0x1_000c;
const POINTER_32: u32 = 0x800a;
/// Bit pattern that turns a C type's index into that of a pointer to it.
const POINTER_64_TO_BASE: u32 = 0x600;
const POINTER_32_TO_BASE: u32 = 0x400;
/// Field lists longer than this are continued in another record; a record is at most 64 KiB.
const LIST_LIMIT: usize = 0xf000;

/// The records written so far; equal ones are written once.
struct Records<'a> {
    types: &'a Types,
    bytes: Vec<u8>,
    known: HashMap<Vec<u8>, u32>,
}

impl Records<'_> {
    /// Appends a record, or finds the equal one that is there; returns its index.
    fn add(&mut self, kind: u16, fields: &[&[u8]]) -> u32 {
        let mut record = kind.to_le_bytes().to_vec();
        record.extend(fields.iter().copied().flatten());
        pad(&mut record, 2);
        let next = FIRST_INDEX + u32::try_from(self.known.len()).expect("types fit their 32-bit index");
        *self.known.entry(record).or_insert_with_key(|record| {
            let length = u16::try_from(record.len()).expect("field lists are split below 64 KiB");
            self.bytes.extend_from_slice(&length.to_le_bytes());
            self.bytes.extend_from_slice(record);
            next
        })
    }

    const fn is_32_bit(&self) -> bool {
        self.types.pointer_size == 4
    }

    /// Defines an aggregate, or the unnamed one that is its field `unnamed`.
    fn define(&mut self, name: &str, aggregate: &Aggregate, unnamed: Option<&Field>) -> u32 {
        // Names and offsets in the file count from the named structure; in a record, from the unnamed one.
        let (prefix, start) = unnamed.map_or(("", 0), |field| (field.name.as_str(), field.offset));
        let (union, size) = match unnamed.map(|field| &field.ty) {
            Some(Type::Unnamed { union, size }) => (*union, *size),
            _ => (aggregate.union, aggregate.size),
        };
        let mut list = Vec::new();
        for field in aggregate.fields.iter().filter(|field| outer(field) == prefix) {
            let index = match field.ty {
                Type::Unnamed { .. } => {
                    let types = self.types;
                    self.define(&types.unnamed, aggregate, Some(field))
                }
                _ => self.index(&field.ty),
            };
            let own_name = field.name.rsplit('.').next().unwrap_or(&field.name);
            list.push(member(index, field.offset - start, own_name));
        }
        let count = u16::try_from(list.len()).expect("a structure has less than 65536 fields");
        let list = self.list(&list);
        let properties = 0;
        self.definition(union, count, properties, list, size, name)
    }

    fn definition(
        &mut self,
        union: bool,
        count: u16,
        properties: u16,
        list: u32,
        size: u32,
        name: &str,
    ) -> u32 {
        let head = [count.to_le_bytes(), properties.to_le_bytes()].concat();
        let not_derived: &[u8] = if union { &[] } else { &[0; 8] };
        let kind = if union { LF_UNION } else { LF_STRUCTURE };
        self.add(kind, &[&head, &list.to_le_bytes(), not_derived, &number(size.into()), &text(name)])
    }

    /// The index of a type as a field has it.
    fn index(&mut self, ty: &Type) -> u32 {
        match ty {
            Type::Base(base) => base_index(*base),
            Type::Pointer(target) => match self.index(target) {
                base if base < 0x100 => {
                    base | if self.is_32_bit() { POINTER_32_TO_BASE } else { POINTER_64_TO_BASE }
                }
                target => {
                    let attributes = if self.is_32_bit() { POINTER_32 } else { POINTER_64 };
                    self.add(LF_POINTER, &[&target.to_le_bytes(), &attributes.to_le_bytes()])
                }
            },
            Type::Array(element, count) => {
                let size = self.types.size_of(element).expect("Types::parse refuses unknown sizes") * count;
                let element = self.index(element);
                let no_name = [0];
                // The C type that indexes arrays, which is as wide as a pointer.
                let index =
                    if self.is_32_bit() { BaseType::UnsignedLong } else { BaseType::UnsignedLongLong };
                let indices = [element.to_le_bytes(), base_index(index).to_le_bytes()].concat();
                self.add(LF_ARRAY, &[&indices, &number(size.into()), &no_name])
            }
            Type::Bits { base, width, bit } => {
                self.add(LF_BITFIELD, &[&base_index(*base).to_le_bytes(), &[*width, *bit]])
            }
            Type::Named { name, union } => match self.types.aggregates.get(name) {
                Some(aggregate) => self.forward(name, aggregate.union),
                None if self.types.enumerations.contains_key(name) => self.enumeration(name),
                None => self.forward(name, *union),
            },
            Type::Unnamed { .. } => unreachable!("`define` defines unnamed fields in place"),
        }
    }

    fn forward(&mut self, name: &str, union: bool) -> u32 {
        let no_list = 0;
        self.definition(union, 0, FORWARD_REFERENCE, no_list, 0, name)
    }

    fn enumeration(&mut self, name: &str) -> u32 {
        let enumeration = &self.types.enumerations[name];
        let values: Vec<_> =
            enumeration.values.iter().map(|(value, name)| enumerator(*value, name)).collect();
        let list = self.list(&values);
        let count = u16::try_from(values.len()).expect("an enumeration has less than 65536 values");
        let head = [count.to_le_bytes(), [0; 2]].concat();
        self.add(
            LF_ENUM,
            &[&head, &base_index(enumeration.base).to_le_bytes(), &list.to_le_bytes(), &text(name)],
        )
    }

    /// A field list, continued in further records where it is too long; the last part comes first.
    fn list(&mut self, fields: &[Vec<u8>]) -> u32 {
        let mut parts = vec![Vec::new()];
        for field in fields {
            if parts.last().map_or(0, Vec::len) + field.len() > LIST_LIMIT {
                parts.push(Vec::new());
            }
            parts.last_mut().expect("starts with one part").extend_from_slice(field);
        }
        let mut continued: Option<u32> = None;
        for mut part in parts.into_iter().rev() {
            if let Some(index) = continued {
                part.extend_from_slice(&LF_INDEX.to_le_bytes());
                part.extend_from_slice(&[0; 2]);
                part.extend_from_slice(&index.to_le_bytes());
            }
            continued = Some(self.add(LF_FIELDLIST, &[&part]));
        }
        continued.expect("starts with one part")
    }
}

/// The unnamed aggregate that a field is a member of: `u1.Flags` of `u1.Flags.Spare`; empty for the structure itself.
fn outer(field: &Field) -> &str {
    field.name.rsplit_once('.').map_or("", |(outer, _)| outer)
}

fn member(index: u32, offset: u32, name: &str) -> Vec<u8> {
    let mut field = [LF_MEMBER.to_le_bytes(), PUBLIC.to_le_bytes()].concat();
    field.extend_from_slice(&index.to_le_bytes());
    field.extend(number(offset.into()));
    field.extend(text(name));
    pad(&mut field, 0);
    field
}

fn enumerator(value: i64, name: &str) -> Vec<u8> {
    let mut field = [LF_ENUMERATE.to_le_bytes(), PUBLIC.to_le_bytes()].concat();
    field.extend(number(value));
    field.extend(text(name));
    pad(&mut field, 0);
    field
}

/// A number in the shortest of the forms that it needs: itself, or a kind and the value.
fn number(value: i64) -> Vec<u8> {
    const LF_LONG: u16 = 0x8003;
    const LF_ULONG: u16 = 0x8004;
    const LF_QUADWORD: u16 = 0x8009;
    let form = |kind: u16, value: &[u8]| [&kind.to_le_bytes(), value].concat();
    match (u16::try_from(value), u32::try_from(value), i32::try_from(value)) {
        (Ok(small), ..) if small < 0x8000 => small.to_le_bytes().to_vec(),
        (_, Ok(unsigned), _) => form(LF_ULONG, &unsigned.to_le_bytes()),
        (.., Ok(signed)) => form(LF_LONG, &signed.to_le_bytes()),
        _ => form(LF_QUADWORD, &value.to_le_bytes()),
    }
}

fn text(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

/// Fills up to a multiple of four with bytes that count down: f3 f2 f1. `before` bytes precede `bytes` in its record.
fn pad(bytes: &mut Vec<u8>, before: usize) {
    for left in (1..=(4 - (bytes.len() + before) % 4) % 4).rev() {
        bytes.push(0xf0 | u8::try_from(left).expect("at most three"));
    }
}

/// The index of a C type.
const fn base_index(base: BaseType) -> u32 {
    match base {
        BaseType::Void => 0x03,
        BaseType::Char => 0x70,
        BaseType::UnsignedChar => 0x20,
        BaseType::WideChar => 0x71,
        BaseType::Short => 0x11,
        BaseType::UnsignedShort => 0x21,
        BaseType::Int => 0x74,
        BaseType::UnsignedInt => 0x75,
        BaseType::Long => 0x12,
        BaseType::UnsignedLong => 0x22,
        BaseType::LongLong => 0x13,
        BaseType::UnsignedLongLong => 0x23,
        BaseType::Double => 0x41,
    }
}
