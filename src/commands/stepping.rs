//! `t`, `p`, `gu`: the target runs for one instruction, over a call, out of a function.
//!
//! ```text
//! 0: kd> p
//! nt!KdCheckForDebugBreak+0x3b:
//! fffff800`014d9a6b 4883c428        add     rsp,28h
//! ```
//! The other processors run meanwhile. What is shown is the stop that follows, as with `g`.

use super::control::LetGo;
use super::spec::{Category, CommandSpec, ControlCommand, Run, Takes};

macro_rules! steps {
    ($($spec:ident $name:literal $command:ident $summary:literal;)+) => {$(
        pub(super) static $spec: CommandSpec = CommandSpec {
            names: &[$name],
            usage: $name,
            summary: $summary,
            takes: Takes::Nothing,
            category: Category::Target,
            details: &[],
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
