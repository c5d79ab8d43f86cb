//! Layout files: which structures, sections and symbols a simulated kernel has.
//!
//! Three kinds, all TOML: structures (`types.toml`), one file per image (sections, symbols, exports), and what else is known
//! of a build (`release.toml`). They are the source of the images and PDBs, and of every structure that the simulator writes
//! into its memory.
//!
//! Builds have much in common, so a layout may be told by several files, each changing what the ones before it say:
//!
//! ```text
//!  7sp1/nt.toml <-- common/nt.toml <-- 10-22h2/nt.toml <-- 11-24h2/nt.toml          an image, by `from`
//!                   common/types.toml, 10-22h2/types.toml, 11-24h2/types.toml       its structures, by its `types`
//! ```

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;

mod address;
mod error;
mod release;
mod routine;
mod section;
mod types;

pub use error::LayoutError;
pub use release::Release;
pub use routine::{Register, Routine, Step, UnwindTables};
pub use section::{Section, SectionKind};
pub use types::{Aggregate, BaseType, Enumeration, Field, Type, Types};

/// One image: `nt.toml` and its like.
#[derive(Clone, Debug)]
pub struct ImageLayout {
    /// File name, `ntoskrnl.exe`.
    pub file: String,
    /// Module name in symbols, `nt`.
    pub module: String,
    /// PDB name, `ntkrnlmp.pdb`.
    pub pdb: String,
    /// The files with this image's types, relative to its own; none for a PDB without types.
    pub types: Vec<String>,
    /// Where the simulated machine has it.
    pub base: u64,
    /// Base in the image file's header.
    pub preferred_base: u64,
    /// `TimeDateStamp` of the image.
    pub timestamp: u32,
    /// Symbol of the entry point.
    pub entry: String,
    /// Exported symbols.
    pub exports: Vec<String>,
    /// Sections by address, without a hole between them; the first starts at 0x1000.
    pub sections: Vec<Section>,
}

impl ImageLayout {
    /// Parses an image's layout files, the most basic first, and checks that sections follow each other and hold their
    /// symbols.
    ///
    /// # Errors
    /// [`LayoutError::Toml`], [`LayoutError::Missing`], [`LayoutError::Address`] or [`LayoutError::Place`].
    pub fn parse(texts: &[&str]) -> Result<Self, LayoutError> {
        let mut whole = File::default();
        for text in texts {
            whole.change(toml::from_str(text)?);
        }
        let layout = whole.finish()?;
        layout.check()?;
        Ok(layout)
    }

