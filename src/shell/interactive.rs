//! The prompt.
//!
//! ```text
//!               g                              a stop, Ctrl+C
//!   stopped ---------> running: its news are shown ---------> stopped: announced, a line is typed
//!      |  a restart, the freeze budget, SIGTERM end the wait for a key as they end every other
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kd_protocol::kd::DebugIo;
use kd_protocol::link::RunState;

use super::Shell;
use super::after::After;
use super::error::ShellError;
use super::report::{printable, spoken};
use super::typist::{Typed, Typist};
use crate::commands::line::lines;
use crate::session::Watcher;
use crate::source::{Control, IGNORE, Source, Wait};

/// A freeze budget that is about to end is announced this long before, or a fifth of it.
const ANNOUNCED_BEFORE: Duration = Duration::from_secs(10);

/// Reads commands from the terminal until the user quits. The target runs afterwards. A target that is told to stop is
/// waited for `break_in_timeout`.
///
/// # Errors
/// [`ShellError`] if the terminal does not work or answers cannot be written.
pub fn prompt(shell: &mut Shell, break_in_timeout: Duration) -> Result<(), ShellError> {
    shell.forgives_typos = true;
    let watcher = shell.watcher.clone();
    let (typist, show_above) = Typist::start(watcher.clone()).map_err(ShellError::Terminal)?;
    shell.report.writer().show_above_line(show_above);
    let mut talk = Talk {
        source: Arc::clone(shell.debugger.source()),
        watcher,
        shell,
        typist,
        break_in_timeout,
        breaks_in_until: None,
        asked: None,
        told: None,
        is_budget_told: false,
    };
    let result = talk.converse();
    drop(talk);
    shell.report.writer().show_above_line(None);
    shell.leave();
    result
}

/// What goes on between a person and a target.
struct Talk<'a> {
    shell: &'a mut Shell,
    source: Arc<dyn Source>,
    watcher: Watcher,
    typist: Typist,
    break_in_timeout: Duration,
    /// The target is being stopped, until then.
    breaks_in_until: Option<Instant>,
    /// The prompt of the target that the person is being asked.
    asked: Option<DebugIo>,
    /// What the person was told of a target that is not stopped.
    told: Option<RunState>,
    is_budget_told: bool,
}

/// Whether the talk goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goes {
    On,
    Ends,
}

