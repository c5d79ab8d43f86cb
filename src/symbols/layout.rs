//! What a structure looks like: fields, offsets, bits and types, and the way from `Header16.NextEntry` to a place.

use std::sync::Arc;

/// A structure, union or enumeration of one symbol file; means nothing to another file.
///
/// Anonymous types share names (`_SLIST_HEADER::<unnamed-tag>`), so only this tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(pub u32);

/// A structure or union: its size in bytes and its fields, in the order of the symbol file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeLayout {
    /// Name as in the symbol file: `_VF_POOL_TRACE`.
    pub name: Arc<str>,
    /// `sizeof`.
    pub size: u64,
    /// Data members only: no methods, no nested type names, no static members.
    pub fields: Vec<Field>,
}

impl TypeLayout {
    /// The field called `name`, without dots.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| &*field.name == name)
    }
}

/// One field of a [`TypeLayout`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name as in the symbol file.
    pub name: Arc<str>,
    /// Bytes from the start of the structure; of a bit field: of the word that holds it.
    pub offset: u64,
    /// Type; of a bit field: of the word that holds it.
    pub ty: Type,
    /// Which bits of that word, if the field is a bit field.
    pub bits: Option<Bits>,
}

/// A bit field's place in its word: `length` bits from bit `position` up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits {
    /// Lowest bit.
    pub position: u8,
    /// Number of bits.
    pub length: u8,
}

/// What a base type's bytes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaseKind {
    /// Nothing.
    Void,
    /// An unsigned integer.
    Unsigned,
    /// A signed integer.
    Signed,
    /// A character of one or two bytes.
    Character,
    /// 0 or 1.
    Boolean,
    /// A floating-point number.
    Float,
    /// Something this program does not read.
    Other,
}

/// A field's type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// A number.
    Base {
        /// What its bytes mean.
        kind: BaseKind,
        /// Bytes.
        size: u64,
    },
    /// A pointer in the target.
    Pointer {
        /// What it points to.
        to: Box<Self>,
        /// Bytes: 8 or 4.
        size: u64,
    },
    /// Several elements in a row.
    Array {
        /// Type of each.
        element: Box<Self>,
        /// How many.
        count: u64,
        /// Bytes of all together.
        size: u64,
    },
    /// A structure or union, whose fields [`Symbols::layout`](super::Symbols::layout) has.
    Record {
        /// Which; nothing if the file only declares it.
        id: Option<TypeId>,
        /// Name as in the symbol file.
        name: Arc<str>,
        /// Bytes; 0 if the file only declares it.
        size: u64,
    },
    /// An enumeration.
    Enum {
        /// Name as in the symbol file.
        name: Arc<str>,
        /// Bytes of the integer that holds it.
        size: u64,
    },
    /// Code: what function pointers point to.
    Function,
    /// A type this program does not know, or damaged.
    Unknown,
}

impl Type {
    /// `sizeof`; 0 for what has no size.
    #[must_use]
    pub const fn size(&self) -> u64 {
        match self {
            Self::Base { size, .. }
            | Self::Pointer { size, .. }
            | Self::Array { size, .. }
            | Self::Record { size, .. }
            | Self::Enum { size, .. } => *size,
            Self::Function | Self::Unknown => 0,
        }
    }
}

/// Where a field lies in an outermost structure, however deep a dotted path went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Bytes from the start of the outermost structure.
    pub offset: u64,
    /// Type there.
    pub ty: Type,
    /// Bits, if the field is a bit field.
    pub bits: Option<Bits>,
}

impl Place {
    /// The number at this place in `bytes`, which begin where the outermost structure does.
    ///
    /// At most 8 bytes, little-endian; a bit field's bits only; signed fields are not extended. Nothing if `bytes`
    /// end before the field does, or the field is larger than 8 bytes.
    #[must_use]
    pub fn uint(&self, bytes: &[u8]) -> Option<u64> {
        let start = usize::try_from(self.offset).ok()?;
        let size = usize::try_from(self.ty.size()).ok().filter(|size| (1..=8).contains(size))?;
        let mut word = [0; 8];
        word[..size].copy_from_slice(bytes.get(start..)?.get(..size)?);
        let word = u64::from_le_bytes(word);
        Some(match self.bits {
            None => word,
            Some(Bits { position, length }) => {
                let mask = if length >= 64 { u64::MAX } else { (1 << length) - 1 };
                word.checked_shr(position.into()).unwrap_or(0) & mask
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const U64: Type = Type::Base { kind: BaseKind::Unsigned, size: 8 };

    #[test]
    fn a_bit_field_is_cut_out_of_its_word() {
        let place = |position, length| Place { offset: 8, ty: U64, bits: Some(Bits { position, length }) };
        let bytes = [[0; 8], 0xffff_fa80_0540_0013_u64.to_le_bytes()].concat();
        assert_eq!(place(4, 60).uint(&bytes), Some(0x0fff_ffa8_0054_0001));
        assert_eq!(place(0, 1).uint(&bytes), Some(1));
        assert_eq!(place(0, 64).uint(&bytes), Some(0xffff_fa80_0540_0013));
        assert_eq!(place(200, 1).uint(&bytes), Some(0), "a damaged position is no panic");
    }

    #[test]
    fn a_field_past_the_end_has_no_value() {
        let place = Place { offset: 4, ty: U64, bits: None };
        assert_eq!(place.uint(&[0; 11]), None);
        assert_eq!(Place { offset: u64::MAX, ..place }.uint(&[0; 11]), None);
    }
}
