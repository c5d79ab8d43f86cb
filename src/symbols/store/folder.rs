//! Symbol files in folders.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{Attempt, Miss};
use crate::symbols::pdb::PdbFile;
use crate::symbols::{PdbIdentity, Symbols};

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
        tried.push(match compressed(folder, wanted) {
            Some(file) => Attempt::new(file.display(), Miss::Compressed(wanted.name.clone())),
            None => Attempt::new(folder.display(), Miss::Absent),
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

/// Files that may be the wanted one.
fn candidates(folder: &Path, flat: bool, wanted: &PdbIdentity) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let named = child(folder, &wanted.name);
    if let Some(file) = named.as_ref().filter(|path| flat && path.is_file()) {
        files.push(file.clone());
    }
    let in_store = named.and_then(|name| child(&name, &wanted.to_string()));
    files.extend(in_store.and_then(|key| child(&key, &wanted.name)));
    files
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
