//! Layer 2, KD: the packets inside a session, and the structures inside the packets.
//!
//! ```text
//!  0      4    6     8    12       16
//!  | 0000 | ty | len | id | sum    | payload ..   data packet: acknowledged, answered, sent again
//!  | iiii | ty |  0  | id | 0      |              control packet: ACK, RESEND, RESET
//! ```
//!
//! Says nothing of who sends what when: see [`crate::link`].

mod context;
mod debug_io;
mod file_io;
mod manipulate;
mod packet;
mod state_change;
mod status;

pub use context::{Context, ContextX86, KSpecialRegisters};
pub use debug_io::{DebugIo, DebugIoApi};
pub use file_io::{FileIo, FileIoApi, FileRequest};
pub use manipulate::arms::{
    BreakPointEx, BusData, ContextEx, Continue, Continue2, CustomBreakpoint, FillMemory, GetContext,
    GetVersion64, IoSpace, IoSpaceExtended, Msr, QueryMemory, ReadMemory64, RestoreBreakPoint, SearchMemory,
    SetContext, SwitchPartition, VersionFlags, WriteBreakPoint64, WriteMemory64,
};
pub use manipulate::{ApiNumber, Arm, Manipulate, SEARCH_FOUND_NOTHING};
pub use packet::{BREAK_IN, Packet, PacketId, PacketType, Payload};
pub use state_change::{ControlReport, Exception, LoadSymbols, NewState, StateChange, StateDetail};
pub use status::NtStatus;
