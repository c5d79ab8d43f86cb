//! Level, counters, verified drivers and their allocations: what `!verifier` shows without a log.

use std::collections::HashMap;

use serde::Serialize;

use super::advanced::Tracked;
use super::allocations::Allocations;
use super::common::{FLAG_ALLOCATIONS, FLAG_DRIVERS, FLAG_POOL_LOG, FLAG_WATCHED, failed};
use super::drivers::{Driver, DriverTree, Suspects};
use super::frames::Names;
use super::pool_log::{PoolLog, PoolLogQuery};
use super::ring::Wanted;
use super::settings::{LEVEL_POOL_TRACKING, OPTION_ADVANCED_POOL_TRACKING, Settings};
use super::stops::{Logged, OneMoment, gather};
use super::traces::{TRACES, TraceLog, TraceQuery};
use super::watched::{WatchedQuery, WatchedRequests};
use crate::commands::answer::Query;
use crate::commands::error::QueryError;
use crate::commands::schema::Schema;
use crate::target::{Note, NoteCode, NoteKind, OfLink, Target, VirtAddr, WalkEnd};

/// Asks for level, counters, drivers and allocations.
#[derive(Clone, Debug, Default)]
pub struct VerifierQuery {
    /// What to show beside level and counters: 1 drivers, with 2 their allocations, and a bit for each log.
    pub flags: u64,
    /// Only this driver, as the user named it.
    pub driver: Option<String>,
}

/// Level, counters and, as far as asked for, drivers and their allocations.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct VerifierReport {
    /// Level, options, counters.
    pub settings: Settings,
    /// Nothing unless asked for.
    pub drivers: Option<Vec<DriverReport>>,
    /// How the walk through the tree of drivers ended; at null where one was found without the others.
    pub drivers_end: Option<WalkEnd>,
    /// Of which moment the allocations are, if they were read over several stops.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moment: Option<OneMoment>,
    /// The allocations that the pool log told of meanwhile.
    #[serde(skip)]
    pub(super) logged: HashMap<VirtAddr, Logged>,
    /// The logs that were asked for along with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<Log>,
}

/// One of the logs.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
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
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct DriverReport {
    /// Who it is and what is counted of it.
    #[serde(flatten)]
    pub driver: Driver,
    /// Nothing unless asked for.
    pub allocations: Option<Allocations>,
}

impl Query for VerifierQuery {
    type Facts = VerifierReport;

    fn run(&self, target: &Target<'_>) -> Result<VerifierReport, QueryError> {
        self.read_of(target, self.driver.as_slice())
    }
}

impl VerifierQuery {
    /// The same of the drivers with these `names`, all at one moment; of all if there are none.
    pub(super) fn read_of(
        &self,
        target: &Target<'_>,
        names: &[String],
    ) -> Result<VerifierReport, QueryError> {
        let settings = Settings::read(target).map_err(failed)?;
        let mut report = VerifierReport {
            settings,
            drivers: None,
            drivers_end: None,
            moment: None,
            logged: HashMap::new(),
            logs: Vec::new(),
        };
        if let Some(missing) = &report.settings.without_symbols {
            let wants_drivers = self.flags & FLAG_DRIVERS != 0;
            let text = format!(
                "Level and counters were read through the debugger data block and a built-in layout, which every known \
                 x64 kernel shares; counters of pool{} need the kernel's symbols: {missing}",
                if wants_drivers { ", drivers and their allocations" } else { "" }
            );
            let kind = if wants_drivers { NoteKind::Failed } else { NoteKind::Partial };
            target.note(Note::new(kind, NoteCode::NoSymbols, text).broken_off_if(missing.is_of_link()));
            return Ok(report);
        }
        if report.settings.level == 0 {
            let note = "Driver Verifier is off (Level 0): no driver is verified and nothing is counted. Turn it on with \
                        verifier.exe on the target and restart it.";
            let wanted = !names.is_empty() || self.flags & FLAG_DRIVERS != 0;
            let kind = if wanted { NoteKind::Failed } else { NoteKind::Remark };
            target.note(Note::new(kind, NoteCode::VerifierOff, note));
            return Ok(report);
        }
        if let Some(why) = &report.settings.option_flags_trouble {
            target.note(Note::partial(NoteCode::Unreadable, format!(
                "nt!VfOptionFlags cannot be read ({why}): whether allocations are kept in drivers' lists or in a tree of \
                 all (advanced pool tracking) is not known, and only the lists are looked at"
            )));
        }
        if self.flags & FLAG_DRIVERS != 0 {
            self.add_drivers(target, names, &mut report)?;
        }
        self.add_logs(target, &mut report);
        Ok(report)
    }

    /// Adds the logs that other flags ask for, as much of each as is usual.
    fn add_logs(&self, target: &Target<'_>, report: &mut VerifierReport) {
        let wanted = Wanted::Newest(None);
        let traces = TRACES.iter().filter(|kind| self.flags & kind.flag != 0);
        let mut add = |log: Result<Log, QueryError>| match log {
            Ok(log) => report.logs.push(log),
            Err(error) => {
                let note = Note::partial(NoteCode::NoLog, error.to_string());
                target.note(note.broken_off_if(error.is_of_link()));
            }
        };
        for kind in traces {
            add(TraceQuery { kind, wanted }.run(target).map(Log::Traces));
        }
        if self.flags & FLAG_POOL_LOG != 0 {
            add(PoolLogQuery { wanted, verbose: false }.run(target).map(Log::Pool));
        }
        if self.flags & FLAG_WATCHED != 0 {
            add(WatchedQuery::default().run(target).map(Log::Watched));
        }
    }

