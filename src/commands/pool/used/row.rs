//! Rows of `!poolused`: what a tag holds in each kind of pool, as signed numbers whatever width the kernel counts in.

use serde::{Deserialize, Serialize};

use crate::commands::pool::tag::PoolTag;
use crate::commands::pool::tag_file::TagText;
use crate::commands::pool::trackers::{Counts, Side};
use crate::output;

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
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

pub(super) fn row(
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

impl TagRow {
    /// Less what was before. In one boot counters go on, and wrap at their width.
    pub(super) fn less(mut self, [nonpaged, paged]: [PoolSide; 2], widths: Option<(u32, u32)>) -> Self {
        let (counter, bytes) = widths.unwrap_or((64, 64));
        let moved = |now: i64, then: i64, bits: u32| now.wrapping_sub(then) << (64 - bits) >> (64 - bits);
        let less = |now: PoolSide, then: PoolSide| PoolSide {
            allocs: moved(now.allocs, then.allocs, counter),
            frees: moved(now.frees, then.frees, counter),
            outstanding: moved(now.outstanding, then.outstanding, counter),
            bytes: moved(now.bytes, then.bytes, bytes),
        };
        (self.nonpaged, self.paged) = (less(self.nonpaged, nonpaged), less(self.paged, paged));
        self
    }
}

pub(super) fn sides(now: &Counts, then: Option<&Counts>, widths: (u32, u32)) -> Total {
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

pub(super) fn total(rows: &[TagRow]) -> Total {
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
