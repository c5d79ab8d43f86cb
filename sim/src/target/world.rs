//! A simulated machine and a debugger's end of the link, joined under a virtual clock.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kd_protocol::VirtAddr;
use kd_protocol::kd::{Arm, GetVersion64, Manipulate, NtStatus, StateChange, StateDetail};
use kd_protocol::link::{
    Entropy, Event, HostLink, LinkConfig, Patience, RequestError, RequestId, TargetConfig, TargetLink,
};

use super::Target;
use crate::config::{KDNET_REPLY_DATA, SERIAL_REPLY_DATA, SimulatorConfig};
use crate::event::SimulatorEvent;
use crate::order::{Happening, Order};
use crate::status::{MachineState, Snapshot, Status};
use crate::windows::Stop;

/// What carries the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    Kdnet,
    Serial,
}

impl Carrier {
    pub(super) const BOTH: [Self; 2] = [Self::Kdnet, Self::Serial];
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) target: Target,
    pub(super) host: HostLink,
    pub(super) events: Vec<Event>,
    printed: Vec<String>,
    /// Bytes or datagrams that the target has sent.
    pub(super) sent: usize,
    /// False: nothing goes either way.
    pub(super) is_plugged: bool,
    status: Arc<Status>,
    watcher: mpsc::Receiver<SimulatorEvent>,
    carrier: Carrier,
    /// Bytes that the target has not read yet.
    line: Vec<u8>,
}

struct Chance(fastrand::Rng);

impl Entropy for Chance {
    fn fill(&mut self, buf: &mut [u8]) {
        self.0.fill(buf);
    }
}

fn entropy(seed: u64) -> Box<dyn Entropy> {
    Box::new(Chance(fastrand::Rng::with_seed(seed)))
}

const HOST: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 2, 1)), 50_000);
const TARGET: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 2, 72)), 50_001);

impl World {
    pub(super) fn new(carrier: Carrier) -> Self {
        Self::with(carrier, |config| config)
    }

    /// The same with another configuration.
    pub(super) fn with(carrier: Carrier, configure: impl FnOnce(SimulatorConfig) -> SimulatorConfig) -> Self {
        let now = Instant::now();
        let key: kd_protocol::kdnet::Key = "1.2.3.4".parse().unwrap();
        let config = configure(SimulatorConfig {
            leak_every: Some(Duration::ZERO),
            ..SimulatorConfig::new(HOST, key.clone())
        });
        let status = Arc::new(Status::default());
        let (sender, watcher) = mpsc::channel();
        let (link, reply_data) = match carrier {
            Carrier::Kdnet => {
                let target = TargetConfig { key: key.clone(), version: 5, address: TARGET, host: HOST };
                (TargetLink::new(now, target, entropy(2)), KDNET_REPLY_DATA)
            }
            Carrier::Serial => (TargetLink::over_stream(), SERIAL_REPLY_DATA),
        };
        let target = Target::new(&config, link, reply_data, now, Arc::clone(&status), sender);
        let mut host = Self::host(carrier);
        if carrier == Carrier::Serial {
            host.handle_stream_opened(now);
        }
        Self {
            now,
            target,
            host,
            events: Vec::new(),
            printed: Vec::new(),
            sent: 0,
            is_plugged: true,
            status,
            watcher,
            carrier,
            line: Vec::new(),
        }
    }

    fn host(carrier: Carrier) -> HostLink {
        match carrier {
            Carrier::Kdnet => HostLink::new(LinkConfig::new("1.2.3.4".parse().unwrap()), entropy(1)),
            Carrier::Serial => HostLink::over_stream(Patience::default()),
        }
    }

    /// A machine that a debugger has broken into.
    pub(super) fn stopped(carrier: Carrier) -> Self {
        let mut world = Self::new(carrier);
        world.break_in();
        world
    }

    /// Another debugger comes, and knows nothing.
    pub(super) fn change_debugger(&mut self) {
        self.host = Self::host(self.carrier);
        if self.carrier == Carrier::Serial {
            self.host.handle_stream_opened(self.now);
        }
        self.events.clear();
    }

    pub(super) fn order(&mut self, order: Order) {
        self.target.obey(self.now, order);
        self.exchange();
    }

    pub(super) fn stop_with(&mut self, stop: Stop) {
        self.order(Order::Happen(Happening::Stop(stop)));
    }

    pub(super) fn state(&self) -> MachineState {
        self.snapshot().state
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.status.read(Snapshot::clone)
    }

    /// What its watcher saw since the last call.
    pub(super) fn watched(&self) -> Vec<SimulatorEvent> {
        self.watcher.try_iter().collect()
    }

