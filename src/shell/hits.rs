//! Waits for uses of a pool tag: `!poolhit` at the prompt and in scripts, and `verikd hits`, which does nothing else.

use std::time::Instant;

use super::error::ShellError;
use super::worst::Worst;
use super::{Shell, ShellObserver};
use crate::commands::pool::hits::{HitAccount, HitEnd, HitOptions, HitReport};
use crate::debugger::{AskError, HitObserver, Hits, HitsError};
use crate::session::{Quit, Signal, Watcher};

/// Every so many hits it is said how many there are, if somebody watches.
const TOLD_EVERY: u64 = 100;

/// Stops the target, waits for hits, leaves the target, and tells who they were.
///
/// # Errors
/// [`ShellError`] if the target cannot be stopped, or the session has ended.
pub fn watch_hits(shell: &mut Shell, options: &HitOptions) -> Result<(), ShellError> {
    let before = shell.debugger.stats();
    let attached = shell.break_in().and_then(|()| shell.unless_interrupted());
    let collected = attached.and_then(|()| match collect(shell, options) {
        Err(error) => {
            // Nor does whoever presses it before the tag is set.
            shell.unless_interrupted()?;
            Ok(Err(error))
        }
        collected => Ok(collected),
    });
    let is_told_to_end = shell.watcher.quit().is_some()
        || matches!(&collected, Ok(Ok(report)) if report.end == HitEnd::Interrupted);
    if let Some(control) = shell.control().filter(|_| is_told_to_end) {
        control.hurry();
    }
    let tell = |shell: &mut Shell, collected: Result<HitReport, AskError>| {
        let command = format!("!poolhit {}", options.tag);
        match collected {
            Ok(report) => {
                let report = concluded(shell, report);
                let answered = shell.debugger.answer_alone(Box::new(report), before);
                shell.answer(&command, answered);
            }
            Err(error) => shell.refuse(&command, &error, shell.debugger.stats().since(before)),
        }
    };
    // A target that talks is listened to for seconds before it is left, for which nobody waits who has the answer. What is
    // still set is taken back only then.
    let is_set = shell.control().is_some_and(|control| control.planted().is_some());
    let collected = match collected {
        Ok(collected) if !is_set => {
            tell(shell, collected);
            None
        }
        collected => Some(collected),
    };
    shell.leave();
    shell.teller.tell();
    if let Some(collected) = collected {
        tell(shell, collected?);
    }
    if shell.ended_by.is_none() && shell.watcher.quit().is_some() {
        shell.ended_by = shell.watcher.quit().or(Some(Quit::Signal(Signal::Interrupt)));
    }
    Ok(())
}

impl Shell {
    /// `!poolhit`: the target is stopped before and afterwards, if it can be reached.
    pub(super) fn pool_hits(&mut self, arguments: &str) -> Result<HitReport, AskError> {
        let options = HitOptions::parse(arguments)?;
        let report = collect(self, &options)?;
        Ok(concluded(self, report))
    }
}

/// What came of them, and whether the tag is gone.
fn concluded(shell: &mut Shell, mut report: HitReport) -> HitReport {
    report.is_cleared = shell.control().is_none_or(|control| control.planted().is_none());
    let worst = match report.end {
        HitEnd::Lost(_) => Worst::Failed,
        HitEnd::Restarted | HitEnd::OtherStop | HitEnd::Suspended => Worst::Partial,
        HitEnd::Count | HitEnd::Time | HitEnd::Interrupted | HitEnd::Quit(_) => Worst::Fine,
    };
    shell.worst = shell.worst.max(worst);
    report
}

fn collect(shell: &mut Shell, options: &HitOptions) -> Result<HitReport, AskError> {
    let not_watched = |error| match error {
        HitsError::NotStopped(why) => why,
        other => AskError::NotWatched(Box::new(other)),
    };
    {
        let mut observer = ShellObserver { report: &shell.report, teller: &shell.teller };
        shell.debugger.watch_tag(options.tag, &mut observer).map_err(not_watched)?;
    }
    let mut hits = Hits::new(options.clone());
    let mut waiting = Waiting {
        watcher: shell.watcher.clone(),
        interrupts: shell.watcher.interrupts(),
        report: shell.report.clone(),
        told: 0,
    };
    let until = match (options.count, options.length) {
        (Some(count), Some(length)) => format!("until {count} are met, for {length:?} at most"),
        (Some(count), None) => format!("until {count} are met"),
        (None, Some(length)) => format!("for {length:?}"),
        (None, None) => "until Ctrl+C".to_owned(),
    };
    let tag = options.tag;
    shell.report.status(&format!("nt!PoolHitTag = {tag}: waiting for uses of the tag, {until}"));
    let budget = shell.watcher.freeze_budget();
    let longest = shell.debugger.short_stops().map(|it| it.longest);
    shell.watcher.set_freeze_budget(longest.into_iter().chain(budget).min());
    let since = Instant::now();
    let suspensions = shell.watcher.suspensions();
    let mut end = shell.debugger.collect_hits(&mut hits, &mut waiting);
    let elapsed = since.elapsed();
    shell.watcher.set_freeze_budget(budget);
    shell.watcher.wait_out_suspension();
    match shell.watcher.quit() {
        Some(quit) if end == HitEnd::Interrupted => end = HitEnd::Quit(quit.to_string()),
        _ if shell.watcher.suspensions() != suspensions && !waiting.is_told_to_end() => {
            end = HitEnd::Suspended
        }
        _ => {}
    }
    // Somebody who has to go lets the target run at once, which takes the tag back too.
    if shell.watcher.quit().is_none() && end != HitEnd::Suspended {
        match shell.debugger.stop_watching(&mut hits) {
            Ok(true) => {}
            // It was silent, or had gone, before anybody heard of it.
            Ok(false) => end = HitEnd::Restarted,
            Err(error) => {
                shell.report.status(&format!("error: {error}; it is tried again when the target is let run"));
            }
        }
    }
    shell.teller.tell();
    match end {
        HitEnd::OtherStop => {
            if let Err(error) = shell.announce_stop() {
                shell.report.status(&format!("error: {error}"));
            }
        }
        _ => shell.announced = Some(shell.place()),
    }
    Ok(hits.report(end, elapsed))
}

/// Whoever waits.
struct Waiting {
    watcher: Watcher,
    interrupts: u64,
    report: super::Report,
    told: u64,
}

impl HitObserver for Waiting {
    fn hit(&mut self, account: &HitAccount) {
        let hits = account.counted().hits;
        if hits / TOLD_EVERY > self.told {
            self.told = hits / TOLD_EVERY;
            self.report.status(&format!("{hits} hits"));
        }
    }

    fn is_told_to_end(&self) -> bool {
        let is_wanted = self.watcher.interrupts() == self.interrupts && self.watcher.quit().is_none();
        !is_wanted || self.report.writer().is_unread()
    }
}