    /// The file that an image's layout file builds upon, relative to it.
    ///
    /// # Errors
    /// [`LayoutError::Toml`].
    pub fn basis(text: &str) -> Result<Option<String>, LayoutError> {
        Ok(toml::from_str::<File>(text)?.from)
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

    /// Its routines by address.
    #[must_use]
    pub fn routines(&self) -> Vec<Routine> {
        routine::routines(&self.sections)
    }

    /// The tables by which its routines are unwound, for the start of the linker's section; nothing without one.
    #[must_use]
    pub fn unwind_tables(&self) -> Option<UnwindTables> {
        UnwindTables::of(&self.sections)
    }

    fn check(&self) -> Result<(), LayoutError> {
        let place = |name: &str, at, problem| Err(LayoutError::Place { name: name.to_owned(), at, problem });
        let mut names = HashSet::new();
        let mut next = PAGE;
        for section in &self.sections {
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
        Ok(())
    }
}

/// Bytes in a page, the unit of sections.
const PAGE: u32 = 0x1000;

/// An image's layout file as it is written; with `from`, it says only what it changes.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    from: Option<String>,
    file: Option<String>,
    module: Option<String>,
    pdb: Option<String>,
    types: Option<Vec<String>>,
    /// Hexadecimal, with WinDbg's backtick.
    loaded_at: Option<String>,
    preferred_base: Option<u64>,
    timestamp: Option<u32>,
    entry: Option<String>,
    exports: Option<Vec<String>>,
    /// Symbols of the files before this one that the build does not have, or has elsewhere.
    #[serde(default)]
    without: HashSet<String>,
    #[serde(default, rename = "section")]
    sections: Vec<SectionChange>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SectionChange {
    name: String,
    at: Option<u32>,
    size: Option<u32>,
    kind: Option<SectionKind>,
    #[serde(default)]
    symbols: Vec<(u32, String)>,
}

impl File {
    /// Takes over what `later` says.
    fn change(&mut self, later: Self) {
        for section in &mut self.sections {
            section.symbols.retain(|(_, name)| !later.without.contains(name));
        }
        for change in later.sections {
            match self.sections.iter_mut().find(|section| section.name == change.name) {
                None => {
                    self.sections.push(change);
                    self.sections.sort_by_key(|section| section.at);
                }
                Some(section) => {
                    section.at = change.at.or(section.at);
                    section.size = change.size.or(section.size);
                    section.kind = change.kind.or(section.kind);
                    section.symbols.extend(change.symbols);
                    section.symbols.sort_by_key(|(at, _)| *at);
                }
            }
        }
        self.file = later.file.or_else(|| self.file.take());
        self.module = later.module.or_else(|| self.module.take());
        self.pdb = later.pdb.or_else(|| self.pdb.take());
        self.types = later.types.or_else(|| self.types.take());
        self.loaded_at = later.loaded_at.or_else(|| self.loaded_at.take());
        self.preferred_base = later.preferred_base.or(self.preferred_base);
        self.timestamp = later.timestamp.or(self.timestamp);
        self.entry = later.entry.or_else(|| self.entry.take());
        self.exports = later.exports.or_else(|| self.exports.take());
    }

    fn finish(self) -> Result<ImageLayout, LayoutError> {
        let missing = |key| LayoutError::Missing { key };
        let section = |section: SectionChange| {
            Ok(Section {
                name: section.name,
                at: section.at.ok_or_else(|| missing("at"))?,
                size: section.size.ok_or_else(|| missing("size"))?,
                kind: section.kind.ok_or_else(|| missing("kind"))?,
                symbols: section.symbols,
            })
        };
        Ok(ImageLayout {
            file: self.file.ok_or_else(|| missing("file"))?,
            module: self.module.ok_or_else(|| missing("module"))?,
            pdb: self.pdb.ok_or_else(|| missing("pdb"))?,
            types: self.types.unwrap_or_default(),
            base: address::address(&self.loaded_at.ok_or_else(|| missing("loaded_at"))?)?,
            preferred_base: self.preferred_base.ok_or_else(|| missing("preferred_base"))?,
            timestamp: self.timestamp.ok_or_else(|| missing("timestamp"))?,
            entry: self.entry.ok_or_else(|| missing("entry"))?,
            exports: self.exports.unwrap_or_default(),
            sections: self.sections.into_iter().map(section).collect::<Result<_, LayoutError>>()?,
        })
    }
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
        let image = ImageLayout::parse(&[IMAGE]).unwrap();
        assert_eq!((image.base, image.size_of_image()), (0xffff_f880_0001_0000, 0x3000));
        assert_eq!(image.symbols()["DriverEntry"], 0x1010);
    }

    #[test]
    fn a_later_file_changes_what_it_names() {
        let change = "
            from = '../a/a.toml'\nwithout = ['DriverEntry']\ntimestamp = 2\n\
            [[section]]\nname = '.text'\nsize = 0x1000\nsymbols = [[0x1020, 'DriverEntry']]\n\
            [[section]]\nname = '.data'\nat = 0x2000\nsize = 0x1000\nkind = 'data'\n";
        assert_eq!(ImageLayout::basis(change).unwrap().as_deref(), Some("../a/a.toml"));
        let image = ImageLayout::parse(&[IMAGE, change]).unwrap();
        assert_eq!((image.timestamp, image.size_of_image(), &*image.file), (2, 0x3000, "a.sys"));
        assert_eq!((image.symbols()["DriverEntry"], image.sections.len()), (0x1020, 2));
        let error = ImageLayout::parse(&[change]).unwrap_err();
        assert_eq!(error.to_string(), "no file of this layout says `file`");
    }

    #[test]
    fn symbols_and_sections_out_of_place_are_refused() {
        let error = |text: &str| ImageLayout::parse(&[text]).unwrap_err();
        let outside = error(&IMAGE.replace("0x1010", "0x3000"));
        assert_eq!(outside.to_string(), "DriverEntry at 0x3000: outside its section");
        let twice = error(&IMAGE.replace("[[0x1010", "[[0x1000, 'DriverEntry'], [0x1010"));
        assert_eq!(twice.to_string(), "DriverEntry at 0x1010: named twice");
        let hole = error(&IMAGE.replace("at = 0x1000", "at = 0x2000"));
        assert!(matches!(hole, LayoutError::Place { at: 0x2000, .. }), "{hole}");
    }
}
