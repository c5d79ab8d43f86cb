//! Carries out what a plan says of one target: waits, breaks in, asks, writes files, lets run.
//!
//! ```text
//!  wait --- an interval is over, a line fits, a driver came or went --> break in --.
//!   ^  `--- the machine stopped by itself: bug check, assertion ------------------+--> ask --> go, reboot, leave stopped
//!   '------------------------------------------------------------------------------'            `--> files
//! ```
//! Files are written when the machine runs again. Whatever ends the plan for a target, the machine is let run, unless the plan
//! says that it is to be left stopped.

mod heard;
mod record;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kd_protocol::kd::{NtStatus, StateDetail};
use schemars::JsonSchema;
use serde::Serialize;

use self::heard::{Heard, Occurrence};
pub use self::record::Event;
use self::record::{Asked, Record, base};
use super::own_line::OwnLine;
use super::worst::Worst;
use super::{Shell, ShellObserver};
use crate::commands::NoteKind;
use crate::debugger::{AskError, DebugError, Stop};
use crate::plan::{Happening, Plan, Planned, PlannedTarget, Then, decoded};
use crate::session::{Quit, Signal};
use crate::source::{BootId, BreakInError, Resumed, Wait};

/// How often it is looked whether there is news while the target runs.
const LOOK: Duration = Duration::from_millis(250);
/// Status of a failed assertion: `STATUS_ASSERTION_FAILURE`.
const ASSERTION_FAILURE: NtStatus = NtStatus(0xc000_0420);

/// How a plan went for a target.
#[derive(Clone, Debug)]
pub struct TargetRun {
    /// What the plan calls it.
    pub name: String,
    /// Where it was.
    pub place: String,
    /// How the worst of it went.
    pub worst: Worst,
    /// Who ended it before its time.
    pub ended_by: Option<Quit>,
    /// Events that were written.
    pub events: u64,
    /// How long it stood still.
    pub frozen: Duration,
    /// Why the plan ended for it.
    pub why: String,
}

/// How a plan went, as JSON.
#[derive(Serialize, JsonSchema)]
pub struct RunSummary<'a> {
    /// What the program ends with: that of the target that came off worst.
    pub exit_code: u8,
    /// How long the plan took, in microseconds.
    pub took_us: u64,
    /// How long all targets stood still together.
    pub frozen_us: u64,
    /// Each target.
    pub targets: Vec<TargetSummary<'a>>,
}

/// How a plan went for a target, as JSON.
#[derive(Serialize, JsonSchema)]
pub struct TargetSummary<'a> {
    /// What the plan calls it.
    pub target: &'a str,
    /// Where it was.
    pub place: &'a str,
    /// What the program would end with if it were alone.
    pub exit_code: u8,
    /// Events that were written.
    pub events: u64,
    /// How long it stood still, in microseconds.
    pub frozen_us: u64,
    /// Why the plan ended for it.
    pub why: &'a str,
}

impl OwnLine for RunSummary<'_> {
    const NAME: &'static str = "run";
}

