//! The KD packet: sixteen bytes of header, then a payload whose kind the header names.

use std::fmt;

use bytes::Bytes;

use super::debug_io::DebugIo;
use super::file_io::FileIo;
use super::manipulate::Manipulate;
use super::state_change::StateChange;
use crate::wire::{DecodeError, Reader, Writer, open_enum};

/// The break-in: one byte that is no packet. It stops a running target.
pub const BREAK_IN: u8 = 0x62;
/// Begins a data packet: `0000`.
const DATA_LEADER: u32 = 0x3030_3030;
/// Begins a control packet: `iiii`.
const CONTROL_LEADER: u32 = 0x6969_6969;

open_enum! {
    /// What a KD packet is, `KD_PACKET.PacketType`. Source: PROTOCOL.md 6.
    pub struct PacketType(u16) {
        /// State change of a 32-bit target's older protocol.
        STATE_CHANGE32 = 1 => "STATE_CHANGE32",
        /// A request of the host to a stopped target, or the target's reply.
        STATE_MANIPULATE = 2 => "STATE_MANIPULATE",
        /// A line that the target prints, or a prompt that it wants answered.
        DEBUG_IO = 3 => "DEBUG_IO",
        /// Control: a data packet arrived.
        ACKNOWLEDGE = 4 => "ACK",
        /// Control: send your last data packet again.
        RESEND = 5 => "RESEND",
        /// Control: count from this id.
        RESET = 6 => "RESET",
        /// The target stopped, and why.
        STATE_CHANGE64 = 7 => "STATE_CHANGE64",
        /// Internal to the kernel; never sent.
        POLL_BREAKIN = 8 => "POLL_BREAKIN",
        /// Trace records.
        TRACE_IO = 9 => "TRACE_IO",
        /// A request about the debug session.
        CONTROL_REQUEST = 10 => "CONTROL_REQUEST",
        /// The target wants a file of the host.
        FILE_IO = 11 => "FILE_IO",
    }
}

/// A packet's number: rises by two with every new data packet of one side; an ACK quotes it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PacketId(pub u32);

impl PacketId {
    /// A host's first.
    pub const FIRST_OF_HOST: Self = Self(0x8000_0000);
    /// A booted target's first.
    pub const FIRST_OF_TARGET: Self = Self(0);

    /// True if a host counted it: a target would have to send a thousand million packets to come that far.
    #[must_use]
    pub const fn is_of_host(self) -> bool {
        self.0 >= Self::FIRST_OF_HOST.0
    }

    /// The id of the next new packet.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(2))
    }

    /// True if `self` was handed out after `other`, counting round the 32-bit circle.
    #[must_use]
    pub const fn is_after(self, other: Self) -> bool {
        let distance = self.0.wrapping_sub(other.0);
        distance != 0 && distance < 1 << 31
    }
}

impl fmt::Display for PacketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for PacketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One KD packet, as KDNET carries it: no trailing byte, one packet a datagram.
///
/// | offset | size | field      | meaning                                             |
/// |-------:|-----:|------------|-----------------------------------------------------|
/// |      0 |    4 | leader     | `0000` data, `iiii` control                         |
/// |      4 |    2 | PacketType |                                                     |
/// |      6 |    2 | ByteCount  | bytes of payload; 0 in a control packet             |
/// |      8 |    4 | PacketId   |                                                     |
/// |     12 |    4 | Checksum   | sum of the payload's bytes; 0 in a control packet   |
///
/// Source: PROTOCOL.md 6; 526 of 526 captured packets agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// ACK, RESEND or RESET: it has no payload and is not acknowledged.
    pub is_control: bool,
    /// What it is.
    pub packet_type: PacketType,
    /// Its number.
    pub id: PacketId,
    /// Its content, of the kind that `packet_type` names.
    pub payload: Bytes,
}

impl Packet {
    /// Bytes before the payload.
    pub const HEADER_LEN: usize = 16;

    /// A data packet.
    #[must_use]
    pub const fn data(packet_type: PacketType, id: PacketId, payload: Bytes) -> Self {
        Self { is_control: false, packet_type, id, payload }
    }

    /// A control packet.
    #[must_use]
    pub const fn control(packet_type: PacketType, id: PacketId) -> Self {
        Self { is_control: true, packet_type, id, payload: Bytes::new() }
    }

    /// Reads a packet that fills `body`.
    ///
    /// # Errors
    /// A leader, length or checksum that does not fit.
    pub fn decode(body: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("KD packet", body);
        let leader = reader.u32()?;
        let is_control = match leader {
            DATA_LEADER => false,
            CONTROL_LEADER => true,
            _ => {
                let expected = "neither a data nor a control leader";
                return Err(DecodeError::Unexpected { what: "KD leader", value: leader.into(), expected });
            }
        };
        let packet_type = PacketType(reader.u16()?);
        let byte_count = usize::from(reader.u16()?);
        let id = PacketId(reader.u32()?);
        let checksum = reader.u32()?;
        if byte_count != reader.left() {
            let expected = "not the payload's length";
            return Err(DecodeError::Unexpected { what: "KD ByteCount", value: byte_count as u64, expected });
        }
        let payload = body.slice(Self::HEADER_LEN..);
        if checksum != checksum_of(&payload) {
            let expected = "not the payload's sum";
            return Err(DecodeError::Unexpected { what: "KD Checksum", value: checksum.into(), expected });
        }
        Ok(Self { is_control, packet_type, id, payload })
    }

