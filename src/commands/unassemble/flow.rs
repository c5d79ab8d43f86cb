//! A whole function, by where its code goes: compilers place parts of it apart, and data between them.

use std::collections::{BTreeMap, BTreeSet};

use crate::target::{CodePart, Note, NoteCode, VirtAddr};

use super::code::{Code, MOST};
use super::instruction::{Flow, Instruction};
use super::report::Unassembly;

/// Bytes that are read at a time where the end of a part is not known.
const PIECE: usize = 0x100;

/// The function that `address` lies in.
pub(super) fn function(code: &Code<'_, '_>, address: VirtAddr) -> Unassembly {
    let part = code.part(address);
    let begin = match &part {
        Some(part) => part.function,
        None => {
            let symbol = code.target.symbol_at(address);
            let named = symbol.symbol.as_ref().map(|_| VirtAddr(address.0.wrapping_sub(symbol.displacement)));
            named.unwrap_or(address)
        }
    };
    let mut walk =
        Walk { code, begin, has_parts: part.is_some(), found: BTreeMap::new(), begins: BTreeSet::new() };
    walk.follow();
    walk.report()
}

struct Walk<'a, 'b, 't> {
    code: &'a Code<'b, 't>,
    begin: VirtAddr,
    /// Unwind information says which code belongs together.
    has_parts: bool,
    found: BTreeMap<VirtAddr, Instruction>,
    /// Where code is reached otherwise than from the instruction before it.
    begins: BTreeSet<VirtAddr>,
}

impl Walk<'_, '_, '_> {
    fn follow(&mut self) {
        let mut ways = vec![self.begin];
        let (mut is_incomplete, mut is_too_long) = (false, false);
        while let Some(start) = ways.pop() {
            self.begins.insert(start);
            let mut at = start;
            'way: while !self.found.contains_key(&at) {
                let end = self.part(at).map(|part| part.range.end);
                let len = end.map_or(PIECE, |end| (end.since(at) as usize).min(0x1000));
                let run = self.code.run(at, len, u64::MAX);
                if run.instructions.is_empty() {
                    self.code.note_missing(at, run.missing.as_ref(), self.found.is_empty());
                    break;
                }
                for instruction in run.instructions {
                    if self.found.contains_key(&instruction.address) {
                        break 'way;
                    }
                    if self.found.len() as u64 >= MOST {
                        is_too_long = true;
                        break 'way;
                    }
                    at = instruction.end();
                    let flow = instruction.flow;
                    self.found.insert(instruction.address, instruction);
                    match flow {
                        Flow::Next => {}
                        Flow::May(to) => {
                            self.begins.insert(at);
                            ways.push(to);
                        }
                        Flow::Jumps(to) => {
                            if self.belongs(to) {
                                ways.push(to);
                            }
                            break 'way;
                        }
                        Flow::Somewhere { is_by_table } => {
                            is_incomplete |= is_by_table;
                            break 'way;
                        }
                        Flow::Ends => break 'way,
                    }
                }
                // A function's last instruction may be a call that does not come back.
                if end.is_some_and(|end| at >= end) {
                    break;
                }
            }
        }
        if is_incomplete {
            let text = "Flow analysis was incomplete, some code may be missing";
            self.code.target.note(Note::partial(NoteCode::Limit, text));
        }
        if is_too_long {
            let text = format!("The function has more than {MOST:#x} instructions, which are not shown");
            self.code.target.note(Note::partial(NoteCode::Limit, text));
        }
    }

    fn part(&self, at: VirtAddr) -> Option<CodePart> {
        if self.has_parts { self.code.part(at) } else { None }
    }

    /// True if a jump there stays in the function, false if it is its last act to call another.
    fn belongs(&self, to: VirtAddr) -> bool {
        if self.has_parts {
            return self.code.part(to).is_some_and(|part| part.function == self.begin);
        }
        let symbol = self.code.target.symbol_at(to);
        let from = self.code.target.symbol_at(self.begin);
        to == self.begin || (symbol.module == from.module && symbol.symbol == from.symbol) && to > self.begin
    }

    fn report(self) -> Unassembly {
        let Self { code, found, begins, .. } = self;
        let mut last: Option<VirtAddr> = None;
        let mut lines = Vec::with_capacity(found.len());
        // From where the function begins, then the parts that were placed before it: WinDbg's order.
        for (address, instruction) in found.range(self.begin..).chain(found.range(..self.begin)) {
            let mut line = code.line(instruction);
            line.begins_block = begins.contains(address) || last != Some(*address);
            if line.begins_block {
                let symbol = code.target.symbol_at(*address);
                line.label = symbol.is_named().then(|| symbol.to_string().as_str().into());
            }
            last = Some(instruction.end());
            lines.push(line);
        }
        if let Some(note) = code.target.symbol_at(self.begin).missing_note() {
            code.target.note(note);
        }
        let end = last.unwrap_or(self.begin);
        Unassembly { instructions: lines, end, pointer_size: code.target.pointer_size() }
    }
}
