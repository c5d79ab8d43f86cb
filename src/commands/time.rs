//! `.time` and `.echotime`: the target's clocks, and this machine's.
//!
//! ```text
//! 0: kd> .time
//! Debug session time: Wed Jun 19 00:05:20.118 2013 (UTC + 0:00)
//! System Uptime: 0 days 0:05:20.118
//! 0: kd> .echotime
//! Debugger (not debuggee) time: Thu Nov 26 08:00:00.000 2026 (UTC + 0:00)
//! ```

use std::fmt;

use serde::Serialize;

use super::answer::{Facts, Found};
use super::clock::{TargetTime, TargetUptime};
use super::context::Context;
use super::error::QueryError;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, ControlCommand, Run, Takes};
use super::version::Clocks;
use crate::target::Target;

pub(super) static TIME: CommandSpec = CommandSpec {
    names: &[".time"],
    usage: ".time",
    summary: "show the time of the stop by the target's clock, and how long the target had been running",
    takes: Takes::Nothing,
    category: Category::Target,
    details: &[],
    answers: &[Times::SCHEMA],
    run: Run::Query(times),
};

pub(super) static ECHOTIME: CommandSpec = CommandSpec {
    names: &[".echotime"],
    usage: ".echotime",
    summary: "show the time by the clock of the machine that verikd runs on",
    takes: Takes::Nothing,
    category: Category::Session,
    details: &[],
    answers: &[OwnTime::SCHEMA],
    run: Run::Control(ControlCommand::EchoTime),
};

/// A stopped target's clocks.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
struct Times {
    /// UTC: `2013-06-19T00:05:20.118Z`.
    system_time: Option<TargetTime>,
    /// In milliseconds.
    uptime_ms: Option<TargetUptime>,
}

impl Times {
    /// The form of its JSON.
    const SCHEMA: Schema = Schema::of::<Self>("times");
}

impl Facts for Times {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, _: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        match &self.system_time {
            Some(time) => writeln!(out, "Debug session time: {time}")?,
            None => writeln!(out, "Debug session time: not available")?,
        }
        match &self.uptime_ms {
            Some(up) => writeln!(out, "System Uptime: {up}"),
            None => writeln!(out, "System Uptime: not available"),
        }
    }
}

fn times(_: &str, target: &Target<'_>) -> Found {
    let clocks = Clocks::read(target);
    let times = Times {
        system_time: clocks.system_time.and_then(TargetTime::of_filetime),
        uptime_ms: clocks.up_time.map(TargetUptime::of_hundreds),
    };
    if times.system_time.is_none() && times.uptime_ms.is_none() {
        let why = clocks.missing.map_or_else(|| "they are not set".to_owned(), |error| error.to_string());
        let reason = format!("the target's clocks (KUSER_SHARED_DATA) cannot be read: {why}");
        return Err(QueryError::NoData { command: ".time", reason });
    }
    Ok(Box::new(times))
}

/// This machine's clock.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct OwnTime {
    /// UTC.
    debugger_time: TargetTime,
}

impl OwnTime {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("debugger_time");

    /// A time in milliseconds since 1970.
    #[must_use]
    pub fn of_unix_ms(unix_ms: u64) -> Self {
        Self { debugger_time: TargetTime::of_unix_ms(unix_ms) }
    }
}

impl Facts for OwnTime {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, _: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(out, "Debugger (not debuggee) time: {}", self.debugger_time)
    }
}
