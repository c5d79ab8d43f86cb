//! A simulated machine in its case: switched on or off, its time, what happens on it, and its link's wishes carried out.
//! Whatever carries the link's bytes asks it what is due.
//!
//! ```text
//!   off <-- power_off, power_on --> running <-- suspend, wake --> suspended: its clock stands still, it hears nothing
//! ```

use std::collections::VecDeque;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kd_protocol::kd::{ApiNumber, DebugIo, DebugIoApi, Manipulate, NtStatus, Payload, StateChange};
use kd_protocol::link::{TargetEvent, TargetLink};

use super::clock::Clock;
use super::config::SimulatorConfig;
use super::event::SimulatorEvent;
use super::kernel::{Answer, Debuggee, Resumed};
use super::order::{AtBoot, Happening, Order};
use super::quirks::{ANSWERED_BEFORE_SILENCE, BREAK_IN_DELAY, PROMPT_AT_BOOT, Quirk, Quirks};
use super::status::{MachineState, Status};
use super::windows::{Build, Growth, Met, Scenario, Stop, System};

/// A running machine's time advances in steps of this.
const TICK: Duration = Duration::from_millis(50);
/// The same while a tag is watched for, or a breakpoint is set: what it stops at comes when it comes.
const WATCHED_TICK: Duration = Duration::from_millis(1);
/// Room for the answer to a prompt, as RtlAssert has it.
const ANSWER_SIZE: u32 = 2;

/// A machine, its debug engine and its end of the link.
pub(super) struct Target {
    debuggee: Debuggee,
    link: TargetLink,
    status: Arc<Status>,
    watcher: mpsc::Sender<SimulatorEvent>,
    scenario: Scenario,
    seed: u64,
    leak_every: Option<Duration>,
    quirks: Quirks,
    growth: Growth,
    clock: Clock,
    is_off: bool,
    /// Acknowledged, to be carried out.
    request: Option<Box<Manipulate>>,
    /// When the machine's time was last brought up to date.
    ticked_at: Instant,
    /// What happens as soon as the machine runs, in this order.
    happenings: VecDeque<Happening>,
    /// The question that the machine waits with.
    prompt: Option<String>,
    flood: Option<Flood>,
    /// When a break-in that was heard is obeyed.
    break_in_at: Option<Instant>,
    /// Requests carried out since the machine stopped, or began to.
    requests_of_stop: u64,
    /// It has stopped once more already, and runs when it is let go again.
    has_stopped_again: bool,
}

/// Lines printed one behind the other.
struct Flood {
    every: Duration,
    next_at: Instant,
    lines: u64,
}

impl Target {
    /// `reply_data` is what one reply carries.
    pub(super) fn new(
        config: &SimulatorConfig,
        mut link: TargetLink,
        reply_data: usize,
        now: Instant,
        status: Arc<Status>,
        watcher: mpsc::Sender<SimulatorEvent>,
    ) -> Self {
        let mut machine = System::new(config.build, config.scenario, config.faults.seed, 0, config.growth);
        if let Some(interval) = config.leak_every {
            machine.leak_every(interval);
        }
        config.quirks.change_link(&mut link);
        config.quirks.change_machine(&mut machine);
        let mut target = Self {
            debuggee: Debuggee::new(machine, reply_data, config.quirks),
            link,
            status,
            watcher,
            scenario: config.scenario,
            seed: config.faults.seed,
            leak_every: config.leak_every,
            quirks: config.quirks,
            growth: config.growth,
            clock: Clock::default(),
            is_off: false,
            request: None,
            ticked_at: now,
            happenings: VecDeque::new(),
            prompt: None,
            flood: None,
            break_in_at: None,
            requests_of_stop: 0,
            has_stopped_again: false,
        };
        target.happen_at_boot(AtBoot::Runs);
        target
    }

    /// Takes a datagram that has arrived.
    pub(super) fn datagram(&mut self, now: Instant, from: std::net::SocketAddr, datagram: &[u8]) {
        if self.is_up() && !self.is_deaf() {
            // Whatever is wrong with a datagram, the link drops it, and counts on none.
            let _ = self.link.handle_datagram(self.clock.machine(now), from, datagram);
        }
        self.settle(now);
    }

