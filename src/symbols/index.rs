//! What takes long to find out about a symbol file, kept in a file so that it is found out once.
//!
//! ```text
//!  ntkrnlmp.pdb      --> ntkrnlmp.pdb.index            beside it, or else in the platform's cache folder
//!  ntkrnlmp.json.xz  --> ntkrnlmp.json.xz.index
//!
//!  | head: version, checksum, stamp, rows of each table | sections | entries | names | starts | definitions .. | text | records |
//!                                                         rva,size   rva,text  hash,   offset   hash, type            of an ISF file
//! ```
//! Tables are in order of their first number, so a question reads the few blocks that a binary search meets. A PDB's type
//! records stay where they are; those of an ISF file, which can be read only whole, are in its index. An index of another
//! version, or of a file of another length or time or a PDB of another identity, is built again. It is written to a
//! temporary name and moved in place, so two processes that build the same one don't meet. It is no more trusted than the
//! symbol file: a row that refers to nothing is a question without an answer, never a panic.

use std::borrow::Cow;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::UNIX_EPOCH;

use kd_protocol::wire::Reader;
use ms_pdb::{RandomAccessFile, ReadAt};

use super::default_store::default_store;
use super::identity::PdbIdentity;
use super::rows::{Rows, Table, hash, name_hash};
use super::undecorate::undecorate;

const MAGIC: &[u8; 8] = b"verikdPX";
/// Changes with the form of the tables and of an ISF file's records, with the hash of names, and with which names are kept.
const VERSION: u32 = 3;
const HEAD: usize = 100;
/// The checksum covers the head from here on.
const CHECKED_FROM: usize = 16;
const STAMP: usize = 44;
/// Longest index that is used; a kernel's has 3 to 6 MB.
const LONGEST: u64 = 256 << 20;
/// Bytes read at a time.
const BLOCK: usize = 0x1000;

/// Numbers in a row of each table.
const WIDTHS: [usize; 7] = [2, 3, 2, 1, 2, 2, 3];

/// Which file an index belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    bytes: [u8; STAMP],
    pub(super) file_len: u64,
    /// What the index is called by where it is not beside its file.
    key: String,
}

impl Stamp {
    /// Of no file: an index that is kept nowhere.
    pub(super) const NONE: Self = Self { bytes: [0; STAMP], file_len: 0, key: String::new() };

    /// Of a PDB, whose identity is known.
    pub(super) fn of(path: &Path, identity: &PdbIdentity) -> Option<Self> {
        let mut stamp = Self::of_file(path)?;
        stamp.bytes[..16].copy_from_slice(&identity.guid.0);
        stamp.bytes[16..20].copy_from_slice(&identity.age.to_le_bytes());
        stamp.key = identity.to_string();
        Some(stamp)
    }

    /// Of a file that has to be read whole before it says whose it is: where it lies, its length and time tell it.
    pub(super) fn of_file(path: &Path) -> Option<Self> {
        let metadata = path.metadata().ok()?;
        let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        let mut bytes = [0; STAMP];
        bytes[20..28].copy_from_slice(&metadata.len().to_le_bytes());
        bytes[28..].copy_from_slice(&modified.as_nanos().to_le_bytes());
        let place = path.canonicalize().ok()?;
        let key = format!("{:08x}{:x}", hash(place.as_os_str().as_encoded_bytes()), metadata.len());
        Some(Self { bytes, file_len: metadata.len(), key })
    }
}

/// The tables of one symbol file, in a file of their own or in memory.
#[derive(Debug)]
pub(super) struct Index {
    bytes: Bytes,
    len: usize,
    rows: [u32; WIDTHS.len()],
    /// Bytes of names, and of the records behind them.
    text: u32,
    records: u32,
    /// Every entry and the text, once somebody goes through all.
    all: OnceLock<Option<Listing>>,
    /// Where the last type record ends.
    pub(super) types_end: u32,
}

/// Where the bytes of an index are.
#[derive(Debug)]
enum Bytes {
    /// In a file, of which blocks are read when they are met.
    File { file: RandomAccessFile, blocks: Vec<OnceLock<Option<Box<[u8]>>>> },
    /// In memory: just made.
    Memory(Vec<u8>),
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
    pub(super) shown: Vec<[u32; 3]>,
    pub(super) text: Vec<u8>,
}

