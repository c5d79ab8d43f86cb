//! The kernel's global variables that a debugger looks at, the data page shared with user mode, and the print buffer.

use std::time::Duration;

use kd_protocol::VirtAddr;

use super::debugger_data::PRINT_BUFFER_SIZE;
use super::kernel::{Kernel, span};
use super::layout::Release;
use super::pool::hit;
use super::verified::{NONPAGED_POOL_SIZE, NONPAGED_POOL_START};
use super::{processors, time};
use crate::paging::Access;
use crate::physical::PAGE_SIZE;

const SHARED_DATA: VirtAddr = VirtAddr(0xffff_f780_0000_0000);
/// `MmPhysicalMemoryBlock` points to this.
const MEMORY_DESCRIPTOR: VirtAddr = VirtAddr(0xffff_fa80_0366_1f10);
/// Slot of the top page table through which Windows 7 sees all page tables.
const PAGE_TABLES_SLOT: u64 = 0x1ed;
/// Units of 100 ns per clock interrupt.
const TIME_INCREMENT: u64 = 156_250;

/// Writes what stays as it is while the machine runs.
pub(super) fn initialize(kernel: &mut Kernel) {
    kernel.memory.map_tables_at(PAGE_TABLES_SLOT);
    breakpoint_routines(kernel);
    hit::start(kernel);
    strings(kernel);
    const FREE_BUILD: u64 = 0xf000_0000;
    let layouts = kernel.layouts.clone();
    let release = &layouts.release;
    let pages = kernel.memory.physical.size() / PAGE_SIZE;
    kernel.write_variables(&[
        ("MmHighestUserAddress", release.highest_user_address, 8),
        ("MmUserProbeAddress", release.highest_user_address + 1, 8),
        ("MmSystemRangeStart", release.system_range_start, 8),
        ("MmNumberOfPhysicalPages", pages, 8),
        ("MmLowestPhysicalPage", 1, 8),
        ("MmHighestPhysicalPage", pages - 1, 8),
        ("MmNonPagedPoolStart", NONPAGED_POOL_START.0, 8),
        ("MiNonPagedPoolEnd", NONPAGED_POOL_START.0 + NONPAGED_POOL_SIZE, 8),
        ("MmMaximumNonPagedPoolInBytes", NONPAGED_POOL_SIZE, 8),
        ("MmPhysicalMemoryBlock", MEMORY_DESCRIPTOR.0, 8),
        ("MmTotalCommitLimit", pages * 2, 8),
        ("NtBuildNumber", FREE_BUILD | u64::from(release.number), 4),
        ("CmNtCSDVersion", release.service_pack.into(), 4),
        ("KeNumberProcessors", processors::count(kernel) as u64, 4),
        ("KeTimeIncrement", TIME_INCREMENT, 4),
        ("KdPrintBufferSize", PRINT_BUFFER_SIZE, 4),
        ("KdDebuggerEnabled", 1, 1),
    ]);
    let active = kernel.symbol("KeActiveProcessors");
    kernel.set_all(active, "_KAFFINITY_EX", &[("Count", 1), ("Size", 4)]);
    let bitmap = active.offset(kernel.offset_of("_KAFFINITY_EX", "Bitmap"));
    kernel.write_u64(bitmap, u64::MAX >> (64 - processors::count(kernel)));

    kernel.pool_block(MEMORY_DESCRIPTOR, kernel.size_of("_PHYSICAL_MEMORY_DESCRIPTOR"), b"MmPh");
    let fields = [("NumberOfRuns", 1), ("NumberOfPages", pages - 1)];
    kernel.set_all(MEMORY_DESCRIPTOR, "_PHYSICAL_MEMORY_DESCRIPTOR", &fields);
    let run = MEMORY_DESCRIPTOR.offset(kernel.offset_of("_PHYSICAL_MEMORY_DESCRIPTOR", "Run"));
    kernel.set_all(run, "_PHYSICAL_MEMORY_RUN", &[("BasePage", 1), ("PageCount", pages - 1)]);

    let buffer = kernel.symbol("KdPrintDefaultCircularBuffer");
    for pointer in ["KdPrintCircularBuffer", "KdPrintWritePointer"] {
        let at = kernel.symbol(pointer);
        kernel.write_u64(at, buffer.0);
    }
    shared_data(kernel);
    set_time(kernel, Duration::ZERO);
}

