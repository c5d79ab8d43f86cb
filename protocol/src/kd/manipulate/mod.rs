//! Manipulate requests and replies: what a host asks of a stopped target.

pub(super) mod arms;

use std::fmt;

use bytes::Bytes;

use self::arms::{
    BreakPointEx, BusData, ContextEx, Continue, Continue2, CustomBreakpoint, FillMemory, GetContext,
    GetVersion64, IoSpace, IoSpaceExtended, Msr, QueryMemory, ReadMemory64, RestoreBreakPoint, SearchMemory,
    SetContext, SwitchPartition, WriteBreakPoint64, WriteMemory64,
};
use super::status::NtStatus;
use crate::address::{PhysAddr, VirtAddr};
use crate::wire::{DecodeError, Reader, Writer, open_enum};

/// What a search that found nothing answers.
pub const SEARCH_FOUND_NOTHING: NtStatus = NtStatus::NO_MORE_ENTRIES;

open_enum! {
    /// Which request this is, `DBGKD_MANIPULATE_STATE64.ApiNumber`. Source: PROTOCOL.md 9.
    pub struct ApiNumber(u32) {
        /// Read virtual memory.
        READ_VIRTUAL_MEMORY = 0x3130 => "ReadVirtualMemory",
        /// Write virtual memory.
        WRITE_VIRTUAL_MEMORY = 0x3131 => "WriteVirtualMemory",
        /// Read a CPU's CONTEXT whole.
        GET_CONTEXT = 0x3132 => "GetContext",
        /// Write a CPU's CONTEXT whole.
        SET_CONTEXT = 0x3133 => "SetContext",
        /// Set a breakpoint.
        WRITE_BREAK_POINT = 0x3134 => "WriteBreakPoint",
        /// Remove a breakpoint.
        RESTORE_BREAK_POINT = 0x3135 => "RestoreBreakPoint",
        /// Let the target run. No reply.
        CONTINUE = 0x3136 => "Continue",
        /// Read a CPU's special registers and pointers.
        READ_CONTROL_SPACE = 0x3137 => "ReadControlSpace",
        /// Write a CPU's special registers.
        WRITE_CONTROL_SPACE = 0x3138 => "WriteControlSpace",
        /// Read a port.
        READ_IO_SPACE = 0x3139 => "ReadIoSpace",
        /// Write a port.
        WRITE_IO_SPACE = 0x313a => "WriteIoSpace",
        /// Restart the machine. No reply.
        REBOOT = 0x313b => "Reboot",
        /// Let the target run, with trace flag and Dr7. No reply.
        CONTINUE2 = 0x313c => "Continue2",
        /// Read physical memory.
        READ_PHYSICAL_MEMORY = 0x313d => "ReadPhysicalMemory",
        /// Write physical memory.
        WRITE_PHYSICAL_MEMORY = 0x313e => "WritePhysicalMemory",
        /// An x86 relic.
        QUERY_SPECIAL_CALLS = 0x313f => "QuerySpecialCalls",
        /// An x86 relic. No reply.
        SET_SPECIAL_CALL = 0x3140 => "SetSpecialCall",
        /// An x86 relic. No reply.
        CLEAR_SPECIAL_CALLS = 0x3141 => "ClearSpecialCalls",
        /// An x86 relic. No reply.
        SET_INTERNAL_BREAK_POINT = 0x3142 => "SetInternalBreakPoint",
        /// An x86 relic.
        GET_INTERNAL_BREAK_POINT = 0x3143 => "GetInternalBreakPoint",
        /// Read a port of a bus.
        READ_IO_SPACE_EXTENDED = 0x3144 => "ReadIoSpaceExtended",
        /// Write a port of a bus.
        WRITE_IO_SPACE_EXTENDED = 0x3145 => "WriteIoSpaceExtended",
        /// Who are you?
        GET_VERSION = 0x3146 => "GetVersion",
        /// Set several breakpoints.
        WRITE_BREAK_POINT_EX = 0x3147 => "WriteBreakPointEx",
        /// Remove several breakpoints.
        RESTORE_BREAK_POINT_EX = 0x3148 => "RestoreBreakPointEx",
        /// Bug-check the machine. No reply.
        CAUSE_BUG_CHECK = 0x3149 => "CauseBugCheck",
        /// Stop on another CPU. No reply, but a state change.
        SWITCH_PROCESSOR = 0x3150 => "SwitchProcessor",
        /// Bring a page in.
        PAGE_IN = 0x3151 => "PageIn",
        /// Read a model-specific register.
        READ_MACHINE_SPECIFIC_REGISTER = 0x3152 => "ReadMachineSpecificRegister",
        /// Write a model-specific register.
        WRITE_MACHINE_SPECIFIC_REGISTER = 0x3153 => "WriteMachineSpecificRegister",
        /// Find bytes in virtual memory.
        SEARCH_MEMORY = 0x3156 => "SearchMemory",
        /// Read bus configuration.
        GET_BUS_DATA = 0x3157 => "GetBusData",
        /// Write bus configuration.
        SET_BUS_DATA = 0x3158 => "SetBusData",
        /// Check low physical memory for corruption.
        CHECK_LOW_MEMORY = 0x3159 => "CheckLowMemory",
        /// Forget internal breakpoints. No reply.
        CLEAR_ALL_INTERNAL_BREAKPOINTS = 0x315a => "ClearAllInternalBreakpoints",
        /// Fill memory with a pattern.
        FILL_MEMORY = 0x315b => "FillMemory",
        /// What kind of address is this?
        QUERY_MEMORY = 0x315c => "QueryMemory",
        /// Stop in another partition.
        SWITCH_PARTITION = 0x315d => "SwitchPartition",
        /// Read a piece of a CPU's CONTEXT.
        GET_CONTEXT_EX = 0x315f => "GetContextEx",
        /// Write a piece of a CPU's CONTEXT.
        SET_CONTEXT_EX = 0x3160 => "SetContextEx",
        /// Set a breakpoint of a given instruction.
        WRITE_CUSTOM_BREAKPOINT = 0x3161 => "WriteCustomBreakpoint",
        /// Read physical memory as a stream of replies.
        READ_PHYSICAL_MEMORY_LONG = 0x3162 => "ReadPhysicalMemoryLong",
    }
}

