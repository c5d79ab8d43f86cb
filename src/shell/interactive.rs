//! The prompt.
//!
//! ```text
//!               g                              a stop, Ctrl+C
//!   stopped ---------> running: its news are shown ---------> stopped: announced; what was left of a line that let it run
//!      |   a line is typed in every state, and its prompt shows which; only what needs a stopped target has to wait
//!      |   a restart, the freeze budget, SIGTERM end the wait for a key as they end every other
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kd_protocol::kd::DebugIo;
use kd_protocol::link::RunState;

use super::after::After;
use super::agenda::{Agenda, Next};
use super::error::ShellError;
use super::live_prompt::Kind;
use super::report::{printable, spoken};
use super::terminal;
use super::typist::{Typed, Typist};
use super::writer::Drained;
use super::{STEP, Shell};
use crate::commands::{self, Completions, completions_of_target};
use crate::memory::StopId;
use crate::session::Watcher;
use crate::source::{BootId, Control, IGNORE, Source, Wait};

/// A freeze budget that is about to end is announced this long before, or a fifth of it.
const ANNOUNCED_BEFORE: Duration = Duration::from_secs(10);
/// A text that is not written within this waits for the editor.
const STUCK: Duration = Duration::from_secs(1);

/// Runs the commands of `first`, then reads others from the terminal until the user quits. The target runs afterwards. A
/// target that is told to stop is waited for `break_in_timeout`.
///
/// # Errors
/// [`ShellError`] if the terminal does not work or answers cannot be written.
pub fn prompt(shell: &mut Shell, first: &str, break_in_timeout: Duration) -> Result<(), ShellError> {
    shell.forgives_typos = true;
    let watcher = shell.watcher.clone();
    let (typist, show_above) = Typist::start(watcher.clone()).map_err(ShellError::Terminal)?;
    shell.report.writer().show_above_line(show_above);
    if let Some(terminal) = terminal::open() {
        shell.report.writer().fall_back_to(terminal);
    }
    let mut talk = Talk {
        source: Arc::clone(shell.debugger.source()),
        watcher,
        shell,
        typist,
        break_in_timeout,
        breaks_in_until: None,
        asked: None,
        left: Agenda::of(first),
        left_at: None,
        stops_boot_after: None,
        let_run_at: Instant::now(),
        told: None,
        is_budget_told: false,
        insists: Insists::No,
        again: None,
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
    /// What is left of lines that have let the target run: it is run when it has stopped again.
    left: Agenda,
    /// Which stop of which boot that was.
    left_at: Option<(BootId, StopId)>,
    /// The target restarts; it is stopped when it is in another boot than this.
    stops_boot_after: Option<BootId>,
    /// When a command has let it run last.
    let_run_at: Instant,
    /// What the person was told of a target that is not stopped.
    told: Option<RunState>,
    is_budget_told: bool,
    insists: Insists,
    /// What Enter alone does once more.
    again: Option<String>,
}

/// What Ctrl+C has come to since the last line was typed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Insists {
    No,
    /// It ended a command.
    EndedCommand,
    /// It came once more: leaving was offered.
    OfferedToLeave,
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
            // Before the stop is told, which draws the line anew.
            self.typist.stands(self.kind());
            let place = self.shell.place();
            let stands = self.shell.announce_stop().unwrap_or_else(|error| {
                if self.shell.place() == place {
                    self.shell.report.status(&format!("error: {error}"));
                }
                self.shell.is_stopped()
            });
            if std::mem::take(&mut self.shell.is_cut_short) {
                for command in std::mem::take(&mut self.left).take_commands() {
                    self.shell.not_run(&command, "Ctrl+C ended the steps before it");
                }
            }
            if stands {
                self.breaks_in_until = None;
                // A line may be there already that lets it run: then that is news again.
                self.told = None;
            }
            // After the look at how things stand: what is typed from here on changes that.
            if let Some((typed, is_answer)) = self.typist.typed() {
                match self.take(typed, is_answer) {
                    Goes::On => continue,
                    Goes::Ends => return Ok(()),
                }
            }
            if let Some(commands) = self.shell.take_commands() {
                match self.carry_out(Agenda::of(&commands), true) {
                    Goes::On => continue,
                    Goes::Ends => return Ok(()),
                }
            }
            if !self.left.is_empty() && stands && self.left_at != Some(self.shell.place()) {
                let left = std::mem::take(&mut self.left);
                match self.carry_out(left, true) {
                    Goes::On => continue,
                    Goes::Ends => return Ok(()),
                }
            }
            self.stop_next_boot();
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

    /// Stops a target that was restarted in order to be stopped, once it is back.
    fn stop_next_boot(&mut self) {
        let is_back = self.stops_boot_after.is_some_and(|before| before != self.source.boot());
        if is_back {
            self.stops_boot_after = None;
            self.break_in("breaking in; Ctrl+C ends verikd and leaves the target as it is");
        }
    }

    fn break_in(&mut self, told: &str) {
        let Some(control) = self.source.control().filter(|_| !self.shell.is_stopped()) else { return };
        self.shell.report.status(told);
        control.request_break_in();
        self.breaks_in_until = Some(Instant::now() + self.break_in_timeout);
    }

    /// How the target stands, for the prompt.
    fn kind(&self) -> Kind {
        if self.asking().is_some() {
            Kind::Asks
        } else if self.shell.is_stopped() {
            Kind::Stopped(self.shell.debugger.processor())
        } else {
            Kind::Busy
        }
    }

    /// Asks for a line, and shows what the target asks, or that it runs.
    fn ask_what_is_next(&mut self) {
        let asking = self.asking();
        if asking.is_none() {
            self.asked = None;
        }
        if let Some(prompt) = asking {
            if self.asked.as_ref() != Some(&prompt) {
                // That an earlier one was answered comes before it.
                self.shell.teller.tell();
                self.shell.report.status(&format!("{} ", printable(&prompt.text).trim_end()));
                self.asked = Some(prompt);
            }
        } else if !self.shell.is_stopped() && self.breaks_in_until.is_none() {
            self.is_budget_told = false;
            self.say_whether_it_runs();
        }
        if self.typist.is_typing() {
            return;
        }
        self.write_above();
        self.typist.ask();
    }

    /// What is being written belongs above the prompt. A text that was handed to the editor just as its line ended is shown by
    /// it when it has the next one, which must not wait for that text then.
    fn write_above(&self) {
        let (watcher, writer) = (&self.watcher, self.shell.report.writer());
        let mut oldest = writer.oldest();
        loop {
            let until = Instant::now() + STUCK;
            let is_wanted = || !watcher.is_interrupted() && !watcher.is_budget_spent();
            let drained = writer.drain(|| Instant::now() < until && is_wanted());
            let still = writer.oldest();
            if !matches!(drained, Drained::GivenUp) || !is_wanted() || still == oldest {
                return;
            }
            oldest = still;
        }
    }

    /// Says that the target runs once that is known, and that it is not known once a stop.
    fn say_whether_it_runs(&mut self) {
        if self.step_is_over_by().is_some_and(|at| Instant::now() < at) {
            return;
        }
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

    /// When something is due without anything happening.
    fn next_look(&self) -> Option<Instant> {
        let budget = self.watcher.freeze_deadline();
        let announced = budget.filter(|_| !self.is_budget_told).map(|at| at - self.notice_time());
        let step = self.step_is_over_by().filter(|at| *at > Instant::now());
        [announced.or(budget), self.breaks_in_until, step].into_iter().flatten().min()
    }

    /// Until when it is no news that a target runs which makes a step.
    fn step_is_over_by(&self) -> Option<Instant> {
        let is_on_its_way = self.shell.debugger.is_stepping() && !self.shell.is_stopped();
        is_on_its_way.then(|| self.let_run_at + STEP)
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

    fn take(&mut self, typed: Typed, is_answer: bool) -> Goes {
        if let Typed::Tab(number, line) = typed {
            let target = self.shell.debugger.target();
            let found =
                target.map_or_else(|| Completions::none(&line), |it| completions_of_target(&line, &it));
            self.typist.completes(number, found);
            return Goes::On;
        }
        if is_answer && !matches!(typed, Typed::Failed(_)) && !self.typist.is_closed() {
            return self.answer(typed);
        }
        match typed {
            Typed::Line(line) => self.run(&line),
            // Whoever wants to have it stopped wants no breakpoint's commands that let it run again.
            Typed::Interrupted if self.shell.take_commands().is_some() => Goes::On,
            Typed::Interrupted if self.shell.is_stopped() && self.shell.debugger.steps_left() == 0 => {
                self.interrupted_at_rest()
            }
            Typed::Interrupted => self.interrupted(),
            // The signal that says so may come after the end of the input.
            Typed::End | Typed::Failed(_) if self.typist.is_closed() => {
                self.watcher.hang_up();
                Goes::On
            }
            Typed::End => Goes::Ends,
            Typed::Failed(error) => {
                self.shell.report.status(&format!("the terminal: {error}"));
                Goes::Ends
            }
            Typed::Tab(..) => Goes::On,
        }
    }

    /// Answers the target. Ctrl+C breaks into it, an empty line or the end of the input ignores what it asks about.
    fn answer(&mut self, typed: Typed) -> Goes {
        let asked = self.asked.take();
        // It may have gone on by itself meanwhile: a restart, another debugger.
        if let Some(prompt) = asked.filter(|prompt| self.asking().as_ref() == Some(prompt)) {
            let answer = match &typed {
                Typed::Line(answer) if !answer.trim().is_empty() => {
                    Bytes::copy_from_slice(answer.trim().as_bytes())
                }
                Typed::Interrupted => Bytes::from_static(b"b"),
                _ => Bytes::from_static(IGNORE),
            };
            if let Some(control) = self.source.control() {
                control.answer_prompt(prompt, answer);
            }
        } else if matches!(typed, Typed::Line(_)) {
            // What answers a question is no command.
            self.shell.report.status("The target does not ask any more");
        } else if matches!(typed, Typed::Interrupted) {
            return self.interrupted();
        }
        Goes::On
    }

    /// Ctrl+C at the prompt of a stopped target: whoever has just ended a command so wants to get away, perhaps.
    fn interrupted_at_rest(&mut self) -> Goes {
        match self.insists {
            Insists::OfferedToLeave => return Goes::Ends,
            Insists::EndedCommand => self.offer_to_leave(),
            Insists::No => self.shell.report.status(match self.source.control() {
                Some(_) => "The target is stopped; g lets it run, qd lets it run and ends verikd",
                None => "q ends verikd",
            }),
        }
        Goes::On
    }

    fn offer_to_leave(&mut self) {
        self.insists = Insists::OfferedToLeave;
        self.shell.report.status(match self.source.control() {
            Some(_) => "Ctrl+C once more lets the target run and ends verikd; any command goes on here",
            None => "Ctrl+C once more ends verikd; any command goes on here",
        });
    }

    /// Ctrl+C: breaks in, or ends that.
    fn interrupted(&mut self) -> Goes {
        let Some(control) = self.source.control() else { return Goes::On };
        // Between two steps it stands still, and goes on by itself.
        self.shell.is_stop_wanted = true;
        if self.watcher.quit().is_some() || self.shell.is_stopped() {
            return Goes::On;
        }
        if self.breaks_in_until.take().is_some() {
            control.cancel_break_in();
            return Goes::Ends;
        }
        self.break_in("breaking in; Ctrl+C again ends verikd and leaves the target as it is");
        Goes::On
    }

    fn run(&mut self, text: &str) -> Goes {
        self.insists = Insists::No;
        self.watcher.take_interrupt();
        // Whoever types a line wants to know whether the target answers again.
        if let Some(control) = self.source.control() {
            control.try_again();
        }
        let text = match text.trim() {
            "" => self.again.clone().filter(|_| self.shell.is_stopped()).unwrap_or_default(),
            text => {
                self.again = commands::goes_on(text).then(|| text.to_owned());
                text.to_owned()
            }
        };
        let agenda = Agenda::of(&text);
        // Of lines that were pasted together, each is shown before its answer.
        let is_echoed = agenda.has_lines();
        self.carry_out(agenda, is_echoed)
    }

    fn carry_out(&mut self, mut agenda: Agenda, mut is_echoed: bool) -> Goes {
        let interrupts = self.watcher.interrupts();
        let place = self.shell.place();
        let mut is_whole = true;
        while let Some(next) = agenda.next() {
            let (command, begins_line) = match next {
                Next::Command { text, begins_line } => (text, begins_line),
                Next::Refused(line) => {
                    self.shell.takes(&line);
                    continue;
                }
            };
            is_whole |= begins_line;
            if self.shell.holds_back(&command, is_whole, &mut agenda) {
                continue;
            }
            if let Some(lost) = self.shell.lost() {
                self.shell.not_run(&command, &lost);
                continue;
            }
            let boot = self.source.boot();
            let after = if is_echoed {
                self.shell.run_echoed(&command)
            } else {
                self.shell.report.echo_to_log(&self.shell.prompt_text(), &command);
                self.shell.run(&command)
            };
            is_whole &= self.shell.went_well();
            match after {
                After::Next => {}
                After::Running | After::Restarting => {
                    self.let_run_at = Instant::now();
                    self.stops_boot_after = (after == After::Restarting).then_some(boot);
                    agenda.append(std::mem::take(&mut self.left));
                    self.left = agenda;
                    self.left_at = Some(place);
                    return Goes::On;
                }
                After::Quit => return Goes::Ends,
                After::Lines(text) => {
                    is_echoed = true;
                    if let Err(why) = agenda.put_file_first(&text) {
                        self.shell.cannot(&command, why);
                    }
                }
            }
            if self.watcher.quit().is_some() {
                return Goes::On;
            }
            let pressed = self.watcher.interrupts().wrapping_sub(interrupts);
            if pressed > 0 {
                self.insists = Insists::EndedCommand;
                if pressed > 1 && self.shell.is_stopped() {
                    self.offer_to_leave();
                }
                for command in agenda.take_commands() {
                    self.shell.not_run(&command, "Ctrl+C ended what was before it");
                }
            }
        }
        Goes::On
    }
}
