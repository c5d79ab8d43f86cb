//! How the two carriers of KD packets number them. Everything else about the exchange is the same.
//!
//! | | KDNET | KDCOM |
//! |---|---|---|
//! | ids | counters, a step of two | one bit that toggles |
//! | first of the host | `80000000` | `80800000` |
//! | first of a booted target | `00000000` | `80800800`: SYNC is set |
//! | an ACK quotes | the id | the id without SYNC |
//! | a RESET carries | the id to go on from | 0: both sides begin again |
//! | order and copies | any | as sent, once |
//!
//! Source: PROTOCOL.md 7 and 14.

use std::time::Duration;

use super::round_trip::Bounds;
use crate::kd::PacketId;
use crate::kdcom;

/// Which carrier's rules hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Kdnet,
    Kdcom,
}

impl Dialect {
    /// The id of a host's first data packet.
    pub(super) const fn first_of_host(self) -> PacketId {
        match self {
            Self::Kdnet => PacketId::FIRST_OF_HOST,
            Self::Kdcom => kdcom::FIRST_ID,
        }
    }

    /// The id of a booted target's first data packet.
    pub(super) const fn first_of_target(self) -> PacketId {
        match self {
            Self::Kdnet => PacketId::FIRST_OF_TARGET,
            Self::Kdcom => kdcom::FIRST_ID_OF_BOOT,
        }
    }

    /// True for an id that a target gives to a data packet.
    pub(super) const fn is_of_target(self, id: PacketId) -> bool {
        match self {
            Self::Kdnet => true,
            Self::Kdcom => id.0 == kdcom::FIRST_ID_OF_BOOT.0 || id.0 & !1 == kdcom::FIRST_ID.0,
        }
    }

    /// The id of the data packet behind the one with this id.
    pub(super) const fn next(self, id: PacketId) -> PacketId {
        match self {
            Self::Kdnet => id.next(),
            Self::Kdcom => PacketId(self.acknowledges(id).0 ^ 1),
        }
    }

    /// The id by which an ACK names a packet.
    pub(super) const fn acknowledges(self, id: PacketId) -> PacketId {
        match self {
            Self::Kdnet => id,
            Self::Kdcom => PacketId(id.0 & !kdcom::SYNC),
        }
    }

    /// The id that a RESET carries from a side whose pending or next packet has this one.
    pub(super) const fn reset(self, next: PacketId) -> PacketId {
        match self {
            Self::Kdnet => next,
            Self::Kdcom => PacketId(0),
        }
    }

    /// How long silence is borne, and when it begins to mean something.
    ///
    /// A stream loses nothing by itself, and what is sent into it in vain stays there; so it is given more time.
    pub(super) const fn bounds(self) -> Bounds {
        match self {
            Self::Kdnet => Bounds {
                initial: Duration::from_millis(200),
                floor: Duration::from_millis(3),
                ceiling: Duration::from_millis(500),
            },
            Self::Kdcom => Bounds {
                initial: Duration::from_millis(1000),
                floor: Duration::from_millis(400),
                ceiling: Duration::from_millis(2000),
            },
        }
    }

    /// The same of a reply. Over KDNET it is on its way behind the ACK, or behind a bridge the line below takes its time.
    pub(super) const fn bounds_of_replies(self) -> Bounds {
        match self {
            Self::Kdnet => Bounds { ceiling: Duration::from_secs(2), ..self.bounds() },
            Self::Kdcom => self.bounds(),
        }
    }

    /// The same of the reply to a search or fill. A request that meets a target at work waits in its network card, and makes
    /// it repeat the reply afterwards: that costs one datagram, and a lost reply half a second.
    pub(super) const fn bounds_of_slow_replies() -> Bounds {
        Bounds {
            initial: Duration::from_millis(100),
            floor: Duration::from_millis(10),
            ceiling: Duration::from_secs(8),
        }
    }
}
