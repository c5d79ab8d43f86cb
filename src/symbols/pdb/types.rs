//! Type records of a PDB: where each begins, which define a structure, and what one structure looks like.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use kd_protocol::wire::Reader;
use ms_pdb::types::fields::{Field as RawField, IterFields};
use ms_pdb::types::{Leaf, TypeData, TypeIndex, TypeRecord, TypesIter};

use super::{Container, TYPE_STREAM};
use crate::symbols::{BaseKind, Bits, Constant, Field, SymbolError, Type, TypeId, TypeLayout};

/// Longest chain of modifiers, pointers and arrays that is followed for one field's type.
const MAX_DEPTH: u32 = 32;
/// Most fields read of one structure; the kernel's largest has a few hundred.
const MAX_FIELDS: usize = 0x1_0000;
/// Most field lists that one structure's fields are spread over; a list holds up to 64 KiB.
const MAX_LISTS: usize = 0x100;

/// The TPI stream. Indexes are built at the first question, so that modules used for names only cost nothing here.
#[derive(Debug)]
pub(super) struct Types {
    stream: Vec<u8>,
    records: std::ops::Range<usize>,
    /// First type index and the one after the last, as the header says.
    first: u32,
    end: u32,
    index: OnceLock<Index>,
    layouts: Mutex<HashMap<TypeId, Arc<TypeLayout>>>,
}

/// Where records begin, and which of them define a structure or union.
#[derive(Debug)]
struct Index {
    /// Offset of each record in the records.
    starts: Vec<u32>,
    /// Where the last record ends.
    end: usize,
    /// Hash of a definition's name or unique name, and its type index, in order.
    definitions: Vec<(u32, u32)>,
    /// The same of enumerations, by name only.
    enumerations: Vec<(u32, u32)>,
}

impl Types {
    /// Checks the header of the TPI stream.
    ///
    /// | offset | size | field              |
    /// |-------:|-----:|--------------------|
    /// |      0 |    4 | version            |
    /// |      4 |    4 | bytes of header    |
    /// |      8 |    4 | first type index   |
    /// |     12 |    4 | end of type indexes|
    /// |     16 |    4 | bytes of records   |
    pub(super) fn read(container: &Container) -> Result<Self, SymbolError> {
        const READING: &str = "type stream";
        let stream = container.stream(TYPE_STREAM, READING)?;
        let (records, first, end) = if stream.is_empty() {
            (0..0, TypeIndex::MIN_BEGIN.0, TypeIndex::MIN_BEGIN.0)
        } else {
            let mut reader = Reader::new("its header", &stream);
            let mut header = || -> Result<[u32; 5], kd_protocol::wire::DecodeError> {
                Ok([reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?])
            };
            let header = header().map_err(|error| container.damaged(READING, error.to_string()))?;
            let [_version, header_len, first, end, records_len] = header.map(|field| field as usize);
            let records = header_len..header_len.saturating_add(records_len);
            if stream.get(records.clone()).is_none() || header_len < 20 {
                let wrong = format!("records at {records:#x?} of {:#x} bytes", stream.len());
                return Err(container.damaged(READING, wrong));
            }
            (records, first as u32, end as u32)
        };
        Ok(Self { stream, records, first, end, index: OnceLock::new(), layouts: Mutex::default() })
    }

    /// The definition called `name`, the first if there are several.
    pub(super) fn find(&self, name: &str) -> Option<TypeId> {
        self.definition(name.as_bytes())
    }

