//! The debugger's end of a link: one state machine over two carriers, which [`net`] and [`stream`] know.

mod net;
mod resume;
mod stream;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::dialect::Dialect;
use super::in_flight::Purpose;
use super::keying::Proof;
use super::reliable::{Arrival, Outcome, Reliable};
use super::{Content, Entropy, Event, LinkConfig, Patience, Peer, RequestError, RequestId};
use crate::VirtAddr;
use crate::kd::{
    DebugIo, DebugIoApi, Manipulate, NtStatus, Packet, PacketType, Payload, StateChange, StateDetail,
};
use crate::kdcom::Frame;
use crate::kdnet::DatagramError;
use crate::wire::DecodeError;

use net::{NetWire, Opened};
use resume::{Due, PROBE_PATIENCE, Resuming, Settling};
use stream::StreamWire;

/// The second break-in follows after this long, if nothing came: a running target looks for one at each tick of its clock. The
/// third after twice as long, and so on: a KDNET target drops those that are behind what it has taken.
const ATTENTION_INTERVAL: Duration = Duration::from_millis(25);
/// No two of them are further apart over KDNET.
const ATTENTION_CEILING: Duration = Duration::from_millis(250);
/// Each so manieth is a RESET: a running target obeys a break-in, a stopped one that counts otherwise answers a RESET.
const RESET_EVERY: u32 = 3;
/// Over a stream the second break-in follows after this long, the third after twice as long, and so on: those that are
/// not needed stay in the stream and stop the target again. A stopped target obeys them too.
const STREAM_ATTENTION_INTERVAL: Duration = Duration::from_secs(2);
/// No two break-ins are further apart than this.
const MAX_ATTENTION_INTERVAL: Duration = Duration::from_secs(10);
/// Transmissions without a reaction, after which the target may not have our key any more.
const DOUBTFUL_ATTEMPTS: u32 = 6;
/// The same for break-ins and RESETs.
const DOUBTFUL_CALLS: u32 = 10;
/// The same for transmissions of a continue.
const DOUBTFUL_CONTINUES: u32 = 60;
/// A break-in that has not arrived after this long will not.
const BREAK_IN_LIFE: Duration = Duration::from_secs(1);
/// A damaged packet is asked for again at most this often.
const RESEND_INTERVAL: Duration = Duration::from_millis(200);

/// Whether the target takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// No target yet, or not known.
    Unknown,
    /// It runs: whatever is sent but a break-in is lost.
    Running,
    /// It is stopped and answers.
    Stopped,
}

/// What crossed the link so far. Over a stream a packet counts as a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Manipulate requests submitted.
    pub requests: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Authentic datagrams received.
    pub datagrams_received: u64,
    /// UDP payload bytes sent, or bytes of the stream.
    pub bytes_sent: u64,
    /// UDP payload bytes received, authentic ones, or bytes of the stream.
    pub bytes_received: u64,
    /// Data packets sent more than once.
    pub retransmissions: u64,
    /// Datagrams dropped because they do not authenticate.
    pub not_authentic: u64,
    /// Datagrams dropped for another reason: replays, damage, strangers.
    pub dropped: u64,
}

/// Something that is done again and again until there is a reaction.
#[derive(Clone, Copy, Debug)]
struct Repeated {
    next_at: Instant,
    attempts: u32,
}

/// What carries the packets.
enum Wire {
    Net(Box<NetWire>),
    Stream(StreamWire),
}

