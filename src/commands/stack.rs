//! `k`: the stack of the processor that stopped, or was chosen.
//!
//! ```text
//! 0: kd> k 3
//!  # Child-SP          RetAddr               Call Site
//! 00 fffff800`00ba2a08 fffff800`014e4a6b     nt!DbgBreakPointWithStatus
//! 01 fffff800`00ba2a10 fffff800`01471852     nt!KdCheckForDebugBreak+0x3b
//! 02 fffff800`00ba2a80 fffff800`0147103a     nt!KeUpdateRunTime+0x142
//! There may be more than 3 frames: k 6 shows twice as many.
//! ```
//! `kb` and `kv` show four words beside it, where a function finds room for its first arguments: code that was optimised
//! seldom stores them there, so they are whatever lies there. `L` leaves out source lines and `p` shows parameters where
//! symbols have such things; public ones have none. Reads only. Source: docs/stacks.md.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::answer::{Facts, Found};
use super::arguments::Arguments;
use super::context::{Context, VerifierFormat};
use super::error::QueryError;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, Glued, Run, Takes};
use crate::output::{self, Address, TargetText};
use crate::target::{
    FrameKind, Note, NoteCode, StackEnd, StackFrame, StackStart, StackTrouble, Target, VirtAddr, is_over,
};

/// Frames that are shown unless told otherwise: WinDbg's number.
const FRAMES: u64 = 20;
/// Most frames that are shown.
const MAX_FRAMES: u64 = 0x400;

macro_rules! forms {
    ($($spec:ident $run:ident $form:ident [$($name:literal),+] $summary:literal;)+) => {$(
        pub(super) static $spec: CommandSpec = CommandSpec {
            names: &[$($name),+],
            usage: concat!(forms!(@first $($name),+), " [N] | = RSP RIP [N]"),
            summary: $summary,
            takes: Takes::Arguments(Glued::Number),
            category: Category::Memory,
            details: DETAILS,
            answers: &[StackView::SCHEMA],
            run: Run::Query($run),
        };

        fn $run(text: &str, target: &Target<'_>) -> Found {
            stack(&$spec, Form::$form, text, target)
        }
    )+};
    (@first $first:literal $(, $rest:literal)*) => { $first };
}

forms! {
    K k Plain ["k", "kL", "kp", "kpL"] "show the stack of the processor";
    KB kb Words ["kb", "kbL", "kbn", "kbnL"] "show the stack with four words of each frame";
    KC kc Names ["kc", "kcL", "kcn"] "show the stack as names alone";
    KF kf Memory ["kf", "kfL", "kfn", "knf"] "show the stack and how much of it each frame takes";
    KN kn Numbered ["kn", "knL", "kpn"] "show the stack with the frames' numbers";
    KV kv Verbose ["kv", "kvL", "kvn", "kvnL"] "show the stack with four words of each frame and where trap frames are";
}

const DETAILS: &[(&str, &str)] = &[
    ("N", "at most so many frames (hexadecimal), 14 unless told otherwise"),
    (
        "= RSP RIP [N]",
        "the stack of code that stands at RIP with the stack pointer RSP; no other register is known",
    ),
];

/// What is printed of each frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Form {
    #[default]
    Plain,
    Numbered,
    Words,
    Names,
    Memory,
    Verbose,
}

/// A stack, the frame that runs first.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub(super) struct StackView {
    frames: Vec<FrameView>,
    end: EndView,
    #[serde(skip)]
    form: Form,
}

#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
struct FrameView {
    frame: u32,
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    sp: VirtAddr,
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pc: VirtAddr,
    /// Where its caller goes on; nothing if that is not known.
    #[serde(serialize_with = "output::address_or_null")]
    #[schemars(with = "Option<output::Hex>")]
    return_address: Option<VirtAddr>,
    module: Option<TargetText>,
    symbol: Option<TargetText>,
    displacement: u64,
    kind: KindView,
    /// The `_KTRAP_FRAME` in which the caller's registers are.
    #[serde(serialize_with = "output::address_or_null")]
    #[schemars(with = "Option<output::Hex>")]
    trap_frame: Option<VirtAddr>,
    /// Whatever lies where the function finds room for its first four arguments; nothing if that cannot be read.
    args: Option<Vec<Word>>,
    #[serde(skip)]
    site: Site,
}

#[derive(Clone, Copy, Debug, Serialize, schemars::JsonSchema)]
struct Word(
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    VirtAddr,
);

/// What a frame's program counter is called, with and without how far it lies from there.
#[derive(Clone, Debug, Default)]
struct Site {
    whole: String,
    start: String,
}

