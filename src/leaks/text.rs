//! How comparisons and verdicts print.

use std::fmt::{self, Write};

use super::diff::{Comparison, Difference, GroupDiff, compare};
use super::look::StoodStill;
use super::snapshot::{Held, Snapshot};
use super::stack::{cut, text as escaped};
use super::verdict::{Growing, LEAST, Verdict};
use crate::output::{binary, counted, grouped, unix_time, write_columns};

/// Writes what has become of the call paths, at most `top` of those that changed.
///
/// # Errors
/// The writer's.
pub fn write_comparison(compared: &Comparison, top: usize, out: &mut dyn Write) -> fmt::Result {
    let Comparison { old, new, elapsed_ms, .. } = compared;
    let boots = match (compared.is_same_boot, compared.is_boot_known) {
        (true, true) => "in one boot",
        (true, false) => "in one boot if the machine has not restarted, which they do not tell",
        (false, _) => "of different boots, by the names of call paths",
    };
    writeln!(out, "{} to {}, {} between, {boots}", total(*old), total(*new), spoken(*elapsed_ms))?;
    for driver in &compared.drivers_of_one_only {
        writeln!(out, "Only one of them is about {driver}")?;
    }
    let changed: Vec<_> = compared.groups.iter().filter(|group| has_changed(group)).collect();
    for (number, group) in (1..).zip(changed.iter().take(top)) {
        write_group(number, group, out)?;
    }
    let left_out = changed.len().saturating_sub(top);
    if left_out > 0 {
        writeln!(out, "\nNot shown: {left_out} that grew less")?;
    }
    let same = compared.groups.len() - changed.len();
    if same > 0 {
        writeln!(out, "\nWithout a change: {same}")?;
    }
    Ok(())
}

/// Most call paths of a table.
const ROWS: usize = 10;
/// Lines of a table beside those of call paths, and the one that the cursor is in.
const OTHER_LINES: usize = 5;
/// Columns that a driver's name has in a table; what is left is the caller's.
const DRIVER_WIDTH: usize = 20;

/// How large a terminal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Characters of a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
}

/// What every terminal has.
impl Default for Room {
    fn default() -> Self {
        Self { columns: 80, rows: 24 }
    }
}

/// Writes how things stand after the last of `snapshots`: where there is `room` for one, a table of the paths that grew the most,
/// each of whose lines fits; else a line, and one for the path that grew the most.
///
/// # Errors
/// The writer's.
pub fn write_watched(
    snapshots: &[Snapshot],
    stood_still: StoodStill,
    room: Option<Room>,
    out: &mut dyn Write,
) -> fmt::Result {
    let (Some(first), Some(now)) = (snapshots.first(), snapshots.last()) else { return Ok(()) };
    let (held, at_first) = (now.held(), first.held());
    let last = snapshots.len().checked_sub(2).map(|at| snapshots[at].held());
    let time = unix_time((now.unix_ms / 1000).cast_signed());
    let groups = match compare(&[first.clone(), now.clone()]) {
        Ok(compared) => compared.groups,
        Err(error) => return writeln!(out, "{time}  {}\n  {error}", total(held)),
    };
    if let Some(room) = room {
        let mut lines = format!("{time}  {}; {stood_still}\n", total(held));
        if let Some(last) = last {
            let (since_last, since_first) =
                (signed(last.bytes, held.bytes), signed(at_first.bytes, held.bytes));
            writeln!(lines, "  {since_last} bytes since the last look, {since_first} since the first")?;
        }
        write_table(&groups, room, &mut lines)?;
        // A line that the terminal breaks would be two.
        return lines.lines().try_for_each(|line| writeln!(out, "{}", cut(line, room.columns)));
    }
    write!(out, "{time}  {}", total(held))?;
    if let Some(last) = last {
        write!(out, ", {} bytes since the last look", signed(last.bytes, held.bytes))?;
    }
    writeln!(out, "; {stood_still}")?;
    let grown = groups.iter().find(|group| group.new.bytes > group.old.bytes);
    if let Some(group) = grown {
        let grown = signed(group.old.bytes, group.new.bytes);
        writeln!(out, "  {grown} bytes since the first look: {}", caller(group))?;
    }
    Ok(())
}