impl NameTables {
    /// Tables of entries in order of address: address, kind and name, which has less than 64 KiB.
    pub(super) fn new<'a>(
        sections: Vec<[u32; 2]>,
        in_order: impl Iterator<Item = (u32, u16, &'a [u8])> + Clone,
    ) -> Self {
        let mut tables = Self { sections, ..Self::default() };
        let mut hashes = Vec::with_capacity(in_order.size_hint().0);
        let mut add =
            |name: &[u8], index: u32| hashes.push(u64::from(name_hash(name)) << 32 | u64::from(index));
        for (index, (rva, kind, name)) in (0..).zip(in_order.clone()) {
            tables.entries.push([rva, size(tables.text.len()), size(name.len()) | u32::from(kind) << 16]);
            tables.text.extend_from_slice(name);
            add(name, index);
        }
        // Thousands may have one: they follow each other in the order of their names.
        let mut decorated = Vec::new();
        for (index, (.., name)) in (0..).zip(in_order).filter(|(_, (.., name))| name.first() == Some(&b'?')) {
            let shown = match String::from_utf8_lossy(name) {
                Cow::Borrowed(name) => undecorate(name),
                Cow::Owned(name) => undecorate(&name).into_owned().into(),
            };
            if shown.as_bytes() != name {
                add(shown.as_bytes(), index);
                decorated.push((shown, index));
            }
        }
        decorated.sort_unstable();
        for alike in decorated.chunk_by(|a, b| a.0 == b.0) {
            let (start, name) = (size(tables.text.len()), &alike[0].0);
            tables.text.extend_from_slice(name.as_bytes());
            tables.shown.extend(alike.iter().map(|(_, index)| [start, size(name.len()), *index]));
        }
        hashes.sort_unstable();
        tables.names = hashes.into_iter().map(|key| [(key >> 32) as u32, key as u32]).collect();
        tables
    }
}

/// The tables of types.
#[derive(Debug, Default)]
pub(super) struct TypeTables {
    /// The records themselves, where the symbol file has them in no form that they can be found in.
    pub(super) records: Vec<u8>,
    pub(super) starts: Vec<[u32; 1]>,
    pub(super) definitions: Vec<[u32; 2]>,
    pub(super) enumerations: Vec<[u32; 2]>,
    pub(super) types_end: u32,
}

impl Index {
    /// The index of an earlier time, if it still belongs to the file at `path`.
    pub(super) fn open(path: &Path, stamp: &Stamp) -> Option<Self> {
        [beside(path), elsewhere(path, stamp)].iter().find_map(|file| {
            let len = file.metadata().ok()?.len();
            let len = usize::try_from(len).ok().filter(|_| len <= LONGEST)?;
            let file = RandomAccessFile::open(file).ok()?;
            let mut head = [0; HEAD];
            file.read_exact_at(&mut head, 0).ok()?;
            let blocks = (0..=len / BLOCK).map(|_| OnceLock::new()).collect();
            Self::of_head(&head, Bytes::File { file, blocks }, len, stamp)
        })
    }

    /// An index that was made just now.
    pub(super) fn made(bytes: Vec<u8>, stamp: &Stamp) -> Option<Self> {
        let (head, len) = (*bytes.first_chunk()?, bytes.len());
        Self::of_head(&head, Bytes::Memory(bytes), len, stamp)
    }

    /// Checks the head of an index of `len` bytes.
    fn of_head(head: &[u8; HEAD], bytes: Bytes, len: usize, stamp: &Stamp) -> Option<Self> {
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
        let (text, records, types_end) = (reader.u32().ok()?, reader.u32().ok()?, reader.u32().ok()?);
        (text_at(&rows) + u64::from(text) + u64::from(records) == len as u64).then(|| Self {
            bytes,
            len,
            rows,
            text,
            records,
            all: OnceLock::new(),
            types_end,
        })
    }

    /// The type record that begins at `start` and ends before `end`, of those in the index.
    pub(super) fn record(&self, start: u32, end: u32) -> Option<Vec<u8>> {
        if end > self.records {
            return None;
        }
        let mut bytes = vec![0; end.checked_sub(start)? as usize];
        self.read(text_at(&self.rows) + u64::from(self.text) + u64::from(start), &mut bytes)?;
        Some(bytes)
    }

    /// A long part, read at once.
    fn part(&self, at: u64, len: usize) -> Option<Vec<u8>> {
        match &self.bytes {
            Bytes::File { file, .. } => {
                let mut bytes = vec![0; len];
                file.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
            }
            Bytes::Memory(bytes) => Some(bytes.get(usize::try_from(at).ok()?..)?.get(..len)?.to_vec()),
        }
    }

