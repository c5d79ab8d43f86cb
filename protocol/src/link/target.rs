//! The target's end of a KDNET link: what kdnet.dll and the kernel's packet layer do, for a simulated kernel.
//!
//! ```text
//!            send(state change)          Continue
//!   Running ------------------> RequestLoop ------> Running
//!      any datagram but a           manipulate -> Request event -> reply()
//!      break-in is lost             RESEND, RESET, break-in -> the state change again
//!
//!   while a packet of ours is unacknowledged: the rules of PROTOCOL.md 7
//! ```

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::channel::DataChannel;
use super::{Content, Entropy};
use crate::kd::{DebugIo, FileIo, Manipulate, Packet, PacketId, PacketType, Payload, StateChange};
use crate::kdnet::{
    Channel, Cipher, Control, Datagram, DatagramError, Direction, Endpoint, Envelope, Flags, Key, Offer,
    Ping, Response, TargetRandom,
};

/// An offer goes out this far after the last, in every state.
const OFFER_INTERVAL: Duration = Duration::from_secs(3);
/// The offer's timer rises by this much with each.
const OFFER_TIMER_STEP: u64 = 3;
/// An unacknowledged packet is sent again after this long.
const RETRANSMIT_INTERVAL: Duration = Duration::from_millis(500);
/// Retransmissions after which a print, which nobody must see, is given up. ReactOS has 3, listings of Windows kernels
/// 20. \[uncertain: which counts over KDNET\] The machine stands still meanwhile, so the smaller is the kinder.
const PRINT_RETRIES: u32 = 3;
/// Datagrams that wait while a request is being executed: a network card's ring.
const BACKLOG: usize = 64;

/// How a [`TargetLink`] behaves.
#[derive(Clone, Debug)]
pub struct TargetConfig {
    /// The key that the host was given too.
    pub key: Key,
    /// KDNET version byte: 2 for Windows 8.1, 5 for Windows 10 2004.
    pub version: u8,
    /// The target's own address, as its offers name it.
    pub address: SocketAddr,
    /// Where offers go: the debugger that the boot settings name.
    pub host: SocketAddr,
}

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
    /// The kernel waits for the host's answer of this packet type.
    AwaitingAnswer(PacketType),
}

/// A data packet of ours that is not acknowledged yet.
#[derive(Debug)]
struct Sending {
    packet: Packet,
    resend_at: Instant,
    retries: u32,
}

#[derive(Debug)]
struct Connection {
    channel: DataChannel,
    host: SocketAddr,
    /// A valid data datagram has come; until then each offer is followed by a ping.
    is_heard: bool,
    /// The host did not acknowledge in time: nothing is printed to it until it is heard again.
    is_absent: bool,
}

/// The target's end of a KDNET link.
pub struct TargetLink {
    config: TargetConfig,
    control: Cipher,
    entropy: Box<dyn Entropy>,
    random: TargetRandom,
    offer_timer: u64,
    next_offer_at: Instant,
    connection: Option<Connection>,
    host_connection_info: Box<[u8; 256]>,
    next_id: PacketId,
    expected: PacketId,
    phase: Phase,
    sending: Option<Sending>,
    queue: VecDeque<(PacketType, Bytes)>,
    backlog: VecDeque<Content>,
    outbox: VecDeque<(SocketAddr, Vec<u8>)>,
    events: VecDeque<TargetEvent>,
}

