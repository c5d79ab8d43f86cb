//! Where the kernel counts allocations by tag: its tables, one a processor, and what one entry has.
//!
//! ```text
//!  PoolTrackTable ----------> | Key | allocs, frees, bytes, nonpaged and paged | ...   every key is here
//!  ExPoolTagTables[CPU] ----> the same index for the same key, or Key 0 if the processor never needed it
//!  PoolTrackTableExpansion -> keys that found no room, from its start on
//! ```
//! A processor counts what it does in its own table, so only sums over all tables say anything: counters wrap, and bytes of one
//! table may be negative. An entry that cannot be read in one table spoils that tag's sum, and no other.
//!
//! Source: pool.md 2.

use std::fmt;

use crate::memory::{ReadError, reply_len};
use crate::target::{Layout, Note, NoteCode, Place, Target, TargetError, VirtAddr};

use super::failure::Failure;
use super::tag::PoolTag;

/// Most entries of a table that are believed.
const MAX_ENTRIES: u64 = 1 << 24;
/// Slots of `ExPoolTagTables` that are looked at in any case: a group of processors.
const GROUP: u64 = 64;
/// No machine has more processors.
const MAX_PROCESSORS: u64 = 2048;
/// Multiplier of the kernel's hash of a tag.
const HASH: u64 = 40543;

/// What one entry, or a sum of entries, says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) nonpaged: Side,
    pub(super) paged: Side,
}

/// One kind of pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) allocs: u64,
    pub(super) frees: u64,
    pub(super) bytes: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: &Self) {
        let sides = [(&mut self.nonpaged, &other.nonpaged), (&mut self.paged, &other.paged)];
        for (sum, more) in sides {
            sum.allocs = sum.allocs.wrapping_add(more.allocs);
            sum.frees = sum.frees.wrapping_add(more.frees);
            sum.bytes = sum.bytes.wrapping_add(more.bytes);
        }
    }

    pub(super) fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

/// Where an entry's fields are.
pub(super) struct EntryLayout {
    layout: Layout,
    key: Place,
    sides: [[Place; 3]; 2],
    /// Where a tag may say that its blocks are freed with it only, the bit that does is no part of it.
    tag_bits: u32,
}

impl EntryLayout {
    fn find(target: &Target<'_>) -> Result<Self, TargetError> {
        let layout = target.layout("nt!_POOL_TRACKER_TABLE")?;
        let side = |kind: &str| -> Result<[Place; 3], TargetError> {
            let place = |name: &str| layout.place(&format!("{kind}{name}"));
            Ok([place("Allocs")?, place("Frees")?, place("Bytes")?])
        };
        let (key, sides) = (layout.place("Key")?, [side("NonPaged")?, side("Paged")?]);
        if !(0x10..=0x400).contains(&layout.size()) {
            let wrong = format!("{:#x} bytes each", layout.size());
            let address = target.shown(VirtAddr(0));
            return Err(TargetError::Unexpected {
                what: "_POOL_TRACKER_TABLE in the symbols",
                address,
                wrong,
            });
        }
        Ok(Self { layout, key, sides, tag_bits: PoolTag::bits_of(target) })
    }

    pub(super) fn size(&self) -> usize {
        self.layout.size()
    }

    pub(super) const fn key_offset(&self) -> u64 {
        self.key.offset
    }

    /// Bits of a counter of allocations: sums of them wrap there.
    pub(super) fn counter_bits(&self) -> u32 {
        (self.sides[0][0].ty.size().clamp(1, 8) * 8) as u32
    }

    /// Bits of a counter of bytes.
    pub(super) fn byte_bits(&self) -> u32 {
        (self.sides[0][2].ty.size().clamp(1, 8) * 8) as u32
    }

