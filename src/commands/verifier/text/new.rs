//! `!verifier` as WinDbg prints it since Windows 8.1, column for column.
//!
//! Two dialects: that of Windows 8.1's own debugger calls a driver `MODULE:`, names callers without displacement and
//! prints bytes in upper case.
//!
//! Source: verifier.md 3.4, verifier-samples.md S5 to S9. Failures that were deliberate are printed only if they are
//! turned on: no sample has their line.

use std::fmt::{self, Write};

use super::super::allocations::Allocations;
use super::super::format::Dialect;
use super::super::options::{Section, VerifierOption};
use super::super::report::{DriverReport, VerifierReport};
use super::super::settings::Settings;
use crate::commands::context::Context;
use crate::output::Reading;
use crate::target::VirtAddr;

/// Failing allocations at random.
const LEVEL_LOW_RESOURCES: u32 = 4;

pub(super) fn write_report(
    report: &VerifierReport,
    dialect: Dialect,
    context: &Context,
    out: &mut dyn Write,
) -> fmt::Result {
    let settings = &report.settings;
    write_options(settings, out)?;
    if settings.level == 0 {
        return Ok(());
    }
    write_statistics(settings, out)?;
    let Some(drivers) = &report.drivers else { return Ok(()) };
    writeln!(out, "\nDriver Verification List\n------------------------")?;
    for driver in drivers {
        write_driver(driver, dialect, context, out)?;
    }
    Ok(())
}

fn write_options(settings: &Settings, out: &mut dyn Write) -> fmt::Result {
    writeln!(out, "\nVerify Flags Level 0x{:08x}", settings.level)?;
    for (section, title) in [
        (Section::Standard, "STANDARD FLAGS:"),
        (Section::Additional, "ADDITIONAL FLAGS:"),
        (Section::Reserved, "RESERVED FLAGS (use of these flags is unsupported):"),
    ] {
        let of_section = |option: &&VerifierOption| option.section == section;
        let mut options = settings.options.iter().filter(of_section).peekable();
        if options.peek().is_some() {
            writeln!(out, "\n  {title}")?;
        }
        for VerifierOption { flag, name, enabled, .. } in options {
            writeln!(out, "    [{}] (0x{flag:08x}) {name}", if *enabled { 'X' } else { ' ' })?;
        }
    }
    writeln!(out, "\n    [X] Indicates flag is enabled\n")
}

fn write_statistics(settings: &Settings, out: &mut dyn Write) -> fmt::Result {
    let statistics = &settings.statistics;
    let deliberate = statistics
        .allocations_failed_deliberately
        .as_ref()
        .filter(|_| settings.level & LEVEL_LOW_RESOURCES != 0);
    writeln!(out, "\nSummary of All Verifier Statistics\n")?;
    for (label, counter) in [
        ("RaiseIrqls           ", statistics.raise_irqls.as_ref()),
        ("AcquireSpinLocks     ", statistics.acquire_spin_locks.as_ref()),
        ("Synch Executions     ", statistics.synchronize_executions.as_ref()),
        ("Trims                ", statistics.trims.as_ref()),
    ] {
        write_counter(label, counter, out)?;
    }
    writeln!(out)?;
    for (label, counter) in [
        ("Pool Allocations Attempted             ", statistics.allocations_attempted.as_ref()),
        ("Pool Allocations Succeeded             ", statistics.allocations_succeeded.as_ref()),
        ("Pool Allocations Succeeded SpecialPool ", statistics.allocations_succeeded_special_pool.as_ref()),
        ("Pool Allocations With NO TAG           ", statistics.allocations_with_no_tag.as_ref()),
        ("Pool Allocations Failed                ", statistics.allocations_failed.as_ref()),
        ("Resource Allocations Failed Deliberately   ", deliberate),
    ] {
        write_counter(label, counter, out)?;
    }
    writeln!(out)?;
    let pool = &statistics.pool;
    let mut line = |label: &str, count: &Reading, bytes: &Reading| {
        writeln!(out, "  {label:<39}{} for {} bytes", count.hex(), bytes.upper_hex8())
    };
    line("Current paged pool allocations", &pool.current_paged_allocations, &pool.paged_bytes)?;
    line("Peak paged pool allocations", &pool.peak_paged_allocations, &pool.peak_paged_bytes)?;
    line("Current nonpaged pool allocations", &pool.current_nonpaged_allocations, &pool.nonpaged_bytes)?;
    line("Peak nonpaged pool allocations", &pool.peak_nonpaged_allocations, &pool.peak_nonpaged_bytes)
}

