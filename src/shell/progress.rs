//! How a transfer of symbols or a long read goes, on standard error: a bar on a terminal, nothing elsewhere.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::report::Report;
use crate::output::screened;
use crate::session::Watcher;
use crate::symbols::store::Watch;
use crate::target::Progress;

const KNOWN_SIZE: &str = "{msg} [{bar:24}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
const UNKNOWN_SIZE: &str = "{msg} {spinner} {bytes} {bytes_per_sec}";

const READ: &str = "{msg} [{bar:24}] {pos}/{len} {percent}% {eta} left";
/// A read that takes less is over before anyone wonders.
const SHOWN_AFTER: Duration = Duration::from_secs(1);

/// Shows one command's long reads to a person; the bar goes with it.
pub(super) struct ReadProgress {
    report: Report,
    bar: Mutex<Option<ProgressBar>>,
}

impl ReadProgress {
    pub(super) fn new(report: &Report) -> Self {
        Self { report: report.clone(), bar: Mutex::default() }
    }
}

impl Progress for ReadProgress {
    fn advance(&self, what: &'static str, done: u64, total: u64) {
        let mut bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template(READ).expect("the template above is right");
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
            bar.with_style(style).with_message(what)
        });
        // Draws nothing where standard error is no terminal.
        if bar.is_hidden() && bar.elapsed() >= SHOWN_AFTER {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        bar.set_position(done);
    }

    fn announce(&self, text: &str) {
        self.report.status(text);
    }
}

impl Drop for ReadProgress {
    fn drop(&mut self) {
        let bar = self.bar.get_mut().unwrap_or_else(PoisonError::into_inner);
        bar.take().iter().for_each(ProgressBar::finish_and_clear);
    }
}

/// Shows transfers to a person, and ends them at Ctrl+C or when the target has stood still for as long as it may.
#[derive(Debug, Default)]
pub struct TerminalWatch {
    interrupts: Option<Watcher>,
    bar: Mutex<Option<ProgressBar>>,
}

impl TerminalWatch {
    /// A watch that ends transfers when `interrupts` tells so.
    #[must_use]
    pub fn new(interrupts: Watcher) -> Self {
        Self { interrupts: Some(interrupts), bar: Mutex::default() }
    }

    fn with_bar(&self, change: impl FnOnce(&mut Option<ProgressBar>)) {
        change(&mut self.bar.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Watch for TerminalWatch {
    fn begins(&self, url: &str) {
        if self.interrupts.as_ref().is_some_and(Watcher::is_target_stopped) {
            let file = file_of(url);
            self.step(&format!("Fetching {file}; the target stands still meanwhile, Ctrl+C ends it"));
        }
    }

    fn received(&self, url: &str, received: u64, total: Option<u64>) {
        self.with_bar(|bar| {
            let bar = bar.get_or_insert_with(|| new_bar(url));
            if total != bar.length() {
                let template = if total.is_some() { KNOWN_SIZE } else { UNKNOWN_SIZE };
                bar.set_style(ProgressStyle::with_template(template).expect("the templates above are right"));
                total.map_or_else(|| bar.unset_length(), |total| bar.set_length(total));
            }
            bar.set_position(received);
        });
    }

    fn ended(&self, _url: &str) {
        self.with_bar(|bar| bar.take().iter().for_each(ProgressBar::finish_and_clear));
    }

    fn step(&self, line: &str) {
        // Status that cannot be shown must not end a session that holds a stopped machine.
        let _ = writeln!(io::stderr(), "{}", screened(line));
    }

    fn is_cancelled(&self) -> bool {
        let is_over = |stop: &Watcher| stop.is_interrupted() || stop.is_budget_spent();
        self.interrupts.as_ref().is_some_and(is_over)
    }
}

/// Draws on standard error, and only if that is a terminal.
fn new_bar(url: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(UNKNOWN_SIZE).expect("the templates above are right");
    let bar = ProgressBar::no_length().with_style(style);
    bar.set_message(file_of(url).to_owned());
    bar
}

fn file_of(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}
