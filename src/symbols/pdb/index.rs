//! What takes long to find out about a PDB, kept in a file so that it is found out once.
//!
//! ```text
//!  ntkrnlmp.pdb --build--> ntkrnlmp.pdb.index      beside it, or else in the platform's cache folder
//!
//!  | head: version, checksum, stamp, rows of each table | sections | entries | names | starts | definitions .. | text |
//!                                                         rva,size   rva,text  hash,   offset   hash, type
//! ```
//! Tables are in order of their first number, so a question reads the few blocks that a binary search meets. An index of
//! another version, or of a PDB of another identity, length or time, is built again. It is written to a temporary name
//! and moved in place, so two processes that build the same one don't meet. It is no more trusted than the PDB: a row
//! that refers to nothing is a question without an answer, never a panic.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::UNIX_EPOCH;

use kd_protocol::wire::Reader;
use ms_pdb::{RandomAccessFile, ReadAt};

use crate::symbols::PdbIdentity;
use crate::symbols::store::default_store;

const MAGIC: &[u8; 8] = b"verikdPX";
/// Changes with the form of the tables and with the hash of names.
const VERSION: u32 = 1;
const HEAD: usize = 92;
/// The checksum covers the head from here on.
const CHECKED_FROM: usize = 16;
const STAMP: usize = 44;
/// A smaller PDB is read in less time than it takes to keep an index of it.
const SMALLEST: u64 = 1 << 20;
/// Bytes read at a time.
const BLOCK: usize = 0x1000;

/// A table of the index; its rows are in order of their first number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    /// Start and size of each section.
    Sections,
    /// RVA, start of the name in the text, length of the name and kind.
    Entries,
    /// Hash of a name, its entry.
    Names,
    /// Where each type record begins.
    Starts,
    /// Hash of a structure's name, its type index.
    Definitions,
    /// Hash of an enumeration's name, its type index.
    Enumerations,
}

/// Numbers in a row of each table.
const WIDTHS: [usize; 6] = [2, 3, 2, 1, 2, 2];

/// Which file an index belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    bytes: [u8; STAMP],
    file_len: u64,
}

impl Stamp {
    pub(super) fn of(path: &Path, identity: &PdbIdentity) -> Option<Self> {
        let metadata = path.metadata().ok()?;
        let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        let mut bytes = [0; STAMP];
        bytes[..16].copy_from_slice(&identity.guid.0);
        bytes[16..20].copy_from_slice(&identity.age.to_le_bytes());
        bytes[20..28].copy_from_slice(&metadata.len().to_le_bytes());
        bytes[28..].copy_from_slice(&modified.as_nanos().to_le_bytes());
        Some(Self { bytes, file_len: metadata.len() })
    }
}

/// The tables of one PDB, in memory or in a file.
#[derive(Debug)]
pub(super) struct Index {
    source: Source,
    /// Writes the file while the first questions are answered already.
    writer: Option<JoinHandle<()>>,
    rows: [u32; WIDTHS.len()],
    /// Bytes of names, at the end.
    text: u32,
    /// Where the last type record ends.
    pub(super) types_end: u32,
}

/// What an index is made of.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) sections: Vec<[u32; 2]>,
    pub(super) entries: Vec<[u32; 3]>,
    pub(super) names: Vec<[u32; 2]>,
    pub(super) starts: Vec<[u32; 1]>,
    pub(super) definitions: Vec<[u32; 2]>,
    pub(super) enumerations: Vec<[u32; 2]>,
    pub(super) text: Vec<u8>,
    pub(super) types_end: u32,
}

enum Source {
    Memory(Arc<Vec<u8>>),
    File { file: RandomAccessFile, blocks: Vec<OnceLock<Option<Box<[u8]>>>>, len: usize },
}

impl Index {
    /// The index of an earlier time, if it still belongs to the PDB at `path`.
    pub(super) fn open(path: &Path, identity: &PdbIdentity, stamp: &Stamp) -> Option<Self> {
        if stamp.file_len < SMALLEST {
            return None;
        }
        [beside(path), elsewhere(path, identity)].iter().find_map(|file| {
            let len = usize::try_from(file.metadata().ok()?.len()).ok()?;
            let file = RandomAccessFile::open(file).ok()?;
            let mut head = [0; HEAD];
            file.read_exact_at(&mut head, 0).ok()?;
            let blocks = || (0..=len / BLOCK).map(|_| OnceLock::new()).collect();
            Self::of_head(&head, len, stamp, || Source::File { file, blocks: blocks(), len })
        })
    }

