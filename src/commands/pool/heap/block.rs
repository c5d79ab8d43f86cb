//! The block of a segment heap that an address lies in.

use super::heaps::{Heaps, NotInHeap, Segment};
use crate::commands::pool::header::{PAGE, PoolHeader};
use crate::commands::pool::kind::PoolKind;
use crate::target::{OfLink, SparseBytes, Target, TargetError, VirtAddr};

/// In a descriptor's RangeFlags: in use; the first of its range; what lies there.
const IN_USE: u64 = 1;
const FIRST: u64 = 2;
const WHAT: u64 = 0xc;
const LFH: u64 = 8;
const VS: u64 = 0xc;
/// Bytes of a unit of a chunk's size.
const UNIT: u64 = 0x10;
/// Where the first chunk of a VS range is.
const FIRST_CHUNK: u64 = 0x30;
/// Bytes of a VS range that are walked from its start to find a chunk.
const MAX_WALK: u64 = 0x1_0000;
/// Blocks of an LFH range: as many as its count, of two bytes, can say.
const MAX_BLOCKS: u64 = 0x1_0000;

/// Where in a heap an address lies.
#[derive(Clone, Debug)]
pub(in crate::commands::pool) struct HeapPlace {
    pub(in crate::commands::pool) heap: VirtAddr,
    pub(in crate::commands::pool) segment: VirtAddr,
    pub(in crate::commands::pool) kind: PoolKind,
    pub(in crate::commands::pool) what: Range,
}

/// What the range of units there is.
#[derive(Clone, Debug)]
pub(in crate::commands::pool) enum Range {
    /// Pages of one block, which the table of big blocks has.
    Pages(VirtAddr),
    /// Nothing is allocated there.
    Free,
    /// Blocks, in the order of their addresses: those that came with the one of the address, which is the one at the index.
    Blocks { blocks: Vec<HeapBlock>, asked: usize, is_lfh: bool },
}

/// A small block.
#[derive(Clone, Copy, Debug)]
pub(in crate::commands::pool) struct HeapBlock {
    /// Where the pool header is.
    pub(in crate::commands::pool) header: PoolHeader,
    /// Bytes of the slot that it lies in, without what the heap itself has in front of it.
    pub(in crate::commands::pool) size: u64,
    pub(in crate::commands::pool) is_allocated: bool,
}

impl Heaps {
    /// The block that an address lies in.
    pub(in crate::commands::pool) fn locate(
        &self,
        target: &Target<'_>,
        address: VirtAddr,
    ) -> Result<HeapPlace, NotInHeap> {
        let segment = self.segment_of(target, address)?;
        let what = self.range_of(target, &segment, address)?;
        let kind = self.kind_of(target, segment.heap);
        Ok(HeapPlace { heap: segment.heap, segment: segment.at, kind, what })
    }

    fn range_of(
        &self,
        target: &Target<'_>,
        segment: &Segment,
        address: VirtAddr,
    ) -> Result<Range, NotInHeap> {
        let unit = address.since(segment.at) >> segment.unit_shift;
        if unit < segment.first_unit {
            let at = target.shown(segment.at);
            return Err(NotInHeap::Odd(format!("it lies in the heap's own part of its segment at {at}")));
        }
        let mut first = unit;
        let mut descriptor = self.descriptor(target, segment, unit)?;
        if descriptor.flags & IN_USE == 0 {
            return Ok(Range::Free);
        }
        if descriptor.flags & FIRST == 0 {
            first = unit
                .checked_sub(descriptor.units)
                .filter(|first| *first >= segment.first_unit && *first < unit)
                .ok_or_else(|| {
                    NotInHeap::Odd(format!(
                        "the descriptor of its pages in segment {} leads out of it",
                        target.shown(segment.at)
                    ))
                })?;
            descriptor = self.descriptor(target, segment, first)?;
        }
        let start = segment.at.offset(first << segment.unit_shift);
        let units = descriptor.units.max(1);
        let len = (units << segment.unit_shift).min(segment.size - (first << segment.unit_shift));
        let is_first = descriptor.flags & (IN_USE | FIRST) == IN_USE | FIRST;
        if !is_first || first + units <= unit {
            let text = "the descriptors of its pages do not fit one another";
            return Err(NotInHeap::Odd(format!("{text} in segment {}", target.shown(segment.at))));
        }
        match descriptor.flags & WHAT {
            0 => Ok(Range::Pages(start)),
            LFH => self.lfh(target, start, len, address),
            VS => self.vs(target, start, len, address),
            other => Err(NotInHeap::Odd(format!(
                "the pages at {} are of a kind that is not known ({other:#x})",
                target.shown(start)
            ))),
        }
    }

