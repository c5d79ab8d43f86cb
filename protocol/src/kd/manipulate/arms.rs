//! The arms of the manipulate union, one structure an API: each field list is its layout, without gaps.
//!
//! Offsets count from the union, byte 16 of the packet. Source: PROTOCOL.md 9, where each has its evidence.

use crate::address::VirtAddr;
use crate::kd::status::NtStatus;
use crate::wire::wire_struct;

wire_struct! {
    /// `DBGKD_READ_MEMORY64`: virtual, physical and control-space reads.
    ///
    /// Seen in `tests/vectors` (A.read_virtual_request and its replies).
    pub struct ReadMemory64 {
        /// First byte to read: virtual or physical address, or the control-space selector.
        target_base_address: u64,
        /// Bytes asked for.
        transfer_count: u32,
        /// Bytes returned. In a physical read's request: 0 default, 1 cached, 2 uncached, 3 write-combined.
        actual_bytes_read: u32,
    }
}

wire_struct! {
    /// `DBGKD_WRITE_MEMORY64`: virtual, physical and control-space writes; the bytes are the packet's data.
    pub struct WriteMemory64 {
        /// First byte to write: virtual or physical address, or the control-space selector.
        target_base_address: u64,
        /// Bytes to write.
        transfer_count: u32,
        /// Bytes written.
        actual_bytes_written: u32,
    }
}

wire_struct! {
    /// `DBGKD_GET_CONTEXT`: the reply's data is the CONTEXT.
    pub struct GetContext {
        /// Not meaningful.
        unused: u32,
    }
}

wire_struct! {
    /// `DBGKD_SET_CONTEXT`: the request's data is the CONTEXT.
    pub struct SetContext {
        /// Ignored by targets.
        context_flags: u32,
    }
}

wire_struct! {
    /// `DBGKD_WRITE_BREAKPOINT64`.
    pub struct WriteBreakPoint64 {
        /// Where.
        break_point_address: VirtAddr,
        /// In the reply: 1 to 32.
        break_point_handle: u32,
    }
}

wire_struct! {
    /// `DBGKD_RESTORE_BREAKPOINT`.
    pub struct RestoreBreakPoint {
        /// 1 to 32; an empty slot answers [`NtStatus::UNSUCCESSFUL`].
        break_point_handle: u32,
    }
}

wire_struct! {
    /// `DBGKD_CONTINUE`.
    pub struct Continue {
        /// [`NtStatus::DBG_CONTINUE`], or whether an exception was handled.
        continue_status: NtStatus,
    }
}

wire_struct! {
    /// `DBGKD_CONTINUE2` with the AMD64 control set, packed to four bytes.
    pub struct Continue2 {
        /// [`NtStatus::DBG_CONTINUE`], or whether an exception was handled.
        continue_status: NtStatus,
        /// Not 0: execute one instruction.
        trace_flag: u32,
        /// Written to every CPU.
        dr7: u64,
        /// Range in which a trace goes on; unused.
        current_symbol_start: VirtAddr,
        /// End of that range.
        current_symbol_end: VirtAddr,
    }
}

wire_struct! {
    /// `DBGKD_READ_WRITE_IO64`.
    pub struct IoSpace {
        /// Port.
        io_address: u64,
        /// 1, 2 or 4 bytes.
        data_size: u32,
        /// Read, or to write.
        data_value: u32,
    }
}

wire_struct! {
    /// `DBGKD_READ_WRITE_IO_EXTENDED64`.
    pub struct IoSpaceExtended {
        /// 1, 2 or 4 bytes.
        data_size: u32,
        /// `INTERFACE_TYPE`.
        interface_type: u32,
        /// Which bus.
        bus_number: u32,
        /// Memory or port.
        address_space: u32,
        /// Port.
        io_address: u64,
        /// Read, or to write.
        data_value: u32,
    }
}

wire_struct! {
    /// `DBGKD_GET_VERSION64`: who the target is. Fills the union.
    ///
    /// Source: PROTOCOL.md 9; seen in `tests/vectors` (A and B get_version_reply).
    pub struct GetVersion64 {
        /// Low byte 0x0F free, 0x0C checked build; high byte 0 NT, 4 boot debugger.
        major_version: u16,
        /// Windows build number.
        minor_version: u16,
        /// 6.
        protocol_version: u8,
        /// 2: an AMD64 CONTEXT.
        kd_secondary_version: u8,
        /// [`VersionFlags`].
        flags: VersionFlags,
        /// 0x8664 for x64, 0xAA64 for ARM64.
        machine_type: u16,
        /// Highest packet type plus one.
        max_packet_type: u8,
        /// Highest state change.
        max_state_change: u8,
        /// Highest API, from 0x3130.
        max_manipulate: u8,
        /// 0, or a simulator.
        simulation: u8,
        /// Not meaningful.
        unused: u16,
        /// Where the kernel image lies.
        kern_base: VirtAddr,
        /// List head of loaded modules.
        ps_loaded_module_list: VirtAddr,
        /// List head of debugger data blocks, whose first is KDDEBUGGER_DATA64; 0 in a boot debugger.
        debugger_data_list: VirtAddr,
    }
}

