//! What `!poolused` finds: a row a tag, and what the rows are made of.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;

use super::sum::{self, Collected};
use crate::commands::answer::Query;
use crate::commands::error::QueryError;
use crate::commands::pool::pattern::TagPattern;
use crate::commands::pool::tag::PoolTag;
use crate::commands::pool::tag_file::{TagText, TagTexts};
use crate::commands::pool::trackers::{Counts, Expansion, Side, Trackers};
use crate::commands::schema::Schema;
use crate::output;
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
    /// Only what has changed since the last time.
    pub is_difference: bool,
}

/// How much pool each tag holds.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct PoolUsed {
    /// What comes first.
    pub order: Order,
    /// The rows are differences to those of the last time.
    pub is_difference: bool,
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
}

/// What one tag holds.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct TagRow {
    /// Four characters; what is not printable shows as a dot.
    pub tag: PoolTag,
    /// The same as the number that it is.
    #[serde(serialize_with = "output::hex")]
    #[schemars(with = "output::Hex")]
    pub tag_hex: u32,
    /// Nonpaged pool.
    pub nonpaged: PoolSide,
    /// Paged pool.
    pub paged: PoolSide,
    /// What the user's `pooltag.txt` says of it; nothing without one.
    pub description: Option<String>,
    /// Whose it is by that file.
    pub binary: Option<String>,
}

/// All rows together.
#[derive(Clone, Copy, Debug, Serialize, schemars::JsonSchema)]
pub struct Total {
    /// Nonpaged pool.
    pub nonpaged: PoolSide,
    /// Paged pool.
    pub paged: PoolSide,
}

/// What is counted where no tag found room.
pub type Overflow = Total;

/// One kind of pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct PoolSide {
    /// Allocations since the machine started, as far as the counter goes; it wraps at its width.
    pub allocs: i64,
    /// Frees, the same.
    pub frees: i64,
    /// Allocations that are not freed.
    pub outstanding: i64,
    /// Bytes of them, with the pool's own headers.
    pub bytes: i64,
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
        let base = if self.is_difference { Some(self.base(last.as_deref())?) } else { None };
        let facts = self.report(target, &trackers, &collected, base.as_ref());
        self.keep(target, last.as_deref(), collected);
        Ok(facts)
    }
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
        let mut tags: Vec<PoolTag> = collected.sums.keys().copied().collect();
        // What is gone since the last time has changed too.
        tags.extend(
            base.iter()
                .flat_map(|base| base.keys())
                .filter(|tag| !collected.sums.contains_key(tag) && !collected.unknown.contains(tag)),
        );
        let mut rows: Vec<TagRow> = tags
            .into_iter()
            .filter(|tag| self.tags.fits(*tag))
            .map(|tag| {
                let now = collected.sums.get(&tag).unwrap_or(&zero);
                let then = base.map(|base| base.get(&tag).unwrap_or(&zero));
                row(tag, now, then, widths, texts.find(tag).cloned())
            })
            .filter(|row| self.is_shown(row))
            .collect();
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
            is_difference: self.is_difference,
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
        }
    }

    /// Tags that hold nothing are shown only with all there is to know.
    fn is_shown(&self, row: &TagRow) -> bool {
        let holds = |side: &PoolSide| side.outstanding != 0 || side.bytes != 0;
        let moved = |side: &PoolSide| side.allocs != 0 || side.frees != 0;
        match self.verbose {
            true if !self.is_difference => true,
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
        _ if query.is_difference => "nothing has changed since the last time".to_owned(),
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

fn row(
    tag: PoolTag,
    now: &Counts,
    then: Option<&Counts>,
    widths: (u32, u32),
    text: Option<TagText>,
) -> TagRow {
    let Total { nonpaged, paged } = sides(now, then, widths);
    let (description, binary) = text.map(|text| (text.description, text.binary)).unzip();
    TagRow { tag, tag_hex: tag.0, nonpaged, paged, description, binary: binary.flatten() }
}

fn sides(now: &Counts, then: Option<&Counts>, widths: (u32, u32)) -> Total {
    let zero = Counts::default();
    let before = then.unwrap_or(&zero);
    let side = |now: &Side, before: &Side| side(now, before, widths, then.is_some());
    Total { nonpaged: side(&now.nonpaged, &before.nonpaged), paged: side(&now.paged, &before.paged) }
}

/// Sums, less those of the last time. Counters wrap at their width, so that a difference of two is right though each has wrapped.
fn side(now: &Side, then: &Side, (counter, bytes): (u32, u32), is_difference: bool) -> PoolSide {
    let signed = |value: u64, bits: u32| (value << (64 - bits)).cast_signed() >> (64 - bits);
    let unsigned = |value: u64, bits: u32| (value << (64 - bits) >> (64 - bits)).cast_signed();
    let moved = |now: u64, then: u64| {
        let moved = now.wrapping_sub(then);
        if is_difference { signed(moved, counter) } else { unsigned(moved, counter) }
    };
    let held = |side: &Side| side.allocs.wrapping_sub(side.frees);
    PoolSide {
        allocs: moved(now.allocs, then.allocs),
        frees: moved(now.frees, then.frees),
        outstanding: signed(held(now).wrapping_sub(held(then)), counter),
        bytes: signed(now.bytes.wrapping_sub(then.bytes), bytes),
    }
}

fn total(rows: &[TagRow]) -> Total {
    let add = |sum: PoolSide, more: &PoolSide| PoolSide {
        allocs: sum.allocs.wrapping_add(more.allocs),
        frees: sum.frees.wrapping_add(more.frees),
        outstanding: sum.outstanding.wrapping_add(more.outstanding),
        bytes: sum.bytes.wrapping_add(more.bytes),
    };
    let zero = PoolSide::default();
    Total {
        nonpaged: rows.iter().fold(zero, |sum, row| add(sum, &row.nonpaged)),
        paged: rows.iter().fold(zero, |sum, row| add(sum, &row.paged)),
    }
}

impl PoolUsed {
    /// An answer of these rows, of a kernel with one table.
    #[cfg(test)]
    pub(in crate::commands) fn of_rows(order: Order, rows: Vec<TagRow>, total: Option<Total>) -> Self {
        Self {
            order,
            is_difference: false,
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
        }
    }

    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("pool_used");
}
