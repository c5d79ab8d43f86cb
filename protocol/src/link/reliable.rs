//! The host's reliable exchange: ids, acknowledgements, retransmission. One data packet in flight.
//!
//! ```text
//!   request id=n  ------------>          lost: sent again, same id, after the measured round trip
//!                 <------------  ACK n
//!                 <------------  reply   lost: the request sent again makes the target repeat it
//!   ACK reply     ------------>          lost: the target repeats its reply, or asks with RESEND
//! ```
//!
//! Hands packets down, never sealed bytes: a retransmission keeps its id and takes a new KDNET sequence.
//! Source: PROTOCOL.md 7.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::round_trip::RoundTrip;
use super::{RequestError, RequestId};
use crate::kd::{Manipulate, Packet, PacketId, PacketType};

/// Silent transmissions after which a RESET goes before the next: the two sides may disagree on the ids.
const TRIES_BEFORE_RESET: u32 = 8;
/// Silent transmissions after which a continue counts as obeyed: a running target does not acknowledge.
const CONTINUE_TRIES: u32 = 12;

/// What a data packet in flight waits for.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// A reply to this request, or only an acknowledgement where there is no reply.
    Request(RequestId, Box<Manipulate>),
    /// Only an acknowledgement: the target runs then.
    Continue,
    /// Only an acknowledgement: an answer to a prompt or file request.
    Answer,
}

#[derive(Clone, Debug)]
struct Outgoing {
    purpose: Purpose,
    packet_type: PacketType,
    payload: Bytes,
    timeout: Duration,
    /// The target says nothing until it is done, so that silence after the acknowledgement means nothing.
    is_slow: bool,
}

#[derive(Debug)]
struct InFlight {
    outgoing: Outgoing,
    id: PacketId,
    acknowledged: bool,
    tries: u32,
    first_sent: Instant,
    last_sent: Instant,
    retransmit_at: Instant,
}

impl InFlight {
    /// When it is given up, whatever the target says until then.
    fn deadline(&self) -> Instant {
        self.first_sent + self.outgoing.timeout
    }
}

/// What became of the packet in flight.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Acknowledged, and nothing more to come. Not confirmed: presumed, see [`CONTINUE_TRIES`].
    Done(Purpose, Confirmed),
    /// Given up.
    Failed(Purpose, RequestError),
}

/// Whether the target itself said so.
pub(super) type Confirmed = bool;

#[derive(Debug)]
pub(super) struct Reliable {
    next_id: PacketId,
    /// The newest data packet of the target; `None` accepts any.
    newest_seen: Option<PacketId>,
    in_flight: Option<InFlight>,
    queue: VecDeque<Outgoing>,
    round_trip: RoundTrip,
    /// RESETs of ours that are unanswered: as many of the target's are answers, which must not be answered.
    resets_pending: u32,
    outbox: VecDeque<Packet>,
    retransmissions: u64,
}

impl Reliable {
    pub(super) fn new() -> Self {
        Self {
            next_id: PacketId::FIRST_OF_HOST,
            newest_seen: None,
            in_flight: None,
            queue: VecDeque::new(),
            round_trip: RoundTrip::default(),
            resets_pending: 0,
            outbox: VecDeque::new(),
            retransmissions: 0,
        }
    }

    /// Forgets everything but the measured round trip; returns what was pending.
    pub(super) fn restart(&mut self) -> Vec<Purpose> {
        let fresh =
            Self { round_trip: self.round_trip, retransmissions: self.retransmissions, ..Self::new() };
        let old = std::mem::replace(self, fresh);
        old.in_flight.map(|it| it.outgoing).into_iter().chain(old.queue).map(|it| it.purpose).collect()
    }

    /// Queues a manipulate request.
    pub(super) fn request(
        &mut self,
        now: Instant,
        purpose: Purpose,
        request: &Manipulate,
        timeout: Duration,
    ) {
        let outgoing = Outgoing {
            purpose,
            packet_type: PacketType::STATE_MANIPULATE,
            payload: request.encode(),
            timeout,
            is_slow: request.api_number.is_slow(),
        };
        self.submit(now, outgoing);
    }

