//! What `!poolfind` finds.

use std::ops::Range;

use serde::Serialize;

use crate::commands::answer::Query;
use crate::commands::error::QueryError;
use crate::commands::pool::big_pages::BigPages;
use crate::commands::pool::kind::PoolKind;
use crate::commands::pool::small::SmallBlocks;
use crate::commands::pool::tag::PoolTag;
use crate::commands::schema::Schema;
use crate::commands::verifier::pool_log::{Asked, BlockTrace, block_traces};
use crate::output::{self, grouped};
use crate::target::{Note, NoteCode, NoteKind, Target, VirtAddr};

const NAME: &str = "!poolfind";

/// Asks where the blocks of tags are.
#[derive(Clone, Debug, Default)]
pub struct FindQuery {
    /// Which tags.
    pub tags: Vec<PoolTag>,
    /// Of one pool only.
    pub kind: Option<PoolKind>,
    /// Small blocks.
    pub small: bool,
    /// Large blocks. If neither is asked for: large ones, and small ones of a tag that has no large ones.
    pub large: bool,
    /// With the stack that allocated each, as far as the pool log has it.
    pub stacks: bool,
}

/// Where the blocks of tags are.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct PoolFind {
    /// One for each tag, in the order in which they were asked for.
    pub tags: Vec<TagScan>,
}

/// Where the blocks of one tag are.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct TagScan {
    /// Four characters; what is not printable shows as a dot.
    pub tag: PoolTag,
    /// The same as the number that it is.
    #[serde(serialize_with = "output::hex")]
    #[schemars(with = "output::Hex")]
    pub tag_hex: u32,
    /// What was searched, in order.
    pub searches: Vec<Search>,
}

/// One search, and what it found.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Search {
    /// The table of large blocks; if not, pool itself, for small ones.
    pub is_table: bool,
    /// Which pool; nothing for the table.
    pub pool: Option<PoolKind>,
    /// Where it began.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub start: VirtAddr,
    /// Where it ended.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub end: VirtAddr,
    /// Blocks that are held, in the order in which they were found.
    pub blocks: Vec<FoundBlock>,
    /// All of it was searched: there are no others.
    pub is_whole: bool,
}

/// One block.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct FoundBlock {
    /// What its owner was given.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub address: VirtAddr,
    /// Bytes; of a small block its header with it.
    pub bytes: u64,
    /// Which pool.
    pub pool: PoolKind,
    /// It may be freed with its tag only.
    pub is_protected: bool,
    /// Who allocated it, as the pool log has it, if that was asked for.
    pub allocation: Option<BlockTrace>,
}

impl Query for FindQuery {
    type Facts = PoolFind;

    fn run(&self, target: &Target<'_>) -> Result<PoolFind, QueryError> {
        let mut tags = Vec::new();
        for tag in &self.tags {
            let mut scan = TagScan { tag: *tag, tag_hex: tag.0, searches: Vec::new() };
            let is_free_to_choose = !self.small && !self.large;
            if self.large || is_free_to_choose {
                let search = self.large(target, *tag)?;
                let is_found = !search.blocks.is_empty();
                scan.searches.push(search);
                if is_free_to_choose && is_found {
                    let text = format!(
                        "Small blocks of '{tag}' were not searched for, which takes the whole pool; `{NAME} {tag} -small` does"
                    );
                    target.note(Note::remark(NoteCode::NextStep, text));
                }
                if is_free_to_choose && !is_found && target.over().is_none() {
                    self.add_small(target, *tag, &mut scan)?;
                }
            }
            if self.small && target.over().is_none() {
                self.add_small(target, *tag, &mut scan)?;
            }
            self.note_nothing(target, &scan);
            tags.push(scan);
        }
        if self.stacks {
            add_stacks(target, &mut tags);
        }
        Ok(PoolFind { tags })
    }
}

