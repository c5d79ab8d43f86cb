//! How the `d` commands cut a range into elements.

use serde::Serialize;

/// How memory is shown; the command's last letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Format {
    /// `db`: bytes and characters.
    Bytes,
    /// `dw`: words of two bytes.
    Words,
    /// `dd`: words of four bytes.
    DoubleWords,
    /// `dq`, `dp`: words of eight bytes.
    QuadWords,
    /// `dc`: words of four bytes and characters.
    DoubleWordsAndCharacters,
    /// `dps`, `dqs`: pointers, one a line, and what lies there.
    Symbols,
    /// `dds`: words of four bytes, one a line, and what lies there.
    DoubleWordSymbols,
    /// `da`: text of one byte a character.
    Ascii,
    /// `du`: text of two bytes a character.
    Unicode,
}

impl Format {
    /// Bytes of an element.
    pub(super) const fn unit(self) -> usize {
        match self {
            Self::Bytes | Self::Ascii => 1,
            Self::Words | Self::Unicode => 2,
            Self::DoubleWords | Self::DoubleWordsAndCharacters | Self::DoubleWordSymbols => 4,
            Self::QuadWords | Self::Symbols => 8,
        }
    }

    /// Bytes of a line.
    pub(super) const fn line(self) -> usize {
        match self {
            Self::Symbols => 8,
            Self::DoubleWordSymbols => 4,
            Self::Ascii => 0x20,
            Self::Unicode => 0x40,
            _ => 0x10,
        }
    }

    /// Bytes shown if no range is given.
    pub(super) const fn usual(self) -> usize {
        match self {
            Self::DoubleWordSymbols => 0x40,
            // Text ends at its 0; this bounds what has none.
            Self::Ascii => 0x180,
            Self::Unicode => 0x300,
            _ => 0x80,
        }
    }

    /// True for text.
    pub(super) const fn is_text(self) -> bool {
        matches!(self, Self::Ascii | Self::Unicode)
    }
}
