//! What can be asked for.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::leaks::{FileKind, Weight};

/// What makes a group of blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The return addresses behind the allocator's.
    #[default]
    Path,
    /// The first of them.
    Caller,
    /// The pool tag.
    Tag,
    /// The thread that allocated.
    Thread,
    /// The block's size.
    Size,
}

impl By {
    const NAMES: [(&str, Self); 5] = [
        ("path", Self::Path),
        ("caller", Self::Caller),
        ("tag", Self::Tag),
        ("thread", Self::Thread),
        ("size", Self::Size),
    ];

    /// As it is typed.
    ///
    /// # Errors
    /// What can be typed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let named = Self::NAMES.iter().find(|(name, _)| text.eq_ignore_ascii_case(name));
        named.map(|(_, by)| *by).ok_or_else(|| format!("`{text}` is not path, caller, tag, thread or size"))
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Path => "call path",
            Self::Caller => "caller",
            Self::Tag => "tag",
            Self::Thread => "thread",
            Self::Size => "size",
        })
    }
}

/// Asks what drivers hold, and who allocated it.
#[derive(Clone, Debug, Default)]
pub struct LeakQuery {
    /// Only these drivers, as the user named them; all that are verified if there are none.
    pub drivers: Vec<String>,
    /// What makes a group.
    pub by: By,
    /// Only blocks with a tag that fits this pattern.
    pub tag: Option<String>,
    /// Bytes that a group has to have to be shown.
    pub min: u64,
    /// Most groups that are shown.
    pub top: Option<usize>,
    /// Most frames of a call path that are looked at.
    pub depth: Option<usize>,
    /// Patterns of routines that belong to the allocator.
    pub skip: Vec<String>,
    /// Look up every block's stack.
    pub all: bool,
    /// Keep each group's blocks in the report, and print them.
    pub verbose: bool,
    /// Keep each group's blocks in the report.
    pub keep_blocks: bool,
    /// Files that are to be written: the snapshot, and pictures of it.
    pub files: Vec<(FileKind, PathBuf)>,
    /// Print a tree of callers instead of the groups.
    pub tree: bool,
    /// What pictures measure.
    pub weight: Weight,
}

impl LeakQuery {
    /// True if each group's blocks are kept.
    pub(super) fn keeps_blocks(&self) -> bool {
        self.verbose || self.keep_blocks || !self.files.is_empty()
    }

    /// Trackers have callers, tags and sizes; a path and a thread only the log has.
    pub(super) fn needs_stacks(&self) -> bool {
        self.all || self.keeps_blocks() || !matches!(self.by, By::Tag | By::Size)
    }
}

/// True if a tag fits what was typed: in the same case, and `*` and `?` stand for any characters. Blanks at the end of a
/// tag need not be typed.
pub(super) fn fits_tag(pattern: &str, tag: &str) -> bool {
    fn fits(pattern: &[char], tag: &[char]) -> bool {
        match (pattern, tag) {
            ([], []) => true,
            (['*', rest @ ..], _) => fits(rest, tag) || !tag.is_empty() && fits(pattern, &tag[1..]),
            (['?', rest @ ..], [_, others @ ..]) => fits(rest, others),
            ([one, rest @ ..], [other, others @ ..]) => one == other && fits(rest, others),
            _ => false,
        }
    }
    // A tag has four characters: no pattern needs more, and none is slow.
    let pattern: Vec<char> = pattern.trim_end().chars().take(8).collect();
    fits(&pattern, &tag.trim_end().chars().collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_fits_in_its_own_case_and_by_wildcards() {
        for (pattern, tag, is_fitting) in [
            ("Leak", "Leak", true),
            ("leak", "Leak", false),
            ("Le*", "Leak", true),
            ("?eak", "Leak", true),
            ("*", "", true),
            ("Io", "Io  ", true),
            ("I", "Io", false),
            ("Leaks", "Leak", false),
        ] {
            assert_eq!(fits_tag(pattern, tag), is_fitting, "{pattern} {tag}");
        }
    }

    #[test]
    fn what_can_be_grouped_by_is_said() {
        assert_eq!(By::parse("Caller"), Ok(By::Caller));
        assert!(By::parse("stack").unwrap_err().contains("path, caller, tag, thread or size"));
    }
}
