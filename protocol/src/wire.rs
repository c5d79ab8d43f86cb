//! Checked cursors over wire bytes: nothing here panics, nothing allocates more than it was given.
//!
//! KD fields are little-endian; only the KDNET inner header and the offer's ports are big-endian.

use crate::address::{PhysAddr, VirtAddr};

/// A structure that ended before its fields did, or a field whose value cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Fewer bytes than the structure has.
    #[error("{what} needs {needed} bytes, {left} are left")]
    Truncated {
        /// The structure being read.
        what: &'static str,
        /// Bytes the next field needs.
        needed: usize,
        /// Bytes that are there.
        left: usize,
    },
    /// A field holds a value that no sender writes.
    #[error("{what} is {value:#x}, {expected}")]
    Unexpected {
        /// The field.
        what: &'static str,
        /// What it holds.
        value: u64,
        /// What it must hold instead, as a clause.
        expected: &'static str,
    },
}

/// Reads fields in order; each read is checked against what is left.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts reading `bytes`; `what` names the structure in errors.
    #[must_use]
    pub const fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let Some((head, tail)) = self.rest.split_at_checked(count) else {
            return Err(DecodeError::Truncated { what: self.what, needed: count, left: self.rest.len() });
        };
        self.rest = tail;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        Ok(self.bytes(N)?.try_into().expect("bytes(N) returns N bytes"))
    }

    /// The next byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// A little-endian 16-bit field.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    /// A little-endian 32-bit field.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    /// A little-endian 64-bit field.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A big-endian 16-bit field: a port in an offer.
    pub fn u16_be(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    /// A big-endian 64-bit field: the KDNET inner header.
    pub fn u64_be(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Everything not read yet.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// How many bytes are not read yet.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.rest.len()
    }
}

/// Appends fields in order; the counterpart of [`Reader`].
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Starts appending to `out`.
    pub const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    /// A little-endian 16-bit field.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A little-endian 32-bit field.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A little-endian 64-bit field.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A big-endian 16-bit field.
    pub fn u16_be(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    /// A big-endian 64-bit field.
    pub fn u64_be(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }
}

/// A type that stands in a wire structure at a fixed length: what `wire_struct!` builds structures from.
pub trait Field: Sized {
    /// Bytes on the wire.
    const LEN: usize;

    /// Reads the field.
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// Appends the field.
    fn write(&self, writer: &mut Writer<'_>);
}

macro_rules! integer_field {
    ($($type:ident)*) => {$(
        impl Field for $type {
            const LEN: usize = size_of::<Self>();

            fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                reader.$type()
            }

            fn write(&self, writer: &mut Writer<'_>) {
                writer.$type(*self);
            }
        }
    )*};
}

integer_field!(u8 u16 u32 u64);

impl<T: Field + Copy + Default, const N: usize> Field for [T; N] {
    const LEN: usize = N * T::LEN;

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut items = [T::default(); N];
        for item in &mut items {
            *item = T::read(reader)?;
        }
        Ok(items)
    }

    fn write(&self, writer: &mut Writer<'_>) {
        for item in self {
            item.write(writer);
        }
    }
}

/// Makes a one-field tuple struct a [`Field`] of its inner type's length.
macro_rules! newtype_field {
    ($($type:ident($inner:ident)),*) => {$(
        impl $crate::wire::Field for $type {
            const LEN: usize = size_of::<$inner>();

            fn read(
                reader: &mut $crate::wire::Reader<'_>,
            ) -> Result<Self, $crate::wire::DecodeError> {
                reader.$inner().map(Self)
            }

            fn write(&self, writer: &mut $crate::wire::Writer<'_>) {
                writer.$inner(self.0);
            }
        }
    )*};
}
pub(crate) use newtype_field;

newtype_field!(VirtAddr(u64), PhysAddr(u64));

/// Defines a wire structure whose fields lie one after another, little-endian, without gaps: the field list is the
/// layout. Gives it `LEN`, `decode` and `encode`.
macro_rules! wire_struct {
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type),*
        }

        impl $name {
            /// Bytes on the wire.
            pub const LEN: usize = 0 $(+ <$type as $crate::wire::Field>::LEN)*;

            /// Reads the structure, field by field.
            ///
            /// # Errors
            /// [`DecodeError::Truncated`]($crate::wire::DecodeError::Truncated) if it is cut short.
            pub fn decode(
                reader: &mut $crate::wire::Reader<'_>,
            ) -> Result<Self, $crate::wire::DecodeError> {
                Ok(Self { $($field: $crate::wire::Field::read(reader)?),* })
            }

            /// Appends the structure, field by field.
            pub fn encode(&self, writer: &mut $crate::wire::Writer<'_>) {
                $($crate::wire::Field::write(&self.$field, writer);)*
            }
        }
    };
}
pub(crate) use wire_struct;

/// Defines a number with known names that survives unknown values: `Debug` and `Display` print the name; of others `Debug`
/// prints `Type(0x..)`, and `Display`, which people read, the number. A target newer than this crate sends numbers it does not know; they must print and round-trip.
macro_rules! open_enum {
    ($(#[$doc:meta])* pub struct $name:ident($inner:ident) { $($(#[$value_doc:meta])* $value:ident = $number:expr => $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl $name {
            $($(#[$value_doc])* pub const $value: Self = Self($number);)*

            /// The name of a known value.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($text),)*
                    _ => None,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{:#x}", self.0),
                }
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, concat!(stringify!($name), "({:#x})"), self.0),
                }
            }
        }

        $crate::wire::newtype_field!($name($inner));
    };
}
pub(crate) use open_enum;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_past_the_end_says_what_was_missing() {
        let mut reader = Reader::new("inner header", &[1, 2, 3]);
        assert_eq!(reader.u16(), Ok(0x0201));
        assert_eq!(reader.u32(), Err(DecodeError::Truncated { what: "inner header", needed: 4, left: 1 }),);
        assert_eq!(reader.rest(), [3], "a failed read consumes nothing");
    }
}
