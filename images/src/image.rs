//! The linked image: checked against its layout, shortened, and given its identity.

use object::pe::{self, ImageDebugDirectory, ImageDosHeader, ImageNtHeaders64, ImageSectionHeader};
use object::read::pe::{DataDirectories, ImageNtHeaders};
use object::{LittleEndian as LE, pod};
use verikd_sim::windows::layout::{ImageLayout, UnwindTables};

/// How a linked image differs from what its layout says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Not a PE image.
    #[error(transparent)]
    Parse(#[from] object::read::Error),
    /// A section that the layout has is missing or somewhere else.
    #[error("section {number} is {found}, the layout has {wanted}")]
    Section {
        /// Its number, from 1.
        number: usize,
        /// Name and address in the image.
        found: String,
        /// Name and address in the layout.
        wanted: String,
    },
    /// The linker's own section is larger than the layout makes it.
    #[error(
        "the linker and the tables for unwinding need {used:#x} bytes in its section; give it as many, in whole pages"
    )]
    LinkerSection {
        /// Bytes that they take.
        used: u32,
    },
    /// The tables for unwinding are not where the section begins.
    #[error("the tables for unwinding are not at {at:#x}")]
    UnwindTables {
        /// Where they should be.
        at: u32,
    },
    /// The image's or PDB's identity is not there exactly once.
    #[error("the identity is not once in the image and once in the PDB")]
    Identity,
}

/// Bytes of a section.
pub(crate) fn virtual_size(image: &[u8], name: &str) -> Result<u32, ImageError> {
    let (_, _, sections) = headers(image)?;
    Ok(sections
        .iter()
        .find(|section| section_name(section) == name)
        .map_or(0, |section| section.virtual_size.get(LE)))
}

/// Compares sections with the layout's.
pub(crate) fn check(image: &[u8], layout: &ImageLayout) -> Result<(), ImageError> {
    let (nt, _, sections) = headers(image)?;
    let found = sections.iter().map(|section| (section_name(section), section.virtual_address.get(LE)));
    let found = found.chain([("the end".to_owned(), nt.optional_header.size_of_image.get(LE))]);
    let wanted = layout.sections.iter().map(|section| (section.name.clone(), section.at));
    let wanted = wanted.chain([("the end".to_owned(), layout.size_of_image())]);
    let words = |(name, at): (String, u32)| format!("{name} at {at:#x}");
    for (number, (found, wanted)) in found.zip(wanted).enumerate() {
        if found != wanted {
            return Err(ImageError::Section {
                number: number + 1,
                found: words(found),
                wanted: words(wanted),
            });
        }
    }
    Ok(())
}

/// The image with each section's trailing zeros left out of the file, as a linker does for uninitialised data.
pub(crate) fn without_trailing_zeros(image: &[u8]) -> Result<Vec<u8>, ImageError> {
    let (nt, _, sections) = headers(image)?;
    let alignment = nt.optional_header.file_alignment.get(LE) as usize;
    let mut out = image[..nt.optional_header.size_of_headers.get(LE) as usize].to_vec();
    let mut kept_headers = sections.to_vec();
    let mut moved = Vec::new();
    for header in &mut kept_headers {
        let at = header.pointer_to_raw_data.get(LE);
        let raw = &image[at as usize..][..header.size_of_raw_data.get(LE) as usize];
        let used = raw.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let kept = used.next_multiple_of(alignment);
        moved.push((at..at + file_number(kept), file_number(out.len())));
        header.size_of_raw_data.set(LE, file_number(kept));
        header.pointer_to_raw_data.set(LE, if kept == 0 { 0 } else { file_number(out.len()) });
        out.extend_from_slice(&raw[..kept]);
    }
    let table = sections.as_ptr().addr() - image.as_ptr().addr();
    let bytes = pod::bytes_of_slice(&kept_headers);
    out[table..table + bytes.len()].copy_from_slice(bytes);

    // The debug directory says where in the file its data is.
    if let Some((at, count)) = debug_directory(&out)? {
        let parse = pod::slice_from_bytes_mut::<ImageDebugDirectory>;
        let (entries, _) = parse(&mut out[at..], count).map_err(|()| ImageError::Identity)?;
        for entry in entries {
            let old = entry.pointer_to_raw_data.get(LE);
            if let Some((range, new)) = moved.iter().find(|(range, _)| range.contains(&old)) {
                entry.pointer_to_raw_data.set(LE, old - range.start + new);
            }
        }
    }
    Ok(out)
}

