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
//!
//! The same over both carriers; where their rules differ, [`Dialect`] and [`Agreement`] say how. Over KDNET a request sent
//! again makes the target repeat a lost reply. Over a stream it makes the target believe that its reply arrived, or its next
//! stop; so nothing is sent twice there, and whatever is missing is asked for with RESET. Source: PROTOCOL.md 7 and 14.

mod unread;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::agreement::{Agreement, Due};
use super::damage::Damage;
use super::dialect::Dialect;
use super::event::{RequestError, RequestId};
use super::in_flight::{InFlight, Outgoing, Purpose};
use super::round_trip::RoundTrip;
use crate::kd::{Manipulate, Packet, PacketId, PacketType, Payload};

/// Silent transmissions after which a RESET goes before the next: the two sides may disagree on the ids.
const TRIES_BEFORE_RESET: u32 = 8;
/// A continue is sent again at least this often over KDNET: a machine stands still for it.
const CONTINUE_INTERVAL: Duration = Duration::from_millis(100);

/// What became of the packet in flight.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Acknowledged, and nothing more to come.
    Done(Purpose),
    /// Given up.
    Failed(Purpose, RequestError),
}

/// What a data packet of the target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    New,
    /// Seen before.
    Repeat,
    /// The first of a target that has begun to count anew: nothing that was sent to it before is known to it.
    Anew,
    /// Its id cannot be right, or says alone that the target has begun anew. It is asked for again, and not acknowledged.
    Doubtful,
}

#[derive(Debug)]
pub(super) struct Reliable {
    dialect: Dialect,
    next_id: PacketId,
    /// The newest data packet of the target; `None` accepts any.
    newest_seen: Option<PacketId>,
    /// Its content: a stream's ids tell a packet from the one before it, and from no other.
    newest_content: Option<(PacketType, Bytes)>,
    agreement: Agreement,
    /// What the last data packet had in it, if that said that the target has begun anew and nothing else did.
    seems_anew: Option<(PacketType, Bytes)>,
    /// The same of one that nothing could be made of.
    seems_strange: Option<(PacketType, Bytes)>,
    in_flight: Option<InFlight>,
    queue: VecDeque<Outgoing>,
    /// Until the ACK.
    round_trip: RoundTrip,
    /// Until the reply: behind a bridge there is a slow line between the two.
    until_reply: RoundTrip,
    /// The same of searches and fills.
    until_slow_reply: RoundTrip,
    /// A reply that came when its request had been sent more than once, and how long after the first time that was.
    reply_after_repeat: Option<(PacketId, Duration)>,
    /// RESETs of ours that are unanswered: as many of the target's are answers, which must not be answered.
    resets_pending: u32,
    damage: Damage,
    outbox: VecDeque<Packet>,
    retransmissions: u64,
    /// Break-ins that went out.
    break_ins: u64,
    /// As many of them are over: the target has taken something that was first sent behind them, and drops what was sent
    /// before. Over KDNET only.
    break_ins_over: u64,
}

