//! A stop that nobody announced, as a live target would have announced it.

use kd_protocol::kd::{NewState, StateChange};

/// `DBGKD_ANY_WAIT_STATE_CHANGE`, where its fields are.
const PROCESSOR: usize = 6;
const NUMBER_PROCESSORS: usize = 8;
const PROGRAM_COUNTER: usize = 24;
const EXCEPTION_CODE: usize = 32;
const EXCEPTION_ADDRESS: usize = 48;
/// `FirstChance`, behind the exception record: not 0, since what a dump was made for is over.
const FIRST_CHANCE: usize = 32 + 152;

/// The code of no exception.
const NONE: u32 = 0;

/// The stop of a machine of whose `processors` no registers are known.
pub(crate) fn stood_somewhere(processors: u32) -> StateChange {
    exception(NONE, 0, (0, processors))
}

/// A stop of a processor, the first being 0, of `processors` at `at`.
pub(crate) fn exception(code: u32, at: u64, (processor, processors): (u16, u32)) -> StateChange {
    let mut bytes = vec![0; StateChange::LEN];
    bytes[..4].copy_from_slice(&NewState::EXCEPTION.0.to_le_bytes());
    bytes[PROCESSOR..PROCESSOR + 2].copy_from_slice(&processor.to_le_bytes());
    bytes[NUMBER_PROCESSORS..NUMBER_PROCESSORS + 4].copy_from_slice(&processors.to_le_bytes());
    bytes[PROGRAM_COUNTER..PROGRAM_COUNTER + 8].copy_from_slice(&at.to_le_bytes());
    bytes[EXCEPTION_CODE..EXCEPTION_CODE + 4].copy_from_slice(&code.to_le_bytes());
    bytes[EXCEPTION_ADDRESS..EXCEPTION_ADDRESS + 8].copy_from_slice(&at.to_le_bytes());
    bytes[FIRST_CHANCE] = 1;
    StateChange::decode(&bytes.into()).expect("it is as long as one")
}
