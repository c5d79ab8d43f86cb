//! A target that has the right key and obeys no rule, and an owner who asks for things at bad moments: what a
//! [`HostLink`] between them must keep to.
//!
//! ```text
//!   steps --> Play -- garbage, replays, authentic nonsense --> HostLink
//!               |  -- requests, break-ins, resumes, time  -->    |
//!               `---- checks every datagram, event and timer <---'
//! ```
//! Shared by `tests/hostile_link.rs` (proptest) and `fuzz/fuzz_targets/host_link.rs` (libFuzzer): both make steps of
//! bytes with [`Step::from_bytes`].

// Each of them compiles it as part of itself.
#![allow(unreachable_pub)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kd_protocol::VirtAddr;
use kd_protocol::kd::{ApiNumber, Arm, DebugIo, Manipulate, NtStatus, Packet, PacketId, PacketType};
use kd_protocol::kdnet::{
    Channel, Cipher, Control, Datagram, Direction, Endpoint, Envelope, Flags, Key, Offer, TargetRandom,
};
use kd_protocol::link::{Content, Entropy, Event, HostLink, LinkConfig, Patience, RequestId, RunState};
use kd_protocol::wire::Reader;

/// Datagrams that one call may cause.
const DATAGRAMS_PER_CALL: usize = 6;
/// Events that one call may cause, beside the ends of requests.
const EVENTS_PER_CALL: usize = 3;
/// Requests that the owner has open at a time.
const OPEN_REQUESTS: usize = 8;
/// Data packets of the link's own that may wait: an answer and a continue, each in flight and queued.
const OWN_PACKETS: usize = 4;
/// A request without an answer fails after this long.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The same for a search.
const SLOW_TIMEOUT: Duration = Duration::from_secs(4);
const PATIENCE: Patience =
    Patience { request_timeout: TIMEOUT, slow_request_timeout: SLOW_TIMEOUT, resume_timeout: SLOW_TIMEOUT };
/// Datagrams of the target that are remembered to be replayed.
const HISTORY: usize = 64;

/// How far the session has come when the first step is taken.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    /// No target was heard of.
    Unknown,
    /// The target has proven its key.
    Connected,
    /// The target is stopped.
    Stopped,
}

/// Whose id a packet of the target has.
#[derive(Clone, Copy, Debug)]
pub enum Id {
    /// The target's next.
    Next,
    /// The target's last.
    Last,
    /// That of the host's last data packet.
    Host,
    /// Any.
    Any(u32),
}

/// What a target may say again and again.
#[derive(Clone, Copy, Debug)]
pub enum Nag {
    Acknowledge,
    Resend,
    Reset,
    OpenFile,
    Prompt,
    LoadSymbols,
    Break,
    Ping,
}

/// One thing that happens to the link.
#[derive(Clone, Debug)]
pub enum Step {
    /// Time passes; timers are served when they are due.
    Wait(Duration),
    /// Bytes of somebody without the key.
    Garbage { from: u8, bytes: Bytes },
    /// An earlier datagram of the target, byte for byte.
    Replay { from: u8, index: u8 },
    /// An authentic control datagram.
    Control { from: u8, version: u8, flags: u8, sequence: u64, body: Bytes },
    /// A well-formed offer.
    Offer { from: u8, boot: u8, step_back: u8, connected: u8 },
    /// An authentic data datagram.
    Body { from: u8, session: u8, sequence: Option<u64>, body: Bytes },
    /// An authentic KD packet whose checksum is right.
    Packet { session: u8, is_control: bool, packet_type: u16, id: Id, payload: Bytes },
    /// What a real target would reply to the host's last request, but for the status.
    Reply { status: u32, data: Bytes },
    /// The same packet again and again.
    Nag { what: Nag, every: Duration, times: u8 },
    /// The owner wants an answer.
    Request { api: u16, address: u64, count: u16 },
    /// The owner lets the target run.
    Resume,
    /// The owner stops the target.
    BreakIn,
    /// The owner does not want to stop the target any more.
    CancelBreakIn,
    /// The owner answers the last prompt, or one that nobody sent.
    AnswerPrompt { answer: Bytes },
}

