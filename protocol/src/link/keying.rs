//! The host's side of keying: which offers to answer, and which data key is in force.
//!
//! ```text
//!   offer --> answer: a candidate key        (a response can be lost or late, so the last few are kept)
//!   data datagram opens under a candidate --> that candidate is proven: it is the session
//! ```
//!
//! The session in force stays until another key is proven, so that neither a replayed offer nor a lost response
//! can break a working link. Source: PROTOCOL.md 5.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::channel::DataChannel;
use super::content::Content;
use super::entropy::Entropy;
use super::event::KdnetPeer;
use crate::kdnet::{
    Cipher, Control, Datagram, DatagramError, Direction, Endpoint, Envelope, Flags, Key, Response,
    TargetRandom,
};

/// Answers that may still be on their way.
const CANDIDATES: usize = 3;

/// Datagrams of the target in a row that open under no key, after which the keys are taken to differ.
const LOST_KEY_SIGNS: u32 = 3;

/// Datagrams in a row under an older answer's key, after which the target is believed to use it: one may just be late.
const OLD_KEY_USES: u32 = 3;

/// A target offers every 3 s, whatever it does: one that was silent for longer than twice that is gone, or stands still.
const GONE_AFTER: Duration = Duration::from_secs(7);

/// What an authentic offer led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OfferOutcome {
    /// Send this to where the offer came from: a candidate key was made.
    Answer(Vec<u8>),
    /// A connected target's sign of life.
    KeepAlive,
    /// The target is connected to this debugger, which is not us.
    TakenOver(Endpoint),
}

/// Which key a data datagram proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// The session in force.
    Current,
    /// The first session of this link.
    First,
    /// A new key of the same boot: the debug session goes on.
    Rekeyed,
    /// A new key of another boot: nothing of the old session is true any more.
    Restarted,
}

#[derive(Debug)]
struct Session {
    channel: DataChannel,
    peer: KdnetPeer,
    random: TargetRandom,
    /// What the target's offers call us; learned from the first one after keying.
    own_name: Option<Endpoint>,
    /// Datagrams in a row that opened under this candidate.
    uses: u32,
    /// When something authentic of it came.
    heard_at: Instant,
}

impl Session {
    /// The machine offers itself, or did so a moment ago.
    fn is_there(&self, now: Instant, is_busy: bool) -> bool {
        is_busy || now < self.heard_at + GONE_AFTER
    }
}

#[derive(Debug)]
pub(super) struct HostKeying {
    key: Key,
    control: Cipher,
    session: Option<Session>,
    candidates: VecDeque<Session>,
    /// Data datagrams of the target's machine, one after another, that open under no key.
    strangers: u32,
    /// The target is at work on something slow, and may say nothing meanwhile.
    is_busy: bool,
}

impl HostKeying {
    pub(super) fn new(key: Key) -> Self {
        let control = key.control_cipher();
        Self { key, control, session: None, candidates: VecDeque::new(), strangers: 0, is_busy: false }
    }

    /// The target of the session in force.
    pub(super) fn peer(&self) -> Option<KdnetPeer> {
        self.session.as_ref().map(|session| session.peer)
    }

    /// Where an answer is on its way to, while no key is proven.
    pub(super) fn unproven_peer(&self) -> Option<KdnetPeer> {
        self.candidates.back().map(|candidate| candidate.peer)
    }

    /// Opens a control datagram.
    pub(super) fn open_control(&self, envelope: &Envelope<'_>) -> Result<Datagram, DatagramError> {
        let datagram = envelope.open(&self.control)?;
        if datagram.direction == Direction::HostToTarget {
            return Err(DatagramError::OwnDirection);
        }
        Ok(datagram)
    }

    /// Seals a message that asks a target for an offer.
    pub(super) fn seal_poke(&self, peer: KdnetPeer) -> Vec<u8> {
        self.seal_control(peer.version, 0, &Control::HostPoke)
    }

    /// The target works on something slow, or does not any more.
    pub(super) const fn set_busy(&mut self, is_busy: bool) {
        self.is_busy = is_busy;
    }

