//! One stop at a use of the tag: what it is, and what is read of it.
//!
//! The instruction stands in many of the pool's functions, so that a hit is known by the stop, not by its address. What the
//! functions were given is not in a register any more. It is told where a function that the kernel's headers describe has
//! stored it in the room that its caller leaves for its arguments: the tag, found where the tag has its place there, shows
//! that. Source: docs/hits.md.

use std::sync::Arc;

use crate::commands::pool::tag::{PROTECTED, PoolTag};
use crate::commands::verifier::frames::Frame;
use crate::output;
use crate::target::{CallStack, FrameKind, StackEnd, StackFrame, SymbolAt, Target, VirtAddr};

/// The variable that holds the tag.
pub const VARIABLE: &str = "nt!PoolHitTag";
/// Where a break-in stops.
const BREAK_INS: [&str; 2] = ["DbgBreakPointWithStatus", "RtlpBreakWithStatusInstruction"];

/// What is done with a block.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum HitKind {
    /// It is allocated.
    Allocation,
    /// It is freed.
    Free,
    /// The function's name does not say.
    Use,
}

/// A stop at a use of the tag.
#[derive(Clone, Debug)]
pub struct Hit {
    /// What is done.
    pub kind: HitKind,
    /// The processor that stopped.
    pub processor: u16,
    /// The thread that it runs: one of its own, or whichever an interrupt broke into.
    pub thread: VirtAddr,
    /// Bytes that are asked for, where the pool's function has stored them.
    pub size: Option<u64>,
    /// The block that is freed, likewise.
    pub block: Option<VirtAddr>,
    /// Its stack; nothing if that was not taken, or could not be.
    pub stack: Option<HitStack>,
}

impl Hit {
    /// One of which no more is known than that it was.
    #[must_use]
    pub const fn bare(kind: HitKind, processor: u16, thread: VirtAddr) -> Self {
        Self { kind, processor, thread, size: None, block: None, stack: None }
    }
}

/// Who called.
#[derive(Clone, Debug)]
pub struct HitStack {
    /// The pool's own frames and those of Driver Verifier, the one that runs first in front.
    pub allocator: Vec<Frame>,
    /// Those behind, from the caller on, up to where an interrupt broke in, a program called the kernel, or a thread began.
    pub path: Vec<Frame>,
    /// The file of the first of them.
    pub driver: Option<String>,
    /// Why it is not whole.
    pub breaks_off: Option<String>,
    /// Where the pool's functions return to, and the stack pointer there.
    pub returns_to: Option<(VirtAddr, u64)>,
}

/// True if a processor that stopped at an `int 3` has met a use of the tag in [`VARIABLE`], provided that one is there: it stands in the
/// kernel, and not where break-ins stop.
#[must_use]
pub fn is_pool_hit(program_counter: VirtAddr, target: &Target<'_>) -> bool {
    let at = target.symbol_at(program_counter);
    at.module.as_deref() == Some("nt") && !is_break_in(&at)
}

/// True if it is where break-ins stop.
#[must_use]
pub fn is_break_in(at: &SymbolAt) -> bool {
    at.symbol.as_deref().is_some_and(|name| BREAK_INS.contains(&name))
}

/// The tag that a value of [`VARIABLE`] is; nothing if it is none that could be typed: 0 and what the kernel begins with are
/// no tags.
#[must_use]
pub fn left_behind(value: [u8; 4]) -> Option<PoolTag> {
    let is_text = value.iter().all(|byte| (b' '..=b'~').contains(byte));
    is_text.then_some(PoolTag(u32::from_le_bytes(value)))
}

/// What the pool's function at `program_counter` does.
#[must_use]
pub fn kind_at(program_counter: VirtAddr, target: &Target<'_>) -> HitKind {
    kind_of(target.symbol_at(program_counter).symbol.as_deref().unwrap_or_default())
}

fn kind_of(function: &str) -> HitKind {
    let has = |words: &[&str]| words.iter().any(|word| function.contains(word));
    match () {
        () if has(&["Free", "Remove"]) => HitKind::Free,
        () if has(&["Alloc", "Insert"]) => HitKind::Allocation,
        () => HitKind::Use,
    }
}

/// Reads the stack of a hit, of `frames` frames at most, and what the pool's functions were given.
#[must_use]
pub fn read(bare: Hit, tag: PoolTag, frames: usize, target: &Target<'_>) -> Hit {
    match target.stack(None, frames) {
        Ok(stack) => {
            let given = stack.frames.iter().find_map(|frame| given(frame, tag)).unwrap_or_default();
            let stack = split(stack, target);
            Hit { size: given.0, block: given.1, stack: Some(stack), ..bare }
        }
        Err(why) => {
            let none = HitStack {
                allocator: Vec::new(),
                path: Vec::new(),
                driver: None,
                breaks_off: Some(why.to_string()),
                returns_to: None,
            };
            Hit { stack: Some(none), ..bare }
        }
    }
}