/// The debugger's end of a link: answers offers, agrees on keys and ids, breaks in, exchanges requests and replies.
pub struct HostLink {
    wire: Wire,
    patience: Patience,
    reliable: Reliable,
    state: RunState,
    /// The state change that began this stop, as it came: tells a repeated one from a new one.
    stop_payload: Option<Bytes>,
    attention: Option<Repeated>,
    /// A continue is on its way, or waits behind requests.
    resuming: Option<Resuming>,
    /// It was obeyed, and a break-in may undo it yet.
    settling: Option<Settling>,
    /// The last continue was given up without proof.
    is_unproven: bool,
    /// The answer that is on its way, if one is, is that to a prompt.
    is_answering_prompt: bool,
    /// A request of this stop was given up, so that the target may be busy with it yet.
    has_abandoned: bool,
    /// Offers said in this stop that the target is in its debugger.
    was_in_debugger: bool,
    /// Where a break-in stops this target.
    break_in_at: Option<VirtAddr>,
    /// Until when a break-in that went out over KDNET may arrive.
    break_ins_live_until: Option<Instant>,
    /// Module events are stops like any other, for the owner to continue.
    passes_module_events: bool,
    /// A continue without an answer may be followed by a break-in.
    may_probe: bool,
    /// A damaged packet was asked for again at this time.
    resend_at: Option<Instant>,
    /// Each with the state that it led to.
    events: VecDeque<(Event, RunState)>,
    /// What the last event that was handed out led to.
    told: RunState,
    counters: LinkCounters,
    next_request: u64,
    last_heard: Option<Instant>,
}

impl HostLink {
    /// A link that waits for a target's offer.
    #[must_use]
    pub fn new(config: LinkConfig, entropy: Box<dyn Entropy>) -> Self {
        let wire = Wire::Net(Box::new(NetWire::new(config.key, entropy)));
        Self::with_wire(wire, Dialect::Kdnet, config.patience)
    }

    /// A link over a stream, once there is one: see [`Self::handle_stream_opened`].
    #[must_use]
    pub fn over_stream(patience: Patience) -> Self {
        Self::with_wire(Wire::Stream(StreamWire::default()), Dialect::Kdcom, patience)
    }

    fn with_wire(wire: Wire, dialect: Dialect, patience: Patience) -> Self {
        Self {
            wire,
            patience,
            reliable: Reliable::new(dialect),
            state: RunState::Unknown,
            stop_payload: None,
            attention: None,
            resuming: None,
            settling: None,
            is_unproven: false,
            is_answering_prompt: false,
            has_abandoned: false,
            was_in_debugger: false,
            break_in_at: None,
            break_ins_live_until: None,
            passes_module_events: false,
            may_probe: true,
            resend_at: None,
            events: VecDeque::new(),
            told: RunState::Unknown,
            counters: LinkCounters::default(),
            next_request: 0,
            last_heard: None,
        }
    }

    /// Leaves the target alone when it does not acknowledge a continue. Otherwise it is stopped once more to learn whether it
    /// runs, which the owner gets as [`Event::Stopped`] and resumes again.
    pub const fn never_probe(&mut self) {
        self.may_probe = false;
    }

    /// Makes module events [`Event::Stopped`], which the owner has to continue. Otherwise the link continues them.
    pub const fn pass_module_events(&mut self) {
        self.passes_module_events = true;
    }

