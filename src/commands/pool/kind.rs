//! Which pool a block is of.

use std::fmt;

use serde::Serialize;

/// Which pool a block is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PoolKind {
    /// Always in memory.
    Nonpaged,
    /// May be paged out.
    Paged,
    /// Nothing says which.
    Unknown,
}

impl PoolKind {
    /// What a `POOL_TYPE` says.
    pub(super) const fn of_type(ty: u64) -> Self {
        if ty & 1 != 0 { Self::Paged } else { Self::Nonpaged }
    }

    /// What `POOL_FLAGS` say: 0x40 nonpaged, 0x80 nonpaged and executable, 0x100 paged.
    pub(super) const fn of_flags(flags: u64) -> Self {
        match flags & 0x1c0 {
            0x100 => Self::Paged,
            0x40 | 0x80 => Self::Nonpaged,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for PoolKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nonpaged => "Nonpaged pool",
            Self::Paged => "Paged pool",
            Self::Unknown => "Unknown",
        })
    }
}
