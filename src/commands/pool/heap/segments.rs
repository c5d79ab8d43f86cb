//! Every segment of the heaps of one pool: where small blocks of a tag can be.

use super::heaps::{CONTEXTS, Heaps, SEGMENT_SIZES, SIGNATURE, number};
use crate::commands::pool::kind::PoolKind;
use crate::target::{Note, NoteCode, OfLink, Target, TargetError, VirtAddr, WalkEnd, walk};

/// Most segments of one context: 64 GiB of small ones.
const MAX_SEGMENTS: usize = 0x1_0000;

/// A list of segments that has yet to be walked.
#[derive(Clone, Copy, Debug)]
pub(in crate::commands::pool) struct SegmentList {
    heap: VirtAddr,
    head: VirtAddr,
    first: VirtAddr,
    /// Segments that the context says it has.
    pub(in crate::commands::pool) count: u64,
    /// Bytes of each.
    pub(in crate::commands::pool) size: u64,
}

impl Heaps {
    /// The lists of segments of a pool's heaps: a request for each heap. A heap that is none is noted.
    pub(in crate::commands::pool) fn lists(
        &self,
        target: &Target<'_>,
        kind: PoolKind,
    ) -> Result<Vec<SegmentList>, TargetError> {
        let mut lists = Vec::new();
        for (heap, of) in self.heaps(target, None) {
            if of != kind {
                continue;
            }
            let (layout, context) = (&self.layouts.heap, &self.layouts.context);
            let contexts = layout.offset("SegContexts")?;
            let len = contexts + CONTEXTS * context.size() as u64;
            let (bytes, missing) = target.read_some(heap, len as usize);
            if layout.place("Signature")?.uint(&bytes) != Some(SIGNATURE) || (bytes.len() as u64) < len {
                let why =
                    missing.map_or_else(|| "it has another signature".to_owned(), |error| error.to_string());
                let text = format!("the heap at {} was not looked into: {why}", target.shown(heap));
                target.note(Note::partial(NoteCode::Damaged, text));
                continue;
            }
            for (index, size) in (0..).zip(SEGMENT_SIZES) {
                let start = contexts + index * context.size() as u64;
                let field = |name: &str| -> Result<u64, TargetError> {
                    let place = context.place(name)?;
                    Ok(bytes.get(start as usize..).and_then(|context| place.uint(context)).unwrap_or(0))
                };
                let head = heap.offset(start + context.offset("SegmentListHead")?);
                let at = head.since(heap) as usize;
                let first = bytes.get(at..at + target.pointer_size()).map_or(0, number);
                let (first, count) = (target.address(first), field("SegmentCount")?);
                if first != head && !first.is_null() {
                    lists.push(SegmentList { heap, head, first, count, size });
                }
            }
        }
        Ok(lists)
    }

    /// The segments of a list: a request for each. How far it could be followed is noted.
    pub(in crate::commands::pool) fn segments(
        &self,
        target: &Target<'_>,
        list: &SegmentList,
    ) -> Vec<VirtAddr> {
        let mut segments = Vec::new();
        let end = walk::list(target.pointer_size(), list.head, list.first, MAX_SEGMENTS, |at| {
            target.advance("segments", segments.len() as u64, list.count);
            let (bytes, missing) = target.read_some(at, 0x20);
            if let Some(error) = missing {
                return Err(TargetError::read("_HEAP_PAGE_SEGMENT", error));
            }
            let wrong = |wrong: &str| TargetError::Unexpected {
                what: "heap segment",
                address: target.shown(at),
                wrong: wrong.to_owned(),
            };
            if !at.0.is_multiple_of(list.size) {
                return Err(wrong("no segment begins there"));
            }
            let context = self.context_of(target, at).filter(|context| context.since(list.heap) < 0x1000);
            if context.is_none() {
                return Err(wrong("the heap's key does not fit it"));
            }
            segments.push(at);
            Ok(target.address(number(&bytes[..target.pointer_size()])))
        });
        if !end.is_complete() {
            let text = format!("the segments of the heap at {} break off: {end}", target.shown(list.heap));
            let is_of_link = matches!(&end, WalkEnd::Unreadable { .. }) && end.is_of_link();
            target.note(Note::partial(NoteCode::ListBreaksOff, text).broken_off_if(is_of_link));
        }
        segments
    }
}