/// How a frame leads to its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum KindView {
    /// By its unwind information.
    Call,
    /// It has none, as code that calls nothing needs none.
    Leaf,
    /// It has none, and calls: what follows may be wrong.
    Missing,
    /// An interrupt or a fault broke into its caller.
    Trap,
    /// It does not: see `end`.
    Last,
}

/// Why there are no more frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum EndView {
    /// Nobody called the last one.
    Whole,
    /// As many as were asked for.
    Limit,
    /// The last one is of user mode.
    UserMode,
    /// The last one lies in no module.
    NoModule,
    /// How the last one leads to its caller could not be read, or makes no sense.
    Broken,
}

impl StackView {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("stack");
}

impl Site {
    /// What lies in no module, as WinDbg writes it: ``0xfffffa80`0bd8e010``, `0x0`.
    fn nowhere(at: VirtAddr) -> Self {
        let (high, low) = (at.0 >> 32, at.0 & 0xffff_ffff);
        let whole = if high == 0 { format!("{low:#x}") } else { format!("{high:#010x}`{low:08x}") };
        Self { start: whole.clone(), whole }
    }
}

impl From<(usize, StackFrame)> for FrameView {
    fn from((number, frame): (usize, StackFrame)) -> Self {
        let StackFrame { stack_pointer, program_counter, return_address, arguments, kind, symbol } = frame;
        let (kind, trap_frame) = match kind {
            FrameKind::Call => (KindView::Call, None),
            FrameKind::Leaf => (KindView::Leaf, None),
            FrameKind::Missing => (KindView::Missing, None),
            FrameKind::Trap { frame } => (KindView::Trap, Some(frame)),
            FrameKind::Last => (KindView::Last, None),
        };
        Self {
            frame: u32::try_from(number).unwrap_or(u32::MAX),
            sp: stack_pointer,
            pc: program_counter,
            return_address,
            module: symbol.module.as_ref().map(|module| TargetText::from(&**module)),
            symbol: symbol.symbol.as_ref().map(|name| TargetText::from(name.as_str())),
            displacement: symbol.displacement,
            kind,
            trap_frame,
            args: arguments.map(|words| words.map(|word| Word(VirtAddr(word))).to_vec()),
            site: match symbol.module {
                Some(_) => Site { whole: symbol.to_string(), start: symbol.start().to_string() },
                None => Site::nowhere(program_counter),
            },
        }
    }
}

/// An address, or question marks where it is not known.
struct Known(Option<VirtAddr>);

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => Address { address, pointer_size: 8 }.fmt(f),
            None => f.write_str("????????`????????"),
        }
    }
}

const WORDS: &str = "Args to Child                                                           ";

impl StackView {
    fn write_frame(&self, number: usize, is_old: bool, out: &mut dyn fmt::Write) -> fmt::Result {
        let FrameView { frame, sp, return_address, trap_frame, args, site, .. } = &self.frames[number];
        let (sp, return_address) = (Known(Some(*sp)), Known(*return_address));
        // Today's debuggers leave room behind the return address, and number every frame.
        let gap = if is_old { "" } else { "    " };
        if !(is_old && matches!(self.form, Form::Plain | Form::Words | Form::Verbose)) {
            write!(out, "{frame:02x}")?;
            out.write_str(if self.form == Form::Memory { "" } else { " " })?;
        }
        let words = |out: &mut dyn fmt::Write| {
            out.write_str(" :")?;
            for word in 0..4 {
                write!(out, " {}", Known(args.as_ref().and_then(|args| args.get(word)).map(|word| word.0)))?;
            }
            out.write_str(" :")
        };
        match self.form {
            Form::Names => return writeln!(out, "{}", site.start),
            Form::Plain | Form::Numbered => write!(out, "{sp} {return_address}{gap}")?,
            Form::Words => {
                write!(out, "{return_address}{gap}")?;
                words(out)?;
            }
            Form::Verbose => {
                write!(out, "{sp} {return_address}{gap}")?;
                words(out)?;
            }
            Form::Memory => {
                let below = number.checked_sub(1).map(|below| self.frames[below].sp);
                let taken = below.map(|below| format!("{:x}", self.frames[number].sp.since(below)));
                write!(out, "{:>9}  {sp} {return_address}{gap}", taken.unwrap_or_default())?;
            }
        }
        write!(out, " {}", site.whole)?;
        if let Some(trap_frame) = trap_frame.filter(|_| self.form == Form::Verbose) {
            write!(out, " (TrapFrame @ {})", Known(Some(trap_frame)))?;
        }
        writeln!(out)
    }
}

