//! The shell's part in a stop and in a going: what is said of it, what it has cost, what follows.

use super::error::ShellError;
use super::worst::Worst;
use super::{Shell, ShellObserver, report};
use crate::commands::{ControlCommand, EventCause, LastEvent};
use crate::debugger::{AskError, DebugError, Stats, Stop, StopCause, StopsOver};
use crate::memory::StopId;
use crate::source::{BootId, Control, Resumed};

/// What is paid beside commands.
const STOP: &str = "(stop)";
const RESUME: &str = "(resume)";

impl Shell {
    /// Stops the target and says where.
    ///
    /// # Errors
    /// [`ShellError`].
    pub fn break_in(&mut self) -> Result<(), ShellError> {
        let before = self.debugger.stats();
        let stop = self.debugger.break_in(&mut ShellObserver { report: &self.report, teller: &self.teller });
        self.teller.tell();
        self.announced = Some(self.place());
        let announced = self.announce(stop.map(Some));
        self.count(STOP, before);
        announced
    }

    /// Stops the target for as long as it takes to say who it is, and lets it run.
    ///
    /// # Errors
    /// [`ShellError`].
    pub fn identify(&mut self) -> Result<(), ShellError> {
        let mut observer = ShellObserver { report: &self.report, teller: &self.teller };
        let identified = self.debugger.identify(&mut observer);
        self.teller.tell();
        if let Err(DebugError::NotResumed(_)) = identified {
            self.worst = Worst::MayBeStopped;
        }
        Ok(identified?)
    }

    /// Says why and where the target is stopped, each stop once. True if it stands at a stop that was announced: one that comes
    /// while this ends is not.
    ///
    /// # Errors
    /// [`ShellError`].
    pub(super) fn announce_stop(&mut self) -> Result<bool, ShellError> {
        loop {
            // In this order: a stop that comes in between is not taken for the last one.
            if self.source().stopped().is_none() {
                return Ok(false);
            }
            let place = self.place();
            if self.announced == Some(place) {
                return Ok(true);
            }
            // Each stop is tried once; one that follows while this one is looked at is another.
            self.announced = Some(place);
            let mut observer = ShellObserver { report: &self.report, teller: &self.teller };
            let before = self.debugger.stats();
            let stop = self.debugger.present_stop(self.may_go_on(), &mut observer);
            self.teller.tell();
            let is_shown = matches!(stop, Ok(Some(_)));
            let announced = self.announce(stop);
            self.count(STOP, before);
            announced?;
            if let Some(event) = self.last_event.clone().filter(|_| is_shown) {
                let answered = self.debugger.answer_alone(Box::new(event), self.debugger.stats());
                self.report.stop_behind(STOP, &answered);
            }
            self.step_on();
        }
    }

    /// Makes the next of several steps, unless somebody wants to have the target stopped.
    pub(super) fn step_on(&mut self) {
        let left = self.debugger.steps_left();
        if left == 0 || !self.is_stopped() {
            return;
        }
        if !self.may_go_on() {
            // That was what Ctrl+C was for, and not the next command.
            self.watcher.take_interrupt();
            self.debugger.drop_steps();
            self.is_cut_short = true;
            return self.report.status(&format!("{left:#x} further steps are not made"));
        }
        let mut observer = ShellObserver { report: &self.report, teller: &self.teller };
        match self.debugger.step_on(&mut observer) {
            Ok(resumed) => self.resumed(&resumed),
            Err(error) => {
                self.worst = self.worst.max(Worst::Failed);
                self.report.status(&format!("error: {left:#x} further steps are not made: {error}"));
            }
        }
    }

    /// Shows and keeps what was paid since `before` beside commands: a machine pays for its whole stop.
    pub(super) fn count(&mut self, what: &'static str, before: Stats) {
        let stats = self.debugger.stats().since(before);
        if stats.requests > 0 {
            if self.report.keeps_cost_beside() {
                self.paid_beside.push((what, stats));
            } else {
                self.report.cost_beside(what, stats, self.debugger.stamp());
            }
            let need = self.debugger.take_need();
            self.debugger.costs_mut().add(what, stats, need, Vec::new());
        }
    }

