//! How `!poolhit` prints.

use std::fmt::{self, Write};

use super::hit::{HitKind, VARIABLE};
use super::report::{HitEnd, HitGroup, HitReport};
use crate::commands::answer::{AnswerFile, Facts};
use crate::commands::context::Context;
use crate::commands::schema::Schema;
use crate::commands::verifier::frames::Frame;
use crate::leaks::{self, Weight};
use crate::output::{counted, grouped};

impl Facts for HitReport {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn Write) -> fmt::Result {
        let uses = self.counted;
        write!(out, "\nUses of pool tag {}: {}", self.tag, counted(uses.hits, "hit"))?;
        if uses.hits > 0 {
            write!(out, " ({}, {}", counted(uses.allocations, "allocation"), counted(uses.frees, "free"))?;
            if uses.uses > 0 {
                write!(out, ", {} not known to be one of them", grouped(uses.uses))?;
            }
            write!(out, ") in {}, by call path", counted(self.groups.len() as u64, "group"))?;
        }
        writeln!(out)?;
        for (number, group) in (1..).zip(&self.groups) {
            write_group(number, group, context, out)?;
        }
        let milliseconds = |us: u64| us as f64 / 1000.0;
        let still = self.stood_still;
        writeln!(
            out,
            "\n{} The machine stood still for {:.1} ms of {:.1} s, in {}, {:.1} ms at the longest.",
            self.end,
            milliseconds(still.total_us),
            self.elapsed_ms as f64 / 1000.0,
            counted(still.stops, "stop"),
            milliseconds(still.longest_us),
        )?;
        if self.is_cleared { writeln!(out, "{VARIABLE} is cleared.") } else { Ok(()) }
    }

    fn files(&self) -> Vec<AnswerFile<'_>> {
        let files = self.files.iter().map(|(kind, path)| AnswerFile {
            path,
            write: Box::new(move |moment| {
                let written = leaks::write_as(*kind, &self.snapshot(moment), Weight::Blocks, path);
                written.map_err(|why| why.to_string())
            }),
        });
        files.collect()
    }
}

impl fmt::Display for HitEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Count => "These are as many as were asked for.",
            Self::Time => "The time is over.",
            Self::Interrupted => "It was ended.",
            Self::Suspended => "verikd was suspended, for which the tag was taken away.",
            Self::Restarted => "The machine restarted: its new boot watches for no tag.",
            Self::OtherStop => "The machine stopped for something else.",
            Self::Quit(why) => return write!(f, "It was ended by {why}."),
            Self::Lost(why) => return write!(f, "The machine was lost: {why}."),
        })
    }
}

fn write_group(number: usize, group: &HitGroup, context: &Context, out: &mut dyn Write) -> fmt::Result {
    let what = match group.kind {
        HitKind::Allocation => "allocation",
        HitKind::Free => "free",
        HitKind::Use => "use",
    };
    let share = group.share * 100.0;
    let driver = group.driver.as_deref().unwrap_or("driver not known");
    writeln!(out, "\n{number}. {}, {share:.1} %, {driver}", counted(group.hits, what))?;
    let sizes = match (group.smallest, group.largest) {
        (Some(one), Some(other)) if one == other => format!("each {one:#x} bytes; "),
        (Some(smallest), Some(largest)) => format!("{smallest:#x} to {largest:#x} bytes each; "),
        _ if group.kind == HitKind::Allocation && group.has_stack => "size not known; ".to_owned(),
        _ => String::new(),
    };
    let of = match group.sized {
        sized if sized > 0 && sized < group.hits => format!("(of {} of them) ", grouped(sized)),
        _ => String::new(),
    };
    let processors: Vec<_> = group.processors.iter().map(u16::to_string).collect();
    let s = if processors.len() == 1 { "" } else { "s" };
    let threads = counted(group.threads, "thread");
    writeln!(out, "   {sizes}{of}{threads}; on processor{s} {}", processors.join(", "))?;
    if group.followed > 0 {
        let (known, freed) = (grouped(group.followed), grouped(group.freed));
        let held = grouped(group.followed - group.freed);
        writeln!(out, "   of {known} whose block is known {freed} freed again, {held} held")?;
    }
    if !group.has_stack {
        return writeln!(out, "   their stacks were not taken");
    }
    if !group.allocator.is_empty() {
        writeln!(out, "   allocator:")?;
        write_frames(&group.allocator, context, out)?;
    }
    if !group.path.is_empty() {
        writeln!(out, "   call path:")?;
        write_frames(&group.path, context, out)?;
    }
    match &group.breaks_off {
        Some(why) => writeln!(out, "   the stack breaks off: {why}"),
        None => Ok(()),
    }
}

fn write_frames(frames: &[Frame], context: &Context, out: &mut dyn Write) -> fmt::Result {
    for Frame { address, symbol } in frames {
        let address = context.pointer(*address);
        match symbol {
            Some(symbol) => writeln!(out, "     {address} {symbol}")?,
            None => writeln!(out, "     {address}")?,
        }
    }
    Ok(())
}
