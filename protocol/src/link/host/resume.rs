//! Whether a target that was told to run does. It says so once, with an ACK, which can be lost; afterwards a running target
//! and one that never heard the continue are equally silent.
//!
//! ```text
//!   continue, continue, ..   unanswered
//!   poke                     until the target is heard: it is there, and comes upon what it is sent
//!   continue, continue       unanswered still: it runs, or these were lost
//!   break-in                 either way it is stopped now, and says so: to be left again by whoever resumed it
//! ```
//! A break-in that comes late stops a machine for nobody. So none is sent to a target that is not heard, which may be
//! asleep with all of this waiting for it; and what is sent behind it makes a KDNET target drop it. Source: PROTOCOL.md 7.

use std::time::{Duration, Instant};

/// A continue is sent this often before the target's silence means anything.
const TRIES_BEFORE_PROBE: u32 = 6;
/// A target that is heard has come upon the continues sent before; these more are to be unanswered.
const TRIES_ONCE_HEARD: u32 = 2;
/// A stream's target has had this long to answer a RESET, and the one behind it, before the break-in.
const STREAM_PROBE_AFTER: Duration = Duration::from_millis(2500);
/// Break-ins stay in a stream: the second follows this much later.
const STREAM_PROBE_AGAIN: Duration = Duration::from_secs(6);
/// For this long after the ACK of a continue, what makes a target drop earlier break-ins is sent behind them.
const SETTLES_WITHIN: Duration = Duration::from_millis(250);
/// So far apart.
const OVERTAKES_EVERY: Duration = Duration::from_millis(50);

/// After a break-in the continue waits this long for the state change, which a target repeats every half second.
pub(super) const PROBE_PATIENCE: Duration = Duration::from_millis(550);

/// What is due, beside the continue itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// Get a sign of life.
    Poke,
    /// Stop the target, to be certain.
    BreakIn,
}

/// A continue on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resuming {
    /// Somebody is there to leave the stop that a break-in causes. Module events are continued by the link itself.
    may_probe: bool,
    tries: u32,
    /// The target was heard when the continue had been sent this often.
    heard_at: Option<u32>,
    probes: u32,
    stream_probe_at: Option<Instant>,
}

impl Resuming {
    pub(super) const fn new(may_probe: bool) -> Self {
        Self { may_probe, tries: 0, heard_at: None, probes: 0, stream_probe_at: None }
    }

    /// True if a stop may be of the link's own making.
    pub(super) const fn is_probing(&self) -> bool {
        self.probes > 0
    }

    /// Something authentic of the target came.
    pub(super) const fn heard(&mut self) {
        if self.heard_at.is_none() && self.tries > 0 {
            self.heard_at = Some(self.tries);
        }
    }

    /// What is due once the continue has been sent `tries` times over KDNET.
    pub(super) const fn due(&mut self, tries: u32) -> Due {
        if tries == self.tries {
            return Due::Nothing;
        }
        self.tries = tries;
        if !self.may_probe || tries < TRIES_BEFORE_PROBE {
            return Due::Nothing;
        }
        match self.heard_at {
            None => Due::Poke,
            Some(at) if tries < at + TRIES_ONCE_HEARD => Due::Nothing,
            Some(_) => {
                self.heard_at = None;
                self.probes += 1;
                Due::BreakIn
            }
        }
    }

    /// The same over a stream, where the continue is held while a RESET asks whether the target is stopped.
    pub(super) fn due_on_stream(&mut self, now: Instant, is_held: bool) -> Due {
        if !self.may_probe || !is_held {
            self.stream_probe_at = None;
            return Due::Nothing;
        }
        let at = *self.stream_probe_at.get_or_insert(now + STREAM_PROBE_AFTER);
        if now < at {
            return Due::Nothing;
        }
        self.stream_probe_at = Some(now + STREAM_PROBE_AGAIN);
        self.probes += 1;
        Due::BreakIn
    }

    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.stream_probe_at
    }
}

/// The continue is obeyed, and a break-in may be on its way yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settling {
    until: Instant,
    next_at: Instant,
}

impl Settling {
    pub(super) fn new(now: Instant) -> Self {
        Self { until: now + SETTLES_WITHIN, next_at: now + OVERTAKES_EVERY }
    }

    /// True if it is over.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until <= now
    }

    /// True if the break-ins are to be overtaken once more.
    pub(super) fn overtakes(&mut self, now: Instant) -> bool {
        let is_due = self.next_at <= now;
        if is_due {
            self.next_at = now + OVERTAKES_EVERY;
        }
        is_due
    }

    pub(super) fn poll_timeout(&self) -> Instant {
        self.next_at.min(self.until)
    }
}
