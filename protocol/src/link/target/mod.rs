//! The target's end of a link: what kdnet.dll or kdcom.dll and the kernel's packet layer do, for a simulated kernel.
//!
//! ```text
//!            send(state change)          Continue
//!   Running ------------------> RequestLoop ------> Running
//!      whatever is no break-in      manipulate -> Request event -> reply()
//!      is lost                      RESEND, RESET, break-in -> the state change again
//!
//!   while a packet of ours is unacknowledged: the rules of PROTOCOL.md 7, over a stream those of 14
//! ```

mod config;
mod net;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::content::Content;
use super::dialect::Dialect;
use super::entropy::Entropy;
use super::stream_reader::StreamReader;
use crate::kd::{
    BREAK_IN, DebugIo, DebugIoApi, FileIo, Manipulate, Packet, PacketId, PacketType, Payload, StateChange,
};
use crate::kdcom::{self, Frame};
use crate::kdnet::{DatagramError, Flags};

pub use config::TargetConfig;
pub use net::OfferForm;
use net::{NetWire, Opened};

/// An unacknowledged packet is sent again after this long.
const RETRANSMIT_INTERVAL: Duration = Duration::from_millis(500);
/// Retransmissions after which a print or a module event, which nobody must see, is given up. ReactOS has 3, listings of Windows kernels
/// 20. \[uncertain: which counts over KDNET\] The machine stands still meanwhile, so the smaller is the kinder.
const PRINT_RETRIES: u32 = 3;
/// A break-in that is followed by another byte within this long is taken for the beginning of a packet by some kernels.
const BREAK_IN_SILENCE: Duration = Duration::from_millis(10);
/// What waits while a request is being executed: a network card's ring, or a line's buffer.
const BACKLOG: usize = 64;

/// What a target link tells the simulated kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetEvent {
    /// A debugger answered an offer.
    Connected(SocketAddr),
    /// The debugger wants the running target to stop.
    BreakIn,
    /// The debugger asks for something; [`TargetLink::reply`] answers, unless the API has no reply.
    Request(Box<Manipulate>),
    /// The debugger's answer to a prompt.
    PromptAnswer(DebugIo),
    /// The debugger's answer to a file request.
    FileAnswer(Box<FileIo>),
    /// A print was given up: the debugger is gone.
    DebuggerAbsent,
}

#[derive(Debug)]
enum Phase {
    Running,
    /// Stopped for this state change, ready for requests.
    RequestLoop(Box<StateChange>),
    /// Stopped, and the kernel is executing a request.
    Executing(Box<StateChange>),
    /// The kernel waits for the host's answer of this packet type, to this question.
    AwaitingAnswer(PacketType, Bytes),
}

impl Phase {
    const fn is_running(&self) -> bool {
        matches!(self, Self::Running)
    }
}

/// A data packet of ours that is not acknowledged yet.
#[derive(Debug)]
struct Sending {
    packet: Packet,
    resend_at: Instant,
    retries: u32,
}

/// What carries the packets.
enum Wire {
    Net(Box<NetWire>),
    Stream { reader: StreamReader, outbox: BytesMut, break_in: HeldBreakIn },
}

/// What becomes of a break-in between packets that is read while the kernel waits for one.
#[derive(Clone, Copy, Debug)]
enum HeldBreakIn {
    /// It is a break-in.
    Never,
    /// It is one if no other byte follows at once: so it is with ReactOS.
    Possible,
    /// Such a byte is there, and silence so far.
    Until(Instant),
}

/// The target's end of a link.
pub struct TargetLink {
    wire: Wire,
    dialect: Dialect,
    next_id: PacketId,
    expected: PacketId,
    phase: Phase,
    sending: Option<Sending>,
    queue: VecDeque<(PacketType, Bytes)>,
    backlog: VecDeque<Content>,
    /// The host did not acknowledge in time: nothing is printed to it until it is heard again.
    is_host_absent: bool,
    tells_in_debugger: bool,
    /// A stream's break-in that was read while the kernel waited for a packet: obeyed as soon as it runs.
    is_break_in_pending: bool,
    events: VecDeque<TargetEvent>,
}

impl TargetLink {
    /// A target that has just booted: its first offer goes out at `now`.
    #[must_use]
    pub fn new(now: Instant, config: TargetConfig, entropy: Box<dyn Entropy>) -> Self {
        Self::with_wire(Wire::Net(Box::new(NetWire::new(now, config, entropy))), Dialect::Kdnet)
    }

