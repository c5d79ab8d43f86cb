//! Reads volatility3's Intermediate Symbol Format (ISF): JSON, plain or compressed with xz or gzip.
//!
//! ```text
//!  metadata    windows.pdb: GUID, age, name of the PDB it was made from
//!  base_types  name -> kind, size, signed
//!  enums       name -> base, constants
//!  user_types  name -> kind, size, fields: name -> offset, type
//!  symbols     name -> address (an RVA), linkage name
//! ```
//! What a PDB says, but for the image's sections: the nearest symbol below an address is found across them. A file comes
//! from a colleague or a public collection, so its size is bounded before and after decompression, and the decoder's
//! memory too.
//!
//! Source: <https://github.com/volatilityfoundation/volatility3/tree/develop/volatility3/schemas>, schema 6.2.0.

mod container;
mod document;
#[cfg(test)]
mod tests;
mod types;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::document::Document;
use self::types::Types;
use super::error::SymbolError;
use super::identity::PdbIdentity;
use super::layout::{TypeId, TypeLayout};
use super::symbol::{Constant, Rva, Symbol, SymbolKind, Symbols};

/// The symbols of one module, from an ISF file.
#[derive(Debug)]
pub struct IsfSymbols {
    path: PathBuf,
    identity: PdbIdentity,
    pointer_size: u64,
    /// In order of address, then name.
    by_address: Vec<(Rva, Box<str>)>,
    /// Indexes of `by_address`, in order of name.
    by_name: Vec<u32>,
    types: Types,
}

impl IsfSymbols {
    /// Opens `path` and reads all of it.
    ///
    /// # Errors
    /// [`SymbolError`]: not there, no ISF, of no Windows module, damaged.
    pub fn open(path: &Path) -> Result<Self, SymbolError> {
        let text = container::read(path)?;
        let document: Document = document::parse(path, &text)?;
        let identity = document.metadata.identity(path)?;
        let mut by_address: Vec<(Rva, Box<str>)> = document
            .symbols
            .into_iter()
            .filter_map(|(name, symbol)| Some((Rva(u32::try_from(symbol.address?).ok()?), name)))
            .collect();
        by_address.sort_unstable();
        let mut by_name: Vec<u32> = (0..).take(by_address.len()).collect();
        by_name.sort_unstable_by_key(|index| &by_address[*index as usize].1);
        let types = Types::new(document.base_types, document.enums, document.user_types);
        Ok(Self {
            path: path.to_owned(),
            identity,
            pointer_size: types.pointer_size(),
            by_address,
            by_name,
            types,
        })
    }

    /// Every symbol in order of address.
    pub fn iter(&self) -> impl Iterator<Item = Symbol<'_>> {
        self.by_address.iter().map(symbol)
    }

    /// Its structures and unions.
    pub fn type_ids(&self) -> impl Iterator<Item = TypeId> {
        self.types.ids()
    }
}

/// The identity of the ISF file at `path`, with little more than that kept of it.
///
/// # Errors
/// As [`IsfSymbols::open`].
pub fn identity_of(path: &Path) -> Result<PdbIdentity, SymbolError> {
    let text = container::read(path)?;
    let head: document::Head = document::parse(path, &text)?;
    head.metadata.identity(path)
}

/// True if `head`, the first bytes of a file, may begin an ISF file.
#[must_use]
pub fn is_isf(head: &[u8]) -> bool {
    container::Kind::of(head).is_some()
}

impl Symbols for IsfSymbols {
    fn identity(&self) -> &PdbIdentity {
        &self.identity
    }

    fn kind(&self) -> SymbolKind {
        SymbolKind::Isf
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn pointer_size(&self) -> u64 {
        self.pointer_size
    }

    fn address_of(&self, name: &str) -> Option<Rva> {
        let named = |index: &u32| &self.by_address[*index as usize];
        let at = self.by_name.binary_search_by_key(&name, |index| &named(index).1).ok()?;
        Some(named(&self.by_name[at]).0)
    }

    fn nearest(&self, rva: Rva) -> Option<Symbol<'_>> {
        let above = self.by_address.partition_point(|(at, _)| *at <= rva);
        let below = self.by_address[..above].last()?.0;
        let first = self.by_address[..above].partition_point(|(at, _)| *at < below);
        self.by_address.get(first).map(symbol)
    }

    fn symbols(&self) -> Box<dyn Iterator<Item = Symbol<'_>> + '_> {
        Box::new(self.iter())
    }

    fn above(&self, rva: Rva) -> Option<Symbol<'_>> {
        self.by_address.get(self.by_address.partition_point(|(at, _)| *at <= rva)).map(symbol)
    }

    fn types(&self) -> Box<dyn Iterator<Item = Cow<'_, str>> + '_> {
        Box::new(self.types.names().map(Cow::Borrowed))
    }

    fn constants(&self, name: &str) -> Option<Arc<[Constant]>> {
        self.types.constants(name)
    }

    fn find_type(&self, name: &str) -> Option<TypeId> {
        self.types.find(name)
    }

    fn layout(&self, id: TypeId) -> Result<Arc<TypeLayout>, SymbolError> {
        self.types.layout(id).ok_or_else(|| SymbolError::Damaged {
            file: self.path.clone(),
            reading: "user types",
            wrong: format!("there is no type {:#x}", id.0),
        })
    }
}

fn symbol((rva, name): &(Rva, Box<str>)) -> Symbol<'_> {
    Symbol { name: (&**name).into(), rva: *rva }
}
