//! The simulated images' PDBs as a symbol store: `NAME/GUIDage/NAME`, as symstore writes it. Or as ISF files:
//! `NAME/GUID-AGE.json`, as volatility3 keeps them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use object::Object;
use object::read::pe::PeFile64;

use super::isf;
use super::windows::{Build, Image};

/// Why the symbols could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the symbols to {}: {source}", path.display())]
pub struct ExportError {
    path: PathBuf,
    source: io::Error,
}

/// Writes the PDB of every image that a simulated machine with this Windows may load below `directory`. Returns the files.
///
/// # Errors
/// [`ExportError`].
pub fn export_symbols(build: &Build, directory: &Path) -> Result<Vec<PathBuf>, ExportError> {
    build.all_images().map(|image| export(directory, image.bytes, image.pdb_file, image.pdb)).collect()
}

/// Writes the symbols of every image that a simulated machine with this Windows may load below `directory` as ISF. Returns the files.
///
/// # Errors
/// [`ExportError`].
pub fn export_isf(build: &Build, directory: &Path) -> Result<Vec<PathBuf>, ExportError> {
    let committed = "a committed layout file is right";
    let types = build.types().expect(committed);
    let file = |image: &Image| {
        let layout = image.layout().expect(committed);
        let (guid, age) = identity(image.bytes);
        let document = isf::document(&layout, (!layout.types.is_empty()).then_some(&types), &guid, age);
        let folder = directory.join(image.pdb_file);
        let path = folder.join(format!("{guid}-{age:X}.json"));
        let written =
            std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, document.to_string()));
        written.map(|()| path.clone()).map_err(|source| ExportError { path, source })
    };
    build.all_images().map(file).collect()
}

/// Writes a file under a name of its own, and gives it the other when it is whole: somebody may read there meanwhile.
fn put_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let whole = path.with_extension(format!("{}-{number}.part", std::process::id()));
    std::fs::write(&whole, bytes).and_then(|()| std::fs::rename(&whole, path))
}

fn export(directory: &Path, image: &[u8], name: &str, pdb: &[u8]) -> Result<PathBuf, ExportError> {
    let (guid, age) = identity(image);
    let folder = directory.join(name).join(format!("{guid}{age:X}"));
    let path = folder.join(name);
    // One that is there and right is left alone: a debugger may be reading it.
    if std::fs::read(&path).is_ok_and(|found| found == pdb) {
        return Ok(path);
    }
    let written = std::fs::create_dir_all(folder).and_then(|()| put_whole(&path, pdb));
    written.map(|()| path.clone()).map_err(|source| ExportError { path, source })
}

/// GUID and age of the image's RSDS record, the GUID as a store's folders are named.
fn identity(image: &[u8]) -> (String, u32) {
    let file = PeFile64::parse(image).expect("a committed image is a PE file");
    let debug = file.pdb_info().ok().flatten().expect("a committed image names its PDB");
    let guid = debug.guid();
    let part = |range: std::ops::Range<usize>| {
        guid[range].iter().rev().map(|byte| format!("{byte:02X}")).collect::<String>()
    };
    let tail: String = guid[8..].iter().map(|byte| format!("{byte:02X}")).collect();
    (format!("{}{}{}{tail}", part(0..4), part(4..6), part(6..8)), debug.age())
}
