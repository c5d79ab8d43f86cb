//! Reads program databases (PDB, MSF 7 container) as Microsoft's and LLVM's linkers write them.
//!
//! ```text
//!  stream 1  PDB information     GUID
//!  stream 2  TPI                 type records            -> types.rs
//!  stream 3  DBI                 age, machine, modules, numbers of the streams below
//!            symbol records      publics, globals, references to procedures   -> names.rs
//!            one per module      procedures
//!            section headers     segment:offset -> RVA
//! ```
//! The container and the records are `ms-pdb`'s. A PDB comes from a server or a colleague, so nothing in it is
//! trusted: sizes are checked against the file before anything is allocated, and every failure says what was being
//! read. Compressed PDBs (MSFZ) and the PDBs of .NET are recognised and refused.
//!
//! Source: <https://llvm.org/docs/PDB/>. The age that an image asks for is the one in the DBI stream, not that of the PDB information
//! stream: seen in PDBs that lld-link wrote, of which only the first agrees with the image.

mod index;
mod names;
mod tables;
#[cfg(test)]
mod tests;
mod types;

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kd_protocol::wire::Reader;
use ms_pdb::dbi::DbiStream;
use ms_pdb::dbi::optional_dbg::OptionalDebugHeaderStream;
use ms_pdb::msf::Msf;
use ms_pdb::{RandomAccessFile, ReadAt};

use self::index::{Index, Stamp};
use self::names::{Names, Sections};
use self::tables::Tables;
use self::types::{Header, Types};
use super::{Constant, Guid, PdbIdentity, Rva, Symbol, SymbolError, SymbolKind, Symbols, TypeId, TypeLayout};

const PDB_INFORMATION_STREAM: u32 = 1;
const TYPE_STREAM: u32 = 2;
const DBI_STREAM: u32 = 3;

const IMAGE_FILE_MACHINE_I386: u16 = 0x14c;
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
        let known = stamp.as_ref().and_then(|stamp| Index::open(&path, &identity, stamp));
        let container = Arc::new(container);
        let tables = Arc::new(match known {
            Some(known) => Tables::Index(known),
            None => {
                let dbi = Dbi::read(&container)?;
                let sections = Sections::read(&container, &dbi)?;
                let keep = stamp.map(|stamp| (path.clone(), identity.clone(), stamp));
                Tables::made(Arc::clone(&container), (dbi, sections, header.clone()), keep)
            }
        });
        let types = Types::new(container, header, Arc::clone(&tables));
        Ok(PdbSymbols { path, identity, machine, names: Names(Arc::clone(&tables)), types, tables })
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
    names: Names,
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
        self.names.iter()
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
        self.names.address_of(name)
    }

    fn nearest(&self, rva: Rva) -> Option<Symbol<'_>> {
        self.names.nearest(rva)
    }

    fn symbols(&self) -> Box<dyn Iterator<Item = Symbol<'_>> + '_> {
        Box::new(self.iter())
    }

    fn above(&self, rva: Rva) -> Option<Symbol<'_>> {
        self.names.above(rva)
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

/// What the DBI stream says of the other streams.
#[derive(Debug)]
struct Dbi {
    /// Its image is for x86, where public names are decorated.
    is_x86: bool,
    symbol_records: Option<u32>,
    section_headers: Option<u32>,
    /// Stream and length of the symbols of each module, in the modules' order.
    modules: Vec<Option<(u32, u32)>>,
}

impl Dbi {
    fn read(container: &Container) -> Result<Self, SymbolError> {
        const READING: &str = "DBI stream";
        let damaged = |wrong: String| container.damaged(READING, wrong);
        let bytes = container.stream(DBI_STREAM, READING)?;
        let stream = DbiStream::parse(bytes).map_err(|error| damaged(format!("{error:#}")))?;
        let header = stream.header().map_err(|error| damaged(format!("{error:#}")))?;
        let debug = stream.optional_debug_header().map_err(|error| damaged(format!("{error:#}")))?;
        let remapped = debug.stream(OptionalDebugHeaderStream::omap_from_src_data);
        if remapped.is_some_and(|stream| container.stream_len(stream) > 0) {
            return Err(damaged(
                "its addresses are remapped (OMAP), as before Windows Vista; not supported".to_owned(),
            ));
        }
        let modules = stream.iter_modules().map(|module| Some((module.stream()?, module.sym_size())));
        Ok(Self {
            is_x86: header.machine.get() == IMAGE_FILE_MACHINE_I386,
            symbol_records: header.global_symbol_stream.get(),
            section_headers: debug.stream(OptionalDebugHeaderStream::section_header_data),
            modules: modules.collect(),
        })
    }
}