    /// Lets time pass until `done` says so; false if it did not within `limit`.
    pub(super) fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            self.exchange();
            if done(self) {
                return true;
            }
            let timers = [self.host.poll_timeout(), self.target.wake_at()];
            let next = timers.into_iter().flatten().min().map_or(end, |next| next.max(self.now));
            if next > end || next == end && self.now == end {
                self.now = end;
                return false;
            }
            self.now = next;
            if self.host.poll_timeout().is_some_and(|at| at <= self.now) {
                self.host.handle_timeout(self.now);
            }
            self.target.due(self.now);
        }
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    pub(super) fn wait_for(&mut self, what: &str, wanted: impl Fn(&Event) -> bool) -> Event {
        let in_time = self.run_until(Duration::from_secs(60), |world| world.events.iter().any(&wanted));
        assert!(in_time, "no {what} within a minute; events so far: {:?}", self.events);
        let position = self.events.iter().position(wanted).unwrap();
        self.events.drain(..=position).next_back().unwrap()
    }

    pub(super) fn wait_for_stop(&mut self) -> StateChange {
        match self.wait_for("stop", |event| matches!(event, Event::Stopped(_))) {
            Event::Stopped(change) => *change,
            _ => unreachable!(),
        }
    }

    pub(super) fn wait_for_state(&mut self, state: MachineState) {
        let in_time = self.run_until(Duration::from_secs(60), |world| world.state() == state);
        assert!(in_time, "not {state:?} within a minute but {:?}; {:?}", self.state(), self.events);
    }

    pub(super) fn break_in(&mut self) -> StateChange {
        self.host.break_in(self.now);
        self.wait_for_stop()
    }

    pub(super) fn resume(&mut self, status: NtStatus) {
        self.host.resume(self.now, status);
        self.exchange();
    }

    /// Goes on behind the instruction that stopped the machine, which is `bytes` long.
    pub(super) fn step_over(&mut self, bytes: u64) {
        self.step_over_on(0, bytes);
    }

    /// The same on another processor.
    pub(super) fn step_over_on(&mut self, processor: u16, bytes: u64) {
        let context = self.ask(Manipulate::get_context(processor)).unwrap().data;
        let mut moved = context.to_vec();
        let rip = u64::from_le_bytes(moved[RIP..RIP + 8].try_into().unwrap());
        moved[RIP..RIP + 8].copy_from_slice(&(rip + bytes).to_le_bytes());
        let reply = self.ask(Manipulate::set_context(processor, moved.into())).unwrap();
        assert_eq!(reply.return_status, NtStatus::SUCCESS);
        self.resume(NtStatus::DBG_CONTINUE);
    }

    pub(super) fn ask(&mut self, request: Manipulate) -> Result<Manipulate, RequestError> {
        let wanted = self.host.request(self.now, request);
        match self.wait_for("end of a request", |event| end_of(event) == Some(wanted)) {
            Event::Replied(_, reply) => Ok(*reply),
            Event::Failed(_, error) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn read(&mut self, at: VirtAddr, count: u32) -> Bytes {
        self.ask(Manipulate::read_virtual(at, count)).unwrap().data
    }

    pub(super) fn version(&mut self) -> GetVersion64 {
        match self.ask(Manipulate::get_version()).unwrap().arm {
            Arm::GetVersion(version) => version,
            other => panic!("{other:?}"),
        }
    }

    /// The lines that the debugger was sent, since the last call.
    pub(super) fn prints(&mut self) -> Vec<String> {
        std::mem::take(&mut self.printed)
    }

    /// Lets everything that is on its way arrive.
    pub(super) fn exchange(&mut self) {
        let mut datagram = BytesMut::new();
        loop {
            let mut is_busy = false;
            match self.carrier {
                Carrier::Kdnet => {
                    while self.host.poll_transmit(&mut datagram).is_some() {
                        if self.is_plugged {
                            self.target.datagram(self.now, HOST, &datagram);
                        }
                        is_busy = true;
                    }
                }
                Carrier::Serial => {
                    let mut bytes = BytesMut::new();
                    if self.host.poll_transmit_stream(&mut bytes) && self.is_plugged {
                        self.line.extend_from_slice(&bytes);
                    }
                    if self.target.reads_its_line() && !self.line.is_empty() {
                        self.target.stream(self.now, &std::mem::take(&mut self.line));
                        is_busy = true;
                    }
                }
            }
            self.target.settle(self.now);
            match self.carrier {
                Carrier::Kdnet => {
                    while self.target.poll_transmit(&mut datagram) {
                        self.sent += 1;
                        is_busy = true;
                        if self.is_plugged {
                            // What the debugger drops is its own affair.
                            let _ = self.host.handle_datagram(self.now, TARGET, &datagram);
                        }
                    }
                }
                Carrier::Serial => {
                    let mut bytes = BytesMut::new();
                    self.target.poll_transmit_stream(&mut bytes);
                    self.sent += bytes.len();
                    if !bytes.is_empty() && self.is_plugged {
                        self.host.handle_stream(self.now, &bytes);
                        is_busy = true;
                    }
                }
            }
            while let Some(event) = self.host.poll_event() {
                if let Event::DebugPrint(line) = &event {
                    self.printed.push(String::from_utf8_lossy(line).into_owned());
                }
                self.events.push(event);
            }
            is_busy |= self.target.execute(self.now);
            if !is_busy {
                return;
            }
        }
    }
}

/// Where Rip is in the x64 `CONTEXT`.
pub(super) const RIP: usize = 0xf8;

pub(super) fn code(change: &StateChange) -> NtStatus {
    match change.detail {
        StateDetail::Exception(exception) => exception.exception_code,
        ref other => panic!("{other:?}"),
    }
}

pub(super) fn is_first_chance(change: &StateChange) -> bool {
    matches!(change.detail, StateDetail::Exception(exception) if exception.first_chance == 1)
}

fn end_of(event: &Event) -> Option<RequestId> {
    match event {
        Event::Replied(id, _) | Event::Failed(id, _) | Event::Acknowledged(id) => Some(*id),
        _ => None,
    }
}
