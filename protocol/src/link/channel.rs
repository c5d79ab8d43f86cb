//! One keyed data channel: sequences out, replay window in.

use super::content::Content;
use crate::kdnet::{Cipher, Datagram, DatagramError, Direction, Envelope, Flags};

/// How far behind the newest sequence a datagram may arrive: reordering, not replay.
const WINDOW: u64 = 64;

/// Which sequences of the other side were seen: each is accepted once, in whatever order the network delivers.
///
/// ```text
///   newest-63 ........ newest      bit 0 of `seen` is `newest`
///   too old |  once each  | new
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SequenceWindow {
    newest: u64,
    seen: u64,
}

impl SequenceWindow {
    /// True the first time that `sequence` is shown.
    pub(super) const fn accept(&mut self, sequence: u64) -> bool {
        if sequence > self.newest {
            let ahead = sequence - self.newest;
            self.seen = if ahead < WINDOW { self.seen << ahead | 1 } else { 1 };
            self.newest = sequence;
            return true;
        }
        let behind = self.newest - sequence;
        if sequence == 0 || behind >= WINDOW || self.seen >> behind & 1 == 1 {
            return false;
        }
        self.seen |= 1 << behind;
        true
    }
}

/// A data key in use by one side: seals with rising sequences, opens each of the other side's datagrams once.
#[derive(Debug)]
pub(super) struct DataChannel {
    cipher: Cipher,
    version: u8,
    direction: Direction,
    last_sent: u64,
    window: SequenceWindow,
}

impl DataChannel {
    /// A freshly keyed channel: both sequences start at 1. `direction` is the one this side sends in.
    pub(super) const fn new(cipher: Cipher, version: u8, direction: Direction) -> Self {
        Self { cipher, version, direction, last_sent: 0, window: SequenceWindow { newest: 0, seen: 0 } }
    }

    /// Seals under a fresh sequence: a retransmission too, because a target drops every sequence it has passed.
    pub(super) fn seal(&mut self, content: &Content) -> Vec<u8> {
        self.last_sent += 1;
        let datagram = Datagram {
            version: self.version,
            flags: Flags::empty(),
            direction: self.direction,
            sequence: self.last_sent,
            body: content.encode(),
        };
        datagram.seal(&self.cipher)
    }

    /// Opens a datagram of the other side that was not seen before.
    pub(super) fn open(&mut self, envelope: &Envelope<'_>) -> Result<Datagram, DatagramError> {
        let datagram = envelope.open(&self.cipher)?;
        if datagram.direction == self.direction {
            return Err(DatagramError::OwnDirection);
        }
        if self.window.accept(datagram.sequence) { Ok(datagram) } else { Err(DatagramError::Replayed) }
    }

    /// Newest sequence of the other side; 0 before its first.
    pub(super) const fn newest_seen(&self) -> u64 {
        self.window.newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sequence_is_accepted_once_in_any_order() {
        let mut window = SequenceWindow::default();
        let outcomes: Vec<bool> =
            [1, 3, 2, 2, 3, 1, 0, 70, 6, 7, 7].iter().map(|it| window.accept(*it)).collect();
        assert_eq!(outcomes, [true, true, true, false, false, false, false, true, false, true, false]);
    }

    #[test]
    fn a_far_jump_forgets_what_came_before() {
        let mut window = SequenceWindow::default();
        assert!(window.accept(1));
        assert!(window.accept(u64::MAX >> 8));
        assert!(!window.accept(1));
    }
}
