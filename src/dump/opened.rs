//! What a file is once it is open.

use crate::source::ImageSource;

/// A file that was opened as a target.
#[derive(Debug)]
pub struct Opened {
    /// What is asked.
    pub source: ImageSource,
    /// What kind of file it is, and how much of the machine it holds: `kernel bitmap dump, 2,153 pages`.
    pub what: String,
    /// What whoever reads it must know: pages that are missing, a dump that was cut.
    pub warnings: Vec<String>,
}
