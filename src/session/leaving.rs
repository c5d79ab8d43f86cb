//! Letting the target run: after one stop, and for good.
//!
//! ```text
//!   stopped --> program counter moved (leaving_stop) --> Continue, repeated --> the target says that it runs
//!      ^                                                                              |
//!      `-- it stops again: a break-in too many, another assertion <-- a moment -------'
//! ```
//! What is planted in its memory is taken back first when it is left for good; one that runs is stopped for that.
//! Whoever stops a machine lets it run again. Silence is no proof that it does; where there is none, that is said.

use std::cell::Cell;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kd_protocol::MachineType;
use kd_protocol::kd::{Manipulate, StateChange, VersionFlags};
use kd_protocol::link::{Peer, RequestError, RunState};

use super::leaving_stop::{Leaving, stepped_over};
use super::monitor::State;
use super::order::{Cut, Left, Order, Reply};
use super::{Session, context, version};
use crate::memory::StopId;
use crate::source::{BootId, Control, Halt, IGNORE, Resumed, Source, Step, Wait, breakpoints_stay};

/// A target that obeys a break-in late does so within this: a lost state change is repeated after half a second.
const LATE_STOP: Duration = Duration::from_millis(1200);
/// A machine that has something to say as soon as it runs, another bug check, a prompt, an assertion, says it within this.
const MOMENT: Duration = Duration::from_millis(200);
/// Between two lines of one that talks there is less than this: a round trip, the kernel's own work.
const PAUSE: Duration = Duration::from_secs(1);
/// One that goes on talking, as a bug-checking kernel does before it stops, is listened to for this long.
const LONGEST_TALK: Duration = Duration::from_secs(5);
/// The same for whoever has to go.
const HURRIED_LATE_STOP: Duration = Duration::from_millis(700);
/// Whoever has to go gives a target that says something this long, ...
const HURRIED: Duration = Duration::from_millis(1800);
/// ... one behind a serial line this long, where each damaged packet costs half a second of it, ...
const HURRIED_OVER_LINE: Duration = Duration::from_secs(5);
/// ... and one that says nothing at all this long.
const HURRIED_SILENT: Duration = Duration::from_millis(850);
/// Stops that follow one upon another are left this often.
const MOST_STOPS: usize = 64;
/// The boot that a session meets first: it was up before.
const FIRST_BOOT: BootId = BootId(1);
/// How often it is looked whether somebody has to go.
const LOOK: Duration = Duration::from_millis(25);

/// One going: when it began, and whether somebody has to go.
struct Going<'a> {
    session: &'a Session,
    since: Instant,
    patience: Duration,
    is_hurried: Cell<bool>,
    /// Nobody answers for the target afterwards.
    is_for_good: bool,
}

impl Session {
    /// Lets the stopped target run and waits until it says so. A surplus break-in of this side, which stops it at once
    /// again, is left too.
    pub(super) fn leave_stop(&self) -> Resumed {
        self.alone(|| self.leave_this_stop())
    }

    fn leave_this_stop(&self) -> Resumed {
        let going = Going::new(self);
        let Some(stop) = self.stopped() else { return going.without_stop() };
        // A break-in too many stops where break-ins do: a machine that stops by itself may do so again at once, at the same place.
        let is_break_in = self.monitor.get(|state| state.is_break_in);
        let resumed = going.leave_stop(&stop);
        if resumed == Resumed::Running && is_break_in && self.monitor.get(|state| state.may_stop_again) {
            let at = stop.program_counter;
            if let Some(again) = going.stops_within(LATE_STOP, Duration::ZERO, |it| it.program_counter == at)
            {
                return going.leave_stop(&again);
            }
        }
        resumed
    }

    /// Lets the processor that stopped carry out one instruction. A stop follows, or there is one already.
    pub(super) fn trace_stop(&self) -> Resumed {
        self.alone(|| self.trace_this_stop())
    }

