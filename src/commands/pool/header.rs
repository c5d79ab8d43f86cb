//! What the pool writes in front of a small block, and a page of the old pool, in which such blocks lie one after the other.
//!
//! ```text
//!  page:  | header | block ... | header | block ... | header | block ... |
//!           BlockSize --------> <- PreviousSize      in units of the header's own size
//! ```
//! Of the old pool a header's PoolType is one more than that of `POOL_TYPE`, and 0 if the block is free; of a segment heap it is that of
//! `POOL_TYPE` with bit 1 set.
//!
//! Source: pool.md 4.1.

use super::kind::PoolKind;
use super::tag::{PROTECTED, PoolTag};
use crate::target::{Layout, Place, SparseBytes, Target, TargetError, VirtAddr};

/// Bytes of a page.
pub(super) const PAGE: u64 = 0x1000;
/// In PoolType: the block's process is charged for it.
const QUOTA: u64 = 8;

/// Where a header's fields are.
pub(super) struct HeaderLayout {
    layout: Layout,
    previous: Place,
    block: Place,
    ty: Place,
    tag: Place,
    process: Option<Place>,
    tag_bits: u32,
}

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PoolHeader {
    /// Where it is.
    pub(super) at: VirtAddr,
    /// Bytes of the block, the header with it.
    pub(super) size: u64,
    /// Bytes of the block in front of it; 0 for the first of its page.
    pub(super) previous: u64,
    /// As it is written.
    pub(super) ty: u64,
    pub(super) tag: PoolTag,
    /// It may be freed with its tag only.
    pub(super) is_protected: bool,
    /// What is written where the process that is charged would be.
    pub(super) process: Option<u64>,
}

impl HeaderLayout {
    pub(super) fn find(target: &Target<'_>) -> Result<Self, TargetError> {
        let layout = target.layout("nt!_POOL_HEADER")?;
        let place = |name: &str| layout.place(name);
        let (previous, block, ty) = (place("PreviousSize")?, place("BlockSize")?, place("PoolType")?);
        let (tag, process) = (place("PoolTag")?, place("ProcessBilled").ok());
        if ![8, 0x10].contains(&layout.size()) {
            let wrong = format!("{:#x} bytes", layout.size());
            let address = target.shown(VirtAddr(0));
            return Err(TargetError::Unexpected { what: "_POOL_HEADER in the symbols", address, wrong });
        }
        let tag_bits = PoolTag::bits_of(target);
        Ok(Self { previous, block, ty, tag, process, tag_bits, layout })
    }

    /// Bytes of a header, which sizes are counted in.
    pub(super) fn size(&self) -> u64 {
        self.layout.size() as u64
    }

    /// Where in a header the tag is.
    pub(super) const fn tag_offset(&self) -> u64 {
        self.tag.offset
    }

    /// The four bytes that may stand for a tag.
    pub(super) fn keys(&self, tag: PoolTag) -> Vec<u32> {
        if self.tag_bits == u32::MAX { vec![tag.0] } else { vec![tag.0, tag.0 | PROTECTED] }
    }

    /// The header at the start of `bytes`.
    pub(super) fn decode(&self, at: VirtAddr, bytes: &[u8]) -> Option<PoolHeader> {
        let unit = self.size();
        let tag = self.tag.uint(bytes)? as u32;
        let ty = self.ty.uint(bytes)?;
        let process = self.process.as_ref().filter(|_| ty & QUOTA != 0);
        Some(PoolHeader {
            at,
            size: self.block.uint(bytes)? * unit,
            previous: self.previous.uint(bytes)? * unit,
            ty,
            tag: PoolTag(tag & self.tag_bits),
            is_protected: tag & !self.tag_bits != 0,
            process: process.and_then(|place| place.uint(bytes)),
        })
    }

    /// The blocks of a page of the old pool; nothing if it is none, or not whole.
    pub(super) fn page(&self, page: VirtAddr, bytes: &SparseBytes) -> Option<Vec<PoolHeader>> {
        let mut blocks: Vec<PoolHeader> = Vec::new();
        let mut offset = 0;
        while offset < PAGE {
            let header = bytes.get(offset as usize..(offset + self.size()) as usize)?;
            let header = self.decode(page.offset(offset), header)?;
            let is_next = header.previous == blocks.last().map_or(0, |last| last.size);
            if !is_next || header.size == 0 || offset + header.size > PAGE {
                return None;
            }
            offset += header.size;
            blocks.push(header);
        }
        // A page of one block is as likely as not a block of whole pages that happens to look so.
        Some(blocks)
    }

    /// True if `header` of the old pool is where a header can be, as far as the one behind it tells.
    pub(super) fn is_plausible(&self, header: &PoolHeader, behind: Option<&PoolHeader>) -> bool {
        let offset = header.at.0 % PAGE;
        let is_first = offset == 0;
        let ends = offset + header.size;
        header.size > 0
            && ends <= PAGE
            && is_first == (header.previous == 0)
            && header.previous <= offset
            && (ends == PAGE || behind.is_none_or(|behind| behind.previous == header.size && behind.size > 0))
    }
}

impl PoolHeader {
    /// True if a block of the old pool is in use.
    pub(super) const fn is_allocated(&self) -> bool {
        self.ty != 0
    }

    /// Which pool a block of the old pool is of: a free one doesn't say.
    pub(super) const fn kind(&self) -> PoolKind {
        match self.ty {
            0 => PoolKind::Unknown,
            ty => PoolKind::of_type(ty - 1),
        }
    }

    /// True if the address lies in the block or its header.
    pub(super) const fn covers(&self, address: VirtAddr) -> bool {
        address.since(self.at) < self.size
    }
}
