//! Looks at what each pool tag holds again and again, for as short a time as it takes, and lets the target run in between.
//!
//! ```text
//!   stop, !poolused, go --> a table, in place --> wait --> stop, !poolused, go --> ...   --> stop, !pooltag, go: the suspects
//! ```
//! The end is Ctrl+C, the time that was asked for, or the machine: one that stops by itself is told and let run.

use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Serialize;

use super::error::ShellError;
use super::format::Format;
use super::own_line::{OwnLine, own_line};
use super::told::Told;
use super::watch::{Silent, may_pass, wait_until};
use super::worst::Worst;
use super::writer::Stream;
use super::{Shell, ShellObserver};
use crate::commands::pool::growth::{PoolGrowth, Suspect, TagGrowth};
use crate::commands::pool::owner::OwnerQuery;
use crate::commands::pool::used::{PoolUsed, Total, UsedQuery};
use crate::commands::{Note, NoteKind, Query};
use crate::debugger::{Answered, AskError, DebugError, Stats};
use crate::leaks::StoodStill;
use crate::output;
use crate::session::{Quit, Signal};
use crate::source::Resumed;

/// What is looked at, and for how long.
#[derive(Clone, Debug)]
pub struct PoolWatch {
    /// From one stop to the next; one look alone if nothing says so.
    pub every: Option<Duration>,
    /// For how long; until Ctrl+C if nothing says so.
    pub length: Option<Duration>,
    /// For how many looks; as many as there is time for if nothing says so.
    pub looks: Option<u64>,
    /// Tags that are shown.
    pub top: usize,
    /// The table is written over the last one: standard output is a terminal.
    pub in_place: bool,
}

/// Looks until the end, and names the suspects. The target runs afterwards, or it is said that nobody knows.
///
/// # Errors
/// [`ShellError`] if the target cannot be stopped for the first look, may still be stopped, or the session has ended.
pub fn watch_pool(shell: &mut Shell, watch: &PoolWatch) -> Result<(), ShellError> {
    let mut seen = Seen::default();
    let mut result = seen.look_again_and_again(shell, watch);
    if result.is_ok() {
        result = seen.ask_for_owners(shell);
    }
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
    growth: PoolGrowth,
    told: Told,
    boot: Option<u64>,
    stood_still: StoodStill,
    /// Lines of the table that stands on the terminal, and the piece that it was written as.
    table: Option<(usize, u64)>,
    /// The target runs by itself, so that it can be stopped once more.
    can_stop: bool,
    suspects: Vec<Suspect>,
}

/// What came of a stop.
enum Asked<F> {
    Answered(Box<Answered<F>>),
    /// The machine has bug-checked; what it announces.
    BugCheck(String),
    NotStopped(DebugError),
    NotAnswered(AskError),
}

fn stop_and_ask<Q: Query>(shell: &mut Shell, query: &Q) -> Asked<Q::Facts> {
    let stopped = {
        let mut observer = ShellObserver { report: &shell.report, teller: &shell.teller };
        shell.debugger.break_in(&mut observer)
    };
    shell.teller.tell();
    match stopped {
        Err(error) => Asked::NotStopped(error),
        Ok(stop) => match stop.bug_check {
            Some(bug_check) => Asked::BugCheck(bug_check.announcement(shell.pointer_size())),
            None => match shell.debugger.ask_for(query, &Silent) {
                Ok(answered) => Asked::Answered(Box::new(answered)),
                Err(error) => Asked::NotAnswered(error),
            },
        },
    }
}

impl Seen {
    fn look_again_and_again(&mut self, shell: &mut Shell, watch: &PoolWatch) -> Result<(), ShellError> {
        let query = UsedQuery { verbose: true, dated: true, ..UsedQuery::default() };
        let start = Instant::now();
        let mut due = start;
        for look in 1.. {
            let before = shell.debugger.stats();
            let asked = stop_and_ask(shell, &query);
            let resumed = shell.go();
            let frozen = Duration::from_micros(shell.debugger.stats().since(before).frozen_us);
            self.count(frozen);
            let is_told_to_end = shell.watcher.was_interrupted() || shell.watcher.quit().is_some();
            if !self.take(asked, frozen, is_told_to_end, watch, shell)? {
                return Ok(());
            }
            self.can_stop = matches!(resumed, Resumed::Running);
            let (Some(every), true) = (watch.every, self.can_stop) else { return Ok(()) };
            if watch.looks == Some(look) {
                return Ok(());
            }
            // The machine runs for as long as it stood still at the least, whatever the interval.
            due = (due + every).max(Instant::now() + frozen.max(every / 2));
            if watch.length.is_some_and(|length| due.duration_since(start) > length) {
                return Ok(());
            }
            if wait_until(shell, due)? {
                // Whoever ends a watch by Ctrl+C has asked for the suspects, too; who ends the program has not.
                let is_wanted = shell.watcher.quit().is_none() && !shell.report.writer().is_unread();
                self.can_stop = is_wanted && shell.source().stopped().is_none();
                return Ok(());
            }
        }
        Ok(())
    }