    /// Key and counters of an entry's bytes.
    pub(super) fn entry(&self, bytes: &[u8]) -> Option<(PoolTag, Counts)> {
        let uint = |place: &Place| place.uint(bytes);
        let side = |places: &[Place; 3]| {
            Some(Side { allocs: uint(&places[0])?, frees: uint(&places[1])?, bytes: uint(&places[2])? })
        };
        let counts = Counts { nonpaged: side(&self.sides[0])?, paged: side(&self.sides[1])? };
        Some((PoolTag(uint(&self.key)? as u32 & self.tag_bits), counts))
    }
}

/// One processor's table, or the one that has every key.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) address: VirtAddr,
    /// The first processor whose table it is; nothing for one that is only `PoolTrackTable`.
    pub(super) processor: Option<usize>,
}

/// How it is called in a sentence.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.processor {
            Some(number) => write!(f, "the table of CPU {number}"),
            None => f.write_str("PoolTrackTable"),
        }
    }
}

/// The table of tags that found no room in the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expansion {
    None,
    At {
        address: VirtAddr,
        entries: u64,
    },
    /// There is one, and what says where and how large it is cannot be believed.
    Unsettled,
}

/// All tables of a kernel.
pub(super) struct Trackers {
    pub(super) entry: EntryLayout,
    /// Entries of each table.
    pub(super) entries: u64,
    /// Of the hash; nothing where the table is not of a size that it can be of.
    mask: Option<u64>,
    /// The table that has every key first, and no table twice.
    pub(super) tables: Vec<Table>,
    pub(super) expansion: Expansion,
    /// Tables that there must be and that cannot be found, in a few words each.
    pub(super) lost: Vec<String>,
}

impl Trackers {
    /// Finds the tables; what is odd about them is noted.
    pub(super) fn find(target: &Target<'_>) -> Result<Self, Failure> {
        let names = ["PoolTrackTable", "PoolTrackTableSize", "PoolTrackTableMask", "ExPoolTagTables"];
        let [table, size, mask, slots] = names.map(|name| target.address_of(&format!("nt!{name}")));
        let (table, size, slots) = (table?, size?, slots?);
        let optional = |name: &str| target.address_of(&format!("nt!{name}")).ok();
        let expansion = optional("PoolTrackTableExpansion").zip(optional("PoolTrackTableExpansionSize"));
        let entry = EntryLayout::find(target)?;
        let pointer = target.pointer_size();
        let group = GROUP.min(room_for_slots(target, slots)) as usize * pointer;
        let mut wanted = vec![(table, pointer), (size, pointer), (slots, group)];
        let mask = mask.ok();
        wanted.extend(mask.map(|at| (at, pointer)));
        wanted.extend(expansion.iter().flat_map(|(at, size)| [(*at, pointer), (*size, pointer)]));
        wanted.extend(optional("KeNumberProcessors").map(|at| (at, 4)));
        let mut read = target.read_ranges(&wanted).into_iter();
        let mut next = || read.next().expect("an answer for each question");
        let (table, size, group) = (next(), next(), next());
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let needed = |what: &str, answer: Result<Vec<u8>, ReadError>| match answer {
            Ok(bytes) => Ok(number(&bytes)),
            Err(error) => Err(TargetError::read(what, error)),
        };
        let (table, size) = (needed("PoolTrackTable", table)?, needed("PoolTrackTableSize", size)?);
        let group: Vec<u8> = group.map_err(|error| TargetError::read("ExPoolTagTables", error))?;
        let mask = mask.and_then(|_| next().ok()).map(|bytes| number(&bytes));
        let expansion = expansion.map(|_| (next().ok(), next().ok()));
        let processors = processors(read.next().and_then(Result::ok).map(|bytes| number(&bytes)));

        if table == 0 {
            return Err(Failure::Reason(
                "the kernel has no pool tracker table yet: PoolTrackTable is 0 (the target stopped too early in boot)".to_owned(),
            ));
        }
        if !(2..=MAX_ENTRIES).contains(&size) {
            return Err(Failure::Reason(format!(
                "PoolTrackTableSize is {size:#x}, which is no size of a tracker table; the symbols may not fit this kernel"
            )));
        }
        let (entries, mask) = settled(target, size, mask);
        let mut found = Self {
            entry,
            entries,
            mask,
            tables: vec![Table { address: target.address(table), processor: None }],
            expansion: expansion_of(
                target,
                expansion.map(|(at, size)| (at.map(|at| number(&at)), size.map(|it| number(&it)))),
            ),
            lost: Vec::new(),
        };
        let mut pointers: Vec<u64> = group.chunks_exact(pointer).map(number).collect();
        let is_full = pointers.last().is_some_and(|last| *last != 0);
        let further = processors.unwrap_or(if is_full { MAX_PROCESSORS } else { 0 });
        let further = further.min(room_for_slots(target, slots)).saturating_sub(pointers.len() as u64);
        if further > 0 {
            let at = slots.offset((pointers.len() * pointer) as u64);
            let (bytes, missing) = target.read_some(at, further as usize * pointer);
            pointers.extend(bytes.chunks_exact(pointer).map(number));
            if let Some(error) = missing {
                found.lost.push(format!("ExPoolTagTables behind slot {}: {error}", pointers.len()));
            }
        }
        found.add_tables(target, &pointers, processors);
        Ok(found)
    }