impl ApiNumber {
    /// False for the requests that a target only acknowledges.
    #[must_use]
    pub const fn has_reply(self) -> bool {
        !matches!(
            self,
            Self::CONTINUE
                | Self::CONTINUE2
                | Self::REBOOT
                | Self::CAUSE_BUG_CHECK
                | Self::SWITCH_PROCESSOR
                | Self::SET_SPECIAL_CALL
                | Self::CLEAR_SPECIAL_CALLS
                | Self::SET_INTERNAL_BREAK_POINT
                | Self::CLEAR_ALL_INTERNAL_BREAKPOINTS
        )
    }

    /// True for the requests during which a target says nothing, however long they take.
    #[must_use]
    pub const fn is_slow(self) -> bool {
        matches!(self, Self::SEARCH_MEMORY | Self::FILL_MEMORY | Self::CHECK_LOW_MEMORY)
    }

    /// True for the requests after which the target is not in its request loop any more.
    #[must_use]
    pub const fn ends_stop(self) -> bool {
        matches!(
            self,
            Self::CONTINUE | Self::CONTINUE2 | Self::REBOOT | Self::CAUSE_BUG_CHECK | Self::SWITCH_PROCESSOR
        )
    }
}

macro_rules! arm {
    ($($(#[$doc:meta])* $variant:ident($type:ident) = $($api:ident)|+,)*) => {
        /// The part of a manipulate packet that depends on its API: a view of the 40-byte union.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Arm {
            $($(#[$doc])* $variant($type),)*
            /// An API without fields, or one this crate does not know.
            None,
        }

        impl Arm {
            fn decode(api_number: ApiNumber, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(match api_number {
                    $($(ApiNumber::$api)|+ => Self::$variant($type::decode(reader)?),)*
                    _ => Self::None,
                })
            }

            fn encode(&self, writer: &mut Writer<'_>) {
                match self {
                    $(Self::$variant(arm) => arm.encode(writer),)*
                    Self::None => {}
                }
            }
        }
    };
}

arm! {
    /// Reads of every kind of memory.
    ReadMemory(ReadMemory64) = READ_VIRTUAL_MEMORY | READ_CONTROL_SPACE | READ_PHYSICAL_MEMORY | READ_PHYSICAL_MEMORY_LONG,
    /// Writes of every kind of memory.
    WriteMemory(WriteMemory64) = WRITE_VIRTUAL_MEMORY | WRITE_CONTROL_SPACE | WRITE_PHYSICAL_MEMORY,
    /// GetContext.
    GetContext(GetContext) = GET_CONTEXT,
    /// SetContext.
    SetContext(SetContext) = SET_CONTEXT,
    /// A breakpoint set.
    WriteBreakPoint(WriteBreakPoint64) = WRITE_BREAK_POINT,
    /// A breakpoint removed.
    RestoreBreakPoint(RestoreBreakPoint) = RESTORE_BREAK_POINT,
    /// Continue.
    Continue(Continue) = CONTINUE,
    /// Continue2.
    Continue2(Continue2) = CONTINUE2,
    /// A port.
    IoSpace(IoSpace) = READ_IO_SPACE | WRITE_IO_SPACE,
    /// A port of a bus.
    IoSpaceExtended(IoSpaceExtended) = READ_IO_SPACE_EXTENDED | WRITE_IO_SPACE_EXTENDED,
    /// GetVersion; meaningful in the reply only.
    GetVersion(GetVersion64) = GET_VERSION,
    /// Several breakpoints.
    BreakPointEx(BreakPointEx) = WRITE_BREAK_POINT_EX | RESTORE_BREAK_POINT_EX,
    /// A model-specific register.
    Msr(Msr) = READ_MACHINE_SPECIFIC_REGISTER | WRITE_MACHINE_SPECIFIC_REGISTER,
    /// A search.
    SearchMemory(SearchMemory) = SEARCH_MEMORY,
    /// Bus configuration.
    BusData(BusData) = GET_BUS_DATA | SET_BUS_DATA,
    /// A fill.
    FillMemory(FillMemory) = FILL_MEMORY,
    /// A question about an address.
    QueryMemory(QueryMemory) = QUERY_MEMORY,
    /// Another partition.
    SwitchPartition(SwitchPartition) = SWITCH_PARTITION,
    /// A piece of a context.
    ContextEx(ContextEx) = GET_CONTEXT_EX | SET_CONTEXT_EX,
    /// A breakpoint of a given instruction.
    CustomBreakpoint(CustomBreakpoint) = WRITE_CUSTOM_BREAKPOINT,
}

/// A manipulate request or reply, `DBGKD_MANIPULATE_STATE64`: 56 bytes, then data.
///
/// | offset | size | field          | meaning                                                       |
/// |-------:|-----:|----------------|---------------------------------------------------------------|
/// |      0 |    4 | ApiNumber      |                                                               |
/// |      4 |    2 | ProcessorLevel | not meaningful in requests                                    |
/// |      6 |    2 | Processor      | matters to context, control space and switch requests only    |
/// |      8 |    4 | ReturnStatus   | in replies                                                    |
/// |     12 |    4 | padding        | stack content in captures                                     |
/// |     16 |   40 | u              | the API's own fields, [`Arm`]                                 |
/// |     56 |      | data           | bytes read, or to write                                       |
///
/// A target copies the request and changes only its results, so what nobody uses is kept and re-encodes the same.
/// Source: PROTOCOL.md 9; 95 captured requests and 92 replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manipulate {
    /// Which request.
    pub api_number: ApiNumber,
    /// Not meaningful.
    pub processor_level: u16,
    /// Which CPU, where that matters.
    pub processor: u16,
    /// How it ended; in a request [`NtStatus::PENDING`] or anything.
    pub return_status: NtStatus,
    /// Between ReturnStatus and the union: not meaningful.
    pub padding: u32,
    /// The API's own fields.
    pub arm: Arm,
    /// The union's bytes behind the arm's fields: not meaningful. The first bytes, where the arm stands, are unused.
    pub unused: [u8; Self::UNION_LEN],
    /// Bytes read, or to write.
    pub data: Bytes,
}

impl Manipulate {
    /// Bytes before the data.
    pub const HEADER_LEN: usize = 56;
    /// Bytes of the union.
    pub const UNION_LEN: usize = 40;

    /// A request without data.
    #[must_use]
    pub const fn new(api_number: ApiNumber, arm: Arm) -> Self {
        Self {
            api_number,
            processor_level: 0,
            processor: 0,
            return_status: NtStatus::PENDING,
            padding: 0,
            arm,
            unused: [0; Self::UNION_LEN],
            data: Bytes::new(),
        }
    }

    /// "Who are you?"
    #[must_use]
    pub const fn get_version() -> Self {
        Self::new(ApiNumber::GET_VERSION, Arm::None)
    }

    /// A read of `count` bytes of virtual memory.
    #[must_use]
    pub const fn read_virtual(address: VirtAddr, count: u32) -> Self {
        Self::read(ApiNumber::READ_VIRTUAL_MEMORY, address.0, count)
    }

    /// A read of `count` bytes of physical memory.
    #[must_use]
    pub const fn read_physical(address: PhysAddr, count: u32) -> Self {
        Self::read(ApiNumber::READ_PHYSICAL_MEMORY, address.0, count)
    }

    /// A write of `data` to virtual memory, at most what one packet carries.
    #[must_use]
    pub fn write_virtual(address: VirtAddr, data: Bytes) -> Self {
        let transfer_count = data.len() as u32;
        let arm = WriteMemory64 { target_base_address: address.0, transfer_count, actual_bytes_written: 0 };
        Self { data, ..Self::new(ApiNumber::WRITE_VIRTUAL_MEMORY, Arm::WriteMemory(arm)) }
    }

    /// A read of a CPU's control space: 0 KPCR, 1 KPRCB, 2 special registers, 3 KTHREAD.
    #[must_use]
    pub const fn read_control_space(processor: u16, selector: u64, count: u32) -> Self {
        let mut request = Self::read(ApiNumber::READ_CONTROL_SPACE, selector, count);
        request.processor = processor;
        request
    }

    /// A write of the first bytes of the same.
    #[must_use]
    pub fn write_control_space(processor: u16, selector: u64, data: Bytes) -> Self {
        let transfer_count = data.len() as u32;
        let arm = WriteMemory64 { target_base_address: selector, transfer_count, actual_bytes_written: 0 };
        let request = Self::new(ApiNumber::WRITE_CONTROL_SPACE, Arm::WriteMemory(arm));
        Self { processor, data, ..request }
    }

    const fn read(api_number: ApiNumber, address: u64, transfer_count: u32) -> Self {
        let arm = ReadMemory64 { target_base_address: address, transfer_count, actual_bytes_read: 0 };
        Self::new(api_number, Arm::ReadMemory(arm))
    }

    /// A search for `pattern` in `length` bytes from `address`.
    #[must_use]
    pub fn search_memory(address: VirtAddr, length: u64, pattern: Bytes) -> Self {
        let pattern_length = u32::try_from(pattern.len()).expect("a pattern fits one packet");
        let arm = SearchMemory { search_address: address, search_length: length, pattern_length };
        Self { data: pattern, ..Self::new(ApiNumber::SEARCH_MEMORY, Arm::SearchMemory(arm)) }
    }

    /// A read of a CPU's whole context in one packet: older targets have no other.
    #[must_use]
    pub const fn get_context(processor: u16) -> Self {
        let mut request = Self::new(ApiNumber::GET_CONTEXT, Arm::GetContext(GetContext { unused: 0 }));
        request.processor = processor;
        request
    }

    /// A write of a CPU's whole context in one packet. The target takes it only if it was read in the same stop.
    #[must_use]
    pub fn set_context(processor: u16, context: Bytes) -> Self {
        let request = Self::new(ApiNumber::SET_CONTEXT, Arm::SetContext(SetContext { context_flags: 0 }));
        Self { processor, data: context, ..request }
    }

    /// A read of `count` bytes of a CPU's context from `offset`.
    #[must_use]
    pub const fn get_context_ex(processor: u16, offset: u32, count: u32) -> Self {
        let arm = ContextEx { offset, byte_count: count, bytes_copied: 0 };
        let mut request = Self::new(ApiNumber::GET_CONTEXT_EX, Arm::ContextEx(arm));
        request.processor = processor;
        request
    }

    /// A write of a piece of a CPU's context, which has `total` bytes; the last piece commits them all.
    #[must_use]
    pub fn set_context_ex(processor: u16, offset: u32, total: u32, piece: Bytes) -> Self {
        let byte_count = u32::try_from(piece.len()).expect("a piece fits one packet");
        let arm = ContextEx { offset, byte_count, bytes_copied: total };
        let request = Self::new(ApiNumber::SET_CONTEXT_EX, Arm::ContextEx(arm));
        Self { processor, data: piece, ..request }
    }

    /// Dr7 with no debug register enabled: bit 10 always reads as one.
    pub const DR7_NONE: u64 = 0x400;

    /// "Run on", without stepping, and with no debug register enabled.
    #[must_use]
    pub const fn continue2(continue_status: NtStatus) -> Self {
        Self::continue_with(continue_status, Self::DR7_NONE)
    }

    /// The same with this in every processor's Dr7.
    #[must_use]
    pub const fn continue_with(continue_status: NtStatus, dr7: u64) -> Self {
        let arm = Continue2 {
            continue_status,
            trace_flag: 0,
            dr7,
            current_symbol_start: VirtAddr(0),
            current_symbol_end: VirtAddr(0),
        };
        Self::new(ApiNumber::CONTINUE2, Arm::Continue2(arm))
    }

    /// Lets the processor that stopped carry out one instruction, and the others run; a stop follows.
    #[must_use]
    pub const fn trace(continue_status: NtStatus) -> Self {
        let mut request = Self::continue2(continue_status);
        if let Arm::Continue2(arm) = &mut request.arm {
            arm.trace_flag = 1;
        }
        request
    }

    /// The reply to this request, as a target builds it: its own copy with a status and data.
    #[must_use]
    pub fn reply(&self, return_status: NtStatus, data: Bytes) -> Self {
        Self { return_status, data, ..self.clone() }
    }

    /// Reads a manipulate packet's payload.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] below 56 bytes.
    pub fn decode(payload: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("manipulate packet", payload);
        let api_number = ApiNumber(reader.u32()?);
        let processor_level = reader.u16()?;
        let processor = reader.u16()?;
        let return_status = NtStatus(reader.u32()?);
        let padding = reader.u32()?;
        let union: [u8; Self::UNION_LEN] = reader.array()?;
        let mut fields = Reader::new("manipulate arm", &union);
        let arm = Arm::decode(api_number, &mut fields)?;
        let used = Self::UNION_LEN - fields.left();
        let mut unused = union;
        unused[..used].fill(0);
        let data = payload.slice(Self::HEADER_LEN..);
        Ok(Self { api_number, processor_level, processor, return_status, padding, arm, unused, data })
    }

    /// The payload to send.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(Self::HEADER_LEN + self.data.len());
        Writer::new(&mut out)
            .u32(self.api_number.0)
            .u16(self.processor_level)
            .u16(self.processor)
            .u32(self.return_status.0)
            .u32(self.padding);
        let union_at = out.len();
        self.arm.encode(&mut Writer::new(&mut out));
        let used = out.len() - union_at;
        Writer::new(&mut out).bytes(&self.unused[used..]).bytes(&self.data);
        out.into()
    }

    /// True if `self` can be the reply to `request`: the same API on the same object.
    ///
    /// A target's reply echoes the request's unused fields, so an address that differs is another request's reply.
    #[must_use]
    pub fn answers(&self, request: &Self) -> bool {
        if self.api_number != request.api_number {
            return false;
        }
        match (&self.arm, &request.arm) {
            (Arm::ReadMemory(reply), Arm::ReadMemory(request)) => {
                reply.target_base_address == request.target_base_address
            }
            (Arm::WriteMemory(reply), Arm::WriteMemory(request)) => {
                reply.target_base_address == request.target_base_address
            }
            _ => true,
        }
    }
}

/// Prints a reply; `{:#}` prints a request, without the fields that only a reply fills in: a request has leftovers there.
impl fmt::Display for Manipulate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_reply = !f.alternate();
        write!(f, "{}", self.api_number)?;
        match &self.arm {
            Arm::ReadMemory(arm) => {
                write!(f, " {} +{:#x}", VirtAddr(arm.target_base_address).wide(), arm.transfer_count)?;
                if is_reply { write!(f, " got {:#x}", arm.actual_bytes_read) } else { Ok(()) }
            }
            Arm::WriteMemory(arm) => {
                write!(f, " {} +{:#x}", VirtAddr(arm.target_base_address).wide(), arm.transfer_count)?;
                if is_reply { write!(f, " put {:#x}", arm.actual_bytes_written) } else { Ok(()) }
            }
            Arm::WriteBreakPoint(arm) => {
                write!(f, " {}", arm.break_point_address.wide())?;
                if is_reply { write!(f, " handle {}", arm.break_point_handle) } else { Ok(()) }
            }
            Arm::RestoreBreakPoint(arm) => write!(f, " handle {}", arm.break_point_handle),
            Arm::Continue(arm) => write!(f, " {}", arm.continue_status),
            Arm::Continue2(arm) => {
                write!(f, " {} trace {} dr7 {:#x}", arm.continue_status, arm.trace_flag, arm.dr7)
            }
            Arm::IoSpace(arm) => {
                write!(f, " {:#x} size {} value {:#x}", arm.io_address, arm.data_size, arm.data_value)
            }
            Arm::Msr(arm) => {
                write!(f, " {:#x} value {:08x}`{:08x}", arm.msr, arm.data_value_high, arm.data_value_low)
            }
            Arm::SearchMemory(arm) => {
                write!(
                    f,
                    " {} +{:#x} pattern {} bytes",
                    arm.search_address.wide(),
                    arm.search_length,
                    arm.pattern_length
                )
            }
            Arm::FillMemory(arm) => write!(f, " {} +{:#x}", arm.address.wide(), arm.length),
            Arm::QueryMemory(arm) => {
                write!(f, " {} space {} flags {:#x}", arm.address.wide(), arm.address_space, arm.flags)
            }
            Arm::ContextEx(arm) => {
                write!(f, " at {:#x} +{:#x}", arm.offset, arm.byte_count)?;
                if is_reply { write!(f, " copied {:#x}", arm.bytes_copied) } else { Ok(()) }
            }
            Arm::GetVersion(arm) if is_reply => {
                write!(
                    f,
                    " build {} machine {:#x} base {}",
                    arm.minor_version,
                    arm.machine_type,
                    arm.kern_base.wide()
                )
            }
            _ => Ok(()),
        }?;
        if is_reply {
            write!(f, " status {}", self.return_status)?;
        }
        if self.data.is_empty() { Ok(()) } else { write!(f, " data {:#x}", self.data.len()) }
    }
}
