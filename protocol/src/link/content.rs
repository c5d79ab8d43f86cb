//! What an opened datagram carries, whichever channel it came on: the meeting point of layers 1 and 2.

use std::fmt;

use bytes::Bytes;

use crate::kd::{BREAK_IN, Packet};
use crate::kdnet::{Channel, Control, Datagram, Ping};
use crate::wire::DecodeError;

/// A datagram's body, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Control channel.
    Control(Control),
    /// Data channel: the target's proof that a new key works.
    Ping(Ping),
    /// Data channel: stop the target.
    BreakIn,
    /// Data channel: a KD packet.
    Kd(Packet),
    /// Data channel: shorter than a KD packet and nothing this crate knows. Accepted and ignored.
    Runt(Bytes),
}

impl Content {
    /// Reads the body of an authentic datagram.
    ///
    /// # Errors
    /// A control message or KD packet whose fields contradict each other.
    pub fn decode(datagram: &Datagram) -> Result<Self, DecodeError> {
        let body = &datagram.body;
        if datagram.channel() == Channel::Control {
            return Control::decode(body).map(Self::Control);
        }
        if body[..] == [BREAK_IN] {
            return Ok(Self::BreakIn);
        }
        if let Some(ping) = Ping::decode(body) {
            return Ok(Self::Ping(ping));
        }
        if body.len() < Packet::HEADER_LEN {
            return Ok(Self::Runt(body.clone()));
        }
        Packet::decode(body).map(Self::Kd)
    }

    /// The body to send.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Control(control) => control.encode(),
            Self::Ping(ping) => ping.encode(),
            Self::BreakIn => Bytes::from_static(&[BREAK_IN]),
            Self::Kd(packet) => packet.encode(),
            Self::Runt(body) => body.clone(),
        }
    }

    /// One word for what it is: the key of a census.
    #[must_use]
    pub fn kind(&self) -> String {
        match self {
            Self::Control(Control::Offer(_) | Control::ForeignOffer(_)) => "OFFER".into(),
            Self::Control(Control::Response(_)) => "RESPONSE".into(),
            Self::Control(Control::HostPoke) => "HOST_POKE".into(),
            Self::Control(Control::Unknown(_)) => "CONTROL_UNKNOWN".into(),
            Self::Ping(_) => "PING".into(),
            Self::BreakIn => "BREAK_IN".into(),
            Self::Kd(packet) => packet.packet_type.to_string(),
            Self::Runt(_) => "RUNT".into(),
        }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control(Control::Offer(offer)) => {
                write!(f, "OFFER #{} target {}", offer.target_random.counter, offer.target)?;
                write!(f, " host {} connected {}", offer.configured_host, offer.connected_host)
            }
            Self::Control(Control::ForeignOffer(offer)) => {
                write!(f, "OFFER #{} of {} bytes", offer.target_random.counter, offer.body_len())
            }
            Self::Control(Control::Response(response)) => {
                write!(f, "RESPONSE #{}", response.target_random.counter)
            }
            Self::Control(Control::Unknown(body)) => write!(f, "CONTROL_UNKNOWN {} bytes", body.len()),
            Self::Ping(ping) => {
                write!(f, "PING host {} last sequence {}", ping.host, ping.last_host_sequence)
            }
            Self::Kd(packet) => packet.fmt(f),
            Self::Runt(body) => write!(f, "RUNT {body:?}"),
            Self::Control(Control::HostPoke) | Self::BreakIn => f.write_str(&self.kind()),
        }
    }
}
