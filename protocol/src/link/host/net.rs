//! KDNET's part of the debugger's end: offers, keys, and getting another offer out of a target that lost its key.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::repeated::Repeated;
use crate::kd::Packet;
use crate::kdnet::{Channel, Control, Datagram, DatagramError, Endpoint, Envelope, Flags, Key};
use crate::link::content::Content;
use crate::link::entropy::Entropy;
use crate::link::event::KdnetPeer;
use crate::link::keying::{HostKeying, OfferOutcome, Proof};

/// An answered offer should be followed by a ping; after this long the host asks for another offer.
const POKE_INTERVAL: Duration = Duration::from_millis(500);
/// Pokes without an answer, after which the target's own offers are waited for.
const POKES: u32 = 4;

/// Different things of one kind that an owner is told of at the most.
const TOLD: usize = 16;

/// What a datagram was.
pub(super) enum Opened {
    /// Dealt with here.
    Control,
    /// An offer of the connected target, and whether it says that the target is in its debugger.
    SignOfLife { in_debugger: bool },
    /// The target's offers name another debugger.
    TakenOver(Endpoint),
    /// An offer was answered that this crate has no description of: its version and length.
    ForeignOffer { version: u8, len: usize },
    /// Data, and which key it proved.
    Data(Datagram, Proof),
}

/// Keys, and what is on its way to the target.
pub(super) struct NetWire {
    keying: HostKeying,
    entropy: Box<dyn Entropy>,
    poke: Option<Repeated>,
    control_outbox: VecDeque<(SocketAddr, Vec<u8>)>,
    data_outbox: VecDeque<Content>,
    taken_over: bool,
    /// Second machines that were told of.
    seconds: Vec<SocketAddr>,
    /// Versions and lengths of offers that were told of.
    foreign_offers: Vec<(u8, usize)>,
}

impl NetWire {
    pub(super) fn new(key: Key, entropy: Box<dyn Entropy>) -> Self {
        Self {
            keying: HostKeying::new(key),
            entropy,
            poke: None,
            control_outbox: VecDeque::new(),
            data_outbox: VecDeque::new(),
            taken_over: false,
            seconds: Vec::new(),
            foreign_offers: Vec::new(),
        }
    }

    /// The target of the session in force.
    pub(super) fn peer(&self) -> Option<KdnetPeer> {
        self.keying.peer()
    }

