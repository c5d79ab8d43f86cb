//! VMware's state of a machine (`.vmss`, `.vmsn`): where its memory is, in this file or in the `.vmem` beside it.
//!
//! ```text
//!  magic, ?, groups | { name 64, offset 8, size 8 } ...          group "memory": regionsCount, regionPPN[i], ..., Memory
//!  a tag: flags, name's length, name, indices of 4 bytes, data   group "cpu":    CR64[cpu][register]
//!         `-- bits 6, 7: how many; bits 0..5: bytes of data, 62 and 63: {size, size in memory, u16 padding, padding, data}
//! ```
//! Source: docs/dumps.md 5; no such file was at hand.

use std::path::Path;
use std::sync::Arc;

use super::error::DumpError;
use crate::physical::{PageMap, PositionedFile, Processor, Run};

const PAGE: u64 = 0x1000;
const HEADER: u64 = 12;
const GROUP: usize = 80;
const NAME: usize = 64;
/// A state has some eighty.
const MAX_GROUPS: u64 = 4096;
/// Tags of one group; devices have thousands.
const MAX_TAGS: usize = 1 << 16;
/// A machine has two or three.
const MAX_REGIONS: u64 = 4096;
/// Bytes before a tag's data, at most: its name is as long as a byte says.
const MAX_HEAD: usize = 2 + 255 + 3 * 4 + 2 * 8 + 2;
/// What the first byte of a state is; its lower half is the version.
const MAGICS: [&[u8; 4]; 4] =
    [b"\xd0\xbe\xd2\xbe", b"\xd1\xba\xd1\xba", b"\xd2\xbe\xd2\xbe", b"\xd3\xbe\xd3\xbe"];

/// What a state leads to.
pub(super) struct State {
    /// The file that has the memory, and where in it.
    pub(super) memory: Arc<PositionedFile>,
    pub(super) map: PageMap,
    /// The roots of the processors' tables; nothing else of them is known.
    pub(super) roots: Vec<Processor>,
}

/// True if a file with this beginning is VMware's state of a machine.
pub(super) fn is_state(begins: &[u8]) -> bool {
    MAGICS.iter().any(|magic| begins.starts_with(*magic))
}

/// A tag of a group.
struct Tag {
    name: Vec<u8>,
    indices: Vec<u32>,
    /// Where its data is in the file.
    at: u64,
    len: u64,
}

/// Reads a state; `memory` is the file of the machine's memory, where that is known already.
pub(super) fn state(
    file: &Arc<PositionedFile>,
    memory: Option<&Arc<PositionedFile>>,
) -> Result<State, DumpError> {
    let reader = Reader { file, is_old: file.read_some(0, 1).is_ok_and(|it| it.first() == Some(&0xd0)) };
    let tags = reader.tags("memory")?.ok_or_else(|| {
        DumpError::Damaged("VMware's state has no group of tags that is called memory".into())
    })?;
    let find = |name: &[u8], index: Option<u32>| {
        tags.iter().find(|tag| tag.name == name && index.is_none_or(|index| tag.indices == [index]))
    };
    let embedded = find(b"Memory", None).filter(|tag| tag.len >= PAGE);
    let (memory, start, len) = match (embedded, memory) {
        (Some(tag), _) => (Arc::clone(file), tag.at, tag.len),
        (None, Some(memory)) => (Arc::clone(memory), 0, memory.len()),
        (None, None) => {
            let memory = Arc::new(beside(file.path())?);
            let len = memory.len();
            (memory, 0, len)
        }
    };
    let number = |name: &[u8], index: Option<u32>| find(name, index).map_or(Ok(0), |tag| reader.number(tag));
    let count = number(b"regionsCount", None)?;
    if count > MAX_REGIONS {
        return Err(DumpError::Damaged(format!("VMware's state has {count:#x} regions of memory")));
    }
    let mut map = PageMap::default();
    if count == 0 {
        map.push(Run { start: 0, len: len & !(PAGE - 1), offset: start })?;
    }
    for index in 0..count as u32 {
        let pages = |name: &[u8]| {
            let bytes = number(name, Some(index))?.checked_mul(PAGE);
            bytes.ok_or_else(|| {
                DumpError::Damaged(format!(
                    "{}[{index}] of VMware's state is no machine's",
                    name.escape_ascii()
                ))
            })
        };
        let offset = start.checked_add(pages(b"regionPageNum")?);
        let offset =
            offset.ok_or_else(|| DumpError::Damaged("a region lies beyond any file's end".into()))?;
        map.push(Run { start: pages(b"regionPPN")?, len: pages(b"regionSize")?, offset })?;
    }
    let roots = reader.roots()?;
    Ok(State { memory, map: map.sorted()?, roots })
}