    /// An index of `contents`, in memory; kept in a file too if that saves time.
    pub(super) fn build(
        contents: &Contents,
        path: &Path,
        identity: &PdbIdentity,
        stamp: Option<&Stamp>,
    ) -> Self {
        let bytes = Arc::new(encode(contents, stamp));
        let places = stamp
            .filter(|stamp| stamp.file_len >= SMALLEST)
            .map(|_| [beside(path), elsewhere(path, identity)]);
        let write = |places: [PathBuf; 2]| {
            let bytes = Arc::clone(&bytes);
            let keep_somewhere = move || {
                // A read-only store, and no cache folder either: nothing is lost but time.
                let _ = places.iter().any(|file| keep(file, &bytes).is_ok());
            };
            std::thread::Builder::new().name("index".into()).spawn(keep_somewhere).ok()
        };
        Self {
            writer: places.and_then(write),
            source: Source::Memory(bytes),
            rows: contents.rows(),
            text: size(contents.text.len()),
            types_end: contents.types_end,
        }
    }

    /// Checks the head of an index of `len` bytes.
    fn of_head(
        head: &[u8; HEAD],
        len: usize,
        stamp: &Stamp,
        source: impl FnOnce() -> Source,
    ) -> Option<Self> {
        let mut reader = Reader::new("index", head);
        let magic = reader.bytes(MAGIC.len()).ok()?;
        let (version, checksum) = (reader.u32().ok()?, reader.u32().ok()?);
        let is_mine =
            magic == MAGIC && version == VERSION && checksum == crc32fast::hash(&head[CHECKED_FROM..]);
        if !is_mine || reader.bytes(STAMP).ok()? != stamp.bytes {
            return None;
        }
        let mut rows = [0; WIDTHS.len()];
        for count in &mut rows {
            *count = reader.u32().ok()?;
        }
        let (text, types_end) = (reader.u32().ok()?, reader.u32().ok()?);
        (text_at(&rows) + u64::from(text) == len as u64).then(|| Self {
            source: source(),
            writer: None,
            rows,
            text,
            types_end,
        })
    }

    /// How many rows `table` has.
    pub(super) fn rows(&self, table: Table) -> usize {
        self.rows[table as usize] as usize
    }

    /// A row of `table`, which has `N` numbers.
    pub(super) fn row<const N: usize>(&self, table: Table, index: usize) -> Option<[u32; N]> {
        debug_assert_eq!(N, WIDTHS[table as usize], "{table:?}");
        if index >= self.rows(table) {
            return None;
        }
        let at = table_at(&self.rows, table as usize) + (index * N * 4) as u64;
        let mut words = [[0; 4]; N];
        self.source.read(at, words.as_flattened_mut())?;
        Some(words.map(u32::from_le_bytes))
    }

    /// The first row of `table` whose first number is not below `least`.
    pub(super) fn first_from<const N: usize>(&self, table: Table, least: u32) -> usize {
        let (mut low, mut high) = (0, self.rows(table));
        while low < high {
            let middle = low + (high - low) / 2;
            match self.row::<N>(table, middle) {
                Some(row) if row[0] < least => low = middle + 1,
                _ => high = middle,
            }
        }
        low
    }

    /// Bytes of the text.
    pub(super) fn text(&self, start: u32, len: u16) -> Option<Vec<u8>> {
        if u64::from(start) + u64::from(len) > self.text.into() {
            return None;
        }
        let mut bytes = vec![0; len.into()];
        self.source.read(text_at(&self.rows) + u64::from(start), &mut bytes)?;
        Some(bytes)
    }
}

/// A program that ends waits for its index, so that no half of one is left.
impl Drop for Index {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Source {
    /// Fills `buf` from the byte at `at` on.
    fn read(&self, at: u64, mut buf: &mut [u8]) -> Option<()> {
        let mut at = usize::try_from(at).ok()?;
        let (file, blocks, len) = match self {
            Self::Memory(bytes) => {
                buf.copy_from_slice(bytes.get(at..)?.get(..buf.len())?);
                return Some(());
            }
            Self::File { file, blocks, len } => (file, blocks, *len),
        };
        while !buf.is_empty() {
            let start = at / BLOCK * BLOCK;
            let block = blocks.get(at / BLOCK)?.get_or_init(|| {
                let mut block = vec![0; BLOCK.min(len.checked_sub(start)?)];
                file.read_exact_at(&mut block, start as u64).ok()?;
                Some(block.into())
            });
            let rest = block.as_ref()?.get(at - start..).filter(|rest| !rest.is_empty())?;
            let part = rest.len().min(buf.len());
            let (now, later) = buf.split_at_mut(part);
            now.copy_from_slice(&rest[..part]);
            (at, buf) = (at + part, later);
        }
        Some(())
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Memory(_) => "Memory",
            Self::File { .. } => "File",
        })
    }
}

impl Contents {
    fn rows(&self) -> [u32; WIDTHS.len()] {
        let lengths = [
            self.sections.len(),
            self.entries.len(),
            self.names.len(),
            self.starts.len(),
            self.definitions.len(),
            self.enumerations.len(),
        ];
        lengths.map(size)
    }
}

