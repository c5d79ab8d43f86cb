//! `!verifier`: what Driver Verifier knows: its level and counters, the drivers it verifies, their outstanding pool
//! allocations, and the log of recent allocations and frees.
//!
//! ```text
//!  !verifier                      level and counters
//!  !verifier 1 [DRIVER]           and one row per verified driver
//!  !verifier 3 [DRIVER]           and each driver's counters and outstanding allocations
//!  !verifier 80 [ADDRESS]         the log's entries for the block that ADDRESS lies in, newest first
//!  !verifier 80 [QUANTITY]        the log's newest entries
//! ```
//! An address is any expression: `!verifier 80 poi(nt!PoolHitTag+8)+10`.
//!
//! `DRIVER` is `myfault.sys` or `myfault`, in any case: what bug check 0xC4/0x62 tells a driver's author to type works
//! as it stands.
//!
//! ```text
//! 0: kd> !verifier 3 myfault.sys
//!
//! Verify Level 8 ... enabled options are:
//!     All pool allocations checked on unload
//! ...
//! Entry     State           NonPagedPool   PagedPool   Module
//!
//! fffffa80031b5830 Loaded           009ce000       00000000    myfault.sys
//! ...
//! PoolAddress  SizeInBytes    Tag       CallersAddress
//! fffffa8005400000     0x000fb000     Leak      fffff8800447d634
//! ```
//! Every layout comes from the kernel's symbols; where a build has no such field, its line is left out.

pub mod allocations;
pub mod drivers;
pub mod pool_log;
pub mod requirements;
pub mod settings;
mod text;

use serde::Serialize;

use self::allocations::Allocations;
use self::drivers::{Driver, DriverTree, Suspects};
use self::pool_log::{PoolLog, PoolLogQuery, Wanted};
use self::settings::{LEVEL_POOL_TRACKING, OPTION_ADVANCED_POOL_TRACKING, Settings};
use super::arguments::Arguments;
use super::{Answered, CommandSpec, Needs, Note, Query, QueryError, Run, answer, number};
use crate::target::{Target, TargetError, WalkEnd};

pub(super) static COMMAND: CommandSpec = CommandSpec {
    names: &["!verifier"],
    usage: "!verifier [0|1|3 [DRIVER] | 80 [ADDRESS|QUANTITY]]",
    summary: "show Driver Verifier's settings, verified drivers, their pool allocations, its pool log",
    needs: Needs::Stopped,
    run: Run::Query(run),
};

const NAME: &str = "!verifier";

/// List the drivers.
const FLAG_DRIVERS: u64 = 1;
/// List their allocations too; needs `FLAG_DRIVERS`.
const FLAG_ALLOCATIONS: u64 = 2;
/// Show the pool log; stands alone.
const FLAG_POOL_LOG: u64 = 0x80;

/// Asks for level, counters, drivers and allocations.
#[derive(Clone, Debug, Default)]
pub struct VerifierQuery {
    /// What to show: 0, 1 or 3; other bits are ignored.
    pub flags: u64,
    /// Only this driver, as the user named it.
    pub driver: Option<String>,
}

/// Level, counters and, as far as asked for, drivers and their allocations.
#[derive(Clone, Debug, Serialize)]
pub struct VerifierReport {
    settings: Settings,
    /// Nothing unless asked for.
    drivers: Option<Vec<DriverReport>>,
    /// How the walk through the tree of drivers ended.
    drivers_end: Option<WalkEnd>,
    notes: Vec<Note>,
    #[serde(skip)]
    pointer_size: usize,
}

/// One verified driver.
#[derive(Clone, Debug, Serialize)]
struct DriverReport {
    #[serde(flatten)]
    driver: Driver,
    /// Nothing unless asked for.
    allocations: Option<Allocations>,
}

impl Query for VerifierQuery {
    type Answer = VerifierReport;

    fn run(&self, target: &Target<'_>) -> Result<VerifierReport, QueryError> {
        let settings = Settings::read(target).map_err(failed)?;
        let mut report = VerifierReport {
            pointer_size: settings.pointer_size,
            settings,
            drivers: None,
            drivers_end: None,
            notes: Vec::new(),
        };
        if let Some(missing) = &report.settings.without_symbols {
            let wants_drivers = self.flags & FLAG_DRIVERS != 0;
            let text = format!(
                "Level and counters were read through the debugger data block and a built-in layout, which every known \
                 x64 kernel shares; counters of pool{} need the kernel's symbols: {missing}",
                if wants_drivers { ", drivers and their allocations" } else { "" }
            );
            report.notes.push(if wants_drivers { Note::failed(text) } else { Note::partial(text) });
            return Ok(report);
        }
        if report.settings.level == 0 {
            let note = "Driver Verifier is off (Level 0): no driver is verified and nothing is counted. Turn it on with \
                        verifier.exe on the target and restart it.";
            let wanted = self.driver.is_some() || self.flags & FLAG_DRIVERS != 0;
            report.notes.push(if wanted { Note::failed(note) } else { Note::remark(note) });
        } else if self.flags & FLAG_DRIVERS != 0 {
            self.add_drivers(target, &mut report)?;
        }
        Ok(report)
    }
}

