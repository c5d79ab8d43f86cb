//! The debugger's end of a link: one state machine over two carriers, which [`net`] and [`stream`] know.
//!
//! ```text
//!  what its owner calls              mod
//!  what comes from the target        arrivals
//!  how it is stopped                 attention
//!  how it is let run, and whether    leaving, resume
//! ```

mod arrivals;
mod attention;
mod counters;
mod leaving;
mod net;
mod repeated;
mod resume;
mod run_state;
mod stream;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::config::{LinkConfig, Patience};
use super::dialect::Dialect;
use super::entropy::Entropy;
use super::event::{Event, Peer, RequestError, RequestId};
use super::in_flight::Purpose;
use super::reliable::Reliable;
use crate::VirtAddr;
use crate::kd::{Arm, DebugIo, Manipulate, NtStatus, PacketType};
use crate::kdnet::DatagramError;

pub use counters::LinkCounters;
use net::NetWire;
use repeated::Repeated;
use resume::{Resuming, Settling};
pub use run_state::RunState;
use stream::StreamWire;

/// No two break-ins are further apart than this.
const MAX_ATTENTION_INTERVAL: Duration = Duration::from_secs(10);
/// Transmissions without a reaction, after which the target may not have our key any more.
const DOUBTFUL_ATTEMPTS: u32 = 6;
/// The same for transmissions of a continue.
const DOUBTFUL_CONTINUES: u32 = 60;

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
    /// What processors have in Dr7 since the last continue: which debug registers watch. A module event is left with it.
    dr7: u64,
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
            dr7: Manipulate::DR7_NONE,
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
        if let Wire::Stream(stream) = &self.wire
            && !bytes.is_empty()
        {
            self.reliable.came(now, stream.reader.is_partial());
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
                (_, Wire::Stream(stream)) if !stream.is_open() => RequestError::Disconnected,
                (None, _) => RequestError::NotConnected,
                _ if self.state == RunState::Unknown => RequestError::NotKnown,
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

    /// Nobody waits for this request any more: what is asked next need not wait for its reply, and no end of it need follow. The
    /// target may have carried it out.
    pub fn abandon(&mut self, now: Instant, id: RequestId) {
        self.reliable.abandon(now, id);
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
        if let Arm::Continue2(arm) = request.arm {
            self.dr7 = arm.dr7;
        }
        self.send_continue(now, request, self.may_probe);
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
            Wire::Stream(stream) => stream.may_stop_again(),
        }
    }

    /// True if a break-in was sent to a target that was not known to run, and it has not been let run and stopped since: over a stream it
    /// may have been stopped already, and remembers the break-in then.
    #[must_use]
    pub const fn may_remember_break_in(&self) -> bool {
        match &self.wire {
            Wire::Net(_) => false,
            Wire::Stream(stream) => stream.may_remember(),
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
}