    /// Decides about an authentic offer. `connected` is the debugger that it names, if it is known where it would.
    pub(super) fn offer(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &Datagram,
        random: TargetRandom,
        connected: Option<Endpoint>,
        entropy: &mut dyn Entropy,
    ) -> Result<OfferOutcome, DatagramError> {
        let is_there = self.session.as_ref().is_some_and(|it| it.is_there(now, self.is_busy));
        let mut known = self.session.iter().chain(&self.candidates);
        let was_seen = known.any(|it| it.random.boot == random.boot && it.random.counter >= random.counter);
        // Answered before: a duplicate, or overtaken on the way. Answering again would rekey a live session. A machine that
        // went back to an earlier state of itself counts from there.
        if was_seen && (is_there || self.session.is_none()) {
            return Err(DatagramError::Replayed);
        }
        if let Some(session) = &mut self.session {
            if canonical_ip(session.peer.address) != canonical_ip(from) {
                return Err(DatagramError::WrongPeer);
            }
            let is_same_boot = session.random.boot == random.boot;
            if !is_same_boot && is_there && session.peer.address != from {
                return Err(DatagramError::SecondTarget);
            }
            let is_connected = connected.is_none_or(|it| it.port != 0) && is_same_boot;
            // One that was seen proves nothing by itself: its answer has to.
            if is_connected && !was_seen && self.strangers < LOST_KEY_SIGNS {
                session.random.counter = random.counter;
                session.heard_at = now;
                let Some(connected) = connected else { return Ok(OfferOutcome::KeepAlive) };
                let own_name = *session.own_name.get_or_insert(connected);
                return Ok(if own_name == connected {
                    OfferOutcome::KeepAlive
                } else {
                    OfferOutcome::TakenOver(connected)
                });
            }
            if is_same_boot && !was_seen {
                session.heard_at = now;
            }
        }
        let mut host_random = [0; 32];
        entropy.fill(&mut host_random);
        let body = Control::Response(Response::to(random, host_random)).encode();
        let channel =
            DataChannel::new(self.key.data_cipher(&body), datagram.version, Direction::HostToTarget);
        let peer = KdnetPeer { address: from, version: datagram.version };
        self.add_candidate(Session { channel, peer, random, own_name: None, uses: 0, heard_at: now });
        Ok(OfferOutcome::Answer(self.seal_control_body(datagram.version, datagram.sequence, body)))
    }

    fn add_candidate(&mut self, candidate: Session) {
        if self.candidates.len() == CANDIDATES {
            self.candidates.pop_front();
        }
        self.candidates.push_back(candidate);
    }

    /// Opens a data datagram under the session in force, or else under a candidate, which is proven thereby.
    pub(super) fn open_data(
        &mut self,
        now: Instant,
        from: SocketAddr,
        envelope: &Envelope<'_>,
    ) -> Result<(Datagram, Proof), DatagramError> {
        let mut reason = DatagramError::NoSession;
        if let Some(session) = &mut self.session {
            match session.channel.open(envelope) {
                Ok(datagram) => {
                    // A target behind NAT may change its port in mid-session.
                    session.peer.address = from;
                    session.heard_at = now;
                    self.strangers = 0;
                    self.candidates.iter_mut().for_each(|it| it.uses = 0);
                    return Ok((datagram, Proof::Current));
                }
                Err(DatagramError::NotAuthentic) => reason = DatagramError::NotAuthentic,
                Err(error) => return Err(error),
            }
        }
        for index in (0..self.candidates.len()).rev() {
            let candidate = &mut self.candidates[index];
            let Ok(datagram) = candidate.channel.open(envelope) else { continue };
            let is_second = self.session.as_ref().is_some_and(|it| {
                it.random.boot != candidate.random.boot
                    && it.peer.address != from
                    && it.is_there(now, self.is_busy)
            });
            if is_second {
                // It was answered before the first was heard, or while that was silent.
                return Err(DatagramError::SecondTarget);
            }
            candidate.uses += 1;
            candidate.heard_at = now;
            let is_older = self.session.as_ref().is_some_and(|it| {
                it.random.boot == candidate.random.boot
                    && it.random.counter > candidate.random.counter
                    && it.is_there(now, self.is_busy)
            });
            if is_older && candidate.uses < OLD_KEY_USES {
                return Ok((datagram, Proof::Current));
            }
            let proven = self.candidates.remove(index).expect("the index is in range");
            self.strangers = 0;
            let proof = match &self.session {
                None => Proof::First,
                Some(old) if old.random.boot == proven.random.boot => Proof::Rekeyed,
                Some(_) => Proof::Restarted,
            };
            // The other keys stay candidates, the replaced one too: a response that was delayed on its way rekeys
            // the target whenever it arrives.
            let replaced = self.session.replace(proven);
            if proof == Proof::Restarted {
                self.candidates.clear();
            } else if let Some(replaced) = replaced {
                self.add_candidate(Session { uses: 0, ..replaced });
            }
            return Ok((datagram, proof));
        }
        if self.session.as_ref().is_some_and(|it| canonical_ip(it.peer.address) == canonical_ip(from)) {
            self.strangers = self.strangers.saturating_add(1);
        }
        Err(reason)
    }

    /// Says that the session's target does not react to what is sent under its key.
    pub(super) const fn doubt_key(&mut self) {
        self.strangers = LOST_KEY_SIGNS;
    }

    /// True if the target seems to use a key that was lost on the way: its next offer is answered then.
    pub(super) const fn has_lost_key(&self) -> bool {
        self.strangers >= LOST_KEY_SIGNS
    }

    /// Seals for the session in force.
    pub(super) fn seal_data(&mut self, content: &Content) -> Option<(SocketAddr, Vec<u8>)> {
        let session = self.session.as_mut()?;
        Some((session.peer.address, session.channel.seal(content)))
    }

    fn seal_control(&self, version: u8, sequence: u64, message: &Control) -> Vec<u8> {
        self.seal_control_body(version, sequence, message.encode())
    }

    fn seal_control_body(&self, version: u8, sequence: u64, body: bytes::Bytes) -> Vec<u8> {
        let direction = Direction::HostToTarget;
        Datagram { version, flags: Flags::CONTROL, direction, sequence, body }.seal(&self.control)
    }
}

/// The address without its IPv6 mapping: a dual-stack socket reports `::ffff:a.b.c.d`.
fn canonical_ip(address: SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}
