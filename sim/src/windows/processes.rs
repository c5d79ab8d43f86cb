//! Processes and threads.

use kd_protocol::VirtAddr;

use super::kernel::{Kernel, span};
use crate::paging::Access;

/// The thread whose system calls make myfault.sys leak.
pub(super) const LEAKING_PROCESS: VirtAddr = VirtAddr(0xffff_fa80_044b_1060);
/// Its thread.
pub(super) const LEAKING_THREAD: VirtAddr = VirtAddr(0xffff_fa80_044c_eb60);

/// A process, and the thread of it that is there.
struct Process {
    at: VirtAddr,
    id: u64,
    parent: u64,
    name: &'static str,
    thread: Thread,
}

struct Thread {
    at: VirtAddr,
    id: u64,
    /// Top of its kernel stack.
    stack: VirtAddr,
    /// Where it started in user mode; `None` for a system thread.
    start: Option<VirtAddr>,
}

const SYSTEM: VirtAddr = VirtAddr(0xffff_fa80_036c_5040);

/// Bytes of a kernel stack.
pub(super) const STACK_SIZE: u64 = 0x6000;
/// `_KTHREAD.State` of a thread that waits, and of one that a processor executes.
const WAITING: u64 = 5;
pub(super) const RUNNING: u64 = 2;

/// Creates System and the user processes, and links them into `PsActiveProcessHead`.
pub(super) fn create(kernel: &mut Kernel) {
    let list = kernel.symbol("PsActiveProcessHead");
    kernel.list_init(list);
    for Process { at, id, parent, name, thread } in PROCESSES {
        pool_object(kernel, at, "_EPROCESS", b"Proc");
        let directory = match at {
            SYSTEM => kernel.memory.root(),
            _ => kernel.memory.copy_root().expect("RAM holds what a machine starts with"),
        };
        initialize_process(kernel, at, directory.0, name);
        let fields = [("UniqueProcessId", id), ("InheritedFromUniqueProcessId", parent)];
        kernel.set_all(at, "_EPROCESS", &fields);
        let links = at.offset(kernel.offset_of("_EPROCESS", "ActiveProcessLinks"));
        kernel.list_append(list, links);

        pool_object(kernel, thread.at, "_ETHREAD", b"Thre");
        kernel.map(span(VirtAddr(thread.stack.0 - STACK_SIZE), STACK_SIZE), Access::Write);
        initialize_thread(kernel, thread.at, at, thread.stack, WAITING);
        let start = thread.start.unwrap_or_else(|| kernel.symbol("Phase1Initialization"));
        let fields = [("Cid.UniqueProcess", id), ("Cid.UniqueThread", thread.id), ("StartAddress", start.0)];
        kernel.set_all(thread.at, "_ETHREAD", &fields);
    }
    let initial = kernel.symbol("PsInitialSystemProcess");
    kernel.write_u64(initial, SYSTEM.0);
}

/// Fills the fields of an `_EPROCESS` that a debugger looks at: its page tables, its name, its empty list of threads.
pub(super) fn initialize_process(kernel: &mut Kernel, at: VirtAddr, directory: u64, name: &str) {
    const PROCESS_OBJECT: u64 = 3;
    // A byte: where the structure outgrew it, its low bits are left.
    let size = (kernel.size_of("_KPROCESS") / 4) & 0xff;
    let fields = [
        ("Pcb.Header.Type", PROCESS_OBJECT),
        ("Pcb.Header.Size", size),
        ("Pcb.DirectoryTableBase", directory),
        ("Pcb.BasePriority", 8),
        ("Pcb.QuantumReset", 6),
    ];
    kernel.set_all(at, "_EPROCESS", &fields);
    for list in ["Pcb.ThreadListHead", "Pcb.ReadyListHead", "ThreadListHead"] {
        let head = at.offset(kernel.offset_of("_EPROCESS", list));
        kernel.list_init(head);
    }
    let image_file_name = at.offset(kernel.offset_of("_EPROCESS", "ImageFileName"));
    kernel.write(image_file_name, name.as_bytes());
}

/// Fills the fields of an `_ETHREAD` that a debugger looks at, and links it into its process.
pub(super) fn initialize_thread(
    kernel: &mut Kernel,
    at: VirtAddr,
    process: VirtAddr,
    stack: VirtAddr,
    state: u64,
) {
    const THREAD_OBJECT: u64 = 6;
    let fields = [
        ("Header.Type", THREAD_OBJECT),
        ("InitialStack", stack.0),
        ("StackBase", stack.0),
        ("StackLimit", stack.0 - STACK_SIZE),
        ("KernelStack", stack.0 - 0x2b0),
        ("KernelStackResident", 1),
        ("State", state),
        ("Running", u64::from(state == RUNNING)),
        ("Priority", 8),
        ("BasePriority", 8),
        ("Process", process.0),
        ("ApcState.Process", process.0),
    ];
    kernel.set_existing(at, "_KTHREAD", &fields);
    for (list, entry) in [
        ("Pcb.ThreadListHead", kernel.offset_of("_KTHREAD", "ThreadListEntry")),
        ("ThreadListHead", kernel.offset_of("_ETHREAD", "ThreadListEntry")),
    ] {
        let head = process.offset(kernel.offset_of("_EPROCESS", list));
        kernel.list_append(head, at.offset(entry));
    }
    kernel.add(process, "_EPROCESS", "ActiveThreads", 1);
}

/// Maps a block for an object's body at `at`, with object header and pool header in front.
fn pool_object(kernel: &mut Kernel, at: VirtAddr, aggregate: &str, tag: &[u8; 4]) {
    let header_size = kernel.offset_of("_OBJECT_HEADER", "Body");
    let header = VirtAddr(at.0 - header_size);
    kernel.pool_block(header, header_size + kernel.size_of(aggregate), tag);
    kernel.set_all(header, "_OBJECT_HEADER", &[("PointerCount", 3), ("HandleCount", 1)]);
}

/// System first; it has a system thread.
const PROCESSES: [Process; 5] = [
    process(SYSTEM.0, 4, 0, "System", thread(0xffff_fa80_036c_76b0, 8, 0xffff_f880_009d_9000, None)),
    process(
        0xffff_fa80_03f5_3b30,
        0x104,
        4,
        "smss.exe",
        thread(0xffff_fa80_03f5_5060, 0x108, 0xffff_f880_0211_1000, Some(0x4a9d_1a58)),
    ),
    process(
        0xffff_fa80_043a_2060,
        0x15c,
        0x154,
        "csrss.exe",
        thread(0xffff_fa80_043a_7b60, 0x164, 0xffff_f880_02d9_1000, Some(0x4a68_1420)),
    ),
    process(
        0xffff_fa80_0441_5b30,
        0x1d8,
        0x190,
        "services.exe",
        thread(0xffff_fa80_0441_9060, 0x1dc, 0xffff_f880_031b_8000, Some(0xff60_d2f4)),
    ),
    process(
        LEAKING_PROCESS.0,
        0x9d0,
        0x6a8,
        "NotMyfault.exe",
        thread(LEAKING_THREAD.0, 0x9d4, 0xffff_f880_04a3_1000, Some(0x1_3f4c_3a10)),
    ),
];

const fn process(at: u64, id: u64, parent: u64, name: &'static str, thread: Thread) -> Process {
    Process { at: VirtAddr(at), id, parent, name, thread }
}

const fn thread(at: u64, id: u64, stack: u64, start: Option<u64>) -> Thread {
    let start = match start {
        Some(address) => Some(VirtAddr(address)),
        None => None,
    };
    Thread { at: VirtAddr(at), id, stack: VirtAddr(stack), start }
}
