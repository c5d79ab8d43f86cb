//! `!verifier` as the debuggers of Windows 7's time print it, column for column.
//!
//! Source: verifier.md 3.3, with the transcripts there; indents of option names are tabs.

use std::fmt::{self, Write};

use super::super::allocations::Allocations;
use super::super::options::Section;
use super::super::report::{DriverReport, VerifierReport};
use super::super::settings::{PoolCounters, Settings};
use crate::commands::context::Context;
use crate::output::Reading;
use crate::target::VirtAddr;

pub(super) fn write_report(report: &VerifierReport, context: &Context, out: &mut dyn Write) -> fmt::Result {
    write_settings(&report.settings, out)?;
    let Some(drivers) = &report.drivers else { return Ok(()) };
    writeln!(out, "\nDriver Verification List\n")?;
    writeln!(out, "Entry     State           NonPagedPool   PagedPool   Module")?;
    for driver in drivers {
        write_driver(driver, context, out)?;
    }
    Ok(())
}

fn write_settings(settings: &Settings, out: &mut dyn Write) -> fmt::Result {
    writeln!(out, "\nVerify Level {:x} ... enabled options are:", settings.level)?;
    for option in settings.options.iter().filter(|option| option.enabled && option.flag != 0) {
        match option.section {
            Section::Reserved => writeln!(out, "\t{} ({:#x})", option.old_name, option.flag)?,
            _ => writeln!(out, "\t{}", option.old_name)?,
        }
    }
    if settings.level == 0 {
        return Ok(());
    }
    let statistics = &settings.statistics;
    let counters = [
        ("RaiseIrqls                             ", &statistics.raise_irqls),
        ("AcquireSpinLocks                       ", &statistics.acquire_spin_locks),
        ("Synch Executions                       ", &statistics.synchronize_executions),
        ("Trims                                  ", &statistics.trims),
        ("\nPool Allocations Attempted             ", &statistics.allocations_attempted),
        ("Pool Allocations Succeeded             ", &statistics.allocations_succeeded),
        ("Pool Allocations Succeeded SpecialPool ", &statistics.allocations_succeeded_special_pool),
        ("Pool Allocations With NO TAG           ", &statistics.allocations_with_no_tag),
        ("Pool Allocations Failed                ", &statistics.allocations_failed),
        ("Resource Allocations Failed Deliberately   ", &statistics.allocations_failed_deliberately),
    ];
    writeln!(out, "\nSummary of All Verifier Statistics\n")?;
    for (label, counter) in counters {
        if let Some(counter) = counter {
            writeln!(out, "{label}{}", counter.hex())?;
        }
    }
    let pool = &statistics.pool;
    let mut line = |label: &str, count: &Reading, bytes: &Reading| {
        writeln!(out, "{label:<39}{} for {} bytes", count.hex(), bytes.upper_hex8())
    };
    line("\nCurrent paged pool allocations         ", &pool.current_paged_allocations, &pool.paged_bytes)?;
    line("Peak paged pool allocations", &pool.peak_paged_allocations, &pool.peak_paged_bytes)?;
    line("Current nonpaged pool allocations", &pool.current_nonpaged_allocations, &pool.nonpaged_bytes)?;
    line("Peak nonpaged pool allocations", &pool.peak_nonpaged_allocations, &pool.peak_nonpaged_bytes)
}

fn write_driver(report: &DriverReport, context: &Context, out: &mut dyn Write) -> fmt::Result {
    let DriverReport { driver, allocations } = report;
    let pool = &driver.pool;
    writeln!(
        out,
        "\n{} {:<16} {}       {}    {}",
        context.pointer(driver.entry),
        driver.state(),
        pool.nonpaged_bytes.hex8(),
        pool.paged_bytes.hex8(),
        driver.shown_name()
    )?;
    match allocations {
        Some(allocations) => write_allocations(pool, allocations, context, out),
        None => Ok(()),
    }
}

fn write_allocations(
    pool: &PoolCounters,
    allocations: &Allocations,
    context: &Context,
    out: &mut dyn Write,
) -> fmt::Result {
    let rows = [
        ("\nCurrent Pool Allocations  ", &pool.current_nonpaged_allocations, &pool.current_paged_allocations),
        ("Current Pool Bytes        ", &pool.nonpaged_bytes, &pool.paged_bytes),
        ("Peak Pool Allocations     ", &pool.peak_nonpaged_allocations, &pool.peak_paged_allocations),
        ("Peak Pool Bytes           ", &pool.peak_nonpaged_bytes, &pool.peak_paged_bytes),
    ];
    for (label, nonpaged, paged) in rows {
        writeln!(out, "{label}{}    {}", nonpaged.hex8(), paged.hex8())?;
    }
    writeln!(out, "\nPoolAddress  SizeInBytes    Tag       CallersAddress")?;
    for block in &allocations.blocks {
        let pointer = |address: VirtAddr| context.pointer(address);
        let (address, caller) = (pointer(block.address), pointer(block.caller));
        writeln!(out, "{address}     0x{:08x}     {:<4}      {caller}", block.size, block.tag)?;
    }
    Ok(())
}
