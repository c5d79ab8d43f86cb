//! Instructions as they are told: plain data, and WinDbg's lines.

use std::fmt;

use serde::Serialize;

use crate::commands::answer::Facts;
use crate::commands::context::Context;
use crate::commands::schema::Schema;
use crate::output::{self, Address, TargetText};
use crate::target::VirtAddr;

/// Instructions in order of address; a function's from where it begins, then those placed before it.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub(super) struct Unassembly {
    pub(super) instructions: Vec<InstructionLine>,
    #[serde(skip)]
    pub(super) end: VirtAddr,
    #[serde(skip)]
    pub(super) pointer_size: usize,
}

/// One instruction. Prints as its bytes, mnemonic and operands, as they stand behind its address.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct InstructionLine {
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub(super) address: VirtAddr,
    /// Its name, where what it names begins to be shown.
    pub(super) label: Option<TargetText>,
    /// Its bytes in hexadecimal.
    bytes: String,
    /// Mnemonic and operands; `???` of a byte that begins no instruction.
    code: TargetText,
    /// Where it branches to, or what it takes from or puts into memory by an address of its own.
    #[serde(serialize_with = "output::address_or_null")]
    #[schemars(with = "Option<output::Hex>")]
    refers_to: Option<VirtAddr>,
    /// It begins a part of a function that is reached otherwise than from the instruction before it.
    #[serde(skip)]
    pub(super) begins_block: bool,
}

impl InstructionLine {
    pub(super) fn new(address: VirtAddr, bytes: &[u8], code: String, refers_to: Option<VirtAddr>) -> Self {
        let bytes = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { address, label: None, bytes, code: code.as_str().into(), refers_to, begins_block: false }
    }
}

impl InstructionLine {
    /// Where it begins.
    #[must_use]
    pub const fn address(&self) -> VirtAddr {
        self.address
    }
}

impl fmt::Display for InstructionLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<15} {}", self.bytes, self.code)
    }
}

impl Unassembly {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("instructions");
}

impl Facts for Unassembly {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, _: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        for (number, line) in self.instructions.iter().enumerate() {
            if line.begins_block && number > 0 {
                writeln!(out)?;
            }
            if let Some(label) = &line.label {
                writeln!(out, "{label}:")?;
            }
            let address = Address { address: line.address, pointer_size: self.pointer_size };
            writeln!(out, "{address} {line}")?;
        }
        Ok(())
    }
}