impl Step {
    /// The step that `bytes` stand for; missing ones count as zero.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let reader = &mut Reader::new("step", bytes);
        match u8(reader) % 20 {
            0 => Self::Wait(Duration::from_micros(u64::from(u16(reader)))),
            1 => Self::Wait(Duration::from_millis(u64::from(u16(reader)))),
            2 => Self::Garbage { from: u8(reader), bytes: rest(reader) },
            3 => Self::Replay { from: u8(reader), index: u8(reader) },
            4 => Self::Control {
                from: u8(reader),
                version: u8(reader),
                flags: u8(reader),
                sequence: u64(reader) >> 8,
                body: rest(reader),
            },
            5 => Self::Offer {
                from: u8(reader),
                boot: u8(reader) % 3,
                step_back: u8(reader),
                connected: u8(reader),
            },
            6 => Self::Body {
                from: u8(reader),
                session: u8(reader),
                sequence: (u8(reader) >= 0xc0).then(|| u64(reader) >> 8),
                body: rest(reader),
            },
            7 | 8 => Self::Packet {
                session: u8(reader),
                is_control: u8(reader) & 1 == 1,
                packet_type: u16::from(u8(reader) % 13),
                id: id(reader),
                payload: rest(reader),
            },
            9 => Self::Packet {
                session: 0,
                is_control: false,
                packet_type: PacketType::STATE_CHANGE64.0,
                id: Id::Next,
                payload: state_change(0x3030 + u32::from(u8(reader) % 4), u8(reader)),
            },
            10 => Self::Packet {
                session: 0,
                is_control: true,
                packet_type: PacketType::ACKNOWLEDGE.0,
                id: Id::Host,
                payload: Bytes::new(),
            },
            11 | 12 => {
                Self::Reply { status: if u8(reader) < 0x80 { 0 } else { 0xc000_0001 }, data: rest(reader) }
            }
            13 => Self::Nag { what: nag(u8(reader)), every: interval(u8(reader)), times: u8(reader) },
            14 | 15 => {
                Self::Request { api: 0x3130 + u16(reader) % 0x34, address: u64(reader), count: u16(reader) }
            }
            16 => Self::Resume,
            17 => Self::BreakIn,
            18 => Self::CancelBreakIn,
            _ => Self::AnswerPrompt { answer: rest(reader) },
        }
    }
}

/// Steps of one run: more would only make it slow.
const STEPS: usize = 200;

/// What a fuzzer's input stands for: how far the session has come, then steps, each a length and that many bytes.
#[allow(dead_code, reason = "the fuzz target and the tests share this file")]
pub fn steps_of(input: &[u8]) -> (Start, Vec<Step>) {
    let (start, mut rest) = input.split_first().unwrap_or((&0, &[]));
    let start = match start % 4 {
        0 => Start::Unknown,
        1 => Start::Connected,
        _ => Start::Stopped,
    };
    let mut steps = Vec::new();
    while let Some((len, tail)) = rest.split_first().filter(|_| steps.len() < STEPS) {
        let (step, tail) = tail.split_at(tail.len().min(usize::from(*len)));
        steps.push(Step::from_bytes(step));
        rest = tail;
    }
    (start, steps)
}

/// Takes `steps` one after another, then lets the target fall silent.
///
/// # Panics
/// If the link breaks one of its promises.
pub fn play(start: Start, steps: &[Step]) {
    let mut play = Play::new();
    play.begin(start);
    for step in steps {
        play.take(step);
    }
    play.fall_silent();
}

struct Session {
    cipher: Cipher,
    next_sequence: u64,
    /// The newest sequence of the host.
    host_sequence: u64,
}

struct Play {
    now: Instant,
    key: Key,
    control: Cipher,
    link: HostLink,
    /// One for each response of the host.
    sessions: Vec<Session>,
    history: Vec<Bytes>,
    counter: u64,
    next_id: PacketId,
    /// The host's last data packet.
    heard: Option<Packet>,
    /// Open requests: until when each must have ended.
    open: HashMap<RequestId, Instant>,
    prompt: DebugIo,
    /// Data packets of the host, retransmissions aside.
    new_packets: usize,
}

