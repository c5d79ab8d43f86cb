//! Processors: their control regions, descriptor tables and idle threads in memory, and their registers at a stop.

use kd_protocol::VirtAddr;

use super::calls::{self, Called, RSP};
use super::growth::Growth;
use super::kernel::{Kernel, Site, span};
use super::place::{CallFrame, Place};
use super::processes::{RUNNING, STACK_SIZE, initialize_process, initialize_thread};
use super::segments::{
    KERNEL_CODE, KERNEL_DATA, TASK_STATE, USER_CODE, USER_CODE_32, USER_DATA, USER_TEB_32,
};
use crate::paging::Access;

/// A processor as a debugger sees it while the machine is stopped.
#[derive(Clone, Debug)]
pub struct Processor {
    /// Address of its `_KPCR`: what GsBase holds.
    pub kpcr: VirtAddr,
    /// Address of its `_KPRCB`.
    pub kprcb: VirtAddr,
    /// Address of the `_KTHREAD` that it executes.
    pub thread: VirtAddr,
    /// Its `CONTEXT`: 1232 bytes.
    pub context: Vec<u8>,
    /// Its `_KSPECIAL_REGISTERS`: 0xd8 bytes on Windows 7, more on later builds.
    pub special_registers: Vec<u8>,
    /// What is on its stack, the frame that runs first.
    pub frames: Vec<CallFrame>,
}

/// Where the tables and stacks of a processor are.
struct Places {
    kpcr: VirtAddr,
    gdt: VirtAddr,
    idt: VirtAddr,
    tss: VirtAddr,
    idle_thread: VirtAddr,
    /// Top of the idle thread's stack.
    stack: VirtAddr,
}

/// How many processors a machine has unless told otherwise.
const USUAL: usize = 2;

/// Top of the first processor's stack.
pub(super) const FIRST_STACK: VirtAddr = VirtAddr(0xffff_f800_00ba_3000);

const GDT_SIZE: u64 = 0x80;
const IDT_SIZE: u64 = 0x1000;

/// How many processors the machine has.
pub(super) fn count(kernel: &Kernel) -> usize {
    match kernel.growth.processors.min(Growth::MOST_PROCESSORS) {
        0 => USUAL,
        processors => processors.into(),
    }
}

/// Lays out every processor, the idle process and `KiProcessorBlock`.
pub(super) fn create(kernel: &mut Kernel) {
    let idle_process = kernel.symbol("KiInitialProcess");
    initialize_process(kernel, idle_process, kernel.memory.root().0, "Idle");
    let pointer = kernel.symbol("PsIdleProcess");
    kernel.write_u64(pointer, idle_process.0);
    for number in 0..count(kernel) {
        let places = places(kernel, number);
        kernel.map(span(places.kpcr, kernel.size_of("_KPCR")), Access::Write);
        for (table, size) in [(places.gdt, GDT_SIZE), (places.idt, IDT_SIZE)] {
            kernel.map(table..table.offset(size), Access::Write);
        }
        let task_state_size = kernel.size_of("_KTSS64");
        kernel.map(places.tss..places.tss.offset(task_state_size), Access::Write);
        kernel.map(span(VirtAddr(places.stack.0 - STACK_SIZE), STACK_SIZE), Access::Write);
        descriptor_tables(kernel, &places);
        let idle_thread_end = places.idle_thread.offset(kernel.size_of("_ETHREAD"));
        kernel.map(places.idle_thread..idle_thread_end, Access::Write);
        initialize_thread(kernel, places.idle_thread, idle_process, places.stack, RUNNING);
        control_region(kernel, number, &places);
        let block = kernel.symbol("KiProcessorBlock").offset(number as u64 * 8);
        let prcb = places.kpcr.offset(kernel.offset_of("_KPCR", "Prcb"));
        kernel.write_u64(block, prcb.0);
    }
}

/// Every processor as it is when the machine was just stopped, one at a place, the others idle.
///
/// Also writes their state into their `_KPRCB`s, as a kernel does when it freezes its processors.
pub(super) fn stop_at(kernel: &mut Kernel, at: usize, place: &Place) -> Vec<Processor> {
    let [(module, routine, displacement), ..] = IDLE_STACK;
    let rip = kernel.address_in(module, routine, displacement);
    let idle = Place {
        rip,
        rcx: 0,
        stack: kernel.stack(&IDLE_STACK[1..]),
        user: None,
        arguments: None,
        thread: None,
    };
    (0..count(kernel))
        .map(|number| stopped(kernel, number, if number == at { place } else { &idle }))
        .collect()
}

