//! Replies that nobody is going to read, over a stream: they are too long for the noise on it, or awaited by nobody any more. A
//! target repeats its reply until that is acknowledged, and takes nothing before; so it is acknowledged unread.
//!
//! ```text
//!   read of 3900 bytes  ------------>
//!                       <------------  reply, damaged
//!   RESEND              ------------>
//!                       <------------  reply, damaged
//!   ACK, and a read of 1950 bytes -->       its reply says Success with fewer bytes, as of a target whose packets carry no more
//! ```
//! A target that waits for the ACK of a reply is at the stop at which it was asked, so that nothing but a reply to what is
//! asked again, or wanted by nobody, is lost. Source: PROTOCOL.md 14.

use std::time::Instant;

use super::Reliable;
use crate::kd::Arm;
use crate::link::dialect::Dialect;
use crate::link::event::RequestId;
use crate::link::in_flight::{InFlight, Outgoing, Purpose};

/// A read whose reply came damaged this often asks for half as much.
const DAMAGED_TOO_OFTEN: u32 = 2;
/// A reply of so many bytes is no likelier to come through in two pieces.
const SHORT: u32 = 256;

impl Reliable {
    /// What came from the target was damaged.
    pub(in crate::link) fn damaged(&mut self, now: Instant) {
        self.damage.found(now);
    }

    /// Bytes came, and what came last is a whole packet or the beginning of one.
    pub(in crate::link) fn came(&mut self, now: Instant, is_partial: bool) {
        self.damage.came(now, is_partial);
    }

    /// It is asked for again if it is time, or acknowledged unread.
    pub(super) fn ask_again(&mut self, now: Instant) {
        if !self.damage.is_due(now) {
            return;
        }
        if let Some(in_flight) = self.in_flight.as_mut().filter(|it| it.tries > 0) {
            in_flight.damaged += 1;
            if self.leave_unread(now) {
                return;
            }
        }
        self.send_resend();
    }

    /// Nobody waits for this request's end any more, and none is told.
    pub(in crate::link) fn abandon(&mut self, now: Instant, id: RequestId) {
        // Over KDNET a reply comes whole, or again at once.
        if self.dialect == Dialect::Kdnet {
            return;
        }
        let is_it = |it: &Outgoing| matches!(&it.purpose, Purpose::Request(of, _) if *of == id);
        self.queue.retain(|it| !is_it(it));
        let Some(in_flight) = self.in_flight.as_mut().filter(|it| is_it(&it.outgoing)) else { return };
        in_flight.is_unwanted = true;
        if in_flight.tries == 0 {
            self.drop_unwanted(now);
        } else if in_flight.damaged > 0 {
            self.leave_unread(now);
        }
    }

    /// Takes out what is in flight if nobody waits for it and it is not on its way. True if it did.
    pub(super) fn drop_unwanted(&mut self, now: Instant) -> bool {
        let Some(gone) = self.in_flight.take_if(|it| it.is_held && it.is_unwanted) else { return false };
        self.retire(&gone);
        self.start_next(now);
        true
    }

    /// Acknowledges the reply that came damaged, if it is not to be asked for again. False if it is.
    fn leave_unread(&mut self, now: Instant) -> bool {
        // Before a RESET is answered nobody knows which id the reply will have.
        if self.agreement.is_asked() {
            return false;
        }
        let Some(mut gone) = self.in_flight.take_if(|it| it.has_reply_damaged()) else { return false };
        let is_again = !gone.is_unwanted;
        if is_again && (gone.damaged < DAMAGED_TOO_OFTEN || !ask_for_half(&mut gone.outgoing)) {
            self.in_flight = Some(gone);
            return false;
        }
        let first = self.dialect.first_of_host();
        let id = self.newest_seen.map_or(first, |newest| self.dialect.next(newest));
        self.acknowledge(id);
        // Nothing is known of what was in it.
        (self.newest_seen, self.newest_content) = (Some(id), None);
        self.retire(&gone);
        self.agreement.packet_followed();
        if is_again {
            self.put_in_flight(now, gone.outgoing, gone.first_sent);
        } else {
            self.start_next(now);
        }
        true
    }
}

impl InFlight {
    /// True if it is a request whose reply is what came damaged. That can be the request's own ACK the first time.
    fn has_reply_damaged(&self) -> bool {
        let is_reply = self.acknowledged || self.is_held || self.damaged >= DAMAGED_TOO_OFTEN;
        is_reply && self.outgoing.has_reply() && !self.outgoing.ends_stop() && !self.outgoing.is_slow
    }
}

/// Makes a long read one of half as many bytes. False for everything else.
fn ask_for_half(outgoing: &mut Outgoing) -> bool {
    let Purpose::Request(_, request) = &mut outgoing.purpose else { return false };
    let Arm::ReadMemory(read) = &mut request.arm else { return false };
    if read.transfer_count <= SHORT {
        return false;
    }
    read.transfer_count /= 2;
    outgoing.payload = request.encode();
    true
}