    /// Adds the processors' tables. Slots may be empty, those of processors that never started, and processors share none.
    fn add_tables(&mut self, target: &Target<'_>, pointers: &[u64], processors: Option<u64>) {
        for (number, pointer) in pointers.iter().enumerate() {
            let address = target.address(*pointer);
            let is_processor = processors.is_none_or(|count| (number as u64) < count);
            if *pointer == 0 {
                continue;
            }
            if !target.is_kernel(address) || !pointer.is_multiple_of(8) {
                if is_processor {
                    self.lost.push(format!(
                        "the table of CPU {number} at {}: no kernel address",
                        target.shown(address)
                    ));
                }
                continue;
            }
            match self.tables.iter_mut().find(|table| table.address == address) {
                Some(table) => {
                    table.processor.get_or_insert(number);
                }
                None => self.tables.push(Table { address, processor: Some(number) }),
            }
        }
        if pointers.iter().all(|pointer| *pointer == 0) {
            let text = "No processor has a table of its own: what is counted is what PoolTrackTable has";
            target.note(Note::remark(NoteCode::CountsDiffer, text));
        }
    }

    /// Bytes of each table.
    pub(super) fn table_len(&self) -> u64 {
        self.entries * self.entry.size() as u64
    }

    /// Every key, as far as the table that has them all can be read: its cost is one table's. Of a table of a wild size none.
    pub(super) fn keys(&self, target: &Target<'_>) -> Vec<PoolTag> {
        const LARGEST: u64 = 1 << 20;
        let Some(master) = self.tables.first().filter(|_| self.table_len() <= LARGEST) else {
            return Vec::new();
        };
        let (bytes, _) = target.read_some(master.address, self.table_len() as usize);
        let keys = bytes.chunks_exact(self.entry.size()).filter_map(|bytes| self.entry.entry(bytes));
        keys.map(|(key, _)| key).filter(|key| key.0 != 0).collect()
    }

    /// Where an entry of a table is.
    pub(super) fn at(&self, table: &Table, index: u64) -> VirtAddr {
        table.address.offset(index * self.entry.size() as u64)
    }

    /// The index of `tag`, by the kernel's own hash, or by a search of the table that has every key.
    pub(super) fn index_of(&self, target: &Target<'_>, tag: PoolTag) -> Result<Option<u64>, TargetError> {
        if let Some(index) = self.probe(target, tag)? {
            return Ok(Some(index));
        }
        // An unknown hash, or a tag that was never used: four bytes are searched for in one request.
        let master = &self.tables[0];
        let (start, end) = (master.address, self.at(master, self.entries));
        let mut from = start;
        while from < end {
            let searched = target.search(from..end, &tag.bytes());
            let searched = searched.map_err(|error| TargetError::read("PoolTrackTable", error))?;
            if let Some(at) = searched.given_up {
                let text = format!("What lies at {} and beyond was not searched", target.shown(at));
                target.note(Note::partial(NoteCode::Unreadable, text));
            }
            let Some(at) = searched.found.filter(|at| *at >= from && *at < end) else { break };
            let offset = at.since(start);
            if offset % self.entry.size() as u64 == self.entry.key_offset() {
                return Ok(Some(offset / self.entry.size() as u64));
            }
            from = at.offset(1);
        }
        Ok(None)
    }