impl Play {
    fn new() -> Self {
        let key: Key = "1.2.3.4".parse().expect("a valid key");
        Self {
            now: Instant::now(),
            control: key.control_cipher(),
            link: HostLink::new(LinkConfig { key: key.clone(), patience: PATIENCE }, Box::new(Count(0))),
            key,
            sessions: Vec::new(),
            history: Vec::new(),
            counter: 1 << 32,
            next_id: PacketId::FIRST_OF_TARGET,
            heard: None,
            open: HashMap::new(),
            prompt: DebugIo::print(Bytes::from_static(b"?")),
            new_packets: 0,
        }
    }

    fn begin(&mut self, start: Start) {
        if matches!(start, Start::Unknown) {
            return;
        }
        self.take(&Step::Offer { from: 0, boot: 0, step_back: 0, connected: 0 });
        self.take(&Step::Body { from: 0, session: 0, sequence: None, body: Bytes::from_static(&[0; 12]) });
        assert!(self.link.peer().is_some(), "an offer and a ping connect");
        if matches!(start, Start::Stopped) {
            let payload = state_change(0x3030, 0);
            self.send_packet(0, false, PacketType::STATE_CHANGE64, Id::Next, payload);
            assert_eq!(self.link.state(), RunState::Stopped);
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Wait(time) => self.wait(*time),
            Step::Garbage { from, bytes } => self.deliver(*from, bytes),
            Step::Replay { from, index } => {
                if !self.history.is_empty() {
                    let again = self.history[usize::from(*index) % self.history.len()].clone();
                    self.deliver(*from, &again);
                }
            }
            Step::Control { from, version, flags, sequence, body } => {
                let flags = Flags::from_bits_retain(*flags) | Flags::CONTROL;
                let direction = Direction::TargetToHost;
                let body = body.clone();
                let datagram = Datagram { version: *version, flags, direction, sequence: *sequence, body };
                self.send(*from, datagram.seal(&self.control));
            }
            Step::Offer { from, boot, step_back, connected } => {
                self.offer(*from, *boot, *step_back, *connected)
            }
            Step::Body { from, session, sequence, body } => {
                self.send_data(*from, *session, *sequence, body.clone())
            }
            Step::Packet { session, is_control, packet_type, id, payload } => {
                self.send_packet(*session, *is_control, PacketType(*packet_type), *id, payload.clone());
            }
            Step::Reply { status, data } => self.reply(NtStatus(*status), data.clone()),
            Step::Nag { what, every, times } => {
                for round in 0..*times {
                    self.nag(*what, round);
                    self.wait(*every);
                }
            }
            Step::Request { api, address, count } => self.request(*api, *address, *count),
            Step::Resume => self.call(|link, now| link.resume(now, NtStatus::DBG_CONTINUE)),
            Step::BreakIn => self.call(HostLink::break_in),
            Step::CancelBreakIn => self.call(|link, _| link.cancel_break_in()),
            Step::AnswerPrompt { answer } => {
                let prompt = self.prompt.clone();
                self.call(|link, now| link.answer_prompt(now, &prompt, answer.clone()));
            }
        }
    }

