//! Symbols: what they are, and what a module's answer.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::error::SymbolError;
use super::identity::PdbIdentity;
use super::layout::{Field, Place, Type, TypeId, TypeLayout};

/// A relative virtual address: bytes from an image's base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rva(pub u32);

impl fmt::Display for Rva {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// What a module's symbols were read from; `lm` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SymbolKind {
    /// A PDB with types.
    Pdb,
    /// An ISF file.
    Isf,
    /// The image's own export table.
    Export,
    /// A table in memory: tests.
    Table,
}

impl fmt::Display for SymbolKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pdb => "pdb",
            Self::Isf => "isf",
            Self::Export => "export",
            Self::Table => "table",
        })
    }
}

/// A symbol at or below an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// Name as in the symbol file.
    pub name: Cow<'a, str>,
    /// Where it is.
    pub rva: Rva,
}

/// One constant of an enumeration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constant {
    /// Name as in the symbol file: `PagedPool`.
    pub name: Arc<str>,
    /// Its value; of an enumeration smaller than 8 bytes the low ones count.
    pub value: u64,
}

/// The symbols of one module.
pub trait Symbols: fmt::Debug + Send + Sync {
    /// The build they belong to.
    fn identity(&self) -> &PdbIdentity;

    /// What they were read from.
    fn kind(&self) -> SymbolKind;

    /// The file they were read from, if one.
    fn path(&self) -> Option<&std::path::Path>;

    /// What is wrong with the file, as far as it was read; what lies before the damage is used.
    fn damage(&self) -> Option<String> {
        None
    }

    /// Bytes of a pointer in the module: 8 or 4.
    fn pointer_size(&self) -> u64;

    /// Where the symbol called `name` is; case counts.
    fn address_of(&self, name: &str) -> Option<Rva>;

    /// The symbol at `rva`, or the nearest below it in the same section.
    fn nearest(&self, rva: Rva) -> Option<Symbol<'_>>;

    /// Every symbol in order of address; several names of one address follow each other, the one that
    /// [`nearest`](Self::nearest) gives first. Nothing where they cannot be listed.
    fn symbols(&self) -> Box<dyn Iterator<Item = Symbol<'_>> + '_> {
        Box::new(std::iter::empty())
    }

    /// Every symbol called `name` in any case, with decoration or without, and perhaps others: in no more time than there
    /// are such, where there is an index.
    fn named(&self, name: &str) -> Vec<Symbol<'_>> {
        let _ = name;
        self.symbols().collect()
    }

    /// Every symbol that has `word`, some letters, digits and `_`, in its name, in any case, with decoration or without; and
    /// perhaps others. In order of address.
    fn with_word(&self, word: &str) -> Vec<Symbol<'_>> {
        let _ = word;
        self.symbols().collect()
    }

    /// Every symbol of the address `rva`, the one that [`nearest`](Self::nearest) gives first.
    fn at(&self, rva: Rva) -> Vec<Symbol<'_>> {
        let from = self.symbols().skip_while(|symbol| symbol.rva < rva);
        from.take_while(|symbol| symbol.rva == rva).collect()
    }

    /// The first symbol above `rva`.
    fn above(&self, rva: Rva) -> Option<Symbol<'_>> {
        self.symbols().find(|symbol| symbol.rva > rva)
    }

    /// Names of the structures and unions that the file defines, in any order. Nothing where they cannot be listed.
    fn types(&self) -> Box<dyn Iterator<Item = Cow<'_, str>> + '_> {
        Box::new(std::iter::empty())
    }

    /// The constants of the enumeration called `name`, if the file has them.
    fn constants(&self, name: &str) -> Option<Arc<[Constant]>> {
        let _ = name;
        None
    }

    /// The structure or union called `name`, if the file defines it.
    fn find_type(&self, name: &str) -> Option<TypeId>;

    /// Size and fields of a type.
    ///
    /// # Errors
    /// [`SymbolError::Damaged`] if the file's records for it cannot be.
    fn layout(&self, id: TypeId) -> Result<Arc<TypeLayout>, SymbolError>;

    /// Where a dotted path such as `Header16.NextEntry` leads from `layout`; nothing if a part of it is not there.
    ///
    /// # Errors
    /// [`SymbolError::Damaged`] as [`layout`](Self::layout).
    fn place(&self, layout: &TypeLayout, path: &str) -> Result<Option<Place>, SymbolError> {
        let mut parts = path.split('.');
        let Some(mut field) = parts.next().and_then(|first| layout.field(first)).cloned() else {
            return Ok(None);
        };
        for part in parts {
            let Type::Record { id: Some(id), .. } = field.ty else { return Ok(None) };
            let inner = self.layout(id)?;
            let Some(next) = inner.field(part) else { return Ok(None) };
            let offset = field.offset.saturating_add(next.offset);
            field = Field { offset, ..next.clone() };
        }
        Ok(Some(Place { offset: field.offset, ty: field.ty, bits: field.bits }))
    }
}
