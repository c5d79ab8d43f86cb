//! How the logs print.
//!
//! Source: verifier.md 4.4, with the transcripts there. Blocks of the pool log stand under a rule in the format of Windows
//! 8.1's time; its length is a guess. No sample shows the log by its newest entries.

use std::fmt::{self, Write};

use super::super::format::Dialect;
use super::super::pool_log::PoolLog;
use crate::output::Pointer;
use crate::target::VirtAddr;

const RULE: &str = "======================================================================";

pub(in super::super) fn write_pool_log(log: &PoolLog, dialect: Dialect, out: &mut dyn Write) -> fmt::Result {
    let pointer = |address: u64| Pointer { address: VirtAddr(address), pointer_size: log.pointer_size };
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
        writeln!(out, "\nPool block {address}, Size {size}, Thread {thread}")?;
        for frame in &entry.stack {
            match &frame.symbol {
                Some(symbol) => writeln!(out, "{} {symbol}", pointer(frame.address.0))?,
                None => writeln!(out, "{}", pointer(frame.address.0))?,
            }
        }
    }
    if log.address.is_some() {
        writeln!(out, "Parsed entry {}/{}...", pointer(log.parsed), pointer(log.length))?;
        writeln!(out, "Finished parsing all pool tracking information.")?;
    }
    Ok(())
}