/// The file as numbered streams, each read whole or not at all.
struct Container {
    path: PathBuf,
    msf: Msf<RandomAccessFile>,
    file_len: u64,
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Container").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Container {
    fn open(path: &Path) -> Result<Self, SymbolError> {
        let io = |source| SymbolError::Io { file: path.to_owned(), source };
        let mut file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(SymbolError::NotSymbols { file: path.to_owned(), what: "not a file" });
        }
        let mut head = Vec::new();
        file.by_ref().take(64).read_to_end(&mut head).map_err(io)?;
        check_superblock(path, &head, metadata.len())?;
        let msf =
            Msf::open_with_file(RandomAccessFile::from(file)).map_err(|error| SymbolError::Damaged {
                file: path.to_owned(),
                reading: "stream directory",
                wrong: format!("{error:#}"),
            })?;
        Ok(Self { path: path.to_owned(), msf, file_len: metadata.len() })
    }

    fn guid(&self) -> Result<Guid, SymbolError> {
        const READING: &str = "PDB information stream";
        let bytes = self.stream(PDB_INFORMATION_STREAM, READING)?;
        let mut reader = Reader::new("its header", &bytes);
        let guid = reader.bytes(12).and_then(|_| reader.array());
        guid.map(Guid).map_err(|error| self.damaged(READING, error.to_string()))
    }

    /// Of the header of the DBI stream, what tells builds apart.
    ///
    /// | offset | size | field   |
    /// |-------:|-----:|---------|
    /// |      8 |    4 | age     |
    /// |     58 |    2 | machine |
    fn age_and_machine(&self) -> Result<(u32, u16), SymbolError> {
        const READING: &str = "DBI stream";
        let len = self.stream_len(DBI_STREAM);
        if len == 0 {
            let wrong = "it is empty: a PDB of types only, not of an image".to_owned();
            return Err(self.damaged(READING, wrong));
        }
        let bytes = self.part(DBI_STREAM, 0..64.min(len as usize), READING)?;
        let mut reader = Reader::new("its header", &bytes);
        let mut fields = || -> Result<_, kd_protocol::wire::DecodeError> {
            reader.bytes(8)?;
            let age = reader.u32()?;
            reader.bytes(46)?;
            Ok((age, reader.u16()?))
        };
        fields().map_err(|error| self.damaged(READING, error.to_string()))
    }

    /// Bytes of a stream; 0 if there is no such stream.
    fn stream_len(&self, stream: u32) -> u64 {
        if self.msf.is_valid_stream_index(stream) { self.msf.stream_size(stream).into() } else { 0 }
    }

    /// A whole stream; an absent one is empty.
    fn stream(&self, stream: u32, reading: &'static str) -> Result<Vec<u8>, SymbolError> {
        let len = self.stream_len(stream);
        if len > self.file_len {
            let wrong = format!("stream {stream} has {len:#x} bytes, the whole file {:#x}", self.file_len);
            return Err(self.damaged(reading, wrong));
        }
        if len == 0 {
            return Ok(Vec::new());
        }
        self.msf.read_stream_to_vec(stream).map_err(|error| self.damaged(reading, format!("{error:#}")))
    }

    /// A part of a stream.
    fn part(
        &self,
        stream: u32,
        range: std::ops::Range<usize>,
        reading: &'static str,
    ) -> Result<Vec<u8>, SymbolError> {
        let len = self.stream_len(stream).min(self.file_len);
        if range.start > range.end || range.end as u64 > len {
            return Err(self.damaged(reading, format!("{range:#x?} of stream {stream} with {len:#x} bytes")));
        }
        let mut bytes = vec![0; range.len()];
        let reader = self.msf.get_stream_reader(stream);
        let reader = reader.map_err(|error| self.damaged(reading, format!("{error:#}")))?;
        let read = reader.read_exact_at(&mut bytes, range.start as u64);
        read.map_err(|error| self.damaged(reading, error.to_string()))?;
        Ok(bytes)
    }

    fn damaged(&self, reading: &'static str, wrong: String) -> SymbolError {
        SymbolError::Damaged { file: self.path.clone(), reading, wrong }
    }
}

/// Checks the numbers that decide what opening the container allocates.
///
/// | offset | size | field               |
/// |-------:|-----:|---------------------|
/// |      0 |   32 | magic               |
/// |     32 |    4 | bytes per page      |
/// |     36 |    4 | active free map     |
/// |     40 |    4 | pages               |
/// |     44 |    4 | bytes of directory  |
fn check_superblock(path: &Path, head: &[u8], file_len: u64) -> Result<(), SymbolError> {
    const MAGIC: &[u8; 32] = b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0";
    let refuse = |what| Err(SymbolError::NotSymbols { file: path.to_owned(), what });
    let damaged =
        |wrong| Err(SymbolError::Damaged { file: path.to_owned(), reading: "container header", wrong });
    if head.starts_with(b"Microsoft MSFZ Container") {
        return refuse(
            "a compressed PDB (MSFZ), which this version does not read; fetch the uncompressed one",
        );
    }
    if head.starts_with(b"MSCF") {
        return refuse("a compressed cabinet, as servers keep NAME.pd_; expand it first");
    }
    if head.starts_with(b"BSJB") {
        return refuse("a portable PDB, of .NET code; kernel modules have none");
    }
    if !head.starts_with(MAGIC) {
        return refuse("not a PDB");
    }
    let mut reader = Reader::new("container header", &head[MAGIC.len()..]);
    let mut next = || reader.u32().map(u64::from);
    let fields = next().and_then(|page| Ok((page, next()?, next()?, next()?)));
    let Ok((page_size, _free_map, pages, directory)) = fields else {
        return damaged(format!("the file has only {file_len:#x} bytes"));
    };
    if !(512..=0x1_0000).contains(&page_size) || !page_size.is_power_of_two() {
        return damaged(format!("pages of {page_size:#x} bytes"));
    }
    if pages * page_size > file_len {
        let has = pages * page_size;
        return damaged(format!("cut off: it should have {has:#x} bytes and has {file_len:#x}"));
    }
    if directory > file_len {
        return damaged(format!("a stream directory of {directory:#x} bytes in a file of {file_len:#x}"));
    }
    Ok(())
}
