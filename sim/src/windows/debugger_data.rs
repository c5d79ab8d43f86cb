//! What the kernel tells debuggers about itself: `KDDEBUGGER_DATA64` and the version block.

use kd_protocol::VirtAddr;

use super::kernel::Kernel;
use super::segments::{KERNEL_CODE, KERNEL_DATA, TASK_STATE, USER_CODE, USER_DATA, USER_TEB_32};

/// What the target answers to GetVersion (`DBGKD_GET_VERSION64`, without its unused fields).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// 0xf, a free build; the high byte is 0 for NT.
    pub major: u16,
    /// Build number.
    pub minor: u16,
    /// 6: 64-bit KD.
    pub protocol: u8,
    /// 2: the amd64 `CONTEXT`.
    pub secondary: u8,
    /// 1 multiprocessor, 2 `debugger_data_list` is valid, 4 64-bit pointers.
    pub flags: u16,
    /// 0x8664.
    pub machine_type: u16,
    /// One more than the highest KD packet type.
    pub max_packet_type: u8,
    /// One more than the highest state change, less 0x3030.
    pub max_state_change: u8,
    /// One more than the highest manipulate API, less 0x3130.
    pub max_manipulate: u8,
    /// Base of the kernel's image.
    pub kern_base: VirtAddr,
    /// Address of the head of the list of loaded modules.
    pub ps_loaded_module_list: VirtAddr,
    /// Address of the LIST_ENTRY whose `Flink` leads to `KDDEBUGGER_DATA64`.
    pub debugger_data_list: VirtAddr,
}

/// Fields that hold a variable's or routine's address: offset, symbol. A symbol that this build lacks leaves zero.
///
/// Source of offsets: `wdbgexts.h`, checked on captured blocks of later builds.
const ADDRESSES: &[(u64, &str)] = &[
    (0x20, "DbgBreakPointWithStatus"),
    (0x38, "KiCallUserMode"),
    (0x40, "KeUserCallbackDispatcher"),
    (0x48, "PsLoadedModuleList"),
    (0x50, "PsActiveProcessHead"),
    (0x58, "PspCidTable"),
    (0x60, "ExpSystemResourcesList"),
    (0x68, "ExpPagedPoolDescriptor"),
    (0x70, "ExpNumberOfPagedPools"),
    (0x78, "KeTimeIncrement"),
    (0x80, "KeBugCheckCallbackListHead"),
    (0x88, "KiBugCheckData"),
    (0x90, "IopErrorLogListHead"),
    (0x98, "ObpRootDirectoryObject"),
    (0xa0, "ObpTypeObjectType"),
    (0xb8, "MmSystemCacheWs"),
    (0xc0, "MmPfnDatabase"),
    (0xd8, "MmSubsectionBase"),
    (0xe0, "MmNumberOfPagingFiles"),
    (0xe8, "MmLowestPhysicalPage"),
    (0xf0, "MmHighestPhysicalPage"),
    (0xf8, "MmNumberOfPhysicalPages"),
    (0x100, "MmMaximumNonPagedPoolInBytes"),
    (0x110, "MmNonPagedPoolStart"),
    (0x128, "MmPagedPoolEnd"),
    (0x130, "MmPagedPoolInfo"),
    (0x140, "MmSizeOfPagedPoolInBytes"),
    (0x148, "MmTotalCommitLimit"),
    (0x150, "MmTotalCommittedPages"),
    (0x158, "MmSharedCommit"),
    (0x160, "MmDriverCommit"),
    (0x168, "MmProcessCommit"),
    (0x170, "MmPagedPoolCommit"),
    (0x180, "MmZeroedPageListHead"),
    (0x188, "MmFreePageListHead"),
    (0x190, "MmStandbyPageListHead"),
    (0x198, "MmModifiedPageListHead"),
    (0x1a0, "MmModifiedNoWritePageListHead"),
    (0x1a8, "MmAvailablePages"),
    (0x1b0, "MmResidentAvailablePages"),
    (0x1b8, "PoolTrackTable"),
    (0x1c0, "NonPagedPoolDescriptor"),
    (0x1c8, "MmHighestUserAddress"),
    (0x1d0, "MmSystemRangeStart"),
    (0x1d8, "MmUserProbeAddress"),
    (0x1e0, "KdPrintDefaultCircularBuffer"),
    (0x1f0, "KdPrintWritePointer"),
    (0x1f8, "KdPrintRolloverCount"),
    (0x200, "MmLoadedUserImageList"),
    (0x208, "NtBuildLab"),
    (0x210, "KiSystemCall64"),
    (0x218, "KiProcessorBlock"),
    (0x220, "MmUnloadedDrivers"),
    (0x228, "MmLastUnloadedDriver"),
    (0x238, "MmSpecialPoolTag"),
    (0x240, "KernelVerifier"),
    (0x248, "MmVerifierData"),
    (0x250, "MmAllocatedNonPagedPool"),
    (0x258, "MmPeakCommitment"),
    (0x260, "MmTotalCommitLimitMaximum"),
    (0x268, "CmNtCSDVersion"),
    (0x270, "MmPhysicalMemoryBlock"),
    (0x2c8, "KdPrintCircularBuffer"),
    (0x2d0, "KdPrintBufferSize"),
    (0x2d8, "KeLoaderBlock"),
    (0x308, "IopNumTriageDumpDataBlocks"),
    (0x310, "IopTriageDumpDataBlocks"),
    (0x320, "MmBadPagesDetected"),
    (0x328, "MmZeroedPageSingleBitErrorsDetected"),
    (0x330, "EtwpDebuggerData"),
];

