//! Looks at what drivers hold again and again, for as short a time as it takes, and lets the target run in between.
//!
//! ```text
//!   stop, !leaks, go --> a line, or a table in place --> wait --> stop, !leaks, go --> ...   --> the verdict
//! ```
//! The end is Ctrl+C, the time that was asked for, or the machine: one that stops by itself is told and let run. A look that
//! fails is told and left out; the next one is tried at its time.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Serialize;

use super::error::ShellError;
use super::format::Format;
use super::own_line::{OwnLine, own_line};
use super::told::Told;
use super::worst::Worst;
use super::writer::Stream;
use super::{Shell, ShellObserver};
use crate::commands::verifier::leaks::{LeakQuery, LeakReport};
use crate::debugger::{Answered, AskError, DebugError, Stats, StopsOver};
use crate::leaks::{
    Look, SameBoot, Snapshot, StoodStill, Verdict, carry, judge, write_page, write_verdict, write_watched,
};
use crate::output;
use crate::session::{Quit, Signal};
use crate::source::{BreakInError, Resumed, Wait};
use crate::target::Progress;

/// How often it is looked whether there is news while the target runs.
const SLICE: Duration = Duration::from_millis(250);
/// Snapshots that are kept: those of a day, one a minute.
const MOST_SNAPSHOTS: usize = 1500;
/// Blocks that are kept in all of them: some 400 MB.
const MOST_BLOCKS: usize = 4_000_000;
/// So many are kept whatever they hold: a verdict needs some.
const FEWEST_SNAPSHOTS: usize = 8;

/// What is watched.
#[derive(Debug)]
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
    /// Where a page about all looks is written at the end.
    pub page: Option<PathBuf>,
    /// Who is told of each look.
    pub onlooker: Option<Box<dyn Onlooker>>,
}

/// A look, as JSON.
#[derive(Serialize, JsonSchema)]
pub struct WatchLook<'a> {
    /// What drivers held.
    pub snapshot: &'a Snapshot,
    /// What it took.
    pub stats: Stats,
    /// How often the machine stood still for it.
    pub stops: u64,
    /// For how long at the longest, in microseconds.
    pub longest_frozen_us: u64,
}

impl OwnLine for WatchLook<'_> {
    const NAME: &'static str = "watch_look";
}

/// What came of all looks, as JSON.
#[derive(Serialize, JsonSchema)]
pub struct WatchEnd<'a> {
    /// Which call paths leak; nothing if there was nothing to compare.
    pub verdict: Option<&'a Verdict>,
    /// How often the machine stood still.
    pub stops: u64,
    /// For how long in all, in microseconds.
    pub frozen_us: u64,
    /// For how long at the longest.
    pub longest_frozen_us: u64,
}

impl OwnLine for WatchEnd<'_> {
    const NAME: &'static str = "watch_end";
}

