//! Small blocks of a tag: found by the target's own search where pool lies, and believed only where a block begins.
//!
//! ```text
//!  segment heap:  each segment is searched; a match is a block's if its chunk or its subsegment says so
//!  old pool:      the region is searched; a match is a block's if the header there fits the one behind it
//! ```
//! Source: pool.md 3.2.

use std::ops::Range;

use super::failure::Failure;
use super::header::{HeaderLayout, PAGE, PoolHeader};
use super::heap::Heaps;
use super::kind::PoolKind;
use super::ranges;
use super::tag::PoolTag;
use crate::memory::searches;
use crate::output::grouped;
use crate::target::{Note, NoteCode, Target, TargetError, VirtAddr};

/// Most blocks of a pool that are listed.
const MAX_BLOCKS: usize = 0x1000;
/// Most matches that are looked at for them.
const MAX_MATCHES: u64 = 0x1_0000;

/// A small block that is in use.
#[derive(Clone, Copy, Debug)]
pub(super) struct SmallBlock {
    /// What its owner was given.
    pub(super) address: VirtAddr,
    /// Bytes, its header with it.
    pub(super) bytes: u64,
    pub(super) kind: PoolKind,
    pub(super) is_protected: bool,
}

/// What a search for small blocks came to.
#[derive(Clone, Debug, Default)]
pub(super) struct SmallBlocks {
    pub(super) blocks: Vec<SmallBlock>,
    /// Where was searched.
    pub(super) searched: Vec<Range<VirtAddr>>,
    /// Blocks of the tag that are free.
    pub(super) free: u64,
    /// Matches that are no tag of a block.
    pub(super) rejected: u64,
    /// Not all of the pool was searched.
    pub(super) is_cut: bool,
}

impl SmallBlocks {
    /// Searches one pool.
    pub(super) fn find(target: &Target<'_>, tag: PoolTag, kind: PoolKind) -> Result<Self, Failure> {
        let mut found = Self::default();
        match Heaps::find(target)? {
            Some(heaps) => found.search_heaps(target, &heaps, tag, kind)?,
            None => found.search_region(target, tag, kind)?,
        }
        Ok(found)
    }

