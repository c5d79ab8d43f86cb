//! The kernel's pool: who counts what is allocated in it by tag, and its large blocks.
//!
//! ```text
//!  PoolTrackTable ----> | Key, allocs, frees, bytes | ...    a tag has the same index in every table
//!  ExPoolTagTables -+-> the first processor's table, which is the one above
//!                   `-> the others': a key is copied there when the processor first needs it
//!  PoolTrackTableExpansion -> tags that found no room
//!  PoolBigPageTable --> | Va, Key, NumberOfBytes | ...       a block of a page or more
//!  ExPoolState, or pages of the old pool                      small blocks
//!  PoolHitTag --> the tag at whose next allocation or free the machine stops
//! ```

pub(super) mod big;
pub(super) mod code;
pub(super) mod counters;
pub(super) mod heap;
pub(super) mod hit;
pub(super) mod pages;
pub(super) mod trackers;
