//! `pooltag.txt`: what people know of tags, where the user has the file.
//!
//! ```text
//!  rem  a comment
//!  Leak - myfault.sys - Notmyfault leaks
//!  CM?? - nt!cm       - Internal Configuration manager allocations
//! ```
//! It comes with Microsoft's debuggers and may not be passed on alone, so none is built in. The first of these is read:
//!
//! ```text
//!  !pooltag -t FILE                       for this boot
//!  VERIKD_POOLTAG                         the file that it names
//!  FOLDER\pooltag.txt, FOLDER\triage\pooltag.txt    for each folder of the symbol path
//!  Windows Kits\10\Debuggers\ARCH\triage\pooltag.txt  where Microsoft's debuggers are installed
//! ```
//!
//! Source: pool.md 2.5.

use std::collections::HashMap;
use std::ffi::OsString;
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
#[derive(Debug, Default)]
pub(super) struct TagTexts {
    file: TagFile,
    /// Nothing if none was found.
    path: Option<PathBuf>,
}

impl TagTexts {
    /// Those of the user's file, which is read once a boot.
    pub(super) fn of(target: &Target<'_>) -> Arc<Self> {
        target.kernel().kept::<Self>().unwrap_or_else(|| {
            let variable = |name: &str| std::env::var_os(name);
            let found = places(target.kernel().symbol_source().path().parts(), variable)
                .into_iter()
                .find_map(|path| Some(Self { file: TagFile::read(&path).ok()?, path: Some(path) }));
            target.kernel().keep(found.unwrap_or_default())
        })
    }

    /// Those of another file, for the rest of the boot.
    ///
    /// # Errors
    /// What is wrong with the file, as a sentence.
    pub(super) fn take(target: &Target<'_>, path: &Path) -> Result<Arc<Self>, String> {
        let file = TagFile::read(path)?;
        if file.exact.is_empty() && file.patterns.is_empty() {
            return Err(
                "it has no line of the form `TAG - BINARY - DESCRIPTION`, as pooltag.txt has them".to_owned()
            );
        }
        Ok(target.kernel().keep(Self { file, path: Some(path.to_owned()) }))
    }

    /// What the file says of `tag`.
    pub(super) fn find(&self, tag: PoolTag) -> Option<&TagText> {
        self.file.find(tag)
    }

    /// The file; nothing if none was found.
    pub(super) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Lines of it that are not of the form that all others have.
    pub(super) const fn skipped(&self) -> usize {
        self.file.skipped
    }
}

impl TagFile {
    fn read(path: &Path) -> Result<Self, String> {
        let found = std::fs::metadata(path).map_err(|error| error.to_string())?;
        if !found.is_file() {
            return Err("it is no file".to_owned());
        }
        if found.len() > MAX_LEN {
            return Err(format!("it has more than {} MiB, which no pooltag.txt has", MAX_LEN >> 20));
        }
        let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
        Ok(Self::parse(&String::from_utf8_lossy(&bytes)))
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

/// Where a file may be, in the order in which it is looked for; `variable` is the environment's.
fn places(parts: &[SymbolPart], variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    const NAME: &str = "pooltag.txt";
    let own = variable("VERIKD_POOLTAG").map(PathBuf::from);
    let folders = parts.iter().filter_map(|part| match part {
        SymbolPart::Folder(folder) => Some(folder),
        SymbolPart::Chain(_) | SymbolPart::Cache(_) => None,
    });
    let named = folders.flat_map(|folder| [folder.join(NAME), folder.join("triage").join(NAME)]);
    let programs = ["ProgramFiles(x86)", "ProgramFiles"].into_iter().filter_map(variable);
    let installed = programs.flat_map(|programs| {
        ["x64", "arm64", "x86"].map(|arch| {
            let kits = Path::new(&programs).join("Windows Kits").join("10").join("Debuggers");
            kits.join(arch).join("triage").join(NAME)
        })
    });
    own.into_iter().chain(named).chain(installed).collect()
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

    #[test]
    fn files_are_looked_for_where_people_have_them() {
        let parts = [SymbolPart::Folder("/symbols".into()), SymbolPart::Cache("/cache".into())];
        let variable = |name: &str| match name {
            "VERIKD_POOLTAG" => Some("/own/tags".into()),
            "ProgramFiles(x86)" => Some("/programs".into()),
            _ => None,
        };
        let found: Vec<_> = places(&parts, variable);
        let expected = [
            "/own/tags",
            "/symbols/pooltag.txt",
            "/symbols/triage/pooltag.txt",
            "/programs/Windows Kits/10/Debuggers/x64/triage/pooltag.txt",
            "/programs/Windows Kits/10/Debuggers/arm64/triage/pooltag.txt",
            "/programs/Windows Kits/10/Debuggers/x86/triage/pooltag.txt",
        ];
        assert_eq!(found, expected.map(PathBuf::from));
        assert_eq!(places(&[], |_| None), [] as [PathBuf; 0]);
    }

    #[test]
    fn what_is_no_such_file_is_said() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(TagFile::read(folder.path()).unwrap_err(), "it is no file");
        let large = folder.path().join("large");
        std::fs::File::create(&large).unwrap().set_len(MAX_LEN + 1).unwrap();
        assert!(TagFile::read(&large).unwrap_err().contains("more than 16 MiB"));
        assert!(TagFile::read(&folder.path().join("none")).is_err());
    }
}