    /// Takes a datagram from the socket.
    ///
    /// # Errors
    /// Why it was dropped. Never the caller's fault: count it and go on. A link over a stream takes none.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), DatagramError> {
        let result = self.receive(now, from, datagram);
        match result {
            Ok(()) => {
                self.last_heard = Some(now);
                self.counters.datagrams_received += 1;
                self.counters.bytes_received += datagram.len() as u64;
            }
            Err(DatagramError::NotAuthentic) => self.counters.not_authentic += 1,
            Err(_) => self.counters.dropped += 1,
        }
        result
    }

    /// The stream is there: for the first time, or again after [`Self::handle_stream_closed`].
    ///
    /// A target that was stopped when the last one ended may be stopped still, and is asked.
    pub fn handle_stream_opened(&mut self, now: Instant) {
        let Wire::Stream(stream) = &mut self.wire else { return };
        let was_open_before = stream.opened();
        self.lose_touch();
        if was_open_before {
            self.tell(Event::Reconnected);
        }
        if self.stop_payload.is_some() {
            self.reliable.agree(now);
        }
        if let Some(attention) = &mut self.attention {
            *attention = Repeated { next_at: now, attempts: 0 };
        }
    }

    /// The stream has ended. Requests fail; whether the target runs is not known until it is there again.
    pub fn handle_stream_closed(&mut self, now: Instant) {
        let Wire::Stream(stream) = &mut self.wire else { return };
        if !stream.is_open() {
            return;
        }
        stream.closed();
        self.lose_touch();
        if let Some(attention) = &mut self.attention {
            attention.next_at = now + MAX_ATTENTION_INTERVAL;
        }
        self.tell(Event::Disconnected);
    }

    /// Whatever was pending is lost, and whether the target runs is not known.
    fn lose_touch(&mut self) {
        self.state = RunState::Unknown;
        (self.resuming, self.settling) = (None, None);
        let pending = self.reliable.restart();
        self.fail_requests(pending, RequestError::Disconnected);
    }

    /// Takes bytes from the stream. A link over KDNET takes none.
    pub fn handle_stream(&mut self, now: Instant, bytes: &[u8]) {
        let Wire::Stream(stream) = &mut self.wire else { return };
        stream.reader.push(bytes);
        self.counters.bytes_received += bytes.len() as u64;
        if !bytes.is_empty() {
            self.reliable.heard(now);
        }
        while let Wire::Stream(stream) = &mut self.wire
            && let Some(frame) = stream.reader.poll(now)
        {
            self.frame(now, &frame);
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Wire::Stream(stream) = &mut self.wire
            && let Some(frame) = stream.reader.handle_timeout(now)
        {
            self.frame(now, &frame);
            self.handle_stream(now, &[]);
        }
        if let Some(outcome) = self.reliable.handle_timeout(now) {
            self.settle(now, outcome);
        }
        // A continue has a likelier reason to be unanswered: the target runs.
        let doubtful = match self.reliable.continue_in_flight() {
            Some(_) => DOUBTFUL_CONTINUES,
            None => DOUBTFUL_ATTEMPTS,
        };
        if self.reliable.unheard_tries() > doubtful {
            self.doubt_key(now);
        }
        self.look_after_continue(now);
        if self.break_ins_live_until.is_some_and(|at| at <= now) {
            self.break_ins_live_until = None;
            self.reliable.forget_break_ins();
        }
        if let Some(attention) = self.attention.filter(|it| it.next_at <= now) {
            self.call_for_attention(now, attention.attempts);
        }
        if let Wire::Net(net) = &mut self.wire {
            net.handle_timeout(now);
        }
    }

    /// Sends `request` to the stopped target. Its end is an event: a reply, or a failure.
    pub fn request(&mut self, now: Instant, request: Manipulate) -> RequestId {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        if self.state != RunState::Stopped || self.is_leaving() {
            let error = match (self.peer(), &self.wire) {
                (None, _) => RequestError::NotConnected,
                (_, Wire::Stream(stream)) if !stream.is_open() => RequestError::Disconnected,
                _ => RequestError::TargetRunning,
            };
            self.tell(Event::Failed(id, error));
            return id;
        }
        self.counters.requests += 1;
        let timeout = match request.api_number.is_slow() {
            true => self.patience.slow_request_timeout,
            false => self.patience.request_timeout,
        };
        let purpose = Purpose::Request(id, Box::new(request.clone()));
        self.reliable.request(now, purpose, &request, timeout);
        id
    }

    /// Lets the stopped target run: [`Event::Resumed`] follows, or [`Event::ResumeUnproven`]; or [`Event::Stopped`], which
    /// is to be resumed like the last stop. Does nothing unless it is stopped.
    pub fn resume(&mut self, now: Instant, continue_status: NtStatus) {
        self.resume_with(now, &Manipulate::continue2(continue_status));
    }

    /// The same with a continue of the caller's own making: to step, to set debug registers.
    pub fn resume_with(&mut self, now: Instant, request: &Manipulate) {
        if self.state != RunState::Stopped || self.is_leaving() {
            return;
        }
        if !self.passes_module_events {
            self.attention = None;
        }
        self.send_continue(now, request, self.may_probe);
    }

    fn send_continue(&mut self, now: Instant, request: &Manipulate, may_probe: bool) {
        self.resuming = Some(Resuming::new(may_probe));
        self.reliable.request(now, Purpose::Continue, request, self.patience.resume_timeout);
    }

    /// The stop is about to end: what is asked would meet a running target.
    fn is_leaving(&self) -> bool {
        self.reliable.ends_stop() || self.settling.is_some()
    }

    /// Stops the target; [`Event::Stopped`] follows. Goes on trying until it does or [`Self::cancel_break_in`].
    pub fn break_in(&mut self, now: Instant) {
        if self.settling.is_some() {
            self.resumed(now);
        }
        if self.state == RunState::Stopped && !self.reliable.is_continuing() {
            return;
        }
        // What is put into a stream stays there: one break-in that is on its way is enough.
        if self.attention.is_none() || matches!(self.wire, Wire::Net(_)) {
            self.call_for_attention(now, 0);
        }
    }

    /// Stops trying to stop the target. See [`Self::may_stop_again`].
    pub fn cancel_break_in(&mut self) {
        if self.attention.take().is_some() && self.is_break_in_on_its_way() {
            self.reliable.overtake_break_ins();
            self.reliable.overtake_break_ins();
        }
    }

    /// Asks a target that is known by its address alone for an offer. `version` is the KDNET version to name; targets are not
    /// known to look at it. Nothing follows if there is none. A link over a stream does nothing.
    pub fn poke(&mut self, address: SocketAddr, version: u8) {
        if let Wire::Net(net) = &mut self.wire {
            net.poke(address, version);
        }
    }

    /// Answers the prompt that the target waits at.
    pub fn answer_prompt(&mut self, now: Instant, prompt: &DebugIo, answer: Bytes) {
        let payload = prompt.answer(answer).encode();
        self.is_answering_prompt = true;
        self.reliable.answer(now, PacketType::DEBUG_IO, payload, self.patience.request_timeout);
    }

    /// The next datagram to send, written into `datagram`, and where to.
    pub fn poll_transmit(&mut self, datagram: &mut BytesMut) -> Option<SocketAddr> {
        let Wire::Net(net) = &mut self.wire else { return None };
        let (to, sealed) = net.poll_transmit(|| self.reliable.poll_transmit())?;
        self.counters.datagrams_sent += 1;
        self.counters.bytes_sent += sealed.len() as u64;
        datagram.clear();
        datagram.extend_from_slice(&sealed);
        Some(to)
    }

    /// Appends the bytes to send into the stream to `out`. False if there are none.
    pub fn poll_transmit_stream(&mut self, out: &mut BytesMut) -> bool {
        let Wire::Stream(stream) = &mut self.wire else { return false };
        while let Some(packet) = self.reliable.poll_transmit() {
            self.counters.datagrams_sent += u64::from(stream.is_open());
            stream.send(&packet);
        }
        let before = out.len();
        let has_bytes = stream.poll_transmit(out);
        self.counters.bytes_sent += (out.len() - before) as u64;
        has_bytes
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<Event> {
        let (event, state) = self.events.pop_front()?;
        self.told = state;
        Some(event)
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let of_wire = match &self.wire {
            Wire::Net(net) => net.poll_timeout(),
            Wire::Stream(stream) => stream.reader.poll_timeout(),
        };
        let attention = self.attention.map(|it| it.next_at);
        let resume = self.resuming.and_then(|it| it.poll_timeout());
        let settles = self.settling.map(|it| it.poll_timeout());
        let resume = resume.into_iter().chain(settles).chain(self.break_ins_live_until);
        of_wire.into_iter().chain(attention).chain(resume).chain(self.reliable.poll_timeout()).min()
    }

    /// Whether the target takes requests, as of the last event that [`Self::poll_event`] has handed out.
    #[must_use]
    pub fn state(&self) -> RunState {
        if self.events.is_empty() { self.state } else { self.told }
    }

    /// The target, once it has proven that it has the key, or has sent a packet into the stream.
    #[must_use]
    pub fn peer(&self) -> Option<Peer> {
        match &self.wire {
            Wire::Net(net) => net.peer().map(Peer::Kdnet),
            Wire::Stream(stream) => stream.is_heard().then_some(Peer::Kdcom),
        }
    }

    /// True if more was done to stop the target than it has obeyed yet, so that it may stop once more by itself: over a
    /// stream while a break-in lies in it, over KDNET for a second after one that nothing was seen to overtake.
    #[must_use]
    pub const fn may_stop_again(&self) -> bool {
        match &self.wire {
            Wire::Net(_) => self.is_break_in_on_its_way(),
            Wire::Stream(stream) => stream.break_ins() > 0,
        }
    }

    const fn is_break_in_on_its_way(&self) -> bool {
        self.break_ins_live_until.is_some() && self.reliable.has_stray_break_in()
    }

    /// What crossed the link so far.
    #[must_use]
    pub const fn counters(&self) -> LinkCounters {
        LinkCounters { retransmissions: self.reliable.retransmissions(), ..self.counters }
    }

    /// When the last authentic datagram came.
    #[must_use]
    pub const fn last_heard(&self) -> Option<Instant> {
        self.last_heard
    }

    fn receive(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Result<(), DatagramError> {
        let Wire::Net(net) = &mut self.wire else { return Err(DatagramError::NoSession) };
        net.set_busy(self.reliable.is_slow());
        let opened = match net.receive(now, from, datagram) {
            Err(DatagramError::SecondTarget) if net.is_new_second(from) => {
                self.tell(Event::SecondTarget { address: from });
                return Err(DatagramError::SecondTarget);
            }
            other => other?,
        };
        let datagram = match opened {
            Opened::Control => return Ok(()),
            Opened::SignOfLife { in_debugger } => {
                self.note_life();
                self.offers_say(now, in_debugger);
                return Ok(());
            }
            Opened::TakenOver(by) => {
                self.tell(Event::TakenOver(by));
                return Ok(());
            }
            Opened::ForeignOffer { version, len } => {
                self.tell(Event::ForeignOffer { address: from, version, len });
                return Ok(());
            }
            Opened::Data(datagram, proof) => {
                self.note_life();
                self.keyed(now, proof);
                datagram
            }
        };
        match Content::decode(&datagram)? {
            // The answer proves to the target that the key works, and it stops pinging. WinDbg sends the same.
            Content::Ping(_) => self.reliable.send_resend(),
            Content::Kd(packet) => self.kd_packet(now, &packet)?,
            Content::Control(_) | Content::BreakIn | Content::Runt(_) => {}
        }
        Ok(())
    }

    /// Something came that nobody can have replayed.
    const fn note_life(&mut self) {
        if let Some(resuming) = &mut self.resuming {
            resuming.heard();
        }
    }

    fn frame(&mut self, now: Instant, frame: &Frame) {
        match frame {
            Frame::Packet(packet) => {
                self.last_heard = Some(now);
                self.counters.datagrams_received += 1;
                if let Wire::Stream(stream) = &mut self.wire
                    && stream.hear()
                {
                    self.tell(Event::Connected(Peer::Kdcom));
                }
                if self.kd_packet(now, packet).is_err() {
                    self.counters.dropped += 1;
                }
            }
            Frame::Damaged(_) => {
                self.counters.dropped += 1;
                // One damage can look like several: what is asked for twice comes twice.
                if self.resend_at.is_none_or(|at| at + RESEND_INTERVAL <= now) {
                    self.resend_at = Some(now);
                    self.reliable.send_resend();
                }
            }
            Frame::BreakIn => {}
        }
    }

    fn kd_packet(&mut self, now: Instant, packet: &Packet) -> Result<(), DecodeError> {
        if packet.is_control {
            if let Some(outcome) = self.reliable.control(now, packet) {
                self.settle(now, outcome);
            }
            return Ok(());
        }
        let withholds_ack = self.wants_silence(now, packet);
        let result = match self.reliable.accept(packet, withholds_ack) {
            Arrival::Repeat | Arrival::Doubtful => Ok(()),
            Arrival::New => self.packet(now, packet),
            Arrival::Anew => {
                let pending = self.reliable.begin_with(packet);
                self.restarted(pending, Peer::Kdcom);
                self.packet(now, packet)
            }
        };
        self.reliable.packet_done(now);
        result
    }

    /// True if a wanted break-in is to have silence behind it instead of this packet's ACK: a target that waits for the ACK
    /// notices a break-in for certain then, sends its packet again, and stops once that is acknowledged.
    fn wants_silence(&mut self, now: Instant, packet: &Packet) -> bool {
        let Wire::Stream(stream) = &mut self.wire else { return false };
        let is_print = matches!(
            Payload::decode(packet),
            Ok(Payload::DebugIo(io)) if io.api_number == DebugIoApi::PRINT_STRING
        );
        if self.attention.is_none() || self.state == RunState::Stopped || !is_print {
            return false;
        }
        stream.takes_silence(now)
    }

    fn keyed(&mut self, now: Instant, proof: Proof) {
        let peer = self.peer();
        match (proof, peer) {
            (Proof::Current, _) | (_, None) => return,
            // What was sent under another key is dropped.
            (Proof::Rekeyed, _) => {
                self.reliable.forget_break_ins();
                if self.settling.is_some() {
                    self.resumed(now);
                }
            }
            (Proof::First, Some(peer)) => self.tell(Event::Connected(peer)),
            (Proof::Restarted, Some(peer)) => {
                let pending = self.reliable.restart();
                self.restarted(pending, peer);
            }
        }
        if let Some(attention) = &mut self.attention {
            *attention = Repeated { next_at: now, attempts: 0 };
        }
    }

    /// Nothing that was known of the target is true any more.
    fn restarted(&mut self, pending: Vec<Purpose>, peer: Peer) {
        self.state = RunState::Unknown;
        self.fail_requests(pending, RequestError::TargetRestarted);
        self.left_stop();
        self.break_in_at = None;
        self.tell(Event::Restarted(peer));
    }

    fn tell(&mut self, event: Event) {
        self.events.push_back((event, self.state));
    }

    fn fail_requests(&mut self, pending: Vec<Purpose>, error: RequestError) {
        for purpose in pending {
            if let Purpose::Request(id, _) = purpose {
                self.tell(Event::Failed(id, error));
            }
        }
    }

    /// Takes a new data packet of the target.
    fn packet(&mut self, now: Instant, packet: &Packet) -> Result<(), DecodeError> {
        match Payload::decode(packet)? {
            Payload::Manipulate(reply) => {
                if let Some(id) = self.reliable.replied(now, &reply) {
                    self.tell(Event::Replied(id, reply));
                }
            }
            Payload::StateChange(change) => self.state_change(now, *change, &packet.payload),
            Payload::DebugIo(io) if io.api_number == DebugIoApi::GET_STRING => {
                self.awaits_answer(now);
                self.tell(Event::Prompt(io));
            }
            Payload::DebugIo(io) => {
                self.is_running(now);
                self.tell(Event::DebugPrint(io.text));
            }
            Payload::FileIo(file) => {
                self.awaits_answer(now);
                let refusal = file.refuse().encode();
                self.is_answering_prompt = false;
                self.reliable.answer(now, PacketType::FILE_IO, refusal, self.patience.request_timeout);
                self.tell(Event::FileRefused(file.path()));
            }
            // Trace records and control requests need no answer. \[uncertain\]
            Payload::Other(..) => {}
        }
        Ok(())
    }

    /// A packet arrived that only a target outside its request loop sends.
    fn is_running(&mut self, now: Instant) {
        self.repeat_missed_break_in(now);
        // A target that is busy with what was given up may print about it.
        if self.reliable.is_continuing() && !self.has_abandoned {
            self.reliable.continued(now);
            self.obeyed(now);
        } else if self.state == RunState::Unknown {
            self.state = RunState::Running;
            if std::mem::take(&mut self.is_unproven) {
                self.tell(Event::Resumed);
            }
        }
    }

    /// An offer of the target says whether it is in its debugger. Most never say so: it proves something only where they
    /// did during this stop.
    fn offers_say(&mut self, now: Instant, in_debugger: bool) {
        if in_debugger {
            self.was_in_debugger = self.state == RunState::Stopped;
        } else if self.was_in_debugger && self.reliable.is_continuing() {
            self.reliable.continued(now);
            self.obeyed(now);
        }
    }

    fn repeat_missed_break_in(&mut self, now: Instant) {
        if let (Some(attention), Wire::Stream(stream)) = (&mut self.attention, &self.wire)
            && stream.has_missed_break_in(now)
        {
            attention.next_at = now;
        }
    }

    /// The target waits for an answer of this side, and takes nothing else.
    fn awaits_answer(&mut self, now: Instant) {
        self.is_running(now);
        if self.state == RunState::Stopped {
            self.reliable.continued(now);
            self.resumed(now);
        }
    }

    fn state_change(&mut self, now: Instant, change: StateChange, payload: &Bytes) {
        let is_same = self.stop_payload.as_ref() == Some(payload);
        if self.is_continuing() {
            let is_probing = self.resuming.is_some_and(|it| it.is_probing());
            if self.settling.is_none() && is_same && self.attention.is_none() && !is_probing {
                // Announced again before the continue was obeyed.
                return;
            }
            if is_probing && (is_same || self.is_of_break_in(&change)) || is_same && self.settling.is_none() {
                // Whether it ran in between is not known, and does not matter: it is to be resumed again.
                self.reliable.take_back_continue(now);
                self.left_stop();
            } else {
                self.reliable.continued(now);
                self.resumed(now);
            }
        } else if is_same && self.state == RunState::Stopped {
            return;
        }
        self.state = RunState::Stopped;
        self.stop_payload = Some(payload.clone());
        if change.is_load_symbols() && !self.passes_module_events {
            // Boot goes on only when each of these is answered; a wanted break-in stays wanted.
            self.repeat_missed_break_in(now);
            self.send_continue(now, &Manipulate::continue2(NtStatus::DBG_CONTINUE), false);
            if is_same {
                return;
            }
            self.tell(if change.is_reboot() {
                Event::Rebooting
            } else {
                Event::ModuleEvent(Box::new(change))
            });
            return;
        }
        // A break-in that is wanted stays wanted while modules are announced.
        if !change.is_load_symbols() {
            if self.attention.take().is_some() && is_breakpoint(&change) {
                self.break_in_at = Some(change.program_counter);
            }
            // A target that comes upon a break-in while it is stopped says so, and remembers the break-in.
            if let Wire::Stream(stream) = &mut self.wire
                && !is_same
            {
                stream.stopped();
            }
        }
        self.tell(Event::Stopped(Box::new(change)));
    }

    fn settle(&mut self, now: Instant, outcome: Outcome) {
        match outcome {
            Outcome::Done(Purpose::Continue) => self.obeyed(now),
            Outcome::Failed(Purpose::Request(id, _), error) => {
                self.has_abandoned = true;
                self.tell(Event::Failed(id, error))
            }
            Outcome::Failed(Purpose::Continue, error) => self.unproven(now, error),
            Outcome::Done(Purpose::Request(id, request)) => {
                if request.api_number.ends_stop() {
                    self.state = RunState::Unknown;
                    self.left_stop();
                }
                self.tell(Event::Acknowledged(id));
            }
            Outcome::Done(Purpose::Answer) => {
                if std::mem::take(&mut self.is_answering_prompt) {
                    self.tell(Event::PromptAnswered);
                }
            }
            Outcome::Failed(Purpose::Answer, _) => {}
        }
    }

    /// Does what is due for a continue that is on its way, or was obeyed just now.
    fn look_after_continue(&mut self, now: Instant) {
        if let Some(settling) = &mut self.settling {
            if settling.is_over(now) {
                self.resumed(now);
            } else if settling.overtakes(now) {
                self.reliable.overtake_break_ins();
            }
            return;
        }
        let (Some(resuming), Some((tries, is_held))) =
            (&mut self.resuming, self.reliable.continue_in_flight())
        else {
            return;
        };
        match &mut self.wire {
            Wire::Net(net) => match resuming.due(tries) {
                Due::Nothing => {}
                Due::Poke => net.poke_peer(),
                Due::BreakIn => {
                    // Two, since one may be lost; a target that stops at the first announces itself again at the other.
                    for _ in 0..2 {
                        net.send(Content::BreakIn);
                        self.reliable.break_in_sent();
                    }
                    self.reliable.hold_back(now, PROBE_PATIENCE);
                    self.break_ins_live_until = Some(now + BREAK_IN_LIFE);
                }
            },
            Wire::Stream(stream) => {
                if resuming.due_on_stream(now, is_held) == Due::BreakIn {
                    stream.break_in(now);
                }
            }
        }
    }

    /// A continue is on its way, or was obeyed and is not told yet.
    fn is_continuing(&self) -> bool {
        self.reliable.is_continuing() || self.settling.is_some()
    }

    /// True for the stop that a break-in leads to.
    fn is_of_break_in(&self, change: &StateChange) -> bool {
        is_breakpoint(change) && self.break_in_at.is_none_or(|at| at == change.program_counter)
    }

    /// The target has obeyed the continue. A break-in of this link that is on its way yet must not undo that unseen.
    fn obeyed(&mut self, now: Instant) {
        if self.attention.is_none() && self.is_break_in_on_its_way() {
            self.settling.get_or_insert_with(|| Settling::new(now));
            self.reliable.overtake_break_ins();
        } else {
            self.resumed(now);
        }
    }

    fn resumed(&mut self, now: Instant) {
        self.state = RunState::Running;
        self.left_stop();
        if let Wire::Stream(stream) = &mut self.wire {
            stream.resumed();
        }
        let requests = self.reliable.give_up_requests(now);
        self.fail_requests(requests, RequestError::TargetRunning);
        self.tell(Event::Resumed);
    }

    fn unproven(&mut self, now: Instant, error: RequestError) {
        let RequestError::NoAnswer { after, tries } = error else { return };
        self.state = RunState::Unknown;
        self.left_stop();
        self.is_unproven = true;
        let requests = self.reliable.give_up_requests(now);
        self.fail_requests(requests, RequestError::TargetRunning);
        self.tell(Event::ResumeUnproven { after, tries });
    }

    /// Nothing that belongs to the stop is true any more.
    fn left_stop(&mut self) {
        self.stop_payload = None;
        self.resuming = None;
        self.settling = None;
        self.is_unproven = false;
        self.has_abandoned = false;
        self.was_in_debugger = false;
    }

    fn call_for_attention(&mut self, now: Instant, attempts: u32) {
        let interval = match &mut self.wire {
            Wire::Net(net) => {
                if attempts % RESET_EVERY != RESET_EVERY - 1 {
                    net.send(Content::BreakIn);
                    self.reliable.break_in_sent();
                    self.break_ins_live_until = Some(now + BREAK_IN_LIFE);
                } else if !self.reliable.is_continuing() {
                    self.reliable.send_reset();
                }
                let longer = ATTENTION_INTERVAL * 2_u32.pow(attempts.min(4));
                longer.clamp(self.reliable.round_trip(), ATTENTION_CEILING)
            }
            Wire::Stream(stream) => {
                if stream.is_open() && self.state != RunState::Stopped {
                    stream.break_in(now);
                }
                (STREAM_ATTENTION_INTERVAL * (attempts + 1)).min(MAX_ATTENTION_INTERVAL)
            }
        };
        if attempts >= DOUBTFUL_CALLS {
            self.doubt_key(now);
        }
        self.attention = Some(Repeated { next_at: now + interval, attempts: attempts.saturating_add(1) });
    }

    /// A target that does not react may have been keyed by somebody else.
    fn doubt_key(&mut self, now: Instant) {
        if let Wire::Net(net) = &mut self.wire {
            net.doubt_key(now);
        }
    }
}

fn is_breakpoint(change: &StateChange) -> bool {
    matches!(&change.detail, StateDetail::Exception(it) if it.exception_code == NtStatus::BREAKPOINT)
}
