//! A stream on which anything can come, well-formed packets among it, and an owner who asks for things at bad moments: what
//! a [`HostLink`] over it must keep to.
//!
//! Shared by `tests/hostile_stream.rs` (proptest) and `fuzz/fuzz_targets/host_stream.rs` (libFuzzer).

// Each of them compiles it as part of itself.
#![allow(unreachable_pub)]

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kd_protocol::VirtAddr;
use kd_protocol::kd::{Arm, DebugIo, Manipulate, NtStatus, Packet, PacketId, PacketType};
use kd_protocol::kdcom;
use kd_protocol::link::{Event, HostLink, Patience, RequestId, RunState};
use kd_protocol::wire::Reader;

/// A request without an answer fails after this long.
const PATIENCE: Patience = Patience {
    request_timeout: Duration::from_secs(1),
    slow_request_timeout: Duration::from_secs(4),
    resume_timeout: Duration::from_secs(15),
};
/// Requests that the owner has open at a time.
const OPEN_REQUESTS: usize = 8;
/// Packets that one packet of the target, or one call of the owner, may cause; each ends a request at the most.
const PACKETS_PER_CAUSE: usize = 8;
/// Timers that may be due between two steps of time, one after another, before the link is said to spin.
const TIMERS: usize = 10_000;

/// One thing that happens to the link.
#[derive(Clone, Debug)]
pub enum Step {
    /// Time passes; timers are served when they are due.
    Wait(Duration),
    /// Bytes on the line.
    Bytes(Bytes),
    /// A packet with a right sum.
    Packet {
        is_control: bool,
        packet_type: u16,
        id: u32,
        payload: Bytes,
    },
    /// What a real target would reply to the host's last request, but for the status.
    Reply {
        id: u32,
        status: u32,
        data: Bytes,
    },
    Close,
    Open,
    Request {
        api: u16,
        address: u64,
        count: u16,
    },
    Resume,
    BreakIn,
    CancelBreakIn,
    AnswerPrompt(Bytes),
}

impl Step {
    /// The step that `bytes` stand for; missing ones count as zero.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let reader = &mut Reader::new("step", bytes);
        match u8(reader) % 14 {
            0 => Self::Wait(Duration::from_micros(u64::from(u16(reader)))),
            1 => Self::Wait(Duration::from_millis(u64::from(u16(reader)) / 4)),
            2 => Self::Bytes(rest(reader)),
            3..=5 => Self::Packet {
                is_control: u8(reader) & 1 == 1,
                packet_type: u16::from(u8(reader) % 13),
                id: id(u8(reader)),
                payload: rest(reader),
            },
            6 => {
                let mut payload = vec![0; 240];
                payload[..4].copy_from_slice(&(0x3030 + u32::from(u8(reader) % 4)).to_le_bytes());
                payload[24] = u8(reader);
                let packet_type = PacketType::STATE_CHANGE64.0;
                Self::Packet { is_control: false, packet_type, id: id(u8(reader)), payload: payload.into() }
            }
            7 => Self::Reply {
                id: id(u8(reader)),
                status: if u8(reader) < 0x80 { 0 } else { 0xc000_0001 },
                data: rest(reader),
            },
            8 if u8(reader) & 1 == 0 => Self::Close,
            8 => Self::Open,
            9 | 10 => {
                Self::Request { api: 0x3130 + u16(reader) % 0x34, address: u64(reader), count: u16(reader) }
            }
            11 => Self::Resume,
            12 if u8(reader) & 3 == 0 => Self::CancelBreakIn,
            12 => Self::BreakIn,
            _ => Self::AnswerPrompt(rest(reader)),
        }
    }
}

/// Steps of one run: more would only make it slow.
const STEPS: usize = 200;

/// The steps that a fuzzer's input stands for: each a length and that many bytes.
pub fn steps_of(input: &[u8]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = input;
    while let Some((len, tail)) = rest.split_first().filter(|_| steps.len() < STEPS) {
        let (step, tail) = tail.split_at(tail.len().min(usize::from(*len)));
        steps.push(Step::from_bytes(step));
        rest = tail;
    }
    steps
}

/// Takes `steps` one after another, then lets the line fall silent.
///
/// # Panics
/// If the link breaks one of its promises.
pub fn play(steps: &[Step]) {
    let mut play = Play {
        now: Instant::now(),
        link: HostLink::over_stream(PATIENCE),
        open: HashSet::new(),
        last_request: None,
        causes: 0,
        packets: 0,
    };
    play.link.handle_stream_opened(play.now);
    for step in steps {
        play.take(step);
        play.settle();
    }
    play.link.cancel_break_in();
    play.wait(Duration::from_secs(120));
    assert!(play.open.is_empty(), "requests stay open: {:?}", play.open);
    assert_eq!(play.link.poll_timeout(), None, "a silent link without wishes has nothing to wait for");
}

