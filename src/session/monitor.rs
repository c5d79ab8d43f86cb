//! What the driver thread tells the others: one lock, one condition.
//!
//! Every wait looks at the same four ends: what is waited for, the deadline, Ctrl+C, the end of the session. So
//! nothing here can wait for ever unless asked to.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use kd_protocol::kd::StateChange;
use kd_protocol::link::{Event, LinkCounters, Peer, RunState};
use tokio::sync::mpsc;

use super::line::LineTraffic;
use super::order::{Order, OrderKind, Outcome, Ticket};
use crate::memory::StopId;

/// Events kept for somebody who does not look; a target that prints in a loop must not fill this machine.
const MAX_EVENTS: usize = 10_000;

/// The link gives up on every request before this.
const LONGEST_REQUEST: Duration = Duration::from_secs(600);

/// How a wait ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait<T> {
    /// With what was waited for.
    Done(T),
    /// The deadline passed.
    TimedOut,
    /// Ctrl+C, or the system asks the program to end.
    Interrupted,
    /// The session is over, for this reason.
    Ended(String),
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
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) run_state: RunState,
    pub(super) stopped: Option<Box<StateChange>>,
    pub(super) stop: StopId,
    pub(super) peer: Option<Peer>,
    pub(super) events: VecDeque<Event>,
    pub(super) outcomes: HashMap<Ticket, Outcome>,
    pub(super) traffic: Traffic,
    pub(super) line: LineTraffic,
    /// More was done to stop the target than it has obeyed.
    pub(super) may_stop_again: bool,
    pub(super) counters: LinkCounters,
    pub(super) last_heard: Option<Instant>,
    /// Bytes that one reply of this target carries.
    pub(super) read_len: usize,
    /// When the present stop began.
    pub(super) stopped_at: Option<Instant>,
    /// How long the target has stood still in stops that are over.
    pub(super) frozen: Duration,
    /// A stop may take this long; reads fail afterwards.
    pub(super) freeze_budget: Option<Duration>,
    interrupted: bool,
    terminating: bool,
    ended: Option<String>,
    next_ticket: u64,
}

impl State {
    /// The target's run state has become known.
    pub(super) fn set_run_state(&mut self, run_state: RunState) {
        self.run_state = run_state;
        if run_state == RunState::Stopped {
            self.stopped_at.get_or_insert_with(Instant::now);
        } else {
            self.stopped = None;
            self.frozen += self.stopped_at.take().map_or(Duration::ZERO, |at| at.elapsed());
        }
    }

