//! The text of an ISF file, whatever it is compressed with.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;

use crate::symbols::error::SymbolError;

/// Longest text read; a kernel's has 3 to 8 MB.
const MAX_TEXT: u64 = 64 << 20;
/// Memory for decompression in KiB; `xz -9` needs 65 MiB.
const MAX_DECODER_KIB: u32 = 96 << 10;

/// What the file is compressed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    Xz,
    Gzip,
}

impl Kind {
    /// Told by the first bytes, since names can be anything.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        if head.starts_with(b"\xfd7zXZ\0") {
            return Some(Self::Xz);
        }
        if head.starts_with(b"\x1f\x8b") {
            return Some(Self::Gzip);
        }
        head.trim_ascii_start().starts_with(b"{").then_some(Self::Plain)
    }
}

/// Reads and decompresses the file at `path`.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, SymbolError> {
    let io = |source| SymbolError::Io { file: path.to_owned(), source };
    let not = |what| SymbolError::NotSymbols { file: path.to_owned(), what };
    let file = File::open(path).map_err(io)?;
    if !file.metadata().map_err(io)?.is_file() {
        return Err(not("not a file"));
    }
    let mut reader = BufReader::new(file);
    let mut head = Vec::new();
    reader.by_ref().take(64).read_to_end(&mut head).map_err(io)?;
    let kind = Kind::of(&head).ok_or_else(|| not("neither JSON nor compressed with xz or gzip"))?;
    decompress(kind, head.as_slice().chain(reader)).map_err(|error| SymbolError::Damaged {
        file: path.to_owned(),
        reading: match kind {
            Kind::Plain => "text",
            Kind::Xz => "xz stream",
            Kind::Gzip => "gzip stream",
        },
        wrong: error.to_string(),
    })
}

/// At most `MAX_TEXT` bytes of text; more is an error.
pub(super) fn decompress(kind: Kind, reader: impl Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    match kind {
        Kind::Plain => reader.take(MAX_TEXT + 1).read_to_end(&mut text),
        Kind::Xz => {
            XzReader::new_mem_limit(reader, true, MAX_DECODER_KIB).take(MAX_TEXT + 1).read_to_end(&mut text)
        }
        Kind::Gzip => MultiGzDecoder::new(reader).take(MAX_TEXT + 1).read_to_end(&mut text),
    }?;
    if text.len() as u64 > MAX_TEXT {
        return Err(io::Error::other(format!("it has more than {MAX_TEXT:#x} bytes of text")));
    }
    Ok(text)
}
