//! Why a file cannot be opened as a target.

use std::io;
use std::path::PathBuf;

use crate::physical::NoKernel;

/// Why a file cannot be opened as a target: what is wrong, in which field, and what to do where that is known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DumpError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is of a kind that holds no kernel memory, or that nobody reads here.
    #[error("this is {0}")]
    Refused(String),
    /// Its beginning is none that is known.
    #[error(
        "not a dump: it begins with {begins}. Crash dumps (PAGEDU64, PAGEDUMP), ELF cores of virtual machines, LiME images and \
         VMware's states are known by their content, images of raw memory by the kernel in them, of which there is none"
    )]
    Unknown {
        /// The first bytes.
        begins: String,
    },
    /// It ends before something that it must have.
    #[error("the dump is cut short: its {what} needs {needs:#x} bytes, the file has {has:#x}")]
    Truncated {
        /// What is not whole.
        what: &'static str,
        /// Bytes of the file.
        has: u64,
        /// Bytes that it needs.
        needs: u64,
    },
    /// A field has a value that cannot be.
    #[error("the dump is damaged: its field {field} (at {at:#x}) is {value:#x}")]
    Field {
        /// Which.
        field: &'static str,
        /// Where in the file.
        at: u64,
        /// What it holds.
        value: u64,
    },
    /// Fields contradict each other.
    #[error("the dump is damaged: {0}")]
    Damaged(String),
    /// Its memory is not that of a Windows machine, or the page tables are not there.
    #[error("no Windows kernel is found in it: {0}")]
    NoKernel(String),
}

impl From<NoKernel> for DumpError {
    fn from(NoKernel(why): NoKernel) -> Self {
        Self::NoKernel(why)
    }
}

impl DumpError {
    pub(super) const fn field(field: &'static str, at: usize, value: u64) -> Self {
        Self::Field { field, at: at as u64, value }
    }
}
