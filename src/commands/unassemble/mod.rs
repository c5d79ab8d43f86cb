//! `u`, `ub`, `uf`: instructions of x64 and x86 targets.
//!
//! ```text
//! 0: kd> u nt!DbgBreakPointWithStatus L2
//! nt!DbgBreakPointWithStatus:
//! fffff800`014846a0 cc              int     3
//! fffff800`014846a1 c3              ret
//! ```
//! The bytes are the target's, decoded by the library iced-x86 and written as WinDbg writes them: an address in an operand is
//! followed by nothing if it has no name, else it stands behind the name. Reads only. Source: docs/stacks.md 5.

mod backwards;
mod code;
mod flow;
mod instruction;
mod report;
#[cfg(test)]
mod tests;

use super::answer::Found;
use super::arguments::{Arguments, Stretch};
use super::error::QueryError;
use super::spec::{Category, CommandSpec, Glued, Run, Takes};
use crate::memory::StopId;
use crate::target::{Target, TargetError, VirtAddr};

use code::{Code, MOST};
use instruction::Instruction;
use report::Unassembly;

pub use report::InstructionLine;

/// Instructions that are shown unless told otherwise: WinDbg's number.
const USUAL: u64 = 8;
/// Longest range that is shown.
const LONGEST: u64 = 0x1_0000;

pub(super) static U: CommandSpec = CommandSpec {
    names: &["u"],
    usage: "u [ADDRESS [L COUNT | END]]",
    summary: "show instructions",
    takes: Takes::Arguments(Glued::Slash),
    category: Category::Memory,
    details: &[
        (
            "ADDRESS",
            "from there on; where the last one ended, or where the processor is in a new stop, without",
        ),
        ("L COUNT", "so many instructions (hexadecimal), 8 unless told otherwise"),
        ("END", "up to the one at that address"),
    ],
    answers: &[Unassembly::SCHEMA],
    run: Run::Query(unassemble),
};

pub(super) static UB: CommandSpec = CommandSpec {
    names: &["ub"],
    usage: "ub [ADDRESS [L COUNT]]",
    summary: "show the instructions before an address",
    takes: Takes::Arguments(Glued::Slash),
    category: Category::Memory,
    details: &[
        ("ADDRESS", "before that one, such as a return address: the last one shown is the call"),
        ("L COUNT", "so many instructions (hexadecimal), 8 unless told otherwise"),
    ],
    answers: &[Unassembly::SCHEMA],
    run: Run::Query(before),
};

pub(super) static UF: CommandSpec = CommandSpec {
    names: &["uf"],
    usage: "uf [ADDRESS]",
    summary: "show the function that an address lies in",
    takes: Takes::Arguments(Glued::Slash),
    category: Category::Memory,
    details: &[("ADDRESS", "any of the function's; where the processor is without")],
    answers: &[Unassembly::SCHEMA],
    run: Run::Query(function),
};

/// Where the next `u` of this stop begins.
struct Position {
    stop: StopId,
    next: VirtAddr,
}

fn unassemble(text: &str, target: &Target<'_>) -> Found {
    let mut arguments = Arguments::new(&U, text);
    let start = start(&mut arguments, target)?;
    let stretch = arguments.stretch(target)?;
    arguments.end()?;
    let code = Code::of(target).map_err(|why| failed(&U, why))?;
    let report = match stretch {
        None => code.forwards(start, USUAL),
        Some(Stretch::Count(count)) => code.forwards(start, bounded(&arguments, count)?),
        Some(Stretch::End(end)) if end < start => {
            let (end, start) = (target.shown(end), target.shown(start));
            return Err(arguments.usage(format!("the range ends at {end}, before it begins at {start}")));
        }
        Some(Stretch::End(end)) if end.since(start) >= LONGEST => {
            let len = end.since(start);
            return Err(
                arguments.usage(format!("{len:#x} bytes are more than the {LONGEST:#x} shown at once"))
            );
        }
        Some(Stretch::End(end)) => code.up_to(start, end),
    };
    remember(target, report.end);
    Ok(Box::new(report))
}

fn before(text: &str, target: &Target<'_>) -> Found {
    let mut arguments = Arguments::new(&UB, text);
    let end = start(&mut arguments, target)?;
    let count = match arguments.stretch(target)? {
        None => USUAL,
        Some(Stretch::Count(count)) => bounded(&arguments, count)?,
        Some(Stretch::End(_)) => return Err(arguments.usage("how many come before is told by L COUNT")),
    };
    arguments.end()?;
    let code = Code::of(target).map_err(|why| failed(&UB, why))?;
    let report = backwards::before(&code, end, count);
    remember(target, report.instructions.first().map_or(end, |first| first.address));
    Ok(Box::new(report))
}

fn function(text: &str, target: &Target<'_>) -> Found {
    let mut arguments = Arguments::new(&UF, text);
    let at = start(&mut arguments, target)?;
    arguments.end()?;
    let code = Code::of(target).map_err(|why| failed(&UF, why))?;
    Ok(Box::new(flow::function(&code, at)))
}

/// The instruction at an address, as it is shown where the target stopped: from the bytes that the target reported with the
/// stop, or else from its memory. Nothing if it cannot be read, or is of a machine whose instructions are not known here.
///
/// What an operand refers to is named only if it lies in the module of the instruction, so that no other is asked for.
#[must_use]
pub fn instruction_at(target: &Target<'_>, address: VirtAddr, reported: &[u8]) -> Option<InstructionLine> {
    let code = Code::of(target).ok()?;
    code.one(address, reported)
}

/// Where an instruction ends that a step goes over: a call, or one that is repeated. Nothing if it is no such one. `reported` is as
/// for [`instruction_at`].
#[must_use]
pub fn end_of_call(target: &Target<'_>, address: VirtAddr, reported: &[u8]) -> Option<VirtAddr> {
    let code = Code::of(target).ok()?;
    code.instruction(address, reported).filter(Instruction::is_stepped_over).map(|it| it.end())
}

/// The instruction whose last four bytes lie at `constant`, by where the function's part begins whose code it is. Nothing
/// where no such part is known, and where instructions from its beginning meet the constant otherwise.
#[must_use]
pub(super) fn instruction_with(target: &Target<'_>, constant: VirtAddr) -> Option<InstructionLine> {
    Code::of(target).ok()?.with(constant)
}

fn start(arguments: &mut Arguments<'_>, target: &Target<'_>) -> Result<VirtAddr, QueryError> {
    if !arguments.is_empty() {
        return arguments.address(target);
    }
    let stop = target.memory().stop();
    if let Some(position) = target.kernel().kept::<Position>().filter(|position| position.stop == stop) {
        return Ok(position.next);
    }
    match target.registers() {
        Ok(registers) => Ok(registers.program_counter()),
        Err(error) => Err(arguments.usage(format!("an address is needed: {error}"))),
    }
}

fn remember(target: &Target<'_>, next: VirtAddr) {
    target.kernel().keep(Position { stop: target.memory().stop(), next });
}

fn bounded(arguments: &Arguments<'_>, count: u64) -> Result<u64, QueryError> {
    if (1..=MOST).contains(&count) {
        return Ok(count);
    }
    Err(arguments.usage(format!("{count:#x} is no number of instructions from 1 to {MOST:#x}")))
}

fn failed(spec: &'static CommandSpec, source: TargetError) -> QueryError {
    QueryError::Target { command: spec.names[0], source }
}
