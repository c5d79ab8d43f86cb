//! The stack of a group as every picture shows it: what a frame is called, and what stands where the stack is not known.
//!
//! ```text
//!  the stack is known        driver   nt!KiSystemServiceCopyEnd+0x13   nt!NtDeviceIoControlFile+0x56   ..   the caller
//!  only the caller is        driver   [stack not known]                                                     the caller
//!  several in one group      driver   [several call paths]
//! ```
//! The allocator's own frames are left out: they are the same whoever calls them, and tell nothing of who holds the memory.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::snapshot::{Held, SavedFrame, SavedGroup};
use crate::output::Escaped;

/// Stands for the outer frames of a block whose allocation was not found.
pub(super) const NOT_KNOWN: &str = "[stack not known]";
/// Stands for the stacks of a group that has no single one.
const SEVERAL: &str = "[several call paths]";
/// Most frames of a stack that are shown. Windows keeps far fewer; a file can say anything.
const MOST_FRAMES: usize = 256;

/// What a picture measures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weight {
    /// Bytes that are held.
    #[default]
    Bytes,
    /// Blocks.
    Blocks,
}

impl Weight {
    /// How much of it there is.
    #[must_use]
    pub const fn of(self, held: Held) -> u64 {
        match self {
            Self::Bytes => held.bytes,
            Self::Blocks => held.blocks,
        }
    }

    /// What it is called: `bytes` or `blocks`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Blocks => "blocks",
        }
    }
}

/// Names of a group's frames, outermost first, below its driver. Every name is on one line and without controls.
pub(super) fn stack(group: &SavedGroup) -> Vec<Cow<'static, str>> {
    if group.path.is_empty() {
        return vec![if group.stacks_known > 0 { SEVERAL } else { NOT_KNOWN }.into()];
    }
    let shown = group.path.len().min(MOST_FRAMES);
    let mut frames = Vec::with_capacity(shown + 1);
    if group.stacks_known == 0 {
        frames.push(NOT_KNOWN.into());
    }
    if shown < group.path.len() {
        frames.push(format!("[{} more frames]", group.path.len() - shown).into());
    }
    frames.extend(group.path[..shown].iter().rev().map(|frame| name(frame).into()));
    frames
}

/// What a frame is called.
pub(super) fn name(frame: &SavedFrame) -> String {
    text(&frame.name())
}

/// A name of the target's as a picture shows it.
pub(super) fn text(name: &str) -> String {
    if name.is_empty() { "[no name]".to_owned() } else { Escaped(name).to_string() }
}

/// A text that has at most `width` columns.
pub(super) fn cut(name: &str, width: usize) -> String {
    const CUT: &str = "...";
    if name.width() <= width {
        return name.to_owned();
    }
    let mut shown = String::new();
    let mut left = width.saturating_sub(CUT.len());
    for c in name.chars() {
        let columns = c.width().unwrap_or(0);
        if columns > left {
            break;
        }
        left -= columns;
        shown.push(c);
    }
    shown + CUT
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn the_outermost_frame_comes_first() {
        let group = sample::group("a.sys", &["a!Inner", "a!Outer"], 1, 1);
        assert_eq!(stack(&group), ["a!Outer", "a!Inner"]);
    }

    #[test]
    fn a_stack_that_is_not_known_stands_under_a_frame_that_says_so() {
        let mut group = sample::group("a.sys", &["a!Caller"], 1, 1);
        group.stacks_known = 0;
        assert_eq!(stack(&group), [NOT_KNOWN, "a!Caller"]);
        group.path.clear();
        assert_eq!(stack(&group), [NOT_KNOWN]);
        group.stacks_known = 1;
        assert_eq!(stack(&group), [SEVERAL]);
    }

    #[test]
    fn a_stack_without_end_is_cut_and_says_of_how_much() {
        let names: Vec<_> = (0..1000).map(|it| format!("a!F{it}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let frames = stack(&sample::group("a.sys", &names, 1, 1));
        assert_eq!(frames.len(), MOST_FRAMES + 1);
        assert_eq!((&*frames[0], &*frames[1], &*frames[256]), ("[744 more frames]", "a!F255", "a!F0"));
    }
}
