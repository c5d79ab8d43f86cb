//! What a capture held, counted.

use std::collections::BTreeMap;

use kd_protocol::kdnet::Direction;

use super::datagram::{CapturedDatagram, Opened, Order, Unopened};

/// The counts of a capture, or of what was read of it so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Frames read.
    pub frames: u64,
    /// Time of the last frame, nanoseconds since the first.
    pub last_time_ns: i64,
    /// UDP datagrams, KDNET or not.
    pub udp: u64,
    /// KDNET datagrams: those that begin as KDNET does.
    pub datagrams: u64,
    /// KDNET datagrams that a key opened.
    pub authenticated: u64,
    /// Those that no key opened.
    pub unopened: UnopenedCounts,
    /// Pieces of UDP datagrams that IP took apart; not read.
    pub fragments: u64,
    /// Pieces of a serial line's bytes, which a trace of this program has.
    pub line_pieces: u64,
    /// Frames of link types that are not read, by link type number.
    pub unread_link_types: BTreeMap<i32, u64>,
    /// Sessions that began in the capture.
    pub sessions: u64,
    /// Data datagrams that were sent, as their successors' sequences tell, and never captured.
    pub missing: u64,
    /// Data datagrams that came after a later one.
    pub late: u64,
    /// Data datagrams that had been there already.
    pub repeated: u64,
    /// Data datagrams whose KD packet was sent once more.
    pub retransmissions: u64,
    /// Authenticated datagrams by direction and kind.
    pub census: Census,
    /// How the file ended.
    pub ending: Ending,
}

/// KDNET datagrams that no key opened, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnopenedCounts {
    /// [`Unopened::CutShort`].
    pub cut_short: u64,
    /// [`Unopened::Malformed`].
    pub malformed: u64,
    /// [`Unopened::NotThisKey`].
    pub not_this_key: u64,
    /// [`Unopened::NoSessionKey`].
    pub no_session_key: u64,
    /// [`Unopened::CutHandshake`].
    pub cut_handshake: u64,
    /// [`Unopened::NotThisSession`].
    pub not_this_session: u64,
}

/// How a capture file ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// After a whole record.
    #[default]
    Complete,
    /// Inside a record: the capturing program still writes, or was killed, or the file was not copied whole.
    CutOff {
        /// Where that record begins, in bytes of the unzipped file.
        offset: u64,
    },
}

/// Datagrams counted by direction and kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    rows: BTreeMap<(bool, String), (u64, u64)>,
}

/// One line of a [`Census`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CensusRow<'a> {
    /// Who sent them.
    pub direction: Direction,
    /// What they are: [`Opened::kind`].
    pub kind: &'a str,
    /// How many.
    pub count: u64,
    /// How many of them are replies that say that the request failed.
    pub failures: u64,
}

impl Summary {
    pub(super) fn count(&mut self, captured: &CapturedDatagram) {
        self.datagrams += 1;
        let opened = match &captured.content {
            Ok(opened) => opened,
            Err(reason) => return self.unopened.count(reason),
        };
        self.authenticated += 1;
        match opened.order {
            Order::Next => {}
            Order::After { missing } => self.missing += missing,
            Order::Late => {
                self.missing = self.missing.saturating_sub(1);
                self.late += 1;
            }
            Order::Repeated => self.repeated += 1,
        }
        self.retransmissions += u64::from(opened.is_retransmission);
        self.census.count(opened);
    }

    /// UDP datagrams that are not KDNET.
    #[must_use]
    pub const fn other_udp(&self) -> u64 {
        self.udp - self.datagrams
    }
}

impl UnopenedCounts {
    const fn count(&mut self, reason: &Unopened) {
        *match reason {
            Unopened::CutShort => &mut self.cut_short,
            Unopened::Malformed(_) => &mut self.malformed,
            Unopened::NotThisKey => &mut self.not_this_key,
            Unopened::NoSessionKey => &mut self.no_session_key,
            Unopened::CutHandshake => &mut self.cut_handshake,
            Unopened::NotThisSession => &mut self.not_this_session,
        } += 1;
    }
}

impl Census {
    fn count(&mut self, opened: &Opened) {
        self.add(opened.datagram.direction, opened.kind(), opened.is_failure());
    }

    pub(super) fn add(&mut self, direction: Direction, kind: String, is_failure: bool) {
        let (count, failures) = self.rows.entry((direction == Direction::TargetToHost, kind)).or_default();
        *count += 1;
        *failures += u64::from(is_failure);
    }

    /// All lines: the host's first, then the target's, each in alphabetical order.
    pub fn rows(&self) -> impl Iterator<Item = CensusRow<'_>> {
        self.rows.iter().map(|((from_target, kind), (count, failures))| CensusRow {
            direction: if *from_target { Direction::TargetToHost } else { Direction::HostToTarget },
            kind,
            count: *count,
            failures: *failures,
        })
    }

    /// How many datagrams of that direction and kind there are.
    #[must_use]
    pub fn of(&self, direction: Direction, kind: &str) -> u64 {
        self.rows().find(|row| row.direction == direction && row.kind == kind).map_or(0, |row| row.count)
    }
}