    fn descriptor(
        &self,
        target: &Target<'_>,
        segment: &Segment,
        unit: u64,
    ) -> Result<Descriptor, TargetError> {
        let layout = &self.layouts.descriptor;
        let record = target.record_of(layout, segment.at.offset(unit * layout.size() as u64))?;
        // The same byte counts a range's units in its first descriptor, and back to that one in the others.
        Ok(Descriptor { flags: record.uint("RangeFlags")?, units: record.uint("UnitSize")? })
    }

    fn lfh(
        &self,
        target: &Target<'_>,
        start: VirtAddr,
        len: u64,
        address: VirtAddr,
    ) -> Result<Range, NotInHeap> {
        let odd = |why: &str| NotInHeap::Odd(format!("the LFH subsegment at {}: {why}", target.shown(start)));
        let layout = &self.layouts.lfh;
        let subsegment = target.record_of(layout, start)?;
        let encoded = subsegment.address_of("BlockOffsets")?.since(start) as usize;
        let word = subsegment.bytes().get(encoded..encoded + 4).ok_or_else(|| odd("it cannot be read"))?;
        let word = u32::from_le_bytes(word.try_into().expect("four bytes"));
        let decoded = word ^ self.lfh_key as u32 ^ (start.0 >> 12) as u32;
        let (size, first) = (u64::from(decoded & 0xffff), u64::from(decoded >> 16));
        let bitmap = layout.offset("BlockBitmap")?;
        if size < self.header.size() || first < bitmap || first + size > len || !first.is_multiple_of(8) {
            return Err(odd("its block size does not decode"));
        }
        let count = subsegment.uint("BlockCount")?.min((len - first) / size).min(MAX_BLOCKS);
        let offset = address.since(start);
        let Some(index) =
            offset.checked_sub(first).map(|offset| offset / size).filter(|index| *index < count)
        else {
            return Err(odd("the address lies in none of its blocks"));
        };
        let page = VirtAddr(address.0 & !(PAGE - 1));
        // Those of the address's page: they come with the one that is asked for.
        let from = page.0.saturating_sub(start.offset(first).0).div_ceil(size).min(index);
        let to = (page.offset(PAGE).since(start) - first).div_ceil(size).min(count);
        let bits = target.read_some(start.offset(bitmap), (count * 2).div_ceil(8) as usize).0;
        let to = to.max(index + 1);
        let page = Bytes::read(
            target,
            start.offset(first + from * size),
            (to - from - 1) * size + self.header.size(),
        );
        let mut blocks = Vec::new();
        let mut asked = None;
        for number in from..to {
            let at = start.offset(first + number * size);
            let bit = bits.get((number / 4) as usize).map(|byte| byte >> (number % 4 * 2) & 1);
            let header = self.header_in(target, &page, at);
            let (Some(bit), Some(header)) = (bit, header) else { continue };
            if number == index {
                asked = Some(blocks.len());
            }
            blocks.push(HeapBlock { header, size, is_allocated: bit == 1 });
        }
        let asked = asked.ok_or_else(|| odd("the block cannot be read"))?;
        Ok(Range::Blocks { blocks, asked, is_lfh: true })
    }

