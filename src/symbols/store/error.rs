//! Why a symbol file was not found, place by place.

use std::fmt;
use std::path::PathBuf;

use super::path::MICROSOFT_SERVER;
use crate::output::Escaped;
use crate::symbols::error::SymbolError;
use crate::symbols::identity::PdbIdentity;

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
    /// Where Microsoft's public server has the file, if it is one of Windows' own.
    #[must_use]
    pub fn url(&self) -> String {
        url_of(MICROSOFT_SERVER, &self.wanted)
    }

    /// True if the user broke the search off.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.tried.iter().any(|attempt| matches!(attempt.miss, Miss::Fetch(FetchError::Interrupted)))
    }

    fn sentence(&self) -> String {
        let Self { wanted, tried } = self;
        let mut text = format!("no symbols for {} (identity {wanted})", Escaped(&wanted.name));
        if !wanted.has_file_name() {
            text.push_str(": the image's record of its PDB holds no file name");
        } else if tried.is_empty() {
            text.push_str(": the symbol path is empty; give one with -y, _NT_SYMBOL_PATH or .sympath");
        }
        for Attempt { place, miss } in tried {
            text.push_str(&format!("\n  {place}: {miss}"));
        }
        let was_asked = tried.iter().any(|attempt| matches!(attempt.miss, Miss::Fetch(_)));
        if wanted.has_file_name() && !was_asked {
            text.push_str(&format!(
                "\n  Windows' own files are at {}; .symfix and .reload fetch them",
                self.url()
            ));
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
    pub(super) fn new(place: impl fmt::Display, miss: Miss) -> Self {
        Self { place: place.to_string(), miss }
    }
}

/// Why a place did not have the wanted file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
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
    /// A store has the file only as `NAME.pd_`.
    #[error("a compressed cabinet, as symstore /compress writes it; expand it to {0} beside it")]
    Compressed(String),
    /// A store has a pointer to it, and nothing is there.
    #[error("points to {}, and no such file is there from here", Escaped(.0))]
    PointsNowhere(String),
    /// A store has something to say instead of it.
    #[error("the store has no file, but says: {}", Escaped(.0))]
    Message(String),
    /// A server did not give it.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

/// Why a server did not give a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// It does not have it.
    #[error("the server has no such file (status {0})")]
    Absent(u16),
    /// It refuses, or has a fault of its own.
    #[error("the server answered with status {status} to {tries} request{}", plural(*tries))]
    Status {
        /// HTTP status of the last answer.
        status: u16,
        /// Requests made.
        tries: u32,
    },
    /// The transfer broke each time.
    #[error("the transfer broke off after {received:#x} bytes, at try {tries}: {reason}")]
    Broken {
        /// Bytes that were there at the last break.
        received: u64,
        /// Requests made.
        tries: u32,
        /// What the network said.
        reason: String,
    },
    /// No connection, or no answer.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// It may be somebody else: nothing was asked of it.
    #[error(
        "its certificate is not to be trusted: {0}; where a proxy inspects TLS, this machine has to trust the proxy's \
         root certificate (SSL_CERT_FILE may name it)"
    )]
    Certificate(String),
    /// An earlier file was not to be had for this reason; nothing was sent for this one.
    #[error("not asked, since it did not answer before ({0}); .reload asks again")]
    NotAsked(String),
    /// The file is larger than any symbol file should be.
    #[error("the file has more than {0:#x} bytes, refused")]
    TooLarge(u64),
    /// What arrived is no symbol file of the wanted build.
    #[error("what the server gave was refused: {0}")]
    Refused(String),
    /// What arrived cannot be kept.
    #[error("cannot write {}: {reason}", path.display())]
    Store {
        /// Folder or file.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// The program cannot ask servers at all.
    #[error("this program was built without symbol servers; build it with the feature `servers`")]
    NotBuiltIn,
    /// The user gave up.
    #[error("interrupted")]
    Interrupted,
}

const fn plural(count: u32) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Where `server` has a file: `SERVER/ntkrnlmp.pdb/339E74133576439CBCDF7E0229DA37731/ntkrnlmp.pdb`.
pub(super) fn url_of(server: &str, wanted: &PdbIdentity) -> String {
    let name = percent_encoded(&wanted.name);
    format!("{server}/{name}/{wanted}/{name}")
}

/// A file name as one segment of a URL.
fn percent_encoded(name: &str) -> String {
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                segment.push(char::from(byte));
            }
            _ => segment.push_str(&format!("%{byte:02X}")),
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbols::Guid;

    #[test]
    fn a_name_cannot_leave_its_segment_of_the_url() {
        let wanted = PdbIdentity { name: "a b/..%2f?#é.pdb".into(), guid: Guid([7; 16]), age: 0x1f };
        assert_eq!(
            url_of("https://s", &wanted),
            "https://s/a%20b%2F..%252f%3F%23%C3%A9.pdb/070707070707070707070707070707071F/\
             a%20b%2F..%252f%3F%23%C3%A9.pdb"
        );
    }
}
