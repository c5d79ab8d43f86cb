//! Layer 1 over serial lines, VM pipes and sockets: KD packets in a stream of bytes, neither encrypted nor delimited.
//!
//! ```text
//!  data     | 0000 | type | count | id | checksum | payload ............ | aa |
//!  control  | iiii | type |     0 | id |        0 |
//!  break-in | 62 |                                       outside of any packet
//! ```
//! A reader finds packets by their leaders and skips what lies between them. What a packet means, and when one is sent
//! again, is not said here: see [`crate::kd`] and [`crate::link`]. Source: PROTOCOL.md 14.

mod framing;

pub use framing::{Decoder, Frame, FrameError, MAX_PAYLOAD_LEN, encode};

use crate::kd::PacketId;

/// The id of each side's first data packet; the next has the lowest bit toggled, and so on.
pub const FIRST_ID: PacketId = PacketId(0x8080_0000);

/// Set in the id of a packet whose sender has just begun to count: a target that booted, or lost its debugger.
pub const SYNC: u32 = 0x800;

/// The id of a booted target's first data packet.
pub const FIRST_ID_OF_BOOT: PacketId = PacketId(FIRST_ID.0 | SYNC);
