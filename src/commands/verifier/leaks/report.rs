//! What `!leaks` says, as plain data.

use std::path::PathBuf;

use serde::Serialize;

use super::super::allocations::Block;
use super::super::drivers::Driver;
use super::super::frames::Frame;
use super::super::stops::OneMoment;
use super::options::By;
use crate::commands::schema::Schema;
use crate::commands::version::Clocks;
use crate::leaks::{BootIdentity, FileKind, HexNumber, Weight};
use crate::output::{self, Reading};
use crate::target::{Note, NoteCode, Target, VirtAddr};

/// What drivers hold, in groups: those that hold the most first.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct LeakReport {
    /// What makes a group.
    pub by: By,
    /// The drivers that were asked about, and what each holds.
    pub drivers: Vec<DriverTotal>,
    /// The tag that blocks had to have, if any.
    pub tag: Option<String>,
    /// Blocks in all groups, shown or not.
    pub blocks: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Reading was broken off before all blocks were listed: there may be any number more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_cut: bool,
    /// Of which moment it is, if it was read over several stops.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moment: Option<OneMoment>,
    /// How the pool log was used; nothing if it was not needed, or is not there.
    pub log: Option<LogUse>,
    /// The groups that are shown.
    pub groups: Vec<Group>,
    /// Those that are not.
    pub left_out: LeftOut,
    /// The same, whole: a snapshot has them.
    #[serde(skip)]
    pub(super) hidden: Vec<Group>,
    /// Text lists the blocks of each group.
    #[serde(skip)]
    pub(super) is_verbose: bool,
    /// Text shows a tree of callers instead of the groups.
    #[serde(skip)]
    pub(super) is_tree: bool,
    /// Files that are to be written.
    #[serde(skip)]
    pub(super) files: Vec<(FileKind, PathBuf)>,
    /// What pictures measure.
    #[serde(skip)]
    pub(super) weight: Weight,
    /// Patterns of routines that were taken for the allocator's.
    #[serde(skip)]
    pub(super) skip: Vec<String>,
    /// Which boot it is of.
    #[serde(skip)]
    pub(super) boot: BootIdentity,
    /// When it was so, in milliseconds since 1970, if that is not the time at which it was asked.
    #[serde(skip)]
    pub(super) kept_unix_ms: Option<u64>,
}

/// Groups that are not shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct LeftOut {
    /// How many.
    pub groups: u64,
    /// Their blocks.
    pub blocks: u64,
    /// Bytes of those.
    pub bytes: u64,
}

/// What one driver holds.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct DriverTotal {
    /// Its file name.
    pub name: String,
    /// Blocks that are listed.
    pub blocks: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Blocks that it counts, of paged pool and of nonpaged.
    pub counted_paged_blocks: Reading,
    /// See there.
    pub counted_nonpaged_blocks: Reading,
    /// Bytes that it counts, of paged pool and of nonpaged.
    pub counted_paged_bytes: Reading,
    /// See there.
    pub counted_nonpaged_bytes: Reading,
}

/// How the pool log was used.
#[derive(Clone, Copy, Debug, Serialize, schemars::JsonSchema)]
pub struct LogUse {
    /// Entries that it has room for.
    pub length: u64,
    /// `VfPoolTracesIndex`: counts events.
    pub index: u32,
    /// How entries were found.
    pub method: Method,
    /// Entries that were read.
    pub entries_read: u64,
    /// Addresses whose newest entry is known, or known not to be there.
    pub looked_up: u64,
}

/// How a log's entries are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// The log was read, newest entry first, until every block was met.
    Read,
    /// Only its newest part was read.
    Newest,
    /// The target searched it.
    Search,
}

/// Blocks that belong together.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Group {
    /// The driver that holds them.
    pub driver: String,
    /// How many.
    pub blocks: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Their share of all bytes, 0 to 1.
    pub share: f64,
    /// Bytes of the smallest.
    pub smallest: u64,
    /// Bytes of the largest.
    pub largest: u64,
    /// Their tags.
    pub tags: Vec<String>,
    /// Log entries since the newest was allocated, as far as that is known.
    pub newest_age: Option<u64>,
    /// Log entries since the oldest was allocated, as far as that is known.
    pub oldest_age: Option<u64>,
    /// How much is known of who allocated them.
    pub stacks: Stacks,
    /// Where the driver called from, if it is one place: a return address.
    pub caller: Option<Frame>,
    /// The thread that allocated them, where they are grouped by it: an `_ETHREAD`.
    #[serde(serialize_with = "output::address_or_null", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<output::Hex>")]
    pub thread: Option<VirtAddr>,
    /// Return addresses of the allocator's own, innermost first: those that all its stacks have before the path.
    pub allocator: Vec<Frame>,
    /// By how many ways through the allocator its blocks were taken: more than one with wrappers (`-skip`).
    pub allocators: u64,
    /// Those behind, from the caller on; empty where it is not known or not one.
    pub path: Vec<Frame>,
    /// The blocks, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list: Option<Vec<LeakedBlock>>,
}

