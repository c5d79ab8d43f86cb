//! Kernel pool by tag: which tag holds how much, and where its blocks are, whether or not Driver Verifier is on.
//!
//! ```text
//!  trackers (per-processor counters by tag) --> !poolused
//! ```
//! Nothing here needs Driver Verifier: the kernel counts every allocation by its tag, on every machine, always.
//!
//! Source: pool.md 1 and 2.

mod pattern;
mod tag;
mod tag_file;
mod trackers;
pub mod used;

pub use pattern::TagPattern;
pub use tag::PoolTag;
