//! Symbols that an image has without any file: its export table.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::error::SymbolError;
use super::identity::{Guid, PdbIdentity};
use super::layout::{TypeId, TypeLayout};
use super::symbol::{Rva, Symbol, SymbolKind, Symbols};
use super::table::TableSymbols;

/// What an image exports: names and addresses, no types.
///
/// Few of a module's routines are exported, so an address may be named after an export far below it. Exports that have
/// no name are called as debuggers call them, `Ordinal7`.
#[derive(Clone, Debug)]
pub struct ExportSymbols {
    table: TableSymbols,
    pointer_size: u64,
    forwarders: BTreeMap<String, String>,
    unread: usize,
}

impl ExportSymbols {
    /// No exports yet, of the image file called `image`, whose sections are `sections`.
    #[must_use]
    pub fn new(image: &str, pointer_size: u64, sections: Vec<Range<u32>>) -> Self {
        let identity = PdbIdentity::new(image, Guid::default(), 0);
        let table = sections.into_iter().fold(TableSymbols::new(identity), TableSymbols::section);
        Self { table, pointer_size, forwarders: BTreeMap::new(), unread: 0 }
    }

    /// Adds an export that is in the image.
    pub fn add(&mut self, name: &str, rva: u32) {
        self.table.add_symbol(name, rva);
    }

    /// Adds an export that another module has: `NTOSKRNL.ExFreePool`.
    pub fn add_forwarder(&mut self, name: &str, to: &str) {
        self.forwarders.insert(name.to_owned(), to.to_owned());
    }

    /// Remembers how many exports could not be read.
    pub const fn set_unread(&mut self, unread: usize) {
        self.unread = unread;
    }

    /// How many exports could not be read, because they were paged out or cannot be.
    #[must_use]
    pub const fn unread(&self) -> usize {
        self.unread
    }

    /// Module and symbol that the export called `name` leads to, if it is another module's: `("NTOSKRNL", "ExFreePool")`.
    #[must_use]
    pub fn forwarder(&self, name: &str) -> Option<(&str, Cow<'_, str>)> {
        let (module, symbol) = self.forwarders.get(name)?.rsplit_once('.')?;
        Some((
            module,
            match symbol.strip_prefix('#') {
                Some(ordinal) => format!("Ordinal{ordinal}").into(),
                None => symbol.into(),
            },
        ))
    }

    /// True if there is neither an export nor a forwarder.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.forwarders.is_empty() && self.symbols().next().is_none()
    }
}

impl Symbols for ExportSymbols {
    /// The image's file name: there is no PDB.
    fn identity(&self) -> &PdbIdentity {
        self.table.identity()
    }

    fn kind(&self) -> SymbolKind {
        SymbolKind::Export
    }

    fn path(&self) -> Option<&Path> {
        None
    }

    fn pointer_size(&self) -> u64 {
        self.pointer_size
    }

    fn address_of(&self, name: &str) -> Option<Rva> {
        self.table.address_of(name)
    }

    fn nearest(&self, rva: Rva) -> Option<Symbol<'_>> {
        self.table.nearest(rva)
    }

    fn symbols(&self) -> Box<dyn Iterator<Item = Symbol<'_>> + '_> {
        self.table.symbols()
    }

    fn find_type(&self, _name: &str) -> Option<TypeId> {
        None
    }

    fn layout(&self, id: TypeId) -> Result<Arc<TypeLayout>, SymbolError> {
        self.table.layout(id)
    }
}