/// 16-bit fields that hold where a field is in its structure. A field that this build lacks, or whose place lies behind the
/// end of its block, leaves nothing; so it is with all that follow.
const OFFSETS: &[(u64, &str, &str)] = &[
    (0x30, "_KTHREAD", "CallbackStack"),
    (0x298, "_KTHREAD", "NextProcessor"),
    (0x29a, "_KTHREAD", "Teb"),
    (0x29c, "_KTHREAD", "KernelStack"),
    (0x29e, "_KTHREAD", "InitialStack"),
    (0x2a0, "_KTHREAD", "ApcState.Process"),
    (0x2a2, "_KTHREAD", "State"),
    (0x2aa, "_EPROCESS", "Peb"),
    (0x2ac, "_EPROCESS", "InheritedFromUniqueProcessId"),
    (0x2ae, "_EPROCESS", "Pcb.DirectoryTableBase"),
    (0x2b2, "_KPRCB", "DpcRoutineActive"),
    (0x2b4, "_KPRCB", "CurrentThread"),
    (0x2b6, "_KPRCB", "MHz"),
    (0x2b8, "_KPRCB", "CpuType"),
    (0x2ba, "_KPRCB", "VendorString"),
    (0x2bc, "_KPRCB", "ProcessorState.ContextFrame"),
    (0x2be, "_KPRCB", "Number"),
    (0x2e2, "_KPCR", "Self"),
    (0x2e4, "_KPCR", "CurrentPrcb"),
    (0x2e6, "_KPCR", "Prcb"),
    (0x2f2, "_KPRCB", "ProcessorState.SpecialRegisters"),
    (0x338, "_KPRCB", "Context"),
    (0x350, "_KPRCB", "IdleThread"),
    (0x352, "_KPRCB", "NormalDpcState"),
    (0x354, "_KPRCB", "DpcStack"),
    (0x356, "_KPRCB", "IsrStack"),
    (0x35c, "_KTHREAD", "WaitReason"),
    (0x398, "_KPRCB", "ExceptionStack"),
];

/// 32-bit fields that hold where a field is in its structure.
const LONG_OFFSETS: &[(u64, &str, &str)] = &[
    (0x340, "_KTHREAD", "StackLimit"),
    (0x344, "_KTHREAD", "StackBase"),
    (0x348, "_KTHREAD", "QueueListEntry"),
    (0x34c, "_ETHREAD", "IrpList"),
];

/// 16-bit fields that hold a structure's size.
const SIZES: &[(u64, &str)] =
    &[(0x2a8, "_EPROCESS"), (0x2b0, "_KPRCB"), (0x2c0, "_ETHREAD"), (0x2e0, "_KPCR")];

/// 16-bit fields that hold numbers: segments, and how many breakpoints and watchpoints the kernel offers.
const NUMBERS: &[(u64, u64)] = &[
    (0x2f4, KERNEL_CODE),
    (0x2f6, KERNEL_DATA),
    (0x2fa, USER_CODE | 3),
    (0x2fc, USER_DATA | 3),
    (0x2fe, USER_TEB_32 | 3),
    (0x302, TASK_STATE),
    (0x33a, 0x20),
    (0x33c, 0),
];

/// Bytes of `KdPrintDefaultCircularBuffer`.
pub(super) const PRINT_BUFFER_SIZE: u64 = 0x1000;

