//! A target's clocks, in WinDbg's words.
//!
//! ```text
//! Wed Jun 19 00:05:20.118 2013 (UTC + 0:00)
//! 0 days 0:05:20.118
//! ```
//! Windows counts both in units of 100 ns; a time since 1601, UTC.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::output::{iso_time, unix_ms_of_filetime, unix_time_ms};

/// Units of 100 ns.
const PER_MILLISECOND: u64 = 10_000;

/// A moment, by a target's own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, schemars::JsonSchema)]
#[schemars(with = "String")]
pub(super) struct TargetTime {
    /// Milliseconds since 1970, UTC.
    unix_ms: i64,
}

impl TargetTime {
    /// A `FILETIME`; nothing for one that nobody set, or that no clock shows.
    pub(super) fn of_filetime(filetime: u64) -> Option<Self> {
        let time = if filetime == 0 { None } else { unix_ms_of_filetime(filetime) };
        time.map(|unix_ms| Self { unix_ms })
    }

    /// Milliseconds since 1970, as this program's own machine counts them.
    pub(super) fn of_unix_ms(unix_ms: u64) -> Self {
        Self { unix_ms: i64::try_from(unix_ms).unwrap_or(i64::MAX) }
    }
}

impl fmt::Display for TargetTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (UTC + 0:00)", unix_time_ms(self.unix_ms))
    }
}

impl Serialize for TargetTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (seconds, milliseconds) = (self.unix_ms.div_euclid(1000), self.unix_ms.rem_euclid(1000));
        serializer.collect_str(&format_args!("{}.{milliseconds:03}Z", iso_time(seconds)))
    }
}

/// How long a target has been running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(transparent)]
pub(super) struct TargetUptime {
    milliseconds: u64,
}

impl TargetUptime {
    /// Of units of 100 ns.
    pub(super) const fn of_hundreds(hundreds: u64) -> Self {
        Self { milliseconds: hundreds / PER_MILLISECOND }
    }
}

impl fmt::Display for TargetUptime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { milliseconds } = self;
        let (days, hours) = (milliseconds / 86_400_000, milliseconds / 3_600_000 % 24);
        let (minutes, seconds) = (milliseconds / 60_000 % 60, milliseconds / 1000 % 60);
        write!(f, "{days} days {hours}:{minutes:02}:{seconds:02}.{:03}", milliseconds % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(seconds_since_1970: i64) -> String {
        let since_1601 = seconds_since_1970 + 11_644_473_600;
        TargetTime::of_filetime(since_1601 as u64 * 10_000_000).unwrap().to_string()
    }

    #[test]
    fn a_time_is_told_in_windbgs_columns() {
        // By `date -u -d @SECONDS`.
        assert_eq!(shown(1_371_542_400), "Tue Jun 18 08:00:00.000 2013 (UTC + 0:00)");
        assert_eq!(shown(951_782_399), "Mon Feb 28 23:59:59.000 2000 (UTC + 0:00)");
        assert_eq!(shown(951_782_400), "Tue Feb 29 00:00:00.000 2000 (UTC + 0:00)");
        assert_eq!(shown(1_735_689_599), "Tue Dec 31 23:59:59.000 2024 (UTC + 0:00)");
        assert_eq!(shown(4_107_542_399), "Sun Feb 28 23:59:59.000 2100 (UTC + 0:00)");
        assert_eq!(shown(4_107_542_400), "Mon Mar  1 00:00:00.000 2100 (UTC + 0:00)");
        assert_eq!(shown(-11_644_473_599), "Mon Jan  1 00:00:01.000 1601 (UTC + 0:00)");
        let json = serde_json::to_string(&TargetTime::of_filetime(130_160_739_201_180_000)).unwrap();
        assert_eq!(json, r#""2013-06-19T00:05:20.118Z""#);
        assert_eq!((TargetTime::of_filetime(0), TargetTime::of_filetime(u64::MAX)), (None, None));
        assert!(TargetTime::of_filetime(i64::MAX as u64).unwrap().to_string().contains(" 30828 "));
    }

    #[test]
    fn how_long_it_has_been_running_is_told_in_windbgs_columns() {
        let shown = |milliseconds: u64| TargetUptime::of_hundreds(milliseconds * 10_000).to_string();
        assert_eq!(shown(0), "0 days 0:00:00.000");
        assert_eq!(shown(3 * 86_400_000 + 11 * 3_600_000 + 7 * 60_000 + 9_042), "3 days 11:07:09.042");
        assert!(TargetUptime::of_hundreds(u64::MAX).to_string().starts_with("21350398 days 5:"));
    }
}
