//! Two ends joined by a network that loses, doubles, delays and damages datagrams, under a virtual clock: a minute of
//! link time takes milliseconds, and a seed reproduces it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kd_protocol::kd::{
    ApiNumber, Arm, ControlReport, Exception, GetVersion64, Manipulate, NtStatus, StateChange, VersionFlags,
};
use kd_protocol::link::{
    Entropy, Event, HostLink, LinkConfig, RequestId, TargetConfig, TargetEvent, TargetLink,
};
use kd_protocol::{VirtAddr, kdnet::Key};

/// A small generator of reproducible chance (xorshift64*).
#[derive(Clone)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn happens(&mut self, share: f64) -> bool {
        ((self.next() >> 11) as f64) < share * (1_u64 << 53) as f64
    }
}

impl Entropy for Chance {
    fn fill(&mut self, buf: &mut [u8]) {
        for byte in buf {
            *byte = (self.next() >> 32) as u8;
        }
    }
}

#[derive(Clone, Copy, Default)]
pub struct Faults {
    pub loss: f64,
    pub duplicate: f64,
    pub reorder: f64,
    pub corrupt: f64,
}

/// What the network does besides, until it clears up. Shares are between 0 and 1.
#[derive(Clone, Copy, Default)]
pub struct Weather {
    pub faults: Faults,
    pub truncate: f64,
    /// A datagram is late by up to this.
    pub jitter: Duration,
    /// Everything is lost for 150 ms of each 400.
    pub bursts: bool,
    /// Share of datagrams behind which a recorded one comes again.
    pub replay: f64,
    /// Datagrams of junk behind each that is carried, some of them shaped as the protocol's.
    pub junk: usize,
}

/// A response is not replayed: within 6 s of its offer it keys the target anew, with the same key and all sequences unused, and
/// what was recorded of the host works again. No host can do anything about that: PROTOCOL.md 5.
const RESPONSE_LEN: usize = 358;

/// One way through the network takes this long.
const LATENCY: Duration = Duration::from_micros(500);

pub const HOST: &str = "192.168.2.1:50000";
pub const TARGET: &str = "192.168.2.72:50000";

pub struct World {
    pub now: Instant,
    pub start: Instant,
    pub host: HostLink,
    pub target: TargetLink,
    pub events: Vec<Event>,
    /// All events since the beginning.
    pub log: Vec<Event>,
    /// Time a request takes to execute.
    pub execution: Duration,
    /// The target is unplugged.
    pub is_dead: bool,
    /// What the target sends is lost.
    pub is_mute: bool,
    /// What is sent to the target is lost.
    pub is_deaf: bool,
    /// Datagrams the host has sent, whatever became of them.
    pub host_datagrams: usize,
    /// Requests that the simulated kernel has executed.
    pub executed: Vec<Manipulate>,
    pub prompt_answers: Vec<Bytes>,
    chance: Chance,
    faults: Faults,
    pub weather: Weather,
    /// When the weather clears up, and what is lost in one direction gets through again.
    pub clears_at: Option<Instant>,
    /// The target stands still with all that is on its way to it, until the weather clears up.
    pub is_suspended: bool,
    /// Counts restarts of the target; its memory is another one in each.
    pub boot: u8,
    /// What was carried: from and to whom, and what.
    pub record: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// Another machine with the same key, and where its datagrams come from.
    pub second: Option<(SocketAddr, TargetLink)>,
    /// Where the target's datagrams come from.
    pub target_address: SocketAddr,
    /// From and to whom, and what.
    wire: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    wire_count: u64,
    pending_reply: Option<(Instant, Manipulate)>,
}

pub fn key() -> Key {
    "1.2.3.4".parse().unwrap()
}

pub fn host_link(seed: u64) -> HostLink {
    HostLink::new(LinkConfig::new(key()), Box::new(Chance::new(seed)))
}

