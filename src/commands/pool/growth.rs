//! Which tags grow from look to look: what `verikd pool` shows.
//!
//! ```text
//!  look, look, look ...  --> a row a tag and kind of pool, the fastest growing first --> who has only ever grown is suspect
//! ```
//! A tag that breathes gives back what it took; one that leaks does not. So a suspect is a tag that was never smaller than the look before,
//! and is larger than at the first.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use serde::Serialize;

use super::kind::PoolKind;
use super::owner::{TagOwner, Use};
use super::tag::PoolTag;
use super::used::PoolUsed;
use crate::leaks::StoodStill;
use crate::output::{self, grouped, unix_time, write_columns};

/// Looks from which on a suspect is named.
const FEWEST_LOOKS: usize = 3;
/// Most suspects that are named.
pub const MOST_SUSPECTS: usize = 3;

/// What was seen of the tags of one boot.
#[derive(Debug, Default)]
pub struct PoolGrowth {
    /// When each look was: milliseconds since 1970.
    looks: Vec<u64>,
    tags: BTreeMap<(PoolTag, bool), Seen>,
}

/// What was seen of a tag in one kind of pool.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    first: Held,
    last: Held,
    now: Held,
    /// It was smaller than the look before at some look.
    has_shrunk: bool,
    /// The last look has it.
    is_known: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Held {
    blocks: i64,
    bytes: i64,
}

/// How a tag has grown in one kind of pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct TagGrowth {
    /// Four characters; what is not printable shows as a dot.
    pub tag: PoolTag,
    /// The same as the number that it is.
    #[serde(serialize_with = "output::hex")]
    #[schemars(with = "output::Hex")]
    pub tag_hex: u32,
    /// Nonpaged or paged.
    pub pool: PoolKind,
    /// Blocks that are held.
    pub blocks: i64,
    /// Their bytes.
    pub bytes: i64,
    /// Bytes more than at the look before.
    pub since_last: i64,
    /// Bytes more than at the first look.
    pub since_first: i64,
    /// Blocks more than at the first look.
    pub blocks_since_first: i64,
    /// It has grown, and was never smaller than the look before.
    pub only_grows: bool,
}

impl PoolGrowth {
    /// Takes in a look. Of a tag that has no sum in it nothing is known but what was before.
    pub fn add(&mut self, used: &PoolUsed, unix_ms: u64) {
        let is_first = self.looks.is_empty();
        self.looks.push(unix_ms);
        for seen in self.tags.values_mut() {
            (seen.last, seen.is_known) = (seen.now, false);
        }
        for row in &used.rows {
            for (is_paged, side) in [(false, &row.nonpaged), (true, &row.paged)] {
                let now = Held { blocks: side.outstanding, bytes: side.bytes };
                let fresh = if is_first {
                    Seen { first: now, last: now, ..Seen::default() }
                } else {
                    Seen::default()
                };
                let seen = self.tags.entry((row.tag, is_paged)).or_insert(fresh);
                (seen.now, seen.is_known) = (now, true);
                seen.has_shrunk |= now.bytes < seen.last.bytes;
            }
        }
        for ((tag, _), seen) in &mut self.tags {
            // Who is not in a whole answer is gone.
            if !seen.is_known && !used.unknown.contains(tag) && used.total.is_some() {
                seen.has_shrunk |= seen.now.bytes > 0;
                (seen.now, seen.is_known) = (Held::default(), true);
            }
        }
    }

    /// Looks so far.
    #[must_use]
    pub const fn looks(&self) -> usize {
        self.looks.len()
    }

    /// Every tag that holds something or has changed: the one that has grown most since the first look first, at the first look the one
    /// that holds most.
    #[must_use]
    pub fn rows(&self) -> Vec<TagGrowth> {
        let of = |((tag, is_paged), seen): (&(PoolTag, bool), &Seen)| {
            let since_first = seen.now.bytes.wrapping_sub(seen.first.bytes);
            TagGrowth {
                tag: *tag,
                tag_hex: tag.0,
                pool: if *is_paged { PoolKind::Paged } else { PoolKind::Nonpaged },
                blocks: seen.now.blocks,
                bytes: seen.now.bytes,
                since_last: seen.now.bytes.wrapping_sub(seen.last.bytes),
                since_first,
                blocks_since_first: seen.now.blocks.wrapping_sub(seen.first.blocks),
                only_grows: since_first > 0 && !seen.has_shrunk,
            }
        };
        let mut rows: Vec<TagGrowth> = self.tags.iter().filter(|(_, seen)| seen.is_known).map(of).collect();
        rows.retain(|row| row.bytes != 0 || row.since_first != 0);
        rows.sort_by_key(|row| (std::cmp::Reverse((row.since_first, row.bytes)), row.tag));
        rows
    }

