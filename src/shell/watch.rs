//! Looks at what drivers hold again and again, for as short a time as it takes, and lets the target run in between.
//!
//! ```text
//!   stop, !leaks, go --> a line, or a table in place --> wait --> stop, !leaks, go --> ...   --> the verdict
//! ```
//! The end is Ctrl+C, the time that was asked for, or the machine: one that stops by itself is told and let run.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::json;

use super::error::ShellError;
use super::format::Format;
use super::worst::Worst;
use super::writer::Stream;
use super::{Shell, ShellObserver};
use crate::commands::NoteCode;
use crate::commands::verifier::leaks::LeakQuery;
use crate::debugger::Stats;
use crate::leaks::{Snapshot, carry, judge, write_verdict, write_watched};
use crate::output;
use crate::session::{Quit, Signal};
use crate::source::{Resumed, Wait};
use crate::target::Progress;

/// How often it is looked whether there is news while the target runs.
const LOOK: Duration = Duration::from_millis(250);
/// Snapshots that are kept: those of a day, one a minute.
const KEPT: usize = 1500;

/// What is watched.
#[derive(Clone, Debug)]
pub struct Watch {
    /// What is asked at each stop.
    pub query: LeakQuery,
    /// From one stop to the next.
    pub every: Duration,
    /// For how long; until Ctrl+C if nothing says so.
    pub length: Option<Duration>,
    /// For how many looks; as many as there is time for if nothing says so.
    pub looks: Option<u64>,
    /// The table is written over the last one: standard output is a terminal.
    pub in_place: bool,
}

/// Nothing is shown of a stop that is over in a moment.
struct Silent;

