//! `~Ns`: another processor's registers.
//!
//! ```text
//! 0: kd> ~1s
//! 1: kd> r rip
//! rip=fffff8000138f2a9
//! ```
//! Of a live target its kernel says them, of a virtual machine its monitor or its core, of a crash dump what the kernel kept
//! in each processor's block. The choice ends when the target runs. Source: docs/dumps.md 9.

use std::fmt;

use serde::Serialize;

use super::answer::{Facts, Found};
use super::arguments::Arguments;
use super::context::Context;
use super::error::QueryError;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, Glued, Run, Takes};
use crate::target::{Target, TargetError};

pub(super) static COMMAND: CommandSpec = CommandSpec {
    names: &["~"],
    usage: "~Ns",
    summary: "choose the processor whose registers are shown",
    takes: Takes::Arguments(Glued::Anything),
    category: Category::Memory,
    details: &[],
    answers: &[ChosenProcessor::SCHEMA],
    run: Run::Query(run),
};

/// Whose registers are asked for from here on.
#[derive(Clone, Copy, Debug, Serialize, schemars::JsonSchema)]
pub(super) struct ChosenProcessor {
    processor: u16,
}

impl ChosenProcessor {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("chosen_processor");
}

impl Facts for ChosenProcessor {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    /// The prompt shows it.
    fn write_text(&self, _: &Context, _: &mut dyn fmt::Write) -> fmt::Result {
        Ok(())
    }
}

fn run(text: &str, target: &Target<'_>) -> Found {
    let arguments = Arguments::new(&COMMAND, text);
    let number = text.strip_suffix(['s', 'S']).unwrap_or(text);
    let Ok(processor) = number.parse::<u16>() else {
        return Err(arguments.usage("a processor is chosen by its number, and then asked: ~1s; r"));
    };
    // What cannot be asked is not chosen.
    target.registers_of(Some(processor)).map_err(|cause| QueryError::Target {
        command: COMMAND.names[0],
        source: TargetError::NoRegistersOf { processor, cause },
    })?;
    target.kernel().choose_processor(Some(processor));
    Ok(Box::new(ChosenProcessor { processor }))
}
