//! Numbers and times: as the C library prints them, because WinDbg does, and as people read them.

use std::fmt;

/// A count of things: `1 block`, `1,234 blocks`.
#[must_use]
pub fn counted(count: u64, what: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{} {what}{s}", grouped(count))
}

/// A number as C's `%g` prints it: six significant digits, trailing zeros left out.
#[must_use]
pub fn general(value: f64) -> String {
    const DIGITS: i32 = 6;
    if value == 0.0 {
        return if value.is_sign_negative() { "-0".into() } else { "0".into() };
    }
    if !value.is_finite() {
        return value.to_string().to_lowercase();
    }
    let scientific = format!("{value:.*e}", DIGITS as usize - 1);
    let (mantissa, exponent) = scientific.split_once('e').expect("`e` formats have an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent is a number");
    if (-4..DIGITS).contains(&exponent) {
        return trimmed(&format!("{value:.*}", (DIGITS - 1 - exponent) as usize)).to_owned();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trimmed(mantissa), exponent.abs())
}

/// Without zeros at the end of a fraction.
fn trimmed(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// Seconds since 1970 as C's `ctime` prints them, in UTC: `Mon Jan  7 23:31:46 1985`.
#[must_use]
pub fn unix_time(seconds: i64) -> String {
    ctime(seconds, format_args!(""))
}

/// Milliseconds since 1970 as WinDbg prints them, in UTC: `Mon Jan  7 23:31:46.118 1985`.
#[must_use]
pub fn unix_time_ms(milliseconds: i64) -> String {
    ctime(milliseconds.div_euclid(1000), format_args!(".{:03}", milliseconds.rem_euclid(1000)))
}

/// Milliseconds since 1970 of a `FILETIME`, which counts 100 ns since 1601; nothing for one that no clock shows.
#[must_use]
pub const fn unix_ms_of_filetime(filetime: u64) -> Option<i64> {
    const PER_MILLISECOND: i64 = 10_000;
    const TO_1970: i64 = 11_644_473_600_000;
    if filetime > i64::MAX as u64 {
        return None;
    }
    Some(filetime.cast_signed() / PER_MILLISECOND - TO_1970)
}

/// `fraction` follows the seconds.
fn ctime(seconds: i64, fraction: fmt::Arguments<'_>) -> String {
    const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let Date { year, month, day, time: (hour, minute, second) } = Date::of(seconds);
    let weekday = WEEKDAYS[seconds.div_euclid(DAY).rem_euclid(7) as usize];
    let month = MONTHS[month as usize];
    format!("{weekday} {month} {day:>2} {hour:02}:{minute:02}:{second:02}{fraction} {year}")
}

/// Seconds since 1970 as ISO 8601 writes them, in UTC and without saying so: `1985-01-07T23:31:46`.
#[must_use]
pub fn iso_time(seconds: i64) -> String {
    let Date { year, month, day, time: (hour, minute, second) } = Date::of(seconds);
    format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}", month + 1)
}

const DAY: i64 = 86_400;

/// A moment in the calendar; months count from 0.
struct Date {
    year: i64,
    month: i64,
    day: i64,
    time: (i64, i64, i64),
}

impl Date {
    fn of(seconds: i64) -> Self {
        let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        // Years begin in March here, so that a leap day ends one: 400 of them have 146,097 days.
        let from_era = days + 719_468;
        let (era, day) = (from_era.div_euclid(146_097), from_era.rem_euclid(146_097));
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day_of_year = day - (365 * year + year / 4 - year / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * from_march + 2) / 5 + 1;
        let month = (from_march + 2) % 12;
        let year = era * 400 + year + i64::from(month < 2);
        Self { year, month, day, time: (second / 3600, second / 60 % 60, second % 60) }
    }
}

/// A number whose thousands are set apart: `12,345`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes in the unit that suits it: `9.80 MiB`.
#[must_use]
pub fn binary(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut scaled = bytes as f64 / 1024.0;
    for unit in UNITS {
        if scaled < 1024.0 {
            return format!("{scaled:.2} {unit}");
        }
        scaled /= 1024.0;
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_at_a_glance() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0x9c_e000, 0x200, u64::MAX].map(binary), ["9.80 MiB", "0.50 KiB", "16.00 EiB"]);
    }

    #[test]
    fn numbers_print_as_percent_g_does() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (0.5, "0.5"),
            (1234.5678, "1234.57"),
            (1_234_567.0, "1.23457e+06"),
            (0.000_012_345_67, "1.23457e-05"),
            (0.000_123_4, "0.0001234"),
            (-2.5e300, "-2.5e+300"),
            (f64::NAN, "nan"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(general(value), text);
        }
    }

    #[test]
    fn times_print_as_ctime_does() {
        assert_eq!(unix_time(473_988_706), "Mon Jan  7 23:31:46 1985");
        assert_eq!(unix_time(0x5029_6a10), "Mon Aug 13 20:56:48 2012");
        assert_eq!(unix_time(951_782_400), "Tue Feb 29 00:00:00 2000");
        assert_eq!(iso_time(951_782_400), "2000-02-29T00:00:00");
        assert_eq!(iso_time(473_988_706), "1985-01-07T23:31:46");
        assert_eq!(unix_time(-1), "Wed Dec 31 23:59:59 1969");
        assert_eq!(unix_time(-11_644_473_600), "Mon Jan  1 00:00:00 1601");
    }
}
