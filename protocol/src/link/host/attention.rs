//! How a target is stopped that does not stop at once.

use std::time::{Duration, Instant};

use super::repeated::Repeated;
use super::run_state::RunState;
use super::{HostLink, MAX_ATTENTION_INTERVAL, Wire};
use crate::link::content::Content;

/// The second break-in follows after this long, if nothing came: a running target looks for one at each tick of its clock. The
/// third after twice as long, and so on: a KDNET target drops those that are behind what it has taken.
const ATTENTION_INTERVAL: Duration = Duration::from_millis(25);
/// No two of them are further apart over KDNET.
const ATTENTION_CEILING: Duration = Duration::from_millis(250);
/// Each so manieth is a RESET: a running target obeys a break-in, a stopped one that counts otherwise answers a RESET.
const RESET_EVERY: u32 = 3;
/// Over a stream the second break-in follows after this long, the third after twice as long, and so on: those that are
/// not needed stay in the stream and stop the target again. A stopped target obeys them too.
const STREAM_ATTENTION_INTERVAL: Duration = Duration::from_secs(2);
/// The same for break-ins and RESETs.
const DOUBTFUL_CALLS: u32 = 10;
/// A break-in that has not arrived after this long will not.
pub(super) const BREAK_IN_LIFE: Duration = Duration::from_secs(1);

impl HostLink {
    pub(super) fn call_for_attention(&mut self, now: Instant, attempts: u32) {
        let interval = match &mut self.wire {
            Wire::Net(net) => {
                if attempts % RESET_EVERY != RESET_EVERY - 1 {
                    net.send(Content::BreakIn);
                    self.reliable.break_in_sent();
                    self.break_ins_live_until = Some(now + BREAK_IN_LIFE);
                } else if !self.reliable.is_continuing() {
                    self.reliable.send_reset();
                }
                let longer = ATTENTION_INTERVAL * 2_u32.pow(attempts.min(4));
                longer.clamp(self.reliable.round_trip(), ATTENTION_CEILING)
            }
            Wire::Stream(stream) => {
                if stream.is_open() && self.state != RunState::Stopped {
                    stream.break_in(now, self.state == RunState::Running);
                }
                (STREAM_ATTENTION_INTERVAL * (attempts + 1)).min(MAX_ATTENTION_INTERVAL)
            }
        };
        if attempts >= DOUBTFUL_CALLS {
            self.doubt_key(now);
        }
        self.attention = Some(Repeated { next_at: now + interval, attempts: attempts.saturating_add(1) });
    }

    /// A target that does not react may have been keyed by somebody else.
    pub(super) fn doubt_key(&mut self, now: Instant) {
        if let Wire::Net(net) = &mut self.wire {
            net.doubt_key(now);
        }
    }
}
