//! Sums over every processor's table, of all tags or of one.
//!
//! A tag has the same index in every table, so that an unreadable page of one spoils the sums of the tags that lie there, and no
//! others. What was added up of such a tag is thrown away: a part of a sum looks like a sum.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::commands::pool::tag::PoolTag;
use crate::commands::pool::trackers::{Counts, Expansion, Table, Trackers};
use crate::memory::{ReadCause, ReadError, reply_len, requests};
use crate::output::grouped;
use crate::target::{Note, NoteCode, OfLink, Target, TargetError, VirtAddr, is_over};

/// Requests from which on a walk says beforehand what it will cost.
const WORTH_SAYING: u64 = 2000;
/// Bytes of a table that are held at once: all of any that was seen.
const AT_ONCE: u64 = 1 << 20;
/// More tags than any kernel has.
const MAX_TAGS: usize = 1 << 18;

/// What the tables say.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// Of every tag that was read whole.
    pub(super) sums: BTreeMap<PoolTag, Counts>,
    /// Tags of which a part could not be read.
    pub(super) unknown: BTreeSet<PoolTag>,
    /// Tables that could be read, in full or as far as was needed.
    pub(super) tables_read: usize,
    /// What is counted without a tag, if anything is.
    pub(super) overflow: Option<Counts>,
    /// Something may be missing beside tags that are known to be.
    is_cut: bool,
}

impl Collected {
    /// True if every tag has its sum.
    pub(super) fn is_whole(&self) -> bool {
        self.unknown.is_empty() && !self.is_cut
    }

    /// Takes from every tag its sum: something is missing in all of them.
    fn throw_away(&mut self) {
        self.unknown.extend(std::mem::take(&mut self.sums).into_keys());
        self.overflow = None;
        self.is_cut = true;
    }
}

/// Adds up every table.
pub(super) fn of_all(target: &Target<'_>, trackers: &Trackers) -> Result<Collected, TargetError> {
    let cost = trackers.tables.len() as u64 * requests(target.memory(), trackers.table_len());
    if cost >= WORTH_SAYING {
        target.announce(&format!(
            "reading the tables of {} processors takes {} requests; `!poolused 0 TAG` takes a few for one tag",
            trackers.tables.len(),
            grouped(cost)
        ));
    }
    let mut sums = Sums::default();
    for (done, table) in (0..).zip(&trackers.tables) {
        target.advance("tables", done, trackers.tables.len() as u64);
        if let Some(end) = sums.add_table(target, trackers, table) {
            let mut collected = sums.collected();
            lost(target, trackers, trackers.tables.len() - done as usize - 1, &mut collected);
            collected.throw_away();
            if let End::TooManyTags = end {
                let text =
                    format!("{table} at {}: more tags than any kernel has", target.shown(table.address));
                target.note(Note::partial(NoteCode::Damaged, text));
            }
            return Ok(collected);
        }
    }
    let mut collected = sums.collected();
    lost(target, trackers, 0, &mut collected);
    expansion(target, trackers, None, &mut collected);
    Ok(collected)
}

/// Adds up one tag's entries.
pub(super) fn of_one(
    target: &Target<'_>,
    trackers: &Trackers,
    tag: PoolTag,
) -> Result<Collected, TargetError> {
    let mut collected = Collected::default();
    let Some(index) = trackers.index_of(target, tag)? else {
        collected.tables_read = trackers.tables.len();
        lost(target, trackers, 0, &mut collected);
        expansion(target, trackers, Some(tag), &mut collected);
        return Ok(collected);
    };
    let size = trackers.entry.size();
    let ranges: Vec<_> = trackers.tables.iter().map(|table| (trackers.at(table, index), size)).collect();
    let mut sum = Counts::default();
    for (table, read) in trackers.tables.iter().zip(target.read_ranges(&ranges)) {
        match read.map(|bytes| trackers.entry.entry(&bytes)) {
            Ok(Some((key, counts))) if key == tag || key.0 == 0 => {
                collected.tables_read += 1;
                if key == tag {
                    sum.add(&counts);
                }
            }
            Ok(_) => {
                // Every sum rests on one index for a tag. Where that does not hold, all of the tables say what is where.
                let text = format!(
                    "{table} has another tag where '{tag}' belongs, so all tables were added up by their own keys"
                );
                target.note(Note::remark(NoteCode::Damaged, text));
                return of_all(target, trackers);
            }
            Err(error) => {
                note_unread(target, &table.to_string(), table.address, &error);
                collected.unknown.insert(tag);
            }
        }
    }
    lost(target, trackers, 0, &mut collected);
    if collected.is_whole() {
        collected.sums.insert(tag, sum);
    } else {
        collected.unknown.insert(tag);
    }
    Ok(collected)
}

