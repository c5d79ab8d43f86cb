//! Two ends joined by a line that loses, flips and makes up bytes, under a virtual clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kd_protocol::VirtAddr;
use kd_protocol::kd::{Manipulate, NtStatus, StateChange};
use kd_protocol::link::{Event, HostLink, Patience, TargetEvent, TargetLink};

use super::net::{Chance, answer, breakpoint, end_of};

/// One byte takes this long: a line of a million baud, or a virtual machine's.
const BYTE: Duration = Duration::from_micros(10);
/// What one reply carries: a packet of 4,000 bytes less the header.
const REPLY_LEN: u32 = 3944;

/// What happens to a byte. Shares are between 0 and 1.
#[derive(Clone, Copy, Default)]
pub struct Noise {
    pub lost: f64,
    pub flipped: f64,
    /// A byte of any value is put before it.
    pub inserted: f64,
    /// It and the next bytes of its packet are lost.
    pub cut: f64,
    /// Whatever is longer than this is damaged each time.
    pub spoils_from: Option<usize>,
}

pub struct Line {
    pub now: Instant,
    pub start: Instant,
    pub host: HostLink,
    pub target: TargetLink,
    pub events: Vec<Event>,
    pub executed: Vec<Manipulate>,
    pub prompt_answers: Vec<Bytes>,
    /// Everything that the host has sent.
    pub sent: Vec<u8>,
    /// Everything that the target has sent.
    pub received: Vec<u8>,
    /// The target is switched off.
    pub is_dead: bool,
    /// What the target sends is lost.
    pub is_mute: bool,
    /// It stops again as soon as it is let run.
    pub steps: bool,
    /// What `breakpoint` is announced with.
    pub stops: u64,
    pub noise: Noise,
    /// This bit of the id of the target's next data packet is flipped on its way.
    flipped_id_bit: Option<usize>,
    chance: Chance,
    to_host: VecDeque<(Instant, u8)>,
    to_target: VecDeque<(Instant, u8)>,
}

pub fn host_link() -> HostLink {
    HostLink::over_stream(Patience::default())
}

impl Line {
    /// A line that both ends are connected to.
    pub fn new(seed: u64, noise: Noise) -> Self {
        let now = Instant::now();
        let mut line = Self {
            now,
            start: now,
            host: host_link(),
            target: TargetLink::over_stream(),
            events: Vec::new(),
            executed: Vec::new(),
            prompt_answers: Vec::new(),
            sent: Vec::new(),
            received: Vec::new(),
            is_dead: false,
            is_mute: false,
            steps: false,
            stops: 0,
            noise,
            flipped_id_bit: None,
            chance: Chance::new(seed),
            to_host: VecDeque::new(),
            to_target: VecDeque::new(),
        };
        line.host.handle_stream_opened(now);
        line
    }

    /// Another debugger sits down at the line, knowing nothing.
    pub fn replace_host(&mut self) {
        self.host = host_link();
        self.host.handle_stream_opened(self.now);
        self.events.clear();
    }