    /// Sends an answer to a prompt or file request.
    ///
    /// A target waits for one answer at a time: an earlier one that is still on its way has no more reader.
    pub(super) fn answer(
        &mut self,
        now: Instant,
        packet_type: PacketType,
        payload: Bytes,
        timeout: Duration,
    ) {
        self.forget(|purpose| matches!(purpose, Purpose::Answer));
        self.submit(
            now,
            Outgoing { purpose: Purpose::Answer, packet_type, payload, timeout, is_slow: false },
        );
    }

    fn submit(&mut self, now: Instant, outgoing: Outgoing) {
        // A target that waits for an answer accepts nothing else first.
        if matches!(outgoing.purpose, Purpose::Answer) {
            self.queue.push_front(outgoing);
        } else {
            self.queue.push_back(outgoing);
        }
        self.start_next(now);
    }

    fn start_next(&mut self, now: Instant) {
        if self.in_flight.is_some() {
            return;
        }
        let Some(outgoing) = self.queue.pop_front() else { return };
        let id = self.next_id;
        self.next_id = id.next();
        let mut in_flight = InFlight {
            outgoing,
            id,
            acknowledged: false,
            tries: 0,
            first_sent: now,
            last_sent: now,
            retransmit_at: now,
        };
        transmit(&mut in_flight, now, &self.round_trip, &mut self.outbox);
        self.in_flight = Some(in_flight);
    }

    /// Asks the target to agree on ids anew.
    pub(super) fn send_reset(&mut self) {
        let id = self.in_flight.as_ref().map_or(self.next_id, |it| it.id);
        self.resets_pending += 1;
        self.outbox.push_back(Packet::control(PacketType::RESET, id));
    }

    /// Asks the target to send its last packet again.
    pub(super) fn send_resend(&mut self) {
        self.outbox.push_back(Packet::control(PacketType::RESEND, PacketId(0)));
    }

    /// Takes a data packet of the target: acknowledges it, and says whether it is new.
    pub(super) fn accept(&mut self, id: PacketId) -> bool {
        self.outbox.push_back(Packet::control(PacketType::ACKNOWLEDGE, id));
        let is_new = self.newest_seen.is_none_or(|newest| id.is_after(newest));
        if is_new {
            self.newest_seen = Some(id);
        }
        is_new
    }

    /// Takes a control packet of the target.
    pub(super) fn control(&mut self, now: Instant, packet: &Packet) -> Option<Outcome> {
        match packet.packet_type {
            PacketType::ACKNOWLEDGE => return self.acknowledged(now, packet.id),
            PacketType::RESEND => self.retransmit(now),
            PacketType::RESET => {
                self.newest_seen = Some(PacketId(packet.id.0.wrapping_sub(2)));
                match self.resets_pending.checked_sub(1) {
                    Some(fewer) => self.resets_pending = fewer,
                    None => self.send_reset(),
                }
                self.retransmit(now);
            }
            _ => {}
        }
        None
    }

    fn acknowledged(&mut self, now: Instant, id: PacketId) -> Option<Outcome> {
        let in_flight = self.in_flight.as_mut().filter(|it| it.id == id)?;
        if in_flight.tries == 1 && !in_flight.acknowledged {
            self.round_trip.measure(now - in_flight.last_sent);
        }
        in_flight.acknowledged = true;
        match in_flight.outgoing.purpose {
            Purpose::Request(_, ref request) if request.api_number.has_reply() => {
                in_flight.retransmit_at = if in_flight.outgoing.is_slow {
                    in_flight.deadline()
                } else {
                    (now + self.round_trip.wait_after(in_flight.tries)).min(in_flight.deadline())
                };
                None
            }
            _ => self.finish(now, true),
        }
    }

    /// The id of the request that `reply` answers; it is done then.
    pub(super) fn replied(&mut self, now: Instant, reply: &Manipulate) -> Option<RequestId> {
        let in_flight = self.in_flight.as_ref()?;
        let Purpose::Request(id, request) = &in_flight.outgoing.purpose else { return None };
        if !reply.answers(request) {
            return None;
        }
        let id = *id;
        if in_flight.tries == 1 && !in_flight.outgoing.is_slow {
            self.round_trip.measure(now - in_flight.last_sent);
        }
        self.finish(now, true);
        Some(id)
    }

    /// Ends the continue that is on its way, if one is: the target sent what only a running one sends.
    pub(super) fn continued(&mut self, now: Instant) -> bool {
        let ended = self.forget(|purpose| matches!(purpose, Purpose::Continue));
        self.start_next(now);
        !ended.is_empty()
    }