    /// Who leaks, as far as looks can tell: tags that have only grown, the fastest first.
    #[must_use]
    pub fn suspects(&self) -> Vec<TagGrowth> {
        if self.looks() < FEWEST_LOOKS {
            return Vec::new();
        }
        let mut rows = self.rows();
        rows.retain(|row| row.only_grows);
        rows.truncate(MOST_SUSPECTS);
        rows
    }

    /// Milliseconds from the first look to the last.
    #[must_use]
    pub fn elapsed_ms(&self) -> u64 {
        let ends = self.looks.first().zip(self.looks.last());
        ends.map_or(0, |(first, last)| last.saturating_sub(*first))
    }

    /// Writes the tags that have grown most.
    ///
    /// # Errors
    /// The writer's.
    pub fn write_table(&self, top: usize, stood_still: StoodStill, out: &mut dyn Write) -> fmt::Result {
        let time = unix_time((self.looks.last().copied().unwrap_or(0) / 1000).cast_signed());
        let rows = self.rows();
        let sum = |kind: PoolKind| -> i64 {
            rows.iter().filter(|row| row.pool == kind).map(|row| row.bytes).fold(0, i64::wrapping_add)
        };
        writeln!(
            out,
            "{time}  nonpaged {}, paged {} bytes by tag; {stood_still}",
            signed(sum(PoolKind::Nonpaged), false),
            signed(sum(PoolKind::Paged), false)
        )?;
        let mut lines: Vec<[String; 6]> =
            vec![["  tag", "pool", "blocks", "bytes", "since last", "since first"].map(str::to_owned)];
        lines.extend(rows.iter().take(top).map(|row| {
            [
                format!("  {}", row.tag),
                if row.pool == PoolKind::Paged { "paged".to_owned() } else { "nonpaged".to_owned() },
                signed(row.blocks, false),
                signed(row.bytes, false),
                signed(row.since_last, true),
                signed(row.since_first, true),
            ]
        }));
        let lines: Vec<[&str; 6]> = lines.iter().map(|line| line.each_ref().map(String::as_str)).collect();
        write_columns(out, &lines)
    }
}

/// A suspect, and what is known of who allocates it.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Suspect {
    /// How it has grown.
    #[serde(flatten)]
    pub growth: TagGrowth,
    /// Who allocates with the tag, as far as it was found out.
    pub owner: Option<TagOwner>,
    /// The drivers that are likeliest to, the likeliest first: files.
    pub drivers: Vec<String>,
    /// What to type next: `!leaks DRIVER` at the prompt where Driver Verifier tracks the driver, or else on the target, so that
    /// it does.
    pub next: Option<String>,
    /// All loaded images were searched.
    #[serde(skip)]
    is_searched: bool,
}

