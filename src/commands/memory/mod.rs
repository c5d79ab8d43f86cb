//! `d` and `s`: memory as bytes, words, pointers or text, and where in it a pattern lies.
//!
//! ```text
//!  db dw dd dq dc     bytes, words of 2, 4 and 8 bytes, 4 bytes with characters
//!  dp dps dqs dds     pointers; one a line with what they point to; the same in 8 and 4 bytes
//!  da du              text of one or two bytes a character, up to its 0
//!  d                  as the d command before
//! ```
//! ```text
//! 0: kd> dc fffff880`0447d000 L4
//! fffff880`0447d000  83485340 d98b20ec 000000e8 ccc35b90  @SH.. .......[..
//! 0: kd> dps nt!VfPoolTraces L1
//! fffff800`01965128  fffffa80`04600000
//! ```
//! Without an address, goes on where the last one ended. A range is one read; a byte that cannot be read is `??`.

mod display;
mod format;
mod search;
mod text;

pub(super) use display::{D, DA, DB, DC, DD, DDS, DP, DPS, DQ, DQS, DU, DW};
use format::Format;
pub(super) use search::S;
