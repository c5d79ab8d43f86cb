//! How much is asked for at once, whoever asks.
//!
//! ```text
//!   bytes of a request    what its transport carries; where there are no requests, as many as KDNET's
//!   a long read           pieces, so that Ctrl+C is heard and progress is told between them
//!   a search              megabytes a request: the target looks by itself
//! ```
//! The layer below a read splits it as its transport needs; these say what is worth putting into one.

use kd_protocol::KDNET_REPLY_DATA;

use super::standing::Memory;

/// Bytes of a piece of a long read.
pub const PIECE: u64 = 0x1_0000;

/// Bytes that one request searches at the most: a target says nothing while it searches.
pub const SEARCHED_AT_ONCE: u64 = 64 << 20;

/// Bytes that one request carries. Where there are no requests, as in a file, as many as one of KDNET's: what is asked of
/// a dump is what would be asked of its machine.
pub fn reply_len(memory: &dyn Memory) -> u64 {
    match memory.request_len() {
        0 => u64::from(KDNET_REPLY_DATA),
        carried => carried as u64,
    }
}

/// Requests that a read of `len` bytes takes of which none is known; 0 where there are no requests.
pub fn requests(memory: &dyn Memory, len: u64) -> u64 {
    match memory.request_len() {
        0 => 0,
        carried => len.div_ceil(carried as u64),
    }
}

/// Requests that a search through `len` bytes takes which finds nothing; 0 for none.
#[must_use]
pub const fn searches(len: u64) -> u64 {
    len.div_ceil(SEARCHED_AT_ONCE)
}