/// Why the plan ends for a target.
enum Ended {
    /// As planned.
    Done(&'static str),
    /// By somebody.
    Told(Quit),
    /// The target is not there any more, or does not obey.
    Lost(String),
    /// A bound was reached, and something was not done.
    Partial(&'static str),
    /// It is left stopped, as planned.
    LeftStopped,
    /// Nobody knows whether it runs.
    MayBeStopped(String),
}

/// Carries out the plan for a target that has connected.
#[must_use]
pub fn run(shell: &mut Shell, plan: &Plan, target: &PlannedTarget) -> TargetRun {
    let heard = Arc::new(Heard::new(&target.on));
    let (listening, watcher) = (Arc::clone(&heard), shell.watcher.clone());
    shell.teller.listen(Box::new(move |news| {
        listening.hear(news);
        watcher.wake();
    }));
    let start = Instant::now();
    let mut running = Running {
        folder: plan.out.join(&target.name),
        due: target
            .on
            .iter()
            .map(|it| matches!(it.happening, Happening::Every(_)).then_some(start))
            .collect(),
        start,
        events: 0,
        bug_checked: None,
        shell,
        plan,
        target,
        heard,
    };
    let ended = running.carry_on();
    let (events, heard) = (running.events, running.heard);
    let left_out = heard.left_out();
    if left_out > 0 {
        shell
            .report
            .status(&format!("{left_out} further happenings came faster than they could be looked at"));
        shell.worst = shell.worst.max(Worst::Partial);
    }
    let is_left_stopped = matches!(ended, Ended::LeftStopped);
    let (worst, why, ended_by) = match ended {
        Ended::Done(why) => (Worst::Fine, why.to_owned(), None),
        Ended::Partial(why) => (Worst::Partial, why.to_owned(), None),
        Ended::LeftStopped => (Worst::Fine, "the machine is left stopped, as planned".to_owned(), None),
        Ended::Lost(why) => (Worst::Lost, why, None),
        Ended::MayBeStopped(why) => (Worst::MayBeStopped, why, None),
        Ended::Told(quit) => (Worst::Fine, format!("{quit} ended it"), Some(quit)),
    };
    let place = shell.source().place();
    if is_left_stopped {
        if let Some(control) = shell.control() {
            control.leave_stopped();
        }
        shell.report.status(&format!("The machine at {place} is left stopped, as the plan says"));
    } else {
        if let Some(control) = shell.control().filter(|_| ended_by.is_some()) {
            control.hurry();
        }
        shell.leave();
    }
    shell.teller.tell();
    let frozen = Duration::from_micros(shell.debugger.stats().frozen_us);
    TargetRun {
        name: target.name.clone(),
        place,
        worst: shell.worst.max(worst),
        ended_by,
        events,
        frozen,
        why,
    }
}

struct Running<'a> {
    shell: &'a mut Shell,
    plan: &'a Plan,
    target: &'a PlannedTarget,
    heard: Arc<Heard>,
    folder: PathBuf,
    start: Instant,
    /// When each interval is over; nothing for what is no interval.
    due: Vec<Option<Instant>>,
    events: u64,
    /// The boot whose bug check was written: it stops again when it is let go.
    bug_checked: Option<BootId>,
}

/// An event, and whether the machine stands still for it already.
enum Next {
    Heard(Occurrence),
    Stopped(Occurrence, Box<Stop>),
}

impl Running<'_> {
    fn carry_on(&mut self) -> Ended {
        if let Err(error) = std::fs::create_dir_all(&self.folder) {
            self.shell.worst = Worst::Failed;
            let text = format!("error: {} cannot be made: {error}", self.folder.display());
            self.shell.report.status(&text);
            return Ended::Done("there is no folder for its files");
        }
        // Symbols are fetched before something happens, while the machine runs.
        if self.due.iter().all(Option::is_none) {
            match self.break_in() {
                // What it stopped for is told, and written, as what it is.
                Ok(stop) if stop.bug_check.is_some() => {}
                Ok(_) => {
                    if let Err(ended) = self.go() {
                        return ended;
                    }
                }
                Err(ended) => return ended,
            }
        }
        loop {
            if self.plan.count == Some(self.events) {
                return Ended::Done("all its events have happened");
            }
            let ended = match self.next() {
                Ok(Next::Heard(occurrence)) => self.break_in_for(occurrence),
                Ok(Next::Stopped(occurrence, stop)) => self.event(occurrence, Some(&stop)),
                Err(ended) => return ended,
            };
            if let Err(ended) = ended {
                return ended;
            }
        }
    }

    /// Waits until something happens.
    fn next(&mut self) -> Result<Next, Ended> {
        let mut standing = self.shell.watcher.standing();
        loop {
            self.shell.teller.tell();
            self.shell.watcher.wait_out_suspension();
            self.is_told()?;
            if self.shell.source().stopped().is_some()
                && let Some(next) = self.stopped_by_itself()?
            {
                return Ok(next);
            }
            let now = Instant::now();
            let end = self.plan.length.map(|length| self.start + length);
            if end.is_some_and(|end| end <= now) {
                return Err(Ended::Done("its time is over"));
            }
            match self.heard.away() {
                // Nobody can be stopped that is not there.
                Some(away) if away > self.plan.connect_timeout => {
                    return Err(Ended::Lost(
                        "the machine restarted and has not come back in time".to_owned(),
                    ));
                }
                Some(_) => {}
                None => {
                    if let Some(occurrence) = self.heard.next() {
                        return Ok(Next::Heard(occurrence));
                    }
                    let is_due = |due: &Option<Instant>| due.is_some_and(|due| due <= now);
                    if let Some(planned) = self.due.iter().position(is_due) {
                        return Ok(Next::Heard(Occurrence { planned, detail: String::new() }));
                    }
                }
            }
            let until = self.due.iter().flatten().copied().chain(end).fold(now + LOOK, Instant::min);
            match self.shell.watcher.changed(standing, Some(until.max(now))) {
                Wait::Done(changed) => standing = changed,
                Wait::TimedOut => {}
                Wait::Interrupted => self.is_told()?,
                Wait::Ended(why) => return Err(Ended::Lost(format!("the session has ended: {why}"))),
            }
        }
    }

