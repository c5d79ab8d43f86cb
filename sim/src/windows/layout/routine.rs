//! What the routines of an image do first, and how the image tells it: `RUNTIME_FUNCTION`s and `UNWIND_INFO`s.
//!
//! ```text
//!  symbol .. next symbol = a routine --its place, or its name--> prolog --> instructions, and the codes that undo them
//! ```
//! A layout file has no code. What a routine's prolog is follows from where the routine stands, so that an image, the stacks
//! of a machine and a test agree on it; traps, leaves and what is no routine at all are known by their names.
//!
//! Source: Microsoft, "x64 exception handling".

use std::collections::HashMap;

use super::section::{Section, SectionKind};

/// A routine, and what it does first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routine {
    /// First byte, relative to the image base.
    pub begin: u32,
    /// First byte past it.
    pub end: u32,
    /// Its first instructions; none for a leaf, which the image's table does not have.
    pub prolog: &'static [Step],
    /// True if compilers would have split it: its end is a part of its own, chained to its start.
    is_split: bool,
}

/// What one instruction of a prolog does; the first may be a processor's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A processor, or the first instructions of a system call, pushed `SS`, `RSP`, `EFLAGS`, `CS`, `RIP`.
    Trap {
        /// And an error code.
        has_error_code: bool,
    },
    /// `push register`.
    Push(Register),
    /// `sub rsp, bytes`.
    Allocate(u32),
    /// `lea register, [rsp + offset]`.
    SetFrame(Register, u8),
    /// `mov [rsp + offset], register`.
    Save(Register, u32),
}

/// A register that calls preserve, as instructions number it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "these are registers of x64")]
pub enum Register {
    Rbx = 3,
    Rbp = 5,
    Rsi = 6,
    Rdi = 7,
    R12 = 12,
    R13 = 13,
    R14 = 14,
    R15 = 15,
}

use Register::{R12, R13, R14, R15, Rbp, Rbx, Rdi, Rsi};
use Step::{Allocate, Push, Save, SetFrame, Trap};

/// Prologs of routines, each of which leaves the stack aligned for calls.
const PROLOGS: [&[Step]; 7] = [
    &[Allocate(0x28)],
    &[Push(Rbx), Allocate(0x20)],
    &[Push(Rdi), Allocate(0x20), Save(Rbx, 0x30)],
    &[Push(Rbx), Push(Rsi), Push(Rdi), Allocate(0x40)],
    &[Push(Rbp), Allocate(0x50), SetFrame(Rbp, 0x20)],
    &[Push(Rbx), Push(Rbp), Push(Rsi), Push(Rdi), Push(R12), Push(R13), Push(R14), Allocate(0x90)],
    &[Push(Rsi), Push(R14), Push(R15), Allocate(0x120)],
];
/// Interrupts and system calls build a `_KTRAP_FRAME`, and so do faults, for which the processor pushes an error code.
const INTERRUPT: &[Step] = &[
    Trap { has_error_code: false },
    Allocate(8),
    Push(Rbp),
    Allocate(0x158),
    SetFrame(Rbp, 0x80),
    SAVE_RBX,
    SAVE_RDI,
    SAVE_RSI,
];
const FAULT: &[Step] = &[
    Trap { has_error_code: true },
    Push(Rbp),
    Allocate(0x158),
    SetFrame(Rbp, 0x80),
    SAVE_RBX,
    SAVE_RDI,
    SAVE_RSI,
];
const SAVE_RBX: Step = Save(Rbx, 0x140);
const SAVE_RDI: Step = Save(Rdi, 0x148);
const SAVE_RSI: Step = Save(Rsi, 0x150);

const INTERRUPTS: [&str; 13] = [
    "KiInterruptDispatch",
    "KiDpcInterrupt",
    "KiIpiInterrupt",
    "KiNmiInterrupt",
    "KiDivideErrorFault",
    "KiDebugTrapOrFault",
    "KiBreakpointTrap",
    "KiFloatingErrorFault",
    "KiMcheckAbort",
    "KiRaiseAssertion",
    "KiDebugServiceTrap",
    "KiSystemCall32",
    "KiSystemCall64",
];
const FAULTS: [&str; 7] = [
    "KiDoubleFaultAbort",
    "KiInvalidTssFault",
    "KiSegmentNotPresentFault",
    "KiStackFault",
    "KiGeneralProtectionFault",
    "KiPageFault",
    "KiAlignmentFault",
];
/// They call nothing.
const LEAVES: [&str; 6] = [
    "DbgBreakPoint",
    "DbgUserBreakPoint",
    "DbgBreakPointWithStatus",
    "HalProcessorIdle",
    "__security_check_cookie",
    "KiServiceLinkage",
];
/// Places in a routine.
const LABELS: [&str; 10] = [
    "DbgBreakPointWithStatusEnd",
    "KiSystemService32User",
    "KiSystemServiceUser",
    "KiSystemServiceStart",
    "KiSystemServiceRepeat",
    "KiSystemServiceGdiTebAccess",
    "KiSystemServiceCopyStart",
    "KiSystemServiceCopyEnd",
    "KiSystemServiceExit",
    "KiMcheckRecurseStart",
];
/// What lies among code and is none.
const TABLES: [&str; 5] =
    ["KiServiceTable", "KiServiceLimit", "KiArgumentTable", "KiSpeculationFeatures", "KiCpu0HardwareFlags"];

