//! `.maxstop`: how long one stop of a question may take.
//!
//! ```text
//! 0: kd> .maxstop 50ms
//! A stop of a question takes 50 ms at the longest; the target runs for 200 ms between two
//! ```
//! Where a question takes longer, the target is let run in between, as far as the answer can bear that: what `!leaks` and
//! `!verifier 3` list is of one moment all the same, and a log is read as it was when the reading began.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::answer::Facts;
use super::context::Context;
use super::error::QueryError;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, ControlCommand, Glued, Run, Takes};

pub(super) static COMMAND: CommandSpec = CommandSpec {
    names: &[".maxstop"],
    usage: ".maxstop [TIME [TIME]|off]",
    summary: "show or choose how long one stop of a question may take, and how long the target runs between two",
    takes: Takes::Arguments(Glued::Slash),
    category: Category::Target,
    details: &[
        (".maxstop", "show it"),
        (".maxstop 50ms", "no stop of a long question takes longer; the target runs for 200 ms between two"),
        (".maxstop 50ms 1s", "and for a second between two"),
        (".maxstop off", "each question takes one stop, as long as it needs"),
    ],
    answers: &[StopsInForce::SCHEMA],
    run: Run::Control(ControlCommand::ShortStops),
};

/// What the arguments of `.maxstop` ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxStop {
    /// Nothing is changed.
    Show,
    /// Each question takes one stop.
    Off,
    /// The longest stop, and the time between two if it is given.
    Within(Duration, Option<Duration>),
}

impl MaxStop {
    /// Reads what was typed behind the name.
    ///
    /// # Errors
    /// [`QueryError::Usage`].
    pub fn parse(arguments: &str) -> Result<Self, QueryError> {
        let usage = |problem| QueryError::Usage { command: COMMAND.names[0], problem, usage: COMMAND.usage };
        let time = |word: &str| {
            duration(word)
                .filter(|time| !time.is_zero())
                .ok_or_else(|| usage(format!("`{word}` is no time, such as 50ms, 1.5s or 2m")))
        };
        match arguments.split_whitespace().collect::<Vec<_>>()[..] {
            [] => Ok(Self::Show),
            [word] if word.eq_ignore_ascii_case("off") => Ok(Self::Off),
            [longest] => Ok(Self::Within(time(longest)?, None)),
            [longest, breath] => Ok(Self::Within(time(longest)?, Some(time(breath)?))),
            _ => Err(usage("two times at the most".to_owned())),
        }
    }
}

/// A time as people write it; a number alone means milliseconds.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|it: char| !it.is_ascii_digit() && it != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "us" => 1e-6,
        "" | "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
}

/// How long stops may take.
#[derive(Clone, Copy, Debug, Serialize, schemars::JsonSchema)]
pub struct StopsInForce {
    /// Microseconds that one stop of a question takes at the longest; nothing if each takes one stop, as long as it needs.
    pub longest_us: Option<u64>,
    /// Microseconds that the target runs between two.
    pub breath_us: Option<u64>,
}

impl StopsInForce {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("stops");

    /// A stop takes `longest` at the most, and the target runs for `breath` between two; nothing if stops are not bounded.
    #[must_use]
    pub fn new(limits: Option<(Duration, Duration)>) -> Self {
        let microseconds = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Self {
            longest_us: limits.map(|(longest, _)| microseconds(longest)),
            breath_us: limits.map(|(_, breath)| microseconds(breath)),
        }
    }
}

impl Facts for StopsInForce {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, _: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        let (Some(longest), Some(breath)) = (self.longest_us, self.breath_us) else {
            return writeln!(out, "A question takes one stop, as long as it needs");
        };
        let [longest, breath] = [longest, breath].map(|it| it as f64 / 1000.0);
        writeln!(
            out,
            "A stop of a question takes {longest} ms at the longest; the target runs for {breath} ms between two"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let within = |longest, breath: Option<u64>| {
            MaxStop::Within(Duration::from_millis(longest), breath.map(Duration::from_millis))
        };
        for (typed, meant) in [
            ("", MaxStop::Show),
            ("OFF", MaxStop::Off),
            ("50ms", within(50, None)),
            ("50", within(50, None)),
            ("1.5s  200ms", within(1500, Some(200))),
            ("2m", within(120_000, None)),
        ] {
            assert_eq!(MaxStop::parse(typed).unwrap(), meant, "{typed}");
        }
        for (typed, problem) in [
            ("soon", "`soon` is no time"),
            ("1h", "no time"),
            ("0ms", "no time"),
            ("1 2 3", "two times"),
            ("-5", "no time"),
        ] {
            let error = MaxStop::parse(typed).unwrap_err();
            assert!(error.is_usage() && error.to_string().contains(problem), "{typed}: {error}");
        }
    }
}
