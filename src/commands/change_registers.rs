//! `r REGISTER=VALUE`: changes registers of the CPU that stopped, or was chosen.
//!
//! ```text
//! 0: kd> r rax=0
//! 0: kd> r zf=1, rip=@rip+2
//! ```
//! Says nothing if it took. A part of a register leaves the rest of it as it is. Only where writing is allowed: `--write`,
//! `.allow_write`.

use std::fmt;

use serde::Serialize;

use super::answer::{Facts, Found};
use super::arguments::Arguments;
use super::context::Context;
use super::error::QueryError;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, Glued, Run, Takes};
use crate::output;
use crate::target::{Note, NoteCode, RegisterPlace, Target, VirtAddr, pseudo_register};

/// Found by the equals sign in its arguments: to look at registers is another command of the same name.
pub(super) static COMMAND: CommandSpec = CommandSpec {
    names: &["r"],
    usage: "r REGISTER=VALUE[, REGISTER=VALUE ...]",
    summary: "change registers of the CPU that stopped, or was chosen",
    takes: Takes::Arguments(Glued::Slash),
    category: Category::Memory,
    details: &[],
    answers: &[ChangedRegisters::SCHEMA],
    run: Run::Change(run),
};

/// Registers that were written.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub(super) struct ChangedRegisters {
    changed: Vec<Changed>,
}

#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
struct Changed {
    register: String,
    /// What was written.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    value: VirtAddr,
    /// True if the target says that it is so now.
    took: bool,
}

impl ChangedRegisters {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("changed_registers");
}

impl Facts for ChangedRegisters {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    /// As WinDbg: nothing.
    fn write_text(&self, _: &Context, _: &mut dyn fmt::Write) -> fmt::Result {
        Ok(())
    }
}

fn run(text: &str, target: &Target<'_>) -> Found {
    let machine = target.kernel().version().machine;
    let mut values = Vec::new();
    for change in text.split(',') {
        let arguments = Arguments::new(&COMMAND, change);
        let Some((name, value)) = change.split_once('=') else {
            return Err(arguments.usage(format!("`{}` is no REGISTER=VALUE", change.trim())));
        };
        let mut name = name.trim().trim_start_matches('@').to_ascii_lowercase();
        if let Some(real) = name.strip_prefix('$').and_then(|name| pseudo_register(machine, name)) {
            name = real.to_owned();
        }
        if name.starts_with('$') {
            let problem = format!(
                "`{name}` is a variable of WinDbg's scripts, which are not carried out here: it is not set"
            );
            return Err(arguments.usage(problem));
        }
        let Some(place) = RegisterPlace::of(machine, &name) else {
            let problem = format!(
                "`{name}` is not written here: general registers, their parts, the program counter and flags are"
            );
            return Err(arguments.usage(problem));
        };
        let mut arguments = Arguments::new(&COMMAND, value);
        let value = arguments.expression(target)?;
        arguments.end()?;
        if place.bits < 64 && value >> place.bits != 0 && (value as i64) >> (place.bits - 1) != -1 {
            return Err(arguments.usage(format!(
                "{value:#x} does not fit {name}, which has {}",
                output::counted(place.bits.into(), "bit")
            )));
        }
        values.push((name, place, value & (u64::MAX >> (64 - place.bits))));
    }
    let places: Vec<_> = values.iter().map(|(_, place, value)| (*place, *value)).collect();
    let there = target.change_registers(&places);
    let there = there.map_err(|source| QueryError::Target { command: COMMAND.names[0], source })?;
    let mut changed = Vec::new();
    for (name, _, value) in values {
        let is = there.get(&name).map_or(0, |register| register.value);
        let took = is == value;
        if !took {
            let text = format!("{name} is {is:x}: the target did not take {value:x}.");
            target.note(Note::failed(NoteCode::NotWritten, text));
        }
        changed.push(Changed { register: name, value: VirtAddr(value), took });
    }
    Ok(Box::new(ChangedRegisters { changed }))
}