    fn is_told(&self) -> Result<(), Ended> {
        let interrupted = self.shell.watcher.was_interrupted();
        let interrupt = interrupted.then_some(Quit::Signal(Signal::Interrupt));
        self.shell.watcher.quit().or(interrupt).map_or(Ok(()), |quit| Err(Ended::Told(quit)))
    }

    /// What a stop that the machine made by itself is in the plan; nothing if it is not in it, and was let go.
    fn stopped_by_itself(&mut self) -> Result<Option<Next>, Ended> {
        let shell = &mut *self.shell;
        let mut observer = ShellObserver { report: &shell.report, teller: &shell.teller };
        let stop = match shell.debugger.present_stop(false, &mut observer) {
            Ok(Some(stop)) => stop,
            Ok(None) => return Ok(None),
            Err(error) => return Err(self.lost(error)),
        };
        shell.teller.tell();
        let was_asked = self.heard.take_question();
        let boot = shell.source().boot();
        let is_again = stop.bug_check.is_some() && self.bug_checked == Some(boot);
        let code = match &stop.change.detail {
            StateDetail::Exception(exception) => Some(exception.exception_code),
            _ => None,
        };
        let kind = match code {
            _ if stop.bug_check.is_some() => Happening::BugCheck,
            Some(ASSERTION_FAILURE) => Happening::Assertion,
            _ if was_asked => Happening::Assertion,
            _ => Happening::Stop,
        };
        if !is_again {
            shell.report.stop(&stop, shell.teller.take_fatal_text());
        }
        let is_kind = |it: &Planned| it.happening.name() == kind.name();
        match self.target.on.iter().position(is_kind).filter(|_| !is_again) {
            Some(planned) => {
                let detail = match &stop.bug_check {
                    Some(it) => decoded(it.code, it.parameters, stop.driver_at_fault.as_deref()),
                    None => format!("stopped at {}", stop.symbol),
                };
                if stop.bug_check.is_some() {
                    self.bug_checked = Some(boot);
                    self.shell.report.status(&detail);
                }
                Ok(Some(Next::Stopped(Occurrence { planned, detail }, Box::new(stop))))
            }
            None => {
                if !is_again {
                    self.shell.report.status("The plan says nothing of such a stop: the machine is let run");
                }
                self.go().map(|()| None)
            }
        }
    }

