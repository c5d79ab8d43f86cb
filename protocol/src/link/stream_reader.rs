//! Frames out of a stream, and patience with those that stop in the middle.

use std::time::{Duration, Instant};

use crate::kdcom::{Decoder, Frame};

/// A packet's next byte is waited for this long: slow lines stutter, and virtual machines stand still at times.
const PATIENCE: Duration = Duration::from_millis(500);

/// One side's reader.
#[derive(Debug, Default)]
pub(super) struct StreamReader {
    decoder: Decoder,
    /// When the rest of a packet counts as lost.
    partial_until: Option<Instant>,
}

impl StreamReader {
    /// Takes bytes; [`Self::poll`] has what they complete.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.decoder.push(bytes);
    }

    /// The next frame that is complete.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Frame> {
        let frame = self.decoder.poll();
        self.partial_until = self.decoder.is_partial().then(|| now + PATIENCE);
        frame
    }

    /// Forgets what is here: the stream begins anew.
    pub(super) fn clear(&mut self) {
        self.decoder.clear();
        self.partial_until = None;
    }

    /// The packet whose rest did not come in time is none. What it hides comes from [`Self::poll`].
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<Frame> {
        self.partial_until.take_if(|until| *until <= now)?;
        self.decoder.give_up_partial()
    }

    /// True in the middle of a packet.
    pub(super) fn is_partial(&self) -> bool {
        self.decoder.is_partial()
    }

    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.partial_until
    }
}
