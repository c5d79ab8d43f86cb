//! A read of any length: as many requests as it takes, one after another, each as long as a reply may be.

use kd_protocol::kd::Manipulate;
use kd_protocol::{PhysAddr, VirtAddr};

use crate::memory::StopId;
use crate::session::order::{Read, Reply, Space};

/// What the first large read asks for; the reply shows how much one packet of this target carries.
const FIRST_READ_LEN: usize = 2048;
/// The same over a serial line, whose packets carry 4,000 bytes. Source: kd-serial.md, "Packets".
const FIRST_READ_LEN_OF_LINE: usize = 3900;
/// Over a line a shorter reply can mean noise, which passes: behind so many whole replies twice as much is asked for again.
const WHOLE_REPLIES: u32 = 32;
/// A target that returns less than this a reply is not worth following.
const MIN_READ_LEN: usize = 64;
/// Progress through a read is checked against this: a target cannot make it grow.
const MAX_READ: usize = 1 << 30;

/// A range on its way: as many requests as it takes, one after another.
#[derive(Debug)]
pub(super) struct ReadJob {
    pub(super) reply: Reply<Read>,
    pub(super) stop: StopId,
    space: Space,
    address: u64,
    pub(super) wanted: usize,
    pub(super) asked: usize,
    pub(super) bytes: Vec<u8>,
}

impl ReadJob {
    pub(super) fn new(reply: Reply<Read>, stop: StopId, space: Space, address: u64, wanted: usize) -> Self {
        Self { reply, stop, space, address, wanted: wanted.min(MAX_READ), asked: 0, bytes: Vec::new() }
    }

    /// Asks for what is not there yet, but for no more than `most` bytes.
    pub(super) fn next_request(&mut self, most: usize) -> Manipulate {
        self.asked = (self.wanted - self.bytes.len()).min(most);
        let at = self.address.wrapping_add(self.bytes.len() as u64);
        let count = u32::try_from(self.asked).expect("bounded by the packet size");
        match self.space {
            Space::Virtual => Manipulate::read_virtual(VirtAddr(at), count),
            Space::Physical => Manipulate::read_physical(PhysAddr(at), count),
        }
    }
}

/// How much one request asks for.
#[derive(Debug)]
pub(super) struct Pieces {
    len: usize,
    first: usize,
    /// A shorter reply may be the line's doing, and not the target's limit.
    may_grow: bool,
    /// Replies in a row with all of `len`.
    whole: u32,
}

impl Pieces {
    pub(super) const fn of_socket() -> Self {
        Self { len: FIRST_READ_LEN, first: FIRST_READ_LEN, may_grow: false, whole: 0 }
    }

    pub(super) const fn of_line() -> Self {
        Self { len: FIRST_READ_LEN_OF_LINE, first: FIRST_READ_LEN_OF_LINE, may_grow: true, whole: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Another target may be there.
    pub(super) const fn forget(&mut self) {
        (self.len, self.whole) = (self.first, 0);
    }

    /// Success with fewer bytes is not a hole but the limit of the target's packets, or of what its line carries undamaged.
    pub(super) fn follow(&mut self, asked: usize, got: usize) {
        if got < asked {
            (self.len, self.whole) = (got.max(MIN_READ_LEN), 0);
        } else if self.may_grow && asked == self.len && self.len < self.first {
            self.whole += 1;
            if self.whole == WHOLE_REPLIES {
                (self.len, self.whole) = ((self.len * 2).min(self.first), 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_short_replies_and_grow_again_over_a_line() {
        for (mut pieces, grown) in [(Pieces::of_line(), 2000), (Pieces::of_socket(), 1000)] {
            pieces.follow(pieces.len(), 1000);
            assert_eq!(pieces.len(), 1000);
            for _ in 0..WHOLE_REPLIES {
                // A read's last piece says nothing.
                pieces.follow(8, 8);
                assert_eq!(pieces.len(), 1000);
                pieces.follow(1000, 1000);
            }
            assert_eq!(pieces.len(), grown);
            pieces.follow(pieces.len(), 1);
            assert_eq!(pieces.len(), MIN_READ_LEN);
        }
    }
}