impl TargetLink {
    /// A target that has just booted: its first offer goes out at `now`.
    #[must_use]
    pub fn new(now: Instant, config: TargetConfig, mut entropy: Box<dyn Entropy>) -> Self {
        let random = boot_random(&mut *entropy);
        Self {
            control: config.key.control_cipher(),
            config,
            entropy,
            random,
            offer_timer: 0,
            next_offer_at: now,
            connection: None,
            host_connection_info: Box::new([0; 256]),
            next_id: PacketId::FIRST_OF_TARGET,
            expected: PacketId::FIRST_OF_HOST,
            phase: Phase::Running,
            sending: None,
            queue: VecDeque::new(),
            backlog: VecDeque::new(),
            outbox: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Starts anew, as a machine that restarts: another random, no connection, ids from the beginning.
    pub fn reboot(&mut self, now: Instant) {
        let random = boot_random(&mut *self.entropy);
        self.random = random;
        self.offer_timer = 0;
        self.next_offer_at = now;
        self.connection = None;
        *self.host_connection_info = [0; 256];
        self.next_id = PacketId::FIRST_OF_TARGET;
        self.expected = PacketId::FIRST_OF_HOST;
        self.phase = Phase::Running;
        self.sending = None;
        self.queue.clear();
        self.backlog.clear();
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
        let envelope = Envelope::parse(datagram)?;
        if envelope.channel() == Channel::Control {
            let datagram = envelope.open(&self.control)?;
            if datagram.direction == Direction::TargetToHost {
                return Err(DatagramError::OwnDirection);
            }
            match Content::decode(&datagram)? {
                Content::Control(Control::Response(response)) => {
                    self.response(now, from, &datagram, &response)?
                }
                Content::Control(Control::HostPoke) => self.offer(now),
                _ => {}
            }
            return Ok(());
        }
        let connection = self.connection.as_mut().ok_or(DatagramError::NoSession)?;
        let newest = connection.channel.newest_seen();
        let datagram = connection.channel.open(&envelope)?;
        // Windows drops whatever arrives behind a later datagram, gaps or not.
        if datagram.sequence <= newest {
            return Err(DatagramError::Replayed);
        }
        connection.is_heard = true;
        connection.is_absent = false;
        let content = Content::decode(&datagram)?;
        if self.sending.is_some() {
            self.while_sending(now, content);
        } else {
            self.content(now, content);
        }
        Ok(())
    }

    /// Does what is due at `now`: offers, retransmissions.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next_offer_at <= now {
            self.offer(now);
        }
        let Some(sending) = self.sending.as_mut().filter(|it| it.resend_at <= now) else { return };
        sending.retries += 1;
        if sending.retries > PRINT_RETRIES && sending.packet.packet_type == PacketType::DEBUG_IO {
            self.sending = None;
            self.queue.clear();
            if let Some(connection) = &mut self.connection {
                connection.is_absent = true;
            }
            self.events.push_back(TargetEvent::DebuggerAbsent);
            return;
        }
        self.transmit_pending(now);
    }

    /// Stops and announces it: the request loop begins when the host acknowledges.
    pub fn stop(&mut self, now: Instant, change: StateChange) {
        let payload = change.encode();
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
        if self.connection.as_ref().is_some_and(|it| !it.is_absent) {
            self.send(now, PacketType::DEBUG_IO, DebugIo::print(line).encode());
        }
    }

    /// Asks the host something and waits for its answer: a prompt or a file request.
    pub fn ask(&mut self, now: Instant, payload: &Payload) {
        self.phase = Phase::AwaitingAnswer(payload.packet_type());
        self.send(now, payload.packet_type(), payload.encode());
    }

    /// The next datagram to send, written into `datagram`, and where to.
    pub fn poll_transmit(&mut self, datagram: &mut BytesMut) -> Option<SocketAddr> {
        let (to, sealed) = self.outbox.pop_front()?;
        datagram.clear();
        datagram.extend_from_slice(&sealed);
        Some(to)
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<TargetEvent> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        self.sending.as_ref().map_or(self.next_offer_at, |it| it.resend_at.min(self.next_offer_at))
    }

