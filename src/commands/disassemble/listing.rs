//! A listing of instructions: facts and how they are printed.

use std::fmt;

use serde::Serialize;

use crate::commands::answer::Facts;
use crate::commands::context::Context;
use crate::commands::schema::Schema;
use crate::disassembly::{Flow, Instruction, LONGEST, decode};
use crate::output::{self, Address};
use crate::target::{Note, NoteCode, ReadCause, Target, VirtAddr};

/// Instructions by address.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub(super) struct Listing {
    pub(super) instructions: Vec<Line>,
    /// True if they are a whole function's: printed in blocks.
    #[serde(skip)]
    pub(super) is_function: bool,
}

#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub(super) struct Line {
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    address: VirtAddr,
    /// In hexadecimal; nothing if they cannot be read.
    bytes: Option<String>,
    /// Mnemonic and operands; `???` if it is none.
    text: String,
    /// What its address is called, where a symbol or a block begins.
    label: Option<String>,
    /// True for a jump that stays in the function.
    is_branch: bool,
}

impl Line {
    /// An address that cannot be read.
    pub(super) fn unreadable(address: VirtAddr) -> Self {
        Self { address, bytes: None, text: "???".to_owned(), label: None, is_branch: false }
    }
}

impl Listing {
    /// The form of its JSON.
    pub(super) const SCHEMA: Schema = Schema::of::<Self>("instructions");

    pub(super) const fn new(instructions: Vec<Line>) -> Self {
        Self { instructions, is_function: false }
    }
}

impl Facts for Listing {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        for (number, Line { address, bytes, text, label, is_branch }) in self.instructions.iter().enumerate()
        {
            if let Some(label) = label {
                if self.is_function && number > 0 {
                    writeln!(out)?;
                }
                writeln!(out, "{label}:")?;
            }
            let address = Address { address: *address, pointer_size: context.pointer_size };
            let bytes = bytes.as_deref().unwrap_or("??");
            let branch = if self.is_function && *is_branch { "  Branch" } else { "" };
            writeln!(out, "{address} {bytes:<15} {text}{branch}")?;
        }
        Ok(())
    }
}

/// An instruction and its bytes.
pub(super) struct Decoded {
    pub(super) instruction: Instruction,
    pub(super) bytes: Vec<u8>,
    /// True for a jump that stays in the function.
    pub(super) is_branch: bool,
}

impl Decoded {
    /// What stands at an address, or why it cannot be read.
    pub(super) fn at(target: &Target<'_>, at: VirtAddr) -> Result<Self, ReadCause> {
        let (mut bytes, missing) = target.read_some(at, LONGEST);
        // An address that lies in no module has no name, and no request is spent on what may have lain there.
        let name = |address: u64| {
            let address = target.address(address);
            target.module_at(address).map(|module| target.symbol_in(address, &module).to_string())
        };
        match decode(target.pointer_size(), at.0, &bytes, &name) {
            Some(instruction) => {
                bytes.truncate(instruction.len);
                Ok(Self { instruction, bytes, is_branch: false })
            }
            None => Err(missing.map_or(ReadCause::NotMapped, |error| error.cause)),
        }
    }

    pub(super) const fn address(&self) -> VirtAddr {
        VirtAddr(self.instruction.address)
    }

    /// Where the next one stands.
    pub(super) fn next(&self, target: &Target<'_>) -> VirtAddr {
        target.address(self.instruction.address.wrapping_add(self.instruction.len as u64))
    }

    /// Where it jumps to, if it says so.
    pub(super) const fn jumps_to(&self) -> Option<u64> {
        match self.instruction.flow {
            Flow::Jump(to) => to,
            Flow::Branch(to) => Some(to),
            Flow::Next | Flow::Breakpoint | Flow::End => None,
        }
    }
}

/// A line for each instruction; a label for the first, and wherever a symbol begins or `begins_block` says.
pub(super) fn lines(
    target: &Target<'_>,
    instructions: impl IntoIterator<Item = Decoded>,
    begins_block: &dyn Fn(VirtAddr) -> bool,
) -> Vec<Line> {
    let line = |(number, decoded): (usize, Decoded)| {
        let address = decoded.address();
        let symbol = target.symbol_at(address);
        if number == 0
            && let Some(note) = symbol.missing_note()
        {
            target.note(note);
        }
        let begins = number == 0 || symbol.displacement == 0 || begins_block(address);
        Line {
            address,
            bytes: Some(decoded.bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
            text: decoded.instruction.text,
            label: (begins && symbol.is_named()).then(|| symbol.to_string()),
            is_branch: decoded.is_branch,
        }
    };
    instructions.into_iter().enumerate().map(line).collect()
}

/// Says that nothing can be read at an address, and adds a line of it.
pub(super) fn miss(target: &Target<'_>, at: VirtAddr, cause: &ReadCause, lines: &mut Vec<Line>) {
    let shown = target.shown(at);
    let text = match cause {
        ReadCause::NotMapped => format!("Nothing is mapped at {shown}."),
        refused => format!("Nothing can be read at {shown}: {refused}."),
    };
    let note = match lines.is_empty() {
        true => Note::failed(NoteCode::Unreadable, text),
        false => Note::partial(NoteCode::Unreadable, text),
    };
    target.note(note.broken_off_if(crate::target::is_over(cause)));
    lines.push(Line::unreadable(at));
}
