//! `t`, `p`, `gu`: the target runs for one instruction, over a call, out of a function.
//!
//! ```text
//! 0: kd> p
//! nt!KdCheckForDebugBreak+0x3b:
//! fffff800`014d9a6b 4883c428        add     rsp,28h
//! ```
//! The other processors run meanwhile. What is shown is the stop that follows, as with `g`; of several steps each.

use super::arguments::Arguments;
use super::control::LetGo;
use super::error::QueryError;
use super::spec::{Category, CommandSpec, ControlCommand, Glued, Run, Takes};
use crate::target::Target;

/// More steps than anybody waits for, each of which stops the whole machine: a count above is a slip, as `-1` is.
const MAX_STEPS: u64 = 0x10000;

macro_rules! steps {
    ($($spec:ident $name:literal $command:ident $summary:literal;)+) => {$(
        pub(super) static $spec: CommandSpec = CommandSpec {
            names: &[$name],
            usage: concat!($name, " [COUNT]"),
            summary: $summary,
            takes: Takes::Arguments(Glued::Slash),
            category: Category::Target,
            details: &[("COUNT", "so often, in hexadecimal, 10000 at the most; whatever else stops the target ends that")],
            answers: &[LetGo::SCHEMA],
            run: Run::Control(ControlCommand::$command),
        };
    )+};
}

steps! {
    TRACE "t" Trace "let the processor carry out one instruction; the others run meanwhile";
    STEP "p" StepOver "the same, but a call to its end";
    OUT "gu" StepOut "let the target run until the function that it is in returns to its caller";
}

/// How many steps `command` is told to make: one unless it is told more, `MAX_STEPS` at the most.
///
/// # Errors
/// [`QueryError::Usage`], and that of an expression.
pub fn steps(command: ControlCommand, text: &str, target: &Target<'_>) -> Result<u64, QueryError> {
    let spec = match command {
        ControlCommand::Trace => &TRACE,
        ControlCommand::StepOver => &STEP,
        _ => &OUT,
    };
    let mut arguments = Arguments::new(spec, text);
    if arguments.is_empty() {
        return Ok(1);
    }
    let count = arguments.expression(target)?;
    arguments.end()?;
    match count {
        0 => Err(arguments.usage("no step is none")),
        1..=MAX_STEPS => Ok(count),
        _ => Err(arguments.usage(format!("{count:#x} is no number of steps: 1 to {MAX_STEPS:#x}"))),
    }
}
