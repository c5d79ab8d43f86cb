//! Level, counters, verified drivers and their allocations: what `!verifier` shows without a log.

use std::fmt;

use serde::Serialize;

use super::advanced::Tracked;
use super::allocations::Allocations;
use super::drivers::{Driver, DriverTree, Suspects};
use super::frames::Names;
use super::pool_log::{PoolLog, PoolLogQuery};
use super::ring::Wanted;
use super::settings::{LEVEL_POOL_TRACKING, OPTION_ADVANCED_POOL_TRACKING, Settings};
use super::traces::{TRACES, TraceLog, TraceQuery};
use super::watched::{WatchedQuery, WatchedRequests};
use super::{FLAG_ALLOCATIONS, FLAG_DRIVERS, FLAG_POOL_LOG, FLAG_WATCHED, failed, text};
use crate::commands::answer::{Answer, Note, Query, Style};
use crate::commands::error::QueryError;
use crate::target::{Target, WalkEnd};

/// Asks for level, counters, drivers and allocations.
#[derive(Clone, Debug, Default)]
pub struct VerifierQuery {
    /// What to show beside level and counters: 1 drivers, with 2 their allocations, and a bit for each log.
    pub flags: u64,
    /// Only this driver, as the user named it.
    pub driver: Option<String>,
}

/// Level, counters and, as far as asked for, drivers and their allocations.
#[derive(Clone, Debug, Serialize)]
pub struct VerifierReport {
    /// Level, options, counters.
    pub settings: Settings,
    /// Nothing unless asked for.
    pub drivers: Option<Vec<DriverReport>>,
    /// How the walk through the tree of drivers ended.
    pub drivers_end: Option<WalkEnd>,
    /// The logs that were asked for along with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<Log>,
    /// What is missing.
    pub notes: Vec<Note>,
    /// Bytes of a pointer.
    #[serde(skip)]
    pub pointer_size: usize,
}

/// One of the logs.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Log {
    /// Pool allocations and frees.
    Pool(PoolLog),
    /// Faults, IRQLs, requests, critical regions.
    Traces(TraceLog),
    /// Cancelled requests.
    Watched(WatchedRequests),
}

/// One verified driver.
#[derive(Clone, Debug, Serialize)]
pub struct DriverReport {
    /// Who it is and what is counted of it.
    #[serde(flatten)]
    pub driver: Driver,
    /// Nothing unless asked for.
    pub allocations: Option<Allocations>,
}

impl Query for VerifierQuery {
    type Answer = VerifierReport;

    fn run(&self, target: &Target<'_>) -> Result<VerifierReport, QueryError> {
        self.read(target)
    }
}

impl VerifierQuery {
    fn read(&self, target: &Target<'_>) -> Result<VerifierReport, QueryError> {
        let settings = Settings::read(target).map_err(failed)?;
        let mut report = VerifierReport {
            pointer_size: settings.pointer_size,
            settings,
            drivers: None,
            drivers_end: None,
            logs: Vec::new(),
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
            return Ok(report);
        }
        if let Some(why) = &report.settings.option_flags_trouble {
            report.notes.push(Note::partial(format!(
                "nt!VfOptionFlags cannot be read ({why}): whether allocations are kept in drivers' lists or in a tree of \
                 all (advanced pool tracking) is not known, and only the lists are looked at"
            )));
        }
        if self.flags & FLAG_DRIVERS != 0 {
            self.add_drivers(target, &mut report)?;
        }
        self.add_logs(target, &mut report);
        Ok(report)
    }

    /// Adds the logs that other flags ask for, as much of each as is usual.
    fn add_logs(&self, target: &Target<'_>, report: &mut VerifierReport) {
        let wanted = Wanted::Newest(None);
        let traces = TRACES.iter().filter(|kind| self.flags & kind.flag != 0);
        let mut logs: Vec<_> =
            traces.map(|kind| TraceQuery { kind, wanted }.run(target).map(Log::Traces)).collect();
        if self.flags & FLAG_POOL_LOG != 0 {
            logs.push(PoolLogQuery { wanted, verbose: false }.run(target).map(Log::Pool));
        }
        if self.flags & FLAG_WATCHED != 0 {
            logs.push(WatchedQuery::default().run(target).map(Log::Watched));
        }
        for log in logs {
            match log {
                Ok(mut log) => {
                    report.notes.append(match &mut log {
                        Log::Pool(log) => &mut log.notes,
                        Log::Traces(log) => &mut log.notes,
                        Log::Watched(log) => &mut log.notes,
                    });
                    report.logs.push(log);
                }
                Err(error) => report.notes.push(Note::partial(error.to_string())),
            }
        }
    }