impl Suspect {
    /// With what is known of its owner; `is_whole` if nothing was left out of the look for it.
    #[must_use]
    pub fn new(growth: TagGrowth, owner: Option<TagOwner>, is_whole: bool) -> Self {
        let is_searched = is_whole && owner.as_ref().is_some_and(|owner| owner.images.is_some());
        let mut drivers: Vec<String> = Vec::new();
        let mut add = |name: &str| {
            let is_driver = name.to_ascii_lowercase().ends_with(".sys");
            if is_driver && !drivers.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                drivers.push(name.to_owned());
            }
        };
        if let Some(owner) = &owner {
            owner.verified.iter().flatten().for_each(|of| add(&of.driver));
            // An image whose code hands the tag to the pool's allocator comes before one that has it as data.
            for allocates in [true, false] {
                let images = owner.images.iter().flatten();
                images
                    .filter(|image| image.uses.iter().any(|of| of.what == Use::ThirdArgument) == allocates)
                    .for_each(|image| add(&image.image));
            }
            owner.binary.iter().for_each(|binary| add(binary));
        }
        let is_tracked = owner.as_ref().is_some_and(|owner| owner.verified.iter().flatten().next().is_some());
        let next = drivers.first().map(|driver| match is_tracked {
            true => format!("!leaks {driver}"),
            false => format!("verifier /flags 8 /driver {driver}"),
        });
        Self { growth, owner, drivers, next, is_searched }
    }

    /// Writes it as a paragraph.
    ///
    /// # Errors
    /// The writer's.
    pub fn write(&self, elapsed_ms: u64, out: &mut dyn Write) -> fmt::Result {
        let TagGrowth { tag, pool, since_first, blocks_since_first, .. } = self.growth;
        let per_hour = i128::from(since_first) * 3_600_000 / i128::from(elapsed_ms.max(1));
        writeln!(
            out,
            "'{tag}' only grows: {} bytes in {} block{} of {}, {} bytes an hour",
            signed(since_first, true),
            signed(blocks_since_first, true),
            if blocks_since_first.unsigned_abs() == 1 { "" } else { "s" },
            pool.to_string().to_lowercase(),
            grouped(u64::try_from(per_hour).unwrap_or(0))
        )?;
        match (&self.drivers[..], &self.next) {
            ([driver, others @ ..], Some(next)) => {
                write!(out, "  {driver} allocates with it")?;
                if !others.is_empty() {
                    write!(out, ", or {}", others.join(", "))?;
                }
                let tracked = self.owner.iter().flat_map(|owner| owner.verified.iter().flatten()).next();
                match tracked {
                    Some(_) => writeln!(
                        out,
                        "; Driver Verifier tracks it: `!verifier 3 {driver}`, `!leaks {driver}`"
                    ),
                    None => {
                        writeln!(out, "; on the target: {next}, restart it, and `!leaks` tells from where")
                    }
                }
            }
            _ if !self.is_searched => writeln!(
                out,
                "  who allocates with it was not found out: not all loaded images were searched; `!pooltag {tag}` does that"
            ),
            _ => writeln!(
                out,
                "  no loaded image has its four bytes; `!poolfind {tag}` shows where its blocks are"
            ),
        }
    }
}

/// A number in groups of three digits, with its sign.
fn signed(number: i64, plus: bool) -> String {
    let digits = grouped(number.unsigned_abs());
    let sign = if number < 0 {
        "-"
    } else if plus && number > 0 {
        "+"
    } else {
        ""
    };
    format!("{sign}{digits}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::pool::used::{Order, PoolSide, TagRow, Total};

    fn used(rows: &[(&str, i64)]) -> PoolUsed {
        let row = |(tag, bytes): &(&str, i64)| {
            let tag = PoolTag::parse(tag).unwrap();
            let nonpaged = PoolSide { outstanding: bytes / 16, bytes: *bytes, ..PoolSide::default() };
            TagRow {
                tag,
                tag_hex: tag.0,
                nonpaged,
                paged: PoolSide::default(),
                description: None,
                binary: None,
            }
        };
        let zero = Total { nonpaged: PoolSide::default(), paged: PoolSide::default() };
        PoolUsed::of_rows(Order::Tag, rows.iter().map(row).collect(), Some(zero))
    }

    #[test]
    fn who_only_grows_is_suspect_and_who_breathes_is_not() {
        let mut growth = PoolGrowth::default();
        for (leak, breath) in [(100, 1000), (200, 4000), (200, 3000), (500, 9000)] {
            growth.add(&used(&[("Leak", leak), ("Irp ", breath), ("Same", 64)]), 1000 * leak as u64);
        }
        let rows = growth.rows();
        let tags: Vec<_> =
            rows.iter().map(|row| (row.tag.to_string(), row.since_last, row.since_first)).collect();
        assert_eq!(
            tags,
            [("Irp ".to_owned(), 6000, 8000), ("Leak".to_owned(), 300, 400), ("Same".to_owned(), 0, 0)]
        );
        let suspects = growth.suspects();
        assert_eq!(suspects.iter().map(|it| it.tag.to_string()).collect::<Vec<_>>(), ["Leak"]);
        let mut text = String::new();
        Suspect::new(suspects[0], None, false).write(growth.elapsed_ms(), &mut text).unwrap();
        assert!(
            text.starts_with(
                "'Leak' only grows: +400 bytes in +25 blocks of nonpaged pool, 3,600 bytes an hour\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn two_looks_name_nobody_and_a_tag_that_is_gone_has_shrunk() {
        let mut growth = PoolGrowth::default();
        growth.add(&used(&[("Leak", 100)]), 0);
        growth.add(&used(&[("Leak", 200), ("News", 50)]), 1);
        assert_eq!(growth.suspects(), []);
        growth.add(&used(&[("News", 60)]), 2);
        let suspects: Vec<_> = growth.suspects().iter().map(|it| it.tag.to_string()).collect();
        assert_eq!(suspects, ["News"]);
    }
}