    /// Lets time pass until `done` says so; false if it did not within `limit`.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            self.settle();
            if done(self) {
                return true;
            }
            let timers = [self.host.poll_timeout(), self.target.poll_timeout()].into_iter().flatten();
            let bytes = [&self.to_host, &self.to_target].into_iter().filter_map(|it| it.front());
            let Some(next) = timers.chain(bytes.map(|(at, _)| *at)).min().filter(|at| *at <= end) else {
                self.now = end;
                return false;
            };
            self.now = self.now.max(next);
            self.step();
        }
    }

    pub fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    pub fn wait_for(&mut self, what: &str, mut wanted: impl FnMut(&Event) -> bool) -> Event {
        let mut found = None;
        let in_time = self.run_until(Duration::from_secs(60), |line| {
            let position = line.events.iter().position(&mut wanted);
            found = position.map(|at| line.events.drain(..=at).next_back().unwrap());
            found.is_some()
        });
        assert!(in_time, "no {what} within a minute; events so far: {:?}", self.events);
        found.unwrap()
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

    /// As many requests as it takes: a reply may have less than was asked for, and the next request asks for no more.
    pub fn read(&mut self, at: u64, count: u32) -> Result<Bytes, Event> {
        let (mut read, mut piece) = (BytesMut::new(), count);
        while read.len() < count as usize {
            let (got, wanted) = (read.len() as u64, piece.min(count - read.len() as u32));
            match self.ask(Manipulate::read_virtual(VirtAddr(at + got), wanted)) {
                Event::Replied(_, reply) if !reply.data.is_empty() => {
                    piece = reply.data.len() as u32;
                    read.extend_from_slice(&reply.data);
                }
                other => return Err(other),
            }
        }
        Ok(read.freeze())
    }

    pub fn flip_next_data_id(&mut self, bit: usize) {
        self.flipped_id_bit = Some(bit);
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

    fn step(&mut self) {
        let now = self.now;
        while let Some(byte) = take(&mut self.to_host, now) {
            self.host.handle_stream(now, &[byte]);
            self.settle();
        }
        while let Some(byte) = take(&mut self.to_target, now) {
            if !self.is_dead {
                self.target.handle_stream(now, &[byte]);
                self.settle();
            }
        }
        if self.host.poll_timeout().is_some_and(|at| at <= now) {
            self.host.handle_timeout(now);
        }
        if self.target.poll_timeout().is_some_and(|at| at <= now) {
            self.target.handle_timeout(now);
        }
        self.settle();
    }

    fn settle(&mut self) {
        let mut bytes = BytesMut::new();
        if self.host.poll_transmit_stream(&mut bytes) {
            self.sent.extend_from_slice(&bytes);
            let on_the_way = self.carry(&bytes);
            put(&mut self.to_target, self.now, on_the_way);
        }
        while let Some(event) = self.target.poll_event() {
            self.kernel(event);
        }
        bytes.clear();
        if self.target.poll_transmit_stream(&mut bytes) && !self.is_dead && !self.is_mute {
            self.received.extend_from_slice(&bytes);
            if let Some(at) = bytes.windows(4).position(|it| it == b"0000")
                && let Some(bit) = self.flipped_id_bit.take()
            {
                bytes[at + 8 + bit / 8] ^= 1 << (bit % 8);
            }
            let on_the_way = self.carry(&bytes);
            put(&mut self.to_host, self.now, on_the_way);
        }
        while let Some(event) = self.host.poll_event() {
            self.events.push(event);
        }
    }

    /// What arrives of `bytes`. A packet is hit once at the most: KD's sum cannot tell two flips that cancel each other.
    fn carry(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Noise { lost, flipped, inserted, cut, spoils_from } = self.noise;
        if spoils_from.is_some_and(|len| bytes.len() > len) {
            let mut spoilt = bytes.to_vec();
            spoilt[bytes.len() / 2] ^= 1;
            return spoilt;
        }
        for (at, byte) in bytes.iter().enumerate() {
            let (before, after) = (&bytes[..at], &bytes[at + 1..]);
            if self.chance.happens(cut) {
                return before.to_vec();
            } else if self.chance.happens(lost) {
                return [before, after].concat();
            } else if self.chance.happens(inserted) {
                return [before, &[self.chance.next() as u8, *byte], after].concat();
            } else if self.chance.happens(flipped) {
                return [before, &[byte ^ 1 << (self.chance.next() % 8)], after].concat();
            }
        }
        bytes.to_vec()
    }

    /// A kernel as small as can be: memory is a function of its address.
    fn kernel(&mut self, event: TargetEvent) {
        match event {
            TargetEvent::BreakIn => {
                self.stops += 1;
                self.target.stop(self.now, breakpoint(self.stops));
            }
            TargetEvent::Request(request) => {
                if request.api_number.has_reply() {
                    self.target.reply(self.now, &answer(&request, REPLY_LEN));
                } else if !request.api_number.ends_stop() {
                    self.target.no_reply(self.now);
                } else if self.steps {
                    self.stops += 1;
                    self.target.stop(self.now, breakpoint(self.stops));
                }
                self.executed.push(*request);
            }
            TargetEvent::PromptAnswer(io) => self.prompt_answers.push(io.text),
            TargetEvent::Connected(_) | TargetEvent::FileAnswer(_) | TargetEvent::DebuggerAbsent => {}
        }
    }
}

fn put(line: &mut VecDeque<(Instant, u8)>, now: Instant, bytes: Vec<u8>) {
    let mut at = line.back().map_or(now, |(at, _)| (*at).max(now));
    for byte in bytes {
        at += BYTE;
        line.push_back((at, byte));
    }
}

/// The next byte that has arrived by `now`.
fn take(line: &mut VecDeque<(Instant, u8)>, now: Instant) -> Option<u8> {
    let has_arrived = line.front().is_some_and(|(at, _)| *at <= now);
    if has_arrived { line.pop_front().map(|(_, byte)| byte) } else { None }
}
