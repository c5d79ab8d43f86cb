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
//! memory too. What it says is kept in an index beside it, since even one answer takes all of it.
//!
//! Source: <https://github.com/volatilityfoundation/volatility3/tree/develop/volatility3/schemas>, schema 6.2.0.

mod container;
mod document;
mod records;
#[cfg(test)]
mod tests;
mod types;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::document::Document;
use self::records::Records;
use self::types::Types;
use super::error::SymbolError;
use super::identity::PdbIdentity;
use super::index::{self, Index, Stamp};
use super::layout::{TypeId, TypeLayout};
use super::rows::Rows;
use super::symbol::{Constant, Rva, Symbol, SymbolKind, Symbols};

/// A smaller file is read in less time than it takes to keep an index of it.
const SMALLEST: u64 = 0x4000;

/// The symbols of one module, from an ISF file.
#[derive(Debug)]
pub struct IsfSymbols {
    path: PathBuf,
    identity: PdbIdentity,
    records: Arc<Records>,
    types: Types,
}

impl IsfSymbols {
    /// Opens `path`: its index, or else all of it, of which an index is made.
    ///
    /// # Errors
    /// [`SymbolError`]: not there, no ISF, of no Windows module, damaged.
    pub fn open(path: &Path) -> Result<Self, SymbolError> {
        let stamp = Stamp::of_file(path);
        let known = stamp.as_ref().and_then(|stamp| Self::of_index(path, Index::open(path, stamp)?).ok());
        known.map_or_else(|| Self::parse(path), Ok)
    }

    /// Reads all of `path`, and makes its index anew.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn parse(path: &Path) -> Result<Self, SymbolError> {
        // Before the file is read: one that is replaced meanwhile has another.
        let stamp = Stamp::of_file(path).unwrap_or(Stamp::NONE);
        let text = container::read(path)?;
        let document: Document = document::parse(path, &text)?;
        document.metadata.identity(path)?;
        let (names, types) = records::tables(document);
        let bytes = index::encode(&names, &types, &stamp);
        if stamp.file_len >= SMALLEST {
            index::write(path, &stamp, &bytes);
        }
        let index = Index::made(bytes, &stamp).expect("what was encoded is an index");
        Self::of_index(path, index)
    }

    fn of_index(path: &Path, index: Index) -> Result<Self, SymbolError> {
        let damaged = || SymbolError::Damaged {
            file: path.to_owned(),
            reading: "index",
            wrong: "it has no records of what the file is".to_owned(),
        };
        let records = Arc::new(Records(index));
        let identity = records.metadata().ok_or_else(damaged)?.identity(path)?;
        let types = Types::new(Arc::clone(&records), records.base_types().ok_or_else(damaged)?);
        Ok(Self { path: path.to_owned(), identity, records, types })
    }

    /// Every symbol in order of address.
    pub fn iter(&self) -> impl Iterator<Item = Symbol<'_>> {
        self.records.0.symbols()
    }

    /// Its structures and unions.
    #[must_use]
    pub fn type_ids(&self) -> Vec<TypeId> {
        self.types.ids()
    }
}

/// The identity of the ISF file at `path` if it has an index, so that nothing has to be read whole.
#[must_use]
pub fn indexed(path: &Path) -> Option<PdbIdentity> {
    let records = Records(Index::open(path, &Stamp::of_file(path)?)?);
    records.metadata()?.identity(path).ok()
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
        self.types.pointer_size()
    }

    fn address_of(&self, name: &str) -> Option<Rva> {
        self.records.0.address_of(name)
    }

    fn nearest(&self, rva: Rva) -> Option<Symbol<'_>> {
        self.records.0.nearest(rva)
    }

    fn symbols(&self) -> Box<dyn Iterator<Item = Symbol<'_>> + '_> {
        Box::new(self.iter())
    }

    fn named(&self, name: &str) -> Vec<Symbol<'_>> {
        self.records.0.may_be_called(name)
    }

    fn with_word(&self, word: &str) -> Vec<Symbol<'_>> {
        self.records.0.with_word(word)
    }

    fn at(&self, rva: Rva) -> Vec<Symbol<'_>> {
        self.records.0.at(rva)
    }

    fn above(&self, rva: Rva) -> Option<Symbol<'_>> {
        self.records.0.above(rva)
    }

    fn types(&self) -> Box<dyn Iterator<Item = Cow<'_, str>> + '_> {
        Box::new(self.types.names().map(Cow::Owned))
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
