//! How much a driver may hold.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use crate::leaks::Held;
use crate::output::counted;

/// How much each driver may hold; nothing is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Limits {
    /// Blocks.
    pub outstanding: Option<u64>,
    /// Bytes of them.
    pub bytes: Option<u64>,
}

impl Limits {
    /// True if this much is allowed.
    #[must_use]
    pub fn allow(self, held: Held) -> bool {
        self.outstanding.is_none_or(|most| held.blocks <= most)
            && self.bytes.is_none_or(|most| held.bytes <= most)
    }
}

/// `0 blocks, 4,096 bytes`.
impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.outstanding, self.bytes) {
            (None, None) => f.write_str("everything"),
            (Some(blocks), None) => f.write_str(&counted(blocks, "block")),
            (None, Some(bytes)) => f.write_str(&counted(bytes, "byte")),
            (Some(blocks), Some(bytes)) => {
                write!(f, "{}, {}", counted(blocks, "block"), counted(bytes, "byte"))
            }
        }
    }
}
