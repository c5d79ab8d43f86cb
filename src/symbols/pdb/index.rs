//! What takes long to find out about a PDB, kept in a file so that it is found out once.
//!
//! ```text
//!  ntkrnlmp.pdb --tables.rs--> ntkrnlmp.pdb.index      beside it, or else in the platform's cache folder
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
use std::sync::OnceLock;
use std::time::UNIX_EPOCH;

use kd_protocol::wire::Reader;
use ms_pdb::{RandomAccessFile, ReadAt};

use crate::symbols::default_store::default_store;
use crate::symbols::identity::PdbIdentity;

const MAGIC: &[u8; 8] = b"verikdPX";
/// Changes with the form of the tables, with the hash of names, and with which names are kept.
const VERSION: u32 = 2;
const HEAD: usize = 92;
/// The checksum covers the head from here on.
const CHECKED_FROM: usize = 16;
const STAMP: usize = 44;
/// A smaller PDB is read in less time than it takes to keep an index of it.
pub(super) const SMALLEST: u64 = 1 << 20;
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
    pub(super) file_len: u64,
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

/// The tables of one PDB, in a file.
#[derive(Debug)]
pub(super) struct Index {
    file: RandomAccessFile,
    blocks: Vec<OnceLock<Option<Box<[u8]>>>>,
    len: usize,
    rows: [u32; WIDTHS.len()],
    /// Bytes of names, at the end.
    text: u32,
    /// Every entry and the text, once somebody goes through all.
    all: OnceLock<Option<Listing>>,
    /// Where the last type record ends.
    pub(super) types_end: u32,
}

/// Every row of [`Table::Entries`], and the text.
#[derive(Debug)]
struct Listing {
    entries: Vec<[u32; 3]>,
    text: Vec<u8>,
}

/// The tables of names and addresses.
#[derive(Debug, Default)]
pub(super) struct NameTables {
    pub(super) sections: Vec<[u32; 2]>,
    pub(super) entries: Vec<[u32; 3]>,
    pub(super) names: Vec<[u32; 2]>,
    pub(super) text: Vec<u8>,
}