    /// Takes bytes that have arrived on a line; a machine that is switched off loses them.
    pub(super) fn stream(&mut self, now: Instant, bytes: &[u8]) {
        if self.is_up() && !self.is_deaf() {
            self.link.handle_stream(self.clock.machine(now), bytes);
        }
        self.settle(now);
    }

    /// False while what arrives on a line stays there.
    pub(super) fn reads_its_line(&self) -> bool {
        self.state() != MachineState::Suspended
    }

    /// The next datagram that it sends, and where to.
    pub(super) fn poll_transmit(&mut self, datagram: &mut BytesMut) -> bool {
        self.is_up() && !self.is_deaf() && self.link.poll_transmit(datagram).is_some()
    }

    /// Appends what it writes into its line.
    pub(super) fn poll_transmit_stream(&mut self, out: &mut BytesMut) {
        let waits_for_the_stop = self.stops_again() && self.request.is_some();
        if self.is_up() && !self.is_deaf() && !waits_for_the_stop {
            self.link.poll_transmit_stream(out);
        }
    }

    /// When something is due without anything arriving.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        if self.is_off {
            return None;
        }
        let running = self.runs();
        let tick = running.then_some(self.ticked_at + self.tick());
        let break_in = self.break_in_at.filter(|_| running);
        let line = self.flood.as_ref().filter(|_| running).map(|flood| flood.next_at);
        let due = tick.into_iter().chain(line).chain(break_in).chain(self.link.poll_timeout()).min()?;
        self.clock.outside(due)
    }

    /// Does what is due: timers, the machine's time.
    pub(super) fn due(&mut self, now: Instant) {
        if !self.is_up() {
            return;
        }
        let now = self.clock.machine(now);
        if self.link.poll_timeout().is_some_and(|at| at <= now) {
            self.link.handle_timeout(now);
        }
        if !self.runs() {
            self.ticked_at = now;
        } else if now - self.ticked_at >= self.tick() {
            for line in self.debuggee.machine.run_for(now - self.ticked_at) {
                self.print(now, line);
            }
            self.ticked_at = now;
            self.stop_on_the_way(now);
        }
        self.print_flood(now);
        if self.runs() && self.break_in_at.take_if(|at| *at <= now).is_some() {
            self.break_in(now);
        }
    }

    /// Takes what the link has to say, and lets happen what waits for the machine to run.
    pub(super) fn settle(&mut self, now: Instant) {
        if self.is_up() {
            let machine_now = self.clock.machine(now);
            loop {
                while let Some(event) = self.link.poll_event() {
                    self.link_event(machine_now, event);
                }
                if !self.runs() {
                    break;
                }
                let Some(happening) = self.happenings.pop_front() else { break };
                self.happen(machine_now, happening);
            }
        }
        let (state, written) = (self.state(), self.debuggee.written());
        let watched = self.debuggee.machine.pool_hit_tag();
        let breakpoints = self.debuggee.breakpoints();
        let debug_registers = self.debuggee.machine.debug_registers();
        self.status.publish(|snapshot| {
            snapshot.state = state;
            snapshot.written = written;
            snapshot.pool_hit_tag = watched;
            snapshot.breakpoints = breakpoints;
            snapshot.debug_registers = debug_registers;
        });
    }

    /// Carries out the request that was acknowledged, if there is one.
    pub(super) fn execute(&mut self, now: Instant) -> bool {
        if !self.is_up() {
            return false;
        }
        if self.is_deaf() {
            return false;
        }
        let Some(request) = self.request.take() else { return false };
        let now = self.clock.machine(now);
        self.requests_of_stop += 1;
        if self.is_deaf() {
            // Acknowledged, and never carried out.
            self.request = Some(request);
            return false;
        }
        let answer = self.debuggee.answer(&request);
        self.status.publish(|snapshot| snapshot.requests += 1);
        self.print_in_request(now, &request);
        match answer {
            Answer::Reply(reply) => self.link.reply(now, &reply),
            Answer::Silence => self.link.no_reply(now),
            Answer::Resume { status, traces } => self.resume(now, status, traces),
            Answer::Report => {
                let change = self.debuggee.report();
                self.link.stop(now, change);
            }
            Answer::Reboot => self.boot(now, AtBoot::Runs, None),
        }
        true
    }

    /// Does what the machine's owner wants. What needs a running machine waits for it.
    pub(super) fn obey(&mut self, now: Instant, order: Order) {
        match order {
            Order::Reboot(at_boot, another) => {
                self.clock.go_on(now);
                self.is_off = false;
                self.boot(self.clock.machine(now), at_boot, another);
            }
            Order::PowerOff => {
                self.is_off = true;
                // What it was about to send goes with it.
                let mut unsent = BytesMut::new();
                while self.link.poll_transmit(&mut unsent).is_some() {}
                self.link.poll_transmit_stream(&mut unsent);
            }
            Order::PowerOn if self.is_off => {
                self.is_off = false;
                self.clock.go_on(now);
                self.boot(self.clock.machine(now), AtBoot::Runs, None);
            }
            Order::Suspend => self.clock.stop(now),
            Order::Wake => self.clock.go_on(now),
            Order::Happen(happening) => self.happenings.push_back(happening),
            Order::Flood(0) => self.flood = None,
            Order::Flood(lines_per_second) => {
                let every = Duration::from_secs(1) / lines_per_second;
                self.flood = Some(Flood { every, next_at: self.clock.machine(now), lines: 0 });
            }
            Order::Account(event, to) => {
                // Whoever asked may have gone away.
                let _ = to.send(self.debuggee.machine.outstanding_at(event));
            }
            Order::PowerOn | Order::SetFaults { .. } => {}
        }
    }

    /// What the machine does.
    fn state(&self) -> MachineState {
        if self.is_off {
            MachineState::Off
        } else if self.clock.is_still() {
            MachineState::Suspended
        } else if self.link.is_awaiting_answer() {
            MachineState::WaitingAtPrompt
        } else if self.link.is_stopped() {
            MachineState::Stopped
        } else if self.request.is_some() {
            // To be let go, and not yet so.
            MachineState::Stopped
        } else if self.link.is_running() {
            MachineState::Running
        } else {
            MachineState::Printing
        }
    }

    /// True if the processors run.
    const fn runs(&self) -> bool {
        self.link.is_running() && self.request.is_none()
    }

    /// How often its time is brought up to date.
    fn tick(&self) -> Duration {
        if self.debuggee.machine.is_on_its_guard() { WATCHED_TICK } else { TICK }
    }

    /// Switched on, and not suspended.
    fn is_up(&self) -> bool {
        !self.is_off && !self.clock.is_still()
    }

    fn link_event(&mut self, now: Instant, event: TargetEvent) {
        match event {
            // A second one of the same moment was meant for the stop that it led to.
            TargetEvent::BreakIn if !self.link.is_running() => {}
            TargetEvent::BreakIn if self.quirks.has(Quirk::BreaksLate) => {
                self.break_in_at.get_or_insert(now + BREAK_IN_DELAY);
            }
            TargetEvent::BreakIn => self.break_in(now),
            TargetEvent::Request(request) => self.request = Some(request),
            TargetEvent::Connected(host) => self.watch(SimulatorEvent::Connected(host.to_string())),
            TargetEvent::DebuggerAbsent => {
                self.watch(SimulatorEvent::DebuggerAbsent);
                let is_left = self.status.read(|snapshot| snapshot.stops > snapshot.resumes);
                if is_left && !self.link.is_stopped() && !self.link.is_awaiting_answer() {
                    // A module event that nobody wanted to see.
                    self.resumed(now);
                }
            }
            TargetEvent::PromptAnswer(answer) => self.answered(now, &answer),
            TargetEvent::FileAnswer(_) => {}
        }
    }

    fn happen(&mut self, now: Instant, happening: Happening) {
        match happening {
            Happening::Print(line) => {
                self.debuggee.machine.print(&line);
                self.print(now, line);
            }
            Happening::Ask(prompt) => self.ask(now, prompt),
            Happening::Stop(stop) => self.stop_by_itself(now, stop),
        }
    }

    fn stop_by_itself(&mut self, now: Instant, stop: Stop) {
        if let Stop::BugCheck { code, parameters } = stop {
            for line in self.debuggee.machine.print_bug_check(code, parameters) {
                self.print(now, line);
            }
        }
        let change = self.debuggee.stop_by_itself(stop);
        self.stop(now, change);
    }

    fn stop_on_the_way(&mut self, now: Instant) {
        let Some((met, change)) = self.debuggee.stop_on_the_way() else { return };
        if let Met::PoolHit(hit) = met {
            self.status.publish(|snapshot| snapshot.pool_hits.push(hit));
        }
        self.stop(now, change);
    }

    fn break_in(&mut self, now: Instant) {
        let change = self.debuggee.break_in();
        self.stop(now, change);
    }

    fn stop(&mut self, now: Instant, change: StateChange) {
        self.requests_of_stop = 0;
        self.break_in_at = None;
        self.link.stop(now, change);
        self.status.publish(|snapshot| snapshot.stop(now));
        self.watch(SimulatorEvent::Stopped);
    }

    fn resume(&mut self, now: Instant, status: NtStatus, traces: bool) {
        match self.debuggee.resume(status, traces) {
            Resumed::Runs if self.stops_again() => {
                self.has_stopped_again = true;
                self.status.publish(|snapshot| snapshot.resume(now));
                self.stop_by_itself(now, Stop::Breakpoint);
            }
            Resumed::Runs => self.resumed(now),
            Resumed::Stops(change) => {
                self.status.publish(|snapshot| {
                    snapshot.resume(now);
                    snapshot.stop(now);
                });
                self.link.stop(now, *change);
            }
            Resumed::BugChecks(stop) => {
                self.status.publish(|snapshot| snapshot.resume(now));
                self.stop_by_itself(now, stop);
            }
            Resumed::Restarts => self.boot(now, AtBoot::Runs, None),
        }
    }

    fn resumed(&mut self, now: Instant) {
        self.has_stopped_again = false;
        self.ticked_at = now;
        self.status.publish(|snapshot| snapshot.resume(now));
        self.watch(SimulatorEvent::Resumed);
    }

    fn boot(&mut self, now: Instant, at_boot: AtBoot, another: Option<(&'static Build, u64)>) {
        let another = another.map(|(build, seed)| {
            let mut machine = System::new(build, self.scenario, self.seed, slide(seed), self.growth);
            if let Some(interval) = self.leak_every {
                machine.leak_every(interval);
            }
            machine
        });
        self.debuggee.restart(another);
        self.quirks.change_machine(&mut self.debuggee.machine);
        self.link.reboot(now);
        while self.link.poll_event().is_some() {}
        self.request = None;
        self.prompt = None;
        self.ticked_at = now;
        self.happenings.clear();
        self.flood = None;
        self.break_in_at = None;
        self.requests_of_stop = 0;
        self.has_stopped_again = false;
        self.happen_at_boot(at_boot);
        self.status.publish(|snapshot| {
            snapshot.boot += 1;
            // A restart ends a stop as well.
            snapshot.resumes = snapshot.stops;
            snapshot.stopped_at = None;
        });
        self.watch(SimulatorEvent::Rebooted);
    }

    fn happen_at_boot(&mut self, at_boot: AtBoot) {
        if self.quirks.has(Quirk::PromptAtBoot) {
            self.happenings.push_back(Happening::Ask(PROMPT_AT_BOOT.into()));
        }
        self.happenings.extend(self.debuggee.machine.bug_check().map(Happening::Stop));
        self.happenings.extend(match at_boot {
            AtBoot::Runs => None,
            AtBoot::Stops(stop) => Some(Happening::Stop(stop)),
            AtBoot::Asks(prompt) => Some(Happening::Ask(prompt)),
        });
    }

    /// With some quirks, a kernel prints while it carries out a request.
    fn print_in_request(&mut self, now: Instant, request: &Manipulate) {
        let is_search = request.api_number == ApiNumber::SEARCH_MEMORY;
        if is_search && self.quirks.has(Quirk::NoSearch) {
            self.print(now, "KdpSearchMemory is UNIMPLEMENTED\n".into());
        }
        if self.quirks.has(Quirk::PrintMidRequest)
            && request.api_number.has_reply()
            && self.requests_of_stop.is_multiple_of(3)
        {
            self.print(now, format!("request {} of this stop\n", self.requests_of_stop));
        }
    }

    /// True if the machine stops once more when it is let go.
    const fn stops_again(&self) -> bool {
        self.quirks.has(Quirk::StopsAgain) && !self.has_stopped_again
    }

    /// True if it neither hears nor says anything, although it is on.
    const fn is_deaf(&self) -> bool {
        self.quirks.has(Quirk::SilentAfterBreak) && self.requests_of_stop > ANSWERED_BEFORE_SILENCE
    }

    fn ask(&mut self, now: Instant, prompt: String) {
        let question = DebugIo {
            api_number: DebugIoApi::GET_STRING,
            length_of_string_read: ANSWER_SIZE,
            ..DebugIo::print(Bytes::from(prompt.clone()))
        };
        self.link.ask(now, &Payload::DebugIo(question));
        self.prompt = Some(prompt);
    }

    /// Does what the answer says, as RtlAssert does: asks again until it is one of the letters that the prompt offers.
    fn answered(&mut self, now: Instant, answer: &DebugIo) {
        let Some(prompt) = self.prompt.take() else { return };
        let text = String::from_utf8_lossy(&answer.text).trim_end_matches(['\0', '\r', '\n']).to_owned();
        let letter = text.chars().next().map(|letter| letter.to_ascii_lowercase());
        self.status.publish(|snapshot| snapshot.answers.push(text));
        self.ticked_at = now;
        match (letters(&prompt), letter) {
            (Some(letters), letter) if letter.is_none_or(|letter| !letters.contains(letter)) => {
                self.ask(now, prompt);
            }
            (Some(_), Some('b' | 'o')) => self.stop_by_itself(now, Stop::Breakpoint),
            _ => {}
        }
    }

    fn print_flood(&mut self, now: Instant) {
        /// Lines of a longer standstill are not made up for.
        const MOST_BEHIND: Duration = Duration::from_secs(1);
        while self.runs() {
            let Some(flood) = self.flood.as_mut().filter(|flood| flood.next_at <= now) else { return };
            flood.next_at = (flood.next_at + flood.every).max(now.checked_sub(MOST_BEHIND).unwrap_or(now));
            flood.lines += 1;
            let line = format!("flood: line {}\n", flood.lines);
            self.print(now, line);
        }
    }

    fn print(&mut self, now: Instant, line: String) {
        self.link.print(now, Bytes::from(line.clone()));
        self.watch(SimulatorEvent::Printed(line));
    }

    pub(super) fn watch(&self, event: SimulatorEvent) {
        // Whoever watches may have gone away.
        let _ = self.watcher.send(event);
    }
}

/// The letters in a prompt's last parentheses: `(boipt)? `.
fn letters(prompt: &str) -> Option<&str> {
    let (before, _) = prompt.rsplit_once(")?")?;
    let (_, letters) = before.rsplit_once('(')?;
    Some(letters)
        .filter(|letters| !letters.is_empty() && letters.bytes().all(|byte| byte.is_ascii_lowercase()))
}

/// How far from its usual place a kernel is loaded. Nought for nought.
fn slide(seed: u64) -> u16 {
    if seed == 0 { 0 } else { fastrand::Rng::with_seed(seed).u16(1..0x400) }
}

#[cfg(test)]
mod breakpoint_tests;
#[cfg(test)]
mod growth_tests;
#[cfg(test)]
mod pool_hit_tests;
#[cfg(test)]
mod quirk_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;
#[cfg(test)]
mod x86_tests;
