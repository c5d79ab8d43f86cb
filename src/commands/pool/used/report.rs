//! What `!poolused` finds: a row a tag, and what the rows are made of.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::row::{Overflow, PoolSide, TagRow, Total, row, sides, total};
use super::snapshot::PoolSnapshot;
use super::sum::{self, Collected};
use crate::commands::answer::Query;
use crate::commands::error::QueryError;
use crate::commands::pool::pattern::TagPattern;
use crate::commands::pool::tag::PoolTag;
use crate::commands::pool::tag_file::TagTexts;
use crate::commands::pool::trackers::{Counts, Expansion, Trackers};
use crate::commands::schema::Schema;
use crate::commands::verifier::leaks::{boot_of, kept_at};
use crate::leaks::BootIdentity;
use crate::target::{Note, NoteCode, NoteKind, Target};

pub(super) const NAME: &str = "!poolused";
/// The first build whose own debugger printed as today's does.
const NEW_FORMAT: u16 = 9600;

/// Which row is the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// The most bytes of nonpaged pool.
    Nonpaged,
    /// The most bytes of paged pool.
    Paged,
    /// The tags' own order.
    #[default]
    Tag,
}

/// Asks how much pool tags hold.
#[derive(Clone, Debug, Default)]
pub struct UsedQuery {
    /// Which tags.
    pub tags: TagPattern,
    /// Which row is the first.
    pub order: Order,
    /// Allocations and frees too.
    pub verbose: bool,
    /// Only so many rows.
    pub rows: Option<usize>,
    /// Only what has changed since then.
    pub since: Option<Since>,
    /// The file that a snapshot of every tag goes to.
    pub save: Option<PathBuf>,
    /// With the time at which it was so, if the memory is one that was kept: [`PoolUsed::unix_ms`].
    pub dated: bool,
}

/// What a difference is to.
#[derive(Clone, Debug)]
pub enum Since {
    /// The last answer of this session.
    LastTime,
    /// A snapshot, and the file that it is from.
    Snapshot(PathBuf, Arc<PoolSnapshot>),
}

/// The snapshot that rows are differences to.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct SinceFile {
    /// The file.
    pub file: String,
    /// When it was made: milliseconds since 1970.
    pub unix_ms: u64,
    /// It is of the boot that is compared with it: allocations and frees are those since.
    pub is_same_boot: bool,
}

/// How much pool each tag holds.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct PoolUsed {
    /// What comes first.
    pub order: Order,
    /// The rows are differences: to those of the last time, or of a snapshot.
    pub is_difference: bool,
    /// The snapshot, if it is one.
    pub since: Option<SinceFile>,
    /// A row a tag, as far as every processor's part of it is known.
    pub rows: Vec<TagRow>,
    /// All rows together, those that are not shown too; nothing if some tag has no sum.
    pub total: Option<Total>,
    /// Tags of which a processor's part could not be read: they have no row.
    pub unknown: Vec<PoolTag>,
    /// Tables of counters that there are.
    pub tables_expected: usize,
    /// Those of them that could be read, in full or as far as was needed.
    pub tables_read: usize,
    /// Entries of each.
    pub entries: u64,
    /// Tags were looked for in the table of those that found no room elsewhere: there is one.
    pub expansion: bool,
    /// What is counted without a tag, because no table had room.
    pub overflow: Option<Overflow>,
    /// The text shows allocations and frees.
    #[serde(skip)]
    pub(super) verbose: bool,
    /// Today's format is that of the target's own time.
    #[serde(skip)]
    pub(super) is_new: bool,
    /// What goes to a file, and where.
    #[serde(skip)]
    pub(super) saved: Option<Saved>,
    /// When its memory was kept, of one that does not stand still at this time.
    #[serde(skip)]
    pub(super) kept_unix_ms: Option<u64>,
}

impl PoolUsed {
    /// When it was so: the time of a memory that was kept, or else that of the answer.
    #[must_use]
    pub fn unix_ms(&self, answered_at: u64) -> u64 {
        self.kept_unix_ms.unwrap_or(answered_at)
    }
}

/// A snapshot that was asked for.
#[derive(Clone, Debug)]
pub(super) struct Saved {
    pub(super) path: PathBuf,
    boot: BootIdentity,
    /// Every tag; nothing if some have no sum.
    rows: Option<Vec<TagRow>>,
}

impl Saved {
    /// Writes it.
    pub(super) fn write(&self, unix_ms: u64) -> Result<(), String> {
        let rows = self
            .rows
            .as_ref()
            .ok_or("some tags have no sum, and a snapshot has every tag: g, break in and ask again")?;
        let snapshot = PoolSnapshot::of(rows, self.boot.clone(), unix_ms);
        snapshot.write(&self.path).map_err(|error| error.to_string())
    }
}

/// The sums of the last time, by tag: what `-d` compares with.
#[derive(Debug, Default)]
struct Last {
    /// Of every tag, if they were all asked for.
    all: Option<BTreeMap<PoolTag, Counts>>,
    /// Of tags that were asked for alone since.
    alone: BTreeMap<PoolTag, Counts>,
}