    pub(super) fn receive(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<Opened, DatagramError> {
        let envelope = Envelope::parse(datagram)?;
        if envelope.channel() == Channel::Control {
            return self.control(now, from, &envelope);
        }
        match self.keying.open_data(now, from, &envelope) {
            Ok((datagram, proof)) => {
                if proof != Proof::Current {
                    self.poke = None;
                    self.taken_over = false;
                }
                Ok(Opened::Data(datagram, proof))
            }
            Err(error) => {
                if error == DatagramError::NoSession || self.keying.has_lost_key() {
                    // A target in mid-session, but not with us or not with our key: an offer now saves three seconds.
                    self.poke_stranger(now, KdnetPeer { address: from, version: envelope.version });
                }
                Err(error)
            }
        }
    }

    fn control(
        &mut self,
        now: Instant,
        from: SocketAddr,
        envelope: &Envelope<'_>,
    ) -> Result<Opened, DatagramError> {
        let datagram = self.keying.open_control(envelope)?;
        let (random, connected, foreign_len) = match Content::decode(&datagram) {
            Ok(Content::Control(Control::Offer(offer))) => {
                (offer.target_random, Some(offer.connected_host), None)
            }
            Ok(Content::Control(Control::ForeignOffer(offer))) => {
                (offer.target_random, None, Some(offer.body_len()))
            }
            Err(_) if datagram.body.starts_with(&[1, 1]) => {
                return Err(DatagramError::ShortOffer {
                    version: datagram.version,
                    len: datagram.body.len(),
                });
            }
            other => return other.map(|_| Opened::Control).map_err(DatagramError::from),
        };
        match self.keying.offer(now, from, &datagram, random, connected, &mut *self.entropy)? {
            OfferOutcome::Answer(response) => {
                self.control_outbox.push_back((from, response));
                let attempts = self.poke.map_or(0, |poke| poke.attempts);
                self.poke = Some(Repeated { next_at: now + POKE_INTERVAL, attempts });
                let version = datagram.version;
                if let Some(len) = foreign_len
                    && tell_once(&mut self.foreign_offers, (version, len))
                {
                    return Ok(Opened::ForeignOffer { version, len });
                }
            }
            OfferOutcome::TakenOver(by) if !std::mem::replace(&mut self.taken_over, true) => {
                return Ok(Opened::TakenOver(by));
            }
            OfferOutcome::KeepAlive => {
                return Ok(Opened::SignOfLife { in_debugger: datagram.flags.contains(Flags::IN_DEBUGGER) });
            }
            OfferOutcome::TakenOver(_) => {}
        }
        Ok(Opened::Control)
    }

    /// True if a second machine at this address was not told of yet.
    pub(super) fn is_new_second(&mut self, address: SocketAddr) -> bool {
        tell_once(&mut self.seconds, address)
    }

    /// The target works on something slow, or does not any more.
    pub(super) const fn set_busy(&mut self, is_busy: bool) {
        self.keying.set_busy(is_busy);
    }

    /// Asks whoever is at `address` for an offer.
    pub(super) fn poke(&mut self, address: SocketAddr, version: u8) {
        let sealed = self.keying.seal_poke(KdnetPeer { address, version });
        self.control_outbox.push_back((address, sealed));
    }

    /// Puts what is no packet on its way.
    pub(super) fn send(&mut self, content: Content) {
        self.data_outbox.push_back(content);
    }

    /// The next datagram to send: what waits here, or else the next packet of `packets`.
    pub(super) fn poll_transmit(
        &mut self,
        mut packets: impl FnMut() -> Option<Packet>,
    ) -> Option<(SocketAddr, Vec<u8>)> {
        loop {
            if let Some(sealed) = self.control_outbox.pop_front() {
                return Some(sealed);
            }
            let content = match self.data_outbox.pop_front() {
                Some(content) => content,
                None => Content::Kd(packets()?),
            };
            // Without a session there is nobody to send to; what matters is sent again by its timer.
            if let Some(sealed) = self.keying.seal_data(&content) {
                return Some(sealed);
            }
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if let Some(poke) = self.poke.filter(|it| it.next_at <= now) {
            self.poke_target(now, poke.attempts);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.poke.map(|it| it.next_at)
    }

    /// Gets an offer out of a target that does not react: it may have been keyed by somebody else.
    pub(super) fn doubt_key(&mut self, now: Instant) {
        if self.poke.is_none()
            && let Some(peer) = self.keying.peer()
        {
            self.keying.doubt_key();
            self.poke_stranger(now, peer);
        }
    }

    /// Asks for another offer, since the answer to the last one led to nothing.
    fn poke_target(&mut self, now: Instant, attempts: u32) {
        self.poke = None;
        let Some(peer) = self.keying.unproven_peer().filter(|_| attempts < POKES) else { return };
        self.control_outbox.push_back((peer.address, self.keying.seal_poke(peer)));
        self.poke = Some(Repeated { next_at: now + POKE_INTERVAL, attempts: attempts + 1 });
    }

    /// Gets a sign of life out of the connected target.
    pub(super) fn poke_peer(&mut self) {
        if let Some(peer) = self.keying.peer() {
            self.control_outbox.push_back((peer.address, self.keying.seal_poke(peer)));
        }
    }

    fn poke_stranger(&mut self, now: Instant, peer: KdnetPeer) {
        if self.poke.is_none() {
            self.control_outbox.push_back((peer.address, self.keying.seal_poke(peer)));
            self.poke = Some(Repeated { next_at: now + POKE_INTERVAL, attempts: POKES });
        }
    }
}

/// True the first time that `what` is there, as long as there is room.
fn tell_once<T: PartialEq>(told: &mut Vec<T>, what: T) -> bool {
    let is_new = told.len() < TOLD && !told.contains(&what);
    if is_new {
        told.push(what);
    }
    is_new
}