    fn vs(
        &self,
        target: &Target<'_>,
        start: VirtAddr,
        len: u64,
        address: VirtAddr,
    ) -> Result<Range, NotInHeap> {
        let end = start.offset(len);
        let page = VirtAddr(address.0 & !(PAGE - 1)).max(start.offset(FIRST_CHUNK));
        let page_end = VirtAddr(address.0 | (PAGE - 1)).offset(1).min(end);
        let bytes = Bytes::read(target, page, page_end.since(page));
        let found = match self.chunks_of_page(target, &bytes, end) {
            Some(chunks) if chunks.iter().any(|chunk| chunk.covers(address)) => Some(chunks),
            // The first chunk that begins in the page knows the size of the one in front of it.
            Some(chunks) => {
                chunks.first().and_then(|first| self.chunk_before(target, first, start)).map(|before| {
                    let mut all = vec![before];
                    all.extend(chunks);
                    all
                })
            }
            None => None,
        };
        let chunks = match found.filter(|chunks| chunks.iter().any(|chunk| chunk.covers(address))) {
            Some(chunks) => chunks,
            None => vec![self.walk_to(target, start, end, address)?],
        };
        let mut blocks = Vec::new();
        let mut asked = None;
        for chunk in &chunks {
            let Some(block) = self.block_of(target, &bytes, chunk) else { continue };
            if chunk.covers(address) {
                asked = Some(blocks.len());
            }
            blocks.push(block);
        }
        let asked = asked.ok_or_else(|| NotInHeap::Odd("the block's header cannot be read".to_owned()))?;
        Ok(Range::Blocks { blocks, asked, is_lfh: false })
    }

    /// The chunks that begin in a page: the longest row of them that hangs together up to the page's end.
    fn chunks_of_page(&self, target: &Target<'_>, page: &Bytes, end: VirtAddr) -> Option<Vec<Chunk>> {
        let at = |offset: u64| -> Option<Chunk> {
            let at = page.start.offset(offset);
            self.chunk(at, page.get(at, UNIT)?, end)
        };
        let len = page.bytes.len() as u64;
        (0..len / UNIT).map(|slot| slot * UNIT).find_map(|offset| {
            let mut row = vec![at(offset)?];
            let mut next = offset + row[0].len;
            while next < len {
                let chunk = at(next)?;
                if chunk.previous != row.last().expect("one at least").len {
                    return None;
                }
                next += chunk.len;
                row.push(chunk);
            }
            // One alone that reaches over the page's end may be chance: the one behind it says.
            let last = *row.last().expect("one at least");
            let behind = last.at.offset(last.len);
            let agrees =
                || self.read_chunk(target, behind, end).is_some_and(|chunk| chunk.previous == last.len);
            (row.len() > 1 || behind == end || agrees()).then_some(row)
        })
    }

    fn chunk_before(&self, target: &Target<'_>, chunk: &Chunk, start: VirtAddr) -> Option<Chunk> {
        let at = VirtAddr(chunk.at.0.checked_sub(chunk.previous)?);
        (chunk.previous > 0 && at >= start.offset(FIRST_CHUNK))
            .then(|| self.read_chunk(target, at, chunk.at))
            .flatten()
            .filter(|before| before.len == chunk.previous)
    }

    /// Goes from chunk to chunk from the start of the range until one covers the address.
    fn walk_to(
        &self,
        target: &Target<'_>,
        start: VirtAddr,
        end: VirtAddr,
        address: VirtAddr,
    ) -> Result<Chunk, NotInHeap> {
        let odd =
            |why: String| NotInHeap::Odd(format!("the VS subsegment at {}: {why}", target.shown(start)));
        let mut at = start.offset(FIRST_CHUNK);
        while at < end {
            if at.since(start) > MAX_WALK {
                return Err(odd(format!("its chunks were not followed beyond {MAX_WALK:#x} bytes")));
            }
            let Some(chunk) = self.read_chunk(target, at, end) else {
                return Err(odd(format!("its chunk at {} does not decode", target.shown(at))));
            };
            if chunk.covers(address) {
                return Ok(chunk);
            }
            at = at.offset(chunk.len);
        }
        Err(odd("none of its chunks covers the address".to_owned()))
    }

    fn read_chunk(&self, target: &Target<'_>, at: VirtAddr, end: VirtAddr) -> Option<Chunk> {
        let (bytes, _) = target.read_some(at, UNIT as usize);
        self.chunk(at, &bytes, end)
    }