impl World {
    pub fn new(seed: u64, faults: Faults) -> Self {
        let now = Instant::now();
        let config = TargetConfig { key: key(), version: 5, address: address(TARGET), host: address(HOST) };
        Self {
            now,
            start: now,
            host: host_link(seed + 1),
            target: TargetLink::new(now, config, Box::new(Chance::new(seed + 2))),
            events: Vec::new(),
            log: Vec::new(),
            execution: Duration::ZERO,
            is_dead: false,
            is_mute: false,
            is_deaf: false,
            host_datagrams: 0,
            executed: Vec::new(),
            prompt_answers: Vec::new(),
            chance: Chance::new(seed + 3),
            faults,
            weather: Weather::default(),
            clears_at: None,
            is_suspended: false,
            boot: 0,
            record: Vec::new(),
            second: None,
            target_address: address(TARGET),
            wire: BTreeMap::new(),
            wire_count: 0,
            pending_reply: None,
        }
    }

    /// Lets time pass until `done` says so; false if it did not within `limit`.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            self.settle();
            if done(self) {
                return true;
            }
            let second = self.second.as_ref().and_then(|(_, it)| it.poll_timeout());
            let of_target = self.target.poll_timeout().filter(|_| !self.is_suspended);
            let timers = [self.host.poll_timeout(), of_target, second, self.clears_at];
            let pending = self.pending_reply.as_ref().filter(|_| !self.is_suspended);
            let executes = pending.map(|(at, _)| *at);
            let arrives = self.wire.keys().next().map(|(at, _)| *at);
            let next =
                timers.into_iter().flatten().chain(executes).chain(arrives).min().expect("offers never end");
            if next > end {
                self.now = end;
                return false;
            }
            self.now = self.now.max(next);
            self.step();
        }
    }

    pub fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    pub fn wait_for(&mut self, what: &str, mut wanted: impl FnMut(&Event) -> bool) -> Event {
        let mut found = None;
        let in_time = self.run_until(Duration::from_secs(60), |world| {
            let position = world.events.iter().position(&mut wanted);
            found = position.map(|at| world.events.drain(..=at).next_back().unwrap());
            found.is_some()
        });
        assert!(in_time, "no {what} within a minute; events so far: {:?}", self.events);
        found.unwrap()
    }

    pub fn attach(&mut self) {
        self.wait_for("connection", |it| matches!(it, Event::Connected(_)));
    }

    pub fn stop_target(&mut self) -> StateChange {
        self.host.break_in(self.now);
        match self.wait_for("stop", |it| matches!(it, Event::Stopped(_))) {
            Event::Stopped(change) => *change,
            _ => unreachable!(),
        }
    }

    /// Requests `request` and waits for its end.
    pub fn ask(&mut self, request: Manipulate) -> Event {
        let wanted = self.host.request(self.now, request);
        self.wait_for("end of a request", |it| end_of(it) == Some(wanted))
    }

    /// The address of a request, as data: a reply to another request would differ.
    pub fn read(&mut self, at: u64, count: u32) -> Result<Bytes, Event> {
        match self.ask(Manipulate::read_virtual(VirtAddr(at), count)) {
            Event::Replied(_, reply) => Ok(reply.data),
            other => Err(other),
        }
    }

    /// Waits for what becomes of a resume; a stop that comes instead is left like the last one.
    pub fn leave(&mut self) -> Event {
        let ends =
            |it: &Event| matches!(it, Event::Resumed | Event::ResumeUnproven { .. } | Event::Stopped(_));
        loop {
            match self.wait_for("end of a resume", ends) {
                Event::Stopped(_) => self.host.resume(self.now, NtStatus::DBG_CONTINUE),
                other => return other,
            }
        }
    }

    /// A machine with the same key that offers itself from `from`, beginning now.
    pub fn add_second(&mut self, from: SocketAddr, seed: u64) {
        let config = TargetConfig { key: key(), version: 5, address: from, host: address(HOST) };
        self.second = Some((from, TargetLink::new(self.now, config, Box::new(Chance::new(seed)))));
    }

    pub fn unplug_and_reboot(&mut self) {
        self.pending_reply = None;
        self.target.reboot(self.now);
    }

    /// Until then, whatever befalls the network or the target.
    pub fn clear_up(&mut self, at: Instant) {
        self.clears_at = Some(at);
    }

    fn step(&mut self) {
        self.settle();
        if self.clears_at.is_some_and(|at| at <= self.now) {
            self.clears_at = None;
            self.weather = Weather::default();
            (self.is_mute, self.is_deaf, self.is_suspended) = (false, false, false);
        }
        if self.pending_reply.as_ref().is_some_and(|(at, _)| *at <= self.now) && !self.is_suspended {
            let (_, reply) = self.pending_reply.take().unwrap();
            self.target.reply(self.now, &reply);
        }
        while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (from, to, datagram) = entry.remove();
            // Drops are the point of these tests; what matters is what the links make of them.
            if to == address(HOST) {
                let _ = self.host.handle_datagram(self.now, from, &datagram);
            } else if let Some((_, second)) = self.second.as_mut().filter(|(address, _)| *address == to) {
                let _ = second.handle_datagram(self.now, from, &datagram);
            } else if let Some(at) = self.clears_at.filter(|_| self.is_suspended) {
                self.wire_count += 1;
                self.wire.insert((at, self.wire_count), (from, to, datagram));
            } else if to == self.target_address && !self.is_dead && !self.is_deaf {
                let _ = self.target.handle_datagram(self.now, from, &datagram);
            }
            self.settle();
        }
        if self.host.poll_timeout().is_some_and(|at| at <= self.now) {
            self.host.handle_timeout(self.now);
        }
        if self.target.poll_timeout().is_some_and(|at| at <= self.now) && !self.is_suspended {
            self.target.handle_timeout(self.now);
        }
        if let Some((_, second)) = &mut self.second
            && second.poll_timeout().is_some_and(|at| at <= self.now)
        {
            second.handle_timeout(self.now);
        }
        self.settle();
    }

    fn settle(&mut self) {
        let mut datagram = BytesMut::new();
        while let Some(to) = self.host.poll_transmit(&mut datagram) {
            self.host_datagrams += 1;
            self.carry(address(HOST), to, datagram.to_vec());
        }
        if let Some((from, second)) = &mut self.second {
            let from = *from;
            let mut sent = Vec::new();
            while second.poll_transmit(&mut datagram).is_some() {
                sent.push(datagram.to_vec());
            }
            sent.into_iter().for_each(|it| self.carry(from, address(HOST), it));
        }
        while let Some(event) = self.target.poll_event() {
            self.kernel(event);
        }
        while self.target.poll_transmit(&mut datagram).is_some() {
            if !self.is_dead && !self.is_mute {
                self.carry(self.target_address, address(HOST), datagram.to_vec());
            }
        }
        while let Some(event) = self.host.poll_event() {
            self.log.push(event.clone());
            self.events.push(event);
        }
    }

    fn carry(&mut self, from: SocketAddr, to: SocketAddr, mut datagram: Vec<u8>) {
        let weather = self.weather;
        if datagram.len() != RESPONSE_LEN {
            self.record.push((from, to, datagram.clone()));
        }
        if self.chance.happens(weather.replay) {
            let at = self.chance.next() as usize % self.record.len();
            let (from, to, datagram) = self.record[at].clone();
            self.put(Duration::from_millis(2), from, to, datagram);
        }
        for _ in 0..weather.junk {
            let mut junk = vec![0; (self.chance.next() % 120) as usize];
            self.chance.fill(&mut junk);
            if self.chance.happens(0.5) && junk.len() > 6 {
                junk[..6].copy_from_slice(&[b'M', b'D', b'B', b'G', 5, (from.port() % 2) as u8]);
            }
            self.put(Duration::ZERO, from, to, junk);
        }
        let in_burst = weather.bursts && (self.now - self.start).as_millis() % 400 < 150;
        if in_burst || self.chance.happens(self.faults.loss) || self.chance.happens(weather.faults.loss) {
            return;
        }
        if self.chance.happens(weather.truncate) {
            datagram.truncate(self.chance.next() as usize % datagram.len());
            return self.put(Duration::ZERO, from, to, datagram);
        }
        let duplicate = self.faults.duplicate.max(weather.faults.duplicate);
        let copies = if self.chance.happens(duplicate) { 2 } else { 1 };
        if self.chance.happens(self.faults.corrupt.max(weather.faults.corrupt)) {
            let at = self.chance.next() as usize % datagram.len();
            datagram[at] ^= 1 << (self.chance.next() % 8);
        }
        for _ in 0..copies {
            let reorder = self.faults.reorder.max(weather.faults.reorder);
            let mut late = if self.chance.happens(reorder) { LATENCY * 5 } else { Duration::ZERO };
            if !weather.jitter.is_zero() {
                late += weather.jitter.mul_f64((self.chance.next() % 1000) as f64 / 1000.0);
            }
            self.put(late, from, to, datagram.clone());
        }
    }

    fn put(&mut self, late: Duration, from: SocketAddr, to: SocketAddr, datagram: Vec<u8>) {
        self.wire_count += 1;
        self.wire.insert((self.now + LATENCY + late, self.wire_count), (from, to, datagram));
    }

    /// A kernel as small as can be: memory is a function of its address.
    fn kernel(&mut self, event: TargetEvent) {
        match event {
            TargetEvent::BreakIn => self.target.stop(self.now, breakpoint(self.executed.len() as u64)),
            TargetEvent::Request(request) => {
                self.executed.push((*request).clone());
                if request.api_number.has_reply() {
                    let mut reply = answer(&request, 1096);
                    reply.data = reply.data.iter().map(|byte| byte ^ self.boot).collect();
                    if self.execution.is_zero() {
                        self.target.reply(self.now, &reply);
                    } else {
                        self.pending_reply = Some((self.now + self.execution, reply));
                    }
                } else if !request.api_number.ends_stop() {
                    self.target.no_reply(self.now);
                }
            }
            TargetEvent::PromptAnswer(io) => self.prompt_answers.push(io.text),
            TargetEvent::Connected(_) | TargetEvent::FileAnswer(_) | TargetEvent::DebuggerAbsent => {}
        }
    }
}