impl Progress for Silent {
    fn advance(&self, _: &'static str, _: u64, _: u64) {}
}

/// Watches until the end, and gives the verdict. The target runs afterwards, or it is said that nobody knows.
///
/// # Errors
/// [`ShellError`] if the target cannot be stopped, or never runs.
pub fn watch(shell: &mut Shell, watch: &Watch) -> Result<(), ShellError> {
    let mut seen = Seen { snapshots: Vec::new(), lines: 0, frozen: Duration::ZERO };
    let result = look_again_and_again(shell, watch, &mut seen);
    if let Some(control) = shell.control().filter(|_| shell.watcher.quit().is_some()) {
        control.hurry();
    }
    shell.leave();
    shell.teller.tell();
    seen.conclude(shell);
    result
}

/// What was seen so far, and how many lines of it stand on the terminal.
struct Seen {
    snapshots: Vec<Snapshot>,
    lines: usize,
    frozen: Duration,
}

fn look_again_and_again(shell: &mut Shell, watch: &Watch, seen: &mut Seen) -> Result<(), ShellError> {
    let interrupts = shell.watcher.interrupts();
    let start = Instant::now();
    let mut due = start;
    for look in 1.. {
        let before = shell.debugger.stats();
        let stopped = {
            let mut observer = ShellObserver { report: &shell.report, teller: &shell.teller };
            shell.debugger.break_in(&mut observer)
        };
        shell.teller.tell();
        if let Some(bug_check) = stopped?.bug_check {
            shell.report.status(&bug_check.announcement(shell.pointer_size()));
            shell.report.status(
                "The machine has bug-checked: what it holds does not change any more. The watch ends",
            );
            return Ok(());
        }
        let asked = shell.debugger.ask_for(&watch.query, &Silent);
        let resumed = shell.go();
        let cost = shell.debugger.stats().since(before);
        match asked {
            Ok(answered) if answered.notes.iter().any(|note| note.code == NoteCode::BrokenOff) => {
                shell.worst = shell.worst.max(Worst::Partial);
                shell.report.status("A look was broken off, and is left out: what was not read is not told");
            }
            Ok(answered) => {
                let snapshot = answered.facts.snapshot(&answered.moment());
                shell.worst = shell.worst.max(answered.worst().map_or(Worst::Fine, Worst::of));
                seen.add(snapshot, cost, watch, shell);
            }
            Err(error) => {
                shell.worst = shell.worst.max(if error.is_usage() { Worst::Usage } else { Worst::Failed });
                shell.report.status(&format!("error: {error}"));
                if error.is_usage() {
                    return Ok(());
                }
            }
        }
        match resumed {
            Resumed::Running => {}
            Resumed::MayBeStopped(_) => return Ok(()),
            Resumed::NeverRuns => {
                shell.report.status("This target never runs, so that there is nothing to watch; `verikd leaks` shows what it holds");
                return Ok(());
            }
        }
        if watch.looks == Some(look) {
            return Ok(());
        }
        // The machine runs for as long as it stood still at the least, whatever the interval.
        let frozen = Duration::from_micros(cost.frozen_us);
        due = (due + watch.every).max(Instant::now() + frozen.max(watch.every / 2));
        if watch.length.is_some_and(|length| due.duration_since(start) > length) {
            return Ok(());
        }
        if wait_until(shell, due, interrupts)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Waits while the target runs. True if the watch ends.
fn wait_until(shell: &mut Shell, due: Instant, interrupts: u64) -> Result<bool, ShellError> {
    let mut standing = shell.watcher.standing();
    loop {
        shell.teller.tell();
        shell.watcher.wait_out_suspension();
        if let Some(quit) = shell.watcher.quit() {
            shell.ended_by = Some(quit);
            return Ok(true);
        }
        if shell.watcher.interrupts() != interrupts {
            return Ok(true);
        }
        if shell.source().stopped().is_some() {
            shell.announce_stop()?;
            shell.report.status("The machine stopped by itself. The watch ends, and lets it run");
            return Ok(true);
        }
        let now = Instant::now();
        if now >= due {
            return Ok(false);
        }
        match shell.watcher.changed(standing, Some(due.min(now + LOOK))) {
            Wait::Done(changed) => standing = changed,
            Wait::TimedOut => {}
            Wait::Interrupted => return Ok(true),
            Wait::Ended(why) => {
                shell.report.status(&format!("The session has ended: {why}"));
                shell.worst = shell.worst.max(Worst::Failed);
                return Ok(true);
            }
        }
    }
}

impl Seen {
    fn add(&mut self, mut snapshot: Snapshot, cost: Stats, watch: &Watch, shell: &Shell) {
        if self.snapshots.last().is_some_and(|last| last.boot != snapshot.boot) {
            shell.report.status(
                "The target has restarted: what was seen before is of another boot, and is not compared",
            );
            self.snapshots.clear();
            self.lines = 0;
        }
        if self.snapshots.len() == KEPT {
            // The first is what all is compared with.
            self.snapshots.remove(1);
        }
        if let Some(last) = self.snapshots.last() {
            carry(last, &mut snapshot);
        }
        let frozen = Duration::from_micros(cost.frozen_us);
        self.frozen += frozen;
        self.snapshots.push(snapshot);
        let writer = shell.report.writer();
        if shell.report.format() == Format::Json {
            let snapshot = self.snapshots.last();
            let line = json!({ "snapshot": snapshot, "stats": cost });
            return writer.text(Stream::Out, format!("{line}\n"));
        }
        let mut text = String::new();
        let written = write_watched(&self.snapshots, frozen, watch.in_place, &mut text);
        written.expect("a String takes any text");
        let text = output::screened(&text);
        // Over the table that stands there.
        let up = if self.lines > 0 { format!("\x1b[{}A\x1b[J", self.lines) } else { String::new() };
        self.lines = if watch.in_place { text.lines().count() } else { 0 };
        writer.text(Stream::Out, up + &text);
    }

    /// Says what leaks, and for how long the machine stood still for it.
    fn conclude(&self, shell: &mut Shell) {
        let frozen = self.frozen;
        let (stops, writer) = (self.snapshots.len(), shell.report.writer());
        if stops < 2 {
            return shell
                .report
                .status("The watch ended before its second look: there is nothing to compare");
        }
        match judge(&self.snapshots) {
            Ok(verdict) if shell.report.format() == Format::Json => {
                let line = json!({ "verdict": verdict, "frozen_us": frozen.as_micros() as u64 });
                writer.text(Stream::Out, format!("{line}\n"));
            }
            Ok(verdict) => {
                let mut text = String::new();
                write_verdict(&verdict, &mut text).expect("a String takes any text");
                let _ = writeln!(text, "\nThe machine stood still for {frozen:.3?} in {stops} stops.");
                writer.text(Stream::Out, output::screened(&text));
            }
            Err(error) => {
                shell.worst = shell.worst.max(Worst::Failed);
                shell.report.status(&format!("error: the snapshots cannot be compared: {error}"));
            }
        }
        if shell.ended_by.is_none() && shell.watcher.quit().is_some() {
            shell.ended_by = shell.watcher.quit().or(Some(Quit::Signal(Signal::Interrupt)));
        }
    }
}
