//! ISF files in folders: found by what is in them, and by their name where it says that.
//!
//! ```text
//!  DIR/ntkrnlmp.pdb/GUID-AGE.json.xz            as volatility3 keeps them; also below DIR/windows
//!  DIR/ntkrnlmp-GUID-AGE.json.xz
//!  DIR/anything.json[.xz|.gz]                   read, unless its name holds another GUID
//! ```

use std::collections::HashMap;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::error::{Attempt, Miss};
use super::folder::child;
use crate::symbols::identity::{Guid, PdbIdentity};
use crate::symbols::isf::{self, IsfSymbols};
use crate::symbols::symbol::Symbols;

const ENDINGS: [&str; 3] = [".json", ".json.xz", ".json.gz"];
/// Most files of a folder whose names are looked at.
const MAX_NAMES: usize = 0x1_0000;
/// Most files of a folder that are read for their identity.
const MAX_READ: usize = 0x100;

/// Identities of files that were read for them, so that each is read once.
#[derive(Debug, Default)]
pub(super) struct IsfFiles(Mutex<HashMap<PathBuf, Known>>);

#[derive(Clone, Debug)]
struct Known {
    /// Length and time of the last change say whether the file is still the one that was read.
    metadata: Metadata,
    /// Nothing if the file is no ISF file of a Windows module.
    identity: Option<PdbIdentity>,
}

impl IsfFiles {
    /// The wanted module's ISF file in `folder`.
    pub(super) fn load(
        &self,
        folder: &Path,
        wanted: &PdbIdentity,
        tried: &mut Vec<Attempt>,
    ) -> Option<Arc<dyn Symbols>> {
        let (by_name, others) = candidates(folder, wanted);
        let is_wanted = |file: &PathBuf| self.identity(file).is_some_and(|found| found.same_build(wanted));
        for file in by_name.into_iter().chain(others.into_iter().filter(is_wanted)) {
            match IsfSymbols::open(&file) {
                Ok(symbols) if symbols.identity().same_build(wanted) => return Some(Arc::new(symbols)),
                Ok(symbols) => {
                    let miss = Miss::OtherBuild(symbols.identity().clone());
                    tried.push(Attempt::new(file.display(), miss));
                }
                Err(error) => tried.push(Attempt::new(file.display(), Miss::Unreadable(error))),
            }
        }
        None
    }

    /// What [`load`](Self::load) would meet, found out without reading any file whole.
    pub(super) fn look(&self, folder: &Path, wanted: &PdbIdentity) -> Look {
        let (by_name, others) = candidates(folder, wanted);
        for file in by_name.into_iter().chain(others) {
            match isf::indexed(&file).map(Some).or_else(|| self.known(&file)) {
                Some(Some(found)) if found.same_build(wanted) => {
                    return if isf::indexed(&file).is_some() { Look::Indexed } else { Look::Unread };
                }
                Some(_) => {}
                None => return Look::Unread,
            }
        }
        Look::Absent
    }

    /// True if `folder` has such files of any module, or folders for them.
    pub(super) fn has_any(folder: &Path) -> bool {
        let is_of_module = |folder: &Path| folder.is_dir() && names(folder).next().is_some();
        let folders = std::fs::read_dir(folder).into_iter().flatten().flatten().take(MAX_NAMES);
        names(folder).next().is_some()
            || child(folder, "windows").is_some()
            || folders.map(|entry| entry.path()).any(|folder| is_of_module(&folder))
    }

    fn identity(&self, file: &Path) -> Option<PdbIdentity> {
        if let Some(known) = self.known(file) {
            return known;
        }
        let metadata = file.metadata().ok()?;
        // All of it is read for the identity alone: then its index is made of it, and nobody has to do so again.
        let identity = IsfSymbols::open(file).ok().map(|symbols| symbols.identity().clone());
        let known = Known { metadata, identity: identity.clone() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(file.to_owned(), known);
        identity
    }

    /// What `file` was found to be.
    fn known(&self, file: &Path) -> Option<Option<PdbIdentity>> {
        let metadata = file.metadata().ok()?;
        let version = |metadata: &Metadata| (metadata.len(), metadata.modified().ok());
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get(file).filter(|known| version(&known.metadata) == version(&metadata))?;
        Some(known.identity.clone())
    }
}

/// Where the wanted module's ISF file is, as far as that is known without reading files whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// No file can be it.
    Absent,
    /// In a file that has an index: it answers at once.
    Indexed,
    /// Perhaps in a file that has to be read whole.
    Unread,
}

/// Files of `folder` whose names say that they may be the wanted module's, and those whose names say nothing.
fn candidates(folder: &Path, wanted: &PdbIdentity) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let mut by_name: Vec<_> = named(folder, wanted).into_iter().collect();
    let mut others = Vec::new();
    for (path, name) in names(folder) {
        match guid_in(&name) {
            Some(guid) if guid == wanted.guid => by_name.push(path),
            Some(_) => {}
            None => others.push(path),
        }
    }
    others.sort();
    others.truncate(MAX_READ);
    (by_name, others)
}

/// The ISF files in `folder` by their endings, and their names in lower case.
fn names(folder: &Path) -> impl Iterator<Item = (PathBuf, String)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().take(MAX_NAMES);
    let named = entries.map(|entry| (entry.path(), entry.file_name().to_string_lossy().to_ascii_lowercase()));
    named.filter(|(_, name)| ENDINGS.iter().any(|ending| name.ends_with(ending)))
}

/// The file where volatility3 keeps it, if it is there.
fn named(folder: &Path, wanted: &PdbIdentity) -> Option<PathBuf> {
    let with_windows = child(folder, "windows");
    let of_module = |folder: &Path| child(folder, &wanted.name);
    let folders = of_module(folder).into_iter().chain(with_windows.as_deref().and_then(of_module));
    let mut files = folders.flat_map(|folder| {
        let name = format!("{}-{:X}", wanted.guid, wanted.age);
        ENDINGS.into_iter().filter_map(move |ending| child(&folder, &format!("{name}{ending}")))
    });
    files.next()
}

/// The GUID that a file name holds between hyphens: `ntkrnlmp-339e..73-1.json.xz`.
fn guid_in(name: &str) -> Option<Guid> {
    name.split(['-', '.', '_']).find_map(|word| word.parse().ok())
}