    /// Every definition once; a definition is listed by name and by unique name.
    pub(super) fn ids(&self) -> Vec<TypeId> {
        let mut ids: Vec<_> = self.index().definitions.iter().map(|(_, id)| TypeId(*id)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// That the records fill their part of the stream, as many as its header says.
    pub(super) fn check(&self) -> Result<(), String> {
        let index = self.index();
        if index.end != self.records.len() {
            return Err(format!("no record can begin at offset {:#x}", index.end));
        }
        let (found, said) = (index.starts.len(), self.end.saturating_sub(self.first) as usize);
        if found != said {
            return Err(format!("{found:#x} records, the header says {said:#x}"));
        }
        Ok(())
    }

    /// Name of every definition, as often as it is defined.
    pub(super) fn names(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let bytes = &self.stream[self.records.clone()];
        TypesIter::new(bytes).filter_map(|record| {
            let found = composite(&record).filter(|found| !found.forward)?;
            Some(String::from_utf8_lossy(found.name).into_owned().into())
        })
    }

    /// The constants of the enumeration called `name`.
    pub(super) fn constants(&self, name: &str) -> Option<Arc<[Constant]>> {
        let enumerations = &self.index().enumerations;
        let wanted = hash(name.as_bytes());
        let first = enumerations.partition_point(|(hash, _)| *hash < wanted);
        let candidates = enumerations[first..].iter().take_while(|(hash, _)| *hash == wanted);
        let list = candidates.filter_map(|(_, id)| match self.record(*id)?.parse() {
            Ok(TypeData::Enum(found)) if found.name == name.as_bytes() => Some(found.fixed.fields.get()),
            _ => None,
        });
        self.constants_of(list.into_iter().next()?)
    }

    fn constants_of(&self, list: TypeIndex) -> Option<Arc<[Constant]>> {
        let mut constants = Vec::new();
        let mut next = Some(list);
        for _ in 0..MAX_LISTS {
            let Some(list) = next.take() else { break };
            let record = self.record(list.0).filter(|record| record.kind == Leaf::LF_FIELDLIST)?;
            for member in (IterFields { bytes: record.data }) {
                match member {
                    RawField::Enumerate(constant) if constants.len() < MAX_FIELDS => {
                        let signed = i64::try_from(constant.value).map(|value| value as u64);
                        let value = signed.or_else(|_| u64::try_from(constant.value)).ok()?;
                        constants.push(Constant { name: text(constant.name), value });
                    }
                    RawField::Index(continued) => next = Some(continued),
                    _ => {}
                }
            }
        }
        Some(constants.into())
    }

    pub(super) fn layout(&self, id: TypeId) -> Result<Arc<TypeLayout>, String> {
        let known = self.layouts.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        if let Some(layout) = known {
            return Ok(layout);
        }
        let layout = Arc::new(self.read_layout(id)?);
        self.layouts.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&layout));
        Ok(layout)
    }

    fn read_layout(&self, id: TypeId) -> Result<TypeLayout, String> {
        let record = self.record(id.0).ok_or_else(|| format!("there is no type {:#x}", id.0))?;
        let Some(Composite { name, size, fields, .. }) = composite(&record) else {
            return Err(format!("type {:#x} is no structure", id.0));
        };
        Ok(TypeLayout { name: text(name), size, fields: self.fields(fields)? })
    }

    /// Data members of a field list and of the lists it continues in.
    fn fields(&self, list: TypeIndex) -> Result<Vec<Field>, String> {
        let mut fields = Vec::new();
        let mut next = (list.0 != 0).then_some(list);
        let mut seen = Vec::new();
        while let Some(list) = next.take() {
            let record = self.record(list.0).filter(|record| record.kind == Leaf::LF_FIELDLIST);
            let record = record.ok_or_else(|| format!("type {:#x} is no field list", list.0))?;
            if seen.contains(&list) || seen.len() == MAX_LISTS {
                return Err(format!("field list {:#x} continues without end", list.0));
            }
            seen.push(list);
            let mut members = IterFields { bytes: record.data };
            for member in members.by_ref() {
                match member {
                    RawField::Member(member) => {
                        if fields.len() == MAX_FIELDS {
                            return Err(format!("more than {MAX_FIELDS:#x} fields"));
                        }
                        let offset = u64::try_from(member.offset)
                            .map_err(|_| format!("field {} lies at no offset", member.name))?;
                        let (ty, bits) = self.field_type(member.ty);
                        fields.push(Field { name: text(member.name), offset, ty, bits });
                    }
                    RawField::Index(continued) => next = Some(continued),
                    _ => {}
                }
            }
            if members.bytes.iter().any(|byte| *byte < 0xf0) {
                return Err(format!("field list {:#x} has a member that cannot be", list.0));
            }
        }
        Ok(fields)
    }