    /// True while the machine runs: not stopped, and no packet of it waits for an acknowledgement.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running) && self.sending.is_none()
    }

    /// True while the machine is stopped for its debugger.
    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        matches!(self.phase, Phase::RequestLoop(_) | Phase::Executing(_))
    }

    /// The debugger that answered last.
    #[must_use]
    pub fn connected_host(&self) -> Option<SocketAddr> {
        self.connection.as_ref().map(|it| it.host)
    }

    fn offer(&mut self, now: Instant) {
        self.next_offer_at = now + OFFER_INTERVAL;
        self.offer_timer += OFFER_TIMER_STEP;
        self.random.counter = self.random.counter.wrapping_add(1);
        let connected_host = self.connection.as_ref().map_or(Endpoint::NONE, |it| it.host.into());
        let offer = Offer {
            target_random: self.random,
            target: self.config.address.into(),
            configured_host: self.config.host.into(),
            connected_host,
            host_connection_info: self.host_connection_info.clone(),
        };
        let datagram = Datagram {
            version: self.config.version,
            flags: Flags::CONTROL,
            direction: Direction::TargetToHost,
            sequence: self.offer_timer,
            body: Control::Offer(offer).encode(),
        };
        self.outbox.push_back((self.config.host, datagram.seal(&self.control)));
        if self.connection.as_ref().is_some_and(|it| !it.is_heard) {
            self.ping();
        }
    }

    fn response(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &Datagram,
        response: &Response,
    ) -> Result<(), DatagramError> {
        let age = self.offer_timer.wrapping_sub(datagram.sequence);
        if response.target_random.boot != self.random.boot || !(age == 0 || age == OFFER_TIMER_STEP) {
            return Err(DatagramError::Replayed);
        }
        let cipher = self.config.key.data_cipher(&datagram.body);
        let channel = DataChannel::new(cipher, self.config.version, Direction::TargetToHost);
        self.host_connection_info = response.host_connection_info.clone();
        self.connection = Some(Connection { channel, host: from, is_heard: false, is_absent: false });
        self.events.push_back(TargetEvent::Connected(from));
        self.ping();
        if self.sending.is_some() {
            self.transmit_pending(now);
        }
        Ok(())
    }

    fn ping(&mut self) {
        let Some(connection) = &self.connection else { return };
        let host = match connection.host.ip().to_canonical() {
            IpAddr::V4(ip) => ip,
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        };
        let last_host_sequence = connection.channel.newest_seen();
        self.seal(&Content::Ping(Ping { last_host_sequence, host }));
    }

    fn seal(&mut self, content: &Content) {
        if let Some(connection) = &mut self.connection {
            let sealed = connection.channel.seal(content);
            self.outbox.push_back((connection.host, sealed));
        }
    }

    fn send_control(&mut self, packet_type: PacketType, id: PacketId) {
        self.seal(&Content::Kd(Packet::control(packet_type, id)));
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
        self.next_id = self.next_id.next();
        self.sending = Some(Sending { packet, resend_at: now, retries: 0 });
        self.transmit_pending(now);
    }

    fn transmit_pending(&mut self, now: Instant) {
        if let Some(sending) = &mut self.sending {
            sending.resend_at = now + RETRANSMIT_INTERVAL;
            let content = Content::Kd(sending.packet.clone());
            self.seal(&content);
        }
    }

    /// Takes what arrives while a packet of ours is unacknowledged.
    fn while_sending(&mut self, now: Instant, content: Content) {
        let Some(own_id) = self.sending.as_ref().map(|it| it.packet.id) else { return };
        let Content::Kd(packet) = content else { return self.transmit_pending(now) };
        match (packet.is_control, packet.packet_type) {
            (true, PacketType::ACKNOWLEDGE) if packet.id == own_id => self.acknowledged(now),
            (true, PacketType::RESET) => {
                self.expected = packet.id;
                self.send_control(PacketType::RESET, own_id);
                self.transmit_pending(now);
            }
            (true, PacketType::RESEND) => self.transmit_pending(now),
            (true, _) => {}
            (false, _) if packet.id == self.expected || packet.id.is_after(self.expected) => {
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
            Phase::AwaitingAnswer(packet_type) => {
                let awaited = *packet_type;
                self.awaiting_answer(content, awaited);
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
                self.expected = packet.id;
                self.send_control(PacketType::RESET, self.next_id);
                self.send(now, PacketType::STATE_CHANGE64, announcement);
            }
            (true, PacketType::RESEND) => self.send(now, PacketType::STATE_CHANGE64, announcement),
            (true, _) => {}
            (false, PacketType::STATE_MANIPULATE) => {
                let Ok(request) = Manipulate::decode(&packet.payload) else {
                    return self.send_control(PacketType::RESEND, PacketId(0));
                };
                self.send_control(PacketType::ACKNOWLEDGE, packet.id);
                self.expected = packet.id.next();
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

    fn awaiting_answer(&mut self, content: Content, awaited: PacketType) {
        let Content::Kd(packet) = content else { return };
        if packet.is_control {
            return;
        }
        let event = match Payload::decode(&packet) {
            Ok(Payload::DebugIo(io)) if packet.packet_type == awaited => TargetEvent::PromptAnswer(io),
            Ok(Payload::FileIo(file)) if packet.packet_type == awaited => TargetEvent::FileAnswer(file),
            _ => return self.send_control(PacketType::RESEND, PacketId(0)),
        };
        self.send_control(PacketType::ACKNOWLEDGE, packet.id);
        self.expected = packet.id.next();
        self.phase = Phase::Running;
        self.events.push_back(event);
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

fn boot_random(entropy: &mut dyn Entropy) -> TargetRandom {
    let mut counter = [0; 8];
    let mut boot = [0; 24];
    entropy.fill(&mut counter);
    entropy.fill(&mut boot);
    TargetRandom { counter: u64::from_le_bytes(counter), boot }
}
