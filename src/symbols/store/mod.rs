//! Finds the symbol file of a build on a symbol path.
//!
//! The path is WinDbg's: parts separated by `;`, tried in order.
//!
//! ```text
//!  DIR                    DIR\name.pdb, the store layout below, or ISF files
//!  srv*A*B*https://...    stores A and B, then a server, whose file is kept in A
//!  srv*https://...        a server, whose file is kept in the store of a cache* before it, or the default one
//!  srv*                   the default store, then Microsoft's server
//!  symsrv*symsrv.dll*A*.. as srv*A*..
//!  cache*DIR              a store; keeps what servers after it give
//!
//!  store layout: DIR\ntkrnlmp.pdb\339E74133576439CBCDF7E0229DA37731\ntkrnlmp.pdb
//! ```
//! A file is used only if its identity is the wanted one; what was found instead, and where, is reported. Nothing goes
//! over the network unless a server is on the path.

mod error;
mod folder;
mod isf;
mod limits;
mod path;
mod server;
#[cfg_attr(not(feature = "servers"), path = "no_transfer.rs")]
mod transfer;
mod watch;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use error::{Attempt, FetchError, Miss, NotFound};
pub use limits::Limits;
pub use path::{MICROSOFT_SERVER, Part, Store, SymbolPath};
pub use watch::{Unwatched, Watch};

pub use crate::symbols::default_store::default_store;

use self::isf::{IsfFiles, Look};
use self::server::Servers;
use super::identity::{ImageIdentity, PdbIdentity};
use super::image_file::ImageFile;
use super::symbol::Symbols;
use crate::output::Escaped;

/// Where symbols come from in one session: a path that can change, and what its servers have said so far.
pub struct SymbolSource {
    path: Mutex<SymbolPath>,
    servers: Servers,
    isf_files: IsfFiles,
    watch: Arc<dyn Watch>,
    /// What was found on this path: a file of the same identity holds the same, whoever asks for it and in whichever boot.
    found: Mutex<HashMap<PdbIdentity, Arc<dyn Symbols>>>,
    is_noisy: AtomicBool,
    /// Counts the changes after which something missing may be found.
    generation: AtomicU64,
}

impl SymbolSource {
    /// Looks on `path`, in silence.
    #[must_use]
    pub fn new(path: SymbolPath) -> Self {
        Self::watched(path, Limits::default(), Box::new(Unwatched))
    }

    /// Looks on `path`; `watch` is told how it goes.
    #[must_use]
    pub fn watched(path: SymbolPath, limits: Limits, watch: Box<dyn Watch>) -> Self {
        Self {
            path: Mutex::new(path),
            servers: Servers::new(limits),
            isf_files: IsfFiles::default(),
            watch: watch.into(),
            found: Mutex::default(),
            is_noisy: AtomicBool::new(false),
            generation: AtomicU64::new(0),
        }
    }