    /// A target that has just booted and talks into a stream, whether or not there is a debugger at its other end.
    #[must_use]
    pub fn over_stream() -> Self {
        let wire = Wire::Stream {
            reader: StreamReader::default(),
            outbox: BytesMut::new(),
            break_in: HeldBreakIn::Never,
        };
        Self::with_wire(wire, Dialect::Kdcom)
    }

    fn with_wire(wire: Wire, dialect: Dialect) -> Self {
        Self {
            wire,
            dialect,
            next_id: dialect.first_of_target(),
            expected: dialect.first_of_host(),
            phase: Phase::Running,
            sending: None,
            queue: VecDeque::new(),
            backlog: VecDeque::new(),
            is_host_absent: false,
            tells_in_debugger: false,
            is_break_in_pending: false,
            events: VecDeque::new(),
        }
    }

    /// Lets its offers say whether it is stopped. \[uncertain: which targets do\]
    pub const fn tell_in_debugger(&mut self) {
        self.tells_in_debugger = true;
    }

    /// Changes what its offers look like and how often they come. Nothing over a stream.
    pub const fn offer_as(&mut self, form: OfferForm) {
        if let Wire::Net(net) = &mut self.wire {
            net.offer_as(form);
        }
    }

    /// From now on a break-in that other bytes follow at once is lost while a packet is waited for, as ReactOS loses it: its
    /// reader takes the byte for the beginning of a packet. Nothing over KDNET.
    pub const fn swallow_break_ins(&mut self) {
        if let Wire::Stream { break_in, .. } = &mut self.wire {
            *break_in = HeldBreakIn::Possible;
        }
    }

    /// Starts anew, as a machine that restarts: another random, no connection, ids from the beginning.
    pub fn reboot(&mut self, now: Instant) {
        match &mut self.wire {
            Wire::Net(net) => net.reboot(now),
            Wire::Stream { reader, .. } => reader.clear(),
        }
        self.next_id = self.dialect.first_of_target();
        self.expected = self.dialect.first_of_host();
        self.phase = Phase::Running;
        self.sending = None;
        self.queue.clear();
        self.backlog.clear();
        self.is_host_absent = false;
        self.is_break_in_pending = false;
    }