impl Reliable {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            next_id: dialect.first_of_host(),
            newest_seen: None,
            newest_content: None,
            agreement: match dialect {
                Dialect::Kdnet => Agreement::AGREED,
                Dialect::Kdcom => Agreement::OPEN,
            },
            seems_anew: None,
            seems_strange: None,
            in_flight: None,
            queue: VecDeque::new(),
            round_trip: RoundTrip::new(dialect.bounds()),
            until_reply: RoundTrip::new(dialect.bounds_of_replies()),
            until_slow_reply: RoundTrip::new(Dialect::bounds_of_slow_replies()),
            reply_after_repeat: None,
            resets_pending: 0,
            damage: Damage::default(),
            outbox: VecDeque::new(),
            retransmissions: 0,
            break_ins: 0,
            break_ins_over: 0,
        }
    }

    /// Forgets everything but the measured round trip; returns what was pending.
    pub(super) fn restart(&mut self) -> Vec<Purpose> {
        let fresh = Self {
            round_trip: self.round_trip,
            until_reply: self.until_reply,
            until_slow_reply: self.until_slow_reply,
            retransmissions: self.retransmissions,
            ..Self::new(self.dialect)
        };
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
        if let Some(outgoing) = self.queue.pop_front() {
            self.put_in_flight(now, outgoing, now);
        }
    }

    /// `since`: when it was sent first, perhaps in another form. Its patience counts from there.
    fn put_in_flight(&mut self, now: Instant, outgoing: Outgoing, since: Instant) {
        let id = self.next_id;
        self.next_id = self.dialect.next(id);
        self.in_flight = Some(InFlight::new(since, outgoing, id));
        if self.agreement.is_agreed() {
            self.release(now);
        } else {
            self.agree(now);
        }
    }

    /// Sees to it that both sides agree on ids.
    pub(super) fn agree(&mut self, now: Instant) {
        if !self.agreement.is_agreed() && self.agreement.ask(now) {
            self.send_reset_packet();
        }
    }

    /// Asks the target to agree on ids anew.
    pub(super) fn send_reset(&mut self) {
        self.resets_pending += 1;
        self.send_reset_packet();
    }

    fn send_reset_packet(&mut self) {
        let next = self.in_flight.as_ref().map_or(self.next_id, |it| it.id);
        self.outbox.push_back(Packet::control(PacketType::RESET, self.dialect.reset(next)));
    }

    /// A break-in goes out, before what [`Self::poll_transmit`] has not handed out yet.
    pub(super) const fn break_in_sent(&mut self) {
        self.break_ins += 1;
    }

    /// True if a break-in may reach the target yet. A target drops what was sent before the newest thing that it took.
    pub(super) const fn has_stray_break_in(&self) -> bool {
        self.break_ins != self.break_ins_over
    }

    /// No break-in that went out can be obeyed any more, as far as anybody can tell.
    pub(super) const fn forget_break_ins(&mut self) {
        self.break_ins_over = self.break_ins;
    }

    /// Sends what means nothing to any target, and makes it drop every break-in that went out before.
    pub(super) fn overtake_break_ins(&mut self) {
        // A target's own ids are below every host's, so that it waits for no ACK of this one.
        self.outbox.push_back(Packet::control(PacketType::ACKNOWLEDGE, PacketId::FIRST_OF_HOST));
    }

    /// Asks the target to send its last packet again.
    pub(super) fn send_resend(&mut self) {
        self.outbox.push_back(Packet::control(PacketType::RESEND, PacketId(0)));
    }

    /// Takes a data packet of the target: acknowledges it, unless its ACK is to be withheld, and says whether it is new.
    pub(super) fn accept(&mut self, now: Instant, packet: &Packet, withholds_ack: bool) -> Arrival {
        let id = packet.id;
        if self.dialect == Dialect::Kdcom {
            let arrival = self.accept_from_stream(now, packet);
            if arrival == Arrival::Doubtful {
                self.send_resend();
                return arrival;
            }
            self.damage.mended();
            if !withholds_ack || arrival == Arrival::Repeat {
                self.acknowledge(id);
            }
            return arrival;
        }
        self.acknowledge(id);
        if self.newest_seen.is_some_and(|newest| !id.is_after(newest)) {
            // The request was repeated although its reply was on its way.
            if let Some((_, took)) = self.reply_after_repeat.take_if(|(reply, _)| *reply == id) {
                self.until_reply.raise(took);
            }
            return Arrival::Repeat;
        }
        self.newest_seen = Some(id);
        Arrival::New
    }

    fn acknowledge(&mut self, id: PacketId) {
        self.outbox.push_back(Packet::control(PacketType::ACKNOWLEDGE, self.dialect.acknowledges(id)));
    }

    fn accept_from_stream(&mut self, now: Instant, packet: &Packet) -> Arrival {
        let bare = |id| self.dialect.acknowledges(id);
        if !self.dialect.is_of_target(packet.id) {
            return Arrival::Doubtful;
        }
        // No sum covers an id. Nobody begins with a reply, and whoever begins says so again when asked.
        let is_reply = packet.packet_type == PacketType::STATE_MANIPULATE;
        let id = if is_reply { bare(packet.id) } else { packet.id };
        let is_of_beginner = id != bare(id);
        let has_old_id = !is_of_beginner && self.newest_seen.is_some_and(|newest| bare(newest) == id);
        // One of those that were acknowledged unread, which had been sent again before the ACK came.
        if has_old_id && self.newest_content.is_none() {
            return Arrival::Repeat;
        }
        let content = (packet.packet_type, packet.payload.clone());
        let is_same_content = self.newest_content.as_ref() == Some(&content);
        // Nor a type. And what comes again is the same: another packet of that id has a damaged one, or is numbered anew, with
        // the RESET lost that said so. A flipped bit is not flipped twice.
        let is_understood = is_what_it_says(packet);
        let is_said_again = self.seems_strange.take().is_some_and(|it| it == content);
        if (!is_understood || has_old_id && !is_same_content) && !is_said_again {
            self.seems_strange = Some(content);
            return Arrival::Doubtful;
        }
        let arrival = match self.newest_seen {
            // Behind a RESET comes what was sent last, and it may have been taken. A stop announced again is told by
            // whoever knows of the stop.
            None if is_same_content && packet.packet_type != PacketType::STATE_CHANGE64 => Arrival::Repeat,
            None => Arrival::New,
            Some(newest) if newest == id && is_same_content => Arrival::Repeat,
            Some(_) if is_of_beginner && self.seems_anew.is_none() => {
                self.seems_anew = Some(content);
                return Arrival::Doubtful;
            }
            // Said again; or gone on to something else, which a target does not do unacknowledged.
            Some(_) if is_of_beginner || self.seems_anew.as_ref().is_some_and(|it| *it != content) => {
                Arrival::Anew
            }
            Some(newest) if bare(newest) == id && is_same_content => Arrival::Repeat,
            Some(_) => Arrival::New,
        };
        if is_of_beginner && arrival != Arrival::Repeat && !self.agreement.is_answered() {
            self.agreement.synchronised(now);
        }
        self.seems_anew = None;
        self.newest_seen = Some(id);
        self.newest_content = Some(content);
        arrival
    }

    /// What is known of a target that has begun anew is this packet. Returns what was pending.
    pub(super) fn begin_with(&mut self, now: Instant, packet: &Packet) -> Vec<Purpose> {
        let (outbox, agreement) = (std::mem::take(&mut self.outbox), self.agreement);
        let pending = self.restart();
        (self.outbox, self.agreement) = (outbox, agreement);
        self.newest_seen = Some(packet.id);
        self.newest_content = Some((packet.packet_type, packet.payload.clone()));
        self.agreement.synchronised(now);
        pending
    }

    /// A data packet of the target was dealt with: what was kept may be sent.
    pub(super) fn packet_done(&mut self, now: Instant) {
        if self.agreement.packet_followed() {
            self.release(now);
        }
    }

    /// Bytes of the target arrive: it is not silent, and what was sent to it is on its way.
    pub(super) fn heard(&mut self, now: Instant) {
        self.agreement.heard(now);
        if let Some(in_flight) = self.in_flight.as_mut().filter(|it| !it.is_held) {
            let wait =
                self.round_trip.wait_after(1).max(in_flight.retransmit_at.saturating_duration_since(now));
            in_flight.wait(now, wait);
        }
    }

    fn release(&mut self, now: Instant) {
        if self.drop_unwanted(now) {
            return;
        }
        if let Some(in_flight) = self.in_flight.as_mut().filter(|it| it.is_held) {
            in_flight.behind_break_ins = self.break_ins;
            self.outbox.push_back(in_flight.transmit(now, &self.round_trip));
        }
    }

    /// Takes a control packet of the target.
    pub(super) fn control(&mut self, now: Instant, packet: &Packet) -> Option<Outcome> {
        match packet.packet_type {
            PacketType::ACKNOWLEDGE => return self.acknowledged(now, packet.id),
            PacketType::RESEND if self.dialect == Dialect::Kdcom => self.agree_anew(now),
            PacketType::RESEND => self.retransmit(now),
            PacketType::RESET if self.dialect == Dialect::Kdcom => self.begin_again(now),
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

    /// Both sides of a stream count from the first id.
    fn begin_again(&mut self, now: Instant) {
        let first = self.dialect.first_of_host();
        self.newest_seen = None;
        self.next_id = first;
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.hold(first);
            self.next_id = self.dialect.next(first);
        }
        if self.agreement.reset(now) {
            self.send_reset_packet();
        }
    }

    fn acknowledged(&mut self, now: Instant, id: PacketId) -> Option<Outcome> {
        let is_asked = self.agreement.is_asked();
        let in_flight = self.in_flight.as_mut().filter(|it| it.id == id)?;
        if in_flight.is_held {
            // What comes before the answer to a RESET is about what was sent before it.
            let is_proof = is_asked && in_flight.tries > 0 && !in_flight.outgoing.has_reply();
            return if is_proof { self.finish(now) } else { None };
        }
        self.agreement.confirmed();
        if in_flight.tries == 1 && !in_flight.acknowledged {
            self.round_trip.measure(now - in_flight.last_sent);
        }
        in_flight.acknowledged = true;
        self.break_ins_over = self.break_ins_over.max(in_flight.behind_break_ins);
        if !in_flight.outgoing.has_reply() {
            return self.finish(now);
        }
        let wait = match in_flight.outgoing.is_slow {
            // Nothing is to be sent for its sake before it is done: what lies in a stream is answered late.
            true if self.dialect == Dialect::Kdcom => in_flight.outgoing.timeout,
            true => self.until_slow_reply.wait_after(in_flight.tries),
            false => self.until_reply.wait_after(in_flight.tries),
        };
        in_flight.wait(now, wait);
        None
    }

    /// The id of the request that `reply` answers; it is done then.
    pub(super) fn replied(&mut self, now: Instant, reply: &Manipulate) -> Option<RequestId> {
        let in_flight = self.in_flight.as_ref()?;
        let Purpose::Request(id, request) = &in_flight.outgoing.purpose else { return None };
        if !reply.answers(request) {
            return None;
        }
        let id = *id;
        let (took, since_last) = (now - in_flight.first_sent, now - in_flight.last_sent);
        let is_slow = in_flight.outgoing.is_slow;
        self.reply_after_repeat = None;
        match (in_flight.tries, is_slow) {
            (1, true) => self.until_slow_reply.measure(since_last),
            (1, false) => self.until_reply.measure(since_last),
            (_, true) => {}
            (_, false) => self.reply_after_repeat = self.newest_seen.map(|reply| (reply, took)),
        }
        self.break_ins_over = self.break_ins_over.max(in_flight.behind_break_ins);
        self.finish(now);
        Some(id)
    }

    /// Ends the continue that is on its way, if one is: the target sent what only a running one sends.
    pub(super) fn continued(&mut self, now: Instant) -> bool {
        let ended = self.forget(|purpose| matches!(purpose, Purpose::Continue));
        self.start_next(now);
        !ended.is_empty()
    }

    /// Takes back the continue that is on its way: the target stands still, whether or not it has obeyed.
    pub(super) fn take_back_continue(&mut self, now: Instant) {
        let in_flight = self.in_flight.take_if(|it| matches!(it.outgoing.purpose, Purpose::Continue));
        if let Some(in_flight) = in_flight {
            self.retire(&in_flight);
        }
        self.queue.retain(|it| !matches!(it.purpose, Purpose::Continue));
        // What was asked while it ran was lost with it.
        if self.agreement.ask_again(now) {
            self.send_reset_packet();
        }
        self.start_next(now);
    }

    /// How often the continue in flight was sent, and whether it is kept until both sides agree on ids.
    pub(super) fn continue_in_flight(&self) -> Option<(u32, bool)> {
        let in_flight = self.in_flight.as_ref()?;
        matches!(in_flight.outgoing.purpose, Purpose::Continue)
            .then_some((in_flight.tries, in_flight.is_held))
    }

    /// Leaves the packet in flight alone for `time`.
    pub(super) fn hold_back(&mut self, now: Instant, time: Duration) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.wait(now, time);
        }
    }

    /// True while a continue is on its way or waits behind requests.
    pub(super) fn is_continuing(&self) -> bool {
        self.outgoing().any(|it| matches!(it.purpose, Purpose::Continue))
    }

    /// True while something is pending that ends the stop: what came behind it would meet a running target.
    pub(super) fn ends_stop(&self) -> bool {
        self.outgoing().any(Outgoing::ends_stop)
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
        let in_flight = self.in_flight.take_if(|it| is_unwanted(&it.outgoing.purpose));
        if let Some(in_flight) = &in_flight {
            self.retire(in_flight);
        }
        let (unwanted, kept) =
            std::mem::take(&mut self.queue).into_iter().partition(|it| is_unwanted(&it.purpose));
        let unwanted: VecDeque<Outgoing> = unwanted;
        self.queue = kept;
        in_flight.map(|it| it.outgoing).into_iter().chain(unwanted).map(|it| it.purpose).collect()
    }

    fn finish(&mut self, now: Instant) -> Option<Outcome> {
        let done = self.in_flight.take()?;
        self.retire(&done);
        if done.outgoing.ends_stop() {
            self.agreement.stop_asking();
        }
        self.start_next(now);
        Some(Outcome::Done(done.outgoing.purpose))
    }

    /// A packet is not on its way any more. A stream's target knows the next one by its id alone, and acknowledges one
    /// with a wrong id without obeying it: so only an ACK says which id is next, whatever else has come.
    fn retire(&mut self, gone: &InFlight) {
        if self.dialect == Dialect::Kdnet {
            return;
        }
        if gone.is_held {
            self.next_id = gone.id;
        } else if !gone.acknowledged {
            self.agreement.lose();
        }
    }

    /// Keeps what was sent into a stream until both sides have agreed on ids. A second copy of it could meet a target that waits
    /// for the ACK of its reply or of its next stop, and takes the copy for that: so nothing is sent twice, and RESET, which
    /// has one meaning, is sent instead.
    fn agree_anew(&mut self, now: Instant) {
        if let Some(in_flight) = self.in_flight.as_mut().filter(|it| !it.is_held) {
            in_flight.hold(in_flight.id);
            self.agreement.lose();
            self.agree(now);
        }
    }

    fn retransmit(&mut self, now: Instant) {
        if let Some(in_flight) = self.in_flight.as_mut().filter(|it| !it.is_held) {
            self.retransmissions += 1;
            self.outbox.push_back(in_flight.transmit(now, &self.round_trip));
        }
    }

    /// Sends again, or gives up, what has waited long enough.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<Outcome> {
        self.ask_again(now);
        match self.agreement.handle_timeout(now) {
            Due::Nothing => {}
            Due::SendReset => self.send_reset_packet(),
            Due::Agreed => self.release(now),
        }
        let in_flight = self.in_flight.as_mut().filter(|it| it.retransmit_at <= now)?;
        let waited = now - in_flight.first_sent;
        let is_continue = matches!(in_flight.outgoing.purpose, Purpose::Continue);
        if waited >= in_flight.outgoing.timeout {
            let error = RequestError::NoAnswer { after: waited, tries: in_flight.tries };
            let failed = self.in_flight.take()?;
            self.retire(&failed);
            self.start_next(now);
            return Some(Outcome::Failed(failed.outgoing.purpose, error));
        }
        if self.dialect == Dialect::Kdcom {
            self.agree_anew(now);
            return None;
        }
        // A RESET makes a stopped target announce its stop again, which a continue must not cause. One that is at work
        // would come upon it afterwards.
        let is_at_work = in_flight.outgoing.is_slow && in_flight.acknowledged;
        if in_flight.tries.is_multiple_of(TRIES_BEFORE_RESET) && !is_continue && !is_at_work {
            self.send_reset();
        }
        self.retransmit(now);
        let until_slow_reply = &self.until_slow_reply;
        if is_at_work && let Some(in_flight) = &mut self.in_flight {
            in_flight.wait(now, until_slow_reply.wait_after(in_flight.tries));
        }
        let until_reply = &self.until_reply;
        if let Some(in_flight) = self.in_flight.as_mut().filter(|it| it.acknowledged && !it.outgoing.is_slow)
        {
            in_flight.wait(now, until_reply.wait_after(in_flight.tries));
        }
        if is_continue && let Some(in_flight) = &mut self.in_flight {
            in_flight.retransmit_at = in_flight.retransmit_at.min(now + CONTINUE_INTERVAL);
        }
        None
    }

    /// True while the target is at work on something during which it says nothing.
    pub(super) fn is_slow(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|it| it.outgoing.is_slow && it.acknowledged)
    }

    /// How often the packet in flight was sent without ever being acknowledged.
    pub(super) fn unheard_tries(&self) -> u32 {
        self.in_flight.as_ref().filter(|it| !it.acknowledged).map_or(0, |it| it.tries)
    }

    /// What a packet and its answer are expected to take.
    pub(super) fn round_trip(&self) -> Duration {
        self.round_trip.wait_after(1).min(Duration::from_millis(200))
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let ask_again = self.damage.poll_timeout();
        let in_flight = self.in_flight.iter().map(|it| it.retransmit_at);
        in_flight.chain(self.agreement.poll_timeout()).chain(ask_again).min()
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

/// True if what is in a data packet of a target is of the packet's type: what it is about begins with a number of the type's
/// own hundred. Source: PROTOCOL.md 8 to 11.
fn is_what_it_says(packet: &Packet) -> bool {
    let hundred = match packet.packet_type {
        PacketType::STATE_CHANGE64 => 0x30,
        PacketType::STATE_MANIPULATE => 0x31,
        PacketType::DEBUG_IO => 0x32,
        PacketType::FILE_IO => 0x34,
        _ => return false,
    };
    packet.payload.get(1) == Some(&hundred) && Payload::decode(packet).is_ok()
}
