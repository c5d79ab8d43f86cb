//! `!vm 1` as WinDbg prints it.

use std::fmt::{self, Write};

use super::report::VirtualMemory;
use crate::commands::answer::Facts;
use crate::commands::context::Context;
use crate::commands::schema::Schema;

/// Kilobytes of a page.
const KB: u64 = 4;

impl Facts for VirtualMemory {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, _: &Context, out: &mut dyn Write) -> fmt::Result {
        for file in &self.paging_files {
            match &file.name {
                Some(name) => writeln!(out, "Page File: {name}")?,
                None => writeln!(out, "No Name for Paging File")?,
            }
            let kb = |pages: u64| pages.saturating_mul(KB);
            writeln!(out, "  Current: {:>9} Kb  Free Space: {:>9} Kb", kb(file.size), kb(file.free))?;
            writeln!(out, "  Minimum: {:>9} Kb  Maximum:    {:>9} Kb", kb(file.minimum), kb(file.maximum))?;
        }
        if !self.paging_files.is_empty() {
            writeln!(out)?;
        }
        line(out, "Physical Memory:", self.physical)?;
        line(out, "Available Pages:", self.available)?;
        line(out, "ResAvail Pages:", self.resident_available)?;
        line(out, "Modified Pages:", self.modified)?;
        line(out, "NonPagedPool Usage:", self.nonpaged_pool)?;
        line(out, "NonPagedPool Max:", self.nonpaged_pool_maximum)?;
        excessive(out, "NonPaged", self.nonpaged_pool, self.nonpaged_pool_maximum)?;
        line(out, "PagedPool Usage:", self.paged_pool)?;
        line(out, "PagedPool Maximum:", self.paged_pool_maximum)?;
        excessive(out, "Paged", self.paged_pool, self.paged_pool_maximum)?;
        line(out, "Shared Commit:", self.shared_commit)?;
        line(out, "PagedPool Commit:", self.paged_pool_commit)?;
        line(out, "Committed pages:", self.committed)?;
        line(out, "Commit limit:", self.commit_limit)
    }
}

/// Pages end at column 33, kilobytes at 46; what is longer pushes the rest to the right.
fn line(out: &mut dyn Write, label: &str, pages: Option<u64>) -> fmt::Result {
    let Some(pages) = pages else { return Ok(()) };
    let width = 33 - label.len();
    writeln!(out, "{label}{pages:>width$} ({:>11} Kb)", pages.saturating_mul(KB))
}

/// WinDbg's warning above four fifths of the maximum.
fn excessive(out: &mut dyn Write, pool: &str, used: Option<u64>, maximum: Option<u64>) -> fmt::Result {
    match (used, maximum) {
        (Some(used), Some(maximum)) if maximum > 0 && used > maximum / 5 * 4 => {
            writeln!(out, "********** Excessive {pool} Pool Usage *****")
        }
        _ => Ok(()),
    }
}
