//! Layout files: which structures, sections and symbols a simulated kernel has.
//!
//! Two kinds, both TOML: one `types.toml` per Windows build (structures), one file per image (sections, symbols, exports).
//! They are the source of the images and PDBs, and of every structure that the simulator writes into its memory.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;

mod types;

pub use types::{Aggregate, BaseType, Enumeration, Field, Type, Types};

/// What is wrong with a layout file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// Not TOML, or not the tables and keys of a layout file.
    #[error(transparent)]
    Toml(#[from] toml::de::Error),
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

/// One image: `nt.toml` and its like.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageLayout {
    /// File name, `ntoskrnl.exe`.
    pub file: String,
    /// Module name in symbols, `nt`.
    pub module: String,
    /// PDB name, `ntkrnlmp.pdb`.
    pub pdb: String,
    /// The file with this image's types, beside this one; `None` for a PDB without types.
    pub types: Option<String>,
    /// Where the simulated machine has it: hexadecimal, with WinDbg's backtick. [`ImageLayout::base`] parses it.
    loaded_at: String,
    /// Base in the image file's header.
    pub preferred_base: u64,
    /// `TimeDateStamp` of the image.
    pub timestamp: u32,
    /// Symbol of the entry point.
    pub entry: String,
    /// Exported symbols.
    #[serde(default)]
    pub exports: Vec<String>,
    /// Sections by address, without a hole between them; the first starts at 0x1000.
    #[serde(rename = "section")]
    pub sections: Vec<Section>,
}

/// One section of an image.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
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
    #[serde(default)]
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

impl ImageLayout {
    /// Parses an image's layout file, and checks that sections follow each other and hold their symbols.
    ///
    /// # Errors
    /// [`LayoutError::Toml`], [`LayoutError::Address`] or [`LayoutError::Place`].
    pub fn parse(text: &str) -> Result<Self, LayoutError> {
        let layout: Self = toml::from_str(text)?;
        address(&layout.loaded_at)?;
        let place = |name: &str, at, problem| Err(LayoutError::Place { name: name.to_owned(), at, problem });
        let mut names = HashSet::new();
        let mut next = PAGE;
        for section in &layout.sections {
            if section.at != next || section.size % PAGE != 0 {
                return place(
                    &section.name,
                    section.at,
                    "sections must be whole pages, one behind the other",
                );
            }
            next += section.size;
            for (at, name) in &section.symbols {
                if !(section.at..next).contains(at) {
                    return place(name, *at, "outside its section");
                }
                if !names.insert(name) {
                    return place(name, *at, "named twice");
                }
            }
        }
        Ok(layout)
    }

    /// Where the simulated machine has this image.
    #[must_use]
    pub fn base(&self) -> u64 {
        address(&self.loaded_at).expect("parse checked it")
    }

    /// Bytes from the image base to the end of the last section: `SizeOfImage`.
    #[must_use]
    pub fn size_of_image(&self) -> u32 {
        self.sections.last().map_or(PAGE, |section| section.at + section.size)
    }

    /// A symbol's address relative to the image base.
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<u32> {
        let mut symbols = self.sections.iter().flat_map(|section| &section.symbols);
        symbols.find(|(_, symbol)| symbol == name).map(|(at, _)| *at)
    }

    /// Every symbol's address relative to the image base.
    #[must_use]
    pub fn symbols(&self) -> BTreeMap<&str, u32> {
        self.sections
            .iter()
            .flat_map(|section| &section.symbols)
            .map(|(at, name)| (name.as_str(), *at))
            .collect()
    }
}

/// Bytes in a page, the unit of sections.
const PAGE: u32 = 0x1000;

/// ``fffff800`0141b000`` as a number.
fn address(text: &str) -> Result<u64, LayoutError> {
    u64::from_str_radix(&text.replace('`', ""), 16).map_err(|_| LayoutError::Address(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: &str = "
        file = 'a.sys'\nmodule = 'a'\npdb = 'a.pdb'\nloaded_at = 'fffff880`00010000'\npreferred_base = 0x10000\n\
        timestamp = 1\nentry = 'DriverEntry'\n\
        [[section]]\nname = '.text'\nat = 0x1000\nsize = 0x2000\nkind = 'code'\nsymbols = [[0x1010, 'DriverEntry']]\n";

    #[test]
    fn an_image_has_its_symbols_relative_to_its_base() {
        let image = ImageLayout::parse(IMAGE).unwrap();
        assert_eq!((image.base(), image.size_of_image()), (0xffff_f880_0001_0000, 0x3000));
        assert_eq!(image.symbols()["DriverEntry"], 0x1010);
    }

    #[test]
    fn symbols_and_sections_out_of_place_are_refused() {
        let error = ImageLayout::parse(&IMAGE.replace("0x1010", "0x3000")).unwrap_err();
        assert_eq!(error.to_string(), "DriverEntry at 0x3000: outside its section");
        let error =
            ImageLayout::parse(&IMAGE.replace("[[0x1010", "[[0x1000, 'DriverEntry'], [0x1010")).unwrap_err();
        assert_eq!(error.to_string(), "DriverEntry at 0x1010: named twice");
        let error = ImageLayout::parse(&IMAGE.replace("at = 0x1000", "at = 0x2000")).unwrap_err();
        assert!(matches!(error, LayoutError::Place { at: 0x2000, .. }), "{error}");
    }
}