/// Bytes of a routine's first part, if it is split.
const FIRST_PART: u32 = 0x400;

impl Routine {
    fn new(name: &str, begin: u32, end: u32) -> Self {
        let prolog = match name {
            _ if LEAVES.contains(&name) => &[],
            _ if INTERRUPTS.contains(&name) => INTERRUPT,
            _ if FAULTS.contains(&name) => FAULT,
            _ => PROLOGS[(begin / 0x10) as usize % PROLOGS.len()],
        };
        let is_split = !prolog.is_empty() && end - begin > FIRST_PART && (begin / 0x10).is_multiple_of(3);
        Self { begin, end, prolog, is_split }
    }

    /// The steps of the prolog that are done when the program counter is at `rva`.
    #[must_use]
    pub fn done_at(&self, rva: u32) -> &'static [Step] {
        let mut at = self.begin;
        let done = self.prolog.iter().take_while(|step| {
            at += step.code().len() as u32;
            at <= rva
        });
        &self.prolog[..done.count()]
    }

    /// Its `UNWIND_INFO`.
    fn info(&self) -> Vec<u8> {
        let (mut at, mut slots, mut frame) = (0, Vec::new(), 0);
        for step in self.prolog {
            at += step.code().len() as u8;
            let mut code = vec![[at, step.operation()]];
            code.extend(step.operand().map(u16::to_le_bytes));
            slots.splice(0..0, code);
            if let SetFrame(register, offset) = step {
                frame = *register as u8 | (offset / 0x10) << 4;
            }
        }
        const VERSION: u8 = 1;
        let mut info = vec![VERSION, at, slots.len() as u8, frame];
        info.extend(slots.iter().flatten());
        info.resize(info.len().next_multiple_of(4), 0);
        info
    }
}

impl Step {
    /// Its instruction; nothing for what was done before the routine's first.
    #[must_use]
    pub fn code(self) -> Vec<u8> {
        let low = |register: Register| register as u8 & 7;
        let rex = |register: Register| 0x48 | (register as u8 >> 3) << 2;
        // To or from [rsp + offset].
        let indexed = |operation: u8, register: Register, offset: u32| match u8::try_from(offset) {
            Ok(near) if near < 0x80 => vec![rex(register), operation, 0x44 | low(register) << 3, 0x24, near],
            _ => [&[rex(register), operation, 0x84 | low(register) << 3, 0x24][..], &offset.to_le_bytes()]
                .concat(),
        };
        match self {
            Trap { .. } => Vec::new(),
            Push(register) if (register as u8) < 8 => vec![0x50 | low(register)],
            Push(register) => vec![0x41, 0x50 | low(register)],
            Allocate(bytes) if bytes < 0x80 => vec![0x48, 0x83, 0xec, bytes as u8],
            Allocate(bytes) => [&[0x48, 0x81, 0xec][..], &bytes.to_le_bytes()].concat(),
            SetFrame(register, offset) => indexed(0x8d, register, offset.into()),
            Save(register, offset) => indexed(0x89, register, offset),
        }
    }

    /// The second byte of its unwind code.
    const fn operation(self) -> u8 {
        match self {
            Trap { has_error_code } => 10 | (has_error_code as u8) << 4,
            Push(register) => (register as u8) << 4,
            Allocate(bytes) if bytes <= 0x80 => 2 | (bytes as u8 / 8 - 1) << 4,
            Allocate(_) => 1,
            SetFrame(..) => 3,
            Save(register, _) => 4 | (register as u8) << 4,
        }
    }

    /// What stands behind its unwind code.
    fn operand(self) -> Option<u16> {
        match self {
            Allocate(bytes) if bytes > 0x80 => Some((bytes / 8) as u16),
            Save(_, offset) => Some((offset / 8) as u16),
            _ => None,
        }
    }
}

/// An image's table of functions, and behind it what the functions' prologs do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnwindTables {
    /// Where the linker's section begins, and the table in it, relative to the image base.
    pub at: u32,
    /// Bytes of the table of functions.
    pub functions_size: u32,
    /// Both.
    pub bytes: Vec<u8>,
}