impl Facts for StackView {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        let is_old = context.style.verifier == VerifierFormat::Old;
        let gap = if is_old { "" } else { "    " };
        let number = if is_old { "" } else { " # " };
        match self.form {
            Form::Plain => writeln!(out, "{number}Child-SP          RetAddr          {gap} Call Site")?,
            Form::Numbered => writeln!(out, " # Child-SP          RetAddr          {gap} Call Site")?,
            Form::Words => writeln!(out, "{number}RetAddr          {gap} : {WORDS}: Call Site")?,
            Form::Verbose => {
                writeln!(out, "{number}Child-SP          RetAddr          {gap} : {WORDS}: Call Site")?;
            }
            Form::Names => writeln!(out, " # Call Site")?,
            Form::Memory => writeln!(out, " #   Memory  Child-SP          RetAddr          {gap} Call Site")?,
        }
        (0..self.frames.len()).try_for_each(|frame| self.write_frame(frame, is_old, out))
    }
}

fn stack(spec: &'static CommandSpec, form: Form, text: &str, target: &Target<'_>) -> Found {
    let mut arguments = Arguments::new(spec, text);
    let start = if arguments.skip("=") {
        let stack_pointer = arguments.address(target)?;
        if arguments.is_empty() {
            return Err(arguments.usage("after `=` come a stack pointer and a program counter"));
        }
        Some(StackStart::at(stack_pointer, arguments.address(target)?))
    } else {
        None
    };
    let limit = if arguments.is_empty() { FRAMES } else { arguments.expression(target)? };
    arguments.end()?;
    if !(1..=MAX_FRAMES).contains(&limit) {
        return Err(arguments.usage(format!("{limit:#x} is no number of frames from 1 to {MAX_FRAMES:#x}")));
    }
    let failed = |source| QueryError::Target { command: spec.names[0], source };
    let stack = target.stack(start, limit as usize).map_err(failed)?;
    note_end(&stack.end, stack.frames.last(), limit, target);
    for missing in stack.frames.iter().filter(|frame| frame.kind == FrameKind::Missing) {
        let text = format!(
            "{} has no unwind information: what follows it may be wrong.",
            missing.symbol.module.as_deref().unwrap_or("its module")
        );
        target.note(Note::partial(NoteCode::NoUnwindInformation, text));
    }
    let mut told = BTreeSet::new();
    for symbol in stack.frames.iter().map(|frame| &frame.symbol) {
        if let (Some(module), Some(note)) = (&symbol.module, symbol.missing_note())
            && told.insert(Arc::clone(module))
        {
            target.note(note);
        }
    }
    let end = match stack.end {
        StackEnd::Whole => EndView::Whole,
        StackEnd::Limit => EndView::Limit,
        StackEnd::UserMode => EndView::UserMode,
        StackEnd::NoModule => EndView::NoModule,
        StackEnd::NotAbove(_) | StackEnd::Broken(_) => EndView::Broken,
    };
    let frames = stack.frames.into_iter().enumerate().map(FrameView::from).collect();
    Ok(Box::new(StackView { frames, end, form }))
}

/// Says why a stack ends, unless it is whole.
fn note_end(end: &StackEnd, last: Option<&StackFrame>, limit: u64, target: &Target<'_>) {
    let note = match end {
        StackEnd::Whole => return,
        StackEnd::Limit => Note::remark(
            NoteCode::Limit,
            format!(
                "There may be more than {}: k {:x} shows twice as many.",
                output::counted(limit, "frame"),
                limit * 2
            ),
        ),
        StackEnd::UserMode => {
            Note::remark(NoteCode::UserMode, "The stack goes on in user mode, which is not looked into.")
        }
        StackEnd::NoModule => {
            let at = last.map_or(VirtAddr(0), |last| last.program_counter);
            let text = format!(
                "The stack breaks off: {} lies in no module that is loaded, so its caller is not known. dps @rsp \
                 L40 shows what looks like return addresses.",
                target.shown(at)
            );
            Note::partial(NoteCode::StackBreaksOff, text)
        }
        StackEnd::NotAbove(at) => {
            let text = format!(
                "The stack breaks off: the caller's stack pointer would be {}, which is not above this one.",
                target.shown(*at)
            );
            Note::partial(NoteCode::StackBreaksOff, text)
        }
        StackEnd::Broken(trouble) => {
            let is_over = match trouble {
                StackTrouble::Read { source, .. } => is_over(&source.cause),
                _ => false,
            };
            let text = format!("The stack breaks off: {trouble}. Frames from here on would be guesses.");
            Note::partial(NoteCode::StackBreaksOff, text).broken_off_if(is_over)
        }
    };
    target.note(note);
}