    /// A chunk, if its header decodes to one that ends before `end`.
    fn chunk(&self, at: VirtAddr, bytes: &[u8], end: VirtAddr) -> Option<Chunk> {
        let sizes = self.layouts.chunk.offset("Sizes").ok()? as usize;
        let word = u64::from_le_bytes(bytes.get(sizes..sizes + 8)?.try_into().ok()?);
        let decoded = word ^ self.heap_key ^ at.0;
        let (len, previous) = ((decoded >> 16 & 0xffff) * UNIT, (decoded >> 32 & 0xffff) * UNIT);
        let is_allocated = match decoded >> 48 & 0xff {
            0 => false,
            1 => true,
            _ => return None,
        };
        (len > UNIT && len <= end.since(at)).then_some(Chunk { at, len, previous, is_allocated })
    }

    fn block_of(&self, target: &Target<'_>, page: &Bytes, chunk: &Chunk) -> Option<HeapBlock> {
        let size = chunk.len - UNIT;
        let body = chunk.at.offset(UNIT);
        let here = self.header_in(target, page, body)?;
        let whole = HeapBlock { header: here, size, is_allocated: chunk.is_allocated };
        // A block that would cross a page begins at the next one.
        let next = VirtAddr((body.0 | (PAGE - 1)) + 1);
        let skipped = next.since(body);
        if here.size == size || skipped >= size || size >= 2 * PAGE || !chunk.is_allocated {
            return Some(whole);
        }
        let there = self
            .header_in(target, page, next)
            .filter(|header| header.size > 0 && header.size <= size - skipped);
        Some(there.map_or(whole, |header| HeapBlock { header, size: size - skipped, ..whole }))
    }

    /// The header at `at`: out of bytes that were read already, if they have it.
    fn header_in(&self, target: &Target<'_>, bytes: &Bytes, at: VirtAddr) -> Option<PoolHeader> {
        let size = self.header.size();
        match bytes.get(at, size) {
            Some(bytes) => self.header.decode(at, bytes),
            None => self.header.decode(at, &target.read_some(at, size as usize).0),
        }
    }

    /// The block whose header is at `at`, as a search finds it: as little as possible is read.
    pub(in crate::commands::pool) fn block_with_header(
        &self,
        target: &Target<'_>,
        at: VirtAddr,
    ) -> Result<Option<HeapBlock>, TargetError> {
        // The chunk in front of it, if it is one, says all.
        let chunk = VirtAddr(at.0.wrapping_sub(UNIT));
        let end = VirtAddr(chunk.0 | 0xff_ffff);
        let bytes = Bytes::read(target, chunk, UNIT + self.header.size());
        let near = bytes.get(chunk, UNIT).and_then(|header| self.chunk(chunk, header, end));
        let near = near.and_then(|chunk| self.block_of(target, &bytes, &chunk));
        let of_chunk = near.filter(|block| block.header.at == at && block.header.size == block.size);
        if let Some(block) = of_chunk {
            return Ok(Some(block));
        }
        match self.locate(target, at.offset(self.header.size())) {
            Ok(HeapPlace { what: Range::Blocks { blocks, asked, .. }, .. }) => {
                Ok(blocks.get(asked).copied().filter(|block| block.header.at == at))
            }
            Err(NotInHeap::Target(error)) if error.is_of_link() => Err(error),
            _ => Ok(None),
        }
    }
}

/// Bytes that were read at once.
struct Bytes {
    start: VirtAddr,
    bytes: SparseBytes,
}

impl Bytes {
    fn read(target: &Target<'_>, start: VirtAddr, len: u64) -> Self {
        Self { start, bytes: target.read_sparse(start, len as usize) }
    }

    fn get(&self, at: VirtAddr, len: u64) -> Option<&[u8]> {
        let from = at.since(self.start);
        let to = from.checked_add(len).filter(|to| *to <= self.bytes.len() as u64)?;
        self.bytes.get(from as usize..to as usize)
    }
}

/// A descriptor of a unit.
struct Descriptor {
    flags: u64,
    units: u64,
}

/// A chunk of a VS range, its header with it.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    at: VirtAddr,
    len: u64,
    previous: u64,
    is_allocated: bool,
}

impl Chunk {
    const fn covers(&self, address: VirtAddr) -> bool {
        address.since(self.at) < self.len
    }
}
