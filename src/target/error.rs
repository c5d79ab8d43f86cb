//! Why something about the target could not be found out.

use std::fmt;
use std::sync::Arc;

use super::image::ImageError;
use super::patience::is_over;
use crate::memory::{ReadCause, ReadError, WriteError};
use crate::output::{Address, Escaped};
use crate::symbols::SymbolError;
use crate::symbols::store::NotFound;

/// Why a query's question to the target has no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum TargetError {
    /// The target's memory could not be read.
    #[error("{what}: {source}")]
    Read {
        /// What was to be read.
        what: String,
        /// Where and why the read stopped.
        source: ReadError,
    },
    /// The target was made for questions.
    #[error("nothing is changed here")]
    NotChangeable,
    /// The target's memory was not written.
    #[error(transparent)]
    Write(WriteError),
    /// A module's symbols are needed and missing.
    #[error("{module} has no symbols: {source}")]
    NoSymbols { module: Arc<str>, source: MissingSymbols },
    /// Driver Verifier's data is found neither by symbols nor without them.
    #[error(
        "{missing}\n  The kernel's debugger data block names no MmVerifierData either: this kernel has no Driver Verifier \
         whose state could be read"
    )]
    NoVerifierData {
        /// What is wrong with the kernel's symbols.
        missing: Arc<Self>,
    },
    /// A module's symbols lack a name.
    #[error(
        "{module}!{name} not found in {pdb}; this build has no such symbol, or the file is of another kind"
    )]
    NoSymbol {
        module: Arc<str>,
        name: String,
        /// The file and identity that were searched.
        pdb: String,
    },
    /// No module and no loaded symbol has this name.
    #[error("no module is called {name}, and {}; write MODULE!{name} to look in another module", looked_in(.searched))]
    Unknown {
        name: String,
        /// The modules whose symbols were searched.
        searched: Vec<String>,
    },
    /// A module's symbols lack a type.
    #[error("type {module}!{name} not found in {pdb}")]
    NoType {
        module: Arc<str>,
        name: String,
        /// The file and identity that were searched.
        pdb: String,
    },
    /// A type lacks a field.
    #[error("{} has no field {field} in {pdb}", Escaped(.ty))]
    NoField {
        ty: Arc<str>,
        field: String,
        /// The file and identity that were searched.
        pdb: String,
    },
    /// A field is no number of at most 8 bytes.
    #[error("{}.{field} is no number", Escaped(.ty))]
    NoNumber { ty: Arc<str>, field: String },
    /// A symbol file turned out damaged while a type was read.
    #[error(transparent)]
    Symbols(Arc<SymbolError>),
    /// Nothing is known of how such a target keeps this.
    #[error("not supported on {machine} targets: {what}")]
    NotSupported {
        /// Its processor, in a word: `x86`.
        machine: &'static str,
        /// What was asked for, and why it cannot be told.
        what: String,
    },
    /// The registers of the CPU that stopped cannot be read.
    #[error("registers: {0}")]
    NoRegisters(ReadCause),
    /// A file has no processor's registers, but its kernel may have kept some.
    #[error(
        "registers: no processor's are known of it; ~0s chooses those that the kernel kept of processor 0 when it stopped its processors the last time"
    )]
    NoneButKept,
    /// The registers of a processor that is named cannot be read.
    #[error("registers of processor {processor}: {cause}")]
    NoRegistersOf { processor: u16, cause: ReadCause },
    /// No such module is loaded.
    #[error("no module called {0} is loaded; lm lists those that are")]
    NoModule(String),
    /// None of the modules that could be read is called so.
    #[error(
        "whether a module called {name} is loaded is not known, because the list of modules breaks off: {trouble}"
    )]
    ModulesBreakOff {
        name: String,
        /// What is wrong with the list.
        trouble: Trouble,
    },
    /// A structure in the target is not what it should be.
    #[error("{what} at {address}: {wrong}")]
    Unexpected {
        what: &'static str,
        address: Address,
        /// What is wrong with it.
        wrong: String,
    },
}

/// Where a symbol was looked for in vain.
fn looked_in(searched: &[String]) -> String {
    match searched {
        [] => "no module's symbols are loaded yet to look it up in".into(),
        searched => format!("no symbol in {}", searched.join(", ")),
    }
}

impl TargetError {
    /// An error that says what was being read.
    pub(crate) fn read(what: impl AsRef<str>, source: ReadError) -> Self {
        // Names of structures and fields are in it, which a symbol file may have made up.
        Self::Read { what: Escaped(what.as_ref()).to_string(), source }
    }

    /// The read that failed, if a read did.
    #[must_use]
    pub const fn read_error(&self) -> Option<&ReadError> {
        match self {
            Self::Read { source, .. }
            | Self::NoSymbols { source: MissingSymbols::Image(ImageError::Read(source)), .. } => Some(source),
            _ => None,
        }
    }
}

/// An error that may be the link's, the session's or the user's: then it says nothing of what was asked for.
pub trait OfLink: fmt::Display {
    /// True if nothing could be read at that time, whatever the address.
    fn is_of_link(&self) -> bool;
}

impl OfLink for TargetError {
    fn is_of_link(&self) -> bool {
        match self {
            Self::Read { source, .. } => source.is_of_link(),
            Self::NoSymbols { source, .. } => source.is_of_link(),
            Self::NoVerifierData { missing } => missing.is_of_link(),
            Self::NoRegisters(cause) | Self::NoRegistersOf { cause, .. } => cause.is_of_link(),
            Self::ModulesBreakOff { trouble, .. } => trouble.is_of_link,
            _ => false,
        }
    }
}

impl OfLink for MissingSymbols {
    fn is_of_link(&self) -> bool {
        matches!(self, Self::Image(error) if error.is_of_link())
    }
}

impl OfLink for ImageError {
    fn is_of_link(&self) -> bool {
        matches!(self, Self::Read(error) if error.is_of_link())
    }
}

impl OfLink for ReadError {
    fn is_of_link(&self) -> bool {
        is_over(&self.cause)
    }
}

/// What we find wrong ourselves is never the link's.
impl OfLink for &str {
    fn is_of_link(&self) -> bool {
        false
    }
}

/// What is wrong with a list of the target's.
#[derive(Clone, Debug)]
pub struct Trouble {
    text: String,
    /// The link, the session or the user ended the reading of it.
    pub is_of_link: bool,
}

impl Trouble {
    /// That of an error, or of a walk that did not come to its end.
    pub fn of(error: &impl OfLink) -> Self {
        Self { text: error.to_string(), is_of_link: error.is_of_link() }
    }
}

impl OfLink for Trouble {
    fn is_of_link(&self) -> bool {
        self.is_of_link
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<SymbolError> for TargetError {
    fn from(error: SymbolError) -> Self {
        Self::Symbols(Arc::new(error))
    }
}

/// Why a module has no symbols.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MissingSymbols {
    /// The image in the target does not say which PDB is its own.
    #[error("its image does not say which PDB is its own: {0}")]
    Image(ImageError),
    /// No place on the symbol path has the PDB.
    #[error(transparent)]
    File(Arc<NotFound>),
}

impl MissingSymbols {
    /// True if the search ended because the user or the target broke it off: it says nothing of the symbols.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        match self {
            Self::Image(ImageError::Read(error)) => is_over(&error.cause),
            Self::Image(_) => false,
            Self::File(missing) => missing.is_interrupted(),
        }
    }
}
