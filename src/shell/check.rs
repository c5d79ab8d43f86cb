//! Stops the target, counts what drivers hold, lets it run, and holds that against limits: a gate for continuous integration.
//!
//! ```text
//!   stop, !leaks, go --> Gate --> a table or JSON, a JUnit file --> exit code 0 passed, 4 over, 3 not known
//!        ^            |
//!        `------------'  a list was being changed when the machine stopped: once more
//! ```

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::error::ShellError;
use super::format::Format;
use super::own_line::own_line;
use super::progress::ReadProgress;
use super::report::Report;
use super::worst::Worst;
use super::writer::Stream;
use super::{Shell, ShellObserver};
use crate::check::{Gate, Limits, Occasion, Verdict, write_error, write_gate, write_junit};
use crate::commands::verifier::leaks::LeakQuery;
use crate::commands::{Note, NoteCode, NoteKind, QueryError};
use crate::debugger::{AskError, DebugError, Stats};
use crate::leaks::Snapshot;
use crate::memory::ReadCause;
use crate::output::{self, whole_file};
use crate::session::{Quit, Signal};
use crate::source::Resumed;

/// A list that changes under the look is looked at so often.
const MOST_LOOKS: usize = 3;

/// What is checked.
#[derive(Clone, Debug)]
pub struct Check {
    /// What is asked; its drivers are those that the limits are for.
    pub query: LeakQuery,
    /// What each driver may hold.
    pub limits: Limits,
    /// What is held anyway.
    pub baseline: Option<Snapshot>,
    /// Where the result is written for servers.
    pub junit: Option<PathBuf>,
}

impl Check {
    /// Writes that nothing could be checked, and why, where a result is expected.
    pub fn write_error(&self, why: &str, occasion: &Occasion, report: &Report) {
        self.write_file(report, |out| write_error(&self.query.drivers, why, occasion, out));
    }

    fn write_file(&self, report: &Report, fill: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) {
        let Some(path) = &self.junit else { return };
        match whole_file(path, fill) {
            Ok(()) => report.status(&format!("Wrote {}", path.display())),
            Err(error) => {
                report.status(&format!("error: {} was not written: {error}", path.display()));
                report.writer().lacks_file();
            }
        }
    }
}

/// Why there is nothing to judge.
enum NoGate {
    Debug(DebugError),
    Ask(AskError),
}

/// Checks once. The target runs afterwards, or it is said that nobody knows.
///
/// # Errors
/// [`ShellError`] if the target cannot be stopped.
pub fn check(shell: &mut Shell, check: &Check) -> Result<(), ShellError> {
    let start = Instant::now();
    let before = shell.debugger.stats();
    let looked = look(shell, check);
    if let Some(control) = shell.control().filter(|_| shell.watcher.quit().is_some()) {
        control.hurry();
    }
    shell.leave();
    shell.teller.tell();
    let cost = shell.debugger.stats().since(before);
    let occasion = Occasion {
        place: shell.source().place(),
        unix_ms: shell.debugger.stamp().unix_ms,
        took: start.elapsed(),
        frozen: Duration::from_micros(cost.frozen_us),
    };
    if shell.watcher.quit().is_some() || shell.watcher.was_interrupted() {
        shell.ended_by = shell.watcher.quit().or(Some(Quit::Signal(Signal::Interrupt)));
    }
    match looked {
        Ok(gate) => {
            check.write_file(&shell.report, |out| write_junit(&gate, &occasion, out));
            show(shell, &gate, cost);
            Ok(())
        }
        Err(why) => {
            shell.worst = shell.worst.max(why.worst());
            check.write_error(&why.text(), &occasion, &shell.report);
            match why {
                NoGate::Debug(error) => Err(error.into()),
                NoGate::Ask(_) => {
                    shell.report.status(&format!("error: {}", why.text()));
                    Ok(())
                }
            }
        }
    }
}