    fn search_heaps(
        &mut self,
        target: &Target<'_>,
        heaps: &Heaps,
        tag: PoolTag,
        kind: PoolKind,
    ) -> Result<(), Failure> {
        let lists = heaps.lists(target, kind)?;
        let segments: u64 = lists.iter().map(|list| list.count).sum();
        let bytes: u64 =
            lists.iter().map(|list| list.count.saturating_mul(list.size)).fold(0, u64::saturating_add);
        if segments > 0 {
            target.announce(&format!(
                "searching {} MiB of {} in {} segments takes about {} requests",
                grouped(bytes >> 20),
                kind.to_string().to_lowercase(),
                grouped(segments),
                grouped(segments.saturating_mul(2))
            ));
        }
        for list in &lists {
            let mut segments = heaps.segments(target, list);
            self.is_cut |= (segments.len() as u64) < list.count;
            segments.sort_unstable();
            // Neighbours are searched as one.
            let mut ranges: Vec<Range<VirtAddr>> = Vec::new();
            for segment in segments {
                match ranges.last_mut().filter(|last| last.end == segment) {
                    Some(last) => last.end = segment.offset(list.size),
                    None => ranges.push(segment..segment.offset(list.size)),
                }
            }
            for range in ranges {
                self.search(
                    target,
                    range,
                    &[tag.0],
                    heaps.header.tag_offset(),
                    heaps.header.size(),
                    &|at| {
                        let block = heaps.block_with_header(target, at)?;
                        Ok(block.map(|block| Found {
                            header: block.header,
                            is_allocated: block.is_allocated,
                            kind,
                        }))
                    },
                )?;
                if target.over().is_some() {
                    self.is_cut = true;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn search_region(&mut self, target: &Target<'_>, tag: PoolTag, kind: PoolKind) -> Result<(), Failure> {
        let header = HeaderLayout::find(target)?;
        let searchable = match ranges::searchable(target, kind) {
            Ok(searchable) => searchable,
            Err(why) => {
                let text = format!("{kind} was not searched for small blocks: {why}");
                target.note(Note::partial(NoteCode::NotSearched, text));
                self.is_cut = true;
                return Ok(());
            }
        };
        if searchable.is_cut {
            let text = format!(
                "{kind} was searched from {} to {} only, where most of it lies",
                target.shown(searchable.range.start),
                target.shown(searchable.range.end)
            );
            target.note(Note::remark(NoteCode::Limit, text));
        }
        let keys = header.keys(tag);
        let bytes = searchable.range.end.since(searchable.range.start);
        target.announce(&format!(
            "searching {} MiB of {} takes about {} requests, and two for each match",
            grouped(bytes >> 20),
            kind.to_string().to_lowercase(),
            grouped(searches(bytes).saturating_mul(keys.len() as u64))
        ));
        self.search(target, searchable.range, &keys, header.tag_offset(), header.size(), &|at| {
            Ok(old_block(target, &header, at))
        })?;
        Ok(())
    }

    fn search(
        &mut self,
        target: &Target<'_>,
        range: Range<VirtAddr>,
        keys: &[u32],
        tag_offset: u64,
        unit: u64,
        look: &dyn Fn(VirtAddr) -> Result<Option<Found>, TargetError>,
    ) -> Result<(), TargetError> {
        self.searched.push(range.clone());
        for key in keys {
            let mut from = range.start;
            let mut matches = 0;
            while from < range.end {
                target.advance("pool", from.since(range.start) >> 20, range.end.since(range.start) >> 20);
                let searched = target.search(from..range.end, &key.to_le_bytes());
                let searched = searched.map_err(|error| TargetError::read("pool", error))?;
                if let Some(at) = searched.given_up {
                    let text = format!("Pool was not searched from {} on", target.shown(at));
                    target.note(Note::partial(NoteCode::Unreadable, text));
                    self.is_cut = true;
                }
                let Some(hit) = searched.found.filter(|hit| *hit >= from && *hit < range.end) else { break };
                from = hit.offset(1);
                matches += 1;
                if matches > MAX_MATCHES || self.blocks.len() >= MAX_BLOCKS {
                    let text = format!(
                        "Only the first {} small blocks are listed: looking ended at {}",
                        self.blocks.len(),
                        target.shown(hit)
                    );
                    target.note(Note::partial(NoteCode::Limit, text));
                    self.is_cut = true;
                    return Ok(());
                }
                let header = VirtAddr(hit.0.wrapping_sub(tag_offset));
                let found = if header.0.is_multiple_of(unit) { look(header)? } else { None };
                match found {
                    None => self.rejected += 1,
                    Some(found) if !found.is_allocated => self.free += 1,
                    Some(Found { header, kind, .. }) => self.blocks.push(SmallBlock {
                        address: header.at.offset(unit),
                        bytes: header.size,
                        kind,
                        is_protected: header.is_protected,
                    }),
                }
            }
        }
        Ok(())
    }
}

/// A header that a search found.
struct Found {
    header: PoolHeader,
    is_allocated: bool,
    kind: PoolKind,
}

/// The block of the old pool whose header is at `at`, if one can be there.
fn old_block(target: &Target<'_>, layout: &HeaderLayout, at: VirtAddr) -> Option<Found> {
    let read = |at: VirtAddr| {
        let (bytes, _) = target.read_some(at, layout.size() as usize);
        layout.decode(at, &bytes)
    };
    let header = read(at)?;
    let behind = at.offset(header.size);
    let is_last = at.0 % PAGE + header.size >= PAGE;
    let behind = if is_last { None } else { Some(read(behind)?) };
    layout.is_plausible(&header, behind.as_ref()).then(|| Found {
        header,
        is_allocated: header.is_allocated(),
        kind: header.kind(),
    })
}
