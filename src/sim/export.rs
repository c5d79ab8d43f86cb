//! The simulated images' PDBs as a symbol store: `NAME/GUIDage/NAME`, as symstore writes it.

use std::io;
use std::path::{Path, PathBuf};

use object::Object;
use object::read::pe::PeFile64;

use super::windows::Build;

/// Why the symbols could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the PDBs to {}: {source}", path.display())]
pub struct ExportError {
    path: PathBuf,
    source: io::Error,
}

/// Writes every PDB of a simulated machine with this Windows below `directory`. Returns the files.
///
/// # Errors
/// [`ExportError`].
pub fn export_symbols(build: &Build, directory: &Path) -> Result<Vec<PathBuf>, ExportError> {
    build.images.iter().map(|image| export(directory, image.bytes, image.pdb_file, image.pdb)).collect()
}

fn export(directory: &Path, image: &[u8], name: &str, pdb: &[u8]) -> Result<PathBuf, ExportError> {
    let folder = directory.join(name).join(store_key(image));
    let path = folder.join(name);
    let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, pdb));
    written.map(|()| path.clone()).map_err(|source| ExportError { path, source })
}

/// GUID and age of the image's RSDS record, as a store's folders are named.
fn store_key(image: &[u8]) -> String {
    let file = PeFile64::parse(image).expect("a committed image is a PE file");
    let debug = file.pdb_info().ok().flatten().expect("a committed image names its PDB");
    let guid = debug.guid();
    let part = |range: std::ops::Range<usize>| {
        guid[range].iter().rev().map(|byte| format!("{byte:02X}")).collect::<String>()
    };
    let tail: String = guid[8..].iter().map(|byte| format!("{byte:02X}")).collect();
    format!("{}{}{}{tail}{:X}", part(0..4), part(4..6), part(6..8), debug.age())
}
