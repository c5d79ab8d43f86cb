//! `pooltag.txt`: what people know of tags, where the user has the file.
//!
//! ```text
//!  rem  a comment
//!  Leak - myfault.sys - Notmyfault leaks
//!  CM?? - nt!cm       - Internal Configuration manager allocations
//! ```
//! It comes with Microsoft's debuggers and may not be passed on alone, so none is built in. Looked for: the file that `VERIKD_POOLTAG`
//! names, then `pooltag.txt` in the folders of the symbol path.
//!
//! Source: pool.md 2.5.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::pattern::fits;
use super::tag::PoolTag;
use crate::output::screened;
use crate::target::{SymbolPart, Target};

/// Longest file that is read.
const MAX_LEN: u64 = 16 << 20;
/// Longest line that is one of the table.
const MAX_LINE: usize = 1024;

/// What a file says of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TagText {
    /// What is allocated with it.
    pub(super) description: String,
    /// Who does: a file, or a part of the kernel; nothing where the file doesn't say.
    pub(super) binary: Option<String>,
}

/// A file's lines.
#[derive(Debug, Default)]
struct TagFile {
    exact: HashMap<PoolTag, TagText>,
    /// Tags with wildcards, the longest literal start first.
    patterns: Vec<(String, TagText)>,
    /// Lines that are none of the table.
    skipped: usize,
}

/// What is known of tags: the file that was found, if any.
#[derive(Debug)]
pub(super) struct TagTexts(Option<TagFile>);

impl TagTexts {
    /// Those of the user's file, which is read once a boot.
    pub(super) fn of(target: &Target<'_>) -> Arc<Self> {
        target.kernel().kept::<Self>().unwrap_or_else(|| {
            let found = places(target).iter().find_map(|path| TagFile::read(path));
            target.kernel().keep(Self(found))
        })
    }

    /// What the file says of `tag`.
    pub(super) fn find(&self, tag: PoolTag) -> Option<&TagText> {
        self.0.as_ref()?.find(tag)
    }
}

impl TagFile {
    fn read(path: &Path) -> Option<Self> {
        let len = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?.len();
        let bytes = std::fs::read(path).ok().filter(|_| len <= MAX_LEN)?;
        Some(Self::parse(&String::from_utf8_lossy(&bytes)))
    }

    fn parse(text: &str) -> Self {
        let mut file = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let is_comment = line.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("rem"))
                && line[3..].chars().next().is_none_or(char::is_whitespace);
            if is_comment {
                continue;
            }
            match entry(line) {
                Some((tag, text)) if tag.contains(['*', '?']) => file.patterns.push((tag.to_owned(), text)),
                Some((tag, text)) => match PoolTag::parse(tag) {
                    Some(tag) => {
                        file.exact.entry(tag).or_insert(text);
                    }
                    None => file.skipped += 1,
                },
                None => file.skipped += 1,
            }
        }
        let literal = |pattern: &str| pattern.bytes().filter(|byte| !b"*?".contains(byte)).count();
        file.patterns.sort_by_key(|(pattern, _)| std::cmp::Reverse(literal(pattern)));
        file
    }

    /// What the file says of `tag`.
    fn find(&self, tag: PoolTag) -> Option<&TagText> {
        let fitting = || self.patterns.iter().find(|(pattern, _)| fits(pattern.as_bytes(), &tag.bytes()));
        self.exact.get(&tag).or_else(|| fitting().map(|(_, text)| text))
    }
}

/// Tag and text of a line `TAG - BINARY - DESCRIPTION`.
fn entry(line: &str) -> Option<(&str, TagText)> {
    let fields = line.get(..line.len().min(MAX_LINE))?;
    let (tag, rest) = fields.split_once(" - ").or_else(|| fields.split_once(" -"))?;
    let (binary, description) = rest.split_once(" - ").unwrap_or(("", rest));
    let tag = tag.trim();
    let is_tag = !tag.is_empty() && tag.len() <= 4 && tag.bytes().all(|byte| byte.is_ascii_graphic());
    let binary = Some(binary.trim()).filter(|binary| !binary.is_empty() && *binary != "<unknown>");
    let text = TagText { description: screened(description.trim()), binary: binary.map(screened) };
    is_tag.then_some((tag, text))
}

/// Where a file may be.
fn places(target: &Target<'_>) -> Vec<PathBuf> {
    let own = std::env::var_os("VERIKD_POOLTAG").map(PathBuf::from);
    let path = target.kernel().symbol_source().path();
    let folders = path.parts().iter().filter_map(|part| match part {
        SymbolPart::Folder(folder) => Some(folder.join("pooltag.txt")),
        SymbolPart::Chain(_) | SymbolPart::Cache(_) => None,
    });
    own.into_iter().chain(folders).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_microsofts_file_has_them() {
        let file = TagFile::parse(
            "rem comment\nREM\n\n 8042 - i8042prt.sys - PS/2 kb and mouse\nLeak - <unknown> - a - b\nCM?? - nt!cm - Internal\n\
             CM25 - nt!cm - exact\nC* -  - anything\nno entry\ntoolong - x - y\nRemo - a.sys - no comment\n",
        );
        let find = |tag: &str| file.find(PoolTag::parse(tag).unwrap()).cloned();
        let text = |description: &str, binary: Option<&str>| {
            Some(TagText { description: description.into(), binary: binary.map(Into::into) })
        };
        assert_eq!(find("8042"), text("PS/2 kb and mouse", Some("i8042prt.sys")));
        assert_eq!(find("Leak"), text("a - b", None));
        assert_eq!(find("CM25"), text("exact", Some("nt!cm")));
        assert_eq!(find("CM31"), text("Internal", Some("nt!cm")));
        assert_eq!(find("Cx"), text("anything", None));
        assert_eq!(find("Remo"), text("no comment", Some("a.sys")));
        assert_eq!((find("leak"), file.skipped), (None, 2));
    }
}
