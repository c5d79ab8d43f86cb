//! The stop that a dump was made at, as a live target would announce it.

use kd_protocol::MachineType;
use kd_protocol::kd::StateChange;

use super::header::Header;
use crate::physical::{exception, stood_somewhere};

/// A machine that was stopped by whoever made the dump.
const BREAKPOINT: u32 = 0x8000_0003;

/// Where the program counter is in a `CONTEXT` of this machine, and how wide it is.
pub(super) fn program_counter(machine: MachineType, context: &[u8]) -> u64 {
    let (at, len) = match machine {
        MachineType::AMD64 => (0xf8, 8),
        MachineType::ARM64 => (0x108, 8),
        _ => (0xb8, 4),
    };
    let mut value = [0; 8];
    if let Some(bytes) = context.get(at..at + len) {
        value[..len].copy_from_slice(bytes);
    }
    u64::from_le_bytes(value)
}

/// The stop of a dump with this header, by this processor.
pub(super) fn of_header(header: &Header, processor: u16) -> StateChange {
    if header.exception.is_none() && header.context.is_none() {
        return stood_somewhere(header.processors);
    }
    let (code, address) = header.exception.unwrap_or((BREAKPOINT, 0));
    let at = header.context.as_deref().map_or(address, |context| program_counter(header.machine, context));
    exception(code, at, (processor, header.processors))
}
