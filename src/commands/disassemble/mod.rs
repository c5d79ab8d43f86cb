//! `u`, `ub`, `uf`: instructions.
//!
//! ```text
//! 0: kd> u nt!KiIdleLoop+0x108 L2
//! nt!KiIdleLoop+0x108:
//! fffff800`01481458 e8938f5800      call    hal!HalProcessorIdle (fffff800`01a0a3f0)
//! fffff800`0148145d ebf1            jmp     nt!KiIdleLoop+0x100 (fffff800`01481450)
//! ```
//! `u` goes on where it ended, as long as the target stands still. `ub` begins where the unwind information says that the
//! code does, so that it shows what runs; without that it takes the instructions that are likeliest, and says so. `uf` follows
//! jumps, but not out of the function. Reads only. Source: docs/stacks.md 5.

mod backward;
mod function;
mod listing;

use kd_protocol::MachineType;

use self::listing::{Decoded, Listing, lines, miss};
use super::answer::Found;
use super::arguments::Arguments;
use super::error::QueryError;
use super::spec::{Category, CommandSpec, Glued, Run, Takes};
use crate::target::{Note, NoteCode, Target, TargetError, VirtAddr};

/// Instructions that are shown unless told otherwise: WinDbg's number.
const USUAL: usize = 8;
/// Most instructions that are shown.
const MOST: usize = 0x2000;

pub(super) static U: CommandSpec = CommandSpec {
    names: &["u"],
    usage: "u [ADDRESS] [L COUNT | END]",
    summary: "show instructions",
    takes: Takes::Arguments(Glued::Slash),
    category: Category::Memory,
    details: &[
        (
            "ADDRESS",
            "where the first one is; else where the last `u` of this stop ended, or the program counter",
        ),
        ("L COUNT | END", "how many (hexadecimal), or up to which address; 8 unless told otherwise"),
    ],
    answers: &[Listing::SCHEMA],
    run: Run::Query(forward),
};

pub(super) static UB: CommandSpec = CommandSpec {
    names: &["ub"],
    usage: "ub [ADDRESS] [L COUNT]",
    summary: "show the instructions before an address",
    takes: Takes::Arguments(Glued::Slash),
    category: Category::Memory,
    details: &[(
        "[ADDRESS] [L COUNT]",
        "the 8, or COUNT (hexadecimal), instructions before it, or before the program counter",
    )],
    answers: &[Listing::SCHEMA],
    run: Run::Query(backward),
};

pub(super) static UF: CommandSpec = CommandSpec {
    names: &["uf"],
    usage: "uf [ADDRESS]",
    summary: "show the instructions of a function",
    takes: Takes::Arguments(Glued::Slash),
    category: Category::Memory,
    details: &[("ADDRESS", "any address in it; else the program counter")],
    answers: &[Listing::SCHEMA],
    run: Run::Query(function),
};

fn forward(text: &str, target: &Target<'_>) -> Found {
    let mut arguments = begin(&U, text, target)?;
    let start = match target.kernel().code_position(target.memory().stop()) {
        Some(next) if arguments.is_empty() || arguments.begins_with_length() => next,
        _ => address(&mut arguments, target, &U)?,
    };
    let (mut most, mut last) = (count(&mut arguments, target)?, None);
    if most.is_none() && !arguments.is_empty() {
        let end = arguments.address(target)?;
        if end < start {
            return Err(arguments.usage(format!(
                "the range ends at {}, before it begins at {}",
                target.shown(end),
                target.shown(start)
            )));
        }
        (most, last) = (Some(MOST), Some(end));
    }
    arguments.end()?;
    let most = most.unwrap_or(USUAL);
    let (mut instructions, mut at, mut missing) = (Vec::new(), start, None);
    while instructions.len() < most && last.is_none_or(|last| at <= last) {
        match Decoded::at(target, at) {
            Ok(decoded) => {
                let next = decoded.next(target);
                instructions.push(decoded);
                // The address space ends.
                if next <= at {
                    break;
                }
                at = next;
            }
            Err(cause) => {
                missing = Some(cause);
                break;
            }
        }
    }
    if last.is_some_and(|last| at <= last) && instructions.len() == most {
        let text = format!("There are more: u {} goes on.", target.shown(at));
        target.note(Note::partial(NoteCode::Limit, text));
    }
    target.kernel().set_code_position(target.memory().stop(), at);
    let mut lines = lines(target, instructions, &|_| false);
    if let Some(cause) = missing {
        miss(target, at, &cause, &mut lines);
    }
    Ok(Box::new(Listing::new(lines)))
}

fn backward(text: &str, target: &Target<'_>) -> Found {
    let mut arguments = begin(&UB, text, target)?;
    let end = address(&mut arguments, target, &UB)?;
    let most = count(&mut arguments, target)?.unwrap_or(USUAL);
    arguments.end()?;
    Ok(Box::new(backward::before(target, end, most)))
}

fn function(text: &str, target: &Target<'_>) -> Found {
    let mut arguments = begin(&UF, text, target)?;
    let at = address(&mut arguments, target, &UF)?;
    arguments.end()?;
    Ok(Box::new(function::around(target, at)))
}

/// The command's arguments, if the target's instructions are known here.
fn begin<'a>(
    spec: &'static CommandSpec,
    text: &'a str,
    target: &Target<'_>,
) -> Result<Arguments<'a>, QueryError> {
    let machine = match target.kernel().version().machine {
        MachineType::AMD64 | MachineType::I386 => return Ok(Arguments::new(spec, text)),
        MachineType::ARM64 => "ARM64",
        _ => "such",
    };
    let what = "instructions are those of x64 and x86 here; `db` shows the bytes, `ln` the symbol".to_owned();
    let source = TargetError::NotSupported { machine, what };
    Err(QueryError::Target { command: spec.names[0], source })
}

/// The address that comes next, or where the processor stands.
fn address(
    arguments: &mut Arguments<'_>,
    target: &Target<'_>,
    spec: &'static CommandSpec,
) -> Result<VirtAddr, QueryError> {
    if !arguments.is_empty() && !arguments.begins_with_length() {
        return arguments.address(target);
    }
    let failed = |source| QueryError::Target { command: spec.names[0], source };
    Ok(target.registers().map_err(failed)?.program_counter())
}

/// `L COUNT`, if it comes next.
fn count(arguments: &mut Arguments<'_>, target: &Target<'_>) -> Result<Option<usize>, QueryError> {
    if !arguments.skip_length() {
        return Ok(None);
    }
    match arguments.expression(target)? {
        number if (1..=MOST as u64).contains(&number) => Ok(Some(number as usize)),
        other => Err(arguments.usage(format!("{other:#x} is no number of instructions from 1 to {MOST:#x}"))),
    }
}