/// The tables of types.
#[derive(Debug, Default)]
pub(super) struct TypeTables {
    pub(super) starts: Vec<[u32; 1]>,
    pub(super) definitions: Vec<[u32; 2]>,
    pub(super) enumerations: Vec<[u32; 2]>,
    pub(super) types_end: u32,
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
            Self::of_head(&head, file, len, stamp)
        })
    }

    /// Checks the head of an index of `len` bytes.
    fn of_head(head: &[u8; HEAD], file: RandomAccessFile, len: usize, stamp: &Stamp) -> Option<Self> {
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
        let blocks = || (0..=len / BLOCK).map(|_| OnceLock::new()).collect();
        (text_at(&rows) + u64::from(text) == len as u64).then(|| Self {
            file,
            blocks: blocks(),
            len,
            rows,
            text,
            all: OnceLock::new(),
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
        self.read(at, words.as_flattened_mut())?;
        Some(words.map(u32::from_le_bytes))
    }

    /// Bytes of the text.
    pub(super) fn text(&self, start: u32, len: u16) -> Option<Vec<u8>> {
        if u64::from(start) + u64::from(len) > self.text.into() {
            return None;
        }
        let mut bytes = vec![0; len.into()];
        self.read(text_at(&self.rows) + u64::from(start), &mut bytes)?;
        Some(bytes)
    }

    /// Every row of [`Table::Entries`], and the text; nothing if the file cannot be read.
    pub(super) fn all(&self) -> Option<(&[[u32; 3]], &[u8])> {
        let read = |at: u64, len: usize| {
            let mut bytes = vec![0; len];
            self.file.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
        };
        let all = self.all.get_or_init(|| {
            let rows = self.rows(Table::Entries);
            // Both lie in the file, whose length its head goes with.
            let entries = read(table_at(&self.rows, Table::Entries as usize), rows * 12)?;
            let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let row = |row: &[u8]| [word(row), word(&row[4..]), word(&row[8..])];
            let text = read(text_at(&self.rows), self.text as usize)?;
            Some(Listing { entries: entries.chunks_exact(12).map(row).collect(), text })
        });
        all.as_ref().map(|all| (&all.entries[..], &all.text[..]))
    }

    /// Fills `buf` from the byte at `at` on.
    fn read(&self, at: u64, mut buf: &mut [u8]) -> Option<()> {
        let mut at = usize::try_from(at).ok()?;
        while !buf.is_empty() {
            let start = at / BLOCK * BLOCK;
            let block = self.blocks.get(at / BLOCK)?.get_or_init(|| {
                let mut block = vec![0; BLOCK.min(self.len.checked_sub(start)?)];
                self.file.read_exact_at(&mut block, start as u64).ok()?;
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

/// Writes an index to where that of the PDB at `path` is kept, or nowhere: then nothing is lost but time.
pub(super) fn write(
    path: &Path,
    identity: &PdbIdentity,
    stamp: &Stamp,
    names: &NameTables,
    types: &TypeTables,
) {
    let bytes = encode(names, types, stamp);
    let places = [beside(path), elsewhere(path, identity)];
    // A read-only store, and no cache folder either.
    let _ = places.iter().any(|file| keep(file, &bytes).is_ok());
}

fn encode(names: &NameTables, types: &TypeTables, stamp: &Stamp) -> Vec<u8> {
    let tables = [
        names.sections.as_flattened(),
        names.entries.as_flattened(),
        names.names.as_flattened(),
        types.starts.as_flattened(),
        types.definitions.as_flattened(),
        types.enumerations.as_flattened(),
    ];
    let mut rows = [0; WIDTHS.len()];
    for ((rows, table), width) in rows.iter_mut().zip(tables).zip(WIDTHS) {
        *rows = size(table.len() / width);
    }
    let mut bytes = Vec::with_capacity(text_at(&rows) as usize + names.text.len());
    let numbers = |bytes: &mut Vec<u8>, numbers: &[u32]| {
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    };
    bytes.extend_from_slice(MAGIC);
    numbers(&mut bytes, &[VERSION, 0]);
    bytes.extend_from_slice(&stamp.bytes);
    numbers(&mut bytes, &rows);
    numbers(&mut bytes, &[size(names.text.len()), types.types_end]);
    let checksum = crc32fast::hash(&bytes[CHECKED_FROM..]);
    bytes[CHECKED_FROM - 4..CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
    for table in tables {
        numbers(&mut bytes, table);
    }
    bytes.extend_from_slice(&names.text);
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

    fn contents() -> (NameTables, TypeTables) {
        let numbers = |count: u32| (0..count).map(|number| number * 16);
        let names = NameTables {
            sections: vec![[0, 0x10_0000]],
            entries: numbers(2_000).map(|rva| [rva, rva / 16, 1 | 2 << 16]).collect(),
            names: numbers(2_000).map(|hash| [hash, hash / 16]).collect(),
            text: (0..2_100_u32).map(|byte| byte as u8).collect(),
        };
        let types = TypeTables {
            starts: numbers(3_000).map(|start| [start]).collect(),
            definitions: numbers(10).map(|hash| [hash, 0x1000]).collect(),
            enumerations: Vec::new(),
            types_end: 48_000,
        };
        (names, types)
    }

    fn encoded() -> Vec<u8> {
        let (names, types) = contents();
        encode(&names, &types, &STAMPED)
    }

    /// The bytes as a file would be read.
    fn opened(bytes: &[u8]) -> Option<Index> {
        let (folder, head) = (tempfile::tempdir().unwrap(), bytes.first_chunk::<HEAD>()?);
        let path = folder.path().join("x");
        std::fs::write(&path, bytes).unwrap();
        Index::of_head(head, RandomAccessFile::open(&path).unwrap(), bytes.len(), &STAMPED)
    }

    #[test]
    fn a_file_has_the_rows_that_it_was_written_from() {
        let (names, types) = contents();
        let file = opened(&encoded()).unwrap();
        for (index, entry) in names.entries.iter().enumerate() {
            assert_eq!(file.row(Table::Entries, index), Some(*entry));
        }
        assert_eq!(file.row::<3>(Table::Entries, 2_000), None);
        assert_eq!(file.text(2_000, 100).as_deref(), Some(&names.text[2_000..]));
        assert_eq!(file.text(2_001, 100), None);
        assert_eq!(file.row(Table::Starts, 2_999), types.starts.last().copied());
        assert_eq!((file.rows(Table::Definitions), file.types_end), (10, 48_000));
    }

    #[test]
    fn another_stamp_version_or_length_is_no_index() {
        let bytes = encoded();
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
    }
}