fn write_counter(label: &str, counter: Option<&Reading>, out: &mut dyn Write) -> fmt::Result {
    match counter {
        Some(counter) => writeln!(out, "  {label}{}", counter.hex()),
        None => Ok(()),
    }
}

fn write_driver(
    report: &DriverReport,
    dialect: Dialect,
    context: &Context,
    out: &mut dyn Write,
) -> fmt::Result {
    let DriverReport { driver, allocations } = report;
    let (entry, name, state) = (context.pointer(driver.entry), driver.shown_name(), driver.state());
    let bytes = |reading: &Reading| match dialect {
        Dialect::Early => reading.upper_hex8(),
        _ => reading.hex8(),
    };
    match dialect {
        Dialect::Early => writeln!(out, "\n\n  MODULE: 0x{entry} {name} ({state})\n")?,
        _ => writeln!(out, "\nnt!_VF_TARGET_DRIVER 0x{entry}: {name} ({state})\n")?,
    }
    let pool = &driver.pool;
    writeln!(out, "    Pool Allocation Statistics: ( NonPagedPool / PagedPool )\n")?;
    for (label, nonpaged, paged) in [
        ("Current Pool Allocations: ", &pool.current_nonpaged_allocations, &pool.current_paged_allocations),
        ("Current Pool Bytes:       ", &pool.nonpaged_bytes, &pool.paged_bytes),
        ("Peak Pool Allocations:    ", &pool.peak_nonpaged_allocations, &pool.peak_paged_allocations),
        ("Peak Pool Bytes:          ", &pool.peak_nonpaged_bytes, &pool.peak_paged_bytes),
    ] {
        writeln!(out, "      {label}( 0x{} / 0x{} )", bytes(nonpaged), bytes(paged))?;
    }
    for (label, counter) in [
        ("Contiguous Memory Bytes:       ", &driver.contiguous_memory_bytes),
        ("Peak Contiguous Memory Bytes:  ", &driver.peak_contiguous_memory_bytes),
    ] {
        if let Some(counter) = counter {
            writeln!(out, "      {label}0x{}", bytes(counter))?;
        }
    }
    match allocations {
        Some(allocations) => write_allocations(allocations, dialect, context, out),
        None => Ok(()),
    }
}

fn write_allocations(
    allocations: &Allocations,
    dialect: Dialect,
    context: &Context,
    out: &mut dyn Write,
) -> fmt::Result {
    let pointer = |address: VirtAddr| context.pointer(address);
    let width = 2 + 2 * context.pointer_size;
    let caller = if context.pointer_size == 8 { "Caller Address" } else { "Caller" };
    writeln!(out, "\n    Pool Allocations:\n")?;
    writeln!(out, "      {:<width$}  Length      Tag   {caller:<width$}", "Address")?;
    writeln!(out, "      {:-<width$}  ----------  ----  {:-<width$}", "", "")?;
    for block in &allocations.blocks {
        let (address, caller) = (pointer(block.address), pointer(block.caller));
        write!(out, "      0x{address}  0x{:08x}  {:<4}  0x{caller}", block.size, block.tag)?;
        match &block.caller_symbol {
            Some(symbol) if dialect == Dialect::Early => writeln!(out, "  {}", symbol.start())?,
            Some(symbol) => writeln!(out, "  {symbol}")?,
            None => writeln!(out)?,
        }
    }
    if dialect == Dialect::New {
        writeln!(out, "\n    Contiguous allocations are not displayed with public symbols.")?;
    }
    Ok(())
}
