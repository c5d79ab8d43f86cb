//! The table of blocks that are whole pages: `PoolBigPageTable`.
//!
//! ```text
//!  PoolBigPageTable -> | Va, Key, type, NumberOfBytes | ...   PoolBigPageTableSize entries, by a hash of the address
//! ```
//! An entry is free if bit 0 of its address is set; it keeps its tag. The table takes hundreds to thousands of requests to read, so the
//! target searches it: for a tag's four bytes or an address's eight, and only what lies where a field of an entry lies counts.
//!
//! Source: pool.md 3.

use super::failure::Failure;
use super::kind::PoolKind;
use super::tag::PoolTag;
use crate::memory::{PIECE, reply_len, requests};
use crate::output::grouped;
use crate::target::{Layout, Note, NoteCode, OfLink, Place, Target, TargetError, VirtAddr};

/// Most entries of a table that are believed: a gigabyte.
const MAX_ENTRIES: u64 = 1 << 25;
/// Most blocks that are listed.
const MAX_BLOCKS: usize = 0x1_0000;
/// Matches that lie so close together, one after another, that reading on is cheaper than searching.
const DENSE: u32 = 4;
/// A free entry's address has this bit.
const FREE: u64 = 1;
/// How many times 64 KiB below an address are searched for a block that it lies in.
const MOST_BELOW: u64 = 16;

/// What the word of an entry says of its pool.
type KindOf = fn(u64) -> PoolKind;

/// The table.
pub(super) struct BigPages {
    pub(super) table: VirtAddr,
    entries: u64,
    layout: Layout,
    va: Place,
    key: Place,
    ty: Option<(Place, KindOf)>,
    bytes: Place,
    tag_bits: u32,
}

/// A block that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BigBlock {
    pub(super) address: VirtAddr,
    pub(super) tag: PoolTag,
    pub(super) kind: PoolKind,
    pub(super) bytes: u64,
    /// It may be freed with its tag only.
    pub(super) is_protected: bool,
}

/// What a search came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    /// Matches that are no tag of a block that is held: data, and blocks that were freed.
    pub(super) rejected: u64,
    /// Not all of the table was looked at.
    pub(super) is_cut: bool,
}