    /// Goes where the kernel would look for a tag, as far as one more reply each time, until it is there or could not be.
    fn probe(&self, target: &Target<'_>, tag: PoolTag) -> Result<Option<u64>, TargetError> {
        let Some(mask) = self.mask else { return Ok(None) };
        let hash = HASH.wrapping_mul(tag.0.into());
        let first = mask & u64::from(hash as u32 ^ (hash >> 32) as u32);
        let at_once = (reply_len(target.memory()) / self.entry.size() as u64).max(1);
        let mut step = 0;
        while step <= mask {
            let index = (first + step) & mask;
            let count = at_once.min(mask + 1 - index).min(mask + 1 - step);
            let (bytes, missing) =
                target.read_some(self.at(&self.tables[0], index), count as usize * self.entry.size());
            for (entry, step) in bytes.chunks_exact(self.entry.size()).zip(step..) {
                match self.entry.entry(entry) {
                    Some((key, _)) if key == tag => return Ok(Some((first + step) & mask)),
                    Some((PoolTag(0), _)) => return Ok(None),
                    _ => {}
                }
            }
            if let Some(error) = missing {
                return Err(TargetError::read("PoolTrackTable", error));
            }
            step += count;
        }
        Ok(None)
    }
}

/// Slots that fit between `ExPoolTagTables` and the symbol behind it.
fn room_for_slots(target: &Target<'_>, slots: VirtAddr) -> u64 {
    let Ok((module, symbols)) = target.module_symbols("nt") else { return GROUP };
    let rva = crate::symbols::Rva(slots.since(module.base) as u32);
    let room = symbols.above(rva).map_or(u64::MAX, |above| u64::from(above.rva.0 - rva.0));
    (room / target.pointer_size() as u64).clamp(1, MAX_PROCESSORS)
}

/// How many processors the kernel says it has. A byte in kernels that know 64 at most, with the next variable behind it.
fn processors(word: Option<u64>) -> Option<u64> {
    let count = word.map(|word| if word > MAX_PROCESSORS { word & 0xff } else { word })?;
    (count > 0).then_some(count)
}

/// Entries of each table, and the mask of the hash: they belong together, or the kernel was stopped between writing one and the other.
fn settled(target: &Target<'_>, size: u64, mask: Option<u64>) -> (u64, Option<u64>) {
    let is_mask = |mask: u64| (mask + 1).is_power_of_two();
    match mask {
        Some(mask) if mask.checked_add(2) == Some(size) && is_mask(mask) => (size, Some(mask)),
        None if is_mask(size - 2) => (size, Some(size - 2)),
        None => (size, None),
        Some(mask) => {
            let entries = match mask.checked_add(2) {
                Some(other) if is_mask(mask) => size.min(other),
                _ => size,
            };
            let text = format!(
                "PoolTrackTableSize is {size:#x} and PoolTrackTableMask {mask:#x}, which are not of one table: it was being resized when \
                 the target stopped, and only its first {entries:#x} entries were looked at; g, break in and ask again"
            );
            target.note(Note::partial(NoteCode::UnderWay, text));
            (entries, None)
        }
    }
}

fn expansion_of(target: &Target<'_>, read: Option<(Option<u64>, Option<u64>)>) -> Expansion {
    match read {
        None | Some((Some(0), _)) => Expansion::None,
        Some((Some(at), Some(entries)))
            if target.is_kernel(target.address(at)) && (1..=MAX_ENTRIES).contains(&entries) =>
        {
            Expansion::At { address: target.address(at), entries }
        }
        Some(_) => Expansion::Unsettled,
    }
}
