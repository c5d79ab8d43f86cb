//! Makes the simulated target's images and PDBs from their layout files.
//!
//! ```text
//!  nt.toml, types.toml --> COFF object: zero-filled sections, every symbol at its place, `.debug$T` types, unwind tables
//!                      --> rust-lld -flavor link: a PE image and a PDB as genuine as any linker's
//!                      --> trailing zeros of sections left out of the file, identity made from the object's hash
//! ```
//! The same layout files and the same linker give the same bytes on any machine. Nothing of this is in the `verikd`
//! program: it has the finished images.
//!
//! ```text
//! cargo run -p verikd-images -- sim/src/windows/7sp1      # writes sim/src/windows/7sp1/images/
//! ```

mod codeview;
mod coff;
mod image;
mod link;

use std::path::{Path, PathBuf};
use std::{fs, io};

use sha2::{Digest, Sha256};
use verikd_sim::windows::layout::{ImageLayout, LayoutError, SectionKind, Types};

pub use image::ImageError;
use link::Machine;
pub use link::{LinkError, Linker};

/// Name of the file beside the images that records which linker made them.
pub const LINKER_RECORD: &str = "LINKER";

/// An image and its PDB, and what their files are called.
#[derive(Debug)]
pub struct Built {
    /// Sections, symbols and names.
    pub layout: ImageLayout,
    /// The PE file.
    pub image: Vec<u8>,
    /// The PDB.
    pub pdb: Vec<u8>,
}

/// Why an image could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A layout file could not be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A layout file is wrong.
    #[error("{path}: {source}")]
    Layout {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: LayoutError,
    },
    /// The object file could not be written.
    #[error("{file}: {source}")]
    Object {
        /// The image.
        file: String,
        /// What is wrong.
        source: object::write::Error,
    },
    /// The linker did not do its work.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// What the linker made is not what the layout says.
    #[error("{file}: {source}")]
    Image {
        /// The image.
        file: String,
        /// What is not as it should be.
        source: ImageError,
    },
}

/// Makes the images of one Windows build from the layout files in its directory: all `*.toml` but `types.toml` and
/// `release.toml`.
///
/// # Errors
/// [`BuildError`], for the first image that cannot be made.
pub fn build_directory(linker: &Linker, directory: &Path) -> Result<Vec<Built>, BuildError> {
    let read_error = |path: &Path, source| BuildError::Read { path: path.to_owned(), source };
    let entries = fs::read_dir(directory).map_err(|source| read_error(directory, source))?;
    let mut paths: Vec<_> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(|source| read_error(directory, source))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.retain(|path| path.file_name().is_some_and(|name| name != "types.toml" && name != "release.toml"));
    paths.sort();
    paths.into_iter().map(|path| build_file(linker, directory, &path)).collect()
}

fn build_file(linker: &Linker, directory: &Path, path: &Path) -> Result<Built, BuildError> {
    let wrong = |source| BuildError::Layout { path: path.to_owned(), source };
    // The file itself, then what it builds upon, then what that builds upon.
    let mut files = vec![read(path)?];
    let mut at = path.to_owned();
    while let Some(basis) = ImageLayout::basis(files.last().expect("never empty")).map_err(wrong)? {
        at = at.with_file_name(basis);
        files.push(read(&at)?);
    }
    let parts: Vec<_> = files.iter().rev().map(String::as_str).collect();
    let layout = ImageLayout::parse(&parts).map_err(wrong)?;
    let files: Vec<_> =
        layout.types.iter().map(|file| read(&directory.join(file))).collect::<Result<_, _>>()?;
    let parts: Vec<_> = files.iter().map(String::as_str).collect();
    let types = if parts.is_empty() { None } else { Some(Types::parse(&parts).map_err(wrong)?) };
    build(linker, layout, types.as_ref())
}

/// Makes one image and its PDB.
///
/// # Errors
/// [`BuildError`].
pub fn build(linker: &Linker, layout: ImageLayout, types: Option<&Types>) -> Result<Built, BuildError> {
    let object = |fill: &[u8]| {
        let object = coff::object_file(&layout, types, fill);
        object.map_err(|source| BuildError::Object { file: layout.file.clone(), source })
    };
    let wrong = |source| BuildError::Image { file: layout.file.clone(), source };

    // Linked twice: how much the linker puts into its section is known only once it has done so.
    let no_fill = object(&[])?;
    let (measured, _) = linker.link(&layout, &no_fill, Machine::X64)?;
    let tables = layout.unwind_tables();
    let mut fill = tables.as_ref().map_or_else(Vec::new, |tables| tables.bytes.clone());
    for section in layout.sections.iter().filter(|section| section.kind == SectionKind::Linker) {
        let used = image::virtual_size(&measured, &section.name).map_err(wrong)?;
        let free = section.size.saturating_sub(used) as usize & !0xf;
        if free < fill.len() || used > section.size {
            return Err(wrong(ImageError::LinkerSection { used: used + fill.len() as u32 }));
        }
        fill.resize(free, 0);
    }
    let (image, mut pdb) = linker.link(&layout, &object(&fill)?, Machine::X64)?;
    image::check(&image, &layout).map_err(wrong)?;
    let mut image = image::without_trailing_zeros(&image).map_err(wrong)?;
    if let Some(tables) = &tables {
        image::set_exception_directory(&mut image, tables).map_err(wrong)?;
    }
    image::set_identity(&mut image, &mut pdb, identity(&no_fill)).map_err(wrong)?;
    Ok(Built { layout, image, pdb })
}

/// Makes the PDB of an image with these types alone: a 32-bit one's, if the types have pointers of 4 bytes.
///
/// No simulated machine is a 32-bit one, so there is no use for the image.
///
/// # Errors
/// [`BuildError`].
pub fn build_pdb(linker: &Linker, layout: &ImageLayout, types: &Types) -> Result<Vec<u8>, BuildError> {
    let object = coff::object_file(layout, Some(types), &[]);
    let object = object.map_err(|source| BuildError::Object { file: layout.file.clone(), source })?;
    let machine = if types.pointer_size == 4 { Machine::X86 } else { Machine::X64 };
    let (_, pdb) = linker.link(layout, &object, machine)?;
    Ok(pdb)
}

/// A GUID that changes with what the PDB says, and does not depend on the linker: an RFC 9562 version 8 UUID, in the
/// byte order of a GUID in memory.
fn identity(object: &[u8]) -> [u8; 16] {
    let hash = Sha256::digest(object);
    let mut guid: [u8; 16] = hash[..16].try_into().expect("SHA-256 has 32 bytes");
    guid[7] = guid[7] & 0x0f | 0x80;
    guid[8] = guid[8] & 0x3f | 0x80;
    guid
}

fn read(path: &Path) -> Result<String, BuildError> {
    fs::read_to_string(path).map_err(|source| BuildError::Read { path: path.to_owned(), source })
}