    fn count(&mut self, frozen: Duration) {
        self.stood_still = self.stood_still.and(one_stop(frozen));
    }

    /// Takes in what came of a stop. False if it was the last one.
    fn take(
        &mut self,
        asked: Asked<PoolUsed>,
        frozen: Duration,
        is_told_to_end: bool,
        watch: &PoolWatch,
        shell: &mut Shell,
    ) -> Result<bool, ShellError> {
        match asked {
            Asked::Answered(answered) if !answered.is_broken_off() => {
                shell.worst = shell.worst.max(answered.worst().map_or(Worst::Fine, Worst::of));
                self.add(&answered, frozen, watch, shell);
            }
            Asked::BugCheck(announcement) => {
                shell.report.status(&announcement);
                shell.report.status("The machine has bug-checked: its pool does not change any more");
                return Ok(false);
            }
            _ if is_told_to_end => {
                shell
                    .report
                    .status("The last look was broken off, and is left out: what was not read is not told");
                return Ok(false);
            }
            Asked::Answered(_) => {
                shell.worst = shell.worst.max(Worst::Partial);
                shell.report.status("A look was broken off, and is left out: what was not read is not told");
            }
            Asked::NotAnswered(error) => {
                shell.worst = shell.worst.max(Worst::Failed);
                shell.report.status(&format!("error: {error}"));
            }
            Asked::NotStopped(error) => {
                if self.growth.looks() == 0 || !may_pass(&error) {
                    return Err(error.into());
                }
                shell.worst = shell.worst.max(Worst::Failed);
                shell.report.status(&format!("error: {error}. The next look is tried at its time"));
            }
        }
        Ok(true)
    }

    fn add(&mut self, answered: &Answered<PoolUsed>, frozen: Duration, watch: &PoolWatch, shell: &Shell) {
        if self.growth.looks() > 0 && self.boot != answered.stamp.boot {
            shell.report.status(
                "The target has restarted: what was seen before is of another boot, and is not compared",
            );
            (self.growth, self.table) = (PoolGrowth::default(), None);
        }
        self.boot = answered.stamp.boot;
        let unix_ms = answered.facts.unix_ms(answered.stamp.unix_ms);
        self.growth.add(&answered.facts, unix_ms);
        self.told.tell(&answered.notes, &shell.report);
        let writer = shell.report.writer();
        if shell.report.format() == Format::Json {
            let mut rows: Vec<TagGrowth> = self.growth.rows();
            rows.truncate(watch.top);
            let (total, notes) = (&answered.facts.total, &answered.notes);
            let look = PoolLook { unix_ms, tags: &rows, total, notes, stats: answered.cost };
            return writer.text(Stream::Out, own_line(&look));
        }
        let mut text = String::new();
        let top = watch.top.min(if watch.in_place {
            writer.room().rows.saturating_sub(3).max(1)
        } else {
            usize::MAX
        });
        self.growth.write_table(top, one_stop(frozen), &mut text).expect("a String takes any text");
        let text = output::screened(&text);
        let lines = text.lines().count();
        let last = self.table.take();
        let piece = writer.text_after(Stream::Out, last.map(|(_, piece)| piece), move |is_next| match last {
            // Over the table that stands there, unless something was written below it.
            Some((lines, _)) if is_next => format!("\x1b[{lines}A\x1b[J{text}"),
            _ => text,
        });
        self.table = watch.in_place.then_some((lines, piece));
    }

