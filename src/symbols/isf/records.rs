//! What an ISF file says, as the records of its index: each is found without reading the others.
//!
//! ```text
//!  0    metadata       as in the file
//!  1    base_types     as in the file
//!  2..  ["_LIST_ENTRY", {"size": 16, "fields": ..}]        a structure or union, then those of enumerations
//! ```
//! A record is JSON, whose reader knows how deep it goes: an index may hold anything.

use std::sync::Arc;

use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::document::{BaseTypes, Document, Enumeration, Metadata, Size, SymbolEntry, UserType};
use crate::symbols::index::{Index, NameTables, TypeTables};
use crate::symbols::layout::TypeId;
use crate::symbols::rows::{Rows, Table, hash};

const METADATA: u32 = 0;
const BASE_TYPES: u32 = 1;

/// The tables of a file.
pub(super) fn tables(document: Document) -> (NameTables, TypeTables) {
    (names(&document), types(&document))
}

fn names(document: &Document) -> NameTables {
    let address = |(name, symbol): (_, &SymbolEntry)| Some((u32::try_from(symbol.address?).ok()?, name));
    let mut symbols: Vec<(u32, &Box<str>)> = document.symbols.iter().filter_map(address).collect();
    symbols.sort_unstable();
    // A longer name is none of a symbol.
    symbols.retain(|(_, name)| name.len() <= u16::MAX.into());
    // An ISF file knows no sections: the nearest symbol below an address is found across them.
    let sections = vec![[0, u32::MAX]];
    NameTables::new(sections, symbols.iter().map(|(rva, name)| (*rva, 0, name.as_bytes())))
}

fn types(document: &Document) -> TypeTables {
    let mut tables = TypeTables::default();
    add(&mut tables, &document.metadata);
    add(&mut tables, &document.base_types);
    for named in &document.user_types {
        let id = add(&mut tables, &named);
        tables.definitions.push([hash(named.0.as_bytes()), id]);
    }
    for named in &document.enums {
        let id = add(&mut tables, &named);
        tables.enumerations.push([hash(named.0.as_bytes()), id]);
    }
    tables.definitions.sort_unstable();
    tables.enumerations.sort_unstable();
    tables
}

/// Adds a record; its number.
fn add(tables: &mut TypeTables, record: &impl Serialize) -> u32 {
    let id = tables.starts.len() as u32;
    tables.starts.push([tables.types_end]);
    serde_json::to_writer(&mut tables.records, record).expect("a Vec takes it, and every key is a string");
    tables.types_end = tables.records.len() as u32;
    id
}

/// The records of an index.
#[derive(Debug)]
pub(super) struct Records(pub(super) Index);

impl Records {
    pub(super) fn metadata(&self) -> Option<Metadata> {
        self.record(METADATA)
    }

    pub(super) fn base_types(&self) -> Option<BaseTypes> {
        self.record(BASE_TYPES)
    }

    /// Every structure and union, in the order of the file.
    pub(super) fn ids(&self) -> Vec<TypeId> {
        let rows = 0..self.0.rows(Table::Definitions);
        let id = |row| self.0.row(Table::Definitions, row).map(|[_, id]: [u32; 2]| TypeId(id));
        let mut ids: Vec<_> = rows.filter_map(id).collect();
        ids.sort_unstable();
        ids
    }

    /// Number and size of the structure or union called `name`.
    pub(super) fn structure(&self, name: &str) -> Option<(TypeId, u64)> {
        self.find(Table::Definitions, name).map(|(id, Size { size })| (TypeId(id), size))
    }

    /// Size of the enumeration called `name`.
    pub(super) fn enumeration_size(&self, name: &str) -> Option<u64> {
        self.find(Table::Enumerations, name).map(|(_, Size { size })| size)
    }

    pub(super) fn enumeration(&self, name: &str) -> Option<Enumeration> {
        self.find(Table::Enumerations, name).map(|(_, enumeration)| enumeration)
    }

    /// Name and definition of a structure or union.
    pub(super) fn definition(&self, id: TypeId) -> Option<(Arc<str>, UserType)> {
        (id.0 > BASE_TYPES).then(|| self.record(id.0))?
    }

    /// The name alone.
    pub(super) fn name(&self, id: TypeId) -> Option<String> {
        self.record::<(String, IgnoredAny)>(id.0).map(|(name, _)| name)
    }

    /// The record in `table` that is called `name`.
    fn find<T: DeserializeOwned>(&self, table: Table, name: &str) -> Option<(u32, T)> {
        self.0.with_first(table, hash(name.as_bytes())).find_map(|id| {
            let bytes = self.bytes(id)?;
            // The name decides before the rest is read.
            let quoted = serde_json::to_string(name).ok()?;
            bytes.get(1..)?.starts_with(quoted.as_bytes()).then_some(())?;
            let (_, record): (IgnoredAny, T) = serde_json::from_slice(&bytes).ok()?;
            Some((id, record))
        })
    }

    fn record<T: DeserializeOwned>(&self, id: u32) -> Option<T> {
        serde_json::from_slice(&self.bytes(id)?).ok()
    }

    fn bytes(&self, id: u32) -> Option<Vec<u8>> {
        let start = |id: u32| self.0.row(Table::Starts, id as usize).map(|[start]| start);
        let end = start(id.checked_add(1)?).unwrap_or(self.0.types_end);
        self.0.record(start(id)?, end)
    }
}
