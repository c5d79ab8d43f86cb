//! `ub`: the instructions before an address.

use std::collections::VecDeque;

use super::listing::{Decoded, Listing, lines};
use crate::disassembly::{WINDOW, last_length};
use crate::target::{Note, NoteCode, Target, VirtAddr};

/// Most bytes from where code is known to begin that are read to find what stands before an address.
const LONGEST_WAY: u64 = 0x1000;
/// What compilers fill gaps between functions with: `int 3`.
const PADDING: u8 = 0xcc;

/// The `count` instructions that end at `end`, or as many as are found.
pub(super) fn before(target: &Target<'_>, end: VirtAddr, count: usize) -> Listing {
    let (mut found, mut at, mut is_guessed) = (VecDeque::new(), end, false);
    while found.len() < count {
        if let Some(row) = known_row(target, at) {
            for decoded in row.into_iter().rev().take(count - found.len()) {
                at = decoded.address();
                found.push_front(decoded);
            }
            continue;
        }
        let Some(decoded) = likeliest(target, at) else { break };
        is_guessed |= decoded.bytes != [PADDING];
        at = decoded.address();
        found.push_front(decoded);
    }
    let at = target.shown(at);
    if found.is_empty() {
        let text = format!("No instruction ends at {at}, as far as can be read.");
        target.note(Note::failed(NoteCode::NotFound, text));
    } else if found.len() < count {
        let text = format!("What stands before {at} cannot be read, or is no code.");
        target.note(Note::partial(NoteCode::Unreadable, text));
    }
    if is_guessed {
        let text =
            "Where the code before the address begins is not known: which instructions end there is guessed.";
        target.note(Note::remark(NoteCode::Guessed, text));
    }
    Listing::new(lines(target, found, &|_| false))
}

/// The instructions up to `end` from where their code begins, if that is known and they end there.
fn known_row(target: &Target<'_>, end: VirtAddr) -> Option<Vec<Decoded>> {
    let start = target.code_around(VirtAddr(end.0.checked_sub(1)?))?.part.start;
    if end.since(start) > LONGEST_WAY {
        return None;
    }
    let (mut row, mut at) = (Vec::new(), start);
    while at < end {
        let decoded = Decoded::at(target, at).ok().filter(|decoded| decoded.instruction.is_one)?;
        at = decoded.next(target);
        row.push(decoded);
    }
    (at == end).then_some(row)
}

/// What most likely is the instruction that ends at `end`.
fn likeliest(target: &Target<'_>, end: VirtAddr) -> Option<Decoded> {
    let len = (WINDOW as u64).min(end.0);
    let bytes = target.read_sparse(VirtAddr(end.0 - len), len as usize);
    // Behind the last hole.
    let readable = (0..bytes.len()).find_map(|from| bytes.get(from..bytes.len()))?;
    let len = last_length(target.pointer_size(), readable)?;
    Decoded::at(target, VirtAddr(end.0 - len as u64)).ok()
}
