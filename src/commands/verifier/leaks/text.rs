//! How `!leaks` prints.

use std::fmt::{self, Write};

use super::super::frames::Frame;
use super::report::{Group, LeakReport, LeakedBlock, Stacks};
use crate::commands::answer::{AnswerFile, Facts};
use crate::commands::context::Context;
use crate::commands::schema::Schema;
use crate::leaks;
use crate::output::{Escaped, binary, counted, grouped, write_columns};
use crate::target::VirtAddr;

impl Facts for LeakReport {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn Write) -> fmt::Result {
        let groups = self.groups.len() as u64 + self.left_out.groups;
        write!(out, "\nOutstanding pool of {}", drivers(self))?;
        if let Some(tag) = &self.tag {
            write!(out, " with tag {}", Escaped(tag))?;
        }
        write!(out, ", by {}: {}", self.by, total(self.blocks, self.bytes))?;
        write!(out, " in {}", counted(groups, "group"))?;
        writeln!(out, "{}", if self.is_cut { ", as far as it was read" } else { "" })?;
        if self.is_tree && !self.groups.is_empty() {
            writeln!(out)?;
            let whole = leaks::Held { blocks: self.blocks, bytes: self.bytes };
            leaks::write_tree(&self.shown(), whole, self.weight, context.columns(), out)?;
        }
        let listed = if self.is_tree { &[][..] } else { &self.groups[..] };
        for (number, group) in (1..).zip(listed) {
            write_group(number, group, context, out)?;
            if let Some(list) = group.list.as_ref().filter(|_| self.is_verbose) {
                write_blocks(list, context, out)?;
            }
        }
        let left_out = self.left_out;
        if left_out.groups > 0 {
            writeln!(
                out,
                "\nNot shown: {} with {}",
                counted(left_out.groups, "group"),
                total(left_out.blocks, left_out.bytes)
            )?;
        }
        Ok(())
    }

    fn files(&self) -> Vec<AnswerFile<'_>> {
        let files = self.files.iter().map(|(kind, path)| AnswerFile {
            path,
            write: Box::new(move |moment| {
                let written = leaks::write_as(*kind, &self.snapshot(moment), self.weight, path);
                written.map_err(|why| why.to_string())
            }),
        });
        files.collect()
    }
}

fn drivers(report: &LeakReport) -> String {
    match &report.drivers[..] {
        [] => "no driver".to_owned(),
        [one] => one.name.clone(),
        [one, other] => format!("{} and {}", one.name, other.name),
        many => format!("{} drivers", many.len()),
    }
}

fn write_group(number: usize, group: &Group, context: &Context, out: &mut dyn Write) -> fmt::Result {
    let share = group.share * 100.0;
    writeln!(out, "\n{number}. {}, {share:.1} %, {}", total(group.blocks, group.bytes), group.driver)?;
    let sizes = match (group.smallest, group.largest) {
        (one, other) if one == other => format!("each {one:#x} bytes"),
        (smallest, largest) => format!("{smallest:#x} to {largest:#x} bytes each"),
    };
    let tags: Vec<_> = group.tags.iter().map(|tag| if tag.is_empty() { "(none)" } else { tag }).collect();
    let tag = if tags.len() == 1 { "tag" } else { "tags" };
    write!(out, "   {sizes}; {tag} {}", tags.join(", "))?;
    if let (Some(newest), Some(oldest)) = (group.newest_age, group.oldest_age) {
        match newest == oldest {
            true => write!(out, "; allocated {newest} log entries ago")?,
            false => write!(out, "; allocated {newest} to {oldest} log entries ago")?,
        }
    }
    writeln!(out)?;
    if let Some(thread) = group.thread {
        writeln!(out, "   thread {}", context.pointer(thread))?;
    }
    let known = describe(&group.stacks, group.blocks, !group.path.is_empty());
    if !known.is_empty() {
        writeln!(out, "   {known}")?;
    }
    if group.path.is_empty() {
        if let Some(caller) = &group.caller {
            writeln!(out, "   caller:")?;
            write_frames(std::slice::from_ref(caller), context, out)?;
        }
    } else {
        if group.allocators > 1 {
            let rest = if group.allocator.is_empty() { "" } else { ", which end alike:" };
            writeln!(out, "   allocator: {} ways through it{rest}", group.allocators)?;
            write_frames(&group.allocator, context, out)?;
        } else if !group.allocator.is_empty() {
            writeln!(out, "   allocator:")?;
            write_frames(&group.allocator, context, out)?;
        }
        writeln!(out, "   call path:")?;
        write_frames(&group.path, context, out)?;
    }
    Ok(())
}

/// What has to be said of how much is known; nothing if every block's stack was read.
fn describe(stacks: &Stacks, blocks: u64, has_path: bool) -> String {
    let Stacks { not_in_log, other_event, unreadable, not_looked_up, .. } = *stacks;
    let known = stacks.known();
    if known == blocks {
        return String::new();
    }
    let mut parts = Vec::new();
    if has_path {
        parts.push(format!("stack of {known} of {} blocks", grouped(blocks)));
    }
    let mut add = |count: u64, what: &str| {
        if count > 0 {
            let whose =
                if count == blocks { "of each block".to_owned() } else { format!("of {}", grouped(count)) };
            parts.push(format!("{whose} {what}"));
        }
    };
    add(not_in_log, "the allocation is no longer in the log");
    add(other_event, "the log's newest entry is another event");
    add(unreadable, "the log's entry may lie where it cannot be read");
    if !has_path {
        add(not_looked_up, "the stack was not looked up");
    }
    parts.join("; ")
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

fn write_blocks(list: &[LeakedBlock], context: &Context, out: &mut dyn Write) -> fmt::Result {
    writeln!(out, "   blocks:")?;
    let pointer = |address: Option<VirtAddr>| {
        address.map_or_else(|| "-".to_owned(), |address| context.pointer(address).to_string())
    };
    let rows: Vec<_> = list
        .iter()
        .map(|block| {
            let age = block.age.map_or_else(|| "-".to_owned(), |age| age.to_string());
            let address = format!("     {}", context.pointer(block.address));
            [address, format!("{:#x}", block.size), block.tag.clone(), age, pointer(block.thread)]
        })
        .collect();
    let mut shown = vec![["     address", "size", "tag", "age", "thread"]];
    shown.extend(rows.iter().map(|row| row.each_ref().map(String::as_str)));
    write_columns(out, &shown)
}

fn total(blocks: u64, bytes: u64) -> String {
    format!("{}, {bytes:#x} bytes ({})", counted(blocks, "block"), binary(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_said() {
        let sampled = Stacks { found: 8, not_looked_up: 12_337, ..Stacks::default() };
        assert_eq!(describe(&sampled, 12_345, true), "stack of 8 of 12,345 blocks");
        let gone = Stacks { not_in_log: 3, ..Stacks::default() };
        assert_eq!(describe(&gone, 3, false), "of each block the allocation is no longer in the log");
        let both = Stacks { found: 1, not_in_log: 2, not_looked_up: 7, ..Stacks::default() };
        assert_eq!(
            describe(&both, 10, true),
            "stack of 1 of 10 blocks; of 2 the allocation is no longer in the log"
        );
        assert_eq!(describe(&Stacks { in_tracker: 4, ..Stacks::default() }, 4, true), "");
    }
}
