//! What a processor of a virtual machine holds.

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
    /// An x64 `CONTEXT` with what is known: segments, flags, general registers.
    pub(crate) fn context(&self) -> Vec<u8> {
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
