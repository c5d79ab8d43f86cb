//! Snapshots as files: JSON, compressed where the name says so. A file has its final name only once it is whole.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde::Deserialize;

use super::snapshot::{FORMAT, Snapshot, VERSION};
use crate::output::whole_file;

/// Most bytes of a snapshot's JSON: some four million blocks.
const LARGEST: u64 = 1 << 30;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Why a snapshot cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The file cannot be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is no snapshot.
    #[error("this is no snapshot of `!leaks -save`: {0}")]
    NotASnapshot(String),
    /// It is damaged.
    #[error("the snapshot is damaged, or cut off: {0}")]
    Damaged(String),
    /// It was written by a newer program.
    #[error(
        "the snapshot is of version {found}, written by {program}; this program reads up to {VERSION}: a newer verikd reads it"
    )]
    Newer {
        /// Its version.
        found: u32,
        /// The program that wrote it.
        program: String,
    },
    /// It has more bytes than any that this program writes.
    #[error("the snapshot has more than {} MiB", LARGEST >> 20)]
    TooLarge,
}

/// The part that every version has.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
    #[serde(default)]
    program: String,
}

/// Reads a snapshot, compressed or not: its first bytes tell.
///
/// # Errors
/// [`SnapshotError`].
pub fn read(path: &Path) -> Result<Snapshot, SnapshotError> {
    let mut file = BufReader::new(File::open(path)?);
    let mut magic = Vec::new();
    file.by_ref().take(4).read_to_end(&mut magic)?;
    let whole = io::Cursor::new(magic.clone()).chain(file);
    let mut text = Vec::new();
    let mut limited: Box<dyn Read> = if magic.starts_with(&ZSTD_MAGIC) {
        Box::new(zstd::Decoder::new(whole)?.take(LARGEST + 1))
    } else if magic.starts_with(&GZIP_MAGIC) {
        Box::new(MultiGzDecoder::new(whole).take(LARGEST + 1))
    } else {
        Box::new(whole.take(LARGEST + 1))
    };
    limited.read_to_end(&mut text).map_err(|error| SnapshotError::Damaged(error.to_string()))?;
    if text.len() as u64 > LARGEST {
        return Err(SnapshotError::TooLarge);
    }
    parse(&text)
}

fn parse(text: &[u8]) -> Result<Snapshot, SnapshotError> {
    let head: Head = match serde_json::from_slice(text) {
        Ok(head) => head,
        Err(error) if error.is_eof() && !text.is_empty() => {
            return Err(SnapshotError::Damaged(error.to_string()));
        }
        Err(error) => return Err(SnapshotError::NotASnapshot(error.to_string())),
    };
    if head.format != FORMAT {
        return Err(SnapshotError::NotASnapshot(format!("its format is {:?}", head.format)));
    }
    if head.version > VERSION {
        return Err(SnapshotError::Newer { found: head.version, program: head.program });
    }
    serde_json::from_slice(text).map_err(|error| SnapshotError::Damaged(error.to_string()))
}

/// Writes a snapshot, compressed if the name ends in `.gz` or `.zst`.
///
/// # Errors
/// [`SnapshotError::Io`]; no file of this name is there then that was not there before.
pub fn write(snapshot: &Snapshot, path: &Path) -> Result<(), SnapshotError> {
    let extension = path.extension().and_then(|it| it.to_str()).unwrap_or_default();
    whole_file(path, |file| {
        let json = |out: &mut dyn Write| -> io::Result<()> {
            serde_json::to_writer(&mut *out, snapshot)?;
            out.write_all(b"\n")
        };
        match extension {
            "zst" => {
                let mut encoder = zstd::Encoder::new(file, 0)?;
                json(&mut encoder)?;
                encoder.finish().map(drop)
            }
            "gz" => {
                let mut encoder = GzEncoder::new(file, Compression::default());
                json(&mut encoder)?;
                encoder.finish().map(drop)
            }
            _ => json(file),
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> Snapshot {
        Snapshot { program: "verikd 0".into(), unix_ms: 7, notes: vec!["a note".into()], ..Snapshot::empty() }
    }

    #[test]
    fn a_snapshot_is_read_as_it_was_written_compressed_or_not() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.json", "a.json.gz", "a.zst"] {
            let path = folder.path().join(name);
            write(&nothing(), &path).unwrap();
            assert_eq!(read(&path).unwrap(), nothing(), "{name}");
        }
        let mut left: Vec<_> =
            std::fs::read_dir(&folder).unwrap().map(|it| it.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["a.json", "a.json.gz", "a.zst"], "nothing else is left behind");
    }

    #[test]
    fn what_is_no_snapshot_is_named() {
        let text = serde_json::to_string(&nothing()).unwrap();
        let error = |text: &str| parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error("{}").starts_with("this is no snapshot"));
        assert!(error("").starts_with("this is no snapshot"));
        assert!(error(&text[..text.len() / 2]).contains("cut off"));
        assert!(error(&text.replace(FORMAT, "another")).contains("its format is \"another\""));
        let newer = error(&text.replace("\"version\":1", "\"version\":2"));
        assert!(
            newer.contains("version 2, written by verikd 0") && newer.contains("a newer verikd"),
            "{newer}"
        );
        assert!(error(&text.replace("\"unix_ms\":7", "\"unix_ms\":\"x\"")).contains("damaged"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.zst");
        write(&nothing(), &path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for len in 0..bytes.len() {
            std::fs::write(&path, &bytes[..len]).unwrap();
            assert!(read(&path).is_err(), "{len} bytes");
        }
    }
}
