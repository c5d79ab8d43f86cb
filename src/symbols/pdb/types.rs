//! Type records of a PDB: where each begins, which define a structure, and what one structure looks like.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ms_pdb::types::fields::{Field as RawField, IterFields};
use ms_pdb::types::{Leaf, TypeData, TypeIndex, TypeRecord, TypesIter};

use super::container::{Container, TYPE_STREAM};
use super::tables::Tables;
use super::type_hash::TypeHash;
use super::type_records::{Composite, Header, composite};
use crate::symbols::layout::{BaseKind, Bits, Field, Type, TypeId, TypeLayout};
use crate::symbols::rows::{Rows, Table, hash};
use crate::symbols::symbol::Constant;

/// Longest chain of modifiers, pointers and arrays that is followed for one field's type.
const MAX_DEPTH: u32 = 32;
/// Most fields read of one structure; the kernel's largest has a few hundred.
const MAX_FIELDS: usize = 0x1_0000;
/// Most field lists that one structure's fields are spread over; a list holds up to 64 KiB.
const MAX_LISTS: usize = 0x100;
/// Records are read in runs of about this many bytes.
const CHUNK: usize = 0x1_0000;

/// The TPI stream. Only the records that a question needs are read, some of their neighbours with them.
#[derive(Debug)]
pub(super) struct Types {
    container: Arc<Container>,
    header: Header,
    index: Arc<Tables>,
    /// Answers as long as the tables of types are not there.
    hash: OnceLock<Option<TypeHash>>,
    /// The records that begin in each [`CHUNK`] bytes.
    chunks: Vec<OnceLock<Option<Chunk>>>,
    layouts: Mutex<HashMap<TypeId, Arc<TypeLayout>>>,
}

/// Records that follow each other, and where in the records the first of them begins.
#[derive(Debug)]
struct Chunk {
    begin: usize,
    bytes: Box<[u8]>,
}

impl Types {
    /// The types of `container`, to which `index` belongs.
    pub(super) fn new(container: Arc<Container>, header: Header, index: Arc<Tables>) -> Self {
        let chunks = (0..=header.records.len() / CHUNK).map(|_| OnceLock::new()).collect();
        Self { container, header, index, hash: OnceLock::new(), chunks, layouts: Mutex::default() }
    }

    /// The definition called `name`, the first if there are several.
    pub(super) fn find(&self, name: &str) -> Option<TypeId> {
        self.definition(name.as_bytes())
    }

    /// Every definition once; a definition is listed by name and by unique name.
    pub(super) fn ids(&self) -> Vec<TypeId> {
        let rows = 0..self.index.rows(Table::Definitions);
        let id = |row| self.index.row(Table::Definitions, row).map(|[_, id]: [u32; 2]| TypeId(id));
        let mut ids: Vec<_> = rows.filter_map(id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Name of every definition.
    pub(super) fn names(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.ids().into_iter().filter_map(|id| {
            let record = self.record(id.0)?;
            Some(String::from_utf8_lossy(composite(&record)?.name).into_owned().into())
        })
    }

    /// The constants of the enumeration called `name`.
    pub(super) fn constants(&self, name: &str) -> Option<Arc<[Constant]>> {
        let list = |id| match self.record(id)?.parse() {
            Ok(TypeData::Enum(found))
                if found.name == name.as_bytes() && !found.fixed.property.get().fwdref() =>
            {
                Some(found.fixed.fields.get())
            }
            _ => None,
        };
        self.constants_of(self.find_named(Table::Enumerations, name.as_bytes(), list)?)
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

    /// That the records fill their part of the stream, as many as its header says.
    pub(super) fn check(&self) -> Result<(), String> {
        let (header, end) = (&self.header, self.index.types_end());
        if end as usize != header.records.len() {
            return Err(format!("no record can begin at offset {end:#x}"));
        }
        let found = self.index.rows(Table::Starts);
        let said = header.end.saturating_sub(header.first) as usize;
        if found != said {
            return Err(format!("{found:#x} records, the header says {said:#x}"));
        }
        Ok(())
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
        if index.0 < self.header.first {
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
        let named = |id| {
            let record = self.record(id);
            let found = record.as_ref().and_then(composite).filter(|found| !found.forward)?;
            (found.name == name || found.unique_name == Some(name)).then_some(TypeId(id))
        };
        self.find_named(Table::Definitions, name, named)
    }

    /// The first that `of` makes something of, among the records in `table` that may be called `name`.
    fn find_named<T>(&self, table: Table, name: &[u8], of: impl Fn(u32) -> Option<T>) -> Option<T> {
        let at_once = self.hash().and_then(|found| found.candidates(name).find_map(&of));
        at_once.or_else(|| self.index.with_first(table, hash(name)).find_map(of))
    }

    /// The PDB's own table of types, as long as there is no better one.
    fn hash(&self) -> Option<&TypeHash> {
        if self.index.has_types() {
            return None;
        }
        let hash = self.hash.get_or_init(|| TypeHash::read(&self.container, &self.header)).as_ref();
        self.index.go_on();
        hash
    }

    fn record(&self, index: u32) -> Option<TypeRecord<'_>> {
        if let Some(record) = self.hash().and_then(|hash| hash.record(&self.container, index)) {
            return Some(record);
        }
        let row = index.checked_sub(self.header.first)? as usize;
        let [start] = self.index.row(Table::Starts, row)?;
        let start = start as usize;
        let chunk = start / CHUNK;
        let chunk = self.chunks.get(chunk)?.get_or_init(|| self.read_chunk(chunk)).as_ref()?;
        TypesIter::new(chunk.bytes.get(start.checked_sub(chunk.begin)?..)?).next()
    }

    fn read_chunk(&self, chunk: usize) -> Option<Chunk> {
        let first_from = |offset: usize| {
            let row = self.index.first_from::<1>(Table::Starts, u32::try_from(offset).unwrap_or(u32::MAX));
            let start = self.index.row(Table::Starts, row);
            start.map_or_else(|| self.index.types_end() as usize, |[start]| start as usize)
        };
        let (begin, end) = (first_from(chunk * CHUNK), first_from((chunk + 1) * CHUNK));
        let of_stream = |offset: usize| self.header.records.start.saturating_add(offset);
        let bytes = self.container.part(TYPE_STREAM, of_stream(begin)..of_stream(end), "type records");
        Some(Chunk { begin, bytes: bytes.ok()?.into() })
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