impl Talk<'_> {
    fn converse(&mut self) -> Result<(), ShellError> {
        loop {
            // Whoever is about to be suspended asks nobody for a line.
            self.watcher.wait_out_suspension();
            let standing = self.watcher.standing();
            if let Some(quit) = self.watcher.quit() {
                self.shell.report.status(&format!("{quit} ends verikd"));
                return Ok(());
            }
            if let Some(error) = self.shell.report.writer().failure() {
                return Err(ShellError::Output(error));
            }
            let place = self.shell.place();
            if let Err(error) = self.shell.announce_stop()
                && self.shell.place() == place
            {
                self.shell.report.status(&format!("error: {error}"));
            }
            // After the look at how things stand: what is typed from here on changes that.
            if let Some(typed) = self.typist.typed() {
                match self.take(typed) {
                    Goes::On => continue,
                    Goes::Ends => return Ok(()),
                }
            }
            self.ask_what_is_next();
            let goes = match self.watcher.changed(standing, self.next_look()) {
                Wait::Done(_) => Goes::On,
                Wait::TimedOut => self.look(),
                Wait::Interrupted => self.interrupted(),
                Wait::Ended(why) => {
                    self.shell.report.status(&format!("the session has ended: {why}"));
                    Goes::Ends
                }
            };
            if goes == Goes::Ends {
                return Ok(());
            }
        }
    }

    /// The prompt of the target that nobody has answered.
    fn asking(&self) -> Option<DebugIo> {
        self.source.control().and_then(Control::prompt)
    }

    /// Asks for a line at a stop, for an answer at a prompt of the target; otherwise says that the target runs.
    fn ask_what_is_next(&mut self) {
        if self.typist.is_typing() {
            return;
        }
        if let Some(prompt) = self.asking() {
            self.ask_for_answer(prompt);
        } else if self.shell.is_stopped() {
            self.breaks_in_until = None;
            self.told = None;
            // What is being written belongs above the prompt.
            let watcher = &self.watcher;
            let _ =
                self.shell.report.writer().drain(|| !watcher.is_interrupted() && !watcher.is_budget_spent());
            let prompt = self.shell.prompt_text();
            self.typist.ask(&prompt, true);
        } else if self.breaks_in_until.is_none() {
            self.is_budget_told = false;
            self.say_whether_it_runs();
        }
    }

    /// Says that the target runs once that is known, and that it is not known once a stop.
    fn say_whether_it_runs(&mut self) {
        let text = match (self.told, self.source.run_state()) {
            (Some(RunState::Running), _) | (_, RunState::Stopped) => return,
            (_, RunState::Running) => {
                self.told = Some(RunState::Running);
                "The target is running; Ctrl+C breaks in"
            }
            (Some(_), RunState::Unknown) => return,
            (None, RunState::Unknown)
                if self.source.control().is_some_and(|it| it.line_is_gone().is_some()) =>
            {
                self.told = Some(RunState::Unknown);
                "The line to the target is gone, and whether the target runs is not known; Ctrl+C twice ends verikd"
            }
            (None, RunState::Unknown) => {
                self.told = Some(RunState::Unknown);
                "Whether the target runs is not known; Ctrl+C breaks in, twice ends verikd"
            }
        };
        self.shell.report.status(text);
    }

    /// What the target asks, which stands still until it is answered. Ctrl+C breaks into it, an empty line or the end of the
    /// input ignores what it asks about.
    fn ask_for_answer(&mut self, prompt: DebugIo) {
        let text = printable(&prompt.text);
        // Only the last line can be typed behind.
        let text = text.trim_end();
        let (above, last) = text.rsplit_once('\n').unwrap_or(("", text));
        if !above.is_empty() {
            self.shell.report.status(above);
        }
        self.typist.ask(&format!("{last} "), false);
        self.asked = Some(prompt);
    }

    /// When something is due without anything happening.
    fn next_look(&self) -> Option<Instant> {
        let budget = self.watcher.freeze_deadline();
        let announced = budget.filter(|_| !self.is_budget_told).map(|at| at - self.notice_time());
        [announced.or(budget), self.breaks_in_until].into_iter().flatten().min()
    }

    fn notice_time(&self) -> Duration {
        self.watcher.freeze_budget().map_or(Duration::ZERO, |budget| (budget / 5).min(ANNOUNCED_BEFORE))
    }

    fn look(&mut self) -> Goes {
        let now = Instant::now();
        if self.breaks_in_until.is_some_and(|at| at <= now) {
            self.breaks_in_until = None;
            if let Some(control) = self.source.control() {
                let why = control.gave_up_break_in(Wait::TimedOut, self.break_in_timeout);
                self.shell.report.status(&format!("{why}.\nCtrl+C tries again; twice ends verikd"));
            }
        }
        if self.watcher.is_budget_spent() {
            self.shell.go();
            if self.source.run_state() == RunState::Running {
                self.shell.report.status("The freeze budget is spent; the target runs on");
            }
        } else if let Some(at) = self.watcher.freeze_deadline().filter(|_| !self.is_budget_told) {
            self.is_budget_told = true;
            let left = at.saturating_duration_since(now);
            let left = Duration::from_millis(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
            self.shell
                .report
                .status(&format!("The freeze budget ends in {}: the target runs then", spoken(left)));
        }
        Goes::On
    }

    fn take(&mut self, typed: Typed) -> Goes {
        if let Some(prompt) = self.asked.take() {
            // It may have gone on by itself meanwhile: a restart, another debugger.
            let is_asking = self.asking().as_ref() == Some(&prompt);
            let answer = match &typed {
                Typed::Line(answer) if !answer.trim().is_empty() => {
                    Bytes::copy_from_slice(answer.trim().as_bytes())
                }
                Typed::Interrupted => Bytes::from_static(b"b"),
                _ => Bytes::from_static(IGNORE),
            };
            match typed {
                Typed::Failed(_) => {}
                _ if is_asking => {
                    if let Some(control) = self.source.control() {
                        control.answer_prompt(prompt, answer);
                    }
                    return Goes::On;
                }
                // What answers a question is no command.
                Typed::Line(_) => {
                    self.shell.report.status("The target does not ask any more");
                    return Goes::On;
                }
                _ => {}
            }
        }
        match typed {
            Typed::Line(line) => self.run(&line),
            Typed::Interrupted if self.shell.is_stopped() => {
                self.shell.report.status(match self.source.control() {
                    Some(_) => "The target is stopped; g lets it run, qd lets it run and ends verikd",
                    None => "q ends verikd",
                });
                Goes::On
            }
            Typed::Interrupted => self.interrupted(),
            Typed::End => Goes::Ends,
            Typed::Failed(error) => {
                self.shell.report.status(&format!("the terminal: {error}"));
                Goes::Ends
            }
        }
    }

    /// Ctrl+C: breaks in, or ends that.
    fn interrupted(&mut self) -> Goes {
        let Some(control) = self.source.control() else { return Goes::On };
        if self.watcher.quit().is_some() || self.shell.is_stopped() {
            return Goes::On;
        }
        if self.breaks_in_until.take().is_some() {
            control.cancel_break_in();
            return Goes::Ends;
        }
        self.shell.report.status("breaking in; Ctrl+C again ends verikd and leaves the target as it is");
        control.request_break_in();
        self.breaks_in_until = Some(Instant::now() + self.break_in_timeout);
        Goes::On
    }

    fn run(&mut self, text: &str) -> Goes {
        self.watcher.take_interrupt();
        // Whoever types a line wants to know whether the target answers again.
        if let Some(control) = self.source.control() {
            control.try_again();
        }
        for line in lines(text) {
            let mut is_whole = self.shell.takes(&line);
            for command in line.commands() {
                if self.shell.holds_back(command, is_whole) {
                    break;
                }
                if let Some(lost) = self.shell.lost() {
                    self.shell.not_run(command, &lost);
                    continue;
                }
                match self.shell.run(command) {
                    After::Next => is_whole &= self.shell.went_well(),
                    After::Running => return Goes::On,
                    After::Quit => return Goes::Ends,
                }
                if self.watcher.quit().is_some() {
                    return Goes::On;
                }
            }
        }
        Goes::On
    }
}