    /// Fills `buf` from the byte at `at` on.
    fn read(&self, at: u64, mut buf: &mut [u8]) -> Option<()> {
        let mut at = usize::try_from(at).ok()?;
        let (file, blocks) = match &self.bytes {
            Bytes::File { file, blocks } => (file, blocks),
            Bytes::Memory(bytes) => {
                buf.copy_from_slice(bytes.get(at..)?.get(..buf.len())?);
                return Some(());
            }
        };
        while !buf.is_empty() {
            let start = at / BLOCK * BLOCK;
            let block = blocks.get(at / BLOCK)?.get_or_init(|| {
                let mut block = vec![0; BLOCK.min(self.len.checked_sub(start)?)];
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

impl Rows for Index {
    fn rows(&self, table: Table) -> usize {
        self.rows[table as usize] as usize
    }

    fn row<const N: usize>(&self, table: Table, index: usize) -> Option<[u32; N]> {
        debug_assert_eq!(N, WIDTHS[table as usize], "{table:?}");
        if index >= self.rows(table) {
            return None;
        }
        let at = table_at(&self.rows, table as usize) + (index * N * 4) as u64;
        let mut words = [[0; 4]; N];
        self.read(at, words.as_flattened_mut())?;
        Some(words.map(u32::from_le_bytes))
    }

    fn text(&self, start: u32, len: u16) -> Option<Vec<u8>> {
        if u64::from(start) + u64::from(len) > self.text.into() {
            return None;
        }
        let mut bytes = vec![0; len.into()];
        self.read(text_at(&self.rows) + u64::from(start), &mut bytes)?;
        Some(bytes)
    }

    fn all(&self) -> Option<(&[[u32; 3]], &[u8])> {
        let all = self.all.get_or_init(|| {
            // Both lie in the index, whose length its head goes with.
            let entries =
                self.part(table_at(&self.rows, Table::Entries as usize), self.rows(Table::Entries) * 12)?;
            let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let row = |row: &[u8]| [word(row), word(&row[4..]), word(&row[8..])];
            let text = self.part(text_at(&self.rows), self.text as usize)?;
            Some(Listing { entries: entries.chunks_exact(12).map(row).collect(), text })
        });
        all.as_ref().map(|all| (&all.entries[..], &all.text[..]))
    }
}

/// Writes an index to where that of the file at `path` is kept, or nowhere: then nothing is lost but time.
pub(super) fn write(path: &Path, stamp: &Stamp, bytes: &[u8]) {
    // A folder that is marked as read-only stays as it is, whoever asks.
    let may_change = |file: &PathBuf| {
        let folder = file.parent().and_then(|folder| folder.metadata().ok());
        folder.is_none_or(|folder| !folder.permissions().readonly())
    };
    let places = [Some(beside(path)).filter(may_change), Some(elsewhere(path, stamp))];
    // A read-only store, and no cache folder either.
    let _ = places.iter().flatten().any(|file| keep(file, bytes).is_ok());
}

/// The bytes of an index.
pub(super) fn encode(names: &NameTables, types: &TypeTables, stamp: &Stamp) -> Vec<u8> {
    let tables = [
        names.sections.as_flattened(),
        names.entries.as_flattened(),
        names.names.as_flattened(),
        types.starts.as_flattened(),
        types.definitions.as_flattened(),
        types.enumerations.as_flattened(),
        names.shown.as_flattened(),
    ];
    let mut rows = [0; WIDTHS.len()];
    for ((rows, table), width) in rows.iter_mut().zip(tables).zip(WIDTHS) {
        *rows = size(table.len() / width);
    }
    let len = text_at(&rows) as usize + names.text.len() + types.records.len();
    let mut bytes = Vec::with_capacity(len);
    let numbers = |bytes: &mut Vec<u8>, numbers: &[u32]| {
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    };
    bytes.extend_from_slice(MAGIC);
    numbers(&mut bytes, &[VERSION, 0]);
    bytes.extend_from_slice(&stamp.bytes);
    numbers(&mut bytes, &rows);
    numbers(&mut bytes, &[size(names.text.len()), size(types.records.len()), types.types_end]);
    let checksum = crc32fast::hash(&bytes[CHECKED_FROM..]);
    bytes[CHECKED_FROM - 4..CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
    for table in tables {
        numbers(&mut bytes, table);
    }
    bytes.extend_from_slice(&names.text);
    bytes.extend_from_slice(&types.records);
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

/// Where the index of the file at `path` is kept, if it can be kept there.
pub(super) fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".index");
    path.with_file_name(name)
}

/// Where it is kept otherwise.
fn elsewhere(path: &Path, stamp: &Stamp) -> PathBuf {
    let name = beside(path).file_name().unwrap_or_default().to_owned();
    default_store().with_file_name("indexes").join(&stamp.key).join(name)
}

fn table_at(rows: &[u32; WIDTHS.len()], table: usize) -> u64 {
    let before = rows.iter().zip(WIDTHS).take(table);
    HEAD as u64 + before.map(|(rows, width)| u64::from(*rows) * width as u64 * 4).sum::<u64>()
}

fn text_at(rows: &[u32; WIDTHS.len()]) -> u64 {
    table_at(rows, WIDTHS.len())
}

fn size(len: usize) -> u32 {
    u32::try_from(len).expect("a symbol file, and so each table made from it, has less than 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMPED: Stamp = Stamp { bytes: [7; STAMP], file_len: 1 << 20, key: String::new() };

    fn contents() -> (NameTables, TypeTables) {
        let numbers = |count: u32| (0..count).map(|number| number * 16);
        let names = NameTables {
            sections: vec![[0, 0x10_0000]],
            entries: numbers(2_000).map(|rva| [rva, rva / 16, 1 | 2 << 16]).collect(),
            names: numbers(2_000).map(|hash| [hash, hash / 16]).collect(),
            shown: vec![[2_000, 3, 9]],
            text: (0..2_100_u32).map(|byte| byte as u8).collect(),
        };
        let types = TypeTables {
            starts: numbers(3_000).map(|start| [start]).collect(),
            definitions: numbers(10).map(|hash| [hash, 0x1000]).collect(),
            enumerations: Vec::new(),
            types_end: 48_000,
            records: vec![9; 48_000],
        };
        (names, types)
    }

    fn encoded() -> Vec<u8> {
        let (names, types) = contents();
        encode(&names, &types, &STAMPED)
    }

    /// The bytes as a file would be read.
    fn opened(bytes: &[u8]) -> Option<Index> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pdb");
        std::fs::write(beside(&path), bytes).unwrap();
        let (in_file, made) = (Index::open(&path, &STAMPED), Index::made(bytes.to_vec(), &STAMPED));
        assert_eq!(in_file.is_some(), made.is_some());
        in_file
    }

    #[test]
    fn a_word_is_found_in_names_with_and_without_decoration() {
        let names = [
            "MmVerifierData",
            "??_C@_0N@FFJGBINN@AuthenticAMD?$AA@OKHAJAOM@",
            "?Dispatch@Device@@SAJXZ",
            "??_C@_0N@FFJGBINO@x?$AA@OKHAJAOM@",
            "ViVerifyVerifier",
            "Device",
        ];
        let in_order = (0..).zip(names).map(|(rva, name)| (rva, 0, name.as_bytes()));
        let tables = NameTables::new(Vec::new(), in_order);
        let index = Index::made(encode(&tables, &TypeTables::default(), &STAMPED), &STAMPED).unwrap();
        let found = |word: &str| {
            let symbols = index.with_word(word);
            assert!(symbols.iter().all(|symbol| names[symbol.rva.0 as usize] == symbol.name));
            symbols.into_iter().map(|symbol| symbol.rva.0).collect::<Vec<_>>()
        };
        for (word, rvas) in [
            ("verif", &[0, 4][..]),
            ("STRING", &[1, 3]),
            ("device", &[2, 5]),
            ("data", &[0]),
            ("datadispatch", &[]),
            ("a", &[0, 1, 2, 3]),
            ("dispatchx", &[]),
        ] {
            assert_eq!(found(word), rvas, "{word}");
        }
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
        assert_eq!(file.record(47_000, 48_000).as_deref(), Some(&types.records[47_000..]));
        assert_eq!((file.record(47_000, 48_001), file.record(2, 1)), (None, None));
        assert_eq!(file.row(Table::Starts, 2_999), types.starts.last().copied());
        assert_eq!((file.rows(Table::Definitions), file.types_end), (10, 48_000));
    }

    #[test]
    fn a_name_has_rows_for_every_way_to_write_it() {
        let names = ["KeBugCheckEx", "?Dispatch@Device@@SAJXZ", "?", "Größe"];
        let long = "Long".repeat(40);
        let rows = {
            let names = names.iter().copied().chain([&*long]);
            NameTables::new(Vec::new(), (0..).zip(names).map(|(rva, name)| (rva, 0, name.as_bytes()))).names
        };
        assert!(rows.is_sorted());
        let found = |name: &str| {
            let hash = name_hash(name.as_bytes());
            rows.iter().filter(|row| row[0] == hash).map(|row| row[1]).collect::<Vec<_>>()
        };
        for (name, index) in [
            ("KEBUGCHECKEX", 0),
            ("kebugcheckex", 0),
            ("?dispatch@device@@sajxz", 1),
            ("Device::dispatch", 1),
            ("?", 2),
            ("GRÖßE", 3),
            (&long.to_uppercase(), 4),
        ] {
            assert_eq!(found(name), [index], "{name}");
        }
        assert_eq!(rows.len(), names.len() + 2);
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
