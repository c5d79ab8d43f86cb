//! Symbol files in folders.
//!
//! ```text
//!  DIR/NAME, DIR/{exe,sys,dll}/NAME, DIR/symbols/{exe,sys,dll}/NAME     as debuggers of Windows look
//!  DIR/NAME/IDENTITY/NAME                                               a store
//!  DIR/NAME/IDENTITY/file.ptr                                           a store that keeps `PATH:` of the file
//! ```

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{Attempt, Miss};
use crate::symbols::identity::{ImageIdentity, PdbIdentity};
use crate::symbols::pdb::PdbFile;
use crate::symbols::symbol::Symbols;

/// Folders by the kind of image that files belong to.
const IMAGE_KINDS: [&str; 3] = ["exe", "sys", "dll"];
/// Longest `file.ptr`.
const MAX_POINTER: u64 = 0x1000;

/// The wanted PDB in a store, or else in the folder itself if `flat`.
pub(super) fn load(
    folder: &Path,
    flat: bool,
    wanted: &PdbIdentity,
    tried: &mut Vec<Attempt>,
) -> Option<Arc<dyn Symbols>> {
    let before = tried.len();
    for file in candidates(folder, flat, wanted) {
        match read(&file, wanted) {
            Ok(symbols) => return Some(symbols),
            Err(miss) => tried.push(Attempt::new(file.display(), miss)),
        }
    }
    if tried.len() == before {
        tried.push(match (compressed(folder, wanted), pointer(folder, wanted)) {
            (Some(file), _) => Attempt::new(file.display(), Miss::Compressed(wanted.name.clone())),
            (None, Some((file, Pointer::Path(to)))) => {
                Attempt::new(file.display(), Miss::PointsNowhere(to.display().to_string()))
            }
            (None, Some((file, Pointer::Other(text)))) => Attempt::new(file.display(), Miss::Message(text)),
            (None, None) => Attempt::new(folder.display(), Miss::Absent),
        });
    }
    None
}

/// Reads a PDB if it is the wanted one.
pub(super) fn read(file: &Path, wanted: &PdbIdentity) -> Result<Arc<dyn Symbols>, Miss> {
    let pdb = PdbFile::open(file).map_err(Miss::Unreadable)?;
    if !pdb.identity().same_build(wanted) {
        return Err(Miss::OtherBuild(pdb.identity().clone()));
    }
    let symbols = pdb.load().map_err(Miss::Unreadable)?;
    Ok(Arc::new(symbols))
}

/// Files that may be the wanted image.
pub(super) fn images(folder: &Path, flat: bool, wanted: &ImageIdentity) -> Vec<PathBuf> {
    named(folder, flat, &wanted.name, &wanted.to_string())
}

/// Files called `name`, in a store below `key`.
fn named(folder: &Path, flat: bool, name: &str, key: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let named = child(folder, name);
    if flat {
        let symbols = child(folder, "symbols");
        let kinds = [Some(folder), symbols.as_deref()].into_iter().flatten();
        let below = kinds.flat_map(|folder| IMAGE_KINDS.iter().filter_map(|kind| child(folder, kind)));
        files.extend(named.clone());
        files.extend(below.filter_map(|folder| child(&folder, name)));
        files.retain(|path| path.is_file());
    }
    let in_store = named.and_then(|named| child(&named, key));
    files.extend(in_store.and_then(|key| child(&key, name)));
    files
}

/// Files that may be the wanted one.
fn candidates(folder: &Path, flat: bool, wanted: &PdbIdentity) -> Vec<PathBuf> {
    let mut files = named(folder, flat, &wanted.name, &wanted.to_string());
    if let Some((_, Pointer::Path(to))) = pointer(folder, wanted) {
        files.extend(Some(to).filter(|to| to.is_file()));
    }
    files
}

/// What `file.ptr` of a store says.
enum Pointer {
    /// Where the file is.
    Path(PathBuf),
    /// Something for people, or nothing that can be read.
    Other(String),
}

/// The wanted file's `file.ptr` in a store, and what it says.
fn pointer(folder: &Path, wanted: &PdbIdentity) -> Option<(PathBuf, Pointer)> {
    let key = child(&child(folder, &wanted.name)?, &wanted.to_string())?;
    let file = child(&key, "file.ptr")?;
    let mut bytes = Vec::new();
    // Whoever wrote it wrote one line.
    let read = File::open(&file).and_then(|file| file.take(MAX_POINTER).read_to_end(&mut bytes));
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().next().unwrap_or_default().trim_start_matches('\u{feff}').trim();
    let pointer = match (read, line.strip_prefix("PATH:")) {
        (Err(error), _) => Pointer::Other(error.to_string()),
        (Ok(_), Some(path)) => Pointer::Path(path.trim().into()),
        (Ok(_), None) => Pointer::Other(line.strip_prefix("MSG:").unwrap_or(line).trim().to_owned()),
    };
    Some((file, pointer))
}

/// `NAME.pd_` in a store, if that is what it has.
fn compressed(folder: &Path, wanted: &PdbIdentity) -> Option<PathBuf> {
    let mut name = wanted.name.clone();
    name.pop()?;
    name.push('_');
    child(&child(&child(folder, &wanted.name)?, &wanted.to_string())?, &name)
}

/// `folder/name`, or the entry whose name differs in case only: stores are written on Windows.
pub(super) fn child(folder: &Path, name: &str) -> Option<PathBuf> {
    let exact = folder.join(name);
    if exact.exists() {
        return Some(exact);
    }
    let entries = std::fs::read_dir(folder).ok()?;
    let same = |entry: &std::fs::DirEntry| {
        entry.file_name().to_str().is_some_and(|found| found.eq_ignore_ascii_case(name))
    };
    entries.flatten().find(same).map(|entry| entry.path())
}
