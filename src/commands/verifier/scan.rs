//! A ring looked at record by record, from the newest down and once around.
//!
//! ```text
//!   piece by piece --> record: what is it to whoever asks?
//!                        unreadable, unused    counted; a run of unused ones ends the scan
//!                        other, kept           the newest that are wanted are kept, or those about an address
//!                        enough                there is no room for more
//! ```
//! A target that breathes is let run between two pieces: what is written over meanwhile is not looked at, and said. Holes
//! are passed over, up to [`MAX_HOLES`] pages: a wild pointer is not followed for a hundred thousand.

use std::ops::Range;

use super::ring::{self, Filter, Ring};
use crate::memory::{PIECE, ReadCause, requests};
use crate::target::{Note, NoteCode, Target};

/// Unused slots in a row after which nothing older is looked for: the ring fills in order, so that below them there are only
/// more.
const MAX_UNUSED: u64 = 0x200;
/// Most unreadable pages that are passed over.
const MAX_HOLES: usize = 0x100;

/// What a record is to whoever scans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The part of it that says so cannot be read.
    Unreadable,
    /// Nothing was ever written to it.
    Unused,
    /// Not what is looked for.
    Other,
    /// It is part of the answer.
    Kept,
    /// So it is, and the answer takes no more.
    Last,
}

/// Why a scan ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Every record was looked at.
    Through,
    /// There is enough, or there are only unused slots below.
    Enough,
    /// Going on would cost more requests than are allowed.
    Allowance,
    /// So many of the oldest records were written over while the target was let run.
    Overtaken(u64),
    /// So many pages could not be read that the rest was left alone.
    Holes(usize),
    /// Reading anything more is pointless.
    Over(ReadCause),
}

impl End {
    /// Says that something was not looked at, if so.
    pub(super) fn note(self, target: &Target<'_>) {
        let (code, text) = match self {
            Self::Through | Self::Enough | Self::Allowance => return,
            Self::Overtaken(records) => (
                NoteCode::ShortStops,
                format!(
                    "{records:#x} of the oldest entries were written over while the target was let run in between, and were not \
                     read"
                ),
            ),
            Self::Holes(pages) => {
                (NoteCode::Unreadable, format!("Reading the log was given up after {pages} unreadable pages"))
            }
            Self::Over(cause) => (NoteCode::BrokenOff, format!("Reading the log was broken off: {cause}")),
        };
        target.note(Note::partial(code, text));
    }
}

/// A scan, and what it has met.
pub(super) struct Scan<'a> {
    /// As it was when the scan began, and how many events came since.
    ring: Ring,
    target: &'a Target<'a>,
    filter: Filter,
    /// Whether a run of unused slots ends it.
    ends_at_unused: bool,
    /// Requests that it may take.
    allowed: u64,
    /// Requests that its reads take where nothing of them is known yet; 0 where there are no requests.
    pub(super) requests: u64,
    /// Records that were looked at.
    pub(super) parsed: u64,
    /// Those of them that cannot be read.
    pub(super) unreadable: u64,
    /// Why the first page that could not be read could not.
    missing: Option<ReadCause>,
    /// Unused slots since the last used one.
    unused: u64,
    /// Records that were kept.
    kept: u64,
    /// Unreadable pages.
    holes: usize,
}

impl<'a> Scan<'a> {
    /// Of `ring`, for what `filter` lets through.
    pub(super) const fn new(ring: &Ring, target: &'a Target<'a>, filter: Filter) -> Self {
        Self {
            ring: *ring,
            target,
            filter,
            ends_at_unused: true,
            allowed: u64::MAX,
            requests: 0,
            parsed: 0,
            unreadable: 0,
            missing: None,
            unused: 0,
            kept: 0,
            holes: 0,
        }
    }

    /// The same through all of the ring, whatever is unused.
    pub(super) fn whole(self) -> Self {
        Self { ends_at_unused: false, ..self }
    }

    /// The same for so many requests at the most.
    pub(super) fn within(self, allowed: u64) -> Self {
        Self { allowed, ..self }
    }

    /// Why what could not be read could not, as far as it was met first.
    pub(super) fn why_unreadable(&self) -> ReadCause {
        // Only pages that could not be read leave a record short.
        self.missing.clone().unwrap_or(ReadCause::NotMapped)
    }