    pub(super) fn push_event(&mut self, event: Event) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
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
            peer: None,
            events: VecDeque::new(),
            outcomes: HashMap::new(),
            traffic: Traffic::default(),
            line: LineTraffic::default(),
            may_stop_again: false,
            counters: LinkCounters::default(),
            last_heard: None,
            read_len: 0,
            stopped_at: None,
            frozen: Duration::ZERO,
            freeze_budget: None,
            interrupted: false,
            terminating: false,
            ended: None,
            next_ticket: 0,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl Monitor {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding the session's state")
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
        let mut state = self.lock();
        loop {
            if let Some(found) = find(&mut state) {
                return Wait::Done(found);
            }
            if let Some(why) = &state.ended {
                return Wait::Ended(why.clone());
            }
            if std::mem::take(&mut state.interrupted) || state.terminating {
                return Wait::Interrupted;
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

    /// Waits for something that a Ctrl+C must not cut short. False if it did not come.
    pub(super) fn wait_uninterrupted(
        &self,
        deadline: Instant,
        mut find: impl FnMut(&mut State) -> Option<()>,
    ) -> bool {
        let mut state = self.lock();
        loop {
            if find(&mut state).is_some() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.ended.is_some() {
                return false;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .expect("nobody panics while holding the session's state")
                .0;
        }
    }

    /// Gives an order and waits for its outcome. The link bounds how long that can take.
    pub(super) fn carry_out(
        &self,
        orders: &mpsc::UnboundedSender<Order>,
        order: impl FnOnce(Ticket) -> OrderKind,
    ) -> Outcome {
        let Some(ticket) = self.give(orders, order) else { return Outcome::Ended };
        let deadline = self.freeze_deadline();
        let outcome = match self.wait(deadline, |state| state.outcomes.remove(&ticket)) {
            Wait::Done(outcome) => return outcome,
            Wait::Interrupted => Outcome::Interrupted,
            Wait::TimedOut => Outcome::BudgetSpent,
            Wait::Ended(_) => return Outcome::Ended,
        };
        let _ = orders.send(Order(OrderKind::Cancel(ticket)));
        outcome
    }

    /// The same, not to be cut short: for what a session does to leave its target in order.
    pub(super) fn carry_out_uninterrupted(
        &self,
        orders: &mpsc::UnboundedSender<Order>,
        order: impl FnOnce(Ticket) -> OrderKind,
    ) -> Outcome {
        let Some(ticket) = self.give(orders, order) else { return Outcome::Ended };
        let mut outcome = None;
        let far = Instant::now() + LONGEST_REQUEST;
        self.wait_uninterrupted(far, |state| {
            outcome = state.outcomes.remove(&ticket);
            outcome.is_some().then_some(())
        });
        outcome.unwrap_or(Outcome::Ended)
    }

    /// Gives an order under a ticket of its own; `None` if the driver has ended.
    fn give(
        &self,
        orders: &mpsc::UnboundedSender<Order>,
        order: impl FnOnce(Ticket) -> OrderKind,
    ) -> Option<Ticket> {
        let ticket = {
            let mut state = self.lock();
            state.next_ticket += 1;
            Ticket(state.next_ticket)
        };
        orders.send(Order(order(ticket))).is_ok().then_some(ticket)
    }

    /// The caller knows of the stop already.
    pub(super) fn forget_stop_event(&self) {
        self.lock().events.retain(|event| !matches!(event, Event::Stopped(_)));
    }

    /// When the present stop has taken as long as it may.
    fn freeze_deadline(&self) -> Option<Instant> {
        let state = self.lock();
        Some(state.stopped_at? + state.freeze_budget?)
    }

    pub(super) fn set_freeze_budget(&self, budget: Option<Duration>) {
        self.lock().freeze_budget = budget;
    }

    /// True if the present stop has taken as long as it may.
    pub(super) fn is_budget_spent(&self) -> bool {
        self.freeze_deadline().is_some_and(|at| at <= Instant::now())
    }

    /// How long the target has stood still, over all stops.
    pub(super) fn frozen(&self) -> Duration {
        let state = self.lock();
        state.frozen + state.stopped_at.map_or(Duration::ZERO, |at| at.elapsed())
    }

    pub(super) fn read_len(&self) -> usize {
        self.lock().read_len
    }

    pub(super) fn interrupt(&self) {
        self.update(|state| state.interrupted = true);
    }

    /// True if the user or the system wants things to end.
    pub(super) fn is_interrupted(&self) -> bool {
        let state = self.lock();
        state.interrupted || state.terminating
    }

    pub(super) fn clear_interrupt(&self) {
        self.lock().interrupted = false;
    }

    pub(super) fn terminate(&self) {
        self.update(|state| state.terminating = true);
    }

    pub(super) fn end(&self, why: String) {
        self.update(|state| state.ended = Some(why));
    }

    pub(super) fn run_state(&self) -> RunState {
        self.lock().run_state
    }

    pub(super) fn stop(&self) -> StopId {
        self.lock().stop
    }

    pub(super) fn peer(&self) -> Option<Peer> {
        self.lock().peer
    }

    pub(super) fn stopped(&self) -> Option<Box<StateChange>> {
        self.lock().stopped.clone()
    }

    pub(super) fn stopped_processor(&self) -> Option<u16> {
        self.lock().stopped.as_ref().map(|change| change.processor)
    }

    pub(super) fn counters(&self) -> LinkCounters {
        self.lock().counters
    }

    pub(super) fn traffic(&self) -> Traffic {
        self.lock().traffic
    }

    pub(super) fn line(&self) -> LineTraffic {
        self.lock().line.clone()
    }

    pub(super) fn may_stop_again(&self) -> bool {
        self.lock().may_stop_again
    }

    pub(super) fn is_terminating(&self) -> bool {
        self.lock().terminating
    }

    /// Time since the target's last datagram, in words.
    pub(super) fn last_heard(&self) -> String {
        self.lock().last_heard.map_or_else(|| "never".into(), |at| format!("{} s", at.elapsed().as_secs()))
    }
}
