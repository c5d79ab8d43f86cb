//! The stop that a dump was made at, as a live target would announce it.

use kd_protocol::kd::{NewState, StateChange};

use super::header::{Header, MACHINE_ARM64, MACHINE_X64};

/// `DBGKD_ANY_WAIT_STATE_CHANGE`, where its fields are.
const PROCESSOR: usize = 6;
const NUMBER_PROCESSORS: usize = 8;
const PROGRAM_COUNTER: usize = 24;
const EXCEPTION_CODE: usize = 32;
const EXCEPTION_ADDRESS: usize = 48;
/// `FirstChance`, behind the exception record: not 0, since what a dump was made for is over.
const FIRST_CHANCE: usize = 32 + 152;
/// A machine that was stopped by whoever made the dump.
const BREAKPOINT: u32 = 0x8000_0003;

/// Where the program counter is in a `CONTEXT` of this machine, and how wide it is.
pub(super) fn program_counter(machine: u16, context: &[u8]) -> u64 {
    let (at, len) = match machine {
        MACHINE_X64 => (0xf8, 8),
        MACHINE_ARM64 => (0x108, 8),
        _ => (0xb8, 4),
    };
    let mut value = [0; 8];
    if let Some(bytes) = context.get(at..at + len) {
        value[..len].copy_from_slice(bytes);
    }
    u64::from_le_bytes(value)
}

/// The stop of a dump with this header.
pub(super) fn of_header(header: &Header) -> StateChange {
    let (code, address) = header.exception.unwrap_or((BREAKPOINT, 0));
    let at = header.context.as_deref().map_or(address, |context| program_counter(header.machine, context));
    exception(code, at, 1)
}

/// A stop of processor 0 of `processors` at `at`.
pub(super) fn exception(code: u32, at: u64, processors: u32) -> StateChange {
    let mut bytes = vec![0; StateChange::LEN];
    bytes[..4].copy_from_slice(&NewState::EXCEPTION.0.to_le_bytes());
    bytes[PROCESSOR..PROCESSOR + 2].copy_from_slice(&0_u16.to_le_bytes());
    bytes[NUMBER_PROCESSORS..NUMBER_PROCESSORS + 4].copy_from_slice(&processors.to_le_bytes());
    bytes[PROGRAM_COUNTER..PROGRAM_COUNTER + 8].copy_from_slice(&at.to_le_bytes());
    bytes[EXCEPTION_CODE..EXCEPTION_CODE + 4].copy_from_slice(&code.to_le_bytes());
    bytes[EXCEPTION_ADDRESS..EXCEPTION_ADDRESS + 8].copy_from_slice(&at.to_le_bytes());
    bytes[FIRST_CHANCE] = 1;
    StateChange::decode(&bytes.into()).expect("it is as long as one")
}
