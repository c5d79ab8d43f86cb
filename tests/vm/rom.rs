//! A ROM that makes a processor of a real machine one of a simulated machine's: long mode, its page tables, its IDT, its
//! GS base; then it halts.
//!
//! ```text
//!  fff0  jump ----> 0  real mode:  GDT, protected mode --> 32 bits: CR4, CR3, EFER, paging --> 64 bits: IDT, GS, halt
//! ```
//! Source: AMD64 Architecture Programmer's Manual, volume 2, 14.6 (long mode), 14.1.3 (the first instruction); volume 3 for
//! the encodings.

use kd_protocol::{PhysAddr, VirtAddr};
use verikd_sim::windows::Machine;

/// Bytes of the ROM, which ends where 32-bit addresses end.
pub(crate) const LEN: usize = 0x1_0000;
const BASE: u32 = 0xffff_0000;
/// Where a processor begins.
const RESET: usize = 0xfff0;
/// Where the ROM's tables are, behind its code.
const GDT: usize = 0x800;
const GDT_REGISTER: usize = 0x840;
const IDT_REGISTER: usize = 0x850;
/// Selectors: 32-bit code, data, 64-bit code.
const CODE_32: u16 = 0x08;
const DATA: u16 = 0x10;
const CODE_64: u16 = 0x18;

/// CR4: PAE, global pages, SSE.
const CR4: u32 = 1 << 5 | 1 << 7 | 1 << 9;
/// EFER: system calls, long mode, no-execute.
const EFER_BITS: u32 = 1 | 1 << 8 | 1 << 11;
/// CR0: paging, write protection, protected mode.
const CR0_BITS: u32 = 1 << 31 | 1 << 16 | 1;
const MSR_EFER: u32 = 0xc000_0080;
const MSR_GS_BASE: u32 = 0xc000_0101;
const MSR_KERNEL_GS_BASE: u32 = 0xc000_0102;

/// Places in `_KSPECIAL_REGISTERS` of x64.
const IDTR_BASE: usize = 0x68;

/// Frames below the machine's own that it does not use: page tables for the ROM.
const TABLES: [u64; 2] = [0x6000, 0x7000];