pub fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub fn end_of(event: &Event) -> Option<RequestId> {
    match event {
        Event::Replied(id, _) | Event::Failed(id, _) | Event::Acknowledged(id) => Some(*id),
        _ => None,
    }
}

/// What the kernel's memory holds at `address`.
pub fn memory_at(address: u64, count: usize) -> Vec<u8> {
    (0..count as u64).map(|at| address.wrapping_add(at)).map(|at| (at ^ at >> 8) as u8).collect()
}

pub fn breakpoint(parameter: u64) -> StateChange {
    let mut exception_information = [0; 15];
    exception_information[1] = parameter;
    let exception = Exception {
        exception_code: NtStatus::BREAKPOINT,
        exception_flags: 0,
        exception_record: VirtAddr(0),
        exception_address: VirtAddr(0xffff_f800_0140_0000),
        number_parameters: 1,
        padding: 0,
        exception_information,
        first_chance: 1,
        tail_padding: 0,
    };
    let report = ControlReport {
        dr6: 0,
        dr7: 0,
        e_flags: 2,
        instruction_count: 16,
        report_flags: 3,
        instruction_stream: [0xcc; 16],
        seg_cs: 0x10,
        seg_ds: 0x2b,
        seg_es: 0x2b,
        seg_fs: 0x53,
    };
    StateChange::exception(exception, report)
}

