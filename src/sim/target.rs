//! A simulated machine that is switched on: its time, and its link's wishes carried out. Whatever carries the link's bytes
//! asks it what is due.

use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kd_protocol::kd::Manipulate;
use kd_protocol::link::{TargetEvent, TargetLink};

use super::kernel::{Answer, Debuggee};
use super::server::{SimulatorConfig, SimulatorEvent, Status};
use super::windows::Machine;

/// A running machine's time advances in steps of this.
const TICK: Duration = Duration::from_millis(50);

/// A machine, its debug engine and its end of the link.
pub(super) struct Target {
    debuggee: Debuggee,
    pub(super) link: TargetLink,
    status: Arc<Status>,
    watcher: mpsc::Sender<SimulatorEvent>,
    /// Acknowledged, to be carried out.
    request: Option<Box<Manipulate>>,
    /// When the machine's time was last brought up to date.
    ticked_at: Instant,
}

impl Target {
    /// `reply_data` is what one reply carries.
    pub(super) fn new(
        config: &SimulatorConfig,
        link: TargetLink,
        reply_data: usize,
        status: Arc<Status>,
        watcher: mpsc::Sender<SimulatorEvent>,
    ) -> Self {
        let mut machine = Machine::with_scenario(config.build, config.scenario, config.faults.seed);
        if let Some(interval) = config.leak_every {
            machine.leak_every(interval);
        }
        let debuggee = Debuggee::new(machine, reply_data);
        Self { debuggee, link, status, watcher, request: None, ticked_at: Instant::now() }
    }

    /// When something is due without anything arriving.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let tick = self.link.is_running().then_some(self.ticked_at + TICK);
        tick.into_iter().chain(self.link.poll_timeout()).min()
    }

    /// Does what is due: timers, the machine's time.
    pub(super) fn due(&mut self, now: Instant) {
        if self.link.poll_timeout().is_some_and(|at| at <= now) {
            self.link.handle_timeout(now);
        }
        if !self.link.is_running() {
            self.ticked_at = now;
        } else if now - self.ticked_at >= TICK {
            for line in self.debuggee.machine.run_for(now - self.ticked_at) {
                self.link.print(now, Bytes::from(line.clone()));
                self.watch(SimulatorEvent::Printed(line));
            }
            self.ticked_at = now;
        }
    }

    /// Takes what the link has to say.
    pub(super) fn settle(&mut self) {
        let now = Instant::now();
        while let Some(event) = self.link.poll_event() {
            match event {
                TargetEvent::BreakIn => self.stop(now),
                TargetEvent::Request(request) => self.request = Some(request),
                TargetEvent::Connected(host) => self.watch(SimulatorEvent::Connected(host.to_string())),
                TargetEvent::DebuggerAbsent => self.watch(SimulatorEvent::DebuggerAbsent),
                TargetEvent::PromptAnswer(_) | TargetEvent::FileAnswer(_) => {}
            }
        }
        self.status.is_running.store(!self.link.is_stopped(), Ordering::Release);
    }

    /// Carries out the request that was acknowledged, if there is one.
    pub(super) fn execute(&mut self) -> bool {
        let Some(request) = self.request.take() else { return false };
        self.status.requests.fetch_add(1, Ordering::AcqRel);
        let answer = self.debuggee.answer(&request);
        let now = Instant::now();
        match answer {
            Answer::Reply(reply) => self.link.reply(now, &reply),
            Answer::Silence => self.link.no_reply(now),
            Answer::Resume => self.resume(now),
            Answer::Report => {
                let change = self.debuggee.report();
                self.link.stop(now, change);
            }
            Answer::Reboot => {
                self.debuggee.machine.reboot();
                self.link.reboot(now);
                self.watch(SimulatorEvent::Rebooted);
            }
        }
        true
    }

    fn stop(&mut self, now: Instant) {
        let change = self.debuggee.break_in();
        self.link.stop(now, change);
        self.watch(SimulatorEvent::Stopped);
    }

    fn resume(&mut self, now: Instant) {
        if self.debuggee.stands_on_breakpoint() {
            let change = self.debuggee.report();
            self.link.stop(now, change);
            return;
        }
        self.ticked_at = now;
        self.watch(SimulatorEvent::Resumed);
    }

    pub(super) fn watch(&self, event: SimulatorEvent) {
        // Whoever watches may have gone away.
        let _ = self.watcher.send(event);
    }
}
