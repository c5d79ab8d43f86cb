//! The stack that allocated a block, under the block's line: WinDbg has none there.

use std::fmt::{self, Write};

use crate::commands::context::Context;
use crate::commands::verifier::pool_log::{BlockTrace, TraceOutcome};

/// Writes what the pool log has of a block's allocation, each line behind `indent`.
///
/// # Errors
/// The writer's.
pub(super) fn write_trace(
    trace: &BlockTrace,
    indent: &str,
    context: &Context,
    out: &mut dyn Write,
) -> fmt::Result {
    let why = match trace.outcome {
        TraceOutcome::Logged => {
            let (age, size) = (trace.age.unwrap_or(0), trace.size.unwrap_or(0));
            let thread = trace.thread.map(|thread| context.pointer(thread).to_string());
            writeln!(
                out,
                "{indent}allocated {age} log entries ago, {size:#x} bytes, thread {}",
                thread.unwrap_or_default()
            )?;
            for frame in &trace.stack {
                write!(out, "{indent}  {}", context.pointer(frame.address))?;
                match &frame.symbol {
                    Some(symbol) => writeln!(out, " {symbol}")?,
                    None => writeln!(out)?,
                }
            }
            return Ok(());
        }
        TraceOutcome::NotInLog => "the pool log no longer holds its allocation",
        TraceOutcome::OtherEvent => "the pool log's newest entry about it is not of its allocation",
        TraceOutcome::Unreadable => "its entry of the pool log cannot be read",
        TraceOutcome::NotLookedUp => "not looked for in the pool log",
    };
    writeln!(out, "{indent}{why}")
}