    /// True while a continue is on its way or waits behind requests.
    pub(super) fn is_continuing(&self) -> bool {
        self.outgoing().any(|it| matches!(it.purpose, Purpose::Continue))
    }

    /// True while something is pending that ends the stop: what came behind it would meet a running target.
    pub(super) fn ends_stop(&self) -> bool {
        self.outgoing().any(|it| match &it.purpose {
            Purpose::Request(_, request) => request.api_number.ends_stop(),
            Purpose::Continue => true,
            Purpose::Answer => false,
        })
    }

    fn outgoing(&self) -> impl Iterator<Item = &Outgoing> {
        self.in_flight.iter().map(|it| &it.outgoing).chain(&self.queue)
    }

    /// Gives up every request: the target has left the loop in which it would answer them.
    pub(super) fn give_up_requests(&mut self, now: Instant) -> Vec<Purpose> {
        let requests = self.forget(|purpose| matches!(purpose, Purpose::Request(..)));
        self.start_next(now);
        requests
    }

    /// Takes out what `is_unwanted`, in flight or waiting, and sends nothing in its place.
    fn forget(&mut self, is_unwanted: impl Fn(&Purpose) -> bool) -> Vec<Purpose> {
        let in_flight = self.in_flight.take_if(|it| is_unwanted(&it.outgoing.purpose)).map(|it| it.outgoing);
        let (unwanted, kept) =
            std::mem::take(&mut self.queue).into_iter().partition(|it| is_unwanted(&it.purpose));
        let unwanted: VecDeque<Outgoing> = unwanted;
        self.queue = kept;
        in_flight.into_iter().chain(unwanted).map(|it| it.purpose).collect()
    }

    fn finish(&mut self, now: Instant, confirmed: Confirmed) -> Option<Outcome> {
        let done = self.in_flight.take()?;
        self.start_next(now);
        Some(Outcome::Done(done.outgoing.purpose, confirmed))
    }

    fn retransmit(&mut self, now: Instant) {
        if let Some(in_flight) = &mut self.in_flight {
            self.retransmissions += 1;
            transmit(in_flight, now, &self.round_trip, &mut self.outbox);
        }
    }

    /// Sends again, or gives up, what has waited long enough.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<Outcome> {
        let in_flight = self.in_flight.as_mut().filter(|it| it.retransmit_at <= now)?;
        let waited = now - in_flight.first_sent;
        let is_continue = matches!(in_flight.outgoing.purpose, Purpose::Continue);
        if is_continue && in_flight.tries >= CONTINUE_TRIES {
            return self.finish(now, false);
        }
        if waited >= in_flight.outgoing.timeout {
            let error = RequestError::NoAnswer { after: waited, tries: in_flight.tries };
            let failed = self.in_flight.take()?;
            self.start_next(now);
            return Some(Outcome::Failed(failed.outgoing.purpose, error));
        }
        // A RESET makes a stopped target announce its stop again, which a continue must not cause.
        if in_flight.tries.is_multiple_of(TRIES_BEFORE_RESET) && !is_continue {
            self.send_reset();
        }
        self.retransmit(now);
        None
    }

    /// How often the packet in flight was sent without ever being acknowledged.
    pub(super) fn unheard_tries(&self) -> u32 {
        self.in_flight.as_ref().filter(|it| !it.acknowledged).map_or(0, |it| it.tries)
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.in_flight.as_ref().map(|it| it.retransmit_at)
    }

    /// The next packet to seal and send.
    pub(super) fn poll_transmit(&mut self) -> Option<Packet> {
        self.outbox.pop_front()
    }

    /// Data packets sent more than once.
    pub(super) const fn retransmissions(&self) -> u64 {
        self.retransmissions
    }
}

fn transmit(in_flight: &mut InFlight, now: Instant, round_trip: &RoundTrip, outbox: &mut VecDeque<Packet>) {
    let Outgoing { packet_type, payload, .. } = &in_flight.outgoing;
    outbox.push_back(Packet::data(*packet_type, in_flight.id, payload.clone()));
    in_flight.tries += 1;
    in_flight.last_sent = now;
    in_flight.retransmit_at = (now + round_trip.wait_after(in_flight.tries)).min(in_flight.deadline());
}