    /// Where it looks.
    #[must_use]
    pub fn path(&self) -> SymbolPath {
        self.path.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks elsewhere from here on, also for what was missing.
    pub fn set_path(&self, path: SymbolPath) {
        *self.path.lock().unwrap_or_else(PoisonError::into_inner) = path;
        self.look_again(false);
    }

    /// Looks again, also for what was found, which may have been replaced by a file that says more: servers that did not answer are asked again, and those that did not have a
    /// file too if `ask_all`.
    pub fn look_again(&self, ask_all: bool) {
        self.servers.forget(ask_all);
        self.found().clear();
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// A number that changes whenever something missing may be found.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// True if every step of a search is told.
    #[must_use]
    pub fn is_noisy(&self) -> bool {
        self.is_noisy.load(Ordering::Relaxed)
    }

    /// Tells every step of a search, or none.
    pub fn set_noisy(&self, is_noisy: bool) {
        self.is_noisy.store(is_noisy, Ordering::Relaxed);
    }

    fn found(&self) -> MutexGuard<'_, HashMap<PdbIdentity, Arc<dyn Symbols>>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds and reads the symbol file of `wanted`, once.
    ///
    /// # Errors
    /// [`NotFound`], with what each place had instead.
    pub fn load(&self, wanted: &PdbIdentity) -> Result<Arc<dyn Symbols>, NotFound> {
        let mut tried = Vec::new();
        let known = self.found().get(wanted).cloned();
        let found = known.or_else(|| self.search(wanted, true, &mut tried));
        if self.is_noisy() {
            for Attempt { place, miss } in &tried {
                self.watch.step(&format!("SYMSRV:  {place} - {miss}"));
            }
            self.watch.step(&match found.as_ref().map(|symbols| symbols.path()) {
                Some(Some(path)) => format!("DBGHELP: {} - {}", Escaped(&wanted.name), path.display()),
                Some(None) => format!("DBGHELP: {} - loaded", Escaped(&wanted.name)),
                None => format!("DBGHELP: {} {wanted} - not found", Escaped(&wanted.name)),
            });
        }
        found.ok_or_else(|| NotFound { wanted: wanted.clone(), tried })
    }

    /// The file of an image, if a folder of the path has it; no server is asked.
    #[must_use]
    pub fn image(&self, wanted: &ImageIdentity) -> Option<ImageFile> {
        if !wanted.has_file_name() {
            return None;
        }
        let path = self.path();
        let mut folders = Vec::new();
        for part in path.parts() {
            match part {
                Part::Folder(folder) => folders.push((folder.clone(), true)),
                Part::Cache(folder) => folders.push((folder.clone(), false)),
                Part::Chain(stores) => folders.extend(stores.iter().map(|store| match store {
                    Store::Folder(folder) => (folder.clone(), false),
                    Store::Server(_) => (default_store(), false),
                })),
            }
        }
        let files = folders.iter().flat_map(|(folder, flat)| folder::images(folder, *flat, wanted));
        files.into_iter().find_map(|file| ImageFile::open(&file, wanted))
    }

    /// True if finding `wanted` would mean asking a server: better done while the target runs.
    #[must_use]
    pub fn has_to_fetch(&self, wanted: &PdbIdentity) -> bool {
        wanted.has_file_name()
            && self.asks_servers()
            && !self.found().contains_key(wanted)
            && self.search(wanted, false, &mut Vec::new()).is_none()
    }

    /// True if `wanted` may be in an ISF file without an index, all of which has to be read for the first answer, and in no
    /// other file before it on the path: better done while the target runs.
    #[must_use]
    pub fn has_to_parse(&self, wanted: &PdbIdentity) -> bool {
        if !wanted.has_file_name() || self.found().contains_key(wanted) {
            return false;
        }
        for part in self.path().parts() {
            let Part::Folder(folder) = part else { continue };
            if folder::load(folder, true, wanted, &mut Vec::new()).is_some() {
                return false;
            }
            match self.isf_files.look(folder, wanted) {
                Look::Absent => {}
                Look::Indexed => return false,
                Look::Unread => return true,
            }
        }
        false
    }

    /// True if a folder of the path has ISF files.
    #[must_use]
    pub fn has_isf(&self) -> bool {
        let has = |part: &Part| matches!(part, Part::Folder(folder) if IsfFiles::has_any(folder));
        self.path().parts().iter().any(has)
    }

    /// True if a server is on the path.
    #[must_use]
    pub fn asks_servers(&self) -> bool {
        let is_server = |store: &Store| matches!(store, Store::Server(_));
        let has_servers = |part: &Part| matches!(part, Part::Chain(stores) if stores.iter().any(is_server));
        self.path().parts().iter().any(has_servers)
    }

    /// Looks along the path, and keeps what it finds.
    fn search(
        &self,
        wanted: &PdbIdentity,
        ask_servers: bool,
        tried: &mut Vec<Attempt>,
    ) -> Option<Arc<dyn Symbols>> {
        if !wanted.has_file_name() {
            return None;
        }
        let generation = self.generation();
        let found = self.search_path(wanted, ask_servers, tried)?;
        // A path that was changed meanwhile may not have it.
        if self.generation() == generation {
            self.found().insert(wanted.clone(), Arc::clone(&found));
        }
        Some(found)
    }

    fn search_path(
        &self,
        wanted: &PdbIdentity,
        ask_servers: bool,
        tried: &mut Vec<Attempt>,
    ) -> Option<Arc<dyn Symbols>> {
        let path = self.path();
        let mut cache: Option<&Path> = None;
        for part in path.parts() {
            let found = match part {
                Part::Folder(folder) => folder::load(folder, true, wanted, tried)
                    .or_else(|| self.isf_files.load(folder, wanted, tried)),
                Part::Cache(folder) => {
                    cache.get_or_insert(folder);
                    folder::load(folder, false, wanted, tried)
                }
                Part::Chain(stores) => self.search_chain(stores, cache, wanted, ask_servers, tried),
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// The stores of an `srv*` chain; what a server gives is kept in the first folder before it.
    fn search_chain(
        &self,
        stores: &[Store],
        cache: Option<&Path>,
        wanted: &PdbIdentity,
        ask_servers: bool,
        tried: &mut Vec<Attempt>,
    ) -> Option<Arc<dyn Symbols>> {
        let mut keep: Option<PathBuf> = None;
        for store in stores {
            match store {
                Store::Folder(folder) => {
                    if let Some(found) = folder::load(folder, false, wanted, tried) {
                        return Some(found);
                    }
                    keep.get_or_insert_with(|| folder.clone());
                }
                Store::Server(url) => {
                    if keep.is_none() {
                        let folder = cache.map_or_else(default_store, Path::to_owned);
                        // A cache was looked into where it stands on the path; the default store stands nowhere.
                        if cache.is_none()
                            && let Some(found) = folder::load(&folder, false, wanted, tried)
                        {
                            return Some(found);
                        }
                        keep = Some(folder);
                    }
                    let folder = keep.as_deref().expect("the lines above have seen to it");
                    if !ask_servers {
                        continue;
                    }
                    let fetched = self.servers.fetch(url, wanted, folder, &self.watch);
                    match fetched.and_then(|file| folder::read(&file, wanted)) {
                        Ok(symbols) => return Some(symbols),
                        Err(miss) => tried.push(Attempt::new(url, miss)),
                    }
                }
            }
        }
        None
    }
}

impl fmt::Debug for SymbolSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SymbolSource")
            .field("path", &self.path)
            .field("servers", &self.servers)
            .field("is_noisy", &self.is_noisy)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl From<SymbolPath> for Arc<SymbolSource> {
    fn from(path: SymbolPath) -> Self {
        Self::new(SymbolSource::new(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbols::Guid;

    fn wanted() -> PdbIdentity {
        PdbIdentity::new("myfault.pdb", Guid([7; 16]), 1)
    }

    fn why_not(path: &str, wanted: &PdbIdentity) -> NotFound {
        SymbolSource::new(SymbolPath::parse(path)).load(wanted).unwrap_err()
    }

    #[test]
    fn an_empty_path_says_how_to_give_one() {
        assert_eq!(
            why_not("", &wanted()).to_string(),
            "no symbols for myfault.pdb (identity 070707070707070707070707070707071): the symbol path is empty; \
             give one with -y, _NT_SYMBOL_PATH or .sympath\n  Windows' own files are at \
             https://msdl.microsoft.com/download/symbols/myfault.pdb/070707070707070707070707070707071/myfault.pdb; \
             .symfix and .reload fetch them"
        );
    }

    #[test]
    fn every_place_that_was_tried_is_named() {
        let text = why_not("/nowhere/at/all;srv*/nor/here", &wanted()).to_string();
        assert!(text.contains("\n  /nowhere/at/all: no such file"), "{text}");
        assert!(text.contains("\n  /nor/here: no such file\n"), "{text}");
    }

    #[test]
    fn a_hostile_name_is_never_looked_for() {
        let wanted = PdbIdentity { name: "../../etc/passwd".into(), ..wanted() };
        let error = why_not("/;srv*/x*http://127.0.0.1:9", &wanted);
        assert!(error.tried.is_empty());
        assert!(error.to_string().ends_with("the image's record of its PDB holds no file name"));
    }

    #[test]
    fn a_store_that_has_only_a_cabinet_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("MyFault.pdb").join(wanted().to_string());
        std::fs::create_dir_all(&key).unwrap();
        std::fs::write(key.join("myfault.pd_"), "MSCF").unwrap();
        let text = why_not(&format!("srv*{}", folder.path().display()), &wanted()).to_string();
        assert!(text.contains("myfault.pd_: a compressed cabinet"), "{text}");
        assert!(text.contains("expand it to myfault.pdb beside it\n"), "{text}");
    }

    #[test]
    fn a_file_is_read_once_until_it_is_looked_for_again() {
        let folder = tempfile::tempdir().unwrap();
        let image = verikd_sim::windows::WINDOWS_7_SP1.images.last().unwrap();
        let file = folder.path().join(image.pdb_file);
        std::fs::write(&file, image.pdb).unwrap();
        let wanted = crate::symbols::pdb::PdbFile::open(&file).unwrap().identity().clone();
        let source = SymbolSource::new(SymbolPath::parse(&folder.path().display().to_string()));
        let first = source.load(&wanted).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(Arc::ptr_eq(&first, &source.load(&wanted).unwrap()));
        source.look_again(false);
        assert!(source.load(&wanted).is_err());
    }
}