    /// The body to send.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(Self::HEADER_LEN + self.payload.len());
        Writer::new(&mut out)
            .u32(if self.is_control { CONTROL_LEADER } else { DATA_LEADER })
            .u16(self.packet_type.0)
            .u16(u16::try_from(self.payload.len()).expect("a payload fits one datagram"))
            .u32(self.id.0)
            .u32(checksum_of(&self.payload))
            .bytes(&self.payload);
        out.into()
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} id={}", self.packet_type, self.id)?;
        if self.is_control {
            return Ok(());
        }
        match Payload::decode(self) {
            Ok(Payload::Manipulate(request)) if self.id.is_of_host() => write!(f, " {request:#}"),
            Ok(payload) => write!(f, " {payload}"),
            Err(error) => write!(f, " {} bytes ({error})", self.payload.len()),
        }
    }
}

fn checksum_of(payload: &[u8]) -> u32 {
    payload.iter().fold(0, |sum: u32, byte| sum.wrapping_add(u32::from(*byte)))
}

/// A data packet's content, typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// [`PacketType::STATE_CHANGE64`].
    StateChange(Box<StateChange>),
    /// [`PacketType::STATE_MANIPULATE`].
    Manipulate(Box<Manipulate>),
    /// [`PacketType::DEBUG_IO`].
    DebugIo(DebugIo),
    /// [`PacketType::FILE_IO`].
    FileIo(Box<FileIo>),
    /// A type this crate does not read into.
    Other(PacketType, Bytes),
}

impl Payload {
    /// Reads the payload of a data packet.
    ///
    /// # Errors
    /// A payload shorter than its structure.
    pub fn decode(packet: &Packet) -> Result<Self, DecodeError> {
        let payload = &packet.payload;
        Ok(match packet.packet_type {
            PacketType::STATE_CHANGE64 => Self::StateChange(Box::new(StateChange::decode(payload)?)),
            PacketType::STATE_MANIPULATE => Self::Manipulate(Box::new(Manipulate::decode(payload)?)),
            PacketType::DEBUG_IO => Self::DebugIo(DebugIo::decode(payload)?),
            PacketType::FILE_IO => Self::FileIo(Box::new(FileIo::decode(payload)?)),
            other => Self::Other(other, payload.clone()),
        })
    }

    /// The type that a packet with this payload has.
    #[must_use]
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::StateChange(_) => PacketType::STATE_CHANGE64,
            Self::Manipulate(_) => PacketType::STATE_MANIPULATE,
            Self::DebugIo(_) => PacketType::DEBUG_IO,
            Self::FileIo(_) => PacketType::FILE_IO,
            Self::Other(packet_type, _) => *packet_type,
        }
    }

    /// The payload's bytes: the same as were decoded, unused fields included.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match self {
            Self::StateChange(content) => content.encode(),
            Self::Manipulate(content) => content.encode(),
            Self::DebugIo(content) => content.encode(),
            Self::FileIo(content) => content.encode(),
            Self::Other(_, bytes) => bytes.clone(),
        }
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StateChange(content) => content.fmt(f),
            Self::Manipulate(content) => content.fmt(f),
            Self::DebugIo(content) => content.fmt(f),
            Self::FileIo(content) => content.fmt(f),
            Self::Other(_, bytes) => write!(f, "{} bytes", bytes.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_compared_round_the_circle() {
        let id = PacketId;
        assert!(id(2).is_after(id(0)));
        assert!(!id(0).is_after(id(0)));
        assert!(!id(0).is_after(id(2)));
        assert!(id(0).is_after(id(0xffff_fffe)), "after 2^31 packets a counter wraps");
        assert_eq!(id(0xffff_fffe).next(), id(0));
    }

    #[test]
    fn a_damaged_packet_says_which_field_is_wrong() {
        let good =
            Packet::data(PacketType::STATE_MANIPULATE, PacketId(2), Bytes::from_static(b"payload")).encode();
        let error_at = |index: usize| {
            let mut bad = good.to_vec();
            bad[index] ^= 1;
            Packet::decode(&bad.into()).unwrap_err().to_string()
        };
        assert_eq!(error_at(0), "KD leader is 0x30303031, neither a data nor a control leader");
        assert_eq!(error_at(6), "KD ByteCount is 0x6, not the payload's length");
        assert!(error_at(16).contains("not the payload's sum"));
    }
}