/// Joins each block with what the pool log has of its allocation.
fn add_stacks(target: &Target<'_>, tags: &mut [TagScan]) {
    let searches = tags.iter_mut().flat_map(|scan| &mut scan.searches);
    let mut blocks: Vec<_> = searches.flat_map(|search| &mut search.blocks).collect();
    let asked: Vec<_> = blocks
        .iter()
        .map(|block| Asked { address: block.address, bytes: block.bytes, caller: None })
        .collect();
    for (block, trace) in blocks.iter_mut().zip(block_traces(target, &asked)) {
        block.allocation = Some(trace);
    }
}

impl FindQuery {
    fn large(&self, target: &Target<'_>, tag: PoolTag) -> Result<Search, QueryError> {
        let table = BigPages::find(target).map_err(|failure| failure.of(NAME))?;
        if let Some(refusal) = target.refuses_search() {
            let cost = table.cost(target);
            target.announce(&format!(
                "the target does not search ({refusal}): reading PoolBigPageTable takes {} requests",
                grouped(cost)
            ));
        }
        let found = table.with_tag(target, tag);
        let (blocks, reach) = found.map_err(|source| QueryError::Target { command: NAME, source })?;
        let blocks = blocks.into_iter().map(|block| FoundBlock {
            address: block.address,
            bytes: block.bytes,
            pool: block.kind,
            is_protected: block.is_protected,
            allocation: None,
        });
        let is_asked =
            |block: &FoundBlock| self.kind.is_none_or(|kind| [kind, PoolKind::Unknown].contains(&block.pool));
        Ok(Search {
            is_table: true,
            pool: None,
            start: table.table,
            end: table.end(),
            blocks: blocks.filter(is_asked).collect(),
            is_whole: !reach.is_cut,
        })
    }

    fn add_small(&self, target: &Target<'_>, tag: PoolTag, scan: &mut TagScan) -> Result<(), QueryError> {
        for kind in [PoolKind::Nonpaged, PoolKind::Paged] {
            if self.kind.is_some_and(|asked| asked != kind) || target.over().is_some() {
                continue;
            }
            let found = SmallBlocks::find(target, tag, kind).map_err(|failure| failure.of(NAME))?;
            let Range { start, end } = span(&found.searched);
            let blocks = found.blocks.iter().map(|block| FoundBlock {
                address: block.address,
                bytes: block.bytes,
                pool: block.kind,
                is_protected: block.is_protected,
                allocation: None,
            });
            let blocks: Vec<_> = blocks.collect();
            if found.rejected + found.free > 0 {
                let text = format!(
                    "{kind}: {} more matches of '{tag}' are of blocks that are free, and {} are no block's tag",
                    found.free, found.rejected
                );
                target.note(Note::remark(NoteCode::Searched, text));
            }
            if !found.searched.is_empty() || !blocks.is_empty() {
                let is_whole = !found.is_cut;
                scan.searches.push(Search {
                    is_table: false,
                    pool: Some(kind),
                    start,
                    end,
                    blocks,
                    is_whole,
                });
            }
        }
        Ok(())
    }

    /// Says that there are none, where all of it was searched.
    fn note_nothing(&self, target: &Target<'_>, scan: &TagScan) {
        let is_found = scan.searches.iter().any(|search| !search.blocks.is_empty());
        let is_whole = scan.searches.iter().all(|search| search.is_whole);
        if is_found || !is_whole || target.over().is_some() || target.notes().worst() > Some(NoteKind::Remark)
        {
            return;
        }
        let what = match scan.searches.iter().map(|search| search.is_table).collect::<Vec<_>>()[..] {
            [true] => "large block",
            [false, ..] => "small block",
            _ => "block",
        };
        let place =
            self.kind.map_or_else(String::new, |kind| format!(" in {}", kind.to_string().to_lowercase()));
        let text =
            format!("No {what} with tag '{}' was found{place}; paged-out pages are not searched", scan.tag);
        target.note(Note::remark(NoteCode::NotFound, text));
    }
}

/// From the first address of some ranges to the last.
fn span(ranges: &[Range<VirtAddr>]) -> Range<VirtAddr> {
    let start = ranges.iter().map(|range| range.start).min().unwrap_or(VirtAddr(0));
    start..ranges.iter().map(|range| range.end).max().unwrap_or(start)
}

impl PoolFind {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("pool_find");
}