struct Play {
    now: Instant,
    link: HostLink,
    open: HashSet<RequestId>,
    last_request: Option<Manipulate>,
    /// Frames received, calls made, timers served.
    causes: usize,
    packets: usize,
}

impl Play {
    fn take(&mut self, step: &Step) {
        self.causes += 1;
        match step {
            Step::Wait(time) => self.wait(*time),
            Step::Bytes(bytes) => self.receive(bytes),
            Step::Packet { is_control, packet_type, id, payload } => {
                let payload =
                    if *is_control { Bytes::new() } else { payload.slice(..payload.len().min(4000)) };
                self.packet(&Packet {
                    is_control: *is_control,
                    packet_type: PacketType(*packet_type),
                    id: PacketId(*id),
                    payload,
                });
            }
            Step::Reply { id, status, data } => {
                let Some(request) = &self.last_request else { return };
                let data = data.slice(..data.len().min(3900));
                let mut reply = request.reply(NtStatus(*status), data.clone());
                if let Arm::ReadMemory(arm) = &mut reply.arm {
                    arm.actual_bytes_read = data.len() as u32;
                }
                self.packet(&Packet::data(PacketType::STATE_MANIPULATE, PacketId(*id), reply.encode()));
            }
            Step::Close => self.link.handle_stream_closed(self.now),
            Step::Open => self.link.handle_stream_opened(self.now),
            Step::Request { api, address, count } => {
                if self.open.len() < OPEN_REQUESTS {
                    let mut request = Manipulate::read_virtual(VirtAddr(*address), u32::from(*count));
                    request.api_number.0 = u32::from(*api);
                    self.open.insert(self.link.request(self.now, request.clone()));
                    self.last_request = Some(request);
                }
            }
            Step::Resume => self.link.resume(self.now, NtStatus::DBG_CONTINUE),
            Step::BreakIn => self.link.break_in(self.now),
            Step::CancelBreakIn => self.link.cancel_break_in(),
            Step::AnswerPrompt(answer) => {
                self.link.answer_prompt(self.now, &DebugIo::print(Bytes::new()), answer.clone());
            }
        }
    }

    fn packet(&mut self, packet: &Packet) {
        let mut bytes = BytesMut::new();
        kdcom::encode(packet, &mut bytes);
        self.receive(&bytes);
    }

    fn receive(&mut self, bytes: &[u8]) {
        // Each byte may begin a packet that is none, and damage what was none either.
        self.causes += bytes.len();
        self.link.handle_stream(self.now, bytes);
        self.settle();
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..TIMERS {
            self.settle();
            let Some(at) = self.link.poll_timeout().filter(|at| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(at);
            self.causes += 1;
            self.link.handle_timeout(self.now);
        }
        panic!("the link's timers are never done");
    }

    fn settle(&mut self) {
        let mut bytes = BytesMut::new();
        self.link.poll_transmit_stream(&mut bytes);
        let mut decoder = kdcom::Decoder::default();
        decoder.push(&bytes);
        while let Some(frame) = decoder.poll() {
            assert!(!matches!(frame, kdcom::Frame::Damaged(_)), "what is sent is well-formed");
            self.packets += 1;
        }
        assert!(!decoder.is_partial(), "packets are sent whole");
        let allowed = PACKETS_PER_CAUSE * (self.causes + 1);
        assert!(self.packets <= allowed, "{} packets for {} causes", self.packets, self.causes);
        while let Some(event) = self.link.poll_event() {
            match &event {
                Event::Replied(id, _) | Event::Failed(id, _) | Event::Acknowledged(id) => {
                    assert!(self.open.remove(id), "{id:?} ends twice");
                }
                _ => {}
            }
            check_state(&event, self.link.state());
        }
    }
}

/// Whoever is handed an event finds the state that it speaks of.
fn check_state(event: &Event, state: RunState) {
    let expected = match event {
        Event::Stopped(_) | Event::Replied(..) | Event::ModuleEvent(_) => RunState::Stopped,
        Event::Resumed => RunState::Running,
        Event::ResumeUnproven { .. } | Event::Restarted(_) | Event::Disconnected | Event::Reconnected => {
            RunState::Unknown
        }
        _ => return,
    };
    assert_eq!(state, expected, "at {event:?}");
}

/// The ids that matter, and any.
fn id(choice: u8) -> u32 {
    [0, 1, 0x8080_0000, 0x8080_0001, 0x8080_0800, 0x8080_0801, u32::from(choice)][usize::from(choice) % 7]
}

fn u8(reader: &mut Reader<'_>) -> u8 {
    reader.u8().unwrap_or(0)
}

fn u16(reader: &mut Reader<'_>) -> u16 {
    reader.u16().unwrap_or(0)
}

fn u64(reader: &mut Reader<'_>) -> u64 {
    reader.u64().unwrap_or(0)
}

fn rest(reader: &mut Reader<'_>) -> Bytes {
    Bytes::copy_from_slice(reader.rest())
}
