//! The host's data packet that is on its way, and what it waits for.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::event::RequestId;
use super::round_trip::RoundTrip;
use crate::kd::{Manipulate, Packet, PacketId, PacketType};

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

/// A data packet before it has an id.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) purpose: Purpose,
    pub(super) packet_type: PacketType,
    pub(super) payload: Bytes,
    pub(super) timeout: Duration,
    /// The target says nothing until it is done, so that silence after the acknowledgement means nothing.
    pub(super) is_slow: bool,
}

impl Outgoing {
    /// More comes than its acknowledgement.
    pub(super) fn has_reply(&self) -> bool {
        matches!(&self.purpose, Purpose::Request(_, request) if request.api_number.has_reply())
    }

    /// The target runs once it has taken it.
    pub(super) fn ends_stop(&self) -> bool {
        match &self.purpose {
            Purpose::Request(_, request) => request.api_number.ends_stop(),
            Purpose::Continue => true,
            Purpose::Answer => false,
        }
    }
}

#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) outgoing: Outgoing,
    pub(super) id: PacketId,
    pub(super) acknowledged: bool,
    pub(super) tries: u32,
    pub(super) first_sent: Instant,
    pub(super) last_sent: Instant,
    pub(super) retransmit_at: Instant,
    /// Kept until both sides agree on ids.
    pub(super) is_held: bool,
    /// Times that something came damaged since it was sent: its reply, as a rule.
    pub(super) damaged: u32,
    /// Nobody waits for its end.
    pub(super) is_unwanted: bool,
    /// Break-ins that went out before its first transmission did.
    pub(super) behind_break_ins: u64,
}

impl InFlight {
    /// Not sent yet.
    pub(super) fn new(now: Instant, outgoing: Outgoing, id: PacketId) -> Self {
        let retransmit_at = now + outgoing.timeout;
        Self {
            outgoing,
            id,
            acknowledged: false,
            tries: 0,
            first_sent: now,
            last_sent: now,
            retransmit_at,
            is_held: true,
            damaged: 0,
            is_unwanted: false,
            behind_break_ins: 0,
        }
    }

    /// The packet to send, or to send again: with the same id, so that the target knows it.
    pub(super) fn transmit(&mut self, now: Instant, round_trip: &RoundTrip) -> Packet {
        self.is_held = false;
        self.tries += 1;
        self.last_sent = now;
        self.wait(now, round_trip.wait_after(self.tries));
        Packet::data(self.outgoing.packet_type, self.id, self.outgoing.payload.clone())
    }

    /// Keeps it until both sides agree, under the id that it will have then.
    pub(super) fn hold(&mut self, id: PacketId) {
        self.id = id;
        self.is_held = true;
        self.acknowledged = false;
        self.retransmit_at = self.deadline();
    }

    /// Something shows that the target has not forgotten it: silence counts from `now`.
    pub(super) fn wait(&mut self, now: Instant, wait: Duration) {
        self.retransmit_at = (now + wait).min(self.deadline());
    }

    /// When it is given up, whatever the target says until then.
    pub(super) fn deadline(&self) -> Instant {
        self.first_sent + self.outgoing.timeout
    }
}
