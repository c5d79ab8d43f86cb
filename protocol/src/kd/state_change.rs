//! State changes: the target stopped, and why.

use std::fmt;

use bytes::Bytes;

use super::status::NtStatus;
use crate::address::VirtAddr;
use crate::wire::{DecodeError, Reader, Writer, open_enum, wire_struct};

open_enum! {
    /// Why the target stopped, `DBGKD_ANY_WAIT_STATE_CHANGE.NewState`.
    pub struct NewState(u32) {
        /// An exception: a break-in, a breakpoint, a step, a bug check.
        EXCEPTION = 0x3030 => "Exception",
        /// A module was loaded or unloaded.
        LOAD_SYMBOLS = 0x3031 => "LoadSymbols",
        /// The target sends a command for the debugger to run.
        COMMAND_STRING = 0x3032 => "CommandString",
    }
}

/// Bytes of the union that depends on [`NewState`].
const UNION_LEN: usize = 160;

wire_struct! {
    /// `DBGKM_EXCEPTION64`: fills the union.
    pub struct Exception {
        /// What happened.
        exception_code: NtStatus,
        /// 1: cannot be continued.
        exception_flags: u32,
        /// A chained record.
        exception_record: VirtAddr,
        /// Where.
        exception_address: VirtAddr,
        /// How many parameters are valid.
        number_parameters: u32,
        /// Not meaningful.
        padding: u32,
        /// Parameters; unused ones hold stack content.
        exception_information: [u64; 15],
        /// 1: no handler has seen it yet.
        first_chance: u32,
        /// Not meaningful.
        tail_padding: u32,
    }
}

wire_struct! {
    /// `DBGKD_LOAD_SYMBOLS64`: 36 bytes at the start of the union; the path follows the state change.
    pub struct LoadSymbols {
        /// Bytes of the path, NUL included.
        path_name_length: u32,
        /// Not meaningful.
        padding: u32,
        /// Where the module lies; [`LoadSymbols::REBOOT`] is a message instead.
        base_of_dll: VirtAddr,
        /// 0 or -1 for the kernel.
        process_id: u64,
        /// Of the image.
        check_sum: u32,
        /// Bytes in memory.
        size_of_image: u32,
        /// Not 0: unloaded.
        unload_symbols: u8,
    }
}

impl LoadSymbols {
    /// As `base_of_dll` of an unload: the machine restarts.
    pub const REBOOT: VirtAddr = VirtAddr(u64::MAX);
}

wire_struct! {
    /// `AMD64_DBGKD_CONTROL_REPORT`: what the CPU was doing, at the end of a state change.
    pub struct ControlReport {
        /// Debug status.
        dr6: u64,
        /// Debug control.
        dr7: u64,
        /// Flags.
        e_flags: u32,
        /// Valid bytes of `instruction_stream`.
        instruction_count: u16,
        /// 1: segments valid, 2: standard Cs.
        report_flags: u16,
        /// Bytes at the program counter, the target's breakpoints removed.
        instruction_stream: [u8; 16],
        /// Segment.
        seg_cs: u16,
        /// Segment.
        seg_ds: u16,
        /// Segment.
        seg_es: u16,
        /// Segment.
        seg_fs: u16,
    }
}

/// The union of a state change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateDetail {
    /// [`NewState::EXCEPTION`].
    Exception(Exception),
    /// [`NewState::LOAD_SYMBOLS`].
    LoadSymbols(LoadSymbols),
    /// Any other.
    Other,
}

/// The target stopped and waits for requests, `DBGKD_ANY_WAIT_STATE_CHANGE`: 240 bytes, then trailing data.
///
/// | offset | size | field            | meaning                                       |
/// |-------:|-----:|------------------|-----------------------------------------------|
/// |      0 |    4 | NewState         | + 0x10000 from an alternate source            |
/// |      4 |    2 | ProcessorLevel   |                                               |
/// |      6 |    2 | Processor        | which CPU reports                             |
/// |      8 |    4 | NumberProcessors |                                               |
/// |     12 |    4 | padding          |                                               |
/// |     16 |    8 | Thread           | KTHREAD; 0 in a boot debugger                 |
/// |     24 |    8 | ProgramCounter   |                                               |
/// |     32 |  160 | u                | [`StateDetail`]                               |
/// |    192 |   48 | ControlReport    |                                               |
/// |    240 |      | data             | module path, or name and command              |
///
/// Source: PROTOCOL.md 8; seen in `tests/vectors` (A.load_symbols, A.exception, B.exception_breakin).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// Why.
    pub new_state: NewState,
    /// Of the CPU.
    pub processor_level: u16,
    /// Which CPU reports.
    pub processor: u16,
    /// How many there are; treat 0 as 1.
    pub number_processors: u32,
    /// Not meaningful.
    pub padding: u32,
    /// KTHREAD that runs on it.
    pub thread: VirtAddr,
    /// Where it stopped.
    pub program_counter: VirtAddr,
    /// What depends on `new_state`.
    pub detail: StateDetail,
    /// The union's bytes behind the detail's fields: not meaningful. The first bytes, where it stands, are unused.
    pub unused: [u8; UNION_LEN],
    /// What the CPU was doing.
    pub control_report: ControlReport,
    /// A module's path, or name and command; NUL-terminated.
    pub data: Bytes,
}