/// Writes the clocks of the data page shared with user mode; `running` is how long the machine has been running.
pub(super) fn set_time(kernel: &mut Kernel, running: Duration) {
    let elapsed = time::ticks(running);
    for (clock, time) in [("InterruptTime", elapsed), ("SystemTime", kernel.boot_time + elapsed)] {
        let part = |name: &str| format!("{clock}.{name}");
        kernel.set(SHARED_DATA, "_KUSER_SHARED_DATA", &part("LowPart"), time & 0xffff_ffff);
        for high in ["High1Time", "High2Time"] {
            kernel.set(SHARED_DATA, "_KUSER_SHARED_DATA", &part(high), time >> 32);
        }
    }
    kernel.set(SHARED_DATA, "_KUSER_SHARED_DATA", "TickCountQuad", elapsed / TIME_INCREMENT);
}

/// Puts a line into the buffer that `!dbgprint` shows.
pub(super) fn debug_print(kernel: &mut Kernel, line: &str) {
    let [start, pointer, rollover] =
        ["KdPrintDefaultCircularBuffer", "KdPrintWritePointer", "KdPrintRolloverCount"]
            .map(|name| kernel.symbol(name));
    let mut at = VirtAddr(kernel.read_u64(pointer));
    for byte in line.bytes() {
        if at == start.offset(PRINT_BUFFER_SIZE) {
            at = start;
            let mut count = [0; 4];
            kernel.memory.read(rollover, &mut count);
            kernel.write_u32(rollover, u32::from_le_bytes(count).wrapping_add(1));
        }
        kernel.write(at, &[byte]);
        at = at.offset(1);
    }
    kernel.write_u64(pointer, at.0);
}

fn breakpoint_routines(kernel: &mut Kernel) {
    const INT3_RET: [u8; 2] = [0xcc, 0xc3];
    for routine in ["DbgBreakPoint", "DbgUserBreakPoint", "DbgBreakPointWithStatus"] {
        let at = kernel.symbol(routine);
        kernel.write(at, &INT3_RET);
    }
}

fn strings(kernel: &mut Kernel) {
    let lab = format!("{}\0", kernel.layouts.release.lab);
    for symbol in ["NtBuildLab", "NtBuildLabEx"] {
        if let Some(at) = kernel.find_symbol(symbol) {
            kernel.write(at, lab.as_bytes());
        }
    }
}

fn shared_data(kernel: &mut Kernel) {
    kernel.map(span(SHARED_DATA, PAGE_SIZE), Access::Read);
    let pages = kernel.memory.physical.size() / PAGE_SIZE;
    let Release { number, version, server, .. } = kernel.layouts.release;
    let fields = [
        ("TickCountMultiplier", 0x0fa0_0000),
        ("ImageNumberLow", 0x8664),
        ("ImageNumberHigh", 0x8664),
        ("NtBuildNumber", number.into()),
        ("NtProductType", if server { 3 } else { 1 }),
        ("ProductTypeIsValid", 1),
        ("NtMajorVersion", version.0.into()),
        ("NtMinorVersion", version.1.into()),
        ("SuiteMask", 0x110),
        ("KdDebuggerEnabled", 3),
        ("NXSupportPolicy", 2),
        ("NumberOfPhysicalPages", pages),
        ("ActiveProcessorCount", processors::count(kernel) as u64),
        ("ActiveGroupCount", 1),
    ];
    kernel.set_existing(SHARED_DATA, "_KUSER_SHARED_DATA", &fields);
    let root = SHARED_DATA.offset(kernel.offset_of("_KUSER_SHARED_DATA", "NtSystemRoot"));
    let text: Vec<u8> = r"C:\Windows".encode_utf16().flat_map(u16::to_le_bytes).collect();
    kernel.write(root, &text);
}
