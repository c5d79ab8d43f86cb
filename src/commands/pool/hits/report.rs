//! What `!poolhit` says, as plain data.

use std::path::PathBuf;

use serde::Serialize;

use super::hit::{HitKind, HitStack};
use crate::commands::answer::Moment;
use crate::commands::pool::tag::PoolTag;
use crate::commands::schema::Schema;
use crate::commands::verifier::frames::Frame;
use crate::leaks::{FileKind, Held, HexNumber, SavedFrame, SavedGroup, Snapshot, Subject};

/// How many hits there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Counted {
    /// All.
    pub hits: u64,
    /// Blocks that were allocated.
    pub allocations: u64,
    /// Blocks that were freed.
    pub frees: u64,
    /// Hits in functions whose name does not say what they do.
    pub uses: u64,
    /// Hits whose stack was looked at.
    pub stacks: u64,
}

/// Who used a tag while it was watched.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct HitReport {
    /// The tag.
    pub tag: PoolTag,
    /// How many hits there were.
    #[serde(flatten)]
    pub counted: Counted,
    /// Hits by call path, the most first.
    pub groups: Vec<HitGroup>,
    /// Why it ended.
    pub end: HitEnd,
    /// For how long the tag was watched, in milliseconds.
    pub elapsed_ms: u64,
    /// How long the machine stood still for it.
    pub stood_still: StoodStill,
    /// `nt!PoolHitTag` holds no tag of ours any more.
    pub is_cleared: bool,
    /// Pictures of the allocations that are to be written.
    #[serde(skip)]
    pub files: Vec<(FileKind, PathBuf)>,
}

/// How long a machine stood still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct StoodStill {
    /// In so many stops.
    pub stops: u64,
    /// Microseconds of all of them.
    pub total_us: u64,
    /// Microseconds of the longest.
    pub longest_us: u64,
}

/// Why nobody waits for hits any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HitEnd {
    /// There were as many as were wanted.
    Count,
    /// The time is over.
    Time,
    /// Ctrl+C.
    Interrupted,
    /// The program is to end: a signal's name, or the deadline.
    Quit(String),
    /// The program was suspended, for which the tag was taken away.
    Suspended,
    /// The machine has restarted: the tag is gone with the boot.
    Restarted,
    /// It stopped for something else, which it is to be asked about.
    OtherStop,
    /// It could not be reached any more, for this reason.
    Lost(String),
}

/// Hits by one call path.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct HitGroup {
    /// What was done.
    pub kind: HitKind,
    /// The driver that called; nothing if that is not known.
    pub driver: Option<String>,
    /// How many.
    pub hits: u64,
    /// Their share of all, 0 to 1.
    pub share: f64,
    /// Of how many the size is known.
    pub sized: u64,
    /// Bytes that those asked for.
    pub bytes: u64,
    /// The fewest.
    pub smallest: Option<u64>,
    /// The most.
    pub largest: Option<u64>,
    /// Allocations whose block is known, so that its free would be.
    pub followed: u64,
    /// Of those, how many were freed while the tag was watched.
    pub freed: u64,
    /// Threads that were run; a thousand may be more.
    pub threads: u64,
    /// Processors that stopped.
    pub processors: Vec<u16>,
    /// The stack was looked at; otherwise these were only counted.
    pub has_stack: bool,
    /// Why it is not whole, if it is not.
    pub breaks_off: Option<String>,
    /// The pool's own frames, innermost first: where the processor stood, then return addresses.
    pub allocator: Vec<Frame>,
    /// Those behind, from the caller on.
    pub path: Vec<Frame>,
}

impl HitGroup {
    pub(super) fn new(kind: HitKind, stack: Option<HitStack>) -> Self {
        let has_stack = stack.is_some();
        let none = HitStack {
            allocator: Vec::new(),
            path: Vec::new(),
            driver: None,
            breaks_off: None,
            returns_to: None,
        };
        let HitStack { allocator, path, driver, breaks_off, .. } = stack.unwrap_or(none);
        Self {
            kind,
            driver,
            hits: 0,
            share: 0.0,
            sized: 0,
            bytes: 0,
            smallest: None,
            largest: None,
            followed: 0,
            freed: 0,
            threads: 0,
            processors: Vec::new(),
            has_stack,
            breaks_off,
            allocator,
            path,
        }
    }
}

impl HitReport {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("pool_hits");

    /// The same as a snapshot whose blocks are hits: what writes the stacks of one writes those of the other.
    pub(super) fn snapshot(&self, moment: &Moment<'_>) -> Snapshot {
        Snapshot {
            unix_ms: moment.unix_ms,
            pointer_size: moment.pointer_size as u32,
            tag: Some(self.tag.to_string()),
            // What was freed is another picture.
            groups: self
                .groups
                .iter()
                .filter(|group| group.kind != HitKind::Free)
                .map(|group| saved(group, self.tag))
                .collect(),
            subject: Subject::Allocated,
            ..Snapshot::empty()
        }
    }
}

fn saved(group: &HitGroup, tag: PoolTag) -> SavedGroup {
    let frame = |frame: &Frame| SavedFrame {
        address: HexNumber(frame.address.0),
        symbol: frame.symbol.as_ref().map(ToString::to_string),
    };
    SavedGroup {
        driver: group.driver.clone().unwrap_or_default(),
        held: Held { blocks: group.hits, bytes: group.bytes },
        smallest: group.smallest.unwrap_or_default(),
        largest: group.largest.unwrap_or_default(),
        tags: vec![tag.to_string()],
        newest_age: None,
        oldest_age: None,
        stacks_known: if group.has_stack { group.hits } else { 0 },
        not_in_log: 0,
        allocator: group.allocator.iter().map(frame).collect(),
        path: group.path.iter().map(frame).collect(),
        list: Vec::new(),
    }
}
