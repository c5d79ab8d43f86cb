//! Whether the two sides of a stream count from the same place. One bit numbers its packets, so that a side that has just
//! come, or has given something up, cannot know which of two ids is next: it asks for a new beginning.
//!
//! ```text
//!            ask                 RESET                  any data packet, and no RESET is unanswered
//!   Open ----------> Asked ----------------> Answered ------------------> Agreed
//!     ^                |  again, a few times     |  nothing follows          |
//!     |<---------------'                         `-------------------------->|
//!     `------------------ something ended without its acknowledgement -------'
//! ```
//! Behind its RESET a stopped target sends what it sent last, and takes nothing before that is acknowledged: so the host
//! keeps its own packet until then. A second RESET on its way would make it begin once more, and drop what came in between. KDNET's
//! counters need none of this. Source: PROTOCOL.md 14.

use std::time::{Duration, Instant};

/// A RESET that nobody answers is repeated this often: each that arrives late is answered, and answers have to be sorted.
const ASKS: u32 = 4;
/// The second RESET follows after this long, the third after twice as long.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// What a target sends behind its RESET, and behind the next if that was asked for too, is here within this of whatever came
/// last, or it has nothing to send: it sends again what was damaged after half a second.
const FOLLOWS_WITHIN: Duration = Duration::from_millis(1000);
/// What is damaged again and again for this long is given up: the next packet of this side makes the other side forget it, and
/// is asked for again. Otherwise a reply that is too long for its line would keep a machine from being let run.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Asked { asks: u32, again_at: Instant },
    Answered { until: Instant, at_latest: Instant },
    Agreed,
}

impl State {
    fn answered(now: Instant) -> Self {
        Self::Answered { until: now + FOLLOWS_WITHIN, at_latest: now + GIVEN_UP_AFTER }
    }
}

/// See the module's page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Agreement {
    state: State,
    /// RESETs of this side that nobody has answered: as many of the other side's are answers, which must not be answered.
    unanswered: u32,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    SendReset,
    /// Both sides agree as far as anybody can tell: what was kept may be sent.
    Agreed,
}

impl Agreement {
    /// A side that may send at once.
    pub(super) const AGREED: Self = Self { state: State::Agreed, unanswered: 0 };
    /// A side that has just come.
    pub(super) const OPEN: Self = Self { state: State::Open, unanswered: 0 };

    pub(super) fn is_agreed(&self) -> bool {
        self.state == State::Agreed
    }

    /// True while no RESET of this side has been answered.
    pub(super) const fn is_asked(&self) -> bool {
        matches!(self.state, State::Asked { .. })
    }

    /// True once the other side has answered a RESET, until its next packet.
    pub(super) const fn is_answered(&self) -> bool {
        matches!(self.state, State::Answered { .. })
    }

    /// Something was given up that the other side may have counted.
    pub(super) fn lose(&mut self) {
        if self.is_agreed() {
            self.state = State::Open;
        }
    }

    /// Wants to agree. True if a RESET is to be sent for it.
    pub(super) fn ask(&mut self, now: Instant) -> bool {
        if matches!(self.state, State::Asked { .. } | State::Answered { .. }) {
            return false;
        }
        self.state = State::Asked { asks: 1, again_at: now + ASK_AGAIN };
        self.unanswered += 1;
        true
    }

    /// The other side has gone on, and hears no RESET.
    pub(super) fn stop_asking(&mut self) {
        if self.is_asked() {
            self.state = State::Open;
        }
    }

    /// Whoever was asked could not hear it. True if a RESET is to be sent for those that were lost.
    pub(super) fn ask_again(&mut self, now: Instant) -> bool {
        let was_asked = self.is_asked();
        if was_asked {
            self.state = State::Asked { asks: 1, again_at: now + ASK_AGAIN };
            self.unanswered += 1;
        }
        was_asked
    }

    /// A RESET arrived. True if it is to be answered, which may be answered in its turn: no sum covers the type of an ACK, so
    /// that it can look like a RESET that nobody sent.
    pub(super) fn reset(&mut self, now: Instant) -> bool {
        self.state = State::answered(now);
        let is_answer = self.unanswered > 0;
        self.unanswered = if is_answer { self.unanswered - 1 } else { 1 };
        !is_answer
    }

    /// The other side has taken a packet that was sent behind every RESET: whatever was unanswered was lost.
    pub(super) fn confirmed(&mut self) {
        if self.is_agreed() {
            self.unanswered = 0;
        }
    }

    /// The other side has begun to count anew by itself. A RESET that is on its way to it will be answered all the same.
    pub(super) fn synchronised(&mut self, now: Instant) {
        self.state = match self.unanswered {
            0 => State::Agreed,
            _ => State::answered(now),
        };
    }

    /// A data packet of the other side was dealt with. True if both agree thereby. A RESET that is still on its way would make
    /// the other side begin once more, behind what is sent now.
    pub(super) fn packet_followed(&mut self) -> bool {
        let follows = self.is_answered() && self.unanswered == 0;
        if follows {
            self.state = State::Agreed;
        }
        follows
    }

    /// Bytes arrive: the other side is not silent.
    pub(super) fn heard(&mut self, now: Instant) {
        if let State::Answered { until, at_latest } = &mut self.state {
            *until = (now + FOLLOWS_WITHIN).min(*at_latest);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Due {
        match self.state {
            State::Asked { asks, again_at } if again_at <= now => {
                if asks == ASKS {
                    self.state = State::Open;
                    return Due::Nothing;
                }
                self.state = State::Asked { asks: asks + 1, again_at: now + ASK_AGAIN * 2_u32.pow(asks) };
                self.unanswered += 1;
                Due::SendReset
            }
            // Whatever was unanswered was lost.
            State::Answered { until, .. } if until <= now => {
                *self = Self::AGREED;
                Due::Agreed
            }
            _ => Due::Nothing,
        }
    }

    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Asked { again_at, .. } => Some(again_at),
            State::Answered { until, .. } => Some(until),
            State::Open | State::Agreed => None,
        }
    }
}