    fn add_drivers(
        &self,
        target: &Target<'_>,
        names: &[String],
        report: &mut VerifierReport,
    ) -> Result<(), QueryError> {
        // Where allocations are kept in one tree of all, every driver is needed to tell whose is which.
        let name = match names {
            [name] if !is_advanced(&report.settings) => Some(&**name),
            _ => None,
        };
        let breaths = target.breaths();
        let tree = DriverTree::read(target, name).map_err(failed)?;
        let is_whole = tree.end.is_complete() && tree.unread == 0;
        let is_named = |driver: &Driver| names.iter().any(|name| driver.is_called(name));
        let wanted = |driver: &Driver| names.is_empty() || is_named(driver);
        let (chosen, others): (Vec<_>, Vec<_>) = tree.drivers.into_iter().partition(wanted);
        for name in names.iter().filter(|name| !chosen.iter().any(|driver| driver.is_called(name))) {
            let suspects = Suspects::read(target);
            let text = suspects.explain(name, &others, is_whole);
            target.note(Note::failed(NoteCode::DriverNotVerified, text));
        }
        let with_allocations = self.flags & FLAG_ALLOCATIONS != 0;
        if with_allocations && !chosen.is_empty() {
            note_tracking(target, &report.settings);
        }
        let mut names = Names::new(target);
        let all: Vec<_> = chosen.iter().chain(&others).collect();
        let mut tracked = self.tracked(target, &all, &mut names, report);
        let mut read = Vec::new();
        if !with_allocations {
            read = chosen.into_iter().map(|driver| (driver, None)).collect();
        } else if target.breathes() && !is_advanced(&report.settings) {
            let gathered = gather(target, chosen, &others, breaths)?;
            read = gathered.drivers.into_iter().map(|(driver, found)| (driver, Some(found))).collect();
            (report.moment, report.logged) = (gathered.moment, gathered.logged);
            if let Some(settings) = gathered.settings {
                report.settings = settings;
            }
        } else {
            for driver in chosen {
                let found = Allocations::read(target, &driver).map_err(failed)?;
                read.push((driver, Some(found)));
            }
        }
        let mut drivers = Vec::new();
        for (driver, found) in read {
            let mut allocations = None;
            if let Some(mut found) = found {
                for block in &mut found.blocks {
                    block.caller_symbol = names.of_driver(block.caller, &driver);
                }
                match &mut tracked {
                    // What is counted is not known to go with the trees.
                    Some(tracked) => found.blocks.append(&mut tracked.take(&driver)),
                    None => found.note_count(target, &driver),
                }
                allocations = Some(found);
            }
            drivers.push(DriverReport { driver, allocations });
        }
        names.tell();
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
        report: &VerifierReport,
    ) -> Option<Tracked> {
        if !is_advanced(&report.settings) || drivers.is_empty() {
            return None;
        }
        if self.flags & FLAG_ALLOCATIONS == 0 {
            target.note(Note::remark(
                NoteCode::AdvancedPoolTracking,
                "This kernel uses advanced pool tracking (VfOptionFlags has 0x1000), so what drivers hold is not in their \
                 counters; !verifier 3 lists it.",
            ));
            return None;
        }
        match Tracked::read(target, drivers, names) {
            Ok(tracked) => {
                target.note(Note::remark(
                    NoteCode::AdvancedPoolTracking,
                    "This kernel uses advanced pool tracking (VfOptionFlags has 0x1000): allocations come from the tree \
                     nt!ViPoolInfoAvl, whose layout is in no public symbols, and belong to the innermost verified driver \
                     on their stack.",
                ));
                Some(tracked)
            }
            Err(error) => {
                let text = format!(
                    "This kernel uses advanced pool tracking (VfOptionFlags has 0x1000), whose tree of allocations cannot \
                     be read: {error}. !verifier 80 ADDRESS still shows who allocated a block."
                );
                let note = Note::failed(NoteCode::AdvancedPoolTracking, text);
                target.note(note.broken_off_if(error.is_of_link()));
                None
            }
        }
    }
}

/// True if the kernel keeps allocations in one tree of all drivers.
fn is_advanced(settings: &Settings) -> bool {
    settings.option_flags.is_some_and(|flags| flags & OPTION_ADVANCED_POOL_TRACKING != 0)
}

/// Notes why the lists of allocations may be empty although drivers allocate.
fn note_tracking(target: &Target<'_>, settings: &Settings) {
    if settings.level & LEVEL_POOL_TRACKING == 0 {
        target.note(Note::failed(
            NoteCode::PoolTrackingOff,
            "Pool tracking is off (Level without 0x8), so no allocation is recorded. Turn it on with verifier.exe on \
             the target (/flags 0x8, or the standard settings) and restart it.",
        ));
    }
}

impl VerifierReport {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("verifier");
}
