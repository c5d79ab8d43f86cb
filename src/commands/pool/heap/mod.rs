//! Segment heaps, of which small pool is made since Windows 10 1903: from an address to its block.
//!
//! ```text
//!  segment, 1 or 16 MiB: | Signature = context ^ HeapKey ^ segment ^ constant | descriptors | units ...
//!                              |                                                  `- of a range of units: VS, LFH, or plain pages
//!                              `-> _HEAP_SEG_CONTEXT in a _SEGMENT_HEAP, which is one of ExPoolState's: it says which pool
//!
//!  VS range:   | subsegment | chunk header, pool header, block | chunk header, ...      sizes ^ HeapKey ^ the header's address
//!  LFH range:  | subsegment, 2 bits a block | pool header, block | pool header, ...      offsets ^ LfhKey ^ the subsegment's page
//! ```
//! Nothing is believed that does not lead back: a context has to have the mask of its segment, a heap its signature, a chunk the size that
//! the next one says is in front of it.
//!
//! Source: pool.md 4.2 and 4.3.

mod block;
mod heaps;
mod segments;

pub(super) use block::{HeapBlock, HeapPlace, Range};
pub(super) use heaps::{Heaps, NotInHeap};