/// Says in the image's headers where its table of functions is.
pub(crate) fn set_exception_directory(image: &mut [u8], tables: &UnwindTables) -> Result<(), ImageError> {
    let (_, directories, sections) = headers(image)?;
    let place = sections.iter().find_map(|section| section.pe_file_range_at(tables.at));
    let found = place.and_then(|(at, _)| image.get(at as usize..)?.get(..tables.bytes.len()));
    if found != Some(&tables.bytes[..]) {
        return Err(ImageError::UnwindTables { at: tables.at });
    }
    let missing = ImageError::UnwindTables { at: tables.at };
    let entry = directories.iter().nth(pe::IMAGE_DIRECTORY_ENTRY_EXCEPTION).ok_or(missing)?;
    let at = std::ptr::from_ref(entry).addr() - image.as_ptr().addr();
    image[at..at + 4].copy_from_slice(&tables.at.to_le_bytes());
    image[at + 4..at + 8].copy_from_slice(&tables.functions_size.to_le_bytes());
    Ok(())
}

/// Gives image and PDB the identity `guid`, in place of the one that the linker made.
pub(crate) fn set_identity(image: &mut [u8], pdb: &mut [u8], guid: [u8; 16]) -> Result<(), ImageError> {
    let [record] = positions(image, b"RSDS")[..] else { return Err(ImageError::Identity) };
    let guid_at = record + b"RSDS".len();
    let old = image[guid_at..guid_at + guid.len()].to_vec();
    let [pdb_at] = positions(pdb, &old)[..] else { return Err(ImageError::Identity) };
    image[guid_at..guid_at + guid.len()].copy_from_slice(&guid);
    pdb[pdb_at..pdb_at + guid.len()].copy_from_slice(&guid);
    Ok(())
}

fn positions(bytes: &[u8], pattern: &[u8]) -> Vec<usize> {
    bytes
        .windows(pattern.len())
        .enumerate()
        .filter(|(_, window)| *window == pattern)
        .map(|(at, _)| at)
        .collect()
}

/// NT headers, data directories, section headers.
type Headers<'a> = (&'a ImageNtHeaders64, DataDirectories<'a>, &'a [ImageSectionHeader]);

fn headers(image: &[u8]) -> Result<Headers<'_>, ImageError> {
    let mut offset = ImageDosHeader::parse(image)?.nt_headers_offset().into();
    let (nt, directories) = ImageNtHeaders64::parse(image, &mut offset)?;
    let sections = nt.sections(image, offset)?.iter().as_slice();
    Ok((nt, directories, sections))
}

/// File offset of the debug directory, and how many entries it has.
fn debug_directory(image: &[u8]) -> Result<Option<(usize, usize)>, ImageError> {
    let (_, directories, sections) = headers(image)?;
    let Some(directory) = directories.get(pe::IMAGE_DIRECTORY_ENTRY_DEBUG) else { return Ok(None) };
    let rva = directory.virtual_address.get(LE);
    let at = sections.iter().find_map(|section| section.pe_file_range_at(rva)).map(|(at, _)| at as usize);
    Ok(at.map(|at| (at, directory.size.get(LE) as usize / size_of::<ImageDebugDirectory>())))
}

fn section_name(section: &ImageSectionHeader) -> String {
    String::from_utf8_lossy(section.raw_name()).into_owned()
}

fn file_number(value: usize) -> u32 {
    u32::try_from(value).expect("the linked image is smaller than 4 GiB")
}
