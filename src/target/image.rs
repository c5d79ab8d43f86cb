//! A PE image as it lies in the target: its size, and which PDB belongs to it.
//!
//! ```text
//!  base -> DOS header --e_lfanew--> PE headers --data directory 6--> debug directory --CodeView--> RSDS record
//! ```
//! Three reads at most, and two where the record follows the directory, as linkers write it.
//!
//! Source: Microsoft, "PE Format"; the RSDS record as WinDbg and LLVM read it.

use std::borrow::Cow;
use std::ops::Range;

use kd_protocol::wire::{DecodeError, Reader};

use crate::memory::{Memory, ReadError, VirtAddr};
use crate::symbols::{Guid, PdbIdentity};

/// Bytes read at an image's base: its headers up to the data directories lie in them, save for odd linkers.
const HEADER_READ: usize = 0x400;
/// Bytes read at the debug directory: a few entries and, mostly, the RSDS record after them.
const DIRECTORY_READ: usize = 0x180;
/// Most bytes of an RSDS record: its header and a long path.
const RECORD_MAX: usize = 0x400;
const MAX_DIRECTORY_ENTRIES: usize = 32;

/// Most sections that are looked at; the loader allows 96.
const MAX_SECTIONS: usize = 96;
const SECTION_HEADER: usize = 40;
/// Bytes from the PE signature to the first data directory, at most.
const TO_DIRECTORIES: usize = 24 + 112;

pub(super) const IMAGE_DIRECTORY_ENTRY_EXPORT: u32 = 0;
pub(super) const IMAGE_DIRECTORY_ENTRY_EXCEPTION: u32 = 3;
const IMAGE_DIRECTORY_ENTRY_DEBUG: u32 = 6;
const IMAGE_DEBUG_TYPE_CODEVIEW: u32 = 2;
const PE32: u16 = 0x10b;
const PE32_PLUS: u16 = 0x20b;

/// What an image's headers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// `SizeOfImage`.
    pub size: u32,
    /// `TimeDateStamp`; with the size, what symbol servers know the image by.
    pub timestamp: u32,
    /// `Machine`: 0x8664 for x64.
    pub machine: u16,
    /// `CheckSum`; 0 if the linker set none.
    pub check_sum: u32,
    /// The PDB of this build.
    pub pdb: PdbIdentity,
}

/// What an image's headers say, as far as they are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFacts {
    /// `SizeOfImage`.
    pub size: u32,
    /// `TimeDateStamp`.
    pub timestamp: u32,
    /// `Machine`.
    pub machine: u16,
    /// `CheckSum`; 0 if the linker set none.
    pub check_sum: u32,
    /// The PDB of this build, or why the image does not say which: old and foreign ones have no debug directory.
    pub pdb: Result<PdbIdentity, ImageError>,
}

impl ImageFacts {
    /// Reads the headers of the image at `base`.
    ///
    /// # Errors
    /// [`ImageError`] if there are no headers at all.
    pub fn read(memory: &dyn Memory, base: VirtAddr) -> Result<Self, ImageError> {
        let headers = Headers::read(memory, base)?;
        let pdb = match headers.directory(memory, base, IMAGE_DIRECTORY_ENTRY_DEBUG) {
            Ok(Some(directory)) => find_record(memory, base, headers.size, directory),
            Ok(None) => Err(ImageError::Wrong("it has no debug directory")),
            Err(error) => Err(error),
        };
        let Headers { size, timestamp, machine, check_sum, .. } = headers;
        Ok(Self { size, timestamp, machine, check_sum, pdb })
    }
}

/// Why an image does not say which PDB is its own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// Its headers cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its headers end before they should.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It is no image, or has no RSDS record.
    #[error("{0}")]
    Wrong(&'static str),
}

impl Image {
    /// Reads the headers of the image at `base`.
    ///
    /// # Errors
    /// [`ImageError`], whatever the bytes there are.
    pub fn read(memory: &dyn Memory, base: VirtAddr) -> Result<Self, ImageError> {
        let ImageFacts { size, timestamp, machine, check_sum, pdb } = ImageFacts::read(memory, base)?;
        Ok(Self { size, timestamp, machine, check_sum, pdb: pdb? })
    }
}

/// The fields of an image's headers that are needed here, and where its data directories are.
pub(super) struct Headers {
    /// What was read at the image's base.
    head: Vec<u8>,
    pub(super) size: u32,
    pub(super) timestamp: u32,
    pub(super) machine: u16,
    pub(super) check_sum: u32,
    /// Bytes of a pointer: 8 or 4.
    pub(super) pointer_size: u64,
    /// Where the data directories begin, relative to the base, and how many there are.
    directories: (u32, u32),
    /// Where the section headers begin, relative to the base, and how many there are.
    sections: (u32, u16),
}

impl Headers {
    /// Reads the headers of the image at `base`.
    pub(super) fn read(memory: &dyn Memory, base: VirtAddr) -> Result<Self, ImageError> {
        let head = read_some(memory, base, HEADER_READ)?;
        let mut dos = Reader::new("DOS header", &head);
        if dos.bytes(2)? != b"MZ" {
            return Err(ImageError::Wrong("no MZ header at its base"));
        }
        dos.bytes(0x3a)?;
        let at = dos.u32()?;
        if at >= 0x1_0000 {
            return Err(ImageError::Wrong("its e_lfanew leads far away"));
        }
        let headers = at_rva(&head, memory, base, at, TO_DIRECTORIES)?.into_owned();
        Self::decode(head, &headers, at)
    }