impl UnwindTables {
    /// The tables of an image with these sections, for the start of the linker's one; nothing without that.
    pub(super) fn of(sections: &[Section]) -> Option<Self> {
        const ENTRY: u32 = 12;
        let at = sections.iter().find(|section| section.kind == SectionKind::Linker)?.at;
        let routines: Vec<_> =
            routines(sections).into_iter().filter(|routine| !routine.prolog.is_empty()).collect();
        let count = routines.len() + routines.iter().filter(|routine| routine.is_split).count();
        let functions_size = count as u32 * ENTRY;
        let mut infos: Vec<u8> = Vec::new();
        let mut known = HashMap::new();
        let mut place = |info: Vec<u8>| {
            *known.entry(info).or_insert_with_key(|info| {
                let place = at + functions_size + infos.len() as u32;
                infos.extend(info);
                place
            })
        };
        let entry = |words: [u32; 3]| words.into_iter().flat_map(u32::to_le_bytes);
        let mut bytes = Vec::new();
        for routine in &routines {
            let info = place(routine.info());
            if !routine.is_split {
                bytes.extend(entry([routine.begin, routine.end, info]));
                continue;
            }
            let first = [routine.begin, routine.begin + FIRST_PART, info];
            const VERSION_1_CHAINED: u8 = 1 | 4 << 3;
            let chained = [VERSION_1_CHAINED, 0, 0, 0].into_iter().chain(entry(first)).collect();
            bytes.extend(entry(first));
            bytes.extend(entry([first[1], routine.end, place(chained)]));
        }
        bytes.extend(infos);
        Some(Self { at, functions_size, bytes })
    }
}

/// The routines of an image with these sections, by address.
pub(super) fn routines(sections: &[Section]) -> Vec<Routine> {
    sections.iter().flat_map(routines_of).collect()
}

fn routines_of(section: &Section) -> Vec<Routine> {
    if !matches!(section.kind, SectionKind::Code | SectionKind::DiscardableCode) {
        return Vec::new();
    }
    let mut symbols: Vec<_> =
        section.symbols.iter().filter(|(_, name)| !LABELS.contains(&name.as_str())).collect();
    symbols.sort_by_key(|(at, _)| *at);
    symbols.dedup_by_key(|(at, _)| *at);
    let ends = symbols.iter().skip(1).map(|(at, _)| *at).chain([section.at + section.size]);
    let pairs = symbols.iter().zip(ends).filter(|((_, name), _)| !TABLES.contains(&name.as_str()));
    pairs.map(|((begin, name), end)| Routine::new(name, *begin, end)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::{BUILDS, FILTER_DRIVERS};

    #[test]
    fn tables_are_in_order_and_fit_their_sections() {
        for image in BUILDS.iter().flat_map(|build| build.images).chain(FILTER_DRIVERS) {
            let layout = image.layout().unwrap();
            let tables = layout.unwind_tables().unwrap();
            let functions = &tables.bytes[..tables.functions_size as usize];
            let words: Vec<u32> =
                functions.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
            let mut before = 0;
            for [begin, end, info] in words.as_chunks::<3>().0 {
                assert!(before <= *begin && begin < end, "{}: {begin:x}..{end:x}", image.file);
                assert!(info % 4 == 0 && (info - tables.at) < tables.bytes.len() as u32);
                before = *end;
            }
            assert!(words.len() > 3 * 8, "{} has routines", image.file);
        }
    }

    #[test]
    fn prologs_leave_the_stack_aligned() {
        for prolog in PROLOGS.iter().chain([&INTERRUPT, &FAULT]) {
            let bytes = |step: &Step| match step {
                // A processor aligns the stack before it pushes.
                Trap { has_error_code: true } => 0x28,
                Trap { has_error_code: false } => 0x20,
                Push(_) => 8,
                Allocate(bytes) => *bytes,
                SetFrame(..) | Save(..) => 0,
            };
            let sum: u32 = prolog.iter().map(bytes).sum();
            assert_eq!(sum % 16, 8, "{prolog:?}");
        }
    }

    #[test]
    fn a_prolog_is_done_instruction_by_instruction() {
        let routine = Routine { begin: 0x1000, end: 0x2000, prolog: PROLOGS[3], is_split: false };
        let done = |offset: u32| routine.done_at(0x1000 + offset).len();
        assert_eq!(
            [done(0), done(1), done(2), done(3), done(6), done(7), done(0x900)],
            [0, 1, 2, 3, 3, 4, 4]
        );
        // push rbx; push rsi; push rdi; sub rsp, 40h
        assert_eq!(routine.info(), [1, 7, 4, 0, 7, 0x72, 3, 0x70, 2, 0x60, 1, 0x30]);
    }
}
