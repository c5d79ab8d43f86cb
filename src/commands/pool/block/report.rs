//! What `!pool` finds out about an address.

use serde::Serialize;

use super::special::{self, Tracked};
use crate::commands::answer::Query;
use crate::commands::error::QueryError;
use crate::commands::pool::big_pages::{BigBlock, BigPages, Reach};
use crate::commands::pool::failure::Failure;
use crate::commands::pool::header::{HeaderLayout, PAGE, PoolHeader};
use crate::commands::pool::heap::{HeapBlock, HeapPlace, Heaps, NotInHeap, Range};
use crate::commands::pool::kind::PoolKind;
use crate::commands::pool::tag::PoolTag;
use crate::commands::pool::tag_file::{TagText, TagTexts};
use crate::commands::schema::Schema;
use crate::commands::verifier::pool_log::{Asked, BlockTrace, block_traces};
use crate::output::{self, grouped};
use crate::target::{Note, NoteCode, OfLink, Target, TargetError, VirtAddr};

pub(super) const NAME: &str = "!pool";
/// Bytes of a block that are shown of its contents.
const CONTENTS: usize = 0x80;

/// Asks which pool block an address lies in.
#[derive(Clone, Copy, Debug)]
pub struct BlockQuery {
    /// The address.
    pub address: VirtAddr,
    /// The block's first bytes too.
    pub contents: bool,
    /// Not the other blocks of its page.
    pub alone: bool,
    /// Not what is known of its tag.
    pub bare: bool,
    /// The whole table of large blocks may be read.
    pub reads_all: bool,
    /// With the stack that allocated the block, as far as the pool log has it.
    pub stack: bool,
}

/// Which pool block an address lies in.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct PoolBlock {
    /// What was asked for.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub address: VirtAddr,
    /// Which pool it is of.
    pub pool: PoolKind,
    /// What it lies in; nothing if it is no pool's.
    pub place: Option<Place>,
    /// The block that it lies in, and the others of its page if they were asked for.
    pub blocks: Vec<BlockRow>,
    /// What the user's `pooltag.txt` says of its tag.
    pub description: Option<String>,
    /// Whose it is by that file.
    pub binary: Option<String>,
    /// Driver Verifier's tracker of it, if the block leads to one.
    pub tracker: Option<Tracker>,
    /// Who allocated it, as the pool log has it, if that was asked for.
    pub allocation: Option<BlockTrace>,
    /// Its first bytes, in hexadecimal, if they were asked for.
    pub contents: Option<String>,
    #[serde(skip)]
    pub(super) bare: bool,
}

/// What an address lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// A page of the old pool.
    Page,
    /// A segment heap's blocks of many sizes.
    HeapVs,
    /// A segment heap's blocks of one size.
    HeapLfh,
    /// Pages of a segment heap that nothing is allocated in.
    HeapFree,
    /// A block of whole pages.
    Large,
    /// Special pool.
    Special,
}

/// One block.
#[derive(Clone, Copy, Debug, Serialize, schemars::JsonSchema)]
pub struct BlockRow {
    /// Where it begins: its header, if it has one.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub address: VirtAddr,
    /// What its owner was given.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub body: VirtAddr,
    /// Bytes, its header with it.
    pub size: u64,
    /// Bytes of the block in front of it in its page; 0 if none is told.
    pub previous_size: u64,
    /// It is in use.
    pub is_allocated: bool,
    /// Four characters; what is not printable shows as a dot.
    pub tag: PoolTag,
    /// The same as the number that it is.
    #[serde(serialize_with = "output::hex")]
    #[schemars(with = "output::Hex")]
    pub tag_hex: u32,
    /// It may be freed with its tag only.
    pub is_protected: bool,
    /// The address that was asked for lies in it.
    pub is_asked: bool,
    /// The process that is charged for it.
    #[serde(serialize_with = "output::address_or_null")]
    #[schemars(with = "Option<output::Hex>")]
    pub process: Option<VirtAddr>,
}

/// What Driver Verifier has written down of a block.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Tracker {
    /// Its `_VI_POOL_ENTRY`.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub address: VirtAddr,
    /// Bytes, as tracked.
    pub size: u64,
    /// Where the driver called from: a return address.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub caller: VirtAddr,
    /// `myfault!MyfaultDeviceControl+0x2e1`; nothing outside of every module.
    pub caller_symbol: Option<String>,
}

/// What was found so far.
struct Located {
    pool: PoolKind,
    place: Place,
    blocks: Vec<BlockRow>,
    tracked: Option<Tracked>,
}

impl Query for BlockQuery {
    type Facts = PoolBlock;

