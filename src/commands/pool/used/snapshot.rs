//! What tags held at a moment, as a file: `!poolused -save FILE`, and what `!poolused -d FILE` compares with.
//!
//! JSON, with the form and its version first. A file has its name only once it is whole; one that is damaged, of another program or
//! of a newer one is refused with a sentence that says which it is.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::row::{PoolSide, TagRow};
use crate::commands::pool::tag::PoolTag;
use crate::leaks::{BootIdentity, HexNumber, SameBoot};
use crate::output::whole_file;

const FORMAT: &str = "verikd pool tags";
/// The version that this program writes, and the newest that it reads.
const VERSION: u32 = 1;
/// Most bytes of a file that is read: some hundred thousand tags.
const LARGEST: u64 = 64 << 20;

/// What every tag held at a moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PoolSnapshot {
    /// Always `verikd pool tags`.
    pub format: String,
    /// The version of this form: it grows when something goes or changes.
    pub version: u32,
    /// The program that wrote it.
    pub program: String,
    /// When it was made: milliseconds since 1970.
    pub unix_ms: u64,
    /// Which boot of which kernel.
    pub boot: BootIdentity,
    /// One for each tag, those that hold nothing too.
    pub tags: Vec<SavedTag>,
}

/// What one tag held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SavedTag {
    /// As the number that it is in memory.
    pub tag: HexNumber,
    /// The same for people: what is not printable is a dot.
    pub text: String,
    /// Nonpaged pool.
    pub nonpaged: PoolSide,
    /// Paged pool.
    pub paged: PoolSide,
}

/// The part that every version has.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
    #[serde(default)]
    program: String,
}

impl PoolSnapshot {
    /// Of these rows.
    pub(super) fn of(rows: &[TagRow], boot: BootIdentity, unix_ms: u64) -> Self {
        let tag = |row: &TagRow| SavedTag {
            tag: HexNumber(row.tag_hex.into()),
            text: row.tag.to_string(),
            nonpaged: row.nonpaged,
            paged: row.paged,
        };
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            program: concat!("verikd ", env!("CARGO_PKG_VERSION")).to_owned(),
            unix_ms,
            boot,
            tags: rows.iter().map(tag).collect(),
        }
    }

    /// What it has of each tag: nonpaged and paged pool.
    pub(super) fn by_tag(&self) -> BTreeMap<PoolTag, [PoolSide; 2]> {
        let of = |saved: &SavedTag| (PoolTag(saved.tag.0 as u32), [saved.nonpaged, saved.paged]);
        self.tags.iter().map(of).collect()
    }

    /// True if it is of this very boot, as far as that is known: counters go on then.
    pub(super) fn is_of(&self, boot: &BootIdentity) -> bool {
        self.boot.is_same(boot) != SameBoot::No
    }

    /// Writes it.
    ///
    /// # Errors
    /// The system's; no file of this name is there then that was not there before.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        whole_file(path, |out| {
            serde_json::to_writer(&mut *out, self)?;
            out.write_all(b"\n")
        })
    }

    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with the file, as a sentence.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let mut text = Vec::new();
        let read = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut text));
        read.map_err(|error| error.to_string())?;
        if text.len() as u64 > LARGEST {
            return Err(format!(
                "it has more than {} MiB, which no snapshot of pool tags has",
                LARGEST >> 20
            ));
        }
        Self::parse(&text)
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let foreign = |why: String| format!("this is no snapshot of `!poolused -save`: {why}");
        let damaged = |error: serde_json::Error| format!("the snapshot is damaged, or cut off: {error}");
        let head: Head = serde_json::from_slice(text).map_err(|error| {
            let is_cut = error.is_eof() && !text.is_empty();
            if is_cut { damaged(error) } else { foreign(error.to_string()) }
        })?;
        if head.format != FORMAT {
            return Err(foreign(format!("its format is {:?}", head.format)));
        }
        if head.version > VERSION {
            return Err(format!(
                "the snapshot is of version {}, written by {}; this program reads up to {VERSION}: a newer verikd reads it",
                head.version, head.program
            ));
        }
        let snapshot: Self = serde_json::from_slice(text).map_err(damaged)?;
        match snapshot.tags.iter().find(|saved| u32::try_from(saved.tag.0).is_err()) {
            Some(wrong) => Err(format!("the snapshot is damaged: {} is no tag", wrong.tag)),
            None => Ok(snapshot),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> PoolSnapshot {
        let side = PoolSide { allocs: 11, frees: 1, outstanding: 10, bytes: 10_280_960 };
        let boot = BootIdentity { build: 7601, kernel_base: HexNumber(7), boot_time: Some(HexNumber(9)) };
        let row = TagRow {
            tag: PoolTag(0x6b61_654c),
            tag_hex: 0x6b61_654c,
            nonpaged: side,
            paged: PoolSide { bytes: -16, ..PoolSide::default() },
            description: None,
            binary: None,
        };
        PoolSnapshot::of(&[row], boot, 7)
    }

    #[test]
    fn a_snapshot_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tags.json");
        snapshot().write(&path).unwrap();
        assert_eq!(PoolSnapshot::read(&path).unwrap(), snapshot());
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "nothing else is left behind");
        assert_eq!(snapshot().by_tag()[&PoolTag(0x6b61_654c)][1].bytes, -16);
        assert!(PoolSnapshot::read(&folder.path().join("none")).is_err());
        let other = BootIdentity { boot_time: Some(HexNumber(1 << 60)), ..snapshot().boot };
        assert!(snapshot().is_of(&snapshot().boot) && !snapshot().is_of(&other));
    }

    #[test]
    fn what_is_no_snapshot_is_named() {
        let text = serde_json::to_string(&snapshot()).unwrap();
        let error = |text: &str| PoolSnapshot::parse(text.as_bytes()).unwrap_err();
        for (wrong, part) in [
            (String::new(), "this is no snapshot of `!poolused -save`"),
            ("{}".to_owned(), "this is no snapshot of `!poolused -save`"),
            (text.replace(FORMAT, "verikd leaks"), "its format is \"verikd leaks\""),
            (text.replace("\"version\":1", "\"version\":2"), "a newer verikd reads it"),
            (text.replace("\"unix_ms\":7", "\"unix_ms\":\"x\""), "damaged"),
            (text.replace("0x6b61654c", "0x16b61654c"), "0x16b61654c is no tag"),
            (text[..text.len() - 9].to_owned(), "damaged, or cut off"),
        ] {
            assert!(error(&wrong).contains(part), "{part}: {}", error(&wrong));
        }
        for len in 0..text.len() {
            assert!(PoolSnapshot::parse(&text.as_bytes()[..len]).is_err(), "{len} bytes");
        }
    }
}
