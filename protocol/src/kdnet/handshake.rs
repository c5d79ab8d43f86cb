//! The control channel: offer, response, host poke; and the ping that follows on the data channel.
//!
//! ```text
//!  target                              host
//!    | -- OFFER (every 3 s, for ever) --> |
//!    | <------------------- RESPONSE ---- |   both now have data key = SHA-256(control key, response body)
//!    | -- PING (data channel) ----------> |   the new key works
//! ```

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;

use crate::wire::{DecodeError, Reader, Writer};

/// Bytes of HostConnectionInfo in both messages: zeros with WinDbg.
const CONNECTION_INFO_LEN: usize = 256;

/// An address and port as the control channel writes them: 16 bytes of IPv6 (IPv4 mapped), big-endian port.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address; `::ffff:a.b.c.d` for IPv4.
    pub ip: Ipv6Addr,
    /// The port; 0 in an offer's connected endpoint means no debugger is connected.
    pub port: u16,
}

impl Endpoint {
    /// No debugger: `::ffff:0.0.0.0`, port 0.
    pub const NONE: Self = Self { ip: Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(), port: 0 };

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { ip: Ipv6Addr::from(reader.array::<16>()?), port: reader.u16_be()? })
    }

    fn encode(self, writer: &mut Writer<'_>) {
        writer.bytes(&self.ip.octets()).u16_be(self.port);
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        Self { ip, port: address.port() }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.ip.to_canonical(), self.port).fmt(f)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The target's half of a handshake: a counter that rises by one in each offer, and 24 bytes that stay until reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TargetRandom {
    /// Rises by one with every offer.
    pub counter: u64,
    /// The same in every offer of one boot.
    pub boot: [u8; 24],
}

impl TargetRandom {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { counter: reader.u64()?, boot: reader.array()? })
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.u64(self.counter).bytes(&self.boot);
    }
}

/// "Here I am": sent by the target every three seconds in every state, to the host that its boot settings name.
///
/// | offset | size | field              | meaning                                        |
/// |-------:|-----:|--------------------|------------------------------------------------|
/// |      0 |    2 | kind               | 01 01                                          |
/// |      2 |   32 | TargetRandom       | counter, then bytes that stay until reboot     |
/// |     34 |   18 | target             | its address and port                           |
/// |     52 |   18 | configured host    | from the boot settings                         |
/// |     70 |   18 | connected host     | port 0 when no debugger is connected           |
/// |     88 |  256 | HostConnectionInfo | what the connected host sent in its response   |
///
/// Source: PROTOCOL.md 4; seen in `tests/vectors` (A.offer_initial, B).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What the response must quote.
    pub target_random: TargetRandom,
    /// The target's own address.
    pub target: Endpoint,
    /// The host that the boot settings name.
    pub configured_host: Endpoint,
    /// The host that answered last; [`Endpoint::NONE`] without a session.
    pub connected_host: Endpoint,
    /// Verbatim from the connected host's response.
    pub host_connection_info: Box<[u8; CONNECTION_INFO_LEN]>,
}

impl Offer {
    /// Bytes of the body.
    pub const LEN: usize = 2 + 32 + 3 * 18 + CONNECTION_INFO_LEN;

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            target_random: TargetRandom::decode(reader)?,
            target: Endpoint::decode(reader)?,
            configured_host: Endpoint::decode(reader)?,
            connected_host: Endpoint::decode(reader)?,
            host_connection_info: Box::new(reader.array()?),
        })
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.bytes(&[1, 1]);
        self.target_random.encode(writer);
        self.target.encode(writer);
        self.configured_host.encode(writer);
        self.connected_host.encode(writer);
        writer.bytes(&*self.host_connection_info);
    }
}

/// An offer of a length that this crate has no description of: of another version of KDNET, or of another program that
/// speaks it.
///
/// | offset | size | field        | meaning                                                                   |
/// |-------:|-----:|--------------|---------------------------------------------------------------------------|
/// |      0 |    2 | kind         | 01 01                                                                     |
/// |      2 |   32 | TargetRandom | as in every offer: all that a response needs                              |
/// |     34 |      | rest         | perhaps as in an [`Offer`], perhaps not                                   |
///
/// Another open implementation of the protocol sends 34 bytes. Source: PROTOCOL.md 4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignOffer {
    /// What the response must quote.
    pub target_random: TargetRandom,
    /// What follows, as it came.
    pub rest: Bytes,
}

impl ForeignOffer {
    /// Bytes of the shortest body that can be answered.
    pub const MIN_LEN: usize = 2 + 32;

    /// Bytes of the body.
    #[must_use]
    pub fn body_len(&self) -> usize {
        Self::MIN_LEN + self.rest.len()
    }
}