fn stopped(kernel: &mut Kernel, number: usize, place: &Place) -> Processor {
    let places = places(kernel, number);
    let kprcb = places.kpcr.offset(kernel.offset_of("_KPCR", "Prcb"));
    let state = kprcb.offset(kernel.offset_of("_KPRCB", "ProcessorState"));
    let context_at = state.offset(kernel.offset_of("_KPROCESSOR_STATE", "ContextFrame"));
    let special_at = state.offset(kernel.offset_of("_KPROCESSOR_STATE", "SpecialRegisters"));
    let [context_size, special_size] = ["_CONTEXT", "_KSPECIAL_REGISTERS"]
        .map(|aggregate| usize::try_from(kernel.size_of(aggregate)).unwrap_or(0));
    kernel.write(context_at, &vec![0; context_size]);
    kernel.write(special_at, &vec![0; special_size]);

    let mut registers = [0; 16];
    registers[RBX] = kprcb.0;
    let Called { registers, frames } = calls::lay_out(kernel, places.stack, place, registers);
    const CONTEXT_ALL: u64 = 0x10_001f;
    let data = USER_DATA | 3;
    let fields = [
        ("ContextFlags", CONTEXT_ALL),
        ("MxCsr", 0x1f80),
        ("SegCs", KERNEL_CODE),
        ("SegDs", data),
        ("SegEs", data),
        ("SegFs", USER_TEB_32 | 3),
        ("SegGs", data),
        ("SegSs", KERNEL_DATA),
        ("EFlags", if number == 0 { 0x246 } else { 0x286 }),
        ("Dr6", 0xffff_0ff0),
        ("Dr7", 0x400),
        ("Rcx", place.rcx),
        ("Rip", place.rip.0),
    ];
    kernel.set_all(context_at, "_CONTEXT", &fields);
    let preserved = PRESERVED.map(|(name, number)| (name, registers[number]));
    kernel.set_all(context_at, "_CONTEXT", &preserved);
    let fields = [
        ("Cr0", 0x8005_0031),
        ("Cr3", kernel.memory.root().0),
        ("Cr4", 0x6f8),
        ("KernelDr6", 0xffff_0ff0),
        ("KernelDr7", 0x400),
        ("Gdtr.Limit", GDT_SIZE - 1),
        ("Gdtr.Base", places.gdt.0),
        ("Idtr.Limit", IDT_SIZE - 1),
        ("Idtr.Base", places.idt.0),
        ("Tr", TASK_STATE),
        ("MxCsr", 0x1f80),
        // The interrupt level: that of the clock, where the debugger is noticed.
        ("Cr8", if number == 0 { 0xd } else { 0 }),
        ("MsrGsBase", places.kpcr.0),
        ("MsrStar", USER_CODE_32 << 48 | 3 << 48 | KERNEL_CODE << 32),
        ("MsrLStar", kernel.symbol("KiSystemCall64").0),
        ("MsrCStar", kernel.symbol("KiSystemCall32").0),
        ("MsrSyscallMask", 0x4700),
    ];
    let thread = place.thread.unwrap_or(places.idle_thread);
    kernel.set_existing(kprcb, "_KPRCB", &[("Context", context_at.0), ("CurrentThread", thread.0)]);
    kernel.set_all(special_at, "_KSPECIAL_REGISTERS", &fields);

    let (mut context, mut special_registers) = (vec![0; context_size], vec![0; special_size]);
    kernel.memory.read(context_at, &mut context);
    kernel.memory.read(special_at, &mut special_registers);
    Processor { kpcr: places.kpcr, kprcb, thread, context, special_registers, frames }
}

const RBX: usize = 3;
/// Registers that calls preserve, and their numbers.
const PRESERVED: [(&str, usize); 9] = [
    ("Rbx", RBX),
    ("Rsp", RSP),
    ("Rbp", 5),
    ("Rsi", 6),
    ("Rdi", 7),
    ("R12", 12),
    ("R13", 13),
    ("R14", 14),
    ("R15", 15),
];

/// Where a processor is that has nothing to do.
pub(super) const IDLE_STACK: [Site; 2] = [("hal", "HalProcessorIdle", 0x9), ("nt", "KiIdleLoop", 0x10d)];

fn control_region(kernel: &mut Kernel, number: usize, places: &Places) {
    let kpcr = places.kpcr;
    let prcb = kpcr.offset(kernel.offset_of("_KPCR", "Prcb"));
    let version = kernel.symbol("KdVersionBlock");
    let fields = [
        ("GdtBase", places.gdt.0),
        ("TssBase", places.tss.0),
        ("IdtBase", places.idt.0),
        ("Self", kpcr.0),
        ("CurrentPrcb", prcb.0),
        ("KdVersionBlock", version.0),
        ("MajorVersion", 1),
        ("MinorVersion", 1),
        ("StallScaleFactor", 0xa6b),
    ];
    kernel.set_all(kpcr, "_KPCR", &fields);
    let fields = [
        ("MxCsr", 0x1f80),
        ("LegacyNumber", number as u64),
        ("Number", number as u64),
        ("CurrentThread", places.idle_thread.0),
        ("IdleThread", places.idle_thread.0),
        ("CpuType", 6),
        ("CpuID", 1),
        ("CpuStep", 0x2a07),
        ("MHz", 0xa6b),
        ("MajorVersion", 1),
        ("MinorVersion", 1),
        ("InitialApicId", number as u64),
        ("GroupSetMember", 1 << number),
    ];
    kernel.set_existing(prcb, "_KPRCB", &fields);
    let vendor = prcb.offset(kernel.offset_of("_KPRCB", "VendorString"));
    kernel.write(vendor, b"GenuineIntel\0");
}