impl BigPages {
    pub(super) fn find(target: &Target<'_>) -> Result<Self, Failure> {
        let (at, size) =
            (target.address_of("nt!PoolBigPageTable")?, target.address_of("nt!PoolBigPageTableSize")?);
        let layout = target.layout("nt!_POOL_TRACKER_BIG_PAGES")?;
        let ty: Option<(Place, KindOf)> = match layout.place("PoolFlags") {
            Ok(place) => Some((place, PoolKind::of_flags)),
            Err(_) => layout.place("PoolType").ok().map(|place| (place, PoolKind::of_type as KindOf)),
        };
        let pointer = target.pointer_size();
        let mut read = target.read_ranges(&[(at, pointer), (size, pointer)]).into_iter();
        let mut number = |what: &str| -> Result<u64, TargetError> {
            let bytes = read.next().expect("an answer for each question");
            let bytes = bytes.map_err(|error| TargetError::read(what, error))?;
            Ok(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
        };
        let (table, entries) = (number("PoolBigPageTable")?, number("PoolBigPageTableSize")?);
        if table == 0 {
            return Err(Failure::Reason(
                "the kernel has no table of big blocks yet: PoolBigPageTable is 0 (the target stopped too early in boot)".to_owned(),
            ));
        }
        let table = target.address(table);
        if !(1..=MAX_ENTRIES).contains(&entries)
            || !target.is_kernel(table)
            || !(0x10..=0x400).contains(&layout.size())
        {
            return Err(Failure::Reason(format!(
                "PoolBigPageTable is {} and PoolBigPageTableSize {entries:#x}, which are no table; the symbols may not fit this kernel",
                target.shown(table)
            )));
        }
        let place = |name: &str| layout.place(name);
        let (va, key, bytes) = (place("Va")?, place("Key")?, place("NumberOfBytes")?);
        Ok(Self { table, entries, va, key, ty, bytes, layout, tag_bits: PoolTag::bits_of(target) })
    }

    /// Where the table ends.
    pub(super) fn end(&self) -> VirtAddr {
        self.at(self.entries)
    }

    /// Requests that reading all of it takes.
    pub(super) fn cost(&self, target: &Target<'_>) -> u64 {
        requests(target.memory(), self.end().since(self.table))
    }

    fn at(&self, index: u64) -> VirtAddr {
        self.table.offset(index * self.size())
    }

    fn size(&self) -> u64 {
        self.layout.size() as u64
    }

    /// The block of an entry; nothing if it is free, or holds what no block is.
    fn block(&self, target: &Target<'_>, entry: &[u8]) -> Option<BigBlock> {
        let va = self.va.uint(entry)?;
        let (key, bytes) = (self.key.uint(entry)? as u32, self.bytes.uint(entry)?);
        let kind = match &self.ty {
            Some((place, of)) => of(place.uint(entry)?),
            None => PoolKind::Unknown,
        };
        let address = target.address(va);
        if va & FREE != 0 || key == 0 || !target.is_kernel(address) {
            return None;
        }
        let tag = PoolTag(key & self.tag_bits);
        Some(BigBlock { address, tag, kind, bytes, is_protected: key != tag.0 })
    }

    /// Finds the blocks of a tag, in the order of the table.
    pub(super) fn with_tag(
        &self,
        target: &Target<'_>,
        tag: PoolTag,
    ) -> Result<(Vec<BigBlock>, Reach), TargetError> {
        let mut blocks = Vec::new();
        let mut reach = Reach::default();
        // Objects' tags have the bit, all others not.
        let keys = [tag.0, tag.0 | !self.tag_bits];
        for key in &keys[..if self.tag_bits == u32::MAX { 1 } else { 2 }] {
            let more = self.search(target, &key.to_le_bytes(), self.key.offset, &mut |entry| {
                let is_match = self.key.uint(entry) == Some(u64::from(*key));
                let block = is_match.then(|| self.block(target, entry)).flatten();
                blocks.extend(block);
                Seen { is_match, is_held: block.is_some(), is_last: blocks.len() >= MAX_BLOCKS }
            })?;
            reach.rejected += more.rejected;
            reach.is_cut |= more.is_cut;
        }
        if blocks.len() >= MAX_BLOCKS {
            let text = format!("Only the first {} blocks are listed", grouped(MAX_BLOCKS as u64));
            target.note(Note::partial(NoteCode::Limit, text));
            reach.is_cut = true;
        }
        Ok((blocks, reach))
    }

    /// Finds the block that begins at an address.
    pub(super) fn starting_at(
        &self,
        target: &Target<'_>,
        address: VirtAddr,
    ) -> Result<(Option<BigBlock>, Reach), TargetError> {
        let pattern = &address.0.to_le_bytes()[..target.pointer_size()];
        self.covering_by(target, pattern, self.va.offset, address)
    }

    /// Finds the block that an address lies in, if it begins at the same megabyte of addresses or the one below: block after block
    /// of 64 KiB is searched for in the table.
    pub(super) fn covering(
        &self,
        target: &Target<'_>,
        address: VirtAddr,
    ) -> Result<(Option<BigBlock>, Reach), TargetError> {
        let mut reach = Reach::default();
        // Four bytes of an address are too few to be told from anything else.
        if target.pointer_size() < 8 {
            return self.starting_at(target, VirtAddr(address.0 & !0xfff));
        }
        for below in 0..=MOST_BELOW {
            let Some(near) = address.0.checked_sub(below << 16) else { break };
            let pattern = &near.to_le_bytes()[2..];
            let (found, more) = self.covering_by(target, pattern, self.va.offset + 2, address)?;
            reach.is_cut |= more.is_cut;
            if found.is_some() || more.is_cut {
                return Ok((found, reach));
            }
        }
        Ok((None, reach))
    }

    /// Finds the block that an address lies in by reading all of the table.
    pub(super) fn covering_by_reading(
        &self,
        target: &Target<'_>,
        address: VirtAddr,
    ) -> (Option<BigBlock>, Reach) {
        let mut reach = Reach::default();
        let (len, size) = (self.end().since(self.table), self.size());
        let piece = PIECE / size * size;
        let mut from = 0;
        while from < len {
            target.advance("PoolBigPageTable", from, len);
            let bytes = target.read_sparse(self.table.offset(from), piece.min(len - from) as usize);
            for offset in (0..bytes.len() as u64).step_by(size as usize) {
                let entry = bytes.get(offset as usize..(offset + size) as usize);
                reach.is_cut |= entry.is_none();
                let block = entry.and_then(|entry| self.block(target, entry));
                if let Some(block) = block.filter(|block| covers(block, address)) {
                    return (Some(block), reach);
                }
            }
            if bytes.over().is_some() || bytes.readable_len() == 0 {
                self.note_unread(
                    target,
                    from / size,
                    bytes.missing().map_or_else(String::new, ToString::to_string),
                );
                reach.is_cut = true;
                break;
            }
            from += piece;
        }
        (None, reach)
    }

    fn covering_by(
        &self,
        target: &Target<'_>,
        pattern: &[u8],
        field: u64,
        address: VirtAddr,
    ) -> Result<(Option<BigBlock>, Reach), TargetError> {
        let mut found = None;
        let reach = self.search(target, pattern, field, &mut |entry| {
            let is_match = entry.get(field as usize..).is_some_and(|rest| rest.starts_with(pattern));
            let block = is_match.then(|| self.block(target, entry)).flatten();
            let here = block.filter(|block| covers(block, address));
            found = found.or(here);
            Seen { is_match, is_held: here.is_some(), is_last: found.is_some() }
        })?;
        Ok((found, reach))
    }

    /// Looks at every entry that has `pattern` at `field`, and at what came with it in its reply.
    fn search(
        &self,
        target: &Target<'_>,
        pattern: &[u8],
        field: u64,
        look: &mut dyn FnMut(&[u8]) -> Seen,
    ) -> Result<Reach, TargetError> {
        let size = self.size();
        let at_once = (reply_len(target.memory()) / size).max(1);
        let mut reach = Reach::default();
        let (mut index, mut dense) = (0, 0);
        // A table full of the pattern where no field is, damaged or made so, is not searched for ever.
        let patience = self.cost(target).max(0x40);
        // Of the next entry's field, or behind a match that lies in none.
        let mut from = self.table.offset(field);
        while index < self.entries {
            if dense < DENSE && reach.rejected < patience {
                let searched = target.search(from..self.end(), pattern);
                let searched = searched.map_err(|error| TargetError::read("PoolBigPageTable", error))?;
                if let Some(at) = searched.given_up {
                    let text = format!("PoolBigPageTable was not searched from {} on", target.shown(at));
                    target.note(Note::partial(NoteCode::Unreadable, text));
                    reach.is_cut = true;
                }
                // A match outside of the range is none.
                let Some(hit) = searched.found.filter(|hit| *hit >= from && *hit < self.end()) else { break };
                let offset = hit.since(self.table);
                if offset % size != field {
                    reach.rejected += 1;
                    from = hit.offset(1);
                    index = from.since(self.table) / size;
                    continue;
                }
                dense = if offset / size < index + at_once { dense + 1 } else { 0 };
                index = offset / size;
            }
            target.advance("PoolBigPageTable", index, self.entries);
            let count = at_once.min(self.entries - index);
            let (bytes, missing) = target.read_some(self.at(index), (count * size) as usize);
            let mut matches = 0;
            for entry in bytes.chunks_exact(size as usize) {
                let seen = look(entry);
                matches += u32::from(seen.is_match);
                reach.rejected += u64::from(seen.is_match && !seen.is_held);
                if seen.is_last {
                    return Ok(reach);
                }
            }
            if matches == 0 {
                dense = 0;
            }
            index += (bytes.len() as u64 / size).max(1);
            if let Some(error) = missing {
                self.note_unread(target, index, error.cause.to_string());
                reach.is_cut = true;
                if error.is_of_link() {
                    break;
                }
            }
            from = self.at(index).offset(field);
        }
        Ok(reach)
    }

    fn note_unread(&self, target: &Target<'_>, index: u64, why: String) {
        let text = format!("PoolBigPageTable could not be read around entry {index:#x} ({why})");
        target.note(Note::partial(NoteCode::Unreadable, text));
    }
}

/// What an entry is to a search.
struct Seen {
    /// It has the pattern.
    is_match: bool,
    /// And is of a block that was searched for.
    is_held: bool,
    /// Nothing more is wanted.
    is_last: bool,
}

fn covers(block: &BigBlock, address: VirtAddr) -> bool {
    address == block.address || address.since(block.address) < block.bytes
}
