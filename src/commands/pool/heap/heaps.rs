//! The keys and structures of segment heaps, the heaps of the kernel's pool, and the segment that an address lies in.
//!
//! Source: pool.md 4.2 and 4.3.

use crate::commands::pool::failure::Failure;
use crate::commands::pool::header::HeaderLayout;
use crate::commands::pool::kind::PoolKind;
use crate::target::{Layout, ReadError, Target, TargetError, VirtAddr};

/// What signatures of segments are made with, up to Windows 11 23H2.
const CONSTANT: u64 = 0xa2e6_4ead_a2e6_4ead;
/// The first build whose signatures are made without it.
const WITHOUT_CONSTANT: u16 = 26100;
/// `_SEGMENT_HEAP.Signature`.
pub(super) const SIGNATURE: u64 = 0xddee_ddee;
/// Contexts of a heap: small segments, and large ones.
pub(super) const CONTEXTS: u64 = 2;
/// Bytes of a segment of each context.
pub(super) const SEGMENT_SIZES: [u64; CONTEXTS as usize] = [0x10_0000, 0x100_0000];
/// Heaps of a node: nonpaged, nonpaged and not executable, paged, paged for prototypes.
const HEAPS: u64 = 4;
/// No kernel has more nodes.
const MAX_NODES: u64 = 64;

/// What is needed of the symbols, and the keys.
pub(in crate::commands::pool) struct Heaps {
    pub(super) heap_key: u64,
    pub(super) lfh_key: u64,
    state: VirtAddr,
    pub(super) layouts: Layouts,
    pub(in crate::commands::pool) header: HeaderLayout,
}

pub(super) struct Layouts {
    state: Layout,
    node: Layout,
    pub(super) heap: Layout,
    pub(super) context: Layout,
    pub(super) segment: Layout,
    pub(super) descriptor: Layout,
    vs: Layout,
    pub(super) chunk: Layout,
    pub(super) lfh: Layout,
}

/// A segment that an address lies in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) at: VirtAddr,
    pub(super) heap: VirtAddr,
    pub(super) unit_shift: u32,
    pub(super) first_unit: u64,
    pub(super) size: u64,
}

/// Why an address leads to no block of a heap.
pub(in crate::commands::pool) enum NotInHeap {
    /// No segment of a heap's covers it.
    NoSegment,
    /// One does, and what lies there is not what it should be: a sentence.
    Odd(String),
    /// The target could not be read.
    Target(TargetError),
}

impl From<TargetError> for NotInHeap {
    fn from(error: TargetError) -> Self {
        Self::Target(error)
    }
}

impl Heaps {
    /// Those of the kernel's pool; nothing if its small pool is the old one.
    pub(in crate::commands::pool) fn find(target: &Target<'_>) -> Result<Option<Self>, Failure> {
        let Ok(state) = target.address_of("nt!ExPoolState") else { return Ok(None) };
        let globals = target.address_of("nt!RtlpHpHeapGlobals")?;
        let layout = |name: &str| target.layout(&format!("nt!{name}"));
        let keys = layout("_RTLP_HP_HEAP_GLOBALS")?;
        let layouts = Layouts {
            state: layout("_EX_POOL_HEAP_MANAGER_STATE")?,
            node: layout("_EX_HEAP_POOL_NODE")?,
            heap: layout("_SEGMENT_HEAP")?,
            context: layout("_HEAP_SEG_CONTEXT")?,
            segment: layout("_HEAP_PAGE_SEGMENT")?,
            descriptor: layout("_HEAP_PAGE_RANGE_DESCRIPTOR")?,
            vs: layout("_HEAP_VS_SUBSEGMENT")?,
            chunk: layout("_HEAP_VS_CHUNK_HEADER")?,
            lfh: layout("_HEAP_LFH_SUBSEGMENT")?,
        };
        layouts.check(target)?;
        let at = |name: &str| keys.offset(name).map(|offset| (globals.offset(offset), 8));
        let mut wanted = vec![at("HeapKey")?, at("LfhKey")?];
        let choice = target.address_of("nt!ExpHeapBackedPoolEnabledState").ok();
        wanted.extend(choice.map(|at| (at, 4)));
        let mut read = target.read_ranges(&wanted).into_iter().map(|bytes| bytes.map(|bytes| number(&bytes)));
        let mut needed = |what: &str| -> Result<u64, TargetError> {
            let answer: Result<u64, ReadError> = read.next().expect("an answer for each question");
            answer.map_err(|error| TargetError::read(what, error))
        };
        let (heap_key, lfh_key) = (needed("RtlpHpHeapGlobals.HeapKey")?, needed("RtlpHpHeapGlobals.LfhKey")?);
        // Windows 10 1809 decides when it starts.
        if choice.is_some() && needed("ExpHeapBackedPoolEnabledState")? == 0 {
            return Ok(None);
        }
        let header = HeaderLayout::find(target)?;
        Ok(Some(Self { heap_key, lfh_key, state, layouts, header }))
    }