    /// Looks at the ring's records, until there are enough: `look` gets a slot and its bytes, up to the first that cannot be
    /// read.
    pub(super) fn run(&mut self, look: &mut dyn FnMut(u64, &[u8]) -> Seen) -> End {
        let mut age = 0;
        while age < self.ring.kept() {
            if let Err(cause) = self.make_room() {
                return End::Over(cause);
            }
            if age >= self.ring.kept() {
                break;
            }
            let end = self.ring.slot_of(age) + 1;
            let at_once = self.at_once().min(self.ring.kept() - age);
            if at_once == 0 {
                return End::Allowance;
            }
            let slots = end.saturating_sub(at_once)..end;
            age += slots.end - slots.start;
            if let Some(end) = self.look_at(slots, look) {
                return end;
            }
            self.target.advance("log entries", self.parsed, self.expected());
        }
        if age < self.ring.length { End::Overtaken(self.ring.length - age) } else { End::Through }
    }

    /// Lets the target run where nothing more fits into its stop, and learns what was written over meanwhile.
    fn make_room(&mut self) -> Result<(), ReadCause> {
        if self.target.make_room(1)? {
            self.ring.catch_up(self.target).map_err(|error| error.cause)?;
        }
        Ok(())
    }

    /// Records that will have been looked at in the end, as far as that is known: whoever wants some of a long log does not
    /// wait for all of it.
    fn expected(&self) -> u64 {
        match self.filter {
            Filter::Newest(quantity) => quantity.saturating_add(self.unused).min(self.ring.length),
            _ => self.ring.length,
        }
        .max(self.parsed)
    }

    /// Records that are read together: not more than are wanted, but for whoever has met unused ones, who has to look further; not
    /// more than is allowed.
    fn at_once(&self) -> u64 {
        let left = self.allowed.saturating_sub(self.requests).min(self.target.room().max(1));
        let affordable = match self.target.memory().request_len() {
            0 => u64::MAX,
            // A record that is longer than a reply is read whole all the same.
            reply if left > 0 => (left.saturating_mul(reply as u64) / self.ring.size).max(1),
            _ => 0,
        };
        let whole = PIECE / self.ring.size;
        let wanted = match self.filter {
            Filter::Newest(quantity) if self.unused == 0 => (quantity - self.kept).clamp(1, whole),
            _ => whole,
        };
        wanted.min(affordable)
    }

    /// Looks at some slots, the highest first; why no others need be looked at, if so.
    pub(super) fn look_at(
        &mut self,
        slots: Range<u64>,
        look: &mut dyn FnMut(u64, &[u8]) -> Seen,
    ) -> Option<End> {
        let size = self.ring.size;
        let piece = self.ring.piece(self.target, &slots);
        self.requests += requests(self.target.memory(), (slots.end - slots.start) * size);
        self.holes += piece.holes.len();
        if self.missing.is_none() {
            self.missing.clone_from(&piece.missing);
        }
        if let Some(cause) = piece.over {
            return Some(End::Over(cause));
        }
        for slot in slots.clone().rev() {
            self.parsed += 1;
            match look(slot, piece.entry((slot - slots.start) * size, size)) {
                Seen::Unreadable => {
                    self.unreadable += 1;
                    continue;
                }
                Seen::Unused => {
                    if matches!(self.filter, Filter::Newest(_)) && self.ring.is_newest(slot) {
                        self.target.note(ring::newest_is_empty(slot));
                    }
                    self.unused += 1;
                    continue;
                }
                Seen::Other => {}
                Seen::Kept => self.kept += 1,
                Seen::Last => return Some(End::Enough),
            }
            self.unused = 0;
        }
        if self.holes > MAX_HOLES {
            return Some(End::Holes(self.holes));
        }
        (self.ends_at_unused && self.unused >= MAX_UNUSED).then_some(End::Enough)
    }
}

/// Says that an answer takes no more than it has: `kept` `what`.
pub(super) fn only_the_newest(kept: usize, what: &str) -> Note {
    let text = format!("Only the newest {kept:#x} of the {what} that fit are shown");
    Note::partial(NoteCode::Limit, text)
}
