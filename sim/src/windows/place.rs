//! Where a processor is.

use kd_protocol::VirtAddr;

/// A frame of a stack, as a debugger is to find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallFrame {
    /// The instruction that runs next in it.
    pub program_counter: VirtAddr,
    /// Its stack pointer then.
    pub stack_pointer: VirtAddr,
    /// True if the next frame was not called by it, but broke into it.
    pub is_interrupted: bool,
}

/// The registers of a processor at a stop, and how it came there.
pub(super) struct Place {
    pub(super) rip: VirtAddr,
    pub(super) rcx: u64,
    /// Where its callers are, innermost first: return addresses, and the instruction that an interrupt broke into.
    pub(super) stack: Vec<VirtAddr>,
    /// The code of user mode that called the kernel, if it did.
    pub(super) user: Option<CallFrame>,
    /// What it was given, if it has stored that where its caller leaves room for it.
    pub(super) arguments: Option<[u64; 4]>,
    /// The thread that it runs; the idle thread if nothing.
    pub(super) thread: Option<VirtAddr>,
}

impl Place {
    /// The code of user mode that calls the kernel here: a program's `ntdll!NtDeviceIoControlFile`.
    pub(super) const USER: Option<CallFrame> = Some(CallFrame {
        program_counter: VirtAddr(0x7759_138a),
        stack_pointer: VirtAddr(0x12_f9c8),
        is_interrupted: false,
    });
}
