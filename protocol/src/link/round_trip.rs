//! How long to wait before sending again: measured, not guessed (RFC 6298).

use std::time::Duration;

/// Before the first measurement.
const INITIAL: Duration = Duration::from_millis(200);
/// A retransmission costs one datagram and no harm, but below this it would only meet a busy scheduler.
const FLOOR: Duration = Duration::from_millis(3);
/// A target sends its own packets again after this long, so that waiting longer gains nothing.
const CEILING: Duration = Duration::from_millis(500);

/// Smoothed round-trip time and its variation.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RoundTrip {
    smoothed: Option<(Duration, Duration)>,
}

impl RoundTrip {
    /// Takes the time from a packet's only transmission to its acknowledgement or reply (Karn: never of one that
    /// was sent twice).
    pub(super) fn measure(&mut self, sample: Duration) {
        self.smoothed = Some(match self.smoothed {
            None => (sample, sample / 2),
            Some((mean, variation)) => ((mean * 7 + sample) / 8, (variation * 3 + mean.abs_diff(sample)) / 4),
        });
    }

    /// How long to wait for an answer to a packet that was sent `tries` times: doubles with each.
    pub(super) fn wait_after(&self, tries: u32) -> Duration {
        let once = self.smoothed.map_or(INITIAL, |(mean, variation)| mean + variation * 4);
        (once.clamp(FLOOR, CEILING) * 2_u32.saturating_pow(tries.saturating_sub(1).min(10))).min(CEILING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn waits_follow_what_was_measured_between_floor_and_ceiling() {
        let mut round_trip = RoundTrip::default();
        assert_eq!(round_trip.wait_after(1), MS(200));
        for _ in 0..50 {
            round_trip.measure(MS(40));
        }
        assert!(round_trip.wait_after(1) >= MS(40) && round_trip.wait_after(1) < MS(45));
        for _ in 0..100 {
            round_trip.measure(Duration::from_micros(50));
        }
        assert_eq!(round_trip.wait_after(1), FLOOR);
        assert_eq!(round_trip.wait_after(3), FLOOR * 4);
        assert_eq!(round_trip.wait_after(40), CEILING);
    }
}
