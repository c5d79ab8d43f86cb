//! Sections of an image.

use serde::Deserialize;

/// One section of an image.
///
/// The linker puts `.text`, `.rdata` and `.data` first, discardable sections last, and others between by name.
#[derive(Clone, Debug)]
pub struct Section {
    /// Its name, at most eight characters.
    pub name: String,
    /// First byte, relative to the image base.
    pub at: u32,
    /// Bytes, a multiple of the page size.
    pub size: u32,
    /// What it holds.
    pub kind: SectionKind,
    /// Address relative to the image base, and name, by address.
    pub symbols: Vec<(u32, String)>,
}

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum SectionKind {
    /// Routines.
    #[serde(rename = "code")]
    Code,
    /// Routines that only initialisation needs.
    #[serde(rename = "discardable code")]
    DiscardableCode,
    /// Variables.
    #[serde(rename = "data")]
    Data,
    /// What the linker makes: export directory, debug directory. Has no symbols of ours.
    #[serde(rename = "linker")]
    Linker,
}
