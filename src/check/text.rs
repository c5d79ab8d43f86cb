//! How a gate prints.

use std::fmt::{self, Write};

use super::gate::{DriverGate, Gate, Offender, Verdict};
use crate::leaks::Held;
use crate::output::{binary, counted, grouped, write_columns};

/// Call paths that are shown of each driver.
const MOST_PATHS: usize = 20;

/// Writes a line for each driver, and of one that is over a table of its callers and their call paths.
///
/// # Errors
/// The writer's.
pub fn write_gate(gate: &Gate, out: &mut dyn Write) -> fmt::Result {
    for driver in &gate.drivers {
        writeln!(out, "{}", sentence(gate, driver))?;
        write_offenders(driver, out)?;
    }
    if gate.drivers.is_empty() {
        writeln!(out, "No driver was found that is verified")?;
    }
    for missing in &gate.missing {
        writeln!(out, "not known: {missing}")?;
    }
    let verdict = match gate.verdict {
        Verdict::Passed => "passed",
        Verdict::Unknown => "not known: what was not read may be too much",
        Verdict::Over => "failed",
    };
    writeln!(out, "check: {verdict}")
}

/// How one driver came through, on one line.
pub(super) fn sentence(gate: &Gate, driver: &DriverGate) -> String {
    let DriverGate { driver: name, verdict, held, grown, .. } = driver;
    let Some(held) = held else {
        return format!("{name}: not known: it is not among the drivers that are verified");
    };
    let mut text = format!("{name}: ");
    text += match verdict {
        Verdict::Passed => "passed",
        Verdict::Unknown => "not known",
        Verdict::Over => "over",
    };
    text += &format!(": {} outstanding", total(*held));
    if let Some(grown) = grown {
        text += &format!(", {} more than in the baseline", total(*grown));
    }
    if gate.baseline_unix_ms.is_some() && grown.is_none() {
        text += ", of which the baseline has nothing to compare with: this driver is not in it";
    }
    text + &format!("; allowed {}", gate.limits)
}

/// The table of a driver that is over.
pub(super) fn write_offenders(driver: &DriverGate, out: &mut dyn Write) -> fmt::Result {
    if driver.offenders.is_empty() {
        return Ok(());
    }
    let shown = &driver.offenders[..driver.offenders.len().min(MOST_PATHS)];
    let caller = |it: &Offender| it.path.first().cloned().unwrap_or_else(|| "(several callers)".to_owned());
    let mut rows = vec![["  blocks", "bytes", "function grew by", "tags", "caller"].map(str::to_owned)];
    rows.extend(shown.iter().map(|it| {
        [
            format!("  {}", grouped(it.held.blocks)),
            grouped(it.held.bytes),
            it.function_grown.map_or_else(|| "-".to_owned(), |grown| grouped(grown.bytes)),
            it.tags.join(","),
            caller(it),
        ]
    }));
    let rows: Vec<_> = rows.iter().map(|row| row.each_ref().map(String::as_str)).collect();
    write_columns(out, &rows)?;
    for (number, it) in (1..).zip(shown) {
        let known = if it.stacks_known == 0 { ", whose stack is not known" } else { "" };
        writeln!(out, "  {number}. call path of {}{known}:", total(it.held))?;
        for frame in &it.path {
            writeln!(out, "       {frame}")?;
        }
    }
    let left_out = driver.offenders.len() - shown.len();
    if left_out > 0 {
        writeln!(out, "  {left_out} further call paths hold less")?;
    }
    Ok(())
}

fn total(held: Held) -> String {
    format!("{}, {:#x} bytes ({})", counted(held.blocks, "block"), held.bytes, binary(held.bytes))
}
