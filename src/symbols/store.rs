//! Finds the symbol file of a build on a symbol path.
//!
//! The path is WinDbg's: parts separated by `;`, tried in order.
//!
//! ```text
//!  DIR                    DIR\name.pdb, else the store layout below
//!  srv*A*B*https://...    stores A and B, then a server
//!  symsrv*symsrv.dll*A*.. the same
//!  cache*DIR              a store, for everything after it
//!
//!  store layout: DIR\ntkrnlmp.pdb\339E74133576439CBCDF7E0229DA37731\ntkrnlmp.pdb
//! ```
//! A file is used only if its identity is the wanted one; what was found instead, and where, is reported. Servers are
//! recognised and reported, not asked: this version has no network access.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::pdb::PdbFile;
use super::{PdbIdentity, SymbolError, Symbols};

/// A parsed symbol path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SymbolPath {
    places: Vec<Place>,
}

/// One place where symbol files may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A folder with symbol files in it, or in the store layout.
    Folder(PathBuf),
    /// A folder in the store layout.
    Store(PathBuf),
    /// A symbol server.
    Server(String),
}

impl SymbolPath {
    /// Reads a path such as `srv*~/symbols*https://msdl.microsoft.com/download/symbols;./build`.
    ///
    /// Anything can be a folder name, so nothing is refused here.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut places = Vec::new();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let mut words = part.split('*').map(str::trim);
            let first = words.next().unwrap_or_default();
            match first.to_ascii_lowercase().as_str() {
                "srv" | "cache" => places.extend(words.filter_map(store)),
                // The second word names the library that serves, which is this program.
                "symsrv" => places.extend(words.skip(1).filter_map(store)),
                _ if is_url(first) => places.push(Place::Server(first.to_owned())),
                _ => places.push(Place::Folder(first.into())),
            }
        }
        Self { places }
    }

    /// The places, in the order in which they are tried.
    #[must_use]
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Finds and reads the symbol file of `wanted`.
    ///
    /// # Errors
    /// [`NotFound`], with what each place had instead.
    pub fn load(&self, wanted: &PdbIdentity) -> Result<Arc<dyn Symbols>, NotFound> {
        let mut tried = Vec::new();
        if wanted.has_file_name() {
            for place in &self.places {
                match place {
                    Place::Server(url) => tried.push(Attempt::new(url.clone(), Miss::NotFetched)),
                    Place::Folder(folder) | Place::Store(folder) => {
                        let mut any = false;
                        for file in candidates(place, folder, wanted) {
                            any = true;
                            match read(&file, wanted) {
                                Ok(symbols) => return Ok(symbols),
                                Err(miss) => tried.push(Attempt::new(file.display(), miss)),
                            }
                        }
                        if !any {
                            tried.push(Attempt::new(folder.display(), Miss::Absent));
                        }
                    }
                }
            }
        }
        Err(NotFound { wanted: wanted.clone(), tried })
    }
}

impl fmt::Display for SymbolPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, place) in self.places.iter().enumerate() {
            f.write_str(if index > 0 { ";" } else { "" })?;
            match place {
                Place::Folder(folder) => write!(f, "{}", folder.display()),
                Place::Store(folder) => write!(f, "srv*{}", folder.display()),
                Place::Server(url) => write!(f, "srv*{url}"),
            }?;
        }
        Ok(())
    }
}

/// No place on the path has the symbol file of a build.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.sentence())]
pub struct NotFound {
    /// The build.
    pub wanted: PdbIdentity,
    /// What was tried, in order.
    pub tried: Vec<Attempt>,
}

impl NotFound {
    fn sentence(&self) -> String {
        let Self { wanted, tried } = self;
        let mut text = format!("no symbols for {} (identity {wanted})", wanted.name.escape_debug());
        if !wanted.has_file_name() {
            text.push_str(": the image's record of its PDB holds no file name");
        } else if tried.is_empty() {
            text.push_str(": the symbol path is empty; give one with -y or _NT_SYMBOL_PATH");
        }
        for Attempt { place, miss } in tried {
            text.push_str(&format!("\n  {place}: {miss}"));
        }
        text
    }
}

