//! What a capture yields: one KDNET datagram, opened as far as the keys go.

use std::net::SocketAddr;

use bytes::Bytes;
use kd_protocol::kd::{Packet, Payload};
use kd_protocol::kdnet::{Channel, Datagram, DatagramError, Direction};
use kd_protocol::link::Content;
use kd_protocol::wire::DecodeError;

/// A UDP datagram that begins as KDNET does.
#[derive(Clone, Debug)]
pub struct CapturedDatagram {
    /// Number of the frame that carries it, from 1, as Wireshark counts.
    pub frame: u64,
    /// Nanoseconds since the capture's first frame; None if the file has no times.
    pub time_ns: Option<i64>,
    /// Who sent it, or whom the sender claims to be.
    pub source: SocketAddr,
    /// For whom.
    pub destination: SocketAddr,
    /// As it was on the wire.
    pub sealed: Bytes,
    /// What is in it, or why that cannot be told.
    pub content: Result<Opened, Unopened>,
}

/// An authentic datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Version, flags, direction, sequence and plaintext.
    pub datagram: Datagram,
    /// The plaintext, understood.
    pub content: Result<Content, DecodeError>,
    /// The session whose key opened it, or which this response begins; from 1, in the order of the capture.
    pub session: Option<u64>,
    /// How it follows its predecessor of the same session and direction; always `Next` on the control channel.
    pub order: Order,
    /// It carries the same KD packet as the one before: the sender missed an acknowledgement.
    pub is_retransmission: bool,
}

/// How a data datagram's sequence follows those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By one; or it is the first.
    Next,
    /// By more than one: some were lost, or come late.
    After {
        /// How many are missing before it.
        missing: u64,
    },
    /// It had been missing.
    Late,
    /// It was there before: captured twice, duplicated by the network, or a replay.
    Repeated,
}

/// Why a datagram that begins as KDNET does could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    /// The capture kept only its first bytes.
    #[error("cut short by the capture")]
    CutShort,
    /// A length that no KDNET datagram has, or an inner header that lies.
    #[error("{0}")]
    Malformed(DatagramError),
    /// A control datagram that the given key does not open.
    #[error("not authentic under this key")]
    NotThisKey,
    /// A data datagram between machines whose handshake the capture lacks.
    #[error("its session began before the capture")]
    NoSessionKey,
    /// A data datagram between machines whose handshake the capture kept only the first bytes of.
    #[error("its session's handshake is cut short by the capture")]
    CutHandshake,
    /// A data datagram between machines whose handshake was seen, but of an older session, or damaged, or forged.
    #[error("not authentic under any session key of the capture")]
    NotThisSession,
}

impl CapturedDatagram {
    /// Which key seals it, as its clear header says.
    #[must_use]
    pub fn channel(&self) -> Channel {
        const FLAGS_AT: usize = 5;
        if self.sealed.get(FLAGS_AT).is_some_and(|flags| flags & 1 != 0) {
            Channel::Control
        } else {
            Channel::Data
        }
    }
}

impl Opened {
    /// What it is, for counting: packet type, and API or kind of state change where it has one.
    #[must_use]
    pub fn kind(&self) -> String {
        self.content.as_ref().map_or_else(|_| "MALFORMED".into(), kind_of)
    }

    /// True for a reply that says that its request failed.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        let Ok(Content::Kd(packet)) = &self.content else { return false };
        is_failure(packet, self.datagram.direction)
    }
}

/// What `content` is, for counting.
pub(super) fn kind_of(content: &Content) -> String {
    let kind = content.kind();
    let Content::Kd(packet) = content else { return kind };
    if packet.is_control {
        return kind;
    }
    match Payload::decode(packet) {
        Ok(Payload::Manipulate(packet)) => format!("{kind} {}", packet.api_number),
        Ok(Payload::StateChange(change)) => format!("{kind} {}", change.new_state),
        Ok(Payload::DebugIo(io)) => format!("{kind} {}", io.api_number),
        Ok(Payload::FileIo(io)) => format!("{kind} {}", io.api_number),
        Ok(Payload::Other(..)) => kind,
        Err(_) => format!("{kind} MALFORMED"),
    }
}

/// True for a reply that says that its request failed.
pub(super) fn is_failure(packet: &Packet, direction: Direction) -> bool {
    let status = match (Payload::decode(packet), direction) {
        (Ok(Payload::Manipulate(reply)), Direction::TargetToHost) => reply.return_status,
        (Ok(Payload::FileIo(reply)), Direction::HostToTarget) => reply.status,
        _ => return false,
    };
    !status.is_success()
}