    pub(super) fn announce(&mut self, stop: Result<Option<Stop>, DebugError>) -> Result<(), ShellError> {
        if let Some(stop) = stop? {
            let event = report::event_of(&stop);
            let (symbol, at) = (stop.symbol.to_string(), self.debugger.stamp().unix_ms);
            let cause = match stop.cause {
                StopCause::Event => (EventCause::Event, None),
                StopCause::Breakpoint(number) => (EventCause::Breakpoint, Some(number)),
                StopCause::Arrived => (EventCause::Arrived, None),
            };
            let last = LastEvent::new(event, cause, stop.change.processor, stop.program_counter, symbol, at);
            self.last_event = Some(last).filter(|_| !report::is_nowhere(&stop));
            let commands = self.debugger.commands_at(stop.cause);
            let has_commands = commands.is_some();
            // Whoever has pressed Ctrl+C wants to have the target stopped.
            self.commands = commands.filter(|_| self.may_go_on());
            self.report.stop(&stop, self.teller.take_fatal_text());
            if has_commands && self.watcher.interrupts() != self.interrupts_at_go {
                self.watcher.take_interrupt();
                self.report.status("The breakpoint's commands are not run, since Ctrl+C was pressed");
            }
        }
        Ok(())
    }

    /// Which stop of which boot is the present one.
    pub(super) fn place(&self) -> (BootId, StopId) {
        (self.source().boot(), self.source().stop())
    }

    /// A question whose stops were short ends in another stop than it was asked in. That is no news if it was broken in for
    /// the question; a machine that stopped by itself has something to say.
    pub(super) fn see_last_stop(&mut self) {
        match self.debugger.stops_over() {
            StopsOver { stops: 0, .. } => {}
            StopsOver { by_itself: false, .. } => self.announced = Some(self.place()),
            StopsOver { by_itself: true, .. } => {
                if let Err(error) = self.announce_stop() {
                    self.report.status(&format!("error: {error}"));
                }
            }
        }
    }

    /// Lets the target run as a command wants it.
    pub(super) fn go_on(&mut self, command: ControlCommand, arguments: &str) -> Result<Resumed, AskError> {
        // Whoever presses Ctrl+C from here on wants no pass of a breakpoint to let it run again.
        self.interrupts_at_go = self.watcher.interrupts();
        (self.is_stop_wanted, self.is_cut_short) = (false, false);
        let mut observer = ShellObserver { report: &self.report, teller: &self.teller };
        let resumed = match command {
            ControlCommand::Go => self.debugger.go_to(arguments, &mut observer)?,
            step => self.debugger.step(step, arguments, &mut observer)?,
        };
        self.resumed(&resumed);
        Ok(resumed)
    }

    /// True unless somebody wanted to stop the target since it was let run, or nobody reads what comes of it.
    pub(super) fn may_go_on(&self) -> bool {
        let is_break_in = self.control().is_some_and(Control::is_break_in);
        let is_wanted = self.watcher.interrupts() == self.interrupts_at_go && self.watcher.quit().is_none();
        !is_break_in && is_wanted && !self.is_stop_wanted && !self.report.writer().is_unread()
    }

    /// What a breakpoint that the target has come by is to have run.
    pub(super) fn take_commands(&mut self) -> Option<String> {
        self.commands.take()
    }

    /// Lets the target run, if it is stopped.
    pub fn go(&mut self) -> Resumed {
        let resumed = self.debugger.go();
        self.resumed(&resumed);
        resumed
    }

    /// Lets the target run for good, and says so loudly if nobody knows whether it does.
    pub fn leave(&mut self) {
        let before = self.debugger.stats();
        // Whoever has to go at once asks nothing more.
        if self.ended_by.is_none() && self.watcher.quit().is_none() {
            let mut observer = ShellObserver { report: &self.report, teller: &self.teller };
            self.debugger.take_left_away(&mut observer);
        }
        let resumed = self.debugger.leave();
        self.teller.tell();
        // Whoever leaves twice, to end a script and at its end, warns once.
        let place = Some(self.place());
        if self.warned_at != place || resumed == Resumed::Running {
            self.resumed(&resumed);
        }
        self.warned_at = place.filter(|_| matches!(resumed, Resumed::MayBeStopped(_)));
        self.count(RESUME, before);
        for (what, stats) in std::mem::take(&mut self.paid_beside) {
            self.report.cost_beside(what, stats, self.debugger.stamp());
        }
    }

    pub(super) fn resumed(&mut self, resumed: &Resumed) {
        if let Resumed::MayBeStopped(_) = resumed {
            self.worst = Worst::MayBeStopped;
        }
        let is_taken_back = self.report.source_resumed(self.source(), resumed);
        if is_taken_back && self.worst == Worst::MayBeStopped {
            self.worst = Worst::Failed;
        }
    }
}