/// The file of the memory of the machine whose state is in `path`.
fn beside(path: &Path) -> Result<PositionedFile, DumpError> {
    let memory = path.with_extension("vmem");
    PositionedFile::open(&memory).map_err(|source| {
        DumpError::Refused(format!(
            "VMware's state of a machine without its memory, which is looked for in {}: {source}",
            memory.display()
        ))
    })
}

/// The state that lies beside a file of memory, if there is one.
pub(super) fn state_beside(memory: &Path) -> Option<PositionedFile> {
    let of = |extension: &str| {
        let path = memory.with_extension(extension);
        let file = PositionedFile::open(&path).ok().filter(|_| path != memory)?;
        is_state(&file.read_some(0, 4).ok()?).then_some(file)
    };
    of("vmss").or_else(|| of("vmsn"))
}

struct Reader<'a> {
    file: &'a PositionedFile,
    /// Sizes have four bytes.
    is_old: bool,
}

impl Reader<'_> {
    fn read(&self, at: u64, len: usize) -> Result<Vec<u8>, DumpError> {
        let path = self.file.path();
        self.file.read_some(at, len).map_err(|source| DumpError::File { path: path.to_owned(), source })
    }

    fn number(&self, tag: &Tag) -> Result<u64, DumpError> {
        let bytes = self.read(tag.at, tag.len.min(8) as usize)?;
        Ok(little_endian(&bytes))
    }

    /// The tags of the group that is called so; nothing if there is none.
    fn tags(&self, group: &str) -> Result<Option<Vec<Tag>>, DumpError> {
        let header = self.read(0, HEADER as usize)?;
        let count = header.get(8..12).map_or(0, little_endian);
        if count > MAX_GROUPS {
            return Err(DumpError::field("groups of VMware's state", 8, count));
        }
        for index in 0..count {
            let entry = self.read(HEADER + index * GROUP as u64, GROUP)?;
            let Some(offset) = entry.get(NAME..NAME + 8) else {
                let needs = HEADER + count * GROUP as u64;
                return Err(DumpError::Truncated { what: "list of groups", has: self.file.len(), needs });
            };
            if entry[..NAME].split(|byte| *byte == 0).next() == Some(group.as_bytes()) {
                return self.tags_at(little_endian(offset)).map(Some);
            }
        }
        Ok(None)
    }

    fn tags_at(&self, mut at: u64) -> Result<Vec<Tag>, DumpError> {
        let mut tags = Vec::new();
        while tags.len() < MAX_TAGS {
            let head = self.read(at, MAX_HEAD)?;
            let cut = || DumpError::Truncated {
                what: "list of tags",
                has: self.file.len(),
                needs: at.saturating_add(2),
            };
            let (flags, name_len) =
                (*head.first().ok_or_else(cut)?, usize::from(*head.get(1).ok_or_else(cut)?));
            if flags == 0 && name_len == 0 {
                break;
            }
            let indices_at = 2 + name_len;
            let data_at = indices_at + 4 * usize::from(flags >> 6);
            let name = head.get(2..indices_at).ok_or_else(cut)?.to_vec();
            let indices = head.get(indices_at..data_at).ok_or_else(cut)?;
            let indices = indices.chunks_exact(4).map(|index| little_endian(index) as u32).collect();
            let (skipped, len) = match flags & 0x3f {
                62 | 63 => {
                    let size = if self.is_old { 4 } else { 8 };
                    let long = head.get(data_at..data_at + 2 * size + 2).ok_or_else(cut)?;
                    let padding = little_endian(&long[2 * size..]);
                    (data_at as u64 + 2 * size as u64 + 2 + padding, little_endian(&long[..size]))
                }
                len => (data_at as u64, len.into()),
            };
            let data = at.checked_add(skipped).ok_or_else(cut)?;
            tags.push(Tag { name, indices, at: data, len });
            at = data.checked_add(len).ok_or_else(cut)?;
        }
        Ok(tags)
    }

    /// CR3 and CR4 of each processor.
    fn roots(&self) -> Result<Vec<Processor>, DumpError> {
        let tags = self.tags("cpu")?.unwrap_or_default();
        let register = |processor: u32, number: u32| {
            let tag = tags.iter().find(|tag| tag.name == b"CR64" && tag.indices == [processor, number])?;
            self.number(tag).ok()
        };
        let of = |processor: u32| {
            let cr3 = register(processor, 3)?;
            Some(Processor { cr3, cr4: register(processor, 4).unwrap_or(0), ..Processor::default() })
        };
        Ok((0..2048).map_while(of).collect())
    }
}

/// A number of up to eight bytes.
fn little_endian(bytes: &[u8]) -> u64 {
    let mut value = [0; 8];
    let len = bytes.len().min(8);
    value[..len].copy_from_slice(&bytes[..len]);
    u64::from_le_bytes(value)
}
