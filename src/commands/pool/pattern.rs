//! Which tags are meant: one, or all that fit a pattern.

use super::tag::PoolTag;

/// Which tags are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TagPattern {
    /// Every one.
    #[default]
    All,
    /// This one.
    One(PoolTag),
    /// Those that fit: `*` any characters, `?` any one. Case counts.
    Fitting(String),
}

impl TagPattern {
    /// What the user's text means.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::All);
        }
        if !text.contains(['*', '?']) {
            return PoolTag::parse(text).map(Self::One).ok_or_else(|| {
                format!("`{text}` is no tag: a tag has four characters of ASCII at the most")
            });
        }
        let wanted = text.chars().filter(|c| *c != '*').count();
        if wanted > 4 {
            return Err(format!("`{text}` fits no tag: a tag has four characters"));
        }
        if text.contains('*') || wanted == 4 {
            return Ok(Self::Fitting(text.to_owned()));
        }
        // As a tag is, so is a pattern filled up with blanks.
        Ok(Self::Fitting(format!("{text:<4}")))
    }

    /// True if it means `tag`.
    pub(super) fn fits(&self, tag: PoolTag) -> bool {
        match self {
            Self::All => true,
            Self::One(one) => *one == tag,
            Self::Fitting(pattern) => fits(pattern.as_bytes(), &tag.bytes()),
        }
    }
}

/// Of four bytes: as deep as a pattern of at most four characters and some `*` goes.
pub(super) fn fits(pattern: &[u8], tag: &[u8]) -> bool {
    match (pattern, tag) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => {
            (0..=tag.len()).any(|skipped| fits(rest.trim_ascii_start_stars(), &tag[skipped..]))
        }
        ([b'?', rest @ ..], [_, behind @ ..]) => fits(rest, behind),
        ([wanted, rest @ ..], [byte, behind @ ..]) => wanted == byte && fits(rest, behind),
        _ => false,
    }
}

/// Several `*` in a row mean no more than one, and must not cost more.
trait Stars {
    fn trim_ascii_start_stars(&self) -> &Self;
}

impl Stars for [u8] {
    fn trim_ascii_start_stars(&self) -> &Self {
        let stars = self.iter().take_while(|byte| **byte == b'*').count();
        &self[stars..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_windbg_has_them() {
        let fits =
            |pattern: &str, tag: &str| TagPattern::parse(pattern).unwrap().fits(PoolTag::parse(tag).unwrap());
        for (pattern, tag, expected) in [
            ("*", "Leak", true),
            ("*eak", "Leak", true),
            ("?eak", "Leak", true),
            ("L*k", "Leak", true),
            ("L**?", "Leak", true),
            ("leak", "Leak", false),
            ("?ea", "Leak", false),
            ("Mm", "Mm  ", true),
            ("?m", "Mm  ", true),
            ("Mm*", "MmCa", true),
            ("*M", "MmCa", false),
        ] {
            assert_eq!(fits(pattern, tag), expected, "{pattern} {tag}");
        }
        for wrong in ["Leaks", "?????", "a*bcde", ""] {
            assert!(TagPattern::parse(wrong).is_err(), "{wrong}");
        }
        assert!(!fits(&("*".repeat(4000) + "x"), "Leak"));
    }
}
