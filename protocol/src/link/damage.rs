//! What came damaged, or not whole, out of a stream, and when it is asked for again: once the line is quiet. One damage can look like
//! several, and what is asked for twice comes twice.

use std::time::{Duration, Instant};

/// The line is quiet when nothing has come for this long.
const QUIET: Duration = Duration::from_millis(20);
/// The same of a packet that stops in the middle: slow lines stutter, and its rest is waited for all the same.
const QUIET_IN_PACKET: Duration = Duration::from_millis(50);
/// A side that never falls silent is asked after this long.
const ASKED_WITHIN: Duration = Duration::from_millis(600);

/// At most one damage at a time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Damage(Option<Pending>);

#[derive(Clone, Copy, Debug)]
struct Pending {
    ask_at: Instant,
    at_latest: Instant,
    is_partial: bool,
}

impl Damage {
    /// What came was damaged.
    pub(super) fn found(&mut self, now: Instant) {
        self.wait(now, false);
    }

    /// Bytes came, and what came last is a whole packet or the beginning of one.
    pub(super) fn came(&mut self, now: Instant, is_partial: bool) {
        match self.0 {
            Some(Pending { is_partial: false, .. }) => self.wait(now, false),
            _ if is_partial => self.wait(now, true),
            _ => self.0 = None,
        }
    }

    /// Whatever came damaged was no packet, or has come again.
    pub(super) const fn mended(&mut self) {
        self.0 = None;
    }

    /// True once, when it is to be asked for again.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        self.0.take_if(|it| it.ask_at <= now).is_some()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.0.map(|it| it.ask_at)
    }

    fn wait(&mut self, now: Instant, is_partial: bool) {
        let quiet = if is_partial { QUIET_IN_PACKET } else { QUIET };
        let at_latest = self.0.map_or(now + ASKED_WITHIN, |it| it.at_latest);
        self.0 = Some(Pending { ask_at: (now + quiet).min(at_latest), at_latest, is_partial });
    }
}
