//! What a processor of a virtual machine holds.

use kd_protocol::MachineType;

/// What a processor of a virtual machine holds that leads to its kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Processor {
    pub(crate) rip: u64,
    pub(crate) general: [u64; 16],
    pub(crate) rflags: u64,
    /// cs, ds, es, fs, gs, ss.
    pub(crate) selectors: [u16; 6],
    pub(crate) idt_base: u64,
    pub(crate) cr3: u64,
    pub(crate) cr4: u64,
    pub(crate) kernel_gs_base: Option<u64>,
}

impl Processor {
    /// The `CONTEXT` of a kernel for such machines, with what is known.
    pub(crate) fn context(&self, machine: MachineType) -> Vec<u8> {
        if machine == MachineType::I386 { self.context_x86() } else { self.context_x64() }
    }

    fn context_x86(&self) -> Vec<u8> {
        let mut context = vec![0; 0x2cc];
        let mut put =
            |at: usize, value: u64| context[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
        // CONTEXT_i386 with control, integer and segment registers.
        put(0, 0x0001_0007);
        let [cs, ds, es, fs, gs, ss] = self.selectors.map(u64::from);
        let [eax, ebx, ecx, edx, esi, edi, esp, ebp, ..] = self.general;
        let words = [gs, fs, es, ds, edi, esi, ebx, edx, ecx, eax, ebp, self.rip, cs, self.rflags, esp, ss];
        for (index, word) in words.into_iter().enumerate() {
            put(0x8c + 4 * index, word);
        }
        context
    }

    /// An x64 `CONTEXT` with what is known: segments, flags, general registers.
    fn context_x64(&self) -> Vec<u8> {
        let mut context = vec![0; 0x4d0];
        // CONTEXT_AMD64 with control, integer and segment registers.
        context[0x30..0x34].copy_from_slice(&0x0010_0007_u32.to_le_bytes());
        for (index, selector) in self.selectors.iter().enumerate() {
            context[0x38 + 2 * index..][..2].copy_from_slice(&selector.to_le_bytes());
        }
        context[0x44..0x48].copy_from_slice(&(self.rflags as u32).to_le_bytes());
        // QEMU: rax rbx rcx rdx rsi rdi rsp rbp r8..; a CONTEXT: rax rcx rdx rbx rsp rbp rsi rdi r8...
        const ORDER: [usize; 8] = [0, 2, 3, 1, 6, 7, 4, 5];
        let general = ORDER.iter().copied().chain(8..16).map(|from| self.general[from]);
        for (index, value) in general.enumerate() {
            context[0x78 + 8 * index..][..8].copy_from_slice(&value.to_le_bytes());
        }
        context[0xf8..0x100].copy_from_slice(&self.rip.to_le_bytes());
        context
    }
}