/// Writes the block, links it where GetVersion's list head leads, and writes the version block.
pub(super) fn publish(kernel: &mut Kernel, version: &Version) {
    let block = kernel.symbol("KdDebuggerDataBlock");
    let head = version.debugger_data_list;
    kernel.list_init(head);
    kernel.list_append(head, block);
    kernel.write(block.offset(0x10), b"KDBG");
    let size = kernel.layouts.release.debugger_data_size;
    kernel.write_u32(block.offset(0x14), size);
    kernel.write_u64(block.offset(0x18), version.kern_base.0);
    for (offset, symbol) in ADDRESSES {
        if let Some(address) = kernel.find_symbol(symbol) {
            kernel.write_u64(block.offset(*offset), address.0);
        }
    }
    let print_buffer = kernel.symbol("KdPrintDefaultCircularBuffer");
    kernel.write_u64(block.offset(0x1e8), print_buffer.offset(PRINT_BUFFER_SIZE).0);
    const PAGE_SIZE_VALUE: u64 = 0x1000;
    kernel.write_u64(block.offset(0x138), PAGE_SIZE_VALUE);
    let types = &kernel.layouts.types;
    let place = |(at, aggregate, field): &(u64, &str, &str), bytes: usize| {
        types.locate(aggregate, field).map(|(offset, _)| (*at, u64::from(offset), bytes))
    };
    let short = OFFSETS.iter().filter_map(|entry| place(entry, 2));
    let long = LONG_OFFSETS.iter().filter_map(|entry| place(entry, 4));
    let sizes = SIZES.iter().map(|(at, aggregate)| (*at, kernel.size_of(aggregate), 2));
    let numbers = NUMBERS.iter().map(|(at, number)| (*at, *number, 2));
    const PAE_ENABLED: (u64, u64, usize) = (0x36, 1, 2);
    let numbers: Vec<_> = short.chain(long).chain(sizes).chain(numbers).chain([PAE_ENABLED]).collect();
    for (offset, number, bytes) in numbers.into_iter().filter(|(offset, ..)| *offset < size.into()) {
        kernel.write(block.offset(offset), &number.to_le_bytes()[..bytes]);
    }

    let block = kernel.symbol("KdVersionBlock");
    let fields = [
        ("MajorVersion", version.major.into()),
        ("MinorVersion", version.minor.into()),
        ("ProtocolVersion", version.protocol.into()),
        ("KdSecondaryVersion", version.secondary.into()),
        ("Flags", version.flags.into()),
        ("MachineType", version.machine_type.into()),
        ("MaxPacketType", version.max_packet_type.into()),
        ("MaxStateChange", version.max_state_change.into()),
        ("MaxManipulate", version.max_manipulate.into()),
        ("KernBase", version.kern_base.0),
        ("PsLoadedModuleList", version.ps_loaded_module_list.0),
        ("DebuggerDataList", version.debugger_data_list.0),
    ];
    kernel.set_all(block, "_DBGKD_GET_VERSION64", &fields);
}

/// Takes the block away, and what leads to it.
pub(super) fn remove(kernel: &mut Kernel, version: &mut Version) {
    const DATA: u16 = 2;
    let block = kernel.symbol("KdDebuggerDataBlock");
    let size = kernel.layouts.release.debugger_data_size;
    kernel.write(block, &vec![0; size as usize]);
    kernel.write(version.debugger_data_list, &[0; 16]);
    version.flags &= !DATA;
    version.debugger_data_list = VirtAddr(0);
    let version_block = kernel.symbol("KdVersionBlock");
    let fields = [("Flags", version.flags.into()), ("DebuggerDataList", 0)];
    kernel.set_all(version_block, "_DBGKD_GET_VERSION64", &fields);
}

/// Encodes the block as a kernel does that was not booted for debugging.
///
/// Source: readers of dumps that decode it, QEMU's elf2dmp and MemProcFS; this is their inverse.
pub(super) fn encode(kernel: &mut Kernel, never: u64, always: u64) {
    let [block, flag, of_never, of_always] =
        ["KdDebuggerDataBlock", "KdpDataBlockEncoded", "KiWaitNever", "KiWaitAlways"]
            .map(|name| kernel.symbol(name));
    kernel.write_u64(of_never, never);
    kernel.write_u64(of_always, always);
    let size = kernel.layouts.release.debugger_data_size;
    for offset in (0..u64::from(size)).step_by(8) {
        let word = (kernel.read_u64(block.offset(offset)) ^ always).swap_bytes() ^ flag.0;
        kernel.write_u64(block.offset(offset), word.rotate_right(never as u32 & 63) ^ never);
    }
    kernel.write(flag, &[1]);
}

/// What the kernel answers to GetVersion.
pub(super) fn version(kernel: &Kernel) -> Version {
    Version {
        major: 0xf,
        minor: kernel.layouts.release.number,
        protocol: 6,
        secondary: 2,
        flags: 7,
        machine_type: 0x8664,
        max_packet_type: 12,
        max_state_change: 3,
        max_manipulate: kernel.layouts.release.max_manipulate,
        kern_base: VirtAddr(kernel.image("nt").base),
        ps_loaded_module_list: kernel.symbol("PsLoadedModuleList"),
        debugger_data_list: kernel.symbol("KdpDebuggerDataListHead"),
    }
}