    /// The segment that an address lies in.
    pub(super) fn segment_of(&self, target: &Target<'_>, address: VirtAddr) -> Result<Segment, NotInHeap> {
        for (index, size) in (0..).zip(SEGMENT_SIZES) {
            let at = VirtAddr(address.0 & !(size - 1));
            let Some(context) = self.context_of(target, at) else { continue };
            match self.segment(target, at, context, index, size) {
                Ok(Some(segment)) => return Ok(segment),
                Ok(None) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(NotInHeap::NoSegment)
    }

    /// The address that a segment's signature says its context has, if it can be one.
    pub(super) fn context_of(&self, target: &Target<'_>, segment: VirtAddr) -> Option<VirtAddr> {
        let field = self.layouts.segment.place("Signature").ok()?;
        let (bytes, _) = target.read_some(segment, (field.offset + 8) as usize);
        let signature = field.uint(&bytes)? ^ self.heap_key ^ segment.0;
        let constants = match target.kernel().version().build < WITHOUT_CONSTANT {
            true => [CONSTANT, 0],
            false => [0, CONSTANT],
        };
        let contexts = constants.map(|constant| VirtAddr(signature ^ constant));
        contexts.into_iter().find(|context| target.is_kernel(*context) && context.0.is_multiple_of(8))
    }

    /// What a context says of its segment; nothing if it says something else, or is none.
    fn segment(
        &self,
        target: &Target<'_>,
        at: VirtAddr,
        context: VirtAddr,
        index: u64,
        size: u64,
    ) -> Result<Option<Segment>, TargetError> {
        let Layouts { heap: layout, context: of_context, .. } = &self.layouts;
        let contexts = layout.offset("SegContexts")?;
        let to_context = contexts + index * of_context.size() as u64;
        let heap = VirtAddr(context.0.wrapping_sub(to_context));
        let (bytes, _) = target.read_some(heap, (contexts + CONTEXTS * of_context.size() as u64) as usize);
        let in_context = |name: &str| -> Result<Option<u64>, TargetError> {
            let place = of_context.place(name)?;
            Ok(bytes.get(to_context as usize..).and_then(|context| place.uint(context)))
        };
        let is_heap = layout.place("Signature")?.uint(&bytes) == Some(SIGNATURE);
        let (mask, shift, first) =
            (in_context("SegmentMask")?, in_context("UnitShift")?, in_context("FirstDescriptorIndex")?);
        let (Some(mask), Some(unit_shift), Some(first_unit)) = (mask, shift, first) else { return Ok(None) };
        let is_back = is_heap && mask == !(size - 1) && (12..=20).contains(&unit_shift);
        Ok(is_back.then_some(Segment { at, heap, unit_shift: unit_shift as u32, first_unit, size }))
    }

    /// Which pool a heap of the kernel's is of.
    pub(super) fn kind_of(&self, target: &Target<'_>, heap: VirtAddr) -> PoolKind {
        let heaps = self.heaps(target, Some(heap));
        heaps.into_iter().find(|(at, _)| *at == heap).map_or(PoolKind::Unknown, |(_, kind)| kind)
    }

    /// The heaps of every node; no further node is read once `wanted` is among them.
    pub(super) fn heaps(&self, target: &Target<'_>, wanted: Option<VirtAddr>) -> Vec<(VirtAddr, PoolKind)> {
        let Layouts { state, node, .. } = &self.layouts;
        let mut found: Vec<(VirtAddr, PoolKind)> = Vec::new();
        let places = (state.offset("PoolNode"), state.offset("NumberOfPools"), node.offset("Heaps"));
        let (Ok(nodes), Ok(count), Ok(heaps)) = places else { return found };
        let pointer = target.pointer_size();
        let at = |number: u64| self.state.offset(nodes + number * node.size() as u64 + heaps);
        let len = HEAPS as usize * pointer;
        let mut read = target.read_ranges(&[(self.state.offset(count), 4), (at(0), len)]).into_iter();
        let mut next = || read.next().and_then(Result::ok);
        let count = next().map_or(1, |bytes| number(&bytes)).clamp(1, MAX_NODES);
        let mut bytes = next();
        for node in 0..count {
            if node > 0 {
                bytes = Some(target.read_some(at(node), len).0);
            }
            let pointers = bytes.iter().flat_map(|bytes| bytes.chunks_exact(pointer));
            for (index, pointer) in pointers.enumerate() {
                let heap = target.address(number(pointer));
                let kind = if index < 2 { PoolKind::Nonpaged } else { PoolKind::Paged };
                if target.is_kernel(heap) && found.iter().all(|(known, _)| *known != heap) {
                    found.push((heap, kind));
                }
            }
            if wanted.is_some_and(|wanted| found.iter().any(|(heap, _)| *heap == wanted)) {
                break;
            }
        }
        found
    }
}

impl Layouts {
    /// Sizes that reading relies on come from a symbol file, which may say anything.
    fn check(&self, target: &Target<'_>) -> Result<(), TargetError> {
        for (layout, most) in [
            (&self.node, 0x1_0000),
            (&self.heap, 0x1_0000),
            (&self.context, 0x1000),
            (&self.descriptor, 0x100),
            (&self.vs, 0x1000),
            (&self.chunk, 0x100),
            (&self.lfh, 0x1000),
        ] {
            if !(8..=most).contains(&layout.size()) {
                let wrong = format!("{} has {:#x} bytes", layout.name(), layout.size());
                let address = target.shown(VirtAddr(0));
                return Err(TargetError::Unexpected { what: "segment heap in the symbols", address, wrong });
            }
        }
        Ok(())
    }
}

pub(super) fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}
