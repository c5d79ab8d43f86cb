//! Why a layout file cannot be used.

/// What is wrong with a layout file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// Not TOML, or not the tables and keys of a layout file.
    #[error(transparent)]
    Toml(#[from] toml::de::Error),
    /// A key that a layout needs is in none of its files.
    #[error("no file of this layout says `{key}`")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A field's type is not written as `types.toml` says.
    #[error("{aggregate}.{field}: type `{text}` is not understood")]
    Type {
        /// The structure or union.
        aggregate: String,
        /// Its field.
        field: String,
        /// What the file says.
        text: String,
    },
    /// A field ends behind its structure, or holds a structure that the file does not list.
    #[error("{aggregate}.{field}: {problem}")]
    Field {
        /// The structure or union.
        aggregate: String,
        /// Its field.
        field: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An address that is not hexadecimal digits, with WinDbg's backtick or without.
    #[error("`{0}` is not an address")]
    Address(String),
    /// A symbol outside its section or named twice, or sections that overlap or leave a hole.
    #[error("{name} at {at:#x}: {problem}")]
    Place {
        /// The section or symbol.
        name: String,
        /// Its address relative to the image base.
        at: u32,
        /// What is wrong with it.
        problem: &'static str,
    },
}