    /// Nothing comes any more: what is open ends, and the link sends no more than what was open.
    fn fall_silent(&mut self) {
        self.call(|link, _| link.cancel_break_in());
        let allowed = self.open.len() + OWN_PACKETS;
        let before = self.new_packets;
        self.wait(limit(self.open.len() + OWN_PACKETS));
        assert!(self.open.is_empty(), "requests without an end: {:?}", self.open.keys());
        let sent = self.new_packets - before;
        assert!(sent <= allowed, "{sent} packets were queued behind at most {allowed} that may be");
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        let mut calls = 0;
        while let Some(due) = self.link.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.call(HostLink::handle_timeout);
            let next = self.link.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now), "a served timer is due at once again");
            calls += 1;
            assert!(calls <= 16 + time.as_millis(), "{calls} timeouts within {time:?}");
        }
        self.now = end;
        self.check_open();
    }

    fn offer(&mut self, from: u8, boot: u8, step_back: u8, connected: u8) {
        self.counter += 1;
        let counter = if step_back < 0xc0 { self.counter } else { self.counter - u64::from(step_back) };
        let offer = Offer {
            target_random: TargetRandom { counter, boot: [boot; 24] },
            target: address(0).into(),
            configured_host: address(9).into(),
            connected_host: match connected % 3 {
                0 => Endpoint::NONE,
                which => address(which).into(),
            },
            host_connection_info: Box::new([0; 256]),
        };
        let datagram = Datagram {
            version: 5,
            flags: Flags::CONTROL,
            direction: Direction::TargetToHost,
            sequence: counter,
            body: Control::Offer(offer).encode(),
        };
        self.send(from, datagram.seal(&self.control));
    }

    fn reply(&mut self, status: NtStatus, data: Bytes) {
        let Some(packet) = self.heard.clone() else { return };
        let Ok(request) = Manipulate::decode(&packet.payload) else { return };
        self.send_packet(0, true, PacketType::ACKNOWLEDGE, Id::Host, Bytes::new());
        let reply = request.reply(status, data).encode();
        self.send_packet(0, false, PacketType::STATE_MANIPULATE, Id::Next, reply);
    }

    fn nag(&mut self, what: Nag, round: u8) {
        let (packet_type, payload) = match what {
            Nag::Acknowledge => {
                return self.send_packet(0, true, PacketType::ACKNOWLEDGE, Id::Host, Bytes::new());
            }
            Nag::Resend => return self.send_packet(0, true, PacketType::RESEND, Id::Any(0), Bytes::new()),
            Nag::Reset => return self.send_packet(0, true, PacketType::RESET, Id::Next, Bytes::new()),
            Nag::Ping => return self.send_data(0, 0, None, Bytes::from_static(&[0; 12])),
            Nag::OpenFile => {
                let mut payload = vec![0; 64];
                payload[..2].copy_from_slice(&0x3430_u16.to_le_bytes());
                payload[40] = round;
                (PacketType::FILE_IO, payload.into())
            }
            Nag::Prompt => {
                let payload = [0x31, 0x32, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, b'?'];
                (PacketType::DEBUG_IO, Bytes::copy_from_slice(&payload))
            }
            Nag::LoadSymbols => (PacketType::STATE_CHANGE64, state_change(0x3031, round)),
            Nag::Break => (PacketType::STATE_CHANGE64, state_change(0x3030, round)),
        };
        self.send_packet(0, false, packet_type, Id::Next, payload);
    }

    fn request(&mut self, api: u16, address: u64, count: u16) {
        if self.open.len() == OPEN_REQUESTS {
            return;
        }
        let api = ApiNumber(u32::from(api));
        let request = match api {
            ApiNumber::READ_PHYSICAL_MEMORY | ApiNumber::READ_VIRTUAL_MEMORY => {
                let mut read = Manipulate::read_virtual(VirtAddr(address), u32::from(count));
                read.api_number = api;
                read
            }
            ApiNumber::SEARCH_MEMORY => {
                Manipulate::search_memory(VirtAddr(address), u64::from(count), Bytes::from_static(b"pattern"))
            }
            _ => Manipulate::new(api, Arm::None),
        };
        let before = self.link.state();
        let id = self.link.request(self.now, request);
        let end = self.now + limit(self.open.len() + 1 + OWN_PACKETS);
        assert!(self.open.insert(id, end).is_none(), "a request's id is new");
        self.drain(before);
    }

    fn send_packet(
        &mut self,
        session: u8,
        is_control: bool,
        packet_type: PacketType,
        id: Id,
        payload: Bytes,
    ) {
        let id = match id {
            Id::Next => self.next_id,
            Id::Last => PacketId(self.next_id.0.wrapping_sub(2)),
            Id::Host => self.heard.as_ref().map_or(PacketId::FIRST_OF_HOST, |packet| packet.id),
            Id::Any(id) => PacketId(id),
        };
        if !is_control && id == self.next_id {
            self.next_id = id.next();
        }
        let packet = Packet { is_control, packet_type, id, payload };
        self.send_data(0, session, None, packet.encode());
    }

    /// Sends under the `back`th newest key.
    fn send_data(&mut self, from: u8, back: u8, sequence: Option<u64>, body: Bytes) {
        let count = self.sessions.len();
        if count == 0 {
            return;
        }
        let session = &mut self.sessions[count - 1 - usize::from(back) % count];
        let sequence = sequence.unwrap_or(session.next_sequence);
        session.next_sequence = session.next_sequence.max(sequence.wrapping_add(1) & (u64::MAX >> 8));
        let direction = Direction::TargetToHost;
        let datagram = Datagram { version: 5, flags: Flags::empty(), direction, sequence, body };
        let sealed = datagram.seal(&session.cipher);
        self.send(from, sealed);
    }

    fn send(&mut self, from: u8, datagram: Vec<u8>) {
        let datagram = Bytes::from(datagram);
        if self.history.len() == HISTORY {
            self.history.remove(0);
        }
        self.history.push(datagram.clone());
        self.deliver(from, &datagram);
    }

    fn deliver(&mut self, from: u8, datagram: &[u8]) {
        // Most come from where the target is.
        let from = address(from.saturating_sub(0xe0));
        self.call(|link, now| {
            let _ = link.handle_datagram(now, from, datagram);
        });
    }

    /// Does one thing to the link, then drains and checks it.
    fn call(&mut self, action: impl FnOnce(&mut HostLink, Instant)) {
        let before = self.link.state();
        action(&mut self.link, self.now);
        self.drain(before);
    }

    fn drain(&mut self, state_before: RunState) {
        let mut datagrams = Vec::new();
        let mut datagram = BytesMut::new();
        while self.link.poll_transmit(&mut datagram).is_some() {
            datagrams.push(datagram.split().freeze());
            assert!(datagrams.len() <= DATAGRAMS_PER_CALL, "one call caused {} datagrams", datagrams.len());
        }
        let mut events = Vec::new();
        while let Some(event) = self.link.poll_event() {
            check_state(&event, self.link.state());
            events.push(event);
        }
        let mut others = 0;
        for event in events {
            match event {
                Event::Replied(id, _) | Event::Acknowledged(id) | Event::Failed(id, _) => {
                    assert!(self.open.remove(&id).is_some(), "{id:?} ended twice, or was never made");
                    continue;
                }
                Event::Restarted(_) => self.heard = None,
                Event::Prompt(prompt) => self.prompt = prompt,
                _ => {}
            }
            others += 1;
        }
        assert!(others <= EVENTS_PER_CALL, "one call caused {others} events");
        let runs = state_before == RunState::Running && self.link.state() == RunState::Running;
        for datagram in datagrams {
            self.check_datagram(&datagram, runs);
        }
        assert!(self.link.poll_transmit(&mut datagram).is_none() && self.link.poll_event().is_none());
    }

    /// Checks what the host sent as a target would, and more.
    fn check_datagram(&mut self, bytes: &[u8], target_runs: bool) {
        let envelope = Envelope::parse(bytes).expect("the host sends KDNET");
        if envelope.channel() == Channel::Control {
            let datagram = envelope.open(&self.control).expect("control datagrams are under the key");
            assert_eq!((datagram.flags, datagram.direction), (Flags::CONTROL, Direction::HostToTarget));
            match Control::decode(&datagram.body) {
                Ok(Control::Response(_)) => self.sessions.push(Session {
                    cipher: self.key.data_cipher(&datagram.body),
                    next_sequence: 1,
                    host_sequence: 0,
                }),
                Ok(Control::HostPoke) => {}
                other => panic!("a host sends no {other:?}"),
            }
            return;
        }
        let opened = self.sessions.iter_mut().rev().find_map(|session| {
            let datagram = envelope.open(&session.cipher).ok()?;
            Some((session, datagram))
        });
        let (session, datagram) = opened.expect("data datagrams are under a key that a response made");
        assert_eq!((datagram.flags, datagram.direction), (Flags::empty(), Direction::HostToTarget));
        assert!(datagram.sequence > session.host_sequence, "a target drops a sequence it has passed");
        session.host_sequence = datagram.sequence;
        match Content::decode(&datagram).expect("the host sends what it can read") {
            Content::BreakIn => {}
            Content::Kd(packet) if packet.is_control => {
                let known = [PacketType::ACKNOWLEDGE, PacketType::RESEND, PacketType::RESET];
                assert!(known.contains(&packet.packet_type), "a host sends no {packet}");
            }
            Content::Kd(packet) => self.check_packet(packet, target_runs),
            other => panic!("a host sends no {other}"),
        }
    }

    fn check_packet(&mut self, packet: Packet, target_runs: bool) {
        assert!(
            !target_runs || packet.packet_type != PacketType::STATE_MANIPULATE,
            "sent to a running target: {packet}"
        );
        match self.heard.as_ref().filter(|last| last.id == packet.id) {
            Some(last) => assert_eq!(*last, packet, "a retransmission says the same"),
            None => self.new_packets += 1,
        }
        self.heard = Some(packet);
    }

    fn check_open(&self) {
        for (id, end) in &self.open {
            assert!(self.now <= *end, "{id:?} should have ended {:?} ago", self.now - *end);
        }
    }
}