/// Size and block that a function of the pool was given, by the parameters that the kernel's headers name.
fn given(frame: &StackFrame, tag: PoolTag) -> Option<(Option<u64>, Option<VirtAddr>)> {
    /// Functions of `(flags or type, NumberOfBytes, Tag, ..)`.
    const ALLOCATE: [&str; 7] = [
        "ExAllocatePoolWithTag",
        "ExAllocatePool2",
        "ExAllocatePoolWithQuotaTag",
        "ExAllocatePoolWithTagPriority",
        "VerifierExAllocatePoolWithTag",
        "VerifierExAllocatePoolWithQuotaTag",
        "VerifierExAllocatePoolWithTagPriority",
    ];
    /// Functions of `(P, Tag)`.
    const FREE: [&str; 3] = ["ExFreePoolWithTag", "ExFreePool2", "VerifierExFreePoolWithTag"];
    let name = frame.symbol.symbol.as_deref()?;
    let words = frame.arguments?;
    let is_tag = |word: u64| (word as u32) & !PROTECTED == tag.0 & !PROTECTED;
    if ALLOCATE.contains(&name) && is_tag(words[2]) {
        return Some((Some(words[1]), None));
    }
    (FREE.contains(&name) && is_tag(words[1])).then_some((None, Some(VirtAddr(words[0]))))
}

fn split(stack: CallStack, target: &Target<'_>) -> HitStack {
    let CallStack { mut frames, end } = stack;
    let interrupted = frames.iter().position(|frame| matches!(frame.kind, FrameKind::Trap { .. }));
    let missing = frames.iter().find(|frame| frame.kind == FrameKind::Missing);
    let breaks_off = match (&end, interrupted, missing) {
        (_, _, Some(frame)) => {
            Some(format!("{} has no unwind information: what follows it may be wrong", frame.symbol))
        }
        // What an interrupt broke into has not called.
        (_, Some(_), None) => None,
        (StackEnd::Whole | StackEnd::UserMode, ..) => None,
        (StackEnd::Limit, ..) => {
            let frames = output::counted(frames.len() as u64, "frame");
            Some(format!("there may be more than {frames}"))
        }
        (StackEnd::NoModule, ..) => {
            let at = frames.last().map_or(VirtAddr(0), |last| last.program_counter);
            Some(format!("{} lies in no module that is loaded, so its caller is not known", target.shown(at)))
        }
        (StackEnd::NotAbove(at), ..) => {
            Some(format!("the caller's stack pointer would be {}, which is not above", target.shown(*at)))
        }
        (StackEnd::Broken(trouble), ..) => Some(trouble.to_string()),
    };
    match (interrupted, &end) {
        (Some(at), _) => frames.truncate(at + 1),
        (None, StackEnd::UserMode) => {
            frames.pop();
        }
        _ => {}
    }
    let is_of_pool = |frame: &StackFrame| {
        let name = frame.symbol.symbol.as_deref().unwrap_or_default();
        frame.symbol.module.as_deref() == Some("nt") && name.contains("Pool")
    };
    let own = frames.iter().take_while(|frame| is_of_pool(frame)).count();
    // A path of nothing would be nobody's; whose it is where the walk was to end within the pool is not known.
    let own = if own < frames.len() || matches!(end, StackEnd::Limit) { own } else { 0 };
    let driver = frames.get(own).and_then(|frame| {
        let is_return = own > 0;
        target.module_at(VirtAddr(frame.program_counter.0.wrapping_sub(u64::from(is_return))))
    });
    let caller =
        frames.get(own).filter(|frame| own > 0 && matches!(frame.kind, FrameKind::Call | FrameKind::Leaf));
    let returns_to = caller.map(|frame| (frame.program_counter, frame.stack_pointer.0));
    let mut frames = frames.into_iter().map(|frame| Frame {
        address: frame.program_counter,
        symbol: frame.symbol.is_named().then(|| Arc::new(frame.symbol)),
    });
    let allocator = frames.by_ref().take(own).collect();
    HitStack {
        allocator,
        path: frames.collect(),
        driver: driver.map(|it| it.image_name),
        breaks_off,
        returns_to,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_told_by_its_name() {
        for (name, kind) in [
            ("ExAllocatePoolWithTag", HitKind::Allocation),
            ("ExFreePoolWithTag", HitKind::Free),
            ("ExpRemoveTagForBigPages", HitKind::Free),
            ("ExInsertPoolTag", HitKind::Allocation),
            ("ExpSomething", HitKind::Use),
        ] {
            assert_eq!(kind_of(name), kind, "{name}");
        }
    }

    #[test]
    fn what_nobody_types_is_no_tag_that_somebody_left() {
        assert_eq!(left_behind(*b"Leak"), PoolTag::parse("Leak"));
        assert_eq!(left_behind(*b"Mm  "), PoolTag::parse("Mm"));
        for none in [[0; 4], [0xff; 4], *b"Le\0k"] {
            assert_eq!(left_behind(none), None, "{none:x?}");
        }
    }
}
