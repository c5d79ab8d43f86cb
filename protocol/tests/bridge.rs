//! A KDNET debugger, a bridge and a serial target, virtual clock: faults on the network and on the line at the same time.
//!
//! `VERIKD_SEEDS=2000 cargo test --release -p kd-protocol --test bridge` runs a longer sweep.

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use common::net::{Chance, HOST, TARGET, address, answer, breakpoint, end_of, host_link, key, memory_at};
use kd_protocol::VirtAddr;
use kd_protocol::kd::{
    Arm, DebugIo, DebugIoApi, LoadSymbols, Manipulate, NewState, NtStatus, Payload, StateChange, StateDetail,
};
use kd_protocol::link::{
    Bridge, BridgeEvent, Event, HostLink, Patience, RequestError, RunState, TargetConfig, TargetEvent,
    TargetLink,
};

/// One way through the network, or for one piece of bytes along the line.
const LATENCY: Duration = Duration::from_micros(500);

/// What is on its way, and to whom.
enum Way {
    ToDebugger(Vec<u8>),
    ToBridge(Vec<u8>),
    UpTheLine(Vec<u8>),
    DownTheLine(Vec<u8>),
}

/// Share of datagrams lost, doubled and damaged; share of pieces of the line hit.
#[derive(Clone, Copy)]
struct Faults {
    network: f64,
    line: f64,
}

const NONE: Faults = Faults { network: 0.0, line: 0.0 };

struct World {
    now: Instant,
    start: Instant,
    debugger: HostLink,
    bridge: Bridge,
    target: TargetLink,
    events: Vec<Event>,
    bridge_events: Vec<BridgeEvent>,
    prompt_answers: Vec<Bytes>,
    asked_below: Vec<Manipulate>,
    faults: Faults,
    chance: Chance,
    on_the_way: BTreeMap<(Instant, u64), Way>,
    count: u64,
    /// When the line is free again, in each direction.
    line_free_at: [Instant; 2],
    /// What a byte takes on the line, beside the latency of its piece.
    byte_time: Duration,
}

impl World {
    fn new(seed: u64, faults: Faults) -> Self {
        let now = Instant::now();
        let above = TargetConfig { key: key(), version: 5, address: address(TARGET), host: address(HOST) };
        let entropy = Box::new(Chance::new(seed + 1));
        let answer = Bytes::from_static(b"i");
        let mut bridge = Bridge::new(now, Patience::default(), above, entropy, answer);
        bridge.handle_stream_opened(now);
        Self {
            now,
            start: now,
            debugger: host_link(seed + 2),
            bridge,
            target: TargetLink::over_stream(),
            events: Vec::new(),
            bridge_events: Vec::new(),
            prompt_answers: Vec::new(),
            asked_below: Vec::new(),
            faults,
            chance: Chance::new(seed + 3),
            on_the_way: BTreeMap::new(),
            count: 0,
            line_free_at: [now; 2],
            byte_time: Duration::ZERO,
        }
    }

    fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            self.settle();
            if done(self) {
                return true;
            }
            let timers =
                [self.debugger.poll_timeout(), self.bridge.poll_timeout(), self.target.poll_timeout()];
            let arrival = self.on_the_way.keys().next().map(|(at, _)| *at);
            let next = timers.into_iter().flatten().chain(arrival).min().expect("offers never end");
            if next > end {
                self.now = end;
                return false;
            }
            self.now = self.now.max(next);
            self.step();
        }
    }

    fn wait_for(&mut self, what: &str, mut wanted: impl FnMut(&Event) -> bool) -> Event {
        let mut found = None;
        let in_time = self.run_until(Duration::from_secs(60), |world| {
            let position = world.events.iter().position(&mut wanted);
            found = position.map(|at| world.events.drain(..=at).next_back().unwrap());
            found.is_some()
        });
        assert!(in_time, "no {what} within a minute; events so far: {:?}", self.events);
        found.unwrap()
    }

    fn attach(&mut self) {
        self.wait_for("connection", |it| matches!(it, Event::Connected(_)));
    }

    fn stop_target(&mut self) -> StateChange {
        self.debugger.break_in(self.now);
        match self.wait_for("stop", |it| matches!(it, Event::Stopped(_))) {
            Event::Stopped(change) => *change,
            _ => unreachable!(),
        }
    }

    fn ask(&mut self, request: Manipulate) -> Event {
        let wanted = self.debugger.request(self.now, request);
        self.wait_for("end of a request", |it| end_of(it) == Some(wanted))
    }

    fn resume(&mut self) {
        self.debugger.resume(self.now, NtStatus::DBG_CONTINUE);
        let ends =
            |it: &Event| matches!(it, Event::Resumed | Event::ResumeUnproven { .. } | Event::Stopped(_));
        while let Event::Stopped(_) = self.wait_for("end of a resume", ends) {
            self.debugger.resume(self.now, NtStatus::DBG_CONTINUE);
        }
    }

    fn step(&mut self) {
        let now = self.now;
        while let Some(entry) = self.on_the_way.first_entry().filter(|entry| entry.key().0 <= now) {
            match entry.remove() {
                // Drops are the point of these tests; what matters is what the links make of them.
                Way::ToDebugger(bytes) => drop(self.debugger.handle_datagram(now, address(TARGET), &bytes)),
                Way::ToBridge(bytes) => drop(self.bridge.handle_datagram(now, address(HOST), &bytes)),
                Way::UpTheLine(bytes) => self.bridge.handle_stream(now, &bytes),
                Way::DownTheLine(bytes) => self.target.handle_stream(now, &bytes),
            }
            self.settle();
        }
        if self.debugger.poll_timeout().is_some_and(|at| at <= now) {
            self.debugger.handle_timeout(now);
        }
        self.bridge.handle_timeout(now);
        if self.target.poll_timeout().is_some_and(|at| at <= now) {
            self.target.handle_timeout(now);
        }
        self.settle();
    }

    fn settle(&mut self) {
        let mut bytes = BytesMut::new();
        while self.debugger.poll_transmit(&mut bytes).is_some() {
            self.datagram(&bytes, Way::ToBridge);
        }
        while self.bridge.poll_transmit(&mut bytes).is_some() {
            self.datagram(&bytes, Way::ToDebugger);
        }
        bytes.clear();
        if self.bridge.poll_transmit_stream(&mut bytes) {
            self.piece(&bytes, 0, Way::DownTheLine);
        }
        while let Some(event) = self.target.poll_event() {
            self.kernel(event);
        }
        bytes.clear();
        if self.target.poll_transmit_stream(&mut bytes) {
            self.piece(&bytes, 1, Way::UpTheLine);
        }
        self.events.extend(std::iter::from_fn(|| self.debugger.poll_event()));
        self.bridge_events.extend(std::iter::from_fn(|| self.bridge.poll_event()));
    }

    fn datagram(&mut self, bytes: &[u8], way: fn(Vec<u8>) -> Way) {
        if self.chance.happens(self.faults.network) {
            return;
        }
        let copies = if self.chance.happens(self.faults.network) { 2 } else { 1 };
        let late = if self.chance.happens(self.faults.network) { LATENCY * 5 } else { Duration::ZERO };
        for _ in 0..copies {
            self.put(self.now + LATENCY + late, way(bytes.to_vec()));
        }
    }

    fn piece(&mut self, bytes: &[u8], direction: usize, way: fn(Vec<u8>) -> Way) {
        let mut bytes = bytes.to_vec();
        if self.chance.happens(self.faults.line) {
            let at = self.chance.next() as usize % bytes.len();
            match self.chance.next() % 4 {
                0 => drop(bytes.remove(at)),
                1 => bytes.insert(at, self.chance.next() as u8),
                2 => bytes[at] ^= 1 << (self.chance.next() % 8),
                _ => bytes.truncate(at),
            }
        }
        let at = self.line_free_at[direction].max(self.now + LATENCY) + Duration::from_micros(1);
        let at = at + self.byte_time * bytes.len() as u32;
        self.line_free_at[direction] = at;
        self.put(at, way(bytes));
    }

    fn put(&mut self, at: Instant, way: Way) {
        self.count += 1;
        self.on_the_way.insert((at, self.count), way);
    }

    fn kernel(&mut self, event: TargetEvent) {
        match event {
            TargetEvent::BreakIn => self.target.stop(self.now, breakpoint(self.asked_below.len() as u64)),
            TargetEvent::Request(request) => {
                if request.api_number.has_reply() {
                    self.target.reply(self.now, &answer(&request, 3944));
                } else if !request.api_number.ends_stop() {
                    self.target.no_reply(self.now);
                }
                self.asked_below.push(*request);
            }
            TargetEvent::PromptAnswer(io) => self.prompt_answers.push(io.text),
            TargetEvent::Connected(_) | TargetEvent::FileAnswer(_) | TargetEvent::DebuggerAbsent => {}
        }
    }
}