fn look(shell: &mut Shell, check: &Check) -> Result<Gate, NoGate> {
    for look in 1.. {
        let stopped = {
            let mut observer = ShellObserver { report: &shell.report, teller: &shell.teller };
            shell.debugger.break_in(&mut observer)
        };
        shell.teller.tell();
        let bug_check = stopped.map_err(NoGate::Debug)?.bug_check;
        let asked = shell.debugger.ask_for(&check.query, &ReadProgress::new(&shell.report));
        shell.see_last_stop();
        let resumed = shell.go();
        let answered = asked.map_err(NoGate::Ask)?;
        let mut missing: Vec<String> = answered
            .notes
            .iter()
            .filter(|note| takes_from_count(note, check, answered.facts.is_cut))
            .map(|it| it.text.clone())
            .collect();
        let nobody = answered.notes.iter().filter(|it| it.code == NoteCode::NotFound);
        nobody.for_each(|it| shell.report.status(&format!("note: {}", it.text)));
        if let Some(bug_check) = bug_check {
            let announced = bug_check.announcement(shell.pointer_size());
            shell.report.status(&announced);
            missing.push("the machine has bug-checked: what it would have freed is not known".to_owned());
        }
        let snapshot = answered.facts.snapshot(&answered.moment());
        let gate = Gate::of(&snapshot, &check.query.drivers, check.limits, check.baseline.as_ref(), missing);
        let is_torn = answered.notes.iter().any(is_of_a_moment);
        let may_look_again =
            resumed == Resumed::Running && look < MOST_LOOKS && !shell.watcher.is_interrupted();
        if gate.verdict == Verdict::Unknown && is_torn && may_look_again {
            shell.report.status("The driver was allocating when the machine stopped; looking again");
            continue;
        }
        return Ok(gate);
    }
    unreachable!("the last look is judged, whatever it saw")
}

/// True if a note says that there may be more than was counted.
fn takes_from_count(note: &Note, check: &Check, is_cut: bool) -> bool {
    match note.code {
        _ if note.kind == NoteKind::Remark => false,
        // Behind the last block only stacks and names are read.
        NoteCode::BrokenOff => is_cut || check.baseline.is_some(),
        // Who allocated is in the log, and names tell callers apart: neither changes how much is held.
        NoteCode::NoLog => false,
        NoteCode::NamesMissing => check.baseline.is_some(),
        // Nobody has the tag: that is what was to be shown.
        NoteCode::NotFound => check.query.tag.is_none(),
        _ => true,
    }
}

/// True if it is of the moment at which the machine stopped: another look may not have it.
fn is_of_a_moment(note: &Note) -> bool {
    note.kind == NoteKind::Partial && matches!(note.code, NoteCode::UnderWay | NoteCode::CountsDiffer)
}

fn show(shell: &mut Shell, gate: &Gate, cost: Stats) {
    shell.worst = shell.worst.max(match gate.verdict {
        Verdict::Passed => Worst::Fine,
        Verdict::Unknown => Worst::Partial,
        Verdict::Over => Worst::Over,
    });
    let text = match shell.report.format() {
        Format::Json => own_line(gate),
        Format::Text => {
            let mut text = String::new();
            write_gate(gate, &mut text).expect("a String takes any text");
            output::screened(&text)
        }
    };
    shell.report.writer().text(Stream::Out, text);
    shell.report.cost(cost);
}

impl NoGate {
    fn text(&self) -> String {
        match self {
            Self::Debug(error) => error.to_string(),
            Self::Ask(error) => error.to_string(),
        }
    }

    fn worst(&self) -> Worst {
        match self {
            Self::Debug(DebugError::NotResumed(_)) => Worst::MayBeStopped,
            Self::Debug(_) => Worst::Lost,
            Self::Ask(error) if error.is_usage() => Worst::Usage,
            // The counts are there, and were not read.
            Self::Ask(
                AskError::NotRead(ReadCause::FreezeBudget)
                | AskError::Query(QueryError::Target { .. } | QueryError::NoData { .. }),
            ) => Worst::Partial,
            Self::Ask(AskError::Query(QueryError::Lost(ReadCause::FreezeBudget))) => Worst::Partial,
            Self::Ask(AskError::Query(error)) if !error.is_of_link() => Worst::Failed,
            Self::Ask(_) => Worst::Lost,
        }
    }
}
