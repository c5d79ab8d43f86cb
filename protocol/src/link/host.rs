//! The debugger's end of a KDNET link.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::keying::{HostKeying, OfferOutcome, Proof};
use super::reliable::{Outcome, Purpose, Reliable};
use super::{Content, Entropy, Event, LinkConfig, Peer, RequestError, RequestId};
use crate::kd::{DebugIo, DebugIoApi, Manipulate, NtStatus, Packet, PacketType, Payload, StateChange};
use crate::kdnet::{Channel, Control, DatagramError, Envelope};

/// Break-ins and RESETs go out this far apart, in turns: a running target obeys the first, a stopped one the second.
const ATTENTION_INTERVAL: Duration = Duration::from_millis(250);
/// Transmissions without a reaction, after which the target may not have our key any more.
const DOUBTFUL_ATTEMPTS: u32 = 6;
/// An answered offer should be followed by a ping; after this long the host asks for another offer.
const POKE_INTERVAL: Duration = Duration::from_millis(500);
/// Pokes without an answer, after which the target's own offers are waited for.
const POKES: u32 = 4;

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

/// What crossed the link so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Manipulate requests submitted.
    pub requests: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Authentic datagrams received.
    pub datagrams_received: u64,
    /// UDP payload bytes sent.
    pub bytes_sent: u64,
    /// UDP payload bytes received, authentic ones.
    pub bytes_received: u64,
    /// Data packets sent more than once.
    pub retransmissions: u64,
    /// Datagrams dropped because they do not authenticate.
    pub not_authentic: u64,
    /// Datagrams dropped for another reason: replays, damage, strangers.
    pub dropped: u64,
}

/// Getting a target's attention.
#[derive(Clone, Copy, Debug)]
struct Attention {
    next_at: Instant,
    attempts: u32,
}

/// The debugger's end of a KDNET link: answers offers, agrees on keys, breaks in, exchanges requests and replies.
pub struct HostLink {
    config: LinkConfig,
    entropy: Box<dyn Entropy>,
    keying: HostKeying,
    reliable: Reliable,
    state: RunState,
    /// The state change that began this stop, as it came: tells a repeated one from a new one.
    stop_payload: Option<Bytes>,
    attention: Option<Attention>,
    poke: Option<Attention>,
    control_outbox: VecDeque<(SocketAddr, Vec<u8>)>,
    data_outbox: VecDeque<Content>,
    events: VecDeque<Event>,
    counters: LinkCounters,
    next_request: u64,
    last_heard: Option<Instant>,
    taken_over: bool,
}

impl HostLink {
    /// A link that waits for a target's offer.
    #[must_use]
    pub fn new(config: LinkConfig, entropy: Box<dyn Entropy>) -> Self {
        Self {
            keying: HostKeying::new(config.key.clone()),
            config,
            entropy,
            reliable: Reliable::new(),
            state: RunState::Unknown,
            stop_payload: None,
            attention: None,
            poke: None,
            control_outbox: VecDeque::new(),
            data_outbox: VecDeque::new(),
            events: VecDeque::new(),
            counters: LinkCounters::default(),
            next_request: 0,
            last_heard: None,
            taken_over: false,
        }
    }