    fn trace_this_stop(&self) -> Resumed {
        let going = Going::new(self);
        let Some(stop) = self.stopped() else { return going.without_stop() };
        let (leaving, moved) = going.prepare(&stop);
        let stepped = moved.map(|len| Box::new(stepped_over(&stop, len)));
        let order = |reply| match stepped {
            // To carry out the next one too would be a step too many.
            Some(stepped) => Order::Stepped(reply, stepped),
            None => Order::Trace(reply, leaving.status),
        };
        match going.carry_out(Step::Resume, order) {
            Ok(Left::Runs | Left::StoppedAgain) => Resumed::Running,
            Ok(Left::NotStopped) => going.without_stop(),
            Ok(Left::Unproven) | Err(Cut::Interrupted | Cut::BudgetSpent) => going.unproven(),
            Err(Cut::Ended) => Resumed::MayBeStopped("the session has ended".into()),
        }
    }

    /// Lets the target run for good: also one that stops again at once, as long as that takes. Nothing is done if this
    /// session does not hold it.
    pub(super) fn leave_for_good(&self) -> Resumed {
        self.alone(|| self.leave_alone())
    }

    /// Who asks, who suspends the program and who ends it may let the target run at once: one after the other, or each would
    /// undo what the other does.
    fn alone(&self, leave: impl FnOnce() -> Resumed) -> Resumed {
        let is_alone = |state: &mut State| {
            let is_free = !std::mem::replace(&mut state.is_being_left, true);
            is_free.then_some(())
        };
        // One who takes as long as nobody should is not waited for.
        let _ = self.monitor.wait_to_the_end(Instant::now() + LONGEST_TALK, is_alone);
        let left = leave();
        self.monitor.update(|state| state.is_being_left = false);
        left
    }

    fn leave_alone(&self) -> Resumed {
        if self.monitor.get(|state| state.has_left) {
            // What was tried with the whole patience is not tried again: no stop has come since.
            return self.with_what_stays(Going::new(self).without_stop());
        }
        let resumed = self.leave_each_stop();
        self.monitor.note(|state| state.has_left = true);
        self.with_what_stays(resumed)
    }

    /// A target in which something stayed runs until it meets that.
    fn with_what_stays(&self, resumed: Resumed) -> Resumed {
        let armed = self.breakpoints();
        let planted = self.in_target().map(|it| it.planted.stays());
        let is_32_bit =
            self.monitor.get(|state| state.version).is_some_and(|it| !it.flags.contains(VersionFlags::PTR64));
        let armed = (!armed.is_empty()).then(|| breakpoints_stay(&armed, if is_32_bit { 4 } else { 8 }));
        let stays: Vec<_> = planted.into_iter().chain(armed).collect();
        if stays.is_empty() {
            return resumed;
        }
        let stays = stays.join("; ");
        match resumed {
            Resumed::MayBeStopped(why) => Resumed::MayBeStopped(format!("{why}; {stays}")),
            _ => Resumed::MayBeStopped(stays),
        }
    }

    fn leave_each_stop(&self) -> Resumed {
        let mut going = Going { is_for_good: true, ..Going::new(self) };
        going.stop_to_take_back();
        for _ in 0..MOST_STOPS {
            // Each stop has the whole patience.
            going.since = Instant::now();
            let resumed = match self.stopped() {
                Some(stop) => going.leave_stop(&stop),
                None if self.waits_at_prompt() => going.leave_prompt(),
                None if going.stops_after_all() || going.line_comes_back() => continue,
                None => return going.without_stop(),
            };
            if resumed != Resumed::Running {
                return resumed;
            }
            // A machine that stopped by itself may do so again, and one that came upon a break-in too many stops for that.
            let (by_itself, once_more) = self
                .monitor
                .get(|state| (!state.is_break_in, state.may_stop_again || state.may_remember_break_in));
            let moment = if by_itself || once_more { going.late_stop() } else { MOMENT };
            let opening = if by_itself { moment } else { MOMENT };
            if going.stops_within(moment, opening, |_| true).is_none() && !self.waits_at_prompt() {
                return Resumed::Running;
            }
        }
        Resumed::MayBeStopped(format!("it stopped again each of {MOST_STOPS} times that it was let run"))
    }

