//! The instructions before an address. Code can't be decoded backwards: it is decoded from where a function begins, and
//! where no such place is known, from one from which instructions lead up to the address.

use crate::target::{Note, NoteCode, VirtAddr};

use super::code::{Code, FAR, Run};
use super::instruction::{Instruction, LONGEST};
use super::report::Unassembly;

/// Instructions that have to follow before a start from anywhere is believed.
const TO_BELIEVE: u64 = 4;

/// At most `count` instructions before `end`.
pub(super) fn before(code: &Code<'_, '_>, end: VirtAddr, count: u64) -> Unassembly {
    let mut found: Vec<Instruction> = Vec::new();
    let mut at = end;
    let mut is_guess = false;
    while (found.len() as u64) < count {
        let left = count - found.len() as u64;
        let Some(mut before) = from_beginning(code, at).or_else(|| {
            is_guess = true;
            from_anywhere(code, at, left)
        }) else {
            break;
        };
        let surplus = before.len().saturating_sub(left as usize);
        before.drain(..surplus);
        let Some(first) = before.first() else { break };
        at = first.address;
        before.append(&mut found);
        found = before;
        if is_guess {
            break;
        }
    }
    if is_guess && !found.is_empty() {
        let text = "Where the code before it begins is not known: instructions that lead up to it are shown, which may be \
                    others than those that run.";
        code.target.note(Note::remark(NoteCode::NoUnwindInformation, text));
    }
    if found.is_empty() {
        let text = format!("No instructions lead up to {}", code.target.shown(end));
        code.target.note(Note::failed(NoteCode::NotFound, text));
    }
    code.report(at, Run { instructions: found, missing: None })
}

/// From the beginning of the function's part that lies before `end`, or of the symbol; nothing if they don't lead up to it.
fn from_beginning(code: &Code<'_, '_>, end: VirtAddr) -> Option<Vec<Instruction>> {
    let inside = VirtAddr(end.0.checked_sub(1)?);
    let part = code.part(inside).map(|part| part.range.start);
    let symbol = || {
        let symbol = code.target.symbol_at(inside);
        symbol.symbol.as_ref().map(|_| VirtAddr(inside.0.wrapping_sub(symbol.displacement)))
    };
    let begin = part.or_else(symbol).filter(|begin| end.since(*begin) <= FAR as u64)?;
    leads_to(code, begin, end)
}

/// The instructions from `begin` to `end`, if one ends there.
fn leads_to(code: &Code<'_, '_>, begin: VirtAddr, end: VirtAddr) -> Option<Vec<Instruction>> {
    let run = code.run(begin, end.since(begin) as usize, u64::MAX);
    run.instructions.last().is_some_and(|last| last.end() == end).then_some(run.instructions)
}

/// From the farthest place from which valid instructions lead up to `end`: decoders fall into step after a few.
fn from_anywhere(code: &Code<'_, '_>, end: VirtAddr, count: u64) -> Option<Vec<Instruction>> {
    let window = ((count + TO_BELIEVE) * LONGEST as u64).min(FAR as u64);
    let start = VirtAddr(end.0.saturating_sub(window));
    let bytes = code.target.read_sparse(start, window as usize);
    // What can be read, up to the address.
    let readable = (0..window as usize).rev().take_while(|at| bytes.uint(*at, 1).is_some()).count();
    let bytes: Vec<u8> = (window as usize - readable..window as usize)
        .map(|at| bytes.uint(at, 1).unwrap_or_default() as u8)
        .collect();
    let start = VirtAddr(end.0 - readable as u64);
    (0..readable).find_map(|from| {
        let mut instructions = Vec::new();
        let mut at = from;
        while at < readable {
            let next = Instruction::decode(code.bitness, start.offset(at as u64), &bytes[at..])?;
            if !next.is_valid() {
                return None;
            }
            at += next.bytes.len();
            instructions.push(next);
        }
        (at == readable).then_some(instructions)
    })
}