impl StateChange {
    /// Bytes before the trailing data.
    pub const LEN: usize = 240;

    /// A break-in's or breakpoint's state change, with nothing else of note.
    #[must_use]
    pub const fn exception(exception: Exception, control_report: ControlReport) -> Self {
        Self {
            new_state: NewState::EXCEPTION,
            processor_level: 0,
            processor: 0,
            number_processors: 1,
            padding: 0,
            thread: VirtAddr(0),
            program_counter: exception.exception_address,
            detail: StateDetail::Exception(exception),
            unused: [0; UNION_LEN],
            control_report,
            data: Bytes::new(),
        }
    }

    /// True for a module event; a host that wants the machine to run answers it with a continue.
    #[must_use]
    pub fn is_load_symbols(&self) -> bool {
        matches!(self.detail, StateDetail::LoadSymbols(_))
    }

    /// The machine says that it restarts.
    #[must_use]
    pub fn is_reboot(&self) -> bool {
        matches!(
            self.detail,
            StateDetail::LoadSymbols(LoadSymbols {
                unload_symbols: 1..,
                base_of_dll: LoadSymbols::REBOOT,
                ..
            })
        )
    }

    /// Reads a state change's payload.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] below 240 bytes.
    pub fn decode(payload: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("state change", payload);
        let new_state = NewState(reader.u32()?);
        let processor_level = reader.u16()?;
        let processor = reader.u16()?;
        let number_processors = reader.u32()?;
        let padding = reader.u32()?;
        let thread = VirtAddr(reader.u64()?);
        let program_counter = VirtAddr(reader.u64()?);
        let union: [u8; UNION_LEN] = reader.array()?;
        let mut fields = Reader::new("state change detail", &union);
        let detail = match new_state {
            NewState::EXCEPTION => StateDetail::Exception(Exception::decode(&mut fields)?),
            NewState::LOAD_SYMBOLS => StateDetail::LoadSymbols(LoadSymbols::decode(&mut fields)?),
            _ => StateDetail::Other,
        };
        let used = UNION_LEN - fields.left();
        let mut unused = union;
        unused[..used].fill(0);
        let control_report = ControlReport::decode(&mut reader)?;
        let data = payload.slice(Self::LEN..);
        Ok(Self {
            new_state,
            processor_level,
            processor,
            number_processors,
            padding,
            thread,
            program_counter,
            detail,
            unused,
            control_report,
            data,
        })
    }

    /// The payload to send.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(Self::LEN + self.data.len());
        Writer::new(&mut out)
            .u32(self.new_state.0)
            .u16(self.processor_level)
            .u16(self.processor)
            .u32(self.number_processors)
            .u32(self.padding)
            .u64(self.thread.0)
            .u64(self.program_counter.0);
        let union_at = out.len();
        match &self.detail {
            StateDetail::Exception(exception) => exception.encode(&mut Writer::new(&mut out)),
            StateDetail::LoadSymbols(load) => load.encode(&mut Writer::new(&mut out)),
            StateDetail::Other => {}
        }
        let used = out.len() - union_at;
        let mut writer = Writer::new(&mut out);
        writer.bytes(&self.unused[used..]);
        self.control_report.encode(&mut writer);
        writer.bytes(&self.data);
        out.into()
    }
}

impl fmt::Display for StateChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cpu {} pc {}", self.new_state, self.processor, self.program_counter.wide())?;
        match &self.detail {
            StateDetail::Exception(exception) => {
                let chance = if exception.first_chance == 0 { "second" } else { "first" };
                write!(
                    f,
                    " code {} at {} {chance} chance",
                    exception.exception_code,
                    exception.exception_address.wide()
                )
            }
            StateDetail::LoadSymbols(load) if self.is_reboot() => {
                write!(f, " reboot {}", load.base_of_dll.wide())
            }
            StateDetail::LoadSymbols(load) => {
                let path: String =
                    self.data.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect();
                let what = if load.unload_symbols == 0 { "load" } else { "unload" };
                write!(
                    f,
                    " {what} {} +{:#x} {}",
                    load.base_of_dll.wide(),
                    load.size_of_image,
                    path.escape_default()
                )
            }
            StateDetail::Other => Ok(()),
        }
    }
}
