//! Opening datagrams: which key fits, learned from the handshakes that pass by.
//!
//! ```text
//!  control datagram --(key that the user typed)--> offer, response --> one more data key
//!  data datagram -----(data keys, newest first)--> KD packet
//! ```
//!
//! The tag of a datagram decides which session it belongs to, not its addresses: a target's port may change, and a
//! capture of several interfaces sees one datagram under two addresses.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use kd_protocol::kd::{Packet, PacketId};
use kd_protocol::kdnet::{Channel, Cipher, Control, Datagram, DatagramError, Direction, Envelope, Key};
use kd_protocol::link::Content;

use super::datagram::{Opened, Order, Unopened};

/// Sessions whose keys are tried. Each costs an attempt for each data datagram that nothing opens.
const KEPT: usize = 32;

/// Opens the datagrams of all sessions between targets and hosts that share one key.
pub(super) struct Sessions {
    /// None where datagrams come opened: [`Self::note_opened`].
    key: Option<(Key, Cipher)>,
    /// Machines between which a control datagram was cut by the capture, so that their key may be lost with it.
    cut_handshakes: VecDeque<[IpAddr; 2]>,
    /// The one that a datagram belonged to last comes first.
    known: VecDeque<Session>,
    begun: u64,
}

struct Session {
    number: u64,
    cipher: Option<Cipher>,
    response: Bytes,
    ends: [IpAddr; 2],
    host: SocketAddr,
    from_host: Sequence,
    from_target: Sequence,
}

/// One direction of a session.
#[derive(Default)]
struct Sequence {
    highest: u64,
    /// Bit n: `highest - n` was seen.
    seen: u64,
    last_data_packet: Option<PacketId>,
    /// Datagrams since the last one that was opened, whose sequences the capture has cut off.
    cut: u64,
}

impl Sessions {
    pub(super) fn new(key: Option<Key>) -> Self {
        let key = key.map(|key| (key.clone(), key.control_cipher()));
        Self { key, cut_handshakes: VecDeque::new(), known: VecDeque::new(), begun: 0 }
    }

