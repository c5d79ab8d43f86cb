//! Fetches symbol files from servers into a store.
//!
//! ```text
//!  SERVER/name/GUIDage/name --> STORE/name/GUIDage/.name.x7Kq2p (whole? of the wanted build?) --rename--> name
//! ```
//! Nothing is at the final name before it is whole and its GUID and age are the wanted ones, so neither a broken
//! transfer nor a lying server leaves anything behind. A transfer that breaks is resumed where the server says that the
//! file is still the same, and begun again elsewhere. What a server does not have is asked once a session.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::{FetchError, Miss, url_of};
use super::limits::Limits;
use super::transfer::Transfers;
use super::watch::Watch;
use crate::symbols::identity::PdbIdentity;
use crate::symbols::pdb::PdbFile;

/// What servers have said in this session.
#[derive(Debug)]
pub(super) struct Servers {
    transfers: Transfers,
    /// Files that are not there, by URL.
    absent: Mutex<HashMap<String, u16>>,
    /// Servers that did not answer, and why.
    silent: Mutex<HashMap<String, String>>,
}

impl Servers {
    pub(super) fn new(limits: Limits) -> Self {
        Self { transfers: Transfers::new(limits), absent: Mutex::default(), silent: Mutex::default() }
    }

    /// Asks again those that did not answer, and what they did not have too if `all`.
    pub(super) fn forget(&self, all: bool) {
        lock(&self.silent).clear();
        if all {
            lock(&self.absent).clear();
        }
    }

    /// Fetches `wanted` from `server` into the store `folder`. Returns the file there.
    pub(super) fn fetch(
        &self,
        server: &str,
        wanted: &PdbIdentity,
        folder: &Path,
        watch: &Arc<dyn Watch>,
    ) -> Result<PathBuf, Miss> {
        let url = url_of(server, wanted);
        if let Some(status) = lock(&self.absent).get(&url) {
            return Err(FetchError::Absent(*status).into());
        }
        if let Some(why) = lock(&self.silent).get(server) {
            return Err(FetchError::NotAsked(why.clone()).into());
        }
        // Who has had enough of one file does not want to wait for the next.
        if watch.is_cancelled() {
            return Err(FetchError::Interrupted.into());
        }
        let key = folder.join(&wanted.name).join(wanted.to_string());
        watch.begins(&url);
        let result = self.fetch_into(&url, wanted, &key, watch);
        watch.ended(&url);
        match &result {
            Err(Miss::Fetch(FetchError::Absent(status))) => {
                lock(&self.absent).insert(url, *status);
            }
            Err(Miss::Fetch(FetchError::NoAnswer(why))) => {
                lock(&self.silent).insert(server.to_owned(), why.clone());
            }
            _ => {}
        }
        if result.is_err() {
            // Only what this made and left empty goes away; a folder with files in it stays.
            let _ = std::fs::remove_dir(&key).and_then(|()| std::fs::remove_dir(folder.join(&wanted.name)));
        }
        result
    }

    fn fetch_into(
        &self,
        url: &str,
        wanted: &PdbIdentity,
        key: &Path,
        watch: &Arc<dyn Watch>,
    ) -> Result<PathBuf, Miss> {
        let keep = |path: &Path, error: io::Error| FetchError::Store {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        std::fs::create_dir_all(key).map_err(|error| keep(key, error))?;
        let part = tempfile::Builder::new()
            .prefix(&format!(".{}.", wanted.name))
            .tempfile_in(key)
            .map_err(|error| keep(key, error))?;
        let same_file = part.as_file().try_clone().map_err(|error| keep(part.path(), error))?;
        self.transfers.run(url, same_file, watch)?;
        check(part.path(), wanted)?;
        let file = key.join(&wanted.name);
        match part.persist(&file) {
            Ok(_) => Ok(file),
            // Another process may have been faster, and its file may be open.
            Err(_) if check(&file, wanted).is_ok() => Ok(file),
            Err(error) => Err(keep(&file, error.error).into()),
        }
    }
}

/// Checks that `file` is whole and the wanted build's.
fn check(file: &Path, wanted: &PdbIdentity) -> Result<(), FetchError> {
    let refused = |what: String| Err(FetchError::Refused(what));
    let mut head = [0; 16];
    let len = File::open(file).and_then(|mut file| file.read(&mut head)).unwrap_or(0);
    let head = &head[..len];
    if head.starts_with(b"MSCF") {
        return refused("a compressed cabinet, as symstore /compress writes it".to_owned());
    }
    let text = head.trim_ascii_start();
    if text.starts_with(b"<") {
        return refused(
            "a web page, not a symbol file; a proxy or a login page may stand before the server".to_owned(),
        );
    }
    match PdbFile::open(file) {
        Ok(pdb) if pdb.identity().same_build(wanted) => Ok(()),
        Ok(pdb) => refused(format!("it belongs to another build (identity {})", pdb.identity())),
        Err(error) => refused(error.what()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
