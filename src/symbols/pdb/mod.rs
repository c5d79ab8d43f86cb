//! Reads program databases (PDB, MSF 7 container) as Microsoft's and LLVM's linkers write them.
//!
//! ```text
//!  stream 1  PDB information     GUID
//!  stream 2  TPI                 type records            -> type_records.rs, types.rs
//!            type hashes         which records have a name       -> type_hash.rs
//!  stream 3  DBI                 age, machine, modules, numbers of the streams below
//!            symbol records      publics, globals, references to procedures   -> symbol_records.rs
//!            one per module      procedures
//!            section headers     segment:offset -> RVA              -> sections.rs
//! ```
//! The container and the records are `ms-pdb`'s. A PDB comes from a server or a colleague, so nothing in it is
//! trusted: sizes are checked against the file before anything is allocated, and every failure says what was being
//! read. Compressed PDBs (MSFZ) and the PDBs of .NET are recognised and refused.
//!
//! Source: <https://llvm.org/docs/PDB/>. The age that an image asks for is the one in the DBI stream, not that of the PDB information
//! stream: seen in PDBs that lld-link wrote, of which only the first agrees with the image.

mod container;
mod dbi;
mod sections;
mod symbol_records;
mod tables;
#[cfg(test)]
mod tests;
mod type_hash;
mod type_records;
mod types;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::container::Container;
use self::dbi::{Dbi, IMAGE_FILE_MACHINE_I386};
use self::sections::Sections;
use self::symbol_records::{SymbolRecords, scan_for_address, scan_for_name};
use self::tables::Tables;
use self::type_records::Header;
use self::types::Types;
use super::error::SymbolError;
use super::identity::PdbIdentity;
use super::index::{self, Index, Stamp};
use super::layout::{TypeId, TypeLayout};
use super::rows::Rows;
use super::symbol::{Constant, Rva, Symbol, SymbolKind, Symbols};

const IMAGE_FILE_MACHINE_ARMNT: u16 = 0x1c4;

/// An open PDB of which the identity is known and nothing else is read yet.
#[derive(Debug)]
pub struct PdbFile {
    container: Container,
    machine: u16,
    identity: PdbIdentity,
}

impl PdbFile {
    /// Opens `path` and reads its identity; the name in it is the file's own.
    ///
    /// # Errors
    /// [`SymbolError`]: not there, no PDB, damaged.
    pub fn open(path: &Path) -> Result<Self, SymbolError> {
        let container = Container::open(path)?;
        let guid = container.guid()?;
        let (age, machine) = container.age_and_machine()?;
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let identity = PdbIdentity::new(&name, guid, age);
        Ok(Self { container, machine, identity })
    }

    /// Which build it belongs to.
    #[must_use]
    pub const fn identity(&self) -> &PdbIdentity {
        &self.identity
    }

    /// Makes names and types available: from the index of an earlier time, or from the records when they are needed.
    ///
    /// Damage of single records shows when they are: see [`Symbols::damage`].
    ///
    /// # Errors
    /// [`SymbolError::Damaged`] if what leads to the records cannot be.
    pub fn load(self) -> Result<PdbSymbols, SymbolError> {
        let Self { container, machine, identity } = self;
        let (path, header) = (container.path.clone(), Header::read(&container)?);
        let stamp = Stamp::of(&path, &identity);
        let known = stamp.as_ref().and_then(|stamp| Index::open(&path, stamp));
        let container = Arc::new(container);
        let tables = Arc::new(match known {
            Some(known) => Tables::Index(known),
            None => {
                let dbi = Dbi::read(&container)?;
                let sections = Sections::read(&container, &dbi)?;
                let keep = stamp.map(|stamp| (path.clone(), stamp));
                let symbols = SymbolRecords { container: Arc::clone(&container), dbi, sections };
                Tables::made(symbols, header.clone(), keep)
            }
        });
        let types = Types::new(container, header, Arc::clone(&tables));
        Ok(PdbSymbols { path, identity, machine, types, tables })
    }
}

/// Where the index of the PDB at `path` is kept beside it.
#[must_use]
pub fn index_of(path: &Path) -> PathBuf {
    index::beside(path)
}

/// The symbols of one module, from its PDB.
#[derive(Debug)]
pub struct PdbSymbols {
    path: PathBuf,
    identity: PdbIdentity,
    machine: u16,
    types: Types,
    tables: Arc<Tables>,
}

impl PdbSymbols {
    /// Opens `path` and reads all of it.
    ///
    /// # Errors
    /// [`SymbolError`]: not there, no PDB, damaged.
    pub fn open(path: &Path) -> Result<Self, SymbolError> {
        let symbols = PdbFile::open(path)?.load()?;
        symbols.tables.complete().map_err(SymbolError::again)?;
        Ok(symbols)
    }

    /// Its structures and unions, each once.
    #[must_use]
    pub fn type_ids(&self) -> Vec<TypeId> {
        self.types.ids()
    }

    /// Makes sure that the type records follow each other to the end.
    ///
    /// # Errors
    /// [`SymbolError::Damaged`] with the place at which no record can begin.
    pub fn check_types(&self) -> Result<(), SymbolError> {
        self.types.check().map_err(|wrong| SymbolError::Damaged {
            file: self.path.clone(),
            reading: "type records",
            wrong,
        })
    }

    /// Every symbol in order of address: publics, globals and procedures.
    pub fn iter(&self) -> impl Iterator<Item = Symbol<'_>> {
        self.tables.symbols()
    }
}

impl Symbols for PdbSymbols {
    fn identity(&self) -> &PdbIdentity {
        &self.identity
    }

    fn kind(&self) -> SymbolKind {
        SymbolKind::Pdb
    }

    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn damage(&self) -> Option<String> {
        self.tables.damage().map(SymbolError::what)
    }

    fn pointer_size(&self) -> u64 {
        if matches!(self.machine, IMAGE_FILE_MACHINE_I386 | IMAGE_FILE_MACHINE_ARMNT) { 4 } else { 8 }
    }

    fn address_of(&self, name: &str) -> Option<Rva> {
        self.tables
            .answer_early(|records| scan_for_name(records, name))
            .unwrap_or_else(|| self.tables.address_of(name))
    }

    fn nearest(&self, rva: Rva) -> Option<Symbol<'_>> {
        self.tables
            .answer_early(|records| scan_for_address(records, rva))
            .unwrap_or_else(|| self.tables.nearest(rva))
    }

    fn symbols(&self) -> Box<dyn Iterator<Item = Symbol<'_>> + '_> {
        Box::new(self.iter())
    }

    fn named(&self, name: &str) -> Vec<Symbol<'_>> {
        self.tables.may_be_called(name)
    }

    fn with_word(&self, word: &str) -> Vec<Symbol<'_>> {
        self.tables.with_word(word)
    }

    fn at(&self, rva: Rva) -> Vec<Symbol<'_>> {
        self.tables.at(rva)
    }

    fn above(&self, rva: Rva) -> Option<Symbol<'_>> {
        self.tables.above(rva)
    }

    fn types(&self) -> Box<dyn Iterator<Item = Cow<'_, str>> + '_> {
        Box::new(self.types.names())
    }

    fn constants(&self, name: &str) -> Option<Arc<[Constant]>> {
        self.types.constants(name)
    }

    fn find_type(&self, name: &str) -> Option<TypeId> {
        self.types.find(name)
    }

    fn layout(&self, id: TypeId) -> Result<Arc<TypeLayout>, SymbolError> {
        self.types.layout(id).map_err(|wrong| SymbolError::Damaged {
            file: self.path.clone(),
            reading: "type records",
            wrong,
        })
    }
}