    /// Notes a datagram that was opened by whoever captured it.
    pub(super) fn note_opened(
        &mut self,
        datagram: Datagram,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Opened {
        if datagram.channel() == Channel::Control {
            return self.note_control(datagram, source, destination);
        }
        match self.known.front_mut() {
            Some(session) => session.note(datagram),
            None => Opened {
                content: Content::decode(&datagram),
                datagram,
                session: None,
                order: Order::Next,
                is_retransmission: false,
            },
        }
    }

    /// Notes a datagram of which the capture has the beginning only.
    pub(super) fn note_cut(&mut self, channel: Channel, source: SocketAddr, destination: SocketAddr) {
        let ends = ends_of(source, destination);
        if channel == Channel::Control {
            if !self.cut_handshakes.contains(&ends) {
                self.cut_handshakes.truncate(KEPT - 1);
                self.cut_handshakes.push_front(ends);
            }
        } else if let Some(session) = self.known.iter_mut().find(|session| session.ends == ends) {
            let is_of_host = session.host == source;
            let sequence = if is_of_host { &mut session.from_host } else { &mut session.from_target };
            sequence.cut += 1;
        }
    }

    /// How many sessions began in the capture.
    pub(super) const fn begun(&self) -> u64 {
        self.begun
    }

    /// Opens a datagram that went from `source` to `destination`.
    pub(super) fn open(
        &mut self,
        envelope: &Envelope<'_>,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Result<Opened, Unopened> {
        match envelope.channel() {
            Channel::Control => self.open_control(envelope, source, destination),
            Channel::Data => self.open_data(envelope, source, destination),
        }
    }

    fn open_control(
        &mut self,
        envelope: &Envelope<'_>,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Result<Opened, Unopened> {
        let Some((_, control)) = &self.key else { return Err(Unopened::NotThisKey) };
        let datagram = envelope.open(control).map_err(|error| match error {
            DatagramError::NotAuthentic => Unopened::NotThisKey,
            other => Unopened::Malformed(other),
        })?;
        Ok(self.note_control(datagram, source, destination))
    }

    fn note_control(&mut self, datagram: Datagram, source: SocketAddr, destination: SocketAddr) -> Opened {
        let content = Content::decode(&datagram);
        let is_response = matches!(content, Ok(Content::Control(Control::Response(_))));
        let session = is_response.then(|| self.begin(&datagram.body, source, destination));
        Opened { datagram, content, session, order: Order::Next, is_retransmission: false }
    }

    fn open_data(
        &mut self,
        envelope: &Envelope<'_>,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Result<Opened, Unopened> {
        for index in 0..self.known.len() {
            let Some(cipher) = &self.known[index].cipher else { continue };
            match envelope.open(cipher) {
                Err(DatagramError::NotAuthentic) => {}
                Err(error) => return Err(Unopened::Malformed(error)),
                Ok(datagram) => return Ok(self.used(index).note(datagram)),
            }
        }
        let ends = ends_of(source, destination);
        Err(if self.known.iter().any(|session| session.ends == ends) {
            Unopened::NotThisSession
        } else if self.cut_handshakes.contains(&ends) {
            Unopened::CutHandshake
        } else {
            Unopened::NoSessionKey
        })
    }

    /// Learns a response's data key, and returns the session's number.
    fn begin(&mut self, response: &Bytes, source: SocketAddr, destination: SocketAddr) -> u64 {
        // A capture of two interfaces has each response twice.
        if let Some(index) = self.known.iter().position(|session| session.response == response) {
            return self.used(index).number;
        }
        self.begun += 1;
        self.known.truncate(KEPT - 1);
        self.known.push_front(Session {
            number: self.begun,
            cipher: self.key.as_ref().map(|(key, _)| key.data_cipher(response)),
            response: response.clone(),
            ends: ends_of(source, destination),
            host: source,
            from_host: Sequence::default(),
            from_target: Sequence::default(),
        });
        self.begun
    }

    fn used(&mut self, index: usize) -> &mut Session {
        let session = self.known.remove(index).expect("callers found it there");
        self.known.push_front(session);
        &mut self.known[0]
    }
}

impl Session {
    fn note(&mut self, datagram: Datagram) -> Opened {
        let content = Content::decode(&datagram);
        let sequence = match datagram.direction {
            Direction::HostToTarget => &mut self.from_host,
            Direction::TargetToHost => &mut self.from_target,
        };
        let order = sequence.order(datagram.sequence);
        let is_retransmission = match &content {
            Ok(Content::Kd(packet)) if order != Order::Repeated => sequence.is_retransmission(packet),
            _ => false,
        };
        Opened { datagram, content, session: Some(self.number), order, is_retransmission }
    }
}

impl Sequence {
    /// How `number` follows what came before it.
    fn order(&mut self, number: u64) -> Order {
        if self.seen == 0 {
            // A host may go on counting across sessions, so the first one can be any.
            (self.highest, self.seen, self.cut) = (number, 1, 0);
            return Order::Next;
        }
        if let Some(ahead @ 1..) = number.checked_sub(self.highest) {
            self.seen = self.seen.checked_shl(u32::try_from(ahead).unwrap_or(u32::MAX)).unwrap_or(0) | 1;
            self.highest = number;
            // What was cut is not lost: it was there, and only its sequence could not be read.
            let missing = (ahead - 1).saturating_sub(std::mem::take(&mut self.cut));
            return if missing == 0 { Order::Next } else { Order::After { missing } };
        }
        let behind = u32::try_from(self.highest - number).unwrap_or(u32::MAX);
        let bit = 1_u64.checked_shl(behind).unwrap_or(0);
        if self.seen & bit != 0 || bit == 0 {
            return Order::Repeated;
        }
        self.seen |= bit;
        Order::Late
    }

    /// True for the data packet that was the last one already, in another datagram.
    fn is_retransmission(&mut self, packet: &Packet) -> bool {
        !packet.is_control && self.last_data_packet.replace(packet.id) == Some(packet.id)
    }
}

fn ends_of(source: SocketAddr, destination: SocketAddr) -> [IpAddr; 2] {
    let mut ends = [source.ip(), destination.ip()];
    ends.sort();
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_late_and_repeated_datagrams_are_told_apart() {
        let mut sequence = Sequence::default();
        let orders = [7, 8, 11, 9, 9, 8, 12, 300, 12].map(|number| sequence.order(number));
        let expected = [
            Order::Next,
            Order::Next,
            Order::After { missing: 2 },
            Order::Late,
            Order::Repeated,
            Order::Repeated,
            Order::Next,
            Order::After { missing: 287 },
            Order::Repeated,
        ];
        assert_eq!(orders, expected);
    }

    #[test]
    fn datagrams_that_were_cut_are_not_missing() {
        let mut sequence = Sequence::default();
        assert_eq!(sequence.order(7), Order::Next);
        sequence.cut = 2;
        assert_eq!(sequence.order(10), Order::Next, "8 and 9 were cut");
        sequence.cut = 1;
        assert_eq!(sequence.order(14), Order::After { missing: 2 }, "one of three was cut");
        assert_eq!(sequence.order(16), Order::After { missing: 1 }, "none was");
    }
}