/// The host's answer to an offer. Its 322 bytes, hashed with the control key, are the session's data key.
///
/// | offset | size | field              | meaning                        |
/// |-------:|-----:|--------------------|--------------------------------|
/// |      0 |    2 | kind               | 01 02                          |
/// |      2 |   32 | TargetRandom       | from the offer being answered  |
/// |     34 |   32 | HostRandom         | cryptographically random       |
/// |     66 |  256 | HostConnectionInfo | zeros                          |
///
/// Its datagram quotes the offer's sequence. Source: PROTOCOL.md 4; seen in `tests/vectors` (A, B).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// From the offer being answered.
    pub target_random: TargetRandom,
    /// The host's half of the key agreement.
    pub host_random: [u8; 32],
    /// Zeros with WinDbg; echoed in later offers.
    pub host_connection_info: Box<[u8; CONNECTION_INFO_LEN]>,
}

impl Response {
    /// Bytes of the body; a target accepts no other length.
    pub const LEN: usize = 2 + 32 + 32 + CONNECTION_INFO_LEN;

    /// The answer to the offer with `target_random`.
    #[must_use]
    pub fn to(target_random: TargetRandom, host_random: [u8; 32]) -> Self {
        Self { target_random, host_random, host_connection_info: Box::new([0; CONNECTION_INFO_LEN]) }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            target_random: TargetRandom::decode(reader)?,
            host_random: reader.array()?,
            host_connection_info: Box::new(reader.array()?),
        })
    }

    fn encode(&self, writer: &mut Writer<'_>) {
        writer.bytes(&[1, 2]);
        self.target_random.encode(writer);
        writer.bytes(&self.host_random).bytes(&*self.host_connection_info);
    }
}

/// What a control datagram carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Target to host.
    Offer(Offer),
    /// Target to host, of another length than [`Offer::LEN`].
    ForeignOffer(ForeignOffer),
    /// Host to target.
    Response(Response),
    /// Host to target, empty: "send me an offer now".
    HostPoke,
    /// A kind this crate does not know, as it came.
    Unknown(Bytes),
}

impl Control {
    /// Reads a control body.
    ///
    /// # Errors
    /// An offer without a whole TargetRandom; a response whose length is not exactly right, which targets refuse too.
    pub fn decode(body: &Bytes) -> Result<Self, DecodeError> {
        let expect_len = |what, len: usize| {
            if body.len() == len {
                Ok(())
            } else {
                Err(DecodeError::Unexpected {
                    what,
                    value: body.len() as u64,
                    expected: "not a length it has",
                })
            }
        };
        match body.get(..2) {
            None if body.is_empty() => Ok(Self::HostPoke),
            Some([1, 1]) if body.len() == Offer::LEN => {
                Offer::decode(&mut Reader::new("offer", &body[2..])).map(Self::Offer)
            }
            Some([1, 1]) => {
                let mut reader = Reader::new("offer", &body[2..]);
                let target_random = TargetRandom::decode(&mut reader)?;
                let rest = body.slice(ForeignOffer::MIN_LEN..);
                Ok(Self::ForeignOffer(ForeignOffer { target_random, rest }))
            }
            Some([1, 2]) => {
                expect_len("length of a response", Response::LEN)?;
                Response::decode(&mut Reader::new("response", &body[2..])).map(Self::Response)
            }
            _ => Ok(Self::Unknown(body.clone())),
        }
    }

    /// The body to send.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        match self {
            Self::Offer(offer) => offer.encode(&mut writer),
            Self::ForeignOffer(offer) => {
                writer.bytes(&[1, 1]);
                offer.target_random.encode(&mut writer);
                writer.bytes(&offer.rest);
            }
            Self::Response(response) => response.encode(&mut writer),
            Self::HostPoke => {}
            Self::Unknown(body) => return body.clone(),
        }
        out.into()
    }
}

/// The target's first data datagram under a new key: proof that the key works. Not a KD packet.
///
/// | offset | size | field             | meaning                                        |
/// |-------:|-----:|-------------------|------------------------------------------------|
/// |      0 |    8 | LastHostSequence  | last valid host sequence; 0 right after keying |
/// |      8 |    4 | HostAddress       | IPv4, as a little-endian number                |
///
/// Source: PROTOCOL.md 4; seen in `tests/vectors` (A.ping).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Last valid host sequence.
    pub last_host_sequence: u64,
    /// The host as the target sees it.
    pub host: Ipv4Addr,
}

impl Ping {
    /// Bytes of the body.
    pub const LEN: usize = 12;

    /// Reads a ping, if `body` has its length.
    #[must_use]
    pub fn decode(body: &[u8]) -> Option<Self> {
        let mut reader = Reader::new("ping", body);
        let ping =
            Self { last_host_sequence: reader.u64().ok()?, host: Ipv4Addr::from_bits(reader.u32().ok()?) };
        (reader.left() == 0).then_some(ping)
    }

    /// The body to send.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(Self::LEN);
        Writer::new(&mut out).u64(self.last_host_sequence).u32(self.host.to_bits());
        out.into()
    }
}
