//! Entries of the pool log, as plain data.

use serde::Serialize;

use super::super::format::Era;
use super::super::frames::Frame;
use super::super::ring::Ring;
use super::kind::Kind;
use crate::commands::schema::Schema;
use crate::output;
use crate::target::VirtAddr;

/// Entries of the pool log, newest first.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct PoolLog {
    /// The time that the target's Windows is of.
    pub era: Era,
    /// Entries that the log has room for.
    pub length: u64,
    /// `VfPoolTracesIndex`: counts events, its low bits are the newest slot.
    pub index: u32,
    /// The address that was searched for, if one was.
    #[serde(serialize_with = "output::address_or_null")]
    #[schemars(with = "Option<output::Hex>")]
    pub address: Option<VirtAddr>,
    /// How many of the newest were asked for, if no address was.
    pub quantity: Option<u64>,
    /// How the log was looked through.
    pub method: Method,
    /// Entries that were looked at.
    pub parsed: u64,
    /// Entries among them that could not be read.
    pub unreadable: u64,
    /// How many of the log's newest entries may be half written, one per processor. Asked only if some look torn.
    pub unsettled: Option<u64>,
    /// What was found.
    pub entries: Vec<PoolLogEntry>,
    /// Text says of each entry whether it is an allocation or a free, which WinDbg doesn't.
    #[serde(skip)]
    pub verbose: bool,
}

/// How a log is looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Every entry was read.
    Read,
    /// The target searched its own memory.
    Search,
}

/// One allocation or free.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct PoolLogEntry {
    /// Its place in the log's array.
    pub slot: u64,
    /// What its stack says that it is; the kernel does not record it.
    pub kind: Kind,
    /// The block.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub address: VirtAddr,
    /// Bytes: of an allocation as asked for, of a free as the pool rounds them.
    pub size: u64,
    /// The thread that did it, an `_ETHREAD`.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub thread: VirtAddr,
    /// Return addresses, the innermost first; ends at the first empty one.
    pub stack: Vec<Frame>,
    /// The end of the stack could not be read.
    pub stack_cut: bool,
    /// Why it is taken to be half written, if it is: of the newest entries some may be.
    pub torn: Option<TornSign>,
}

/// Why an entry is taken to be half written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TornSign {
    /// It has no size or no thread. Of an older entry: the log is damaged.
    Incomplete,
    /// Its stack begins as an allocation's or a free's, and goes on as none of that kind does.
    MixedStack,
    /// Its stack is a free's, but a free logs a block's size, which its size is not.
    OddFree,
    /// Its stack begins with no routine that logs, as those of the others do.
    UnknownLogger,
    /// It says that a block was allocated that the next older entry about it says was allocated, and not freed since.
    AllocatedTwice,
}

impl TornSign {
    /// In a sentence.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Incomplete => "it has no size or no thread",
            Self::MixedStack => "its stack begins as that of one event and goes on as that of another",
            Self::OddFree => "its stack is that of a free, its size is not that of a block",
            Self::UnknownLogger => "its stack begins with no routine that logs",
            Self::AllocatedTwice => {
                "it allocates a block that an older entry allocates, without a free between them"
            }
        }
    }
}

impl PoolLog {
    /// An answer about `ring` with nothing in it.
    pub(super) const fn empty(ring: &Ring) -> Self {
        Self {
            era: Era::Windows7,
            length: ring.length,
            index: ring.index,
            address: None,
            quantity: None,
            method: Method::Read,
            parsed: 0,
            unreadable: 0,
            unsettled: None,
            entries: Vec::new(),
            verbose: false,
        }
    }
}

impl PoolLog {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("pool_log");
}