fn module_event() -> StateChange {
    let detail = StateDetail::LoadSymbols(LoadSymbols {
        path_name_length: 9,
        padding: 0,
        base_of_dll: VirtAddr(0xffff_f800_0200_0000),
        process_id: 0,
        check_sum: 0,
        size_of_image: 0x1000,
        unload_symbols: 0,
    });
    let data = Bytes::from_static(b"acpi.sys\0");
    StateChange { new_state: NewState::LOAD_SYMBOLS, detail, data, ..breakpoint(0) }
}

#[test]
fn a_kdnet_debugger_stops_reads_and_resumes_a_serial_target() {
    let mut world = World::new(1, NONE);
    world.attach();
    let stop = world.stop_target();
    assert_eq!(stop.program_counter, VirtAddr(0xffff_f800_0140_0000));
    let Event::Replied(_, reply) = world.ask(Manipulate::read_virtual(VirtAddr(0x1000), 2048)) else {
        panic!("the read is answered")
    };
    assert_eq!(reply.data, memory_at(0x1000, 1096), "what a KDNET reply carries");
    let Arm::ReadMemory(arm) = reply.arm else { panic!("a read's arm") };
    assert_eq!((arm.transfer_count, arm.actual_bytes_read), (2048, 1096), "and the request repeated");
    world.resume();
    assert!(world.run_until(Duration::from_secs(5), |world| world.target.is_running()));
    world.target.print(world.now, Bytes::from_static(b"still alive\n"));
    world.wait_for("print", |it| *it == Event::DebugPrint(Bytes::from_static(b"still alive\n")));
    assert!(world.bridge_events.contains(&BridgeEvent::TargetHeard));
}

#[test]
fn every_reply_belongs_to_its_request_whatever_happens_on_either_side() {
    let seeds = std::env::var("VERIKD_SEEDS").map_or(30, |it| it.parse().expect("VERIKD_SEEDS is a number"));
    let (mut failed, mut reads) = (0, 0);
    for seed in 0..seeds {
        let mut world = World::new(seed, Faults { network: 0.1, line: 0.03 });
        world.attach();
        world.stop_target();
        for at in 0..20 {
            let at = 0x1000 + at * 0x1111;
            reads += 1;
            match world.ask(Manipulate::read_virtual(VirtAddr(at), 1000)) {
                Event::Replied(_, reply) if reply.return_status.is_success() => {
                    // Fewer bytes are what a noisy line carries.
                    let count = reply.data.len();
                    assert!(count >= 250, "seed {seed}: {count} bytes at {at:#x}");
                    assert!(reply.data == memory_at(at, count), "seed {seed}: other bytes than at {at:#x}");
                }
                // Noise on the line can look like a target that restarts, or like one that refuses.
                Event::Replied(..) => failed += 1,
                Event::Failed(_, RequestError::TargetRunning | RequestError::TargetRestarted) => {
                    failed += 1;
                    world.stop_target();
                }
                other => panic!("seed {seed}: {other:?}"),
            }
        }
        world.resume();
        let runs = world.run_until(Duration::from_secs(60), |world| {
            if world.debugger.state() == RunState::Stopped {
                world.debugger.resume(world.now, NtStatus::DBG_CONTINUE);
            }
            world.target.is_running() && world.debugger.state() == RunState::Running
        });
        assert!(runs, "seed {seed}: still stopped");
        assert!(
            world.now - world.start < Duration::from_secs(180),
            "seed {seed}: {:?}",
            world.now - world.start
        );
    }
    assert!(failed * 50 <= reads, "{failed} of {reads} reads ended without an answer");
}