    /// Takes a datagram from the socket.
    ///
    /// # Errors
    /// Why it was dropped. Never the caller's fault: count it and go on.
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

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(outcome) = self.reliable.handle_timeout(now) {
            self.settle(now, outcome);
        }
        if self.reliable.unheard_tries() > DOUBTFUL_ATTEMPTS && self.poke.is_none() {
            self.doubt_key(now);
        }
        if let Some(attention) = self.attention.filter(|it| it.next_at <= now) {
            self.call_for_attention(now, attention.attempts);
        }
        if let Some(poke) = self.poke.filter(|it| it.next_at <= now) {
            self.poke_target(now, poke.attempts);
        }
    }

    /// Sends `request` to the stopped target. Its end is an event: a reply, or a failure.
    pub fn request(&mut self, now: Instant, request: Manipulate) -> RequestId {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        if self.state != RunState::Stopped || self.reliable.ends_stop() {
            let error = if self.keying.peer().is_none() {
                RequestError::NotConnected
            } else {
                RequestError::TargetRunning
            };
            self.events.push_back(Event::Failed(id, error));
            return id;
        }
        self.counters.requests += 1;
        let timeout = match request.api_number.is_slow() {
            true => self.config.slow_request_timeout,
            false => self.config.request_timeout,
        };
        let purpose = Purpose::Request(id, Box::new(request.clone()));
        self.reliable.request(now, purpose, &request, timeout);
        id
    }

    /// Lets the stopped target run; [`Event::Resumed`] follows. Does nothing unless it is stopped.
    pub fn resume(&mut self, now: Instant, continue_status: NtStatus) {
        if self.state != RunState::Stopped || self.reliable.ends_stop() {
            return;
        }
        self.attention = None;
        let timeout = self.config.request_timeout;
        self.reliable.request(now, Purpose::Continue, &Manipulate::continue2(continue_status), timeout);
    }

    /// Stops the target; [`Event::Stopped`] follows. Goes on trying until it does or [`Self::cancel_break_in`].
    pub fn break_in(&mut self, now: Instant) {
        if self.state != RunState::Stopped || self.reliable.is_continuing() {
            self.call_for_attention(now, 0);
        }
    }

    /// Stops trying to stop the target.
    pub const fn cancel_break_in(&mut self) {
        self.attention = None;
    }

    /// Answers the prompt that the target waits at.
    pub fn answer_prompt(&mut self, now: Instant, prompt: &DebugIo, answer: Bytes) {
        let payload = prompt.answer(answer).encode();
        self.reliable.answer(now, PacketType::DEBUG_IO, payload, self.config.request_timeout);
    }

    /// The next datagram to send, written into `datagram`, and where to.
    pub fn poll_transmit(&mut self, datagram: &mut BytesMut) -> Option<SocketAddr> {
        let (to, sealed) = loop {
            if let Some(sealed) = self.control_outbox.pop_front() {
                break sealed;
            }
            let content = match self.data_outbox.pop_front() {
                Some(content) => content,
                None => Content::Kd(self.reliable.poll_transmit()?),
            };
            // Without a session there is nobody to send to; what matters is sent again by its timer.
            if let Some(sealed) = self.keying.seal_data(&content) {
                break sealed;
            }
        };
        self.counters.datagrams_sent += 1;
        self.counters.bytes_sent += sealed.len() as u64;
        datagram.clear();
        datagram.extend_from_slice(&sealed);
        Some(to)
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timers = [self.attention, self.poke].into_iter().flatten().map(|it| it.next_at);
        timers.chain(self.reliable.poll_timeout()).min()
    }

    /// Whether the target takes requests.
    #[must_use]
    pub const fn state(&self) -> RunState {
        self.state
    }

    /// The target, once it has proven that it has the key.
    #[must_use]
    pub fn peer(&self) -> Option<Peer> {
        self.keying.peer()
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
        let envelope = Envelope::parse(datagram)?;
        if envelope.channel() == Channel::Control {
            let datagram = self.keying.open_control(&envelope)?;
            let Content::Control(Control::Offer(offer)) = Content::decode(&datagram)? else { return Ok(()) };
            match self.keying.offer(from, &datagram, &offer, &mut *self.entropy)? {
                OfferOutcome::Answer(response) => {
                    self.control_outbox.push_back((from, response));
                    let attempts = self.poke.map_or(0, |poke| poke.attempts);
                    self.poke = Some(Attention { next_at: now + POKE_INTERVAL, attempts });
                }
                OfferOutcome::KeepAlive => {}
                OfferOutcome::TakenOver(by) if !std::mem::replace(&mut self.taken_over, true) => {
                    self.events.push_back(Event::TakenOver(by));
                }
                OfferOutcome::TakenOver(_) => {}
            }
            return Ok(());
        }
        let (datagram, proof) = match self.keying.open_data(from, &envelope) {
            Ok(opened) => opened,
            Err(error) => {
                if error == DatagramError::NoSession || self.keying.has_lost_key() {
                    // A target in mid-session, but not with us or not with our key: an offer now saves three seconds.
                    let peer = Peer { address: from, version: envelope.version };
                    self.poke_stranger(now, peer);
                }
                return Err(error);
            }
        };
        self.keyed(now, proof);
        match Content::decode(&datagram)? {
            // The answer proves to the target that the key works, and it stops pinging. WinDbg sends the same.
            Content::Ping(_) => self.reliable.send_resend(),
            Content::Kd(packet) if packet.is_control => {
                if let Some(outcome) = self.reliable.control(now, &packet) {
                    self.settle(now, outcome);
                }
            }
            Content::Kd(packet) => {
                if self.reliable.accept(packet.id) {
                    self.packet(now, &packet)?;
                }
            }
            Content::Control(_) | Content::BreakIn | Content::Runt(_) => {}
        }
        Ok(())
    }

    fn keyed(&mut self, now: Instant, proof: Proof) {
        if proof == Proof::Current {
            return;
        }
        self.poke = None;
        self.taken_over = false;
        let peer = self.keying.peer().expect("a proven key is a session's");
        match proof {
            Proof::Current | Proof::Rekeyed => {}
            Proof::First => self.events.push_back(Event::Connected(peer)),
            Proof::Restarted => {
                for purpose in self.reliable.restart() {
                    if let Purpose::Request(id, _) = purpose {
                        self.events.push_back(Event::Failed(id, RequestError::TargetRestarted));
                    }
                }
                self.state = RunState::Unknown;
                self.stop_payload = None;
                self.events.push_back(Event::Restarted(peer));
            }
        }
        if let Some(attention) = &mut self.attention {
            attention.next_at = now;
            attention.attempts = 0;
        }
    }

    /// Takes a new data packet of the target.
    fn packet(&mut self, now: Instant, packet: &Packet) -> Result<(), DatagramError> {
        match Payload::decode(packet)? {
            Payload::Manipulate(reply) => {
                if let Some(id) = self.reliable.replied(now, &reply) {
                    self.events.push_back(Event::Replied(id, reply));
                }
            }
            Payload::StateChange(change) => self.state_change(now, *change, &packet.payload),
            Payload::DebugIo(io) if io.api_number == DebugIoApi::GET_STRING => {
                self.awaits_answer(now);
                self.events.push_back(Event::Prompt(io));
            }
            Payload::DebugIo(io) => {
                self.is_running(now);
                self.events.push_back(Event::DebugPrint(io.text));
            }
            Payload::FileIo(file) => {
                self.awaits_answer(now);
                let refusal = file.refuse().encode();
                self.reliable.answer(now, PacketType::FILE_IO, refusal, self.config.request_timeout);
                self.events.push_back(Event::FileRefused(file.path()));
            }
            // Trace records and control requests need no answer. \[uncertain\]
            Payload::Other(..) => {}
        }
        Ok(())
    }

    /// A packet arrived that only a target outside its request loop sends.
    fn is_running(&mut self, now: Instant) {
        if self.reliable.continued(now) {
            self.resumed(now, true);
        } else if self.state == RunState::Unknown {
            self.state = RunState::Running;
        }
    }

    /// The target waits for an answer of this side, and takes nothing else.
    fn awaits_answer(&mut self, now: Instant) {
        self.is_running(now);
        if self.state == RunState::Stopped {
            self.resumed(now, true);
        }
    }

    fn state_change(&mut self, now: Instant, change: StateChange, payload: &Bytes) {
        if self.reliable.is_continuing() {
            // The same stop announced again means that the continue has not been obeyed yet; another one, that its
            // acknowledgement was lost.
            if self.attention.is_none() && self.stop_payload.as_ref() == Some(payload) {
                return;
            }
            self.reliable.continued(now);
            self.resumed(now, true);
        }
        let is_repeat = self.state == RunState::Stopped && self.stop_payload.as_ref() == Some(payload);
        self.state = RunState::Stopped;
        self.stop_payload = Some(payload.clone());
        if is_repeat {
            return;
        }
        if change.is_load_symbols() {
            // Boot goes on only when each of these is answered; a wanted break-in stays wanted.
            let timeout = self.config.request_timeout;
            let go = Manipulate::continue2(NtStatus::DBG_CONTINUE);
            self.reliable.request(now, Purpose::Continue, &go, timeout);
            self.events.push_back(if change.is_reboot() {
                Event::Rebooting
            } else {
                Event::ModuleEvent(Box::new(change))
            });
            return;
        }
        self.attention = None;
        self.events.push_back(Event::Stopped(Box::new(change)));
    }

    fn settle(&mut self, now: Instant, outcome: Outcome) {
        match outcome {
            Outcome::Done(Purpose::Continue, confirmed) => self.resumed(now, confirmed),
            Outcome::Failed(Purpose::Request(id, _), error) => {
                self.events.push_back(Event::Failed(id, error))
            }
            Outcome::Failed(Purpose::Continue, _) => self.resumed(now, false),
            Outcome::Done(Purpose::Request(id, request), _) => {
                if request.api_number.ends_stop() {
                    self.state = RunState::Unknown;
                    self.stop_payload = None;
                }
                self.events.push_back(Event::Acknowledged(id));
            }
            Outcome::Done(Purpose::Answer, _) | Outcome::Failed(Purpose::Answer, _) => {}
        }
    }

    fn resumed(&mut self, now: Instant, confirmed: bool) {
        self.state = RunState::Running;
        self.stop_payload = None;
        for purpose in self.reliable.give_up_requests(now) {
            if let Purpose::Request(id, _) = purpose {
                self.events.push_back(Event::Failed(id, RequestError::TargetRunning));
            }
        }
        self.events.push_back(Event::Resumed { confirmed });
    }

    fn call_for_attention(&mut self, now: Instant, attempts: u32) {
        if attempts.is_multiple_of(2) {
            self.data_outbox.push_back(Content::BreakIn);
        } else if !self.reliable.is_continuing() {
            self.reliable.send_reset();
        }
        if attempts >= DOUBTFUL_ATTEMPTS && self.poke.is_none() {
            self.doubt_key(now);
        }
        self.attention = Some(Attention { next_at: now + ATTENTION_INTERVAL, attempts: attempts + 1 });
    }

    /// Gets an offer out of a target that does not react: it may have been keyed by somebody else.
    fn doubt_key(&mut self, now: Instant) {
        if let Some(peer) = self.keying.peer() {
            self.keying.doubt_key();
            self.poke_stranger(now, peer);
        }
    }

    /// Asks for another offer, since the answer to the last one led to nothing.
    fn poke_target(&mut self, now: Instant, attempts: u32) {
        self.poke = None;
        let Some(peer) = self.keying.unproven_peer().filter(|_| attempts < POKES) else { return };
        self.control_outbox.push_back((peer.address, self.keying.seal_poke(peer)));
        self.poke = Some(Attention { next_at: now + POKE_INTERVAL, attempts: attempts + 1 });
    }

    fn poke_stranger(&mut self, now: Instant, peer: Peer) {
        if self.poke.is_none() {
            self.control_outbox.push_back((peer.address, self.keying.seal_poke(peer)));
            self.poke = Some(Attention { next_at: now + POKE_INTERVAL, attempts: POKES });
        }
    }
}