impl Query for UsedQuery {
    type Facts = PoolUsed;

    fn run(&self, target: &Target<'_>) -> Result<PoolUsed, QueryError> {
        let trackers = Trackers::find(target).map_err(|failure| failure.of(NAME))?;
        if trackers.expansion == Expansion::Unsettled {
            let text = "the tracker table was being expanded when the target stopped: the expansion table is left out; g, break in and ask \
                        again";
            target.note(Note::partial(NoteCode::UnderWay, text));
        }
        let collected = match &self.tags {
            TagPattern::One(tag) => sum::of_one(target, &trackers, *tag),
            _ => sum::of_all(target, &trackers),
        };
        let collected = collected.map_err(|source| QueryError::Target { command: NAME, source })?;
        let last = target.kernel().kept::<Last>();
        let base = match &self.since {
            Some(Since::LastTime) => Some(self.base(last.as_deref())?),
            Some(Since::Snapshot(..)) | None => None,
        };
        let facts = self.report(target, &trackers, &collected, base.as_ref());
        self.keep(target, last.as_deref(), collected);
        Ok(facts)
    }
}

/// Tags that the kernel counts, those of the last answer or else of its table of every key: what a user may be about to type. Those
/// whose characters nobody types are left out.
pub(in crate::commands) fn known_tags(target: &Target<'_>) -> Vec<String> {
    let last = target.kernel().kept::<Last>();
    let tags = match last.and_then(|last| last.all.as_ref().map(|all| all.keys().copied().collect())) {
        Some(tags) => tags,
        None => Trackers::find(target).map(|trackers| trackers.keys(target)).unwrap_or_default(),
    };
    let typed = |tag: PoolTag| {
        let text = tag.to_string().trim_end().to_owned();
        let is_typed = tag.bytes().iter().all(|byte| (b' '..=b'~').contains(byte));
        (is_typed && !text.is_empty() && !text.contains([' ', '"', ';'])).then_some(text)
    };
    let mut tags: Vec<String> = tags.into_iter().filter_map(typed).collect();
    tags.sort();
    tags
}

impl UsedQuery {
    /// What the last answer had of the tags that are asked for.
    fn base(&self, last: Option<&Last>) -> Result<BTreeMap<PoolTag, Counts>, QueryError> {
        let nothing = || {
            QueryError::NoData {
            command: NAME,
            reason: "there is no earlier answer of this boot to compare with: ask without -d first, g, break in, and ask again".to_owned(),
        }
        };
        let last = last.ok_or_else(nothing)?;
        match &self.tags {
            TagPattern::One(tag) => {
                let alone = last.alone.get(tag).copied();
                let of_all = || last.all.as_ref().map(|all| all.get(tag).copied().unwrap_or_default());
                Ok([(*tag, alone.or_else(of_all).ok_or_else(nothing)?)].into())
            }
            _ => last.all.clone().ok_or_else(nothing),
        }
    }

    /// Keeps sums for the next time: whole ones only.
    fn keep(&self, target: &Target<'_>, last: Option<&Last>, collected: Collected) {
        if !collected.is_whole() {
            return;
        }
        let next = match &self.tags {
            TagPattern::One(tag) => {
                let mut next = Last {
                    all: last.and_then(|last| last.all.clone()),
                    alone: last.map(|last| last.alone.clone()).unwrap_or_default(),
                };
                next.alone.insert(*tag, collected.sums.get(tag).copied().unwrap_or_default());
                next
            }
            _ => Last { all: Some(collected.sums), alone: BTreeMap::new() },
        };
        target.kernel().keep(next);
    }