/// Global and interrupt descriptor tables with Windows' segments and the handlers that the layout file lists.
fn descriptor_tables(kernel: &mut Kernel, places: &Places) {
    let tss = places.tss.0;
    let tss_limit = kernel.size_of("_KTSS64") - 1;
    let busy_task = tss_limit | (tss & 0xff_ffff) << 16 | 0x8b << 40 | (tss >> 24 & 0xff) << 56;
    for (selector, descriptor) in [
        (KERNEL_CODE, 0x0020_9b00_0000_0000),
        (KERNEL_DATA, 0x00cf_9300_0000_ffff),
        (USER_CODE_32, 0x00cf_fb00_0000_ffff),
        (USER_DATA, 0x00cf_f300_0000_ffff),
        (USER_CODE, 0x0020_fb00_0000_0000),
        (TASK_STATE, busy_task),
        (TASK_STATE + 8, tss >> 32),
        (USER_TEB_32, 0x0040_f300_0000_3c00),
    ] {
        kernel.write_u64(places.gdt.offset(selector), descriptor);
    }
    const INTERRUPT_GATE: u64 = 0xe;
    for (vector, handler) in HANDLERS {
        let at = places.idt.offset(vector * kernel.size_of("_KIDTENTRY64"));
        let Some(VirtAddr(handler)) = kernel.find_symbol(handler) else { continue };
        let fields = [
            ("OffsetLow", handler & 0xffff),
            ("Selector", KERNEL_CODE),
            ("Type", INTERRUPT_GATE),
            ("Dpl", if *vector == 3 || *vector == 0x2d { 3 } else { 0 }),
            ("Present", 1),
            ("OffsetMiddle", handler >> 16 & 0xffff),
            ("OffsetHigh", handler >> 32),
        ];
        kernel.set_all(at, "_KIDTENTRY64", &fields);
    }
}

const HANDLERS: &[(u64, &str)] = &[
    (0x0, "KiDivideErrorFault"),
    (0x1, "KiDebugTrapOrFault"),
    (0x3, "KiBreakpointTrap"),
    (0x8, "KiDoubleFaultAbort"),
    (0xa, "KiInvalidTssFault"),
    (0xb, "KiSegmentNotPresentFault"),
    (0xc, "KiStackFault"),
    (0xd, "KiGeneralProtectionFault"),
    (0xe, "KiPageFault"),
    (0x10, "KiFloatingErrorFault"),
    (0x11, "KiAlignmentFault"),
    (0x12, "KiMcheckAbort"),
    (0x2d, "KiDebugServiceTrap"),
    (0x2f, "KiDpcInterrupt"),
    (0xe1, "KiIpiInterrupt"),
];

/// The thread of a processor that has nothing to do.
pub(super) fn idle_thread(kernel: &Kernel, number: usize) -> VirtAddr {
    places(kernel, number).idle_thread
}

fn places(kernel: &Kernel, number: usize) -> Places {
    match number {
        0 => Places {
            // Builds since 1809 have no such variable: they allocate the first one too.
            kpcr: kernel.find_symbol("KiInitialPCR").unwrap_or(VirtAddr(0xffff_f800_00b8_0000)),
            gdt: VirtAddr(0xffff_f800_00b9_5000),
            idt: VirtAddr(0xffff_f800_00b9_5080),
            tss: VirtAddr(0xffff_f800_00b9_6080),
            idle_thread: kernel.symbol("KiInitialThread"),
            stack: FIRST_STACK,
        },
        1 => Places {
            kpcr: VirtAddr(0xffff_f880_009e_0000),
            gdt: VirtAddr(0xffff_f880_009f_14c0),
            idt: VirtAddr(0xffff_f880_009f_1540),
            tss: VirtAddr(0xffff_f880_009f_2540),
            idle_thread: VirtAddr(0xffff_f880_009f_3040),
            stack: VirtAddr(0xffff_f880_02ff_b000),
        },
        _ => {
            let room = VirtAddr(0xffff_f880_0a00_0000 + number as u64 * 0x4_0000);
            Places {
                kpcr: room,
                gdt: room.offset(0x1_84c0),
                idt: room.offset(0x1_8540),
                tss: room.offset(0x1_9540),
                idle_thread: room.offset(0x1_a040),
                stack: room.offset(0x3_0000),
            }
        }
    }
}
