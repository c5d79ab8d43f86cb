//! Which frames hold what a range of addresses needs: its pages, and the tables that lead to them.

use kd_protocol::VirtAddr;

use super::error::ReadCause;
use super::physical::PhysicalMemory;
use super::translate::{Leads, Paging, Translator};

const PAGE: u64 = 0x1000;
/// Runs that are kept before neighbours are merged.
const MERGED_AT: usize = 0x1_0000;

/// Frames of physical memory, by number.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    /// First, count.
    runs: Vec<(u64, u64)>,
    merges_at: usize,
}

impl Frames {
    /// Adds `count` frames from `first` on.
    pub fn add(&mut self, first: u64, count: u64) {
        self.runs.push((first, count));
        if self.runs.len() > self.merges_at.max(MERGED_AT) {
            self.merge();
            self.merges_at = 2 * self.runs.len();
        }
    }

    /// Each once, in order: first, count.
    #[must_use]
    pub fn into_runs(mut self) -> Vec<(u64, u64)> {
        self.merge();
        self.runs
    }

    fn merge(&mut self) {
        self.runs.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (first, count) in self.runs.drain(..) {
            match merged.last_mut() {
                Some((last, len)) if first <= *last + *len => *len = (*len).max(first + count - *last),
                _ => merged.push((first, count)),
            }
        }
        self.runs = merged;
    }
}

impl Translator {
    /// Adds the frames that the addresses from `first` to `last` need: pages in memory, and every table on the way to them.
    /// What is not in memory adds the tables only.
    ///
    /// # Errors
    /// What ended the reading of tables, if something did.
    pub fn add_frames(
        &self,
        physical: &dyn PhysicalMemory,
        (first, last): (VirtAddr, VirtAddr),
        frames: &mut Frames,
    ) -> Result<(), ReadCause> {
        let paging = self.page_tables().paging;
        Gathering {
            translator: self,
            physical,
            paging,
            first: first.0,
            last: last.0,
            frames,
            above: Vec::new(),
        }
        .add_table(self.root(), 0, 0)
    }
}

/// A walk through tables.
struct Gathering<'a> {
    translator: &'a Translator,
    physical: &'a dyn PhysicalMemory,
    paging: Paging,
    first: u64,
    last: u64,
    frames: &'a mut Frames,
    /// The tables above the present one.
    above: Vec<u64>,
}

impl Gathering<'_> {
    /// `base`: the first address that a table covers, but for the upper bits.
    fn add_table(&mut self, table: u64, level: usize, base: u64) -> Result<(), ReadCause> {
        self.frames.add(table / PAGE, 1);
        self.above.push(table);
        let shifts = self.paging.shifts();
        let (shift, is_last) = (shifts[level], level + 1 == shifts.len());
        for index in 0..self.paging.entries(shift) {
            let bits = base | index << shift;
            let at = self.paging.canonical(bits);
            let end = at.saturating_add((1 << shift) - 1);
            if end < self.first || self.last < at {
                continue;
            }
            match self.translator.look(self.physical, (table, index), shift, is_last, true) {
                // Of a large page what was asked for.
                Ok(Leads::ToPage { at: page, .. }) => {
                    let (from, to) = ((self.first.max(at) - at) / PAGE, (self.last.min(end) - at) / PAGE);
                    self.frames.add(page / PAGE + from, to - from + 1);
                }
                // One that leads back, as the kernel's own way to its tables does, leads nowhere new.
                Ok(Leads::ToTable(next)) if self.above.contains(&next) => {}
                Ok(Leads::ToTable(next)) => self.add_table(next, level + 1, bits)?,
                Err(cause) if cause.is_of_link() => return Err(cause),
                Err(_) => {}
            }
        }
        self.above.pop();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_each_told_once_and_in_order() {
        let mut frames = Frames::default();
        for (first, count) in [(5, 1), (1, 2), (3, 1), (5, 3), (6, 1), (0x100, 1)] {
            frames.add(first, count);
        }
        assert_eq!(frames.into_runs(), [(1, 3), (5, 3), (0x100, 1)]);
    }
}