fn write_table(groups: &[GroupDiff], room: Room, out: &mut dyn Write) -> fmt::Result {
    let shown = groups.len().min(ROWS).min(room.rows.saturating_sub(OTHER_LINES).max(1));
    let mut rows: Vec<[String; 5]> =
        vec![["  bytes", "grown by", "blocks", "driver", "caller"].map(str::to_owned)];
    rows.extend(groups[..shown].iter().map(|group| {
        [
            format!("  {}", grouped(group.new.bytes)),
            signed(group.old.bytes, group.new.bytes),
            grouped(group.new.blocks),
            cut(&escaped(&group.driver), DRIVER_WIDTH),
            caller(group),
        ]
    }));
    let rows: Vec<_> = rows.iter().map(|row| row.each_ref().map(String::as_str)).collect();
    write_columns(out, &rows)?;
    let left_out = groups.len() - shown;
    if left_out > 0 { writeln!(out, "  and {} more", grouped(left_out as u64)) } else { Ok(()) }
}

/// Who holds the memory, on one line.
fn caller(group: &GroupDiff) -> String {
    let caller = group.path.first().map_or_else(|| "several callers".to_owned(), |caller| escaped(caller));
    if group.is_stack_known { caller } else { format!("{caller} (stack not known)") }
}

/// Writes the verdict as a paragraph, and the paths that it names.
///
/// # Errors
/// The writer's.
pub fn write_verdict(verdict: &Verdict, out: &mut dyn Write) -> fmt::Result {
    let Verdict { snapshots, elapsed_ms, leaks, only_grew, breathing, unchanged } = verdict;
    write!(out, "\n{snapshots} snapshots over {}: ", spoken(*elapsed_ms))?;
    if *snapshots < LEAST {
        return writeln!(out, "too few to tell a leak from a breath; {LEAST} are needed.");
    }
    match leaks.len() {
        0 => write!(out, "no call path leaks for sure.")?,
        1 => write!(out, "one call path leaks.")?,
        more => write!(out, "{more} call paths leak.")?,
    }
    if !only_grew.is_empty() {
        write!(
            out,
            " {} only grew, too little or too seldom to be sure: watch for longer.",
            only_grew.len()
        )?;
    }
    writeln!(out, " {} come and go, {unchanged} have not changed.", breathing.len())?;
    let named = leaks.iter().map(|it| (it, "leaks")).chain(only_grew.iter().map(|it| (it, "grew by")));
    for (number, (growing, does)) in (1..).zip(named) {
        let Growing { driver, path, is_stack_known, tags, held, bytes_per_minute, blocks_per_minute } =
            growing;
        let rate = binary(bytes_per_minute.max(0.0) as u64);
        let tags = if tags.is_empty() { "no tag".to_owned() } else { tags.join(", ") };
        writeln!(
            out,
            "\n{number}. {driver} {does} {rate} and {blocks_per_minute:.1} blocks a minute; {tags}; now {}",
            total(*held)
        )?;
        write_path(path, *is_stack_known, out)?;
    }
    Ok(())
}

fn has_changed(group: &GroupDiff) -> bool {
    let moved = |it: Difference| it.appeared != Held::default() || it.went != Held::default();
    group.old != group.new || group.difference.is_some_and(moved)
}