/// Why adding up ends before the last table.
enum End {
    BrokenOff,
    TooManyTags,
}

/// What is added up so far, and which entries are missing in it.
#[derive(Default)]
struct Sums {
    /// Sums by tag, each with the indexes that it was found at: one, unless tables are damaged.
    tags: BTreeMap<PoolTag, (Counts, BTreeSet<u64>)>,
    /// Indexes that could not be read in some table.
    missing: Vec<Range<u64>>,
    overflow: Option<Counts>,
    tables_read: usize,
}

impl Sums {
    /// Adds a table, piece by piece. Why no further one makes sense, if so.
    fn add_table(&mut self, target: &Target<'_>, trackers: &Trackers, table: &Table) -> Option<End> {
        let size = trackers.entry.size() as u64;
        let at_once = (AT_ONCE / size).max(1);
        let (mut index, mut readable) = (0, 0);
        let mut cause = None;
        while index < trackers.entries {
            let count = at_once.min(trackers.entries - index);
            let bytes = target.read_sparse(trackers.at(table, index), (count * size) as usize);
            cause = cause.or_else(|| bytes.missing().cloned());
            readable += bytes.readable_len() as u64;
            for (number, offset) in (0..count).map(|it| (index + it, (it * size) as usize)) {
                match bytes.get(offset..offset + size as usize).and_then(|bytes| trackers.entry.entry(bytes))
                {
                    Some((key, counts)) => self.add(trackers, number, key, &counts),
                    None => self.miss(number..number + 1),
                }
            }
            index += count;
            if self.tags.len() > MAX_TAGS {
                return Some(End::TooManyTags);
            }
            if bytes.over().is_some() {
                note_missing(target, trackers, table, readable, cause.as_ref());
                return Some(End::BrokenOff);
            }
            if bytes.readable_len() == 0 {
                // What lies behind so much that is not there is not worth a request a page.
                self.miss(index..trackers.entries);
                break;
            }
        }
        self.tables_read += usize::from(readable > 0);
        note_missing(target, trackers, table, readable, cause.as_ref());
        None
    }

    fn add(&mut self, trackers: &Trackers, index: u64, key: PoolTag, counts: &Counts) {
        if key.0 != 0 {
            let (sum, indexes) = self.tags.entry(key).or_default();
            sum.add(counts);
            indexes.insert(index);
        } else if index + 1 == trackers.entries && !counts.is_zero() {
            self.overflow.get_or_insert_default().add(counts);
        }
    }

    /// Notes that entries could not be read. They come in order within a table.
    fn miss(&mut self, entries: Range<u64>) {
        match self.missing.last_mut().filter(|last| last.end == entries.start) {
            Some(last) => last.end = entries.end,
            None => self.missing.push(entries),
        }
    }

    fn collected(self) -> Collected {
        let Self { tags, missing, overflow, tables_read } = self;
        let missing = merged(missing);
        let is_missing = |index: &u64| missing.iter().any(|range| range.contains(index));
        let indexes = tags.values().flat_map(|(_, indexes)| indexes);
        let named: BTreeSet<u64> = indexes.copied().filter(is_missing).collect();
        // Nobody knows which tag an entry is of that no table names.
        let is_cut = missing.iter().map(|range| range.end - range.start).sum::<u64>() > named.len() as u64;
        let (unknown, whole): (BTreeMap<_, _>, BTreeMap<_, _>) =
            tags.into_iter().partition(|(_, (_, indexes))| !indexes.is_disjoint(&named));
        Collected {
            sums: whole.into_iter().map(|(tag, (counts, _))| (tag, counts)).collect(),
            unknown: unknown.into_keys().collect(),
            tables_read,
            overflow,
            is_cut,
        }
    }
}

