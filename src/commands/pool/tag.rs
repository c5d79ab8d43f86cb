//! A pool tag: four characters, in the order in which they lie in memory.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::target::Target;

/// In a tag's last character, up to Windows 7: the block may be freed with its tag only.
pub(super) const PROTECTED: u32 = 0x8000_0000;
/// The first build without it.
const WITHOUT_PROTECTED: u16 = 9200;

/// A pool tag, as the number that its four characters are in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolTag(pub u32);

impl PoolTag {
    /// The tag of up to four characters of ASCII; blanks fill up what is missing, as a driver would have to write it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [b' '; 4];
        let is_tag = text.is_ascii() && !text.is_empty();
        bytes.get_mut(..text.len()).filter(|_| is_tag)?.copy_from_slice(text.as_bytes());
        Some(Self(u32::from_le_bytes(bytes)))
    }

    /// The one tag that the user's text means: its characters, or its number.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn named(text: &str) -> Result<Self, String> {
        if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            let number = u32::from_str_radix(digits, 16).ok().filter(|number| *number != 0);
            return number.map(Self).ok_or_else(|| format!("`{text}` is no number of a tag"));
        }
        let tag = Self::parse(text)
            .ok_or_else(|| format!("`{text}` is no tag: a tag has four characters of ASCII at the most"));
        if text.contains(['*', '?']) {
            let number =
                tag.map_or_else(|_| String::new(), |tag| format!(", and {:#x} is that very tag", tag.0));
            return Err(format!(
                "`{text}`: one tag is wanted; `!poolused 0 {text}` lists those that fit{number}"
            ));
        }
        tag
    }

    /// The bits of a tag that are the tag itself in this kernel.
    pub(super) fn bits_of(target: &Target<'_>) -> u32 {
        if target.kernel().version().build < WITHOUT_PROTECTED { !PROTECTED } else { u32::MAX }
    }

    /// Its characters.
    #[must_use]
    pub const fn bytes(self) -> [u8; 4] {
        self.0.to_le_bytes()
    }
}

/// As text is: by the first character, then the second.
impl Ord for PoolTag {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.bytes().cmp(&other.bytes())
    }
}

impl PartialOrd for PoolTag {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// What cannot be printed shows as a dot.
impl fmt::Display for PoolTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |byte: u8| if (b' '..=b'~').contains(&byte) { char::from(byte) } else { '.' };
        f.pad(&self.bytes().map(shown).iter().collect::<String>())
    }
}

impl Serialize for PoolTag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl schemars::JsonSchema for PoolTag {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PoolTag".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        String::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_its_bytes_in_memory_order() {
        let leak = PoolTag::parse("Leak").unwrap();
        assert_eq!((leak.0, leak.to_string()), (0x6b61_654c, "Leak".to_owned()));
        assert_eq!(PoolTag::parse("Mm").unwrap().to_string(), "Mm  ");
        assert_eq!(PoolTag(0x0769_6d57).to_string(), "Wmi.");
        for wrong in ["", "Leaks", "Lé", "é"] {
            assert_eq!(PoolTag::parse(wrong), None, "{wrong}");
        }
        for (text, tag) in [("Leak", leak), ("0x6b61654c", leak), ("0X6B61654C", leak)] {
            assert_eq!(PoolTag::named(text), Ok(tag));
        }
        for (wrong, problem) in [
            ("L*", "!poolused 0 L*` lists those that fit, and 0x20202a4c is that very tag"),
            ("Lea?", "lists those"),
            ("Leaks*", "lists those that fit"),
            ("0x0", "no number of a tag"),
            ("0x", "no number of a tag"),
            ("", "no tag"),
            ("Leaks", "four characters"),
        ] {
            assert!(PoolTag::named(wrong).unwrap_err().contains(problem), "{wrong}");
        }
        assert!(PoolTag::parse("Ab").unwrap() < PoolTag::parse("Ba").unwrap(), "not as numbers");
    }
}
