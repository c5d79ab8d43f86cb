//! A PE image as it lies in the target: its size, and which PDB belongs to it.
//!
//! ```text
//!  base -> DOS header --e_lfanew--> PE headers --data directory 6--> debug directory --CodeView--> RSDS record
//! ```
//! Three reads at most, and two where the record follows the directory, as linkers write it.
//!
//! Source: Microsoft, "PE Format"; the RSDS record as WinDbg and LLVM read it.

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

const IMAGE_DIRECTORY_ENTRY_DEBUG: usize = 6;
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
        let head = read_some(memory, base, HEADER_READ)?;
        let mut dos = Reader::new("DOS header", &head);
        if dos.bytes(2)? != b"MZ" {
            return Err(ImageError::Wrong("no MZ header at its base"));
        }
        dos.bytes(0x3a)?;
        let new_header = dos.u32()?;
        if new_header >= 0x1_0000 {
            return Err(ImageError::Wrong("its e_lfanew leads far away"));
        }
        let at = new_header as usize;
        // 24 bytes of signature and file header, and of the optional header up to the debug directory's entry.
        let headers = match head.get(at..).filter(|rest| rest.len() >= 24 + 0xa8) {
            Some(rest) => rest.to_vec(),
            None => read_some(memory, base.offset(at as u64), 24 + 0xf0)?,
        };
        let (mut image, directory) = Self::decode(&headers)?;
        image.pdb = find_record(memory, base, image.size, directory)?;
        Ok(image)
    }

    /// The fields of interest, and RVA and size of the debug directory.
    fn decode(headers: &[u8]) -> Result<(Self, (u32, u32)), ImageError> {
        let mut reader = Reader::new("PE header", headers);
        if reader.bytes(4)? != b"PE\0\0" {
            return Err(ImageError::Wrong("no PE signature where e_lfanew leads"));
        }
        let machine = reader.u16()?;
        reader.bytes(2)?;
        let timestamp = reader.u32()?;
        reader.bytes(12)?;
        let magic = reader.u16()?;
        let to_directories = match magic {
            PE32 => 96,
            PE32_PLUS => 112,
            _ => return Err(ImageError::Wrong("its optional header is of no known kind")),
        };
        reader.bytes(54)?;
        let size = reader.u32()?;
        reader.bytes(4)?;
        let check_sum = reader.u32()?;
        // CheckSum ends at 68; the number of directories is the last field before them.
        reader.bytes(to_directories - 68 - 4)?;
        let directories = reader.u32()?;
        if directories as usize <= IMAGE_DIRECTORY_ENTRY_DEBUG {
            return Err(ImageError::Wrong("it has no debug directory"));
        }
        reader.bytes(8 * IMAGE_DIRECTORY_ENTRY_DEBUG)?;
        let directory = (reader.u32()?, reader.u32()?);
        let pdb = PdbIdentity::new("", Guid::default(), 0);
        Ok((Self { size, timestamp, machine, check_sum, pdb }, directory))
    }
}

fn find_record(
    memory: &dyn Memory,
    base: VirtAddr,
    image_size: u32,
    (rva, size): (u32, u32),
) -> Result<PdbIdentity, ImageError> {
    let entries = (size as usize / 28).min(MAX_DIRECTORY_ENTRIES);
    if rva == 0 || entries == 0 || rva >= image_size {
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