/// Is told of each look, and shows it to others.
pub trait Onlooker: fmt::Debug {
    /// A look is over, for which the target stood still this long. It runs again, if it can.
    fn looked(&self, look: Look<'_>, stood_still: StoodStill);
}

/// Nothing is shown of a stop that is over in a moment.
pub(super) struct Silent;

impl Progress for Silent {
    fn advance(&self, _: &'static str, _: u64, _: u64) {}
}

/// Watches until the end, and gives the verdict. The target runs afterwards, or it is said that nobody knows.
///
/// # Errors
/// [`ShellError`] if the target cannot be stopped for the first look, may still be stopped, or the session has ended.
pub fn watch(shell: &mut Shell, watch: &Watch) -> Result<(), ShellError> {
    let mut seen = Seen::default();
    let result = look_again_and_again(shell, watch, &mut seen);
    if let Some(control) = shell.control().filter(|_| shell.watcher.quit().is_some()) {
        control.hurry();
    }
    shell.leave();
    shell.teller.tell();
    seen.conclude(shell, watch);
    result
}

/// What was seen so far.
#[derive(Default)]
struct Seen {
    /// Of the present boot.
    snapshots: Vec<Snapshot>,
    /// Which boot of the session that is.
    boot: Option<u64>,
    told: Told,
    stood_still: StoodStill,
    table: Option<Table>,
}

/// The table that stands on the terminal.
struct Table {
    lines: usize,
    /// The number of the piece that it was written as: nothing else was written since if it is the last.
    piece: u64,
}

/// What came of a stop.
enum Asked {
    Answered(Box<Answered<LeakReport>>),
    /// The machine has bug-checked; what it announces.
    BugCheck(String),
    NotStopped(DebugError),
    NotAnswered(AskError),
}

fn look_again_and_again(shell: &mut Shell, watch: &Watch, seen: &mut Seen) -> Result<(), ShellError> {
    let start = Instant::now();
    let mut due = start;
    for look in 1.. {
        let before = shell.debugger.stats();
        let asked = stop_and_ask(shell, watch);
        let over = shell.debugger.stops_over();
        shell.see_last_stop();
        let resumed = shell.go();
        let cost = shell.debugger.stats().since(before);
        let is_told_to_end = shell.watcher.was_interrupted() || shell.watcher.quit().is_some();
        if !seen.take(asked, cost, stood_still(cost, over), is_told_to_end, watch, shell)? {
            return Ok(());
        }
        if over.by_itself {
            shell.report.status("The machine stopped by itself. The watch ends, and lets it run");
            return Ok(());
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
        if wait_until(shell, due)? {
            return Ok(());
        }
    }
    Ok(())
}

fn stop_and_ask(shell: &mut Shell, watch: &Watch) -> Asked {
    let stopped = {
        let mut observer = ShellObserver { report: &shell.report, teller: &shell.teller };
        shell.debugger.break_in(&mut observer)
    };
    shell.teller.tell();
    match stopped {
        Err(error) => Asked::NotStopped(error),
        Ok(stop) => match stop.bug_check {
            Some(bug_check) => Asked::BugCheck(bug_check.announcement(shell.pointer_size())),
            None => match shell.debugger.ask_for(&watch.query, &Silent) {
                Ok(answered) => Asked::Answered(Box::new(answered)),
                Err(error) => Asked::NotAnswered(error),
            },
        },
    }
}

/// Waits while the target runs. True if the watch ends.
pub(super) fn wait_until(shell: &mut Shell, due: Instant) -> Result<bool, ShellError> {
    let mut standing = shell.watcher.standing();
    loop {
        shell.teller.tell();
        shell.watcher.wait_out_suspension();
        if let Some(quit) = shell.watcher.quit() {
            shell.ended_by = Some(quit);
            return Ok(true);
        }
        if shell.watcher.was_interrupted() || shell.report.writer().is_unread() {
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
        match shell.watcher.changed(standing, Some(due.min(now + SLICE))) {
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
    /// Takes in what came of a stop. False if it was the last one.
    fn take(
        &mut self,
        asked: Asked,
        cost: Stats,
        stood_still: StoodStill,
        is_told_to_end: bool,
        watch: &Watch,
        shell: &mut Shell,
    ) -> Result<bool, ShellError> {
        self.stood_still = self.stood_still.and(stood_still);
        let tell = |look: Look<'_>| {
            if let Some(onlooker) = &watch.onlooker {
                onlooker.looked(look, stood_still);
            }
        };
        match asked {
            Asked::Answered(answered) if !answered.is_broken_off() => {
                self.told.tell(&answered.notes, &shell.report);
                let snapshot = answered.facts.snapshot(&answered.moment());
                shell.worst = shell.worst.max(answered.worst().map_or(Worst::Fine, Worst::of));
                self.enter_boot(answered.stamp.boot, &snapshot, shell);
                self.add(snapshot, cost, stood_still, watch, shell);
                tell(Look::Taken(self.snapshots.last().expect("it was just added")));
            }
            Asked::BugCheck(announcement) => {
                tell(Look::Failed);
                shell.report.status(&announcement);
                shell.report.status(
                    "The machine has bug-checked: what it holds does not change any more. The watch ends",
                );
                return Ok(false);
            }
            // Whoever ends a watch with Ctrl+C, or ends the program, has not made it fail.
            _ if is_told_to_end => {
                tell(Look::BrokenOff);
                shell
                    .report
                    .status("The last look was broken off, and is left out: what was not read is not told");
                return Ok(false);
            }
            Asked::Answered(_) => {
                tell(Look::BrokenOff);
                shell.worst = shell.worst.max(Worst::Partial);
                shell.report.status("A look was broken off, and is left out: what was not read is not told");
            }
            Asked::NotAnswered(error) => {
                tell(Look::Failed);
                shell.worst = shell.worst.max(if error.is_usage() { Worst::Usage } else { Worst::Failed });
                shell.report.status(&format!("error: {error}"));
                return Ok(!error.is_usage());
            }
            Asked::NotStopped(error) => {
                tell(Look::Failed);
                if self.snapshots.is_empty() || !may_pass(&error) {
                    return Err(error.into());
                }
                shell.worst = shell.worst.max(Worst::Failed);
                shell.report.status(&format!("error: {error}. The next look is tried at its time"));
            }
        }
        Ok(true)
    }

    /// What was seen in another boot is forgotten. Behind a line that was gone for a while the machine may be as it was.
    fn enter_boot(&mut self, boot: Option<u64>, snapshot: &Snapshot, shell: &Shell) {
        let may_be_another = |last: &Snapshot| last.boot.is_same(&snapshot.boot) != SameBoot::Yes;
        if self.boot != boot && self.snapshots.last().is_some_and(may_be_another) {
            shell.report.status(
                "The target has restarted: what was seen before is of another boot, and is not compared",
            );
            self.snapshots.clear();
            self.table = None;
        }
        self.boot = boot;
    }

    fn add(
        &mut self,
        mut snapshot: Snapshot,
        cost: Stats,
        stood_still: StoodStill,
        watch: &Watch,
        shell: &Shell,
    ) {
        if let Some(last) = self.snapshots.last() {
            carry(last, &mut snapshot);
        }
        self.snapshots.push(snapshot);
        thin(&mut self.snapshots);
        let writer = shell.report.writer();
        if shell.report.format() == Format::Json {
            let snapshot = self.snapshots.last().expect("one was added");
            let StoodStill { stops, longest, .. } = stood_still;
            let longest_frozen_us = longest.as_micros() as u64;
            let look = WatchLook { snapshot, stats: cost, stops, longest_frozen_us };
            return writer.text(Stream::Out, own_line(&look));
        }
        let room = watch.in_place.then(|| writer.room());
        let mut text = String::new();
        write_watched(&self.snapshots, stood_still, room, &mut text).expect("a String takes any text");
        let text = output::screened(&text);
        let lines = text.lines().count();
        let last = self.table.take();
        let piece = writer.text_after(Stream::Out, last.as_ref().map(|table| table.piece), move |is_next| {
            match last {
                // Over the table that stands there, unless something was written below it.
                Some(table) if is_next => format!("\x1b[{}A\x1b[J{text}", table.lines),
                _ => text,
            }
        });
        self.table = watch.in_place.then_some(Table { lines, piece });
    }

    /// Says what leaks, and for how long the machine stood still for it.
    fn conclude(self, shell: &mut Shell, watch: &Watch) {
        let Self { snapshots, stood_still, .. } = self;
        let writer = shell.report.writer();
        let is_json = shell.report.format() == Format::Json;
        let verdict = if snapshots.len() < 2 {
            shell.report.status("The watch ended before its second look: there is nothing to compare");
            None
        } else {
            match judge(&snapshots) {
                Ok(verdict) => Some(verdict),
                Err(error) => {
                    shell.worst = shell.worst.max(Worst::Failed);
                    shell.report.status(&format!("error: the snapshots cannot be compared: {error}"));
                    None
                }
            }
        };
        if is_json {
            let StoodStill { stops, total, longest } = stood_still;
            let [frozen_us, longest_frozen_us] = [total, longest].map(|it| it.as_micros() as u64);
            writer.text(
                Stream::Out,
                own_line(&WatchEnd { verdict: verdict.as_ref(), stops, frozen_us, longest_frozen_us }),
            );
        } else {
            let mut text = String::new();
            if let Some(verdict) = &verdict {
                write_verdict(verdict, &mut text).expect("a String takes any text");
            }
            text += &stood_still.last_words();
            writer.text(Stream::Out, output::screened(&text));
        }
        if let Some(page) = watch.page.clone().filter(|_| !snapshots.is_empty()) {
            let to = writer.clone();
            let write = move || match write_page(&snapshots, &page) {
                Ok(()) => format!("Wrote {}\n", output::screened(&page.display().to_string())),
                Err(why) => {
                    to.lacks_file();
                    output::screened(&format!("{} was not written: {why}\n", page.display()))
                }
            };
            writer.put(Stream::Aside, Box::new(write));
        }
        if shell.ended_by.is_none() && shell.watcher.quit().is_some() {
            shell.ended_by = shell.watcher.quit().or(Some(Quit::Signal(Signal::Interrupt)));
        }
    }
}

/// All stops of a look: those of its question that were over before the last, which ended with the look.
fn stood_still(cost: Stats, over: StopsOver) -> StoodStill {
    let total = Duration::from_micros(cost.frozen_us);
    let last = total.saturating_sub(over.total);
    StoodStill { stops: over.stops + u64::from(!last.is_zero()), total, longest: over.longest.max(last) }
}

/// True if a target that was not stopped this time may be stopped the next: it is not held, and its line is there.
pub(super) const fn may_pass(error: &DebugError) -> bool {
    match error {
        DebugError::BreakIn(error) => !matches!(error, BreakInError::Ended(_) | BreakInError::NoControl(_)),
        DebugError::Version(_) | DebugError::RestartsAgain => true,
        DebugError::NotResumed(_) => false,
    }
}

/// Leaves out every second snapshot between the first and the last if they are too many, or too large together.
fn thin(snapshots: &mut Vec<Snapshot>) {
    let blocks = |it: &Snapshot| it.groups.iter().map(|group| group.list.len()).sum::<usize>();
    let is_much = snapshots.iter().map(blocks).sum::<usize>() > MOST_BLOCKS;
    if snapshots.len() <= FEWEST_SNAPSHOTS || (snapshots.len() <= MOST_SNAPSHOTS && !is_much) {
        return;
    }
    let last = snapshots.len() - 1;
    let mut number = 0..;
    snapshots.retain(|_| {
        let number = number.next().expect("it has no end");
        number % 2 == 0 || number == last
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_snapshots_every_second_is_kept_with_the_first_and_the_last() {
        let of = |count: usize| -> Vec<Snapshot> {
            (0..count as u64).map(|unix_ms| Snapshot { unix_ms, ..Snapshot::empty() }).collect()
        };
        let times = |snapshots: &[Snapshot]| -> Vec<u64> { snapshots.iter().map(|it| it.unix_ms).collect() };
        let mut few = of(MOST_SNAPSHOTS);
        thin(&mut few);
        assert_eq!(few.len(), MOST_SNAPSHOTS);
        let mut many = of(MOST_SNAPSHOTS + 1);
        thin(&mut many);
        assert_eq!(times(&many)[..3], [0, 2, 4]);
        assert_eq!(times(&many).last(), Some(&(MOST_SNAPSHOTS as u64)));
        let mut odd = of(MOST_SNAPSHOTS + 2);
        thin(&mut odd);
        assert_eq!(times(&odd)[odd.len() - 2..], [MOST_SNAPSHOTS as u64, MOST_SNAPSHOTS as u64 + 1]);
    }
}
