//! What the driver thread tells the others: one lock, one condition.
//!
//! Every wait looks at the same ends: what is waited for, its deadline, Ctrl+C, the program's end, the end of the session.
//! So nothing here can wait for ever unless asked to, and whoever is asked to end finds out within moments.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kd_protocol::kd::{DebugIo, GetVersion64, StateChange};
use kd_protocol::link::{Event, LinkCounters, Peer, RequestError, RunState};
use tokio::sync::mpsc;

use super::in_target::InTarget;
use super::line::LineTraffic;
use super::order::{Cut, Order, Reply};
use super::signal::Signal;
use crate::memory::{StopId, VirtAddr};
use crate::source::{Armed, BootId, DEBUG_REGISTERS, Step, Wait};

/// News kept for somebody who does not look; a target that prints in a loop must not fill this machine.
const MAX_NEWS: usize = 10_000;

/// A KDNET target offers itself every three seconds: one that has been silent for this long is gone, or out of reach.
const SILENCE: Duration = Duration::from_secs(10);

/// A signal of this program to itself is noticed within this.
const SIGNAL_DELAY: Duration = Duration::from_secs(2);

/// Why the program is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quit {
    /// It was told to.
    Signal(Signal),
    /// The whole run has taken as long as it may.
    Deadline(Duration),
}

impl fmt::Display for Quit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(signal) => f.write_str(signal.name()),
            Self::Deadline(after) => write!(f, "the deadline of {after:?}"),
        }
    }
}

/// Something for whoever watches the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// It happened on the link.
    Event(Event),
    /// The target prompted, and was answered.
    Answered(DebugIo, Bytes),
    /// Nothing has been heard of the running target for this long.
    Silent(Duration),
    /// It is heard again.
    HeardAgain,
    /// The machine at this address is asked for an offer until a target connects.
    Asks(SocketAddr),
    /// The line was taken and ended at once, without a byte, for this reason. It is tried again, less and less often. Told once.
    LineEndsAtOnce(String),
    /// The line has ended for this reason, and is not waited for.
    LineLost(String),
    /// Something comes from the line again.
    LineHolds {
        /// Streams that ended at once before.
        after: u32,
    },
}

/// What arrived at the socket, authentic or not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Datagrams of any kind.
    pub datagrams: u64,
    /// Those that opened under a key.
    pub authentic: u64,
    /// KDNET datagrams that did not.
    pub not_authentic: u64,
    /// Where the last came from.
    pub last_from: Option<SocketAddr>,
    /// Datagrams of others than the only target that is heard, dropped unread.
    pub strangers: u64,
    /// Where the last of those came from.
    pub last_stranger: Option<SocketAddr>,
}