fn encode(contents: &Contents, stamp: Option<&Stamp>) -> Vec<u8> {
    let rows = contents.rows();
    let mut bytes = Vec::with_capacity(text_at(&rows) as usize + contents.text.len());
    let numbers = |bytes: &mut Vec<u8>, numbers: &[u32]| {
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    };
    bytes.extend_from_slice(MAGIC);
    numbers(&mut bytes, &[VERSION, 0]);
    bytes.extend_from_slice(stamp.map_or(&[0; STAMP], |stamp| &stamp.bytes));
    numbers(&mut bytes, &rows);
    numbers(&mut bytes, &[size(contents.text.len()), contents.types_end]);
    let checksum = crc32fast::hash(&bytes[CHECKED_FROM..]);
    bytes[CHECKED_FROM - 4..CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
    numbers(&mut bytes, contents.sections.as_flattened());
    numbers(&mut bytes, contents.entries.as_flattened());
    numbers(&mut bytes, contents.names.as_flattened());
    numbers(&mut bytes, contents.starts.as_flattened());
    numbers(&mut bytes, contents.definitions.as_flattened());
    numbers(&mut bytes, contents.enumerations.as_flattened());
    bytes.extend_from_slice(&contents.text);
    bytes
}

fn keep(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or_else(|| Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut part = tempfile::Builder::new().prefix(".index.").tempfile_in(folder)?;
    part.write_all(bytes)?;
    part.persist(file)?;
    Ok(())
}

/// Where the index of the PDB at `path` is kept, if it can be kept there.
pub(super) fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".index");
    path.with_file_name(name)
}

/// Where it is kept otherwise.
fn elsewhere(path: &Path, identity: &PdbIdentity) -> PathBuf {
    let name = beside(path).file_name().unwrap_or_default().to_owned();
    default_store().with_file_name("indexes").join(identity.to_string()).join(name)
}

fn table_at(rows: &[u32; WIDTHS.len()], table: usize) -> u64 {
    let before = rows.iter().zip(WIDTHS).take(table);
    HEAD as u64 + before.map(|(rows, width)| u64::from(*rows) * width as u64 * 4).sum::<u64>()
}

fn text_at(rows: &[u32; WIDTHS.len()]) -> u64 {
    table_at(rows, WIDTHS.len())
}

fn size(len: usize) -> u32 {
    u32::try_from(len).expect("a PDB, and so each of its tables, has less than 4 GiB")
}

/// The hash of a name in an index: the same in every version of this program and on every machine.
pub(super) fn hash(name: &[u8]) -> u32 {
    crc32fast::hash(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMPED: Stamp = Stamp { bytes: [7; STAMP], file_len: SMALLEST };

    fn contents() -> Contents {
        let numbers = |count: u32| (0..count).map(|number| number * 16);
        Contents {
            sections: vec![[0, 0x10_0000]],
            entries: numbers(2_000).map(|rva| [rva, rva / 16, 1 | 2 << 16]).collect(),
            names: numbers(2_000).map(|hash| [hash, hash / 16]).collect(),
            starts: numbers(3_000).map(|start| [start]).collect(),
            definitions: numbers(10).map(|hash| [hash, 0x1000]).collect(),
            enumerations: Vec::new(),
            text: (0..2_100_u32).map(|byte| byte as u8).collect(),
            types_end: 48_000,
        }
    }

    /// The bytes as a file would be read.
    fn opened(bytes: &[u8]) -> Option<Index> {
        let (folder, head) = (tempfile::tempdir().unwrap(), bytes.first_chunk::<HEAD>()?);
        let path = folder.path().join("x");
        std::fs::write(&path, bytes).unwrap();
        let file = RandomAccessFile::open(&path).unwrap();
        let blocks = (0..=bytes.len() / BLOCK).map(|_| OnceLock::new()).collect();
        Index::of_head(head, bytes.len(), &STAMPED, || Source::File { file, blocks, len: bytes.len() })
    }

    #[test]
    fn a_file_answers_as_the_memory_that_it_was_written_from() {
        let contents = contents();
        let file = opened(&encode(&contents, Some(&STAMPED))).unwrap();
        for (index, entry) in contents.entries.iter().enumerate() {
            assert_eq!(file.row(Table::Entries, index), Some(*entry));
            assert_eq!(file.first_from::<3>(Table::Entries, entry[0]), index);
            assert_eq!(file.first_from::<3>(Table::Entries, entry[0] + 1), index + 1);
        }
        assert_eq!(file.row::<3>(Table::Entries, 2_000), None);
        assert_eq!(file.text(2_000, 100).as_deref(), Some(&contents.text[2_000..]));
        assert_eq!(file.text(2_001, 100), None);
        assert_eq!((file.row(Table::Starts, 2_999), file.types_end), (Some([47_984]), 48_000));
    }

    #[test]
    fn another_stamp_version_or_length_is_no_index() {
        let bytes = encode(&contents(), Some(&STAMPED));
        assert!(opened(&bytes).is_some());
        for len in [0, 8, HEAD - 1, HEAD, bytes.len() - 1] {
            assert!(opened(&bytes[..len]).is_none(), "{len}");
        }
        assert!(opened(&[&bytes[..], b"x"].concat()).is_none());
        for at in 0..HEAD {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(opened(&changed).is_none(), "{at}");
        }
        assert!(opened(&encode(&contents(), None)).is_none());
    }
}
