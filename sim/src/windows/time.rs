//! The machine's clock: units of 100 ns since 1601.

use std::time::Duration;

/// 19 June 2013, 00:00 UTC: when the machine booted first.
pub(super) const BOOT_TIME: u64 = 130_160_736_000_000_000;
/// From the end of a boot to the next one.
const RESTART: Duration = Duration::from_secs(40);

/// When a machine has booted again that booted at `boot_time` and has been running for so long.
pub(super) fn next_boot_time(boot_time: u64, running: Duration) -> u64 {
    boot_time + ticks(running) + ticks(RESTART)
}

/// A time in these units, which leaves room for what it is added to.
pub(super) fn ticks(time: Duration) -> u64 {
    u64::try_from(time.as_nanos() / 100).unwrap_or(u64::MAX / 4)
}