impl Traffic {
    pub(super) const fn note_stranger(&mut self, from: SocketAddr) {
        self.strangers += 1;
        self.last_stranger = Some(from);
    }
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) run_state: RunState,
    pub(super) stopped: Option<Box<StateChange>>,
    pub(super) stop: StopId,
    pub(super) boot: BootId,
    /// When it began here.
    pub(super) boot_at: Option<Instant>,
    /// What the target of this boot says of itself.
    pub(super) version: Option<GetVersion64>,
    /// It was stopped, and has not said that it runs.
    pub(super) is_held: bool,
    /// A break-in was wanted; then the stop that came of it.
    pub(super) wants_break_in: bool,
    /// When the break-in that is wanted was first sent.
    pub(super) break_in_at: Option<Instant>,
    pub(super) is_break_in: bool,
    pub(super) peer: Option<Peer>,
    pub(super) news: VecDeque<News>,
    /// A prompt that the target waits at, and that nobody has answered.
    pub(super) prompt: Option<DebugIo>,
    /// It waits at a prompt: one that nobody has answered, or whose answer it has not taken.
    pub(super) waits_at_prompt: bool,
    /// The target has not answered a request: the next ones fail at once.
    pub(super) lost: Option<RequestError>,
    pub(super) traffic: Traffic,
    /// An offer of a form that is not known: where from, KDNET version, bytes.
    pub(super) foreign_offer: Option<(SocketAddr, u8, usize)>,
    pub(super) line: LineTraffic,
    /// More was done to stop the target than it has obeyed.
    pub(super) may_stop_again: bool,
    /// A break-in may have met it when it was stopped already. It is worth no waiting for whoever goes on with it.
    pub(super) may_remember_break_in: bool,
    pub(super) counters: LinkCounters,
    pub(super) last_heard: Option<Instant>,
    /// When the target printed or asked something last: what only one does that has left its stop.
    pub(super) last_said: Option<Instant>,
    /// The target has been silent for long, and that was told.
    is_silence_told: bool,
    /// Bytes that one reply of this target carries.
    pub(super) read_len: usize,
    /// When the present stop began.
    pub(super) stopped_at: Option<Instant>,
    /// When the last stop ended.
    pub(super) let_go_at: Option<Instant>,
    /// How long the target has stood still in stops that are over.
    pub(super) frozen: Duration,
    /// A stop may take this long; reads fail afterwards.
    pub(super) freeze_budget: Option<Duration>,
    pub(super) step: Step,
    wakes: u64,
    interrupted: bool,
    pub(super) interrupts: u64,
    /// Somebody lets the target run for good.
    pub(super) is_being_left: bool,
    suspends: bool,
    pub(super) suspensions: u64,
    /// How often the program went on after one.
    pub(super) continuations: u64,
    /// Whoever lets the target run has to go.
    pub(super) is_hurried: bool,
    /// It was tried to let the target run for good.
    pub(super) has_left: bool,
    /// What this side has in the target's memory.
    pub(super) planted: Option<InTarget>,
    /// Where the target stops for this side when it runs.
    pub(super) armed: Vec<Armed>,
    /// What every processor's debug registers hold, as far as this side has written it in this boot.
    pub(super) debug_registers: [Option<VirtAddr>; DEBUG_REGISTERS],
    quit: Option<Quit>,
    ended: Option<String>,
}

impl State {
    /// The target's run state has become known.
    pub(super) fn set_run_state(&mut self, run_state: RunState) {
        self.run_state = run_state;
        if run_state == RunState::Stopped {
            self.stopped_at.get_or_insert_with(Instant::now);
        } else {
            self.stopped = None;
            if let Some(at) = self.stopped_at.take() {
                let now = Instant::now();
                self.frozen += now.saturating_duration_since(at);
                self.let_go_at = Some(now);
            }
        }
    }

    /// True if something of this side is in the target: in its memory, or watched for by its processors.
    pub(super) fn has_in_target(&self) -> bool {
        self.planted.is_some() || !self.armed.is_empty()
    }

    /// Nothing that was known of the target is true any more. `may_be_same`: nobody knows whether it has restarted.
    pub(super) fn begin_boot(&mut self, may_be_same: bool) {
        match &mut self.planted {
            Some(there) if may_be_same => there.is_doubtful = true,
            planted => *planted = None,
        }
        if !may_be_same {
            self.armed.clear();
        }
        self.debug_registers = [None; DEBUG_REGISTERS];
        self.boot = BootId(self.boot.0 + 1);
        self.boot_at = Some(Instant::now());
        // Whoever looks between this and the link's next word must not take the old stop for one of this boot.
        self.set_run_state(RunState::Unknown);
        self.version = None;
        self.lost = None;
        self.forget_prompt();
    }

    /// The target does not wait at a prompt any more.
    pub(super) fn forget_prompt(&mut self) {
        self.prompt = None;
        self.waits_at_prompt = false;
    }

    pub(super) fn push_news(&mut self, news: News) {
        if self.news.len() == MAX_NEWS {
            self.news.pop_front();
        }
        self.news.push_back(news);
    }

    /// The target lives.
    pub(super) fn heard(&mut self, now: Instant) {
        self.last_heard = Some(now);
        if std::mem::take(&mut self.is_silence_told) {
            self.push_news(News::HeardAgain);
        }
    }

    /// Tells of a running target that has not been heard of for long. Over a line a running target is silent anyway.
    pub(super) fn note_silence(&mut self, now: Instant) {
        let Some(at) = self.last_heard.filter(|_| matches!(self.peer, Some(Peer::Kdnet(_)))) else { return };
        let silent = now.saturating_duration_since(at);
        if silent >= SILENCE && self.run_state != RunState::Stopped && !self.is_silence_told {
            self.is_silence_told = true;
            self.push_news(News::Silent(silent));
        }
    }
}