    fn run(&self, target: &Target<'_>) -> Result<PoolBlock, QueryError> {
        let located = self.locate(target).map_err(|failure| failure.of(NAME))?;
        let mut facts = PoolBlock {
            address: self.address,
            pool: PoolKind::Unknown,
            place: None,
            blocks: Vec::new(),
            description: None,
            binary: None,
            tracker: None,
            allocation: None,
            contents: None,
            bare: self.bare,
        };
        let Some(Located { pool, place, mut blocks, tracked }) = located else { return Ok(facts) };
        if self.alone {
            blocks.retain(|block| block.is_asked);
        }
        (facts.pool, facts.place) = (pool, Some(place));
        if let Some(asked) = blocks.iter().find(|block| block.is_asked) {
            if !self.bare && asked.is_allocated {
                let text = TagTexts::of(target).find(asked.tag).cloned();
                let (description, binary) =
                    text.map(|TagText { description, binary }| (description, binary)).unzip();
                (facts.description, facts.binary) = (description, binary.flatten());
            }
            if self.contents {
                let (bytes, _) = target.read_some(asked.body, CONTENTS.min(asked.size as usize));
                facts.contents = Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect());
            }
            if self.stack && asked.is_allocated {
                let caller = tracked.map(|tracked| tracked.caller);
                let asked = Asked { address: asked.body, bytes: asked.size, caller };
                facts.allocation = block_traces(target, &[asked]).pop();
            }
        }
        facts.tracker = tracked.map(|tracked| Tracker {
            address: tracked.tracker,
            size: tracked.bytes,
            caller: tracked.caller,
            caller_symbol: Some(target.symbol_at(tracked.caller))
                .filter(|at| at.is_named())
                .map(|at| at.to_string()),
        });
        facts.blocks = blocks;
        Ok(facts)
    }
}

impl BlockQuery {
    fn locate(&self, target: &Target<'_>) -> Result<Option<Located>, Failure> {
        if !target.is_kernel(self.address) {
            note(target, self.address, "no kernel address, and pool has no others");
            return Ok(None);
        }
        let is_page = self.address.0.is_multiple_of(PAGE);
        // No small block begins where a page does, and large ones all do.
        if let Some(table) = is_page.then(|| known(target, BigPages::find(target))).transpose()?.flatten() {
            let (block, _) = table.starting_at(target, self.address)?;
            if let Some(block) = block {
                return Ok(Some(self.large(target, block)));
            }
        }
        let small = match known(target, Heaps::find(target))? {
            Some(Some(heaps)) => self.in_heap(target, &heaps)?,
            Some(None) => self.in_page(target)?,
            None => None,
        };
        if let Some(located) = small {
            return Ok(Some(located));
        }
        if target.over().is_some() {
            return Ok(None);
        }
        if let Some(tracked) = special::in_special_page(target, self.address) {
            return Ok(Some(of_special(self.address, tracked)));
        }
        self.in_table(target)
    }

    /// As a block of a page of the old pool.
    fn in_page(&self, target: &Target<'_>) -> Result<Option<Located>, Failure> {
        let layout = HeaderLayout::find(target)?;
        let page = VirtAddr(self.address.0 & !(PAGE - 1));
        let bytes = target.read_sparse(page, PAGE as usize);
        if bytes.readable_len() == 0 {
            let text = format!(
                "Address {} could not be read. It may be a freed, invalid or paged out page",
                target.shown(self.address)
            );
            target.note(Note::partial(NoteCode::Unreadable, text).broken_off_if(bytes.over().is_some()));
            return Ok(None);
        }
        let Some(headers) = layout.page(page, &bytes) else { return Ok(None) };
        let pool = headers.iter().map(PoolHeader::kind).find(|kind| *kind != PoolKind::Unknown);
        let blocks: Vec<_> = headers
            .iter()
            .map(|header| {
                let body = header.at.offset(layout.size());
                row(header, body, header.is_allocated(), header.covers(self.address), header.size, target)
            })
            .collect();
        let asked = blocks.iter().find(|block| block.is_asked && block.is_allocated);
        let tracked =
            asked.and_then(|block| special::of_block(target, block.body, block.address.offset(block.size)));
        Ok(Some(Located { pool: pool.unwrap_or(PoolKind::Unknown), place: Place::Page, blocks, tracked }))
    }

    /// As a block of a segment heap.
    fn in_heap(&self, target: &Target<'_>, heaps: &Heaps) -> Result<Option<Located>, Failure> {
        let HeapPlace { heap, segment, kind, what } = match heaps.locate(target, self.address) {
            Ok(place) => place,
            Err(NotInHeap::NoSegment) => return Ok(None),
            Err(NotInHeap::Target(error)) => return Err(error.into()),
            Err(NotInHeap::Odd(why)) => {
                let text = format!("{} is not told: {why}", target.shown(self.address));
                target.note(Note::partial(NoteCode::Damaged, text));
                return Ok(None);
            }
        };
        match what {
            Range::Pages(start) => {
                let Some(table) = known(target, BigPages::find(target))? else { return Ok(None) };
                let (block, reach) = table.starting_at(target, start)?;
                match block {
                    Some(block) => Ok(Some(self.large(target, block))),
                    None => {
                        self.note_no_block(target, reach);
                        Ok(None)
                    }
                }
            }
            Range::Free => {
                let text = format!(
                    "{} lies in pages that the heap at {} has free (segment {})",
                    target.shown(self.address),
                    target.shown(heap),
                    target.shown(segment)
                );
                target.note(Note::remark(NoteCode::NotFound, text));
                Ok(Some(Located { pool: kind, place: Place::HeapFree, blocks: Vec::new(), tracked: None }))
            }
            Range::Blocks { blocks, asked, is_lfh } => {
                let place = if is_lfh { Place::HeapLfh } else { Place::HeapVs };
                let unit = heaps.header.size();
                let of = |(index, block): (usize, &HeapBlock)| {
                    let HeapBlock { header, size, is_allocated } = *block;
                    let header = PoolHeader { previous: 0, ..header };
                    row(&header, header.at.offset(unit), is_allocated, index == asked, size, target)
                };
                let rows: Vec<_> = blocks.iter().enumerate().map(of).collect();
                let end = |row: &BlockRow| row.address.offset(blocks[asked].header.size.min(row.size));
                let tracked = rows
                    .get(asked)
                    .filter(|row| row.is_allocated)
                    .and_then(|row| special::of_block(target, row.body, end(row)));
                Ok(Some(Located { pool: kind, place, blocks: rows, tracked }))
            }
        }
    }

