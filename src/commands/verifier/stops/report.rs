//! Of which moment an answer is that was read over several stops, as plain data.

use serde::Serialize;

use super::redo::Why;
use crate::output;
use crate::target::VirtAddr;

/// Of which moment an answer is that was read over several stops, and what of that moment is not known.
#[derive(Clone, Debug, Default, Serialize, schemars::JsonSchema)]
pub struct OneMoment {
    /// Stops that it was read in.
    pub stops: u64,
    /// `VfPoolTracesIndex` at the moment; nothing where the kernel keeps no log, so that the answer is of no one moment.
    pub event: Option<u32>,
    /// Entries of the log that brought what was read earlier to the moment.
    pub replayed: u64,
    /// Events up to the moment that are not known: written over before they were read, or unreadable.
    pub lost: u64,
    /// Blocks that came meanwhile, and that the log alone tells of: their size is what was asked for, and they have no tag.
    #[serde(serialize_with = "addresses")]
    #[schemars(with = "Vec<output::Hex>")]
    pub from_log: Vec<VirtAddr>,
    /// Blocks of which it is not known whether they were outstanding. They are not listed.
    pub undecided: Vec<Undecided>,
}

/// A block of which it is not known whether it was outstanding.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Undecided {
    /// Where it is.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub address: VirtAddr,
    /// The driver whose it is, or would be.
    pub driver: String,
    /// Why.
    pub why: Why,
}

fn addresses<S: serde::Serializer>(addresses: &[VirtAddr], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(addresses.iter().map(|address| format!("{:#x}", address.0)))
}
