//! A CPU's registers as KD carries them: `CONTEXT` of x64 and of x86, `KSPECIAL_REGISTERS` of x64.

use crate::address::VirtAddr;
use crate::wire::wire_struct;

wire_struct! {
    /// `CONTEXT` of x64, 1232 bytes. A newer target's may be longer: what follows is extended state.
    ///
    /// Source: PROTOCOL.md 12; Rip, Cs and EFlags agree with the state change in capture B.
    #[expect(missing_docs, reason = "registers go by their own names")]
    pub struct Context {
        /// Home space of the first parameters.
        parameter_home: [u64; 6],
        /// Which parts are valid.
        context_flags: u32,
        /// SSE control.
        mx_csr: u32,
        seg_cs: u16,
        seg_ds: u16,
        seg_es: u16,
        seg_fs: u16,
        seg_gs: u16,
        seg_ss: u16,
        e_flags: u32,
        /// Hardware breakpoint addresses 0 to 3.
        dr0_to_3: [u64; 4],
        /// Debug status.
        dr6: u64,
        /// Debug control.
        dr7: u64,
        rax: u64,
        rcx: u64,
        rdx: u64,
        rbx: u64,
        rsp: VirtAddr,
        rbp: u64,
        rsi: u64,
        rdi: u64,
        /// R8 to R15.
        r8_to_15: [u64; 8],
        rip: VirtAddr,
        /// FXSAVE area.
        flt_save: [u64; 64],
        /// Vector registers.
        vector_register: [u64; 52],
        /// Vector control.
        vector_control: u64,
        /// DEBUGCTL.
        debug_control: u64,
        /// Last branch.
        last_branch_to_rip: u64,
        /// Last branch.
        last_branch_from_rip: u64,
        /// Last exception.
        last_exception_to_rip: u64,
        /// Last exception.
        last_exception_from_rip: u64,
    }
}

wire_struct! {
    /// `CONTEXT` of x86, 716 bytes. Segments and flags have 32 bits there.
    ///
    /// Source: PROTOCOL.md 12.
    #[expect(missing_docs, reason = "registers go by their own names")]
    pub struct ContextX86 {
        /// Which parts are valid.
        context_flags: u32,
        /// Hardware breakpoint addresses 0 to 3.
        dr0_to_3: [u32; 4],
        /// Debug status.
        dr6: u32,
        /// Debug control.
        dr7: u32,
        /// `FLOATING_SAVE_AREA`: the x87 registers.
        float_save: [u32; 28],
        seg_gs: u32,
        seg_fs: u32,
        seg_es: u32,
        seg_ds: u32,
        edi: u32,
        esi: u32,
        ebx: u32,
        edx: u32,
        ecx: u32,
        eax: u32,
        ebp: u32,
        eip: u32,
        seg_cs: u32,
        e_flags: u32,
        esp: u32,
        seg_ss: u32,
        /// FXSAVE area.
        extended_registers: [u32; 128],
    }
}

wire_struct! {
    /// `KSPECIAL_REGISTERS` of x64 up to Xcr0, 224 bytes: what control space 2 returns.
    ///
    /// Source: PROTOCOL.md 12; Cr0, Cr3, Cr4, Dr6, Dr7, GDT and IDT agree in capture A.
    #[expect(missing_docs, reason = "registers go by their own names")]
    pub struct KSpecialRegisters {
        /// Control register.
        cr0: u64,
        /// Last page-fault address.
        cr2: u64,
        /// Page-table root of the current process; low 12 bits may be a PCID.
        cr3: u64,
        /// Control register.
        cr4: u64,
        /// Hardware breakpoint addresses 0 to 3.
        kernel_dr0_to_3: [u64; 4],
        /// Debug status.
        kernel_dr6: u64,
        /// Debug control.
        kernel_dr7: u64,
        /// Padding before the limit.
        gdtr_padding: [u16; 3],
        gdtr_limit: u16,
        gdtr_base: VirtAddr,
        /// Padding before the limit.
        idtr_padding: [u16; 3],
        idtr_limit: u16,
        idtr_base: VirtAddr,
        /// Task register.
        tr: u16,
        /// Local descriptor table.
        ldtr: u16,
        /// SSE control.
        mx_csr: u32,
        /// DEBUGCTL.
        debug_control: u64,
        /// Last branch and exception addresses.
        last_branches: [u64; 4],
        /// Task priority.
        cr8: u64,
        /// KPCR in kernel mode.
        msr_gs_base: VirtAddr,
        /// The other GS base.
        msr_gs_swap: u64,
        /// SYSCALL segments.
        msr_star: u64,
        /// SYSCALL entry.
        msr_l_star: VirtAddr,
        /// 32-bit SYSCALL entry.
        msr_c_star: VirtAddr,
        /// SYSCALL flag mask.
        msr_syscall_mask: u64,
        /// Extended control register 0.
        xcr0: u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_lists_add_up_to_windows_sizes() {
        assert_eq!(Context::LEN, 1232);
        assert_eq!(ContextX86::LEN, 0x2cc);
        assert_eq!(KSpecialRegisters::LEN, 0xe0);
    }
}