    fn field_type(&self, index: TypeIndex) -> (Type, Option<Bits>) {
        let record = self.record(index.0);
        if let Some(Ok(TypeData::Bitfield(field))) = record.as_ref().map(TypeRecord::parse) {
            let bits = Bits { position: field.position, length: field.length };
            return (self.resolve(field.underlying_type.get(), MAX_DEPTH), Some(bits));
        }
        (self.resolve(index, MAX_DEPTH), None)
    }

    fn resolve(&self, index: TypeIndex, depth: u32) -> Type {
        if index.0 < self.first {
            return primitive(index.0);
        }
        let (Some(record), Some(depth)) = (self.record(index.0), depth.checked_sub(1)) else {
            return Type::Unknown;
        };
        if let Some(composite) = composite(&record) {
            return self.composite_type(index, &composite);
        }
        match record.parse() {
            Ok(TypeData::Modifier(modifier)) => self.resolve(modifier.underlying_type.get(), depth),
            Ok(TypeData::Pointer(pointer)) => Type::Pointer {
                to: Box::new(self.resolve(pointer.fixed.ty.get(), depth)),
                size: match pointer.fixed.attr().size() {
                    0 => 8,
                    size => size.into(),
                },
            },
            Ok(TypeData::Array(array)) => {
                let element = self.resolve(array.fixed.element_type.get(), depth);
                let size = u64::try_from(array.len).unwrap_or(0);
                let count = size.checked_div(element.size()).unwrap_or(0);
                Type::Array { element: Box::new(element), count, size }
            }
            Ok(TypeData::Enum(enumeration)) => Type::Enum {
                name: text(enumeration.name),
                size: self.resolve(enumeration.fixed.underlying_type.get(), depth).size(),
            },
            Ok(TypeData::Proc(_) | TypeData::MemberFunc(_)) => Type::Function,
            _ => Type::Unknown,
        }
    }

    /// A structure or union; a forward reference leads to the definition of the same (unique) name.
    fn composite_type(&self, index: TypeIndex, reference: &Composite<'_>) -> Type {
        let defined = if reference.forward {
            self.definition(reference.unique_name.unwrap_or(reference.name))
        } else {
            Some(TypeId(index.0))
        };
        let record = defined.and_then(|id| self.record(id.0));
        let size = record.as_ref().and_then(composite).map_or(0, |definition| definition.size);
        Type::Record { id: defined, name: text(reference.name), size }
    }

    fn definition(&self, name: &[u8]) -> Option<TypeId> {
        let definitions = &self.index().definitions;
        let wanted = hash(name);
        let first = definitions.partition_point(|(hash, _)| *hash < wanted);
        let candidates = definitions[first..].iter().take_while(|(hash, _)| *hash == wanted);
        let named = |id: &u32| {
            let record = self.record(*id);
            let composite = record.as_ref().and_then(composite);
            composite.is_some_and(|found| found.name == name || found.unique_name == Some(name))
        };
        candidates.map(|(_, id)| *id).find(named).map(TypeId)
    }

    fn record(&self, index: u32) -> Option<TypeRecord<'_>> {
        let start = *self.index().starts.get(index.checked_sub(self.first)? as usize)?;
        TypesIter::new(&self.stream[self.records.clone()][start as usize..]).next()
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| {
            let bytes = &self.stream[self.records.clone()];
            let mut records = TypesIter::new(bytes);
            let mut starts = Vec::new();
            let mut end = 0;
            let mut definitions = Vec::new();
            let mut enumerations = Vec::new();
            loop {
                let start = (bytes.len() - records.rest().len()) as u32;
                let Some(record) = records.next() else { break };
                end = bytes.len() - records.rest().len();
                let id = self.first.saturating_add(starts.len() as u32);
                starts.push(start);
                if let Some(found) = composite(&record).filter(|found| !found.forward) {
                    definitions.push((hash(found.name), id));
                    if let Some(unique) = found.unique_name.filter(|unique| *unique != found.name) {
                        definitions.push((hash(unique), id));
                    }
                } else if let Some(Ok(TypeData::Enum(found))) =
                    (record.kind == Leaf::LF_ENUM).then(|| record.parse())
                    && !found.fixed.property.get().fwdref()
                {
                    enumerations.push((hash(found.name), id));
                }
            }
            definitions.sort_unstable();
            enumerations.sort_unstable();
            Index { starts, end, definitions, enumerations }
        })
    }
}