/// The same entries as few ranges in order.
fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut().filter(|last| range.start <= last.end) {
            Some(last) => last.end = last.end.max(range.end),
            None => merged.push(range),
        }
    }
    merged
}

/// Takes from every tag its sum, if tables are missing as a whole.
fn lost(target: &Target<'_>, trackers: &Trackers, skipped: usize, collected: &mut Collected) {
    if skipped > 0 {
        let text = format!(
            "Reading was broken off with {skipped} of {} tables unread: no tag has a sum without them",
            trackers.tables.len()
        );
        target.note(Note::partial(NoteCode::BrokenOff, text));
    }
    for why in &trackers.lost {
        let text = format!("{why}: no tag has a sum without it");
        target.note(Note::partial(NoteCode::Unreadable, text));
    }
    if skipped > 0 || !trackers.lost.is_empty() {
        collected.throw_away();
    }
}

/// Adds the tags that found no room in the tables; of one only, if `wanted`.
fn expansion(target: &Target<'_>, trackers: &Trackers, wanted: Option<PoolTag>, collected: &mut Collected) {
    let (address, entries) = match trackers.expansion {
        Expansion::None => return,
        Expansion::Unsettled => {
            collected.is_cut = true;
            return;
        }
        Expansion::At { address, entries } => (address, entries),
    };
    let is_wanted = |index: u64, key: PoolTag, collected: &Collected| {
        let is_asked = wanted.is_none_or(|wanted| wanted == key);
        is_asked && !collected.unknown.contains(&key) && index < MAX_TAGS as u64
    };
    let size = trackers.entry.size() as u64;
    let at_once = (reply_len(target.memory()) / size).max(1);
    let mut index = 0;
    while index < entries {
        let count = at_once.min(entries - index);
        let (bytes, missing) = target.read_some(address.offset(index * size), (count * size) as usize);
        for (entry, index) in bytes.chunks_exact(size as usize).zip(index..) {
            match trackers.entry.entry(entry) {
                // It is filled from its start on.
                Some((PoolTag(0), _)) => return,
                Some((key, counts)) if is_wanted(index, key, collected) => {
                    collected.sums.entry(key).or_default().add(&counts);
                }
                _ => {}
            }
        }
        if let Some(error) = missing {
            let text = format!(
                "the tracker table was being expanded when the target stopped: the expansion table at {} cannot be read from entry {:#x} on \
                 ({}), and tags that it has there are missing; g, break in and ask again",
                target.shown(address),
                index + bytes.len() as u64 / size,
                error.cause
            );
            target.note(Note::partial(NoteCode::UnderWay, text).broken_off_if(error.is_of_link()));
            collected.is_cut = true;
            return;
        }
        index += count;
    }
}

/// Says which part of a table is missing, if one is.
fn note_missing(
    target: &Target<'_>,
    trackers: &Trackers,
    table: &Table,
    readable: u64,
    cause: Option<&ReadCause>,
) {
    let Some(cause) = cause else { return };
    let at = target.shown(table.address);
    let text = if readable == 0 {
        format!("{table} at {at} could not be read ({cause}): no tag has a sum without it")
    } else {
        let entries = (trackers.table_len() - readable).div_ceil(trackers.entry.size() as u64);
        format!(
            "{table} at {at} could be read in part only ({cause}): tags at about {entries} of its entries have no sum"
        )
    };
    target.note(Note::partial(NoteCode::Unreadable, text).broken_off_if(is_over(cause)));
}

fn note_unread(target: &Target<'_>, name: &str, at: VirtAddr, error: &ReadError) {
    let text =
        format!("{name} at {} could not be read ({error}): the tag has no sum without it", target.shown(at));
    target.note(Note::partial(NoteCode::Unreadable, text).broken_off_if(error.is_of_link()));
}
