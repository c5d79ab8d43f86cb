//! How comparisons and verdicts print.

use std::fmt::{self, Write};
use std::time::Duration;

use super::diff::{Comparison, Difference, GroupDiff, compare};
use super::snapshot::{Held, Snapshot};
use super::verdict::{Growing, LEAST, Verdict};
use crate::output::{binary, grouped, unix_time, write_columns};

/// Writes what has become of the call paths, at most `top` of those that changed.
///
/// # Errors
/// The writer's.
pub fn write_comparison(compared: &Comparison, top: usize, out: &mut dyn Write) -> fmt::Result {
    let Comparison { old, new, elapsed_ms, is_same_boot, .. } = compared;
    let boots = if *is_same_boot { "in one boot" } else { "of different boots, by the names of call paths" };
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

/// Call paths that a table has room for.
const ROWS: usize = 10;

/// Writes how things stand after the last of `snapshots`: a table of the paths that grew the most, or one line.
///
/// # Errors
/// The writer's.
pub fn write_watched(
    snapshots: &[Snapshot],
    frozen: Duration,
    as_table: bool,
    out: &mut dyn Write,
) -> fmt::Result {
    let [.., now] = snapshots else { return Ok(()) };
    let (held, first) = (now.held(), snapshots[0].held());
    let last = snapshots.len().checked_sub(2).map(|at| snapshots[at].held());
    let time = unix_time((now.unix_ms / 1000).cast_signed());
    write!(out, "{time}  {}", total(held))?;
    if let Some(last) = last {
        write!(out, ", {} bytes since the last look", signed(last.bytes, held.bytes))?;
    }
    writeln!(out, "; stood still for {frozen:.1?}")?;
    if !as_table && last.is_none() {
        return Ok(());
    }
    let compared = match compare(&[snapshots[0].clone(), now.clone()]) {
        Ok(compared) => compared,
        Err(error) => return writeln!(out, "  {error}"),
    };
    let grown = compared.groups.iter().filter(|group| group.new.bytes > group.old.bytes);
    let caller = |group: &GroupDiff| group.path.first().cloned().unwrap_or_default();
    if as_table {
        writeln!(out, "  since the first look {} bytes", signed(first.bytes, held.bytes))?;
        let mut rows: Vec<[String; 5]> =
            vec![["  bytes", "grown by", "blocks", "driver", "caller"].map(str::to_owned)];
        rows.extend(compared.groups.iter().take(ROWS).map(|group| {
            [
                format!("  {}", grouped(group.new.bytes)),
                signed(group.old.bytes, group.new.bytes),
                grouped(group.new.blocks),
                group.driver.clone(),
                caller(group),
            ]
        }));
        let rows: Vec<_> = rows.iter().map(|row| row.each_ref().map(String::as_str)).collect();
        return write_columns(out, &rows);
    }
    for group in grown.take(1) {
        writeln!(
            out,
            "  {} bytes since the first look: {}",
            signed(group.old.bytes, group.new.bytes),
            caller(group)
        )?;
    }
    Ok(())
}

/// Writes the verdict as a paragraph, and the paths that it names.
///
/// # Errors
/// The writer's.
pub fn write_verdict(verdict: &Verdict, out: &mut dyn Write) -> fmt::Result {
    let Verdict { snapshots, elapsed_ms, leaks, breathing, unchanged } = verdict;
    write!(out, "\n{snapshots} snapshots over {}: ", spoken(*elapsed_ms))?;
    if *snapshots < LEAST {
        return writeln!(out, "too few to tell a leak from a breath; {LEAST} are needed.");
    }
    match leaks.len() {
        0 => write!(out, "no call path grows in every interval.")?,
        1 => write!(out, "one call path leaks.")?,
        more => write!(out, "{more} call paths leak.")?,
    }
    writeln!(out, " {} come and go, {unchanged} have not changed.", breathing.len())?;
    for (number, Growing { driver, path, tags, held, bytes_per_minute, blocks_per_minute }) in
        (1..).zip(leaks)
    {
        let rate = binary(bytes_per_minute.max(0.0) as u64);
        let tags = if tags.is_empty() { "no tag".to_owned() } else { tags.join(", ") };
        writeln!(
            out,
            "\n{number}. {driver} leaks {rate} and {blocks_per_minute:.1} blocks a minute; {tags}; now {}",
            total(*held)
        )?;
        for frame in path {
            writeln!(out, "     {frame}")?;
        }
    }
    Ok(())
}

fn has_changed(group: &GroupDiff) -> bool {
    let moved = |it: Difference| it.appeared != Held::default() || it.went != Held::default();
    group.old != group.new || group.difference.is_some_and(moved)
}

fn write_group(number: usize, group: &GroupDiff, out: &mut dyn Write) -> fmt::Result {
    let (blocks, bytes) =
        (signed(group.old.blocks, group.new.blocks), signed(group.old.bytes, group.new.bytes));
    write!(out, "\n{number}. {blocks} blocks, {bytes} bytes")?;
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
    for frame in &group.path {
        writeln!(out, "     {frame}")?;
    }
    Ok(())
}

fn total(held: Held) -> String {
    let s = if held.blocks == 1 { "" } else { "s" };
    format!("{} block{s} ({})", grouped(held.blocks), binary(held.bytes))
}

fn signed(old: u64, new: u64) -> String {
    let sign = if new < old { '-' } else { '+' };
    format!("{sign}{}", grouped(new.abs_diff(old)))
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