/// Whoever is handed an event finds the state that it speaks of.
fn check_state(event: &Event, state: RunState) {
    let expected = match event {
        Event::Stopped(_) | Event::Replied(..) | Event::ModuleEvent(_) => RunState::Stopped,
        Event::Resumed => RunState::Running,
        Event::ResumeUnproven { .. } | Event::Restarted(_) => RunState::Unknown,
        _ => return,
    };
    assert_eq!(state, expected, "at {event:?}");
}

/// Time in which `count` data packets, one in flight at a time, must have ended.
fn limit(count: usize) -> Duration {
    SLOW_TIMEOUT * u32::try_from(count).expect("a few")
}

/// Randomness is not what is tested.
struct Count(u64);

impl Entropy for Count {
    fn fill(&mut self, buf: &mut [u8]) {
        self.0 += 1;
        for chunk in buf.chunks_mut(8) {
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
    }
}

/// 0 is the target's own.
fn address(which: u8) -> SocketAddr {
    SocketAddr::from(([192, 168, 2, 1 + which / 2], 50_000 + u16::from(which % 2)))
}

fn state_change(new_state: u32, variant: u8) -> Bytes {
    let mut payload = vec![0; 240];
    payload[..4].copy_from_slice(&new_state.to_le_bytes());
    payload[24] = variant;
    // An unload of -1 is a reboot.
    if new_state == 0x3031 && variant & 0x80 != 0 {
        payload[40..48].fill(0xff);
        payload[64] = 1;
    }
    payload.into()
}

fn id(reader: &mut Reader<'_>) -> Id {
    match u8(reader) % 8 {
        0..4 => Id::Next,
        4 => Id::Last,
        5 | 6 => Id::Host,
        _ => Id::Any(u32::from(u16(reader)) << 16 | u32::from(u16(reader))),
    }
}

fn nag(number: u8) -> Nag {
    let all = [
        Nag::Acknowledge,
        Nag::Resend,
        Nag::Reset,
        Nag::OpenFile,
        Nag::Prompt,
        Nag::LoadSymbols,
        Nag::Break,
        Nag::Ping,
    ];
    all[usize::from(number) % all.len()]
}

/// From nothing to half a second, short ones as likely as long ones.
fn interval(number: u8) -> Duration {
    Duration::from_micros(u64::from(number & 0xf) << (number >> 4))
}

fn u8(reader: &mut Reader<'_>) -> u8 {
    reader.u8().unwrap_or(0)
}

fn u16(reader: &mut Reader<'_>) -> u16 {
    u16::from_le_bytes([u8(reader), u8(reader)])
}

fn u64(reader: &mut Reader<'_>) -> u64 {
    (0..4).fold(0, |value, _| value << 16 | u64::from(u16(reader)))
}

fn rest(reader: &mut Reader<'_>) -> Bytes {
    Bytes::copy_from_slice(reader.rest())
}
