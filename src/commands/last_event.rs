//! `.lastevent`: why the target stopped the last time, and when.
//!
//! ```text
//! 0: kd> .lastevent
//! Last event: Break instruction exception - code 80000003 (first chance)
//!   at nt!DbgBreakPointWithStatus, fffff800`014829f0, on processor 0
//!   debugger time: Thu Nov 26 08:00:00.000 2026 (UTC + 0:00)
//! ```
//! A value: the shell, which announces stops, keeps it.

use std::fmt;

use serde::Serialize;

use super::answer::Facts;
use super::clock::TargetTime;
use super::context::Context;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, ControlCommand, Run, Takes};
use crate::output;
use crate::target::VirtAddr;

pub(super) static COMMAND: CommandSpec = CommandSpec {
    names: &[".lastevent", ".eventlog"],
    usage: ".lastevent",
    summary: "show why and where the target stopped the last time",
    takes: Takes::Nothing,
    category: Category::Target,
    details: &[],
    answers: &[LastEvent::SCHEMA],
    run: Run::Control(ControlCommand::LastEvent),
};

/// Why a target stopped, as far as somebody here wanted that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventCause {
    /// Nobody here did: an exception, a bug check, a break-in.
    Event,
    /// It came by a breakpoint.
    Breakpoint,
    /// A step is over, or the address reached that it was let run to.
    Arrived,
}

/// A stop that was announced.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct LastEvent {
    /// In WinDbg's words.
    event: String,
    cause: EventCause,
    /// The number of the breakpoint.
    breakpoint: Option<u32>,
    /// The processor that reported it.
    processor: u16,
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    program_counter: VirtAddr,
    symbol: String,
    /// By this machine's clock, UTC.
    debugger_time: TargetTime,
}

impl LastEvent {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("last_event");

    /// One that is announced at `unix_ms`, milliseconds since 1970.
    #[must_use]
    pub fn new(
        event: String,
        (cause, breakpoint): (EventCause, Option<u32>),
        processor: u16,
        program_counter: VirtAddr,
        symbol: String,
        unix_ms: u64,
    ) -> Self {
        let debugger_time = TargetTime::of_unix_ms(unix_ms);
        Self { event, cause, breakpoint, processor, program_counter, symbol, debugger_time }
    }
}

impl Facts for LastEvent {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        let at = context.address(self.program_counter);
        writeln!(out, "Last event: {}", self.event)?;
        writeln!(out, "  at {}, {at}, on processor {}", self.symbol, self.processor)?;
        writeln!(out, "  debugger time: {}", self.debugger_time)
    }
}