bitflags::bitflags! {
    /// `DBGKD_GET_VERSION64.Flags`. Unknown bits survive.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct VersionFlags: u16 {
        /// Multi-processor kernel.
        const MP = 1;
        /// `debugger_data_list` is valid.
        const DATA = 2;
        /// 64-bit pointers.
        const PTR64 = 4;
        /// No memory manager yet.
        const NO_MM = 8;
        const _ = !0;
    }
}

impl crate::wire::Field for VersionFlags {
    const LEN: usize = 2;

    fn read(reader: &mut crate::wire::Reader<'_>) -> Result<Self, crate::wire::DecodeError> {
        reader.u16().map(Self::from_bits_retain)
    }

    fn write(&self, writer: &mut crate::wire::Writer<'_>) {
        writer.u16(self.bits());
    }
}

wire_struct! {
    /// `DBGKD_BREAKPOINTEX`: the data is an array of breakpoints.
    pub struct BreakPointEx {
        /// How many.
        break_point_count: u32,
        /// Continue status.
        continue_status: NtStatus,
    }
}

wire_struct! {
    /// `DBGKD_READ_WRITE_MSR`.
    pub struct Msr {
        /// Which register.
        msr: u32,
        /// Bits 0 to 31.
        data_value_low: u32,
        /// Bits 32 to 63.
        data_value_high: u32,
    }
}

wire_struct! {
    /// `DBGKD_SEARCH_MEMORY`: the request's data is the pattern. Source: PROTOCOL.md 9.
    pub struct SearchMemory {
        /// Where to begin; in a successful reply where the match begins.
        search_address: VirtAddr,
        /// A match must begin this near.
        search_length: u64,
        /// Bytes of the pattern.
        pattern_length: u32,
    }
}

wire_struct! {
    /// `DBGKD_GET_SET_BUS_DATA`.
    pub struct BusData {
        /// `BUS_DATA_TYPE`.
        bus_data_type: u32,
        /// Which bus.
        bus_number: u32,
        /// Device and function.
        slot_number: u32,
        /// First byte.
        offset: u32,
        /// How many bytes.
        length: u32,
    }
}

wire_struct! {
    /// `DBGKD_FILL_MEMORY`: the request's data is the pattern.
    pub struct FillMemory {
        /// First byte.
        address: VirtAddr,
        /// Bytes to fill. \[uncertain: bytes filled, in the reply\]
        length: u32,
        /// 1 virtual, 2 physical.
        flags: u16,
        /// Bytes of the pattern.
        pattern_length: u16,
    }
}

wire_struct! {
    /// `DBGKD_QUERY_MEMORY`.
    pub struct QueryMemory {
        /// Which address.
        address: VirtAddr,
        /// Not meaningful.
        reserved: u64,
        /// Request: 0. Reply: 0 process, 1 session, 2 kernel.
        address_space: u32,
        /// Reply: 7, read, write and execute; not the real protection.
        flags: u32,
    }
}

wire_struct! {
    /// `DBGKD_SWITCH_PARTITION`.
    pub struct SwitchPartition {
        /// Which.
        partition: u32,
    }
}

wire_struct! {
    /// `DBGKD_CONTEXT_EX`: a piece of a CPU's context, in the packet's data.
    ///
    /// Seen in `tests/vectors` (B.get_context_ex_reply).
    pub struct ContextEx {
        /// Where in the context the piece lies.
        offset: u32,
        /// Bytes of this piece; in the reply to a read the whole context's size.
        byte_count: u32,
        /// Bytes that were copied; in the request of a write the whole context's size.
        bytes_copied: u32,
    }
}

wire_struct! {
    /// `DBGKD_WRITE_CUSTOM_BREAKPOINT`.
    pub struct CustomBreakpoint {
        /// Where.
        break_point_address: VirtAddr,
        /// What to write there.
        break_point_instruction: u64,
        /// In the reply.
        break_point_handle: u32,
        /// Bytes of the instruction.
        break_point_instruction_size: u8,
        /// Its alignment.
        break_point_instruction_alignment: u8,
    }
}
