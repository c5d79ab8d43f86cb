//! The file as numbered streams (MSF 7), none of whose sizes is trusted.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use kd_protocol::wire::Reader;
use ms_pdb::msf::Msf;
use ms_pdb::{RandomAccessFile, ReadAt};

use crate::symbols::error::SymbolError;
use crate::symbols::identity::Guid;

const PDB_INFORMATION_STREAM: u32 = 1;

pub(super) const TYPE_STREAM: u32 = 2;

pub(super) const DBI_STREAM: u32 = 3;

/// The file as numbered streams, each read whole or not at all.
pub(super) struct Container {
    pub(super) path: PathBuf,
    msf: Msf<RandomAccessFile>,
    file_len: u64,
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Container").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Container {
    pub(super) fn open(path: &Path) -> Result<Self, SymbolError> {
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

    pub(super) fn guid(&self) -> Result<Guid, SymbolError> {
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
    pub(super) fn age_and_machine(&self) -> Result<(u32, u16), SymbolError> {
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
    pub(super) fn stream_len(&self, stream: u32) -> u64 {
        if self.msf.is_valid_stream_index(stream) { self.msf.stream_size(stream).into() } else { 0 }
    }

    /// A whole stream; an absent one is empty.
    pub(super) fn stream(&self, stream: u32, reading: &'static str) -> Result<Vec<u8>, SymbolError> {
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
    pub(super) fn part(
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

    pub(super) fn damaged(&self, reading: &'static str, wrong: String) -> SymbolError {
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
pub(super) fn check_superblock(path: &Path, head: &[u8], file_len: u64) -> Result<(), SymbolError> {
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