    fn add_drivers(&self, target: &Target<'_>, report: &mut VerifierReport) -> Result<(), QueryError> {
        let tree = DriverTree::read(target, &mut report.notes).map_err(failed)?;
        let is_whole = tree.end.is_complete() && tree.unread == 0;
        let wanted = |driver: &Driver| self.driver.as_ref().is_none_or(|name| driver.is_called(name));
        let (chosen, others): (Vec<_>, Vec<_>) = tree.drivers.into_iter().partition(wanted);
        if let (true, Some(name)) = (chosen.is_empty(), &self.driver) {
            let suspects = Suspects::read(target);
            report.notes.push(Note::failed(suspects.explain(name, &others, is_whole)));
        }
        let with_allocations = self.flags & FLAG_ALLOCATIONS != 0;
        if with_allocations && !chosen.is_empty() {
            report.notes.extend(tracking_notes(&report.settings));
        }
        let mut names = Names::new(target);
        let all: Vec<_> = chosen.iter().chain(&others).collect();
        let mut tracked = self.tracked(target, &all, &mut names, report);
        let mut drivers = Vec::new();
        for driver in chosen {
            let mut allocations = None;
            if with_allocations {
                let mut found = Allocations::read(target, &driver, &mut report.notes).map_err(failed)?;
                for block in &mut found.blocks {
                    block.caller_symbol = names.of_driver(block.caller, &driver);
                }
                match &mut tracked {
                    // What is counted is not known to go with the trees.
                    Some(tracked) => found.blocks.append(&mut tracked.take(&driver)),
                    None => found.note_count(&driver, &mut report.notes),
                }
                allocations = Some(found);
            }
            drivers.push(DriverReport { driver, allocations });
        }
        report.notes.extend(names.notes());
        report.drivers = Some(drivers);
        report.drivers_end = Some(tree.end);
        Ok(())
    }
}

impl VerifierQuery {
    /// The trees that hold the allocations of a kernel with advanced pool tracking.
    fn tracked(
        &self,
        target: &Target<'_>,
        drivers: &[&Driver],
        names: &mut Names<'_>,
        report: &mut VerifierReport,
    ) -> Option<Tracked> {
        let is_advanced =
            report.settings.option_flags.is_some_and(|flags| flags & OPTION_ADVANCED_POOL_TRACKING != 0);
        if !is_advanced || drivers.is_empty() {
            return None;
        }
        if self.flags & FLAG_ALLOCATIONS == 0 {
            report.notes.push(Note::remark(
                "This kernel uses advanced pool tracking (VfOptionFlags has 0x1000), so what drivers hold is not in their \
                 counters; !verifier 3 lists it.",
            ));
            return None;
        }
        match Tracked::read(target, drivers, names, &mut report.notes) {
            Ok(tracked) => {
                report.notes.push(Note::remark(
                    "This kernel uses advanced pool tracking (VfOptionFlags has 0x1000): allocations come from the tree \
                     nt!ViPoolInfoAvl, whose layout is in no public symbols, and belong to the innermost verified driver \
                     on their stack.",
                ));
                Some(tracked)
            }
            Err(error) => {
                report.notes.push(Note::failed(format!(
                    "This kernel uses advanced pool tracking (VfOptionFlags has 0x1000), whose tree of allocations cannot \
                     be read: {error}. !verifier 80 ADDRESS still shows who allocated a block."
                )));
                None
            }
        }
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
    notes
}

impl Answer for VerifierReport {
    fn write_text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        self.write_styled(&Style::default(), out)
    }

    fn write_styled(&self, style: &Style, out: &mut dyn fmt::Write) -> fmt::Result {
        text::write_report(self, style.verifier.dialect(self.settings.era), out)
    }

    fn notes(&self) -> &[Note] {
        &self.notes
    }
}