    /// `headers` are the bytes from the PE signature on, which is at `at`.
    fn decode(head: Vec<u8>, headers: &[u8], at: u32) -> Result<Self, ImageError> {
        let mut reader = Reader::new("PE header", headers);
        if reader.bytes(4)? != b"PE\0\0" {
            return Err(ImageError::Wrong("no PE signature where e_lfanew leads"));
        }
        let machine = reader.u16()?;
        let sections = reader.u16()?;
        let timestamp = reader.u32()?;
        reader.bytes(8)?;
        let optional_len = reader.u16()?;
        reader.bytes(2)?;
        let (to_directories, pointer_size): (u8, u64) = match reader.u16()? {
            PE32 => (96, 4),
            PE32_PLUS => (112, 8),
            _ => return Err(ImageError::Wrong("its optional header is of no known kind")),
        };
        reader.bytes(54)?;
        let size = reader.u32()?;
        reader.bytes(4)?;
        let check_sum = reader.u32()?;
        // CheckSum ends at 68; the number of directories is the last field before them.
        reader.bytes(usize::from(to_directories) - 68 - 4)?;
        let directories = reader.u32()?;
        let optional = at + 24;
        Ok(Self {
            head,
            size,
            timestamp,
            machine,
            check_sum,
            pointer_size,
            directories: (optional + u32::from(to_directories), directories),
            sections: (optional + u32::from(optional_len), sections),
        })
    }

    /// RVA and size of a data directory; nothing if the image has no such one.
    pub(super) fn directory(
        &self,
        memory: &dyn Memory,
        base: VirtAddr,
        number: u32,
    ) -> Result<Option<(u32, u32)>, ImageError> {
        let (start, count) = self.directories;
        if number >= count {
            return Ok(None);
        }
        let entry = at_rva(&self.head, memory, base, start + number * 8, 8)?;
        let mut reader = Reader::new("data directory", &entry);
        let (rva, size) = (reader.u32()?, reader.u32()?);
        Ok((rva != 0 && rva < self.size && size != 0).then_some((rva, size)))
    }

    /// The addresses of the sections, relative to the base; as many as can be read.
    pub(super) fn sections(&self, memory: &dyn Memory, base: VirtAddr) -> Vec<Range<u32>> {
        let (start, count) = self.sections;
        let len = usize::from(count).min(MAX_SECTIONS) * SECTION_HEADER;
        let headers = at_rva(&self.head, memory, base, start, len).unwrap_or_default();
        let section = |header: &[u8]| {
            let mut reader = Reader::new("section header", header);
            reader.bytes(8).ok()?;
            let (size, start) = (reader.u32().ok()?, reader.u32().ok()?);
            Some(start..start.saturating_add(size))
        };
        headers.chunks_exact(SECTION_HEADER).filter_map(section).collect()
    }
}

fn find_record(
    memory: &dyn Memory,
    base: VirtAddr,
    image_size: u32,
    (rva, size): (u32, u32),
) -> Result<PdbIdentity, ImageError> {
    let entries = (size as usize / 28).min(MAX_DIRECTORY_ENTRIES);
    if entries == 0 {
        return Err(ImageError::Wrong("it has no debug directory"));
    }
    let directory = read_some(memory, base.offset(rva.into()), DIRECTORY_READ.max(entries * 28))?;
    for entry in directory.chunks_exact(28).take(entries) {
        let mut reader = Reader::new("debug directory entry", entry);
        reader.bytes(12)?;
        let (kind, size, record_rva) = (reader.u32()?, reader.u32()? as usize, reader.u32()?);
        if kind != IMAGE_DEBUG_TYPE_CODEVIEW || record_rva == 0 || record_rva >= image_size {
            continue;
        }
        let size = size.min(RECORD_MAX);
        let near = record_rva.checked_sub(rva).and_then(|from| directory.get(from as usize..)?.get(..size));
        let read;
        let record = match near {
            Some(record) => record,
            None => {
                read = read_some(memory, base.offset(record_rva.into()), size)?;
                &read
            }
        };
        if record.starts_with(b"RSDS") {
            return decode_record(record);
        }
    }
    Err(ImageError::Wrong("its debug directory has no RSDS record"))
}

/// `RSDS` record.
///
/// | offset | size | field                         |
/// |-------:|-----:|-------------------------------|
/// |      0 |    4 | `RSDS`                        |
/// |      4 |   16 | GUID                          |
/// |     20 |    4 | age                           |
/// |     24 |      | path of the PDB, ended by a 0 |
fn decode_record(record: &[u8]) -> Result<PdbIdentity, ImageError> {
    let mut reader = Reader::new("RSDS record", record);
    reader.bytes(4)?;
    let (guid, age) = (Guid(reader.array()?), reader.u32()?);
    let path = reader.rest().split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(PdbIdentity::new(&String::from_utf8_lossy(path), guid, age))
}

/// What of the `len` bytes at `rva` can be read, from `head`, the image's first bytes, if it has them all.
fn at_rva<'a>(
    head: &'a [u8],
    memory: &dyn Memory,
    base: VirtAddr,
    rva: u32,
    len: usize,
) -> Result<Cow<'a, [u8]>, ReadError> {
    match head.get(rva as usize..).and_then(|rest| rest.get(..len)) {
        Some(bytes) => Ok(Cow::Borrowed(bytes)),
        None => read_some(memory, base.offset(rva.into()), len).map(Cow::Owned),
    }
}

/// What of `len` bytes can be read from the start; an error if nothing can.
fn read_some(memory: &dyn Memory, at: VirtAddr, len: usize) -> Result<Vec<u8>, ReadError> {
    let mut bytes = vec![0; len];
    match memory.read_virtual(at, &mut bytes) {
        Ok(()) => {}
        Err(error) if error.got == 0 => return Err(error),
        Err(error) => bytes.truncate(error.got),
    }
    Ok(bytes)
}