    /// As an address inside a block of whole pages.
    fn in_table(&self, target: &Target<'_>) -> Result<Option<Located>, Failure> {
        let Some(table) = known(target, BigPages::find(target))? else { return Ok(None) };
        let (found, reach) = match self.reads_all {
            true => {
                target.announce(&format!(
                    "reading PoolBigPageTable takes {} requests",
                    grouped(table.cost(target))
                ));
                table.covering_by_reading(target, self.address)
            }
            false => table.covering(target, self.address)?,
        };
        match found {
            Some(block) => Ok(Some(self.large(target, block))),
            None => {
                let cost = table.cost(target);
                if !self.reads_all && !reach.is_cut {
                    let text = format!(
                        "{} is not pool as far as was looked: no pool page and no heap segment covers it, and no large block that begins \
                         within the mebibyte before it; `{NAME} -f {:x}` reads all of PoolBigPageTable, {} requests",
                        target.shown(self.address),
                        self.address.0,
                        grouped(cost)
                    );
                    target.note(Note::failed(NoteCode::NotFound, text));
                } else {
                    self.note_no_block(target, reach);
                }
                Ok(None)
            }
        }
    }

    fn note_no_block(&self, target: &Target<'_>, reach: Reach) {
        if !reach.is_cut {
            note(
                target,
                self.address,
                "PoolBigPageTable has no block there, and no pool page header or heap segment covers it",
            );
        }
    }

    fn large(&self, target: &Target<'_>, block: BigBlock) -> Located {
        let row = BlockRow {
            address: block.address,
            body: block.address,
            size: block.bytes,
            previous_size: 0,
            is_allocated: true,
            tag: block.tag,
            tag_hex: block.tag.0,
            is_protected: block.is_protected,
            is_asked: true,
            process: None,
        };
        let tracked = special::of_block(target, block.address, block.address.offset(block.bytes));
        Located { pool: block.kind, place: Place::Large, blocks: vec![row], tracked }
    }
}

/// What one of the ways to a block needs; nothing if it is not to be had, which is noted: the others may still lead there.
fn known<T>(target: &Target<'_>, found: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Failure::Target(error))
            if error.is_of_link() || matches!(error, TargetError::NoSymbols { .. }) =>
        {
            Err(Failure::Target(error))
        }
        Err(Failure::Target(error)) => {
            target.note(Note::partial(NoteCode::Damaged, error.to_string()));
            Ok(None)
        }
        Err(Failure::Reason(reason)) => {
            target.note(Note::partial(NoteCode::Damaged, reason));
            Ok(None)
        }
    }
}

fn of_special(asked: VirtAddr, tracked: Tracked) -> Located {
    let row = BlockRow {
        address: tracked.address,
        body: tracked.address,
        size: tracked.bytes,
        previous_size: 0,
        is_allocated: true,
        tag: tracked.tag,
        tag_hex: tracked.tag.0,
        is_protected: false,
        is_asked: asked == tracked.address || asked.since(tracked.address) < tracked.bytes,
        process: None,
    };
    Located { pool: PoolKind::Unknown, place: Place::Special, blocks: vec![row], tracked: Some(tracked) }
}

fn row(
    header: &PoolHeader,
    body: VirtAddr,
    is_allocated: bool,
    is_asked: bool,
    size: u64,
    target: &Target<'_>,
) -> BlockRow {
    // From Windows 8.1 on it is encoded with a secret of the kernel's, and says nothing as it is.
    let process = header
        .process
        .map(VirtAddr)
        .filter(|process| target.is_kernel(*process) && process.0.is_multiple_of(0x10));
    BlockRow {
        address: header.at,
        body,
        size,
        previous_size: header.previous,
        is_allocated,
        tag: header.tag,
        tag_hex: header.tag.0,
        is_protected: header.is_protected,
        is_asked,
        process: process.filter(|_| is_allocated),
    }
}

fn note(target: &Target<'_>, address: VirtAddr, why: &str) {
    let text = format!("{} is not pool: {why}", target.shown(address));
    target.note(Note::failed(NoteCode::NotFound, text));
}

impl PoolBlock {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("pool_block");
}