    fn break_in_for(&mut self, occurrence: Occurrence) -> Result<(), Ended> {
        let spent = Duration::from_micros(self.shell.debugger.stats().frozen_us);
        let left = self.plan.total_freeze_budget.map(|total| total.saturating_sub(spent));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(Ended::Partial("the freeze budget of all stops is spent"));
        }
        let budget = self.plan.freeze_budget.into_iter().chain(left).min();
        self.shell.watcher.set_freeze_budget(budget);
        let stop = self.break_in()?;
        // It may have bug-checked in the moment between: that is told, and written, as what it is.
        if stop.bug_check.is_some() && self.bug_checked != Some(self.shell.source().boot()) {
            return Ok(());
        }
        self.event(occurrence, None)
    }

    fn break_in(&mut self) -> Result<Stop, Ended> {
        let broken_in = {
            let mut observer = ShellObserver { report: &self.shell.report, teller: &self.shell.teller };
            self.shell.debugger.break_in(&mut observer)
        };
        self.shell.teller.tell();
        broken_in.map_err(|error| self.lost(error))
    }

    fn lost(&self, error: DebugError) -> Ended {
        match error {
            DebugError::BreakIn(BreakInError::Interrupted) => {
                Ended::Told(self.shell.watcher.quit().unwrap_or(Quit::Signal(Signal::Interrupt)))
            }
            DebugError::NotResumed(why) => Ended::MayBeStopped(why),
            other => Ended::Lost(other.to_string()),
        }
    }

    /// Asks the stopped machine, does with it what is planned, and writes what was found.
    fn event(&mut self, occurrence: Occurrence, stop: Option<&Stop>) -> Result<(), Ended> {
        let planned = &self.target.on[occurrence.planned];
        let before = self.shell.debugger.stats();
        let (number, happening) = (self.events + 1, planned.happening.name());
        let unix_ms = self.shell.debugger.stamp().unix_ms;
        let base = base(&self.folder, unix_ms, number, happening);
        let mut asked = Vec::new();
        for command in self.commands(planned, stop, &base.display().to_string()) {
            asked.push(self.ask(command));
        }
        let ended = match planned.then {
            Then::Run => self.go(),
            Then::Reboot => self.reboot(),
            Then::Stop => Err(Ended::LeftStopped),
        };
        let cost = self.shell.debugger.stats().since(before);
        let frozen = Duration::from_micros(cost.frozen_us);
        for it in &asked {
            let worst = match &it.answer {
                Ok(answered) => answered.worst().map_or(Worst::Fine, |kind| match kind {
                    NoteKind::Remark => Worst::Fine,
                    NoteKind::Partial => Worst::Partial,
                    NoteKind::Failed => Worst::Failed,
                }),
                Err(AskError::Query(error)) if error.is_of_link() => Worst::Partial,
                Err(AskError::NotRead(_)) => Worst::Partial,
                Err(_) => Worst::Failed,
            };
            self.shell.worst = self.shell.worst.max(worst);
        }
        let detail = occurrence.detail;
        let record =
            Record { target: self.target.name.clone(), number, happening, detail, unix_ms, asked, frozen };
        for trouble in record.write(&base, self.shell.style) {
            self.shell.worst = self.shell.worst.max(Worst::Failed);
            self.shell.report.status(&trouble);
        }
        self.events = number;
        let folder = base.display();
        self.shell
            .report
            .status(&format!("Event {number}, {happening}: {folder}.json; stood still for {frozen:.1?}"));
        if let Happening::Every(every) = planned.happening
            && let Some(due) = &mut self.due[occurrence.planned]
        {
            // The machine runs for as long as it stood still at the least, whatever the interval.
            *due = (*due + every).max(Instant::now() + frozen.max(every / 2));
        }
        ended
    }

    /// What is asked at an event: what the plan says, and of a bug check what every bug check is asked.
    fn commands(&self, planned: &Planned, stop: Option<&Stop>, base: &str) -> Vec<String> {
        let mut commands = Vec::new();
        if let Some(stop) = stop.filter(|stop| stop.bug_check.is_some()) {
            commands.push(".bugcheck".to_owned());
            if let Some(driver) = &stop.driver_at_fault {
                commands.push(format!("!verifier 3 \"{driver}\""));
            }
        }
        commands.extend(planned.commands.iter().map(|command| command.replace("{event}", base)));
        commands.extend(planned.dump.map(|dump| format!(".dump {} {base}.dmp", dump.option())));
        commands
    }

    fn ask(&mut self, command: String) -> Asked {
        let before = self.shell.debugger.stats();
        let answer = match self.shell.lost() {
            Some(lost) => Err(AskError::NotRun(lost)),
            None if self.shell.watcher.is_budget_spent() => {
                Err(AskError::NotRun("the freeze budget is spent".to_owned()))
            }
            None => self.shell.carry_out(&command, before).map(|(answered, _)| answered),
        };
        self.shell.teller.tell();
        let stats = self.shell.debugger.stats().since(before);
        Asked { command, answer, stamp: self.shell.debugger.stamp(), stats }
    }

    fn go(&mut self) -> Result<(), Ended> {
        match self.shell.go() {
            Resumed::Running | Resumed::NeverRuns => Ok(()),
            Resumed::MayBeStopped(why) => Err(Ended::MayBeStopped(why)),
        }
    }

    fn reboot(&mut self) -> Result<(), Ended> {
        let told = self.shell.control().map(|control| control.reboot());
        match told {
            Some(Ok(())) => {
                self.heard.restarts();
                self.shell.report.status("The machine was told to restart");
                Ok(())
            }
            Some(Err(error)) => {
                self.shell.worst = self.shell.worst.max(Worst::Failed);
                self.shell.report.status(&format!("error: the machine was not told to restart: {error}"));
                self.go()
            }
            None => Ok(()),
        }
    }
}