#[test]
fn a_boot_goes_on_without_a_debugger_and_is_shown_to_one() {
    let mut world = World::new(2, NONE);
    world.debugger = host_link(99);
    // Nobody answers offers: the debugger's datagrams are lost.
    world.faults.network = 1.0;
    world.target.stop(world.now, module_event());
    assert!(world.run_until(Duration::from_secs(5), |world| world.target.is_running()));
    let mut prompt = DebugIo::print(Bytes::from_static(b"Break, Ignore (bi)?"));
    prompt.api_number = DebugIoApi::GET_STRING;
    prompt.length_of_string_read = 2;
    world.target.ask(world.now, &Payload::DebugIo(prompt.clone()));
    assert!(world.run_until(Duration::from_secs(5), |world| !world.prompt_answers.is_empty()));
    assert_eq!(world.prompt_answers, [Bytes::from_static(b"i")]);
    world.faults.network = 0.0;
    world.attach();
    assert!(world.run_until(Duration::from_secs(5), |world| world.target.is_running()));
    world.target.stop(world.now, module_event());
    world.wait_for("module", |it| matches!(it, Event::ModuleEvent(_)));
    assert!(world.run_until(Duration::from_secs(5), |world| world.target.is_running()));
    world.target.ask(world.now, &Payload::DebugIo(prompt));
    let Event::Prompt(shown) = world.wait_for("prompt", |it| matches!(it, Event::Prompt(_))) else {
        unreachable!()
    };
    world.debugger.answer_prompt(world.now, &shown, Bytes::from_static(b"b"));
    assert!(world.run_until(Duration::from_secs(5), |world| world.prompt_answers.len() == 2));
    assert_eq!(world.prompt_answers[1], Bytes::from_static(b"b"));
}

#[test]
fn requests_through_a_slow_line_are_seldom_repeated_in_vain() {
    let mut world = World::new(6, NONE);
    // 115,200 baud: a read of 1,096 bytes takes 0.1 s.
    world.byte_time = Duration::from_micros(87);
    world.attach();
    world.stop_target();
    let mut asked = 0;
    for at in 0..150_u64 {
        let count = [8, 1096, 64, 1096][at as usize % 4];
        let reply = world.ask(Manipulate::read_virtual(VirtAddr(0x1000 * at), count));
        assert!(matches!(reply, Event::Replied(..)), "{reply:?}");
        asked += 1;
    }
    let again = world.debugger.counters().retransmissions;
    assert!(again * 20 < asked, "{again} of {asked} requests were sent again, and nothing was lost");
}

#[test]
fn a_serial_target_that_restarts_is_a_kdnet_target_that_restarts() {
    let mut world = World::new(3, NONE);
    world.attach();
    world.stop_target();
    world.run_until(Duration::from_millis(20), |_| false);
    world.target.reboot(world.now);
    world.target.print(world.now, Bytes::from_static(b"booting\n"));
    world.wait_for("restart", |it| matches!(it, Event::Restarted(_)));
    world.stop_target();
    let Event::Replied(_, reply) = world.ask(Manipulate::read_virtual(VirtAddr(0x4000), 8)) else {
        panic!("the read is answered")
    };
    assert_eq!(reply.data, memory_at(0x4000, 8));
}

#[test]
fn a_debugger_that_comes_later_finds_the_stop_of_the_one_that_died() {
    let mut world = World::new(4, NONE);
    world.attach();
    world.stop_target();
    world.debugger.request(world.now, Manipulate::read_virtual(VirtAddr(0x1000), 64));
    world.run_until(Duration::from_millis(2), |_| false);
    world.debugger = host_link(77);
    world.events.clear();
    world.attach();
    world.stop_target();
    let Event::Replied(_, reply) = world.ask(Manipulate::read_virtual(VirtAddr(0x7000), 64)) else {
        panic!("the read is answered")
    };
    assert_eq!(reply.data, memory_at(0x7000, 64));
}

#[test]
fn a_line_that_ends_refuses_the_debuggers_requests_at_once() {
    let mut world = World::new(5, NONE);
    world.attach();
    world.stop_target();
    world.bridge.handle_stream_closed(world.now);
    let start = world.now;
    let Event::Replied(_, reply) = world.ask(Manipulate::read_virtual(VirtAddr(0x1000), 64)) else {
        panic!("the read is answered")
    };
    assert_eq!(reply.return_status, NtStatus::UNSUCCESSFUL);
    assert!(world.now - start < Duration::from_secs(1));
    world.bridge.handle_stream_opened(world.now);
    let works = world.run_until(Duration::from_secs(30), |world| world.bridge.is_stopped());
    assert!(works, "the target is stopped still, and says so again");
    let Event::Replied(_, reply) = world.ask(Manipulate::read_virtual(VirtAddr(0x2000), 64)) else {
        panic!("the read is answered")
    };
    assert_eq!(reply.data, memory_at(0x2000, 64));
}