/// What structure, class and union records have in common.
struct Composite<'a> {
    name: &'a [u8],
    unique_name: Option<&'a [u8]>,
    size: u64,
    fields: TypeIndex,
    forward: bool,
}

fn composite<'a>(record: &TypeRecord<'a>) -> Option<Composite<'a>> {
    let is_composite =
        matches!(record.kind, Leaf::LF_STRUCTURE | Leaf::LF_CLASS | Leaf::LF_INTERFACE | Leaf::LF_UNION);
    match is_composite.then(|| record.parse())? {
        Ok(TypeData::Struct(found)) => Some(Composite {
            name: found.name,
            unique_name: found.unique_name.map(|name| &**name),
            size: u64::try_from(found.length).ok()?,
            fields: found.fixed.field_list.get(),
            forward: found.fixed.property.get().fwdref(),
        }),
        Ok(TypeData::Union(found)) => Some(Composite {
            name: found.name,
            unique_name: found.unique_name.map(|name| &**name),
            size: u64::try_from(found.length).ok()?,
            fields: found.fixed.fields.get(),
            forward: found.fixed.property.get().fwdref(),
        }),
        _ => None,
    }
}

/// A type that needs no record: the low byte says which, bits 8 to 10 whether it is a pointer to it.
///
/// Source: `cvinfo.h`, `CV_typ_e` and `CV_prmode_e`.
fn primitive(index: u32) -> Type {
    let base = |kind, size| Type::Base { kind, size };
    let direct = match index & 0xff {
        0x03 => base(BaseKind::Void, 0),
        0x08 => base(BaseKind::Signed, 4),
        0x10 | 0x70 => base(BaseKind::Character, 1),
        0x20 => base(BaseKind::Unsigned, 1),
        0x68 => base(BaseKind::Signed, 1),
        0x69 => base(BaseKind::Unsigned, 1),
        0x7c => base(BaseKind::Character, 1),
        0x71 | 0x7a => base(BaseKind::Character, 2),
        0x7b => base(BaseKind::Character, 4),
        0x11 | 0x72 => base(BaseKind::Signed, 2),
        0x21 | 0x73 => base(BaseKind::Unsigned, 2),
        0x12 | 0x74 => base(BaseKind::Signed, 4),
        0x22 | 0x75 => base(BaseKind::Unsigned, 4),
        0x13 | 0x76 => base(BaseKind::Signed, 8),
        0x23 | 0x77 => base(BaseKind::Unsigned, 8),
        0x14 | 0x78 => base(BaseKind::Signed, 16),
        0x24 | 0x79 => base(BaseKind::Unsigned, 16),
        0x30 => base(BaseKind::Boolean, 1),
        0x31 => base(BaseKind::Boolean, 2),
        0x32 => base(BaseKind::Boolean, 4),
        0x33 => base(BaseKind::Boolean, 8),
        0x40 => base(BaseKind::Float, 4),
        0x41 => base(BaseKind::Float, 8),
        0x42 => base(BaseKind::Float, 10),
        0x46 => base(BaseKind::Float, 2),
        _ => base(BaseKind::Other, 0),
    };
    match (index >> 8) & 7 {
        0 => direct,
        4 => Type::Pointer { to: Box::new(direct), size: 4 },
        6 => Type::Pointer { to: Box::new(direct), size: 8 },
        _ => Type::Unknown,
    }
}

fn text(name: &[u8]) -> Arc<str> {
    String::from_utf8_lossy(name).into()
}

fn hash(name: &[u8]) -> u32 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish() as u32
}
