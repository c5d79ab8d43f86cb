//! Names of files in the target: bounded, and cut where they can no longer be one.

use super::utf16::utf16;

/// Longest name that a file system has, in bytes of UTF-16.
const LONGEST: usize = 255 * 2;
/// What is shown of a longer one, in bytes.
const SHOWN: usize = 64 * 2;

/// A file's name as a `_UNICODE_STRING` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileName {
    /// The name; of one that is longer than any file's its beginning, up to what no name has.
    pub text: String,
    /// Its length in bytes, if that is more than any file's name has: it is damaged.
    pub absurd_length: Option<usize>,
}

impl FileName {
    /// How many of the `length` bytes are to be read.
    pub(super) const fn bytes_to_read(length: usize) -> usize {
        if length > LONGEST { SHOWN } else { length & !1 }
    }

    /// The name of `length` bytes, of which these were read.
    pub(super) fn new(bytes: &[u8], length: usize) -> Self {
        let whole = utf16(bytes);
        if length <= LONGEST {
            return Self { text: whole, absurd_length: None };
        }
        let is_end =
            |c: char| c.is_control() || r#"\/:*?"<>|"#.contains(c) || c == char::REPLACEMENT_CHARACTER;
        let text = whole.split(is_end).next().unwrap_or_default().to_owned();
        Self { text, absurd_length: Some(length) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str, length: usize) -> FileName {
        let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        FileName::new(&bytes[..bytes.len().min(FileName::bytes_to_read(length))], length)
    }

    #[test]
    fn a_name_of_absurd_length_is_cut_where_no_name_goes_on() {
        let absurd = |text: &str| FileName { text: text.to_owned(), absurd_length: Some(0xffff) };
        assert_eq!(name("netfilt.sys\0\0\u{1b}[2J", 0xffff), absurd("netfilt.sys"));
        assert_eq!(name(r"\Driver", 0xffff), absurd(""));
        assert_eq!(name(&"x".repeat(300), 0xffff), absurd(&"x".repeat(64)));
        let longest = "y".repeat(255);
        assert_eq!(name(&longest, 510), FileName { text: longest, absurd_length: None });
    }
}