pub fn answer(request: &Manipulate, limit: u32) -> Manipulate {
    match request.arm {
        Arm::ReadMemory(mut arm) => {
            let count = arm.transfer_count.min(limit);
            arm.actual_bytes_read = count;
            let data = memory_at(arm.target_base_address, count as usize);
            Manipulate { arm: Arm::ReadMemory(arm), ..request.reply(NtStatus::SUCCESS, data.into()) }
        }
        _ if request.api_number == ApiNumber::GET_VERSION => {
            let version = GetVersion64 {
                major_version: 0xf,
                minor_version: 7601,
                protocol_version: 6,
                kd_secondary_version: 2,
                flags: VersionFlags::MP | VersionFlags::PTR64,
                machine_type: 0x8664,
                max_packet_type: 12,
                max_state_change: 3,
                max_manipulate: 0x2f,
                simulation: 0,
                unused: 0,
                kern_base: VirtAddr(0xffff_f800_0140_0000),
                ps_loaded_module_list: VirtAddr(0),
                debugger_data_list: VirtAddr(0),
            };
            Manipulate { arm: Arm::GetVersion(version), ..request.reply(NtStatus::SUCCESS, Bytes::new()) }
        }
        _ => request.reply(NtStatus::UNSUCCESSFUL, Bytes::new()),
    }
}