/// Of how many blocks the stack is known, and why not of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Stacks {
    /// Found in the log.
    pub found: u64,
    /// In their trackers.
    pub in_tracker: u64,
    /// Looked for: the log holds their allocation no more.
    pub not_in_log: u64,
    /// Looked for: the newest entry about their address is another event.
    pub other_event: u64,
    /// Looked for where the log cannot be read.
    pub unreadable: u64,
    /// Not looked for.
    pub not_looked_up: u64,
}

impl Stacks {
    /// Blocks whose stack was read.
    #[must_use]
    pub const fn known(&self) -> u64 {
        self.found + self.in_tracker
    }
}

/// One block of a group.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct LeakedBlock {
    /// Where it is.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub address: VirtAddr,
    /// Bytes, as tracked.
    pub size: u64,
    /// Its tag.
    pub tag: String,
    /// Log entries since it was allocated, if its entry was found.
    pub age: Option<u64>,
    /// `VfPoolTracesIndex` when it was allocated: another number at the same address is another block.
    pub event: Option<u32>,
    /// The thread that allocated it.
    #[serde(serialize_with = "output::address_or_null")]
    #[schemars(with = "Option<output::Hex>")]
    pub thread: Option<VirtAddr>,
    /// Its own stack was read.
    pub stack_is_known: bool,
}

impl DriverTotal {
    pub(super) fn of(driver: &Driver, blocks: &[Block]) -> Self {
        Self {
            name: driver.shown_name(),
            blocks: blocks.len() as u64,
            bytes: sum(blocks.iter().map(|block| block.size)),
            counted_paged_blocks: driver.pool.current_paged_allocations.clone(),
            counted_nonpaged_blocks: driver.pool.current_nonpaged_allocations.clone(),
            counted_paged_bytes: driver.pool.paged_bytes.clone(),
            counted_nonpaged_bytes: driver.pool.nonpaged_bytes.clone(),
        }
    }

    /// Says if as many blocks are listed as are counted, but of other sizes; that their numbers differ was said.
    pub(super) fn note_difference(&self, target: &Target<'_>) {
        let counted = |paged: &Reading, nonpaged: &Reading| {
            paged.value().zip(nonpaged.value()).map(|(paged, nonpaged)| paged.saturating_add(nonpaged))
        };
        let blocks = counted(&self.counted_paged_blocks, &self.counted_nonpaged_blocks);
        let bytes = counted(&self.counted_paged_bytes, &self.counted_nonpaged_bytes);
        if blocks == Some(self.blocks)
            && let Some(bytes) = bytes.filter(|bytes| *bytes != self.bytes)
        {
            let text = format!(
                "{}: its counters say {bytes:#x} bytes, the blocks that are listed have {:#x}",
                self.name, self.bytes
            );
            target.note(Note::partial(NoteCode::CountsDiffer, text));
        }
    }
}

/// Which boot of which kernel a target is. When it began is asked for a snapshot only: a request; of a kernel whose symbols do not
/// name that, by its clocks.
pub(in crate::commands) fn boot_of(target: &Target<'_>, asks_time: bool) -> BootIdentity {
    let version = target.kernel().version();
    let read =
        |at| target.read_ranges(&[(at, 8)]).pop()?.ok()?.first_chunk().map(|it| u64::from_le_bytes(*it));
    let by_clocks = || {
        let Clocks { system_time, up_time, .. } = Clocks::read(target);
        system_time.zip(up_time).and_then(|(system, up)| system.checked_sub(up))
    };
    let read_time = || target.address_of("nt!KeBootTime").map_or_else(|_| by_clocks(), read);
    let boot_time = asks_time.then(read_time).flatten();
    BootIdentity {
        build: version.build.into(),
        kernel_base: HexNumber(target.address(version.base.0).0),
        boot_time: boot_time.map(HexNumber),
    }
}

/// When the memory was kept that a file has, by the machine's own clock. Nothing of a machine that stands still at this time:
/// a comparison of two files tells growth an hour by the times that they are of, whenever they are looked at.
pub(in crate::commands) fn kept_at(target: &Target<'_>) -> Option<u64> {
    /// Milliseconds from 1601 to 1970.
    const EPOCH: u64 = 11_644_473_600_000;
    if !target.is_kept() {
        return None;
    }
    let time = Clocks::read(target).system_time.and_then(|time| (time / 10_000).checked_sub(EPOCH));
    if time.is_none() {
        let text = "When this memory was kept is not known: a snapshot has the time at which it was looked at, and what \
                    grows an hour cannot be told from it";
        target.note(Note::partial(NoteCode::Unreadable, text));
    }
    time
}

/// A sum of what a target says, which may be any number.
pub(super) fn sum(sizes: impl Iterator<Item = u64>) -> u64 {
    sizes.fold(0, u64::saturating_add)
}

impl LeakReport {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("leaks");
}