    fn report(
        &self,
        target: &Target<'_>,
        trackers: &Trackers,
        collected: &Collected,
        base: Option<&BTreeMap<PoolTag, Counts>>,
    ) -> PoolUsed {
        let widths = (trackers.entry.counter_bits(), trackers.entry.byte_bits());
        let texts = TagTexts::of(target);
        let zero = Counts::default();
        let made = |tag: PoolTag, then: Option<&Counts>| {
            let now = collected.sums.get(&tag).unwrap_or(&zero);
            row(tag, now, then, widths, texts.find(tag).cloned())
        };
        let mut since = None;
        let mut rows: Vec<TagRow> = match (&self.since, base) {
            (Some(Since::Snapshot(path, snapshot)), _) => {
                let (of_file, then) = self.of_snapshot(target, path, snapshot);
                let tags = self.tags_of(collected, then.keys());
                let widths = of_file.is_same_boot.then_some(widths);
                let less = |tag| made(tag, None).less(then.get(&tag).copied().unwrap_or_default(), widths);
                since = Some(of_file);
                tags.into_iter().map(less).collect()
            }
            (_, Some(base)) => {
                let tags = self.tags_of(collected, base.keys());
                tags.into_iter().map(|tag| made(tag, Some(base.get(&tag).unwrap_or(&zero)))).collect()
            }
            (_, None) => self.tags_of(collected, [].iter()).into_iter().map(|tag| made(tag, None)).collect(),
        };
        let saved = self.save.as_ref().map(|path| Saved {
            path: path.clone(),
            boot: boot_of(target, true),
            rows: collected.is_whole().then(|| collected.sums.keys().map(|tag| made(*tag, None)).collect()),
        });
        rows.retain(|row| self.is_shown(row));
        rows.sort_by_key(|row| row.tag);
        match self.order {
            Order::Nonpaged => rows.sort_by_key(|row| Reverse(row.nonpaged.bytes)),
            Order::Paged => rows.sort_by_key(|row| Reverse(row.paged.bytes)),
            Order::Tag => {}
        }
        let unknown: Vec<PoolTag> =
            collected.unknown.iter().copied().filter(|tag| self.tags.fits(*tag)).collect();
        let total = collected.is_whole().then(|| total(&rows));
        let expansion = matches!(trackers.expansion, Expansion::At { .. });
        note_nothing(target, self, collected, &rows);
        rows.truncate(self.rows.unwrap_or(usize::MAX));
        PoolUsed {
            order: self.order,
            is_difference: self.since.is_some(),
            since,
            rows,
            total,
            unknown,
            tables_expected: trackers.tables.len() + trackers.lost.len(),
            tables_read: collected.tables_read,
            entries: trackers.entries,
            expansion,
            overflow: collected.overflow.map(|counts| sides(&counts, None, widths)),
            verbose: self.verbose,
            is_new: target.kernel().version().build >= NEW_FORMAT,
            saved,
            kept_unix_ms: (self.dated || self.save.is_some()).then(|| kept_at(target)).flatten(),
        }
    }

    /// Tags that are asked for: those that hold something, and those that did before, since what is gone has changed too.
    fn tags_of<'a>(
        &self,
        collected: &'a Collected,
        before: impl Iterator<Item = &'a PoolTag>,
    ) -> Vec<PoolTag> {
        let gone = before.filter(|tag| !collected.sums.contains_key(tag) && !collected.unknown.contains(tag));
        collected.sums.keys().chain(gone).copied().filter(|tag| self.tags.fits(*tag)).collect()
    }

    /// What a snapshot has of each tag, and what is to be known of it.
    fn of_snapshot(
        &self,
        target: &Target<'_>,
        path: &Path,
        snapshot: &PoolSnapshot,
    ) -> (SinceFile, BTreeMap<PoolTag, [PoolSide; 2]>) {
        let is_same_boot = snapshot.is_of(&boot_of(target, true));
        if !is_same_boot {
            let text = format!(
                "{} is of another boot: what is held compares, but allocations and frees are counted anew in each boot, and their \
                 differences say nothing",
                path.display()
            );
            target.note(Note::remark(NoteCode::CountsDiffer, text));
        }
        let since = SinceFile { file: path.display().to_string(), unix_ms: snapshot.unix_ms, is_same_boot };
        (since, snapshot.by_tag())
    }

    /// Tags that hold nothing are shown only with all there is to know.
    fn is_shown(&self, row: &TagRow) -> bool {
        let holds = |side: &PoolSide| side.outstanding != 0 || side.bytes != 0;
        let moved = |side: &PoolSide| side.allocs != 0 || side.frees != 0;
        match self.verbose {
            true if self.since.is_none() => true,
            true => moved(&row.nonpaged) || moved(&row.paged) || holds(&row.nonpaged) || holds(&row.paged),
            false => holds(&row.nonpaged) || holds(&row.paged),
        }
    }
}

/// Says that a tag that was asked for is nowhere, where all of it was looked at.
fn note_nothing(target: &Target<'_>, query: &UsedQuery, collected: &Collected, rows: &[TagRow]) {
    if !rows.is_empty() || !collected.is_whole() || target.notes().worst() > Some(NoteKind::Remark) {
        return;
    }
    let text = match &query.tags {
        _ if query.since.is_some() => "nothing has changed since then".to_owned(),
        TagPattern::One(tag) if collected.sums.contains_key(tag) => {
            format!("tag '{tag}' holds nothing: everything that was allocated with it is freed")
        }
        TagPattern::One(tag) => {
            format!("tag '{tag}' is in no tracker table: nothing with this tag was ever allocated since boot")
        }
        _ => "no tag that fits holds anything".to_owned(),
    };
    target.note(Note::remark(NoteCode::NotFound, text));
}

impl PoolUsed {
    /// An answer of these rows, of a kernel with one table.
    #[cfg(test)]
    pub(in crate::commands) fn of_rows(order: Order, rows: Vec<TagRow>, total: Option<Total>) -> Self {
        Self {
            order,
            is_difference: false,
            since: None,
            rows,
            total,
            unknown: Vec::new(),
            tables_expected: 1,
            tables_read: 1,
            entries: 0x801,
            expansion: false,
            overflow: None,
            verbose: false,
            is_new: true,
            saved: None,
            kept_unix_ms: None,
        }
    }

    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("pool_used");
}