fn write_group(number: usize, group: &GroupDiff, out: &mut dyn Write) -> fmt::Result {
    let (old, new) = (group.old, group.new);
    let [blocks, bytes] = [(old.blocks, new.blocks, "block"), (old.bytes, new.bytes, "byte")]
        .map(|(old, new, what)| format!("{}{}", sign(old, new), counted(new.abs_diff(old), what)));
    write!(out, "\n{number}. {blocks}, {bytes}")?;
    if let (Some(bytes), Some(blocks)) = (group.bytes_per_hour, group.blocks_per_hour) {
        let unit = if bytes < 0.0 { "-" } else { "" };
        write!(out, "; {unit}{} and {blocks:.1} blocks an hour", binary(bytes.abs() as u64))?;
    }
    let tags = group.tags.join(", ");
    writeln!(out, "; {}, {}", group.driver, if tags.is_empty() { "no tag" } else { &tags })?;
    write!(out, "   {}", total(group.old))?;
    for held in &group.history[1..] {
        write!(out, " -> {}", total(*held))?;
    }
    if group.grew_each_time && group.history.len() > 2 {
        write!(out, "; grew each time")?;
    }
    writeln!(out)?;
    if let Some(Difference { appeared, went, stayed, same_address }) = group.difference {
        write!(out, "   {} appeared, {} went, {} stayed", appeared.blocks, went.blocks, stayed.blocks)?;
        match same_address.blocks {
            0 => writeln!(out)?,
            blocks => writeln!(out, ", {blocks} at addresses that had one before, perhaps the same")?,
        }
    }
    write_path(&group.path, group.is_stack_known, out)
}

fn write_path(path: &[String], is_stack_known: bool, out: &mut dyn Write) -> fmt::Result {
    if !is_stack_known {
        writeln!(
            out,
            "   the stack is not known{}",
            if path.is_empty() { "" } else { ", only the caller:" }
        )?;
    } else if path.is_empty() {
        writeln!(out, "   several call paths")?;
    }
    path.iter().try_for_each(|frame| writeln!(out, "     {frame}"))
}

fn total(held: Held) -> String {
    format!("{} ({})", counted(held.blocks, "block"), binary(held.bytes))
}

fn signed(old: u64, new: u64) -> String {
    format!("{}{}", sign(old, new), grouped(new.abs_diff(old)))
}

const fn sign(old: u64, new: u64) -> char {
    if new < old { '-' } else { '+' }
}

/// `1 h 30 min`, `45 s`.
fn spoken(ms: u64) -> String {
    let seconds = ms / 1000;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, _) if ms < 10_000 => format!("{}.{} s", seconds, ms % 1000 / 100),
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_reads_as_a_table_of_what_grew() {
        let held = |blocks| Held { blocks, bytes: blocks * 0x400 };
        let group = GroupDiff {
            driver: "myfault.sys".into(),
            path: vec!["myfault!Control+0x34".into()],
            is_stack_known: true,
            tags: vec!["Leak".into()],
            old: held(10),
            new: held(25),
            history: vec![held(10), held(12), held(25)],
            grew_each_time: true,
            difference: Some(Difference {
                appeared: held(16),
                went: held(1),
                stayed: held(9),
                same_address: held(0),
            }),
            bytes_per_hour: Some(15360.0),
            blocks_per_hour: Some(15.0),
        };
        let same = GroupDiff { old: held(1), new: held(1), difference: None, ..group.clone() };
        let compared = Comparison {
            is_same_boot: true,
            is_boot_known: true,
            elapsed_ms: 3_600_000,
            old: held(11),
            new: held(26),
            drivers_of_one_only: vec!["other.sys".into()],
            groups: vec![group, same],
        };
        let mut text = String::new();
        write_comparison(&compared, 10, &mut text).unwrap();
        assert_eq!(
            text,
            "11 blocks (11.00 KiB) to 26 blocks (26.00 KiB), 1 h 0 min between, in one boot\n\
             Only one of them is about other.sys\n\
             \n\
             1. +15 blocks, +15,360 bytes; 15.00 KiB and 15.0 blocks an hour; myfault.sys, Leak\n\
             \x20  10 blocks (10.00 KiB) -> 12 blocks (12.00 KiB) -> 25 blocks (25.00 KiB); grew each time\n\
             \x20  16 appeared, 1 went, 9 stayed\n\
             \x20    myfault!Control+0x34\n\
             \n\
             Without a change: 1\n"
        );
        assert_eq!([1500, 59_000, 90_000].map(spoken), ["1.5 s", "59 s", "1 min 30 s"]);
    }
}