    /// Asks in one more stop who allocates what has only grown.
    fn ask_for_owners(&mut self, shell: &mut Shell) -> Result<(), ShellError> {
        let suspects = self.growth.suspects();
        if suspects.is_empty() || !self.can_stop {
            self.suspects = suspects.into_iter().map(|growth| Suspect::new(growth, None, false)).collect();
            return Ok(());
        }
        let before = shell.debugger.stats();
        let mut is_stopped = true;
        for growth in suspects {
            let asked = if is_stopped {
                Some(stop_and_ask(shell, &OwnerQuery { tag: growth.tag, images: true, file: None }))
            } else {
                None
            };
            let mut is_whole = false;
            let owner = match asked {
                Some(Asked::Answered(answered)) => {
                    is_whole = answered.worst() < Some(NoteKind::Partial);
                    Some(answered.facts)
                }
                Some(Asked::NotAnswered(error)) => {
                    shell.report.status(&format!("error: {error}"));
                    None
                }
                Some(Asked::NotStopped(_) | Asked::BugCheck(_)) => {
                    is_stopped = false;
                    None
                }
                None => None,
            };
            self.suspects.push(Suspect::new(growth, owner, is_whole));
        }
        shell.go();
        self.count(Duration::from_micros(shell.debugger.stats().since(before).frozen_us));
        Ok(())
    }

    /// Says who is suspect, and for how long the machine stood still for it.
    fn conclude(self, shell: &mut Shell, watch: &PoolWatch) {
        let Self { growth, stood_still, suspects, .. } = self;
        let writer = shell.report.writer();
        if shell.report.format() == Format::Json {
            let StoodStill { stops, total, longest } = stood_still;
            let [frozen_us, longest_frozen_us] = [total, longest].map(|it| it.as_micros() as u64);
            let (looks, elapsed_ms, suspects) = (growth.looks(), growth.elapsed_ms(), &suspects);
            let end = PoolWatchEnd { looks, elapsed_ms, suspects, stops, frozen_us, longest_frozen_us };
            writer.text(Stream::Out, own_line(&end));
        } else {
            let mut text = String::new();
            if watch.every.is_some() && growth.looks() > 0 {
                text += "\n";
                for suspect in &suspects {
                    suspect.write(growth.elapsed_ms(), &mut text).expect("a String takes any text");
                }
                if suspects.is_empty() {
                    text += match growth.looks() {
                        0..=2 => "Two looks tell no leak from a breath: three at the least name a suspect.\n",
                        _ => {
                            "No tag has only grown: what was taken was given back, or this was too short to tell.\n"
                        }
                    };
                }
            }
            text += &stood_still.last_words();
            writer.text(Stream::Out, output::screened(&text));
        }
        if shell.ended_by.is_none() && shell.watcher.quit().is_some() {
            shell.ended_by = shell.watcher.quit().or(Some(Quit::Signal(Signal::Interrupt)));
        }
    }
}

/// A look, as JSON.
#[derive(Serialize, JsonSchema)]
pub struct PoolLook<'a> {
    /// When it was so: milliseconds since 1970.
    pub unix_ms: u64,
    /// The tags that have grown most since the first look; at the first look those that hold most.
    pub tags: &'a [TagGrowth],
    /// What all tags hold, if each was read.
    pub total: &'a Option<Total>,
    /// What must be known beside it.
    pub notes: &'a [Note],
    /// What it took.
    pub stats: Stats,
}

impl OwnLine for PoolLook<'_> {
    const NAME: &'static str = "pool_look";
}

/// What came of all looks, as JSON.
#[derive(Serialize, JsonSchema)]
pub struct PoolWatchEnd<'a> {
    /// Looks of the boot that the machine was in at the end.
    pub looks: usize,
    /// Milliseconds from the first of them to the last.
    pub elapsed_ms: u64,
    /// Tags that have only grown.
    pub suspects: &'a [Suspect],
    /// How often the machine stood still.
    pub stops: u64,
    /// For how long in all, in microseconds.
    pub frozen_us: u64,
    /// For how long at the longest.
    pub longest_frozen_us: u64,
}

impl OwnLine for PoolWatchEnd<'_> {
    const NAME: &'static str = "pool_end";
}

/// A stop of this length; none if it has none.
fn one_stop(frozen: Duration) -> StoodStill {
    StoodStill { stops: u64::from(!frozen.is_zero()), total: frozen, longest: frozen }
}
