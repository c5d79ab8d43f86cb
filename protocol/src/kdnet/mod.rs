//! Layer 1, KDNET: UDP datagrams to authenticated plaintext and back.
//!
//! ```text
//!  0      4 5 6              14                    n-16      n
//!  | MDBG |v|f| inner header | body + zero padding |   tag   |
//!  `-- clear -'`-- AES-256-CBC, iv = tag ---------'
//!  `-- covered by the tag: first 16 bytes of HMAC-SHA256 ---'
//! ```
//!
//! Says nothing of what a data-channel body means: see [`crate::kd`].

mod crypto;
mod datagram;
mod handshake;
mod key;

pub use crypto::Cipher;
pub use datagram::{Channel, Datagram, DatagramError, Direction, Envelope, Flags, MIN_DATAGRAM_LEN};
pub use handshake::{Control, Endpoint, ForeignOffer, Offer, Ping, Response, TargetRandom};
pub use key::{Key, KeyError};