    /// Gives up stopping the target. A break-in that is on its way may stop it all the same, for nobody; so this waits a
    /// moment for that, and lets it run.
    pub(super) fn give_up_break_in(&self) {
        self.order(Order::CancelBreakIn);
        let going = Going::new(self);
        if going.stops_within(going.late_stop(), going.late_stop(), |_| true).is_some() {
            self.leave_for_good();
            return;
        }
        // A target that is heard would have said that it stopped. Of one that is not, nobody knows.
        self.monitor.update(|state| {
            let is_heard = state.last_heard >= state.break_in_at;
            state.is_held |= state.break_in_at.is_some() && !is_heard;
            if state.is_held {
                state.set_run_state(RunState::Unknown);
            }
        });
    }
}

impl<'a> Going<'a> {
    fn new(session: &'a Session) -> Self {
        Self {
            session,
            since: Instant::now(),
            patience: session.leave_timeout,
            is_hurried: Cell::new(false),
            is_for_good: false,
        }
    }

    /// True once somebody has to go: the program is to end, or Ctrl+C was pressed at what takes long.
    fn is_hurried(&self) -> bool {
        if self.has_to_go() || self.session.monitor.take_interrupt() {
            self.is_hurried.set(true);
        }
        self.is_hurried.get()
    }

    fn has_to_go(&self) -> bool {
        self.session.monitor.get(|state| state.is_hurried) || self.session.monitor.quit_reason().is_some()
    }

    /// Stops a running target that has something of this side in its memory. One that does not stop is told of.
    fn stop_to_take_back(&self) {
        let session = self.session;
        let has_nothing = !session.monitor.get(State::has_in_target);
        if has_nothing || session.stopped().is_some() || session.waits_at_prompt() {
            return;
        }
        session.request_break_in();
        let stands_still = |state: &mut State| {
            let is_over = !state.has_in_target() || state.stopped.is_some() || state.waits_at_prompt;
            is_over.then_some(())
        };
        if self.wait(&mut { stands_still }) != Wait::Done(()) {
            session.order(Order::CancelBreakIn);
            // It may obey late.
            session.monitor.note(|state| state.is_held = true);
        }
    }

    /// True if the machine restarted or was let go a moment ago, and stops by itself, or asks, before that moment is over. It is
    /// longer where that was a stop of its own: a bug check stops twice.
    fn stops_after_all(&self) -> bool {
        let session = self.session;
        let late = self.late_stop();
        let until = session.monitor.get(|state| {
            let booted = state.boot_at.filter(|_| state.boot > FIRST_BOOT).map(|at| at + late);
            let may_stop_again = state.may_stop_again || state.may_remember_break_in;
            let moment = if may_stop_again || !state.is_break_in { late } else { MOMENT };
            booted.max(state.let_go_at.map(|at| at + moment))
        });
        let rest = until.map(|until| until.saturating_duration_since(Instant::now())).unwrap_or_default();
        !rest.is_zero() && (self.stops_within(rest, rest, |_| true).is_some() || session.waits_at_prompt())
    }

    /// True if the line to a target that this session holds was gone, and the target is stopped behind it as before now that it is
    /// there again. A session whose line has ended for good has ended too.
    fn line_comes_back(&self) -> bool {
        let is_gone = self
            .session
            .monitor
            .get(|state| state.is_held && state.line.ends > 0 && state.run_state == RunState::Unknown);
        let is_known = |state: &mut State| {
            let is_known = state.stopped.is_some() || state.run_state == RunState::Running;
            is_known.then_some(state.stopped.is_some())
        };
        is_gone && self.wait(&mut { is_known }) == Wait::Done(true)
    }

