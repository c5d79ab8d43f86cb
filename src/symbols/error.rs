//! Why a symbol file cannot be used.

use std::path::PathBuf;

/// Why a symbol file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SymbolError {
    /// The operating system would not read it.
    #[error("{}: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// It is no file of the expected kind.
    #[error("{}: {what}", file.display())]
    NotSymbols {
        /// The file.
        file: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// It is of the right kind, but what it says cannot be.
    #[error("{}: damaged: {reading}: {wrong}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What was being read.
        reading: &'static str,
        /// What is wrong with it.
        wrong: String,
    },
}

impl SymbolError {
    /// The same error once more, for another who meets it.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Io { file, source } => Self::Io {
                file: file.clone(),
                source: std::io::Error::new(source.kind(), source.to_string()),
            },
            Self::NotSymbols { file, what } => Self::NotSymbols { file: file.clone(), what },
            Self::Damaged { file, reading, wrong } => {
                Self::Damaged { file: file.clone(), reading, wrong: wrong.clone() }
            }
        }
    }

    /// What is wrong, without the file's name.
    #[must_use]
    pub fn what(&self) -> String {
        match self {
            Self::Io { source, .. } => source.to_string(),
            Self::NotSymbols { what, .. } => (*what).to_owned(),
            Self::Damaged { reading, wrong, .. } => format!("damaged: {reading}: {wrong}"),
        }
    }
}
