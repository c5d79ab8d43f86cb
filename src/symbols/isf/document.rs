//! The JSON of an ISF file, as it is written.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::symbols::error::SymbolError;
use crate::symbols::identity::PdbIdentity;

/// All that is used of the file.
#[derive(Debug, Deserialize)]
pub(super) struct Document {
    pub(super) metadata: Metadata,
    pub(super) base_types: BaseTypes,
    pub(super) enums: BTreeMap<Arc<str>, Enumeration>,
    pub(super) user_types: BTreeMap<Arc<str>, UserType>,
    pub(super) symbols: BTreeMap<Box<str>, SymbolEntry>,
}

/// Kind and size of each base type.
pub(super) type BaseTypes = BTreeMap<Box<str>, BaseType>;

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Metadata {
    windows: Option<Windows>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Windows {
    pdb: Option<Pdb>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Pdb {
    #[serde(rename = "GUID")]
    guid: String,
    age: u32,
    database: String,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct BaseType {
    pub(super) kind: BaseTypeKind,
    pub(super) size: u64,
    #[serde(default)]
    pub(super) signed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum BaseTypeKind {
    Void,
    Int,
    Float,
    Char,
    Bool,
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Enumeration {
    pub(super) size: u64,
    #[serde(default)]
    pub(super) constants: BTreeMap<Arc<str>, i128>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct UserType {
    pub(super) size: u64,
    #[serde(default)]
    pub(super) fields: BTreeMap<Arc<str>, Field>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Field {
    pub(super) offset: u64,
    #[serde(rename = "type")]
    pub(super) ty: FieldType,
}

/// A field's type: which of the members are there depends on the kind.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct FieldType {
    pub(super) kind: FieldKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subtype: Option<Box<Self>>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(super) ty: Option<Box<Self>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bit_position: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bit_length: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FieldKind {
    Base,
    Pointer,
    Array,
    #[serde(alias = "union", alias = "class")]
    Struct,
    Enum,
    Bitfield,
    Function,
    #[serde(other)]
    Other,
}

/// The size of a structure or enumeration, without what it is made of.
#[derive(Debug, Deserialize)]
pub(super) struct Size {
    pub(super) size: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct SymbolEntry {
    pub(super) address: Option<u64>,
}

/// Reads the text as JSON of the form that `T` expects.
pub(super) fn parse<'a, T: Deserialize<'a>>(path: &Path, text: &'a [u8]) -> Result<T, SymbolError> {
    serde_json::from_slice(text).map_err(|error| SymbolError::Damaged {
        file: path.to_owned(),
        reading: "JSON",
        wrong: error.to_string(),
    })
}

impl Metadata {
    /// Which PDB the file was made from.
    pub(super) fn identity(&self, path: &Path) -> Result<PdbIdentity, SymbolError> {
        let what = "an ISF file that names no PDB: not of a Windows module";
        let refused = || SymbolError::NotSymbols { file: path.to_owned(), what };
        let pdb = self.windows.as_ref().and_then(|windows| windows.pdb.as_ref()).ok_or_else(refused)?;
        let guid = pdb.guid.parse().map_err(|_| SymbolError::Damaged {
            file: path.to_owned(),
            reading: "metadata",
            wrong: format!("{:?} is no GUID", pdb.guid),
        })?;
        Ok(PdbIdentity::new(&pdb.database, guid, pdb.age))
    }
}
