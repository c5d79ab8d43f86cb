//! A machine's own clock, which stands still while the machine is suspended.

use std::time::{Duration, Instant};

/// Turns time outside into the machine's and back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    /// How long the machine was suspended so far.
    behind: Duration,
    /// Since when it is.
    still_since: Option<Instant>,
}

impl Clock {
    /// The machine's time.
    pub(super) fn machine(&self, now: Instant) -> Instant {
        self.still_since.unwrap_or(now) - self.behind
    }

    /// When it will be that late for the machine; never while its clock stands still.
    pub(super) fn outside(&self, machine: Instant) -> Option<Instant> {
        self.still_since.is_none().then(|| machine + self.behind)
    }

    pub(super) const fn is_still(&self) -> bool {
        self.still_since.is_some()
    }

    pub(super) fn stop(&mut self, now: Instant) {
        self.still_since.get_or_insert(now);
    }

    pub(super) fn go_on(&mut self, now: Instant) {
        if let Some(since) = self.still_since.take() {
            self.behind += now.saturating_duration_since(since);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stands_still_while_the_clock_does() {
        const SECOND: Duration = Duration::from_secs(1);
        let start = Instant::now();
        let mut clock = Clock::default();
        clock.stop(start + SECOND);
        assert_eq!(clock.machine(start + 9 * SECOND), start + SECOND);
        assert_eq!(clock.outside(start + 2 * SECOND), None);
        clock.go_on(start + 10 * SECOND);
        assert_eq!(clock.machine(start + 11 * SECOND), start + 2 * SECOND);
        assert_eq!(clock.outside(start + 2 * SECOND), Some(start + 11 * SECOND));
    }
}
