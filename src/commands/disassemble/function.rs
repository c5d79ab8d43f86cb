//! `uf`: the instructions of a function, along its jumps.

use std::collections::{BTreeMap, BTreeSet};

use super::listing::{Decoded, Listing, lines, miss};
use crate::disassembly::Flow;
use crate::target::{Code, Module, Note, NoteCode, ReadCause, SymbolAt, Target, VirtAddr};

/// Most instructions that are shown.
const MOST: usize = 0x2000;
/// Most bytes of a function that neither unwind information nor a symbol delimits.
const FARTHEST: u64 = 0x1000;

/// The function that has code at `at`.
pub(super) fn around(target: &Target<'_>, at: VirtAddr) -> Listing {
    let code = target.code_around(at);
    let symbol = target.symbol_at(at);
    let begin = match &code {
        Some(code) => code.function,
        // A leaf has no entry, but a name.
        None if symbol.symbol.is_some() && symbol.displacement < FARTHEST => {
            VirtAddr(at.0 - symbol.displacement)
        }
        None => {
            if symbol.displacement != 0 || symbol.symbol.is_none() {
                let text = format!(
                    "Where the function begins is not known: it is shown from {} on.",
                    target.shown(at)
                );
                target.note(Note::remark(NoteCode::Guessed, text));
            }
            at
        }
    };
    let module = target.module_at(begin);
    let mut walk =
        Walk { target, begin, module, code, symbol, found: BTreeMap::new(), blocks: BTreeSet::new() };
    let missing = walk.follow();
    let Walk { found, blocks, .. } = walk;
    let mut instructions = lines(target, found.into_values(), &|address| blocks.contains(&address));
    if let Some((at, cause)) = missing {
        miss(target, at, &cause, &mut instructions);
    }
    Listing { instructions, is_function: true }
}

/// A function while its jumps are followed.
struct Walk<'a, 't> {
    target: &'a Target<'t>,
    begin: VirtAddr,
    module: Option<Module>,
    /// The part of it that was looked at last, if it has unwind information.
    code: Option<Code>,
    /// What it is called.
    symbol: SymbolAt,
    found: BTreeMap<VirtAddr, Decoded>,
    /// Where blocks begin.
    blocks: BTreeSet<VirtAddr>,
}

impl Walk<'_, '_> {
    /// Follows every way from the begin on; the first place that cannot be read.
    fn follow(&mut self) -> Option<(VirtAddr, ReadCause)> {
        let (mut ways, mut missing) = (vec![self.begin], None);
        while let Some(mut at) = ways.pop() {
            while !self.found.contains_key(&at) {
                if self.found.len() == MOST {
                    let text =
                        format!("The function has more than {MOST:#x} instructions; the rest is not shown.");
                    self.target.note(Note::partial(NoteCode::Limit, text));
                    return missing;
                }
                let mut decoded = match Decoded::at(self.target, at) {
                    Ok(decoded) => decoded,
                    Err(cause) => {
                        missing.get_or_insert((at, cause));
                        break;
                    }
                };
                let jump = decoded.jumps_to().map(|to| self.target.address(to));
                if let Some(to) = jump.filter(|to| self.is_inside(*to)) {
                    decoded.is_branch = true;
                    self.blocks.insert(to);
                    ways.push(to);
                }
                let (flow, next) = (decoded.instruction.flow, decoded.next(self.target));
                self.found.insert(at, decoded);
                let goes_on = match flow {
                    Flow::Next | Flow::Branch(_) => true,
                    // One in a row of them fills a gap.
                    Flow::Breakpoint => {
                        Decoded::at(self.target, next).is_ok_and(|it| it.instruction.flow != Flow::Breakpoint)
                    }
                    Flow::Jump(_) | Flow::End => false,
                };
                if !goes_on || !self.is_inside(next) {
                    break;
                }
                if matches!(flow, Flow::Branch(_)) {
                    self.blocks.insert(next);
                }
                at = next;
            }
        }
        missing
    }

    /// True if `at` is of the function.
    fn is_inside(&mut self, at: VirtAddr) -> bool {
        let Some(module) = &self.module else { return self.is_near(at) };
        if at.since(module.base) >= u64::from(module.size) {
            return false;
        }
        if self.code.as_ref().is_some_and(|code| code.part.contains(&at)) {
            return true;
        }
        match (self.target.code_around(at), &self.code) {
            (Some(code), Some(known)) if code.function == known.function => {
                self.code = Some(code);
                true
            }
            (None, None) if self.symbol.symbol.is_none() => self.is_near(at),
            (None, None) => {
                let there = self.target.symbol_at(at);
                (there.module, there.symbol) == (self.symbol.module.clone(), self.symbol.symbol.clone())
            }
            _ => false,
        }
    }

    fn is_near(&self, at: VirtAddr) -> bool {
        self.begin <= at && at.since(self.begin) < FARTHEST
    }
}