/// One place that did not have the file.
#[derive(Debug)]
pub struct Attempt {
    /// Folder, file or URL.
    pub place: String,
    /// Why not.
    pub miss: Miss,
}

impl Attempt {
    fn new(place: impl fmt::Display, miss: Miss) -> Self {
        Self { place: place.to_string(), miss }
    }
}

/// Why a place did not have the wanted file.
#[derive(Debug, thiserror::Error)]
pub enum Miss {
    /// No file of that name.
    #[error("no such file")]
    Absent,
    /// A file of that name belongs to another build.
    #[error("belongs to another build (identity {0}), refused")]
    OtherBuild(PdbIdentity),
    /// A file of that name cannot be read.
    #[error(transparent)]
    Unreadable(SymbolError),
    /// A server.
    #[error("not fetched (no network access in this version)")]
    NotFetched,
}

/// A part of `srv*` or `cache*`; an empty one stands for WinDbg's own default store, which does not exist here.
fn store(word: &str) -> Option<Place> {
    match word {
        "" => None,
        url if is_url(url) => Some(Place::Server(url.to_owned())),
        folder => Some(Place::Store(folder.into())),
    }
}

fn is_url(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    lower.starts_with("http://") || lower.starts_with("https://")
}

/// Files in `folder` that may be the wanted one.
fn candidates(place: &Place, folder: &Path, wanted: &PdbIdentity) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let named = child(folder, &wanted.name);
    if let Some(file) = named.as_ref().filter(|path| matches!(place, Place::Folder(_)) && path.is_file()) {
        files.push(file.clone());
    }
    let in_store = named.and_then(|name| child(&name, &wanted.to_string()));
    files.extend(in_store.and_then(|key| child(&key, &wanted.name)));
    files
}

/// `folder/name`, or the entry whose name differs in case only: stores are written on Windows.
fn child(folder: &Path, name: &str) -> Option<PathBuf> {
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

fn read(file: &Path, wanted: &PdbIdentity) -> Result<Arc<dyn Symbols>, Miss> {
    let pdb = PdbFile::open(file).map_err(Miss::Unreadable)?;
    if !pdb.identity().same_build(wanted) {
        return Err(Miss::OtherBuild(pdb.identity().clone()));
    }
    let symbols = pdb.load().map_err(Miss::Unreadable)?;
    Ok(Arc::new(symbols))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbols::Guid;

    fn wanted() -> PdbIdentity {
        PdbIdentity::new("myfault.pdb", Guid([7; 16]), 1)
    }

    #[test]
    fn a_path_is_read_as_windbg_reads_it() {
        let path = r"srv*C:\symbols*https://msdl.microsoft.com/download/symbols; /build ;;cache*/c;symsrv*symsrv.dll*/s";
        let places = SymbolPath::parse(path).places;
        let server = Place::Server("https://msdl.microsoft.com/download/symbols".into());
        assert_eq!(
            places,
            [
                Place::Store(r"C:\symbols".into()),
                server,
                Place::Folder("/build".into()),
                Place::Store("/c".into()),
                Place::Store("/s".into()),
            ]
        );
    }

    #[test]
    fn an_empty_path_says_how_to_give_one() {
        let error = SymbolPath::default().load(&wanted()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no symbols for myfault.pdb (identity 070707070707070707070707070707071): the symbol path is empty; \
             give one with -y or _NT_SYMBOL_PATH"
        );
    }

    #[test]
    fn every_place_that_was_tried_is_named() {
        let path = SymbolPath::parse("/nowhere/at/all;srv*https://symbols.example/x");
        let text = path.load(&wanted()).unwrap_err().to_string();
        assert!(text.contains("\n  /nowhere/at/all: no such file"), "{text}");
        assert!(
            text.ends_with("\n  https://symbols.example/x: not fetched (no network access in this version)")
        );
    }

    #[test]
    fn a_hostile_name_is_never_looked_for() {
        let wanted = PdbIdentity { name: "../../etc/passwd".into(), ..wanted() };
        let error = SymbolPath::parse("/").load(&wanted).unwrap_err();
        assert!(error.tried.is_empty());
        assert!(error.to_string().ends_with("the image's record of its PDB holds no file name"));
    }
}