/// What can change without news: whoever watches looks again when one of these is another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The present boot.
    pub boot: BootId,
    /// The newest stop.
    pub stop: Option<StopId>,
    /// The target stands still.
    pub is_stopped: bool,
    /// It is known to run.
    pub is_running: bool,
    /// It waits at a prompt that nobody has answered.
    pub is_prompting: bool,
    /// The target has left a request unanswered.
    pub is_lost: bool,
    /// How often [`Watcher::wake`](super::Watcher::wake) was called.
    pub wakes: u64,
}

/// The state that driver and others share.
#[derive(Debug)]
pub(super) struct Monitor {
    state: Mutex<State>,
    changed: Condvar,
}

impl Default for Monitor {
    fn default() -> Self {
        let state = State {
            run_state: RunState::Unknown,
            stopped: None,
            stop: StopId(0),
            boot: BootId(0),
            boot_at: None,
            let_go_at: None,
            version: None,
            is_held: false,
            wants_break_in: false,
            break_in_at: None,
            is_break_in: false,
            peer: None,
            news: VecDeque::new(),
            prompt: None,
            waits_at_prompt: false,
            lost: None,
            traffic: Traffic::default(),
            foreign_offer: None,
            line: LineTraffic::default(),
            may_stop_again: false,
            may_remember_break_in: false,
            counters: LinkCounters::default(),
            last_heard: None,
            last_said: None,
            is_silence_told: false,
            read_len: 0,
            stopped_at: None,
            frozen: Duration::ZERO,
            freeze_budget: None,
            step: Step::Idle,
            wakes: 0,
            interrupted: false,
            interrupts: 0,
            is_being_left: false,
            suspends: false,
            suspensions: 0,
            continuations: 0,
            is_hurried: false,
            has_left: false,
            planted: None,
            armed: Vec::new(),
            debug_registers: [None; DEBUG_REGISTERS],
            quit: None,
            ended: None,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl Monitor {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding the session's state")
    }

    /// Something that the state says.
    pub(super) fn get<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.lock())
    }

    /// Changes what nobody waits for: waking a waiter at every datagram would cost more than the datagram.
    pub(super) fn note(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
    }

    /// Changes the state, and wakes whoever waits if it is news for them.
    pub(super) fn update_if(&self, is_news: impl FnOnce(&State) -> bool, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        let is_news = is_news(&state);
        change(&mut state);
        drop(state);
        if is_news {
            self.changed.notify_all();
        }
    }

    /// Changes the state and wakes whoever waits.
    pub(super) fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Waits until `find` finds something.
    pub(super) fn wait<T>(
        &self,
        deadline: Option<Instant>,
        mut find: impl FnMut(&mut State) -> Option<T>,
    ) -> Wait<T> {
        self.wait_unless(deadline, &mut find, |state| {
            ended(state).or_else(|| {
                let is_cut = std::mem::take(&mut state.interrupted) || state.suspends || state.quit.is_some();
                is_cut.then_some(Wait::Interrupted)
            })
        })
    }

    /// The same for what Ctrl+C must not cut short, but the program's end does.
    pub(super) fn wait_through_interrupts<T>(
        &self,
        deadline: Option<Instant>,
        mut find: impl FnMut(&mut State) -> Option<T>,
    ) -> Wait<T> {
        let cuts = |state: &mut State| ended(state).or_else(|| state.quit.map(|_| Wait::Interrupted));
        self.wait_unless(deadline, &mut find, cuts)
    }

    /// The same for what nothing cuts short: it must have a deadline that is near.
    pub(super) fn wait_to_the_end<T>(
        &self,
        deadline: Instant,
        mut find: impl FnMut(&mut State) -> Option<T>,
    ) -> Wait<T> {
        self.wait_unless(Some(deadline), &mut find, |state| ended(state))
    }

    fn wait_unless<T>(
        &self,
        deadline: Option<Instant>,
        find: &mut dyn FnMut(&mut State) -> Option<T>,
        cuts: impl Fn(&mut State) -> Option<Wait<T>>,
    ) -> Wait<T> {
        let mut state = self.lock();
        loop {
            if let Some(found) = find(&mut state) {
                return Wait::Done(found);
            }
            if let Some(cut) = cuts(&mut state) {
                return cut;
            }
            state = match deadline.map(|it| it.saturating_duration_since(Instant::now())) {
                None => self.changed.wait(state).expect("nobody panics while holding the session's state"),
                Some(Duration::ZERO) => return Wait::TimedOut,
                Some(left) => {
                    self.changed
                        .wait_timeout(state, left)
                        .expect("nobody panics while holding the session's state")
                        .0
                }
            };
        }
    }