    /// Takes a datagram from the socket.
    ///
    /// # Errors
    /// Why it was dropped.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), DatagramError> {
        self.set_status();
        let Wire::Net(net) = &mut self.wire else { return Err(DatagramError::NoSession) };
        match net.receive(now, from, datagram)? {
            Opened::Control => {}
            Opened::Connected(host) => {
                self.is_host_absent = false;
                self.events.push_back(TargetEvent::Connected(host));
                self.transmit_pending(now);
            }
            Opened::Data(content) => self.heard(now, content),
        }
        Ok(())
    }

    /// Takes bytes from the stream.
    pub fn handle_stream(&mut self, now: Instant, bytes: &[u8]) {
        let mut bytes = bytes;
        while let Some((first, rest)) = bytes.split_first() {
            let Wire::Stream { reader, break_in, .. } = &mut self.wire else { return };
            if self.phase.is_running() && self.sending.is_none() {
                // A running kernel looks at the line's next byte between ticks, whatever it is a part of.
                reader.clear();
                bytes = rest;
                if *first == BREAK_IN {
                    self.heard(now, Content::BreakIn);
                }
                continue;
            }
            if let HeldBreakIn::Until(_) = break_in {
                *break_in = HeldBreakIn::Possible;
            }
            if *first == BREAK_IN
                && !reader.is_partial()
                && let HeldBreakIn::Possible = break_in
            {
                *break_in = HeldBreakIn::Until(now + BREAK_IN_SILENCE);
                bytes = rest;
                continue;
            }
            reader.push(&[*first]);
            bytes = rest;
            self.read_frames(now);
        }
    }

    fn read_frames(&mut self, now: Instant) {
        while let Wire::Stream { reader, .. } = &mut self.wire
            && let Some(frame) = reader.poll(now)
        {
            self.frame(now, frame);
        }
    }

    fn frame(&mut self, now: Instant, frame: Frame) {
        match frame {
            Frame::Packet(packet) => self.heard(now, Content::Kd(packet)),
            Frame::BreakIn => self.heard(now, Content::BreakIn),
            Frame::Damaged(_) => self.send_control(PacketType::RESEND, PacketId(0)),
        }
    }

    fn heard(&mut self, now: Instant, content: Content) {
        self.is_host_absent = false;
        if self.sending.is_some() {
            self.while_sending(now, content);
        } else {
            self.content(now, content);
        }
    }

    /// Does what is due at `now`: offers, retransmissions.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.set_status();
        match &mut self.wire {
            Wire::Net(net) => net.handle_timeout(now),
            Wire::Stream { reader, break_in, .. } => {
                let is_break_in = matches!(break_in, HeldBreakIn::Until(until) if *until <= now);
                if is_break_in {
                    *break_in = HeldBreakIn::Possible;
                }
                let given_up = reader.handle_timeout(now);
                if is_break_in {
                    self.frame(now, Frame::BreakIn);
                }
                if let Some(frame) = given_up {
                    self.frame(now, frame);
                    self.read_frames(now);
                }
            }
        }
        let Some(sending) = self.sending.as_mut().filter(|it| it.resend_at <= now) else { return };
        sending.retries += 1;
        if sending.retries > PRINT_RETRIES && may_be_missed(&sending.packet) {
            if sending.packet.packet_type == PacketType::STATE_CHANGE64 {
                self.phase = Phase::Running;
            }
            self.sending = None;
            // What needs an answer waits for whoever comes next.
            self.queue.retain(|(packet_type, payload)| {
                !may_be_missed(&Packet::data(*packet_type, PacketId(0), payload.clone()))
            });
            self.is_host_absent = true;
            if self.dialect == Dialect::Kdcom {
                // Whoever comes next has another idea of the ids.
                self.next_id = self.dialect.first_of_target();
                self.expected = self.dialect.first_of_host();
            }
            self.events.push_back(TargetEvent::DebuggerAbsent);
            self.send_next(now);
            self.obey_pending_break_in();
            return;
        }
        self.transmit_pending(now);
    }

    /// Stops and announces it: the request loop begins when the host acknowledges.
    pub fn stop(&mut self, now: Instant, change: StateChange) {
        let payload = change.encode();
        self.is_break_in_pending = false;
        self.phase = Phase::RequestLoop(Box::new(change));
        self.send(now, PacketType::STATE_CHANGE64, payload);
    }

    /// Answers the request being executed.
    pub fn reply(&mut self, now: Instant, reply: &Manipulate) {
        self.resume_request_loop();
        self.send(now, PacketType::STATE_MANIPULATE, reply.encode());
        self.work_off_backlog(now);
    }

    /// Ends the execution of a request that has no reply.
    pub fn no_reply(&mut self, now: Instant) {
        self.resume_request_loop();
        self.work_off_backlog(now);
    }

    /// Prints a line. Lost if no debugger is connected, or it does not listen.
    pub fn print(&mut self, now: Instant, line: Bytes) {
        if !self.is_host_absent && (self.connected_host().is_some() || self.dialect == Dialect::Kdcom) {
            self.send(now, PacketType::DEBUG_IO, DebugIo::print(line).encode());
        }
    }

    /// Asks the host something and waits for its answer: a prompt or a file request.
    pub fn ask(&mut self, now: Instant, payload: &Payload) {
        let question = payload.encode();
        self.phase = Phase::AwaitingAnswer(payload.packet_type(), question.clone());
        self.send(now, payload.packet_type(), question);
    }

    /// The next datagram to send, written into `datagram`, and where to.
    pub fn poll_transmit(&mut self, datagram: &mut BytesMut) -> Option<SocketAddr> {
        let Wire::Net(net) = &mut self.wire else { return None };
        let (to, sealed) = net.poll_transmit()?;
        datagram.clear();
        datagram.extend_from_slice(&sealed);
        Some(to)
    }

    /// Appends the bytes to send into the stream to `out`. False if there are none.
    pub fn poll_transmit_stream(&mut self, out: &mut BytesMut) -> bool {
        let Wire::Stream { outbox, .. } = &mut self.wire else { return false };
        let has_bytes = !outbox.is_empty();
        out.unsplit(outbox.split());
        has_bytes
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<TargetEvent> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let of_wire = match &self.wire {
            Wire::Net(net) => Some(net.poll_timeout()),
            Wire::Stream { reader, break_in, .. } => match break_in {
                HeldBreakIn::Until(until) => Some(*until),
                _ => reader.poll_timeout(),
            },
        };
        of_wire.into_iter().chain(self.sending.as_ref().map(|it| it.resend_at)).min()
    }

    /// True while the machine runs: not stopped, and no packet of it waits for an acknowledgement.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.phase.is_running() && self.sending.is_none()
    }

    /// True while the machine is stopped for its debugger.
    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        matches!(self.phase, Phase::RequestLoop(_) | Phase::Executing(_))
    }

    /// True while the machine waits for the answer to a prompt or a file request.
    #[must_use]
    pub const fn is_awaiting_answer(&self) -> bool {
        matches!(self.phase, Phase::AwaitingAnswer(..))
    }

    /// The debugger that answered last; over a stream nobody has to.
    #[must_use]
    pub fn connected_host(&self) -> Option<SocketAddr> {
        match &self.wire {
            Wire::Net(net) => net.host(),
            Wire::Stream { .. } => None,
        }
    }

    fn set_status(&mut self) {
        let is_told = self.tells_in_debugger && self.is_stopped();
        if let Wire::Net(net) = &mut self.wire {
            net.status = if is_told { Flags::IN_DEBUGGER } else { Flags::empty() };
        }
    }

    fn transmit(&mut self, content: &Content) {
        match (&mut self.wire, content) {
            (Wire::Net(net), content) => net.send(content),
            (Wire::Stream { outbox, .. }, Content::Kd(packet)) => kdcom::encode(packet, outbox),
            (Wire::Stream { .. }, _) => {}
        }
    }

    fn send_control(&mut self, packet_type: PacketType, id: PacketId) {
        self.transmit(&Content::Kd(Packet::control(packet_type, id)));
    }

    fn send(&mut self, now: Instant, packet_type: PacketType, payload: Bytes) {
        self.queue.push_back((packet_type, payload));
        self.send_next(now);
    }

    fn send_next(&mut self, now: Instant) {
        if self.sending.is_some() {
            return;
        }
        let Some((packet_type, payload)) = self.queue.pop_front() else { return };
        let packet = Packet::data(packet_type, self.next_id, payload);
        self.next_id = self.dialect.next(self.next_id);
        self.sending = Some(Sending { packet, resend_at: now, retries: 0 });
        self.transmit_pending(now);
    }

    fn transmit_pending(&mut self, now: Instant) {
        if let Some(sending) = &mut self.sending {
            sending.resend_at = now + RETRANSMIT_INTERVAL;
            let content = Content::Kd(sending.packet.clone());
            self.transmit(&content);
        }
    }

    /// Takes what arrives while a packet of ours is unacknowledged.
    fn while_sending(&mut self, now: Instant, content: Content) {
        let Some(own_id) = self.sending.as_ref().map(|it| it.packet.id) else { return };
        let Content::Kd(packet) = content else {
            self.note_break_in(&content);
            return self.transmit_pending(now);
        };
        match (packet.is_control, packet.packet_type) {
            (true, PacketType::ACKNOWLEDGE) if packet.id == self.dialect.acknowledges(own_id) => {
                self.acknowledged(now);
            }
            (true, PacketType::RESET) => {
                self.reset(packet.id);
                self.transmit_pending(now);
            }
            (true, PacketType::RESEND) => self.transmit_pending(now),
            (true, _) => {}
            (false, _)
                if self.dialect == Dialect::Kdcom
                    || packet.id == self.expected
                    || packet.id.is_after(self.expected) =>
            {
                // A host that sends something new has seen our packet; it must say it again, though.
                self.send_control(PacketType::RESEND, PacketId(0));
                self.acknowledged(now);
            }
            (false, _) => self.transmit_pending(now),
        }
    }

    fn acknowledged(&mut self, now: Instant) {
        self.sending = None;
        self.send_next(now);
        self.obey_pending_break_in();
    }

    /// A stream's kernel that waits for a packet remembers a break-in; KDNET's sends its packet again and forgets it.
    fn note_break_in(&mut self, content: &Content) {
        self.is_break_in_pending |= self.dialect == Dialect::Kdcom && *content == Content::BreakIn;
    }

    fn obey_pending_break_in(&mut self) {
        if self.is_running() && std::mem::take(&mut self.is_break_in_pending) {
            self.events.push_back(TargetEvent::BreakIn);
        }
    }

    /// Takes what arrives while nothing of ours is unacknowledged.
    fn content(&mut self, now: Instant, content: Content) {
        match &self.phase {
            // Kernel polls for break-ins between ticks; whatever else arrives is read and lost.
            Phase::Running => {
                if content == Content::BreakIn {
                    self.events.push_back(TargetEvent::BreakIn);
                }
            }
            Phase::RequestLoop(change) => {
                let announcement = change.encode();
                self.in_request_loop(now, content, announcement);
            }
            Phase::Executing(_) => {
                if self.backlog.len() < BACKLOG {
                    self.backlog.push_back(content);
                }
            }
            Phase::AwaitingAnswer(packet_type, question) => {
                let (awaited, question) = (*packet_type, question.clone());
                self.awaiting_answer(now, content, awaited, question);
            }
        }
    }

    fn in_request_loop(&mut self, now: Instant, content: Content, announcement: Bytes) {
        let packet = match content {
            Content::Kd(packet) => packet,
            Content::BreakIn => return self.send(now, PacketType::STATE_CHANGE64, announcement),
            _ => return,
        };
        match (packet.is_control, packet.packet_type) {
            (true, PacketType::RESET) => {
                self.reset(packet.id);
                self.send(now, PacketType::STATE_CHANGE64, announcement);
            }
            (true, PacketType::RESEND) => self.send(now, PacketType::STATE_CHANGE64, announcement),
            (true, _) => {}
            (false, PacketType::STATE_MANIPULATE) => {
                let Ok(request) = Manipulate::decode(&packet.payload) else {
                    return self.send_control(PacketType::RESEND, PacketId(0));
                };
                self.send_control(PacketType::ACKNOWLEDGE, packet.id);
                if self.is_stale(packet.id) {
                    return;
                }
                self.expected = self.dialect.next(packet.id);
                let Phase::RequestLoop(change) = std::mem::replace(&mut self.phase, Phase::Running) else {
                    return;
                };
                if !request.api_number.ends_stop() {
                    self.phase = Phase::Executing(change);
                }
                self.events.push_back(TargetEvent::Request(Box::new(request)));
            }
            (false, _) => self.send_control(PacketType::RESEND, PacketId(0)),
        }
    }

    fn awaiting_answer(&mut self, now: Instant, content: Content, awaited: PacketType, question: Bytes) {
        let Content::Kd(packet) = content else {
            self.note_break_in(&content);
            if self.is_break_in_pending {
                self.send(now, awaited, question);
            }
            return;
        };
        // A debugger that has just come does not know the question.
        match (packet.is_control, packet.packet_type) {
            (true, PacketType::RESET) => {
                self.reset(packet.id);
                return self.send(now, awaited, question);
            }
            (true, PacketType::RESEND) => return self.send(now, awaited, question),
            (true, _) => return,
            (false, _) => {}
        }
        if self.is_stale(packet.id) {
            return self.send_control(PacketType::ACKNOWLEDGE, packet.id);
        }
        let event = match Payload::decode(&packet) {
            Ok(Payload::DebugIo(io)) if packet.packet_type == awaited => TargetEvent::PromptAnswer(io),
            Ok(Payload::FileIo(file)) if packet.packet_type == awaited => TargetEvent::FileAnswer(file),
            _ => return self.send_control(PacketType::RESEND, PacketId(0)),
        };
        self.send_control(PacketType::ACKNOWLEDGE, packet.id);
        self.expected = self.dialect.next(packet.id);
        self.phase = Phase::Running;
        self.events.push_back(event);
        self.obey_pending_break_in();
    }

    /// Agrees with the host on ids anew.
    fn reset(&mut self, id_of_host: PacketId) {
        if self.dialect == Dialect::Kdcom {
            self.expected = kdcom::FIRST_ID;
            self.next_id = kdcom::FIRST_ID;
            if let Some(sending) = &mut self.sending {
                sending.packet.id = kdcom::FIRST_ID;
                self.next_id = self.dialect.next(kdcom::FIRST_ID);
            }
        } else {
            self.expected = id_of_host;
        }
        let next = self.sending.as_ref().map_or(self.next_id, |it| it.packet.id);
        self.send_control(PacketType::RESET, self.dialect.reset(next));
    }

    /// A stream's target takes only the packet that is next. KDNET's counts from whatever comes.
    fn is_stale(&self, id: PacketId) -> bool {
        self.dialect == Dialect::Kdcom && id != self.expected
    }

    fn resume_request_loop(&mut self) {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Running) {
            Phase::Executing(change) => Phase::RequestLoop(change),
            other => other,
        };
    }

    fn work_off_backlog(&mut self, now: Instant) {
        while !matches!(self.phase, Phase::Executing(_)) {
            let Some(content) = self.backlog.pop_front() else { return };
            if self.sending.is_some() {
                self.while_sending(now, content);
            } else {
                self.content(now, content);
            }
        }
    }
}

/// True for what a machine says without needing an answer: it does not wait for its debugger for ever. Source: PROTOCOL.md 7.
fn may_be_missed(packet: &Packet) -> bool {
    match Payload::decode(packet) {
        Ok(Payload::DebugIo(io)) => io.api_number == DebugIoApi::PRINT_STRING,
        Ok(Payload::StateChange(change)) => change.is_load_symbols(),
        _ => false,
    }
}