impl VerifierQuery {
    fn add_drivers(&self, target: &Target<'_>, report: &mut VerifierReport) -> Result<(), QueryError> {
        let tree = DriverTree::read(target, &mut report.notes).map_err(failed)?;
        let wanted = |driver: &Driver| self.driver.as_ref().is_none_or(|name| driver.is_called(name));
        let (chosen, others): (Vec<_>, Vec<_>) = tree.drivers.into_iter().partition(wanted);
        if let (true, Some(name)) = (chosen.is_empty(), &self.driver) {
            let suspects = Suspects::read(target);
            report.notes.push(Note::failed(suspects.explain(name, &others)));
        }
        let with_allocations = self.flags & FLAG_ALLOCATIONS != 0;
        if with_allocations && !chosen.is_empty() {
            report.notes.extend(tracking_notes(&report.settings));
        }
        let mut drivers = Vec::new();
        for driver in chosen {
            let allocations = if with_allocations {
                Some(Allocations::read(target, &driver, &mut report.notes).map_err(failed)?)
            } else {
                None
            };
            drivers.push(DriverReport { driver, allocations });
        }
        report.drivers = Some(drivers);
        report.drivers_end = Some(tree.end);
        Ok(())
    }
}

/// Why the lists of allocations may be empty although drivers allocate.
fn tracking_notes(settings: &Settings) -> Vec<Note> {
    let mut notes = Vec::new();
    if settings.level & LEVEL_POOL_TRACKING == 0 {
        notes.push(Note::failed(
            "Pool tracking is off (Level without 0x8), so no allocation is recorded. Turn it on with verifier.exe on \
             the target (/flags 0x8, or the standard settings) and restart it.",
        ));
    }
    if settings.option_flags.is_some_and(|flags| flags & OPTION_ADVANCED_POOL_TRACKING != 0) {
        notes.push(Note::partial(
            "This kernel uses advanced pool tracking (VfOptionFlags has 0x1000): it keeps allocations in the trees \
             nt!ViPoolInfoAvl and nt!ViPoolStackInfoAvl, which this version does not read, and leaves the drivers' own \
             lists empty. !verifier 80 ADDRESS still shows who allocated a block.",
        ));
    }
    notes
}

/// Reads the arguments and runs the query they ask for.
fn run(text: &str, target: &Target<'_>) -> Answered {
    let mut arguments = Arguments::new(&COMMAND, text);
    let Some(first) = arguments.word() else {
        return answer(&VerifierQuery::default(), target);
    };
    let flags =
        number(first).ok_or_else(|| usage(format!("`{first}` is no hexadecimal number for flags")))?;
    match flags {
        FLAG_POOL_LOG => {
            let wanted = if arguments.is_empty() {
                Wanted::Newest(None)
            } else {
                Wanted::Number(arguments.expression(target)?)
            };
            arguments.end()?;
            answer(&PoolLogQuery { wanted }, target)
        }
        0 | FLAG_DRIVERS | FLAG_ALLOCATIONS | 3 => {
            let driver = arguments.word().map(str::to_owned);
            arguments.end()?;
            answer(&VerifierQuery { flags, driver }, target)
        }
        _ => Err(usage(format!("{} not among what this version shows", describe_flags(flags)))),
    }
}

/// Names what other flags of WinDbg's would show.
fn describe_flags(flags: u64) -> String {
    let name = match flags {
        0x4 => "the log of injected faults is",
        0x8 => "the log of IRQL changes is",
        0x20 => "Driver Hang Verification (Windows XP) is",
        0x40 => "the log of forced-pending requests is",
        0x100 => "the log of I/O requests is",
        0x200 => "the log of critical regions is",
        0x400 => "the list of cancelled requests is",
        _ => "these flags are",
    };
    format!("{flags:#x}: {name}")
}

fn usage(problem: String) -> QueryError {
    QueryError::Usage { command: NAME, problem, usage: COMMAND.usage }
}

fn failed(source: TargetError) -> QueryError {
    QueryError::Target { command: NAME, source }
}

impl super::Answer for VerifierReport {
    fn write_text(&self, out: &mut dyn std::fmt::Write) -> std::fmt::Result {
        text::write_report(self, out)
    }

    fn notes(&self) -> &[Note] {
        &self.notes
    }
}

impl super::Answer for PoolLog {
    fn write_text(&self, out: &mut dyn std::fmt::Write) -> std::fmt::Result {
        text::write_pool_log(self, out)
    }

    fn notes(&self) -> &[Note] {
        &self.notes
    }
}
