//! Where a KDNET key comes from: the command line, a file, the environment. It never goes anywhere from here: no error,
//! no `Debug` text has it.
//!
//! | written | what it is |
//! |---|---|
//! | `W.X.Y.Z` | the key itself, which every user of this machine can read in its list of processes |
//! | `@FILE` | a file that holds it, and that nobody but its owner may read |
//! | nothing | the environment variable `VERIKD_KEY` |

use std::convert::Infallible;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use kd_protocol::kdnet::{Key, KeyError};
use zeroize::Zeroizing;

/// The environment variable that a key is taken from when none is written.
pub const KEY_VARIABLE: &str = "VERIKD_KEY";

/// A key has 55 characters at the most; a file with much more is another one.
const MAX_FILE_LEN: u64 = 4096;

/// A key as it was written, `W.X.Y.Z` or `@FILE`, or a text that holds one, as connection strings do: not read yet. `Debug`
/// writes `KeyText(..)`; wiped on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyText(Zeroizing<String>);

/// Where a key was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOrigin {
    /// On the command line: every user of this machine can read it there.
    CommandLine,
    /// In a file that only its owner may read.
    File,
    /// In [`KEY_VARIABLE`].
    Environment,
}

/// Why there is no key. Never says what was written as one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeySourceError {
    /// It was found, and is none.
    #[error("{0}")]
    Key(KeyError),
    /// The same in the environment.
    #[error("{KEY_VARIABLE}: {0}")]
    Variable(KeyError),
    /// The variable is not text.
    #[error("{KEY_VARIABLE} is not text; set it to the key, like 1.2.3.4")]
    VariableNotText,
    /// The same in a file.
    #[error("the key in {}: {error}", path.display())]
    InFile {
        /// The file that was named.
        path: PathBuf,
        /// What is wrong with it.
        error: KeyError,
    },
    /// The file cannot be read.
    #[error("cannot read a key from {}: {error}", path.display())]
    File {
        /// The file that was named.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Others may read the file.
    #[error(
        "the key in {} is refused, since others can read that file (mode {mode:03o}): chmod 600 {}",
        path.display(), path.display()
    )]
    Exposed {
        /// The file that was named.
        path: PathBuf,
        /// Its permission bits, as chmod takes them.
        mode: u32,
    },
    /// The file is none that holds a key.
    #[error("{} holds no key: it should have one line, like 1.2.3.4", .0.display())]
    NoKey(PathBuf),
    /// Neither written nor in the environment.
    #[error(
        "there is no key; set {KEY_VARIABLE}, or write key=@FILE or key=W.X.Y.Z (--key where that is the option). \
         `bcdedit /dbgsettings` on the target shows it"
    )]
    Missing,
}

impl KeyText {
    /// Takes what was written as a key.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }

    /// What was written. Not to be printed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads the key, from its file if it names one.
    ///
    /// # Errors
    /// [`KeySourceError`].
    pub fn read(&self) -> Result<(Key, KeyOrigin), KeySourceError> {
        match self.0.trim().strip_prefix('@') {
            Some(path) => Ok((from_file(Path::new(path))?, KeyOrigin::File)),
            None => {
                let key = self.0.trim().parse().map_err(KeySourceError::Key)?;
                Ok((key, KeyOrigin::CommandLine))
            }
        }
    }
}

impl FromStr for KeyText {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self::new(text))
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyText(..)")
    }
}

/// The key that was `written`, or else the one in [`KEY_VARIABLE`].
///
/// # Errors
/// [`KeySourceError`]; [`KeySourceError::Missing`] if there is neither.
pub fn find(written: Option<&KeyText>) -> Result<(Key, KeyOrigin), KeySourceError> {
    let Some(written) = written else {
        return match std::env::var(KEY_VARIABLE).map(Zeroizing::new) {
            Ok(text) if text.trim().is_empty() => Err(KeySourceError::Missing),
            Ok(text) => {
                let key = text.trim().parse().map_err(KeySourceError::Variable)?;
                Ok((key, KeyOrigin::Environment))
            }
            Err(std::env::VarError::NotPresent) => Err(KeySourceError::Missing),
            Err(std::env::VarError::NotUnicode(_)) => Err(KeySourceError::VariableNotText),
        };
    };
    written.read()
}

fn from_file(path: &Path) -> Result<Key, KeySourceError> {
    let failed = |error| KeySourceError::File { path: path.to_owned(), error };
    let file = File::open(path).map_err(failed)?;
    // Asked of the open file, so that nobody can put another one in its place in between.
    if let Some(mode) = exposing_mode(&file).map_err(failed)? {
        return Err(KeySourceError::Exposed { path: path.to_owned(), mode });
    }
    // One that grows while it is read would leave copies behind that nobody wipes.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILE_LEN as usize + 1));
    file.take(MAX_FILE_LEN + 1).read_to_end(&mut text).map_err(failed)?;
    let no_key = || KeySourceError::NoKey(path.to_owned());
    let line = std::str::from_utf8(&text).map_err(|_| no_key())?.trim();
    if line.is_empty() || line.lines().count() > 1 || text.len() as u64 > MAX_FILE_LEN {
        return Err(no_key());
    }
    line.parse().map_err(|error| KeySourceError::InFile { path: path.to_owned(), error })
}

/// The file's permissions, if its group or others may read it.
#[cfg(unix)]
fn exposing_mode(file: &File) -> io::Result<Option<u32>> {
    use std::os::unix::fs::PermissionsExt;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    Ok((mode & 0o044 != 0).then_some(mode))
}

/// Who may read a file is not looked up on this system.
#[cfg(not(unix))]
fn exposing_mode(_file: &File) -> io::Result<Option<u32>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_in_no_debug_text_and_in_no_error() {
        let text = KeyText::new("7hidden.2.3");
        assert_eq!(format!("{text:?}"), "KeyText(..)");
        let error = text.read().unwrap_err();
        assert!(error.to_string().contains("this one has 3"), "{error}");
        assert!(!format!("{error} {error:?}").contains("hidden"));
    }

    #[test]
    #[cfg(unix)]
    fn a_key_file_that_others_can_read_is_refused_with_what_to_do() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "1.2.3.4\n").unwrap();
        let text = KeyText::new(&format!("@{}", path.display()));
        for mode in [0o640, 0o604, 0o644] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let error = text.read().unwrap_err().to_string();
            assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let (key, origin) = text.read().unwrap();
        assert_eq!((key, origin), ("1.2.3.4".parse().unwrap(), KeyOrigin::File));
    }

    #[test]
    #[cfg(unix)]
    fn a_file_without_a_key_is_named_and_not_shown() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let error_of = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            KeyText::new(&format!("@{}", path.display())).read().unwrap_err().to_string()
        };
        for content in [&b""[..], b" \n", b"1.2.3.4\n5.6.7.8\n", b"\xff\xfe1.2", &[b'1'; 5000]] {
            let error = error_of(content);
            assert!(error.contains("holds no key") && error.contains("/key"), "{error}");
        }
        let error = error_of(b"1.2.hidden!.4");
        assert!(error.contains("part 3") && !error.contains("hidden"), "{error}");
        let missing = KeyText::new("@/no/such/file").read().unwrap_err().to_string();
        assert!(missing.contains("/no/such/file"), "{missing}");
    }
}