    fn late_stop(&self) -> Duration {
        if self.is_hurried() { HURRIED_LATE_STOP } else { LATE_STOP }
    }

    fn deadline(&self) -> Instant {
        if !self.is_hurried() {
            return self.since + self.patience;
        }
        let (heard, peer) = self.session.monitor.get(|state| (state.last_heard, state.peer));
        let is_heard = heard.is_some_and(|at| at >= self.since);
        self.since
            + match peer {
                _ if !is_heard => HURRIED_SILENT,
                Some(Peer::Kdcom) => HURRIED_OVER_LINE,
                _ => HURRIED,
            }
    }

    /// What there is to say of a target that is not known to be stopped.
    fn without_stop(&self) -> Resumed {
        if self.session.waits_at_prompt() {
            return self.waits_at_prompt();
        }
        let is_held = self.session.monitor.get(|state| state.is_held);
        match self.session.run_state() {
            RunState::Running => Resumed::Running,
            _ if !is_held => Resumed::Running,
            _ => self.unproven(),
        }
    }

    /// Ignores what the target asks about, and waits until it has taken the answer. Who is leaving asks nobody.
    fn leave_prompt(&self) -> Resumed {
        if let Some(prompt) = self.session.prompt() {
            self.session.answer_prompt(prompt, Bytes::from_static(IGNORE));
        }
        let goes_on = |state: &mut State| (!state.waits_at_prompt || state.prompt.is_some()).then_some(());
        match self.wait(&mut { goes_on }) {
            Wait::Done(()) => Resumed::Running,
            _ => self.waits_at_prompt(),
        }
    }

    fn waits_at_prompt(&self) -> Resumed {
        Resumed::MayBeStopped(format!(
            "it waits at a prompt, and has not taken the answer; its last sign of life: {}",
            self.session.last_heard()
        ))
    }

    fn unproven(&self) -> Resumed {
        Resumed::MayBeStopped(format!(
            "it has not said that it runs; its last sign of life: {}",
            self.session.last_heard()
        ))
    }

    /// Leaves a stop, and those that the link makes to learn whether the target runs.
    fn leave_stop(&self, stop: &StateChange) -> Resumed {
        let mut stop = Box::new(stop.clone());
        while Instant::now() < self.deadline() {
            if self.is_for_good {
                // What stays is told at the end.
                let _ = self.session.take_back_by(|request| self.request(request));
                let _ = self.session.disarm_by(|request| self.request(request));
            }
            let (leaving, _) = self.prepare(&stop);
            match self.carry_out(Step::Resume, |reply| Order::Resume(reply, leaving.status)) {
                Ok(Left::Runs) => return Resumed::Running,
                Ok(Left::StoppedAgain) => match self.session.stopped() {
                    Some(again) => stop = again,
                    None => return self.without_stop(),
                },
                Ok(Left::NotStopped) => return self.without_stop(),
                Ok(Left::Unproven) | Err(Cut::Interrupted | Cut::BudgetSpent) => return self.unproven(),
                Err(Cut::Ended) => return Resumed::MayBeStopped("the session has ended".into()),
            }
        }
        self.unproven()
    }

    /// Does what the stop needs so that the target goes on from it; by how many bytes the program counter was moved.
    fn prepare(&self, stop: &StateChange) -> (Leaving, Option<u64>) {
        let leaving = Leaving::of(stop);
        // A context that was read in one stop is not written in the next.
        let at = self.session.stop();
        // What fails here fails for a target that does not answer, and the next order finds that out too.
        let moved = self.machine().and_then(|machine| {
            leaving.prepare(stop, machine, |request| self.request_of(at, request)).unwrap_or_default()
        });
        (leaving, moved)
    }