    /// Makes whoever waits look again.
    pub(super) fn tell_all(&self) {
        // Under the lock: nobody is between looking and waiting.
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Gives an order and waits for what becomes of it. The link bounds how long that can take.
    pub(super) fn carry_out<T>(
        &self,
        orders: &mpsc::UnboundedSender<Order>,
        step: Step,
        order: impl FnOnce(Reply<T>) -> Order,
    ) -> Result<T, Cut> {
        self.carry_out_within(orders, step, order, self.freeze_deadline(), |deadline, find| {
            self.wait(deadline, find)
        })
    }

    /// The same with another way to wait, which ends by itself at `deadline`.
    pub(super) fn carry_out_within<T>(
        &self,
        orders: &mpsc::UnboundedSender<Order>,
        step: Step,
        order: impl FnOnce(Reply<T>) -> Order,
        deadline: Option<Instant>,
        wait: impl FnOnce(Option<Instant>, &mut dyn FnMut(&mut State) -> Option<T>) -> Wait<T>,
    ) -> Result<T, Cut> {
        let (ours, theirs) = Reply::ends();
        // A driver that has ended takes none.
        orders.send(order(theirs)).map_err(|_| Cut::Ended)?;
        self.lock().step = step;
        let cut = match wait(deadline, &mut |_| ours.take()) {
            Wait::Done(what) => {
                self.lock().step = Step::Idle;
                return Ok(what);
            }
            Wait::Interrupted => Cut::Interrupted,
            Wait::TimedOut => Cut::BudgetSpent,
            Wait::Ended(_) => return Err(Cut::Ended),
        };
        // What is waited for stays named: whoever tells that it was given up says what it was.
        drop(ours);
        let _ = orders.send(Order::Forget);
        Err(cut)
    }

    /// When the present stop has taken as long as it may.
    pub(super) fn freeze_deadline(&self) -> Option<Instant> {
        let state = self.lock();
        Some(state.stopped_at? + state.freeze_budget?)
    }

    pub(super) fn set_freeze_budget(&self, budget: Option<Duration>) {
        self.update(|state| state.freeze_budget = budget);
    }

    /// True if the present stop has taken as long as it may.
    pub(super) fn is_budget_spent(&self) -> bool {
        self.freeze_deadline().is_some_and(|at| at <= Instant::now())
    }

    /// How long the present stop has taken so far.
    pub(super) fn stopped_for(&self) -> Duration {
        self.lock().stopped_at.map_or(Duration::ZERO, |at| at.elapsed())
    }

    /// How long the target has stood still, over all stops.
    pub(super) fn frozen(&self) -> Duration {
        let state = self.lock();
        state.frozen + state.stopped_at.map_or(Duration::ZERO, |at| at.elapsed())
    }

    /// How things stand.
    pub(super) fn standing(&self) -> Standing {
        self.get(standing_of)
    }

    /// Waits until things stand otherwise than `before`.
    pub(super) fn changed(&self, before: Standing, deadline: Option<Instant>) -> Wait<Standing> {
        let mut find = |state: &mut State| Some(standing_of(state)).filter(|standing| *standing != before);
        self.wait_unless(deadline, &mut find, |state| {
            ended(state).or_else(|| {
                let is_cut = std::mem::take(&mut state.interrupted) || state.quit.is_some();
                is_cut.then_some(Wait::Interrupted)
            })
        })
    }

    /// Waits for news, and leaves them there. False when there will be none any more.
    pub(super) fn wait_for_news(&self) -> bool {
        let mut find = |state: &mut State| (!state.news.is_empty()).then_some(());
        matches!(self.wait_unless(None, &mut find, |state| ended(state)), Wait::Done(()))
    }

    /// The news so far if no target has connected; else none.
    pub(super) fn take_news_before_target(&self) -> Vec<News> {
        let mut state = self.lock();
        // A target's print is told of before it is known to be there.
        let is_target = |news: &News| matches!(news, News::Event(Event::DebugPrint(_)));
        let is_there = state.peer.is_some() || state.news.iter().any(is_target);
        if is_there { Vec::new() } else { state.news.drain(..).collect() }
    }

    /// The news so far, each once.
    pub(super) fn take_news(&self) -> Vec<News> {
        self.lock().news.drain(..).collect()
    }

    /// Makes whoever waits for a change look up.
    pub(super) fn wake(&self) {
        self.update(|state| state.wakes += 1);
    }

    /// A signal has come.
    pub(super) fn signalled(&self, signal: Signal) {
        self.update(|state| match signal {
            Signal::Interrupt => {
                state.interrupted = true;
                state.interrupts += 1;
            }
            Signal::Suspend => {
                state.suspends = true;
                state.suspensions += 1;
            }
            Signal::Continue => state.continuations += 1,
            Signal::Terminate | Signal::HangUp => {
                state.quit.get_or_insert(Quit::Signal(signal));
            }
        });
    }

    /// Waits until the program is to be suspended, for as long as it lives: the end of the session does not end this.
    /// Returns why it is to end instead, if it is.
    pub(super) fn wait_for_suspension(&self) -> Option<Quit> {
        let mut find = |state: &mut State| state.suspends.then_some(None).or_else(|| state.quit.map(Some));
        match self.wait_unless(None, &mut find, |_| None) {
            Wait::Done(quit) => quit,
            _ => None,
        }
    }

    /// True while the program is about to be suspended, or is.
    pub(super) fn is_suspending(&self) -> bool {
        self.get(|state| state.suspends)
    }

    /// Waits until a suspension that has begun is over.
    pub(super) fn wait_out_suspension(&self) {
        let mut find = |state: &mut State| (!state.suspends).then_some(());
        let _ = self.wait_unless(None, &mut find, |state| state.quit.map(|_| Wait::Interrupted));
    }

    /// Waits until the suspension that follows `before` others is over. A signal that this program does not watch has
    /// suspended it already.
    pub(super) fn wait_out_suspension_after(&self, before: u64) {
        let mut has_begun = |state: &mut State| (state.suspensions > before).then_some(());
        let deadline = Instant::now() + SIGNAL_DELAY;
        let _ =
            self.wait_unless(Some(deadline), &mut has_begun, |state| state.quit.map(|_| Wait::Interrupted));
        self.wait_out_suspension();
    }

    /// Waits until the program has gone on more often than `before`.
    pub(super) fn wait_for_continuation(&self, before: u64) {
        let mut find = |state: &mut State| (state.continuations > before).then_some(());
        let _ = self.wait_unless(None, &mut find, |state| state.quit.map(|_| Wait::Interrupted));
    }

    /// The program goes on after a suspension.
    pub(super) fn end_suspension(&self) {
        self.update(|state| state.suspends = false);
    }

    /// Everything is to end.
    pub(super) fn quit(&self, why: Quit) {
        self.update(|state| {
            state.quit.get_or_insert(why);
        });
    }

    /// True if the user or the system wants what goes on to end.
    pub(super) fn is_interrupted(&self) -> bool {
        self.get(|state| state.interrupted || state.suspends || state.quit.is_some())
    }

    pub(super) fn end(&self, why: String) {
        self.update(|state| {
            state.ended.get_or_insert(why);
        });
    }

    /// True once Ctrl+C was pressed; it is forgotten thereby.
    pub(super) fn take_interrupt(&self) -> bool {
        std::mem::take(&mut self.lock().interrupted)
    }

    pub(super) fn quit_reason(&self) -> Option<Quit> {
        self.get(|state| state.quit)
    }

    /// Time since the target's last datagram, in words.
    pub(super) fn last_heard(&self) -> String {
        self.get(|state| state.last_heard)
            .map_or_else(|| "never".into(), |at| format!("{} s ago", at.elapsed().as_secs()))
    }
}

fn ended<T>(state: &State) -> Option<Wait<T>> {
    state.ended.clone().map(Wait::Ended)
}

fn standing_of(state: &State) -> Standing {
    Standing {
        boot: state.boot,
        stop: (state.stop.0 > 0).then_some(state.stop),
        is_stopped: state.run_state == RunState::Stopped,
        is_running: state.run_state == RunState::Running,
        is_prompting: state.prompt.is_some(),
        is_lost: state.lost.is_some(),
        wakes: state.wakes,
    }
}
