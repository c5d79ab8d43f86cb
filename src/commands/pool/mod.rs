//! Kernel pool by tag: which tag holds how much, and where its blocks are, whether or not Driver Verifier is on.
//!
//! ```text
//!  trackers (per-processor counters by tag) ---------------> !poolused
//!  big_pages (the table of large blocks) ----+-------------> !poolfind
//!  heap, header, small (blocks within pages) +-------------> !pool
//!  stack (verifier's pool log of a block) ---+
//!  tag_file, verifier's trackers, loaded images ------------> !pooltag
//!  the memory manager's counters ---------------------------> !vm
//!  nt!PoolHitTag: who allocates and frees, as it happens ----> !poolhit
//! ```
//! Nothing here needs Driver Verifier: the kernel counts every allocation by its tag, on every machine, always.
//!
//! Source: pool.md 1 to 4.

mod big_pages;
pub mod block;
mod failure;
pub mod find;
pub mod growth;
mod header;
mod heap;
pub mod hits;
mod kind;
pub mod owner;
mod pattern;
mod ranges;
mod small;
mod stack;
mod tag;
mod tag_file;
mod trackers;
pub mod used;
pub mod vm;

pub use kind::PoolKind;
pub use pattern::TagPattern;
pub use tag::PoolTag;
