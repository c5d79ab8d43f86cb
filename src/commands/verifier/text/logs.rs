//! How the logs print.
//!
//! Source: verifier.md 4.4, with the transcripts there. Blocks of the pool log stand under a rule in the format of Windows
//! 8.1's time; its length is a guess. No sample shows the log by its newest entries.

use std::fmt::{self, Write};

use super::super::format::Dialect;
use super::super::frames::Frame;
use super::super::pool_log::PoolLog;
use super::super::traces::{FAULTS, TraceLog};
use super::super::watched::WatchedRequests;
use crate::commands::answer::Facts;
use crate::commands::context::Context;
use crate::commands::schema::Schema;
use crate::target::VirtAddr;

const RULE: &str = "======================================================================";

impl Facts for PoolLog {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn Write) -> fmt::Result {
        write_pool_log(self, context, out)
    }
}

impl Facts for TraceLog {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn Write) -> fmt::Result {
        write_traces(self, context, out)
    }
}

impl Facts for WatchedRequests {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn Write) -> fmt::Result {
        write_watched(self, context, out)
    }
}

pub(super) fn write_pool_log(log: &PoolLog, context: &Context, out: &mut dyn Write) -> fmt::Result {
    let dialect = Dialect::of(context.style.verifier, log.era);
    let pointer = |address: u64| context.pointer(VirtAddr(address));
    writeln!(out, "\nLog of recent kernel pool Allocate and Free operations:\n")?;
    writeln!(out, "There are up to {:#x} entries in the log.\n", log.length)?;
    match (log.address, log.quantity) {
        (Some(address), _) => {
            let (length, address) = (pointer(log.length), pointer(address.0));
            writeln!(out, "Parsing 0x{length} log entries, searching for address 0x{address}.")?;
        }
        (None, quantity) => {
            writeln!(
                out,
                "Displaying most recent 0x{} entries from the log.",
                pointer(quantity.unwrap_or(0))
            )?;
        }
    }
    for entry in &log.entries {
        let (address, size, thread) =
            (pointer(entry.address.0), pointer(entry.size), pointer(entry.thread.0));
        if dialect != Dialect::Old {
            writeln!(out, "\n{RULE}")?;
        }
        write!(out, "\nPool block {address}, Size {size}, Thread {thread}")?;
        if log.verbose {
            write!(out, ", {}", entry.kind.word())?;
            if entry.torn.is_some() {
                write!(out, ", may be torn")?;
            }
        }
        writeln!(out)?;
        write_stack(&entry.stack, "", &pointer, out)?;
    }
    if log.address.is_some() {
        writeln!(out, "Parsed entry {}/{}...", pointer(log.parsed), pointer(log.length))?;
        writeln!(out, "Finished parsing all pool tracking information.")?;
    }
    Ok(())
}

pub(super) fn write_traces(log: &TraceLog, context: &Context, out: &mut dyn Write) -> fmt::Result {
    let pointer = |address: u64| context.pointer(VirtAddr(address));
    write_title(log.kind.title, out)?;
    if log.kind.flag == FAULTS {
        return write_faults(log, context, out);
    }
    match (log.address, log.quantity) {
        (Some(address), _) => {
            let (length, address) = (pointer(log.length), pointer(address.0));
            writeln!(out, "Parsing 0x{length} log entries, searching for address 0x{address}.")?;
        }
        (None, quantity) => {
            let (quantity, called) = (pointer(quantity.unwrap_or(0)), log.kind.called);
            writeln!(out, "Displaying most recent 0x{quantity} entries from the {called}.")?;
        }
    }
    writeln!(out, "There are up to {:#x} entries in the log.", log.length)?;
    for record in &log.records {
        writeln!(out)?;
        for (label, value) in record.fields.labelled() {
            writeln!(out, "{label:<20}{}", pointer(value))?;
        }
        writeln!(out)?;
        write_stack(&record.stack, "    ", &pointer, out)?;
    }
    Ok(())
}

/// As the debuggers of Vista's time print it, in capitals and with every number in hexadecimal.
fn write_faults(log: &TraceLog, context: &Context, out: &mut dyn Write) -> fmt::Result {
    let width = 2 * context.pointer_size;
    if log.index == 0 && log.records.is_empty() {
        return writeln!(out, "Driver Verifier didn't inject any faults.");
    }
    let TraceLog { start, length, depth, index, .. } = log;
    let used = u64::from(*index).min(*length);
    writeln!(out, "Resource fault injection history:")?;
    writeln!(
        out,
        "Tracker @ {:0width$X} (# entries: {used:X}, size: {length:X}, depth: {depth:X})",
        start.0
    )?;
    for record in &log.records {
        writeln!(out, "\nEntry @ {:0width$X} (index {:X})\n", record.record.0, record.slot)?;
        for (label, value) in record.fields.labelled() {
            writeln!(out, "    {label} {value:0width$X}")?;
        }
        writeln!(out)?;
        let pointer = |address: u64| format!("{address:0width$X}");
        write_stack(&record.stack, "    ", &pointer, out)?;
    }
    Ok(())
}

pub(super) fn write_watched(
    watched: &WatchedRequests,
    context: &Context,
    out: &mut dyn Write,
) -> fmt::Result {
    write_title("Watched cancelled irps", out)?;
    if watched.requests.is_empty() {
        return writeln!(out, "Driver Verifier watches no cancelled request.");
    }
    for request in &watched.requests {
        writeln!(out, "{:<20}{}", "Irp:", context.pointer(request.irp))?;
        writeln!(out, "{:<20}{}", "Due tick count:", request.due_tick_count.hex())?;
        writeln!(out, "{:<20}{}", "Stack location:", request.tracked_stack_location.hex())?;
        writeln!(out, "{:<20}{}\n", "Timeout in ticks:", request.cancel_timeout_ticks.hex())?;
    }
    Ok(())
}

/// A log's name between two rules, with the spaces that WinDbg has behind each.
fn write_title(title: &str, out: &mut dyn Write) -> fmt::Result {
    writeln!(out, "\n{:-<47} \n{title:<48}\n{:-<47} \n", "", "")
}

fn write_stack<P: fmt::Display>(
    stack: &[Frame],
    indent: &str,
    pointer: &dyn Fn(u64) -> P,
    out: &mut dyn Write,
) -> fmt::Result {
    for frame in stack {
        let address = pointer(frame.address.0);
        match &frame.symbol {
            Some(symbol) => writeln!(out, "{indent}{address} {symbol}")?,
            None => writeln!(out, "{indent}{address}")?,
        }
    }
    Ok(())
}
