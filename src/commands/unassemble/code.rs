//! A target's code: bytes, instructions and what they refer to.

use crate::memory::ReadError;
use crate::target::{CodePart, Note, NoteCode, SymbolAt, Target, TargetError, VirtAddr};

use super::instruction::{Instruction, LONGEST};
use super::report::{InstructionLine, Unassembly};

/// Most instructions that are shown.
pub(super) const MOST: u64 = 0x1000;
/// How far from an address its function's beginning may lie, for code to be read from there on.
pub(super) const FAR: usize = 0x1000;
/// Bytes that a few instructions are read with.
const AROUND: usize = 0x80;

/// What instructions are read from.
pub(super) struct Code<'a, 't> {
    pub(super) target: &'a Target<'t>,
    pub(super) bitness: u32,
}

/// Instructions one behind the other.
#[derive(Default)]
pub(super) struct Run {
    pub(super) instructions: Vec<Instruction>,
    /// Why they end before they should.
    pub(super) missing: Option<ReadError>,
}

impl<'a, 't> Code<'a, 't> {
    pub(super) fn of(target: &'a Target<'t>) -> Result<Self, TargetError> {
        let bitness = match target.kernel().version().machine {
            kd_protocol::MachineType::AMD64 => 64,
            kd_protocol::MachineType::I386 => 32,
            _ => {
                let (machine, what) = (target.machine_name(), "their instructions".to_owned());
                return Err(TargetError::NotSupported { machine, what });
            }
        };
        Ok(Self { target, bitness })
    }

    /// So many instructions from `start` on.
    pub(super) fn forwards(&self, start: VirtAddr, count: u64) -> Unassembly {
        let mut run = Run::default();
        let mut at = start;
        while (run.instructions.len() as u64) < count && run.missing.is_none() {
            // No instruction has fewer bytes than one: what is read is needed, unless they are longer than most.
            let left = count - run.instructions.len() as u64;
            let len = AROUND.max(left as usize * 4).min(0x1000);
            let more = self.run(at, len, left);
            let Some(last) = more.instructions.last() else {
                run.missing = more.missing;
                break;
            };
            at = last.end();
            run.instructions.extend(more.instructions);
            run.missing = more.missing.filter(|_| (run.instructions.len() as u64) < count);
        }
        self.report(start, run)
    }

    /// The instructions from `start` to the one that `end` lies in.
    pub(super) fn up_to(&self, start: VirtAddr, end: VirtAddr) -> Unassembly {
        let len = end.since(start) as usize + LONGEST;
        let mut run = self.run(start, len, u64::MAX);
        let beyond = run.instructions.iter().position(|it| it.address > end);
        if let Some(beyond) = beyond {
            run.instructions.truncate(beyond);
        }
        if run.instructions.last().is_some_and(|last| last.end() > end) {
            run.missing = None;
        }
        self.report(start, run)
    }

    /// What is decoded from `len` bytes at `start`, at most `count` instructions; the last one is whole.
    pub(super) fn run(&self, start: VirtAddr, len: usize, count: u64) -> Run {
        let (bytes, mut missing) = self.target.read_some(start, len);
        let mut instructions: Vec<Instruction> = Vec::new();
        let mut from = 0;
        while (instructions.len() as u64) < count
            && let Some(next) = Instruction::decode(self.bitness, start.offset(from as u64), &bytes[from..])
        {
            from += next.bytes.len();
            instructions.push(next);
        }
        if instructions.len() as u64 == count {
            missing = None;
        }
        Run { instructions, missing }
    }

    /// The part of a function that `address` lies in; nothing where that is not known.
    pub(super) fn part(&self, address: VirtAddr) -> Option<CodePart> {
        self.target.function_part(address).ok().flatten()
    }

    /// The instruction at an address, from the bytes that the target reported of it if it did.
    pub(super) fn instruction(&self, address: VirtAddr, reported: &[u8]) -> Option<Instruction> {
        match reported {
            [] => self.run(address, LONGEST, 1).instructions.pop(),
            reported => Instruction::decode(self.bitness, address, reported),
        }
    }

    /// The instruction at an address alone, as it is told.
    pub(super) fn one(&self, address: VirtAddr, reported: &[u8]) -> Option<InstructionLine> {
        let instruction = self.instruction(address, reported)?;
        let module = self.target.module_at(address);
        let name = |at: VirtAddr| {
            let module = module.as_ref().filter(|module| module.contains(at));
            module.map(|module| self.target.symbol_in(at, module))
        };
        Some(self.named(&instruction, name))
    }

    /// The instruction whose last four bytes are the constant at an address.
    pub(super) fn with(&self, constant: VirtAddr) -> Option<InstructionLine> {
        let end = constant.offset(4);
        let begin = self.part(constant)?.range.start;
        let len = usize::try_from(end.since(begin)).ok().filter(|len| *len <= FAR)?;
        let instruction = self.run(begin, len, u64::MAX).instructions.pop()?;
        let is_it = instruction.end() == end && instruction.ends_in_constant();
        is_it.then(|| self.line(&instruction))
    }

    /// An instruction as it is told.
    pub(super) fn line(&self, instruction: &Instruction) -> InstructionLine {
        self.named(instruction, |address| Some(self.target.symbol_at(address)))
    }

    fn named(
        &self,
        instruction: &Instruction,
        name: impl FnOnce(VirtAddr) -> Option<SymbolAt>,
    ) -> InstructionLine {
        let target = self.target;
        let refers_to = instruction.refers_to();
        let named = refers_to.map(|address| {
            let symbol = name(address);
            let shown = target.shown(address);
            match symbol.filter(SymbolAt::is_named) {
                Some(symbol) => format!("{symbol} ({shown})"),
                None => shown.to_string(),
            }
        });
        let code = instruction.text(named);
        InstructionLine::new(instruction.address, &instruction.bytes, code, refers_to)
    }

    /// Instructions as they are told, each label before the first of what it names.
    pub(super) fn report(&self, start: VirtAddr, run: Run) -> Unassembly {
        let target = self.target;
        let mut label: Option<SymbolAt> = None;
        let mut lines = Vec::new();
        for instruction in &run.instructions {
            let mut line = self.line(instruction);
            let symbol = target.symbol_at(instruction.address);
            let is_same =
                label.as_ref().is_some_and(|it| it.module == symbol.module && it.symbol == symbol.symbol);
            if !is_same && symbol.is_named() {
                line.label = Some(symbol.to_string().as_str().into());
            }
            label = Some(symbol);
            lines.push(line);
        }
        if let Some(note) = label.as_ref().and_then(SymbolAt::missing_note) {
            target.note(note);
        }
        let end = run.instructions.last().map_or(start, Instruction::end);
        self.note_missing(end, run.missing.as_ref(), lines.is_empty());
        Unassembly { instructions: lines, end, pointer_size: target.pointer_size() }
    }

    pub(super) fn note_missing(&self, at: VirtAddr, missing: Option<&ReadError>, is_all: bool) {
        let Some(error) = missing else { return };
        let text = format!("Memory access error at {}: {}", self.target.shown(at), error.cause);
        let note = if is_all {
            Note::failed(NoteCode::Unreadable, text)
        } else {
            Note::partial(NoteCode::Unreadable, text)
        };
        self.target.note(note.broken_off_if(crate::target::is_over(&error.cause)));
    }
}
