//! Checked cursors over wire bytes: nothing here panics, nothing allocates more than it was given.
//!
//! KD fields are little-endian; only the KDNET inner header and the offer's ports are big-endian.

/// A structure that ended before its fields did, or a field whose value cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
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
