//! A PE file laid out as a loader does.

use std::path::{Path, PathBuf};

use object::LittleEndian as LE;
use object::pe::{IMAGE_DIRECTORY_ENTRY_EXCEPTION, ImageDosHeader, ImageNtHeaders64};
use object::read::pe::ImageNtHeaders;
use verikd::unwind::Image;

/// An image, as if it were loaded.
pub(crate) struct Loaded {
    pub(crate) image: Image,
    pub(crate) bytes: Vec<u8>,
}

impl Loaded {
    pub(crate) fn new(file: &[u8], base: u64) -> Self {
        let mut offset = ImageDosHeader::parse(file).unwrap().nt_headers_offset().into();
        let (nt, directories) = ImageNtHeaders64::parse(file, &mut offset).unwrap();
        let sections = nt.sections(file, offset).unwrap();
        let size = nt.optional_header.size_of_image.get(LE);
        let mut bytes = vec![0; size as usize];
        for section in sections.iter() {
            let raw = section.pe_data(file).unwrap();
            let at = section.virtual_address.get(LE) as usize;
            let len = raw.len().min(bytes.len() - at);
            bytes[at..at + len].copy_from_slice(&raw[..len]);
        }
        let table = directories.get(IMAGE_DIRECTORY_ENTRY_EXCEPTION).unwrap();
        let (table, table_size) = (table.virtual_address.get(LE), table.size.get(LE));
        Self { image: Image { base, size, table, table_size }, bytes }
    }

    /// Fills `buf` if it lies in the image.
    pub(crate) fn read(&self, at: u64, buf: &mut [u8]) -> Result<(), u64> {
        let from = usize::try_from(at.wrapping_sub(self.image.base)).map_err(|_| at)?;
        let bytes = self.bytes.get(from..).and_then(|rest| rest.get(..buf.len())).ok_or(at)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}

/// A file that native/record.sh makes.
pub(crate) fn native(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/unwind/native").join(name)
}