/// A ROM for the first processor of `machine`.
pub(crate) fn rom(machine: &Machine) -> Vec<u8> {
    let processor = &machine.processors()[0];
    let idt = &processor.special_registers[IDTR_BASE..IDTR_BASE + 8];
    let stack = &processor.context[0x98..0xa0];
    let root = machine.page_table_root().0 as u32;
    let kpcr = processor.kpcr.0;

    let mut code: Vec<u8> = Vec::new();
    // 16 bits. cli; lgdt cs:[GDT_REGISTER], all 32 bits of the base
    code.push(0xfa);
    code.extend([0x2e, 0x66, 0x0f, 0x01, 0x16]);
    code.extend((GDT_REGISTER as u16).to_le_bytes());
    // mov eax, cr0; or al, 1; mov cr0, eax
    code.extend([0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0]);
    // jmp CODE_32:the next instruction
    code.extend([0x66, 0xea]);
    far(&mut code, CODE_32);
    // 32 bits. mov ax, DATA; mov ds, eax; mov es, eax; mov ss, eax
    code.extend([0x66, 0xb8]);
    code.extend(DATA.to_le_bytes());
    code.extend([0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0]);
    // mov eax, CR4; mov cr4, eax; mov eax, root; mov cr3, eax
    move_to_eax(&mut code, CR4);
    code.extend([0x0f, 0x22, 0xe0]);
    move_to_eax(&mut code, root);
    code.extend([0x0f, 0x22, 0xd8]);
    // mov ecx, EFER; rdmsr; or eax, bits; wrmsr
    move_to_ecx(&mut code, MSR_EFER);
    code.extend([0x0f, 0x32, 0x0d]);
    code.extend(EFER_BITS.to_le_bytes());
    code.extend([0x0f, 0x30]);
    // mov eax, cr0; or eax, bits; mov cr0, eax
    code.extend([0x0f, 0x20, 0xc0, 0x0d]);
    code.extend(CR0_BITS.to_le_bytes());
    code.extend([0x0f, 0x22, 0xc0]);
    // jmp CODE_64:the next instruction
    code.push(0xea);
    far(&mut code, CODE_64);
    // 64 bits. lidt [rip + ..]
    code.extend([0x0f, 0x01, 0x1d]);
    let next = code.len() as u32 + 4;
    code.extend((IDT_REGISTER as u32 - next).to_le_bytes());
    // mov rsp, the machine's
    code.extend([0x48, 0xbc]);
    code.extend(stack);
    for register in [MSR_GS_BASE, MSR_KERNEL_GS_BASE] {
        // mov ecx, register; mov eax, low; mov edx, high; wrmsr
        move_to_ecx(&mut code, register);
        move_to_eax(&mut code, kpcr as u32);
        code.push(0xba);
        code.extend(((kpcr >> 32) as u32).to_le_bytes());
        code.extend([0x0f, 0x30]);
    }
    // hlt; jmp to it
    code.extend([0xf4, 0xeb, 0xfd]);

    let mut rom = vec![0xf4; LEN];
    rom[..code.len()].copy_from_slice(&code);
    // No memory at 0, base 0, limit 4 GiB each: code of 32 bits, data, code of 64 bits.
    let descriptors = [0, 0x00cf_9b00_0000_ffff_u64, 0x00cf_9300_0000_ffff, 0x00af_9b00_0000_ffff];
    for (index, descriptor) in descriptors.iter().enumerate() {
        rom[GDT + 8 * index..][..8].copy_from_slice(&descriptor.to_le_bytes());
    }
    rom[GDT_REGISTER..][..2].copy_from_slice(&(8 * descriptors.len() as u16 - 1).to_le_bytes());
    rom[GDT_REGISTER + 2..][..4].copy_from_slice(&(BASE + GDT as u32).to_le_bytes());
    rom[IDT_REGISTER..][..2].copy_from_slice(&0xfff_u16.to_le_bytes());
    rom[IDT_REGISTER + 2..][..8].copy_from_slice(idt);
    // jmp near, to the ROM's beginning: addresses of 16 bits begin anew at their end.
    rom[RESET] = 0xe9;
    rom[RESET + 1..][..2].copy_from_slice(&(0_u16.wrapping_sub(RESET as u16 + 3)).to_le_bytes());
    rom
}

/// Address and selector of a far jump to what follows it.
fn far(code: &mut Vec<u8>, selector: u16) {
    let next = BASE + code.len() as u32 + 6;
    code.extend(next.to_le_bytes());
    code.extend(selector.to_le_bytes());
}

fn move_to_eax(code: &mut Vec<u8>, value: u32) {
    code.push(0xb8);
    code.extend(value.to_le_bytes());
}

fn move_to_ecx(code: &mut Vec<u8>, value: u32) {
    code.push(0xb9);
    code.extend(value.to_le_bytes());
}

/// Maps the ROM where it is, through the machine's own tables: the processor goes on in it when paging begins.
pub(crate) fn map_rom(machine: &mut Machine) {
    const PRESENT_WRITABLE: u64 = 3;
    const LARGE: u64 = 1 << 7;
    let used = machine.pages_in_use();
    assert!(TABLES.iter().all(|at| !used.contains(&(at / 0x1000))), "the tables' frames are in use");
    let mut write = |at: u64, entry: u64| {
        assert_eq!(machine.write_physical(PhysAddr(at), &entry.to_le_bytes()), 8, "{at:#x}");
    };
    let rom = u64::from(BASE);
    let index = |shift: u32| (rom >> shift & 0x1ff) * 8;
    write(TABLES[0] + index(30), TABLES[1] | PRESENT_WRITABLE);
    write(TABLES[1] + index(21), rom & !0x1f_ffff | LARGE | PRESENT_WRITABLE);
    let root = machine.page_table_root().0;
    let mut first = [0; 8];
    machine.read_physical(PhysAddr(root), &mut first);
    assert_eq!(first, [0; 8], "the kernel maps something at {}", VirtAddr(0).0);
    machine.write_physical(PhysAddr(root), &(TABLES[0] | PRESENT_WRITABLE).to_le_bytes());
}
