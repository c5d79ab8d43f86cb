//! Which build a PDB belongs to: the name, GUID and age that the linker writes into image and PDB alike.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::output::is_hazard;

/// A GUID in the byte order of files and images.
///
/// Prints as symbol stores write it: 32 upper-case digits, the first three groups as little-endian numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Guid(pub [u8; 16]);

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a0, a1, a2, a3, b0, b1, c0, c1, rest @ ..] = self.0;
        write!(f, "{a3:02X}{a2:02X}{a1:02X}{a0:02X}{b1:02X}{b0:02X}{c1:02X}{c0:02X}")?;
        rest.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

/// Reads what [`Display`](fmt::Display) writes, in any case.
impl FromStr for Guid {
    type Err = NoGuid;

    fn from_str(text: &str) -> Result<Self, NoGuid> {
        if text.len() != 32 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(NoGuid);
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| NoGuid)?;
        let [a3, a2, a1, a0, b1, b0, c1, c0, rest @ ..] = number.to_be_bytes();
        let mut bytes = [a0, a1, a2, a3, b0, b1, c0, c1, 0, 0, 0, 0, 0, 0, 0, 0];
        bytes[8..].copy_from_slice(&rest);
        Ok(Self(bytes))
    }
}

/// A text that is no GUID of 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a GUID has 32 hexadecimal digits")]
pub struct NoGuid;

/// The identity of a PDB: an image and its PDB carry the same one, images of two builds never do.
///
/// `age` is the one that debuggers match: the image's RSDS record has it, and in the PDB the DBI stream (the
/// information stream's own age may lag behind). Prints as the folder name in a symbol store, GUID then age in
/// hexadecimal: `339E74133576439CBCDF7E0229DA37731`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PdbIdentity {
    /// File name without folders: `ntkrnlmp.pdb`.
    pub name: String,
    /// Made anew by each full link.
    pub guid: Guid,
    /// Counts the updates of one link.
    pub age: u32,
}

impl PdbIdentity {
    /// The identity of the PDB called `path` in an image's RSDS record, which may be a path on the build machine.
    #[must_use]
    pub fn new(path: &str, guid: Guid, age: u32) -> Self {
        Self { name: path.rsplit(['\\', '/']).next().unwrap_or_default().to_owned(), guid, age }
    }

    /// True if both name the same build of a PDB, whatever the file is called.
    #[must_use]
    pub fn same_build(&self, other: &Self) -> bool {
        (self.guid, self.age) == (other.guid, other.age)
    }

    /// True if the name can be used in a path: not empty, and no way out of a folder.
    ///
    /// The name comes from the target's memory, so it may hold anything.
    #[must_use]
    pub fn has_file_name(&self) -> bool {
        is_file_name(&self.name)
    }
}

fn is_file_name(name: &str) -> bool {
    let hostile = |c: char| is_hazard(c) || matches!(c, '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
    !name.is_empty() && name.len() <= 255 && name != "." && name != ".." && !name.contains(hostile)
}

/// The identity of an image: what its headers say, and what symbol stores keep it under.
///
/// Prints as the folder name in a symbol store: `5B7A2E4Bc8000`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageIdentity {
    /// File name without folders: `myfault.sys`.
    pub name: String,
    /// `TimeDateStamp`.
    pub timestamp: u32,
    /// `SizeOfImage`.
    pub size: u32,
}

impl ImageIdentity {
    /// The identity of the image that is called `name`.
    #[must_use]
    pub fn new(name: &str, timestamp: u32, size: u32) -> Self {
        Self { name: name.to_owned(), timestamp, size }
    }

    /// True if the name can be used in a path: it comes from the target's memory, so it may hold anything.
    #[must_use]
    pub fn has_file_name(&self) -> bool {
        is_file_name(&self.name)
    }
}

impl fmt::Display for ImageIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:x}", self.timestamp, self.size)
    }
}

impl fmt::Display for PdbIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:X}", self.guid, self.age)
    }
}

/// `{"name": "ntkrnlmp.pdb", "identity": "339E...31"}`.
impl Serialize for PdbIdentity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut fields = serializer.serialize_struct("PdbIdentity", 2)?;
        fields.serialize_field("name", &self.name)?;
        fields.serialize_field("identity", &self.to_string())?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_prints_as_the_folder_of_a_symbol_store() {
        let guid = Guid([
            0x13, 0x74, 0x9e, 0x33, 0x76, 0x35, 0x9c, 0x43, 0xbc, 0xdf, 0x7e, 0x02, 0x29, 0xda, 0x37, 0x73,
        ]);
        assert_eq!(
            PdbIdentity::new("ntkrnlmp.pdb", guid, 1).to_string(),
            "339E74133576439CBCDF7E0229DA37731"
        );
        assert_eq!("339e74133576439CBCDF7E0229DA3773".parse(), Ok(guid));
        for wrong in ["", "339E74133576439CBCDF7E0229DA37731", "+39E74133576439CBCDF7E0229DA3773"] {
            assert_eq!(wrong.parse::<Guid>(), Err(NoGuid));
        }
        assert_eq!(PdbIdentity::new("x.pdb", guid, 0x1f).to_string(), "339E74133576439CBCDF7E0229DA37731F");
    }

    #[test]
    fn a_path_in_the_image_gives_the_file_name_and_hostile_names_are_told() {
        let identity = PdbIdentity::new(r"d:\src\driver\myfault.pdb", Guid::default(), 1);
        assert_eq!((identity.name.as_str(), identity.has_file_name()), ("myfault.pdb", true));
        for hostile in ["", "..", "a:b.pdb", "x\0.pdb", "dir/", "what?.pdb", "a\u{202e}b.pdb"] {
            assert!(!PdbIdentity::new(hostile, Guid::default(), 1).has_file_name(), "{hostile:?}");
        }
    }
}
