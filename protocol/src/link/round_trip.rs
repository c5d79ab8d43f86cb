//! How long to wait before sending again: measured, not guessed (RFC 6298).

use std::time::Duration;

/// Between which waits lie, whatever was measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Before the first measurement.
    pub(super) initial: Duration,
    /// A retransmission costs little and does no harm, but below this it would only meet a busy scheduler.
    pub(super) floor: Duration,
    /// A target sends its own packets again after this long, so that waiting longer gains nothing.
    pub(super) ceiling: Duration,
}

/// Smoothed round-trip time and its variation.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoundTrip {
    bounds: Bounds,
    smoothed: Option<(Duration, Duration)>,
}

impl RoundTrip {
    pub(super) const fn new(bounds: Bounds) -> Self {
        Self { bounds, smoothed: None }
    }

    /// Takes the time from a packet's only transmission to its acknowledgement or reply (Karn: never of one that
    /// was sent twice).
    pub(super) fn measure(&mut self, sample: Duration) {
        self.smoothed = Some(match self.smoothed {
            None => (sample, sample / 2),
            Some((mean, variation)) => ((mean * 7 + sample) / 8, (variation * 3 + mean.abs_diff(sample)) / 4),
        });
    }

    /// It took at least this long, and was not waited for: learns that at once.
    pub(super) fn raise(&mut self, sample: Duration) {
        let (mean, variation) = self.smoothed.unwrap_or_default();
        self.smoothed = Some((mean.max(sample), variation.max(sample / 4)));
    }

    /// How long to wait for an answer to a packet that was sent `tries` times: doubles with each.
    pub(super) fn wait_after(&self, tries: u32) -> Duration {
        let Bounds { initial, floor, ceiling } = self.bounds;
        let once = self.smoothed.map_or(initial, |(mean, variation)| mean + variation * 4);
        (once.clamp(floor, ceiling) * 2_u32.saturating_pow(tries.saturating_sub(1).min(10))).min(ceiling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn waits_follow_what_was_measured_between_floor_and_ceiling() {
        let bounds = Bounds { initial: MS(200), floor: MS(3), ceiling: MS(500) };
        let mut round_trip = RoundTrip::new(bounds);
        assert_eq!(round_trip.wait_after(1), MS(200));
        for _ in 0..50 {
            round_trip.measure(MS(40));
        }
        assert!(round_trip.wait_after(1) >= MS(40) && round_trip.wait_after(1) < MS(45));
        for _ in 0..100 {
            round_trip.measure(Duration::from_micros(50));
        }
        assert_eq!(round_trip.wait_after(1), MS(3));
        assert_eq!(round_trip.wait_after(3), MS(12));
        assert_eq!(round_trip.wait_after(40), MS(500));
    }

    #[test]
    fn what_was_repeated_in_vain_is_waited_for_the_next_time() {
        let mut round_trip = RoundTrip::new(Bounds { initial: MS(200), floor: MS(3), ceiling: MS(500) });
        for _ in 0..100 {
            round_trip.measure(MS(1));
        }
        round_trip.raise(MS(90));
        assert!(round_trip.wait_after(1) >= MS(90), "{:?}", round_trip.wait_after(1));
    }
}