    fn machine(&self) -> Option<MachineType> {
        let known = || self.session.monitor.get(|state| state.version);
        let version = known().map_or_else(|| version::ask(&self.session.monitor, |it| self.request(it)), Ok);
        if let Ok(version) = version {
            return Some(MachineType(version.machine_type));
        }
        // One that does not say who it is must be let run all the same.
        let processor = self.session.stopped()?.processor;
        context::machine_of(&self.request(Manipulate::get_context(processor)).ok()?)
    }

    fn request(&self, request: Manipulate) -> Result<Manipulate, RequestError> {
        self.request_of(self.session.stop(), request)
    }

    fn request_of(&self, stop: StopId, request: Manipulate) -> Result<Manipulate, RequestError> {
        let step = Step::Reply(request.api_number.to_string());
        // A target that was silent before is asked all the same: this is about letting it run.
        self.session.try_again();
        let replied = self.carry_out(step, |reply| Order::Request(reply, stop, Box::new(request)));
        replied.unwrap_or(Err(RequestError::NotConnected)).map(|reply| *reply)
    }

    /// Gives an order and waits for its outcome for as long as there is time.
    fn carry_out<T>(&self, step: Step, order: impl FnOnce(Reply<T>) -> Order) -> Result<T, Cut> {
        let session = self.session;
        session.monitor.carry_out_within(&session.orders, step, order, None, |_, find| self.wait(find))
    }

    fn wait<T>(&self, find: &mut dyn FnMut(&mut State) -> Option<T>) -> Wait<T> {
        loop {
            let deadline = self.deadline();
            let look = (Instant::now() + LOOK).min(deadline);
            match self.session.monitor.wait_to_the_end(look, &mut *find) {
                Wait::TimedOut if look < deadline => {}
                wait => return wait,
            }
        }
    }

    /// Waits this long for a stop that `is_wanted`, and for that of a target that begins to talk within `opening` until it pauses,
    /// but for [`LONGEST_TALK`] at most where it goes on talking. A prompt is answered: who is leaving asks nobody.
    fn stops_within(
        &self,
        time: Duration,
        opening: Duration,
        is_wanted: impl Fn(&StateChange) -> bool,
    ) -> Option<Box<StateChange>> {
        let start = Instant::now();
        // Whoever has to go, or has pressed Ctrl+Z and waits for his shell, listens for less.
        let was_hurried = self.is_hurried();
        let latest = || {
            // A target that was let run for a while has its Ctrl+C waited for elsewhere.
            let is_hurried =
                was_hurried || if self.is_for_good { self.is_hurried() } else { self.has_to_go() };
            let is_short = is_hurried || self.session.monitor.is_suspending();
            start + time.max(if is_short { HURRIED_LATE_STOP } else { LONGEST_TALK })
        };
        let mut deadline = start + time;
        let mut talks = false;
        loop {
            let find = |state: &mut State| {
                let prompt = state.prompt.take().map(Halt::Prompt);
                prompt.or_else(|| state.stopped.clone().filter(|it| is_wanted(it)).map(Halt::Stopped))
            };
            let look = (Instant::now() + LOOK).min(deadline);
            match self.session.monitor.wait_to_the_end(look, find) {
                Wait::Done(Halt::Stopped(stop)) => return Some(stop),
                Wait::Done(Halt::Prompt(prompt)) => {
                    self.session.answer_prompt(prompt, Bytes::from_static(IGNORE));
                }
                _ => {
                    // Its first line may have come together with the word that it runs.
                    let said = self.session.monitor.get(|state| state.last_said);
                    let said = said.filter(|at| *at > self.since);
                    talks |= !opening.is_zero() && said.is_some_and(|at| at <= start + opening);
                    let pause = said.filter(|_| talks).map_or(start, |at| at + PAUSE);
                    deadline = pause.max(start + time).min(latest());
                    if deadline <= Instant::now() {
                        return None;
                    }
                }
            }
        }
    }
}
