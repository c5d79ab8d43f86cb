//! The file of an image: bytes of it by where they lie once it is loaded.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use object::LittleEndian as LE;
use object::pe::{ImageDosHeader, ImageNtHeaders64};
use object::read::ReadCache;
use object::read::pe::{ImageNtHeaders, ImageOptionalHeader};

use super::identity::ImageIdentity;

/// A file of the 64-bit image that was looked for.
#[derive(Debug)]
pub struct ImageFile {
    file: Mutex<File>,
    /// Where a section lies once it is loaded, how many bytes of it the file has, and where.
    sections: Vec<(u32, u32, u32)>,
}

impl ImageFile {
    /// Opens the file if it is the wanted image: nothing if it is another build, or none that can be read.
    pub(super) fn open(path: &Path, wanted: &ImageIdentity) -> Option<Self> {
        let mut file = File::open(path).ok()?;
        let sections = sections(&mut file, wanted)?;
        Some(Self { file: Mutex::new(file), sections })
    }

    /// Fills `buf` from `rva` on; false if those bytes are not all in the file.
    #[must_use]
    pub fn read(&self, rva: u32, buf: &mut [u8]) -> bool {
        let place = self.sections.iter().find_map(|(at, len, in_file)| {
            let from = rva.checked_sub(*at)?;
            let fits = buf.len() as u64 <= u64::from(len.checked_sub(from)?);
            fits.then(|| u64::from(*in_file) + u64::from(from))
        });
        let Some(place) = place else { return false };
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(place)).and_then(|_| file.read_exact(buf)).is_ok()
    }
}

fn sections(file: &mut File, wanted: &ImageIdentity) -> Option<Vec<(u32, u32, u32)>> {
    let cache = ReadCache::new(file);
    let mut offset = ImageDosHeader::parse(&cache).ok()?.nt_headers_offset().into();
    let (nt, _) = ImageNtHeaders64::parse(&cache, &mut offset).ok()?;
    let is_wanted = nt.file_header.time_date_stamp.get(LE) == wanted.timestamp
        && nt.optional_header.size_of_image() == wanted.size;
    let sections = nt.sections(&cache, offset).ok().filter(|_| is_wanted)?;
    let section = |section: &object::pe::ImageSectionHeader| {
        let len = section.size_of_raw_data.get(LE).min(section.virtual_size.get(LE));
        (section.virtual_address.get(LE), len, section.pointer_to_raw_data.get(LE))
    };
    Some(sections.iter().map(section).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_read_where_it_is_loaded_and_another_build_is_none() {
        let image = verikd_sim::windows::WINDOWS_7_SP1.images.last().unwrap();
        let layout = image.layout().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(image.file);
        std::fs::write(&path, image.bytes).unwrap();
        let wanted = ImageIdentity::new(image.file, layout.timestamp, layout.size_of_image());
        let file = ImageFile::open(&path, &wanted).unwrap();
        let tables = layout.unwind_tables().unwrap();
        let mut bytes = vec![0; tables.bytes.len()];
        assert!(file.read(tables.at, &mut bytes) && bytes == tables.bytes);
        for (rva, len) in [(0, 1), (tables.at, 0x2000), (tables.at - 1, 2), (u32::MAX, 1), (0x1000, 1)] {
            assert!(!file.read(rva, &mut vec![0; len]), "{rva:x} {len:x}");
        }
        assert!(ImageFile::open(&path, &ImageIdentity { timestamp: 1, ..wanted.clone() }).is_none());
        assert!(ImageFile::open(&path, &ImageIdentity { size: 0x1000, ..wanted.clone() }).is_none());
        for len in 0..image.bytes.len().min(0x400) {
            std::fs::write(&path, &image.bytes[..len]).unwrap();
            let cut = ImageFile::open(&path, &wanted);
            assert!(cut.is_none_or(|cut| !cut.read(tables.at, &mut [0; 8])), "{len:x} bytes");
        }
    }
}
