use super::instruction::{Flow, Instruction, LONGEST};
use crate::target::VirtAddr;

fn decoded(bitness: u32, at: u64, bytes: &str) -> Instruction {
    let bytes: Vec<u8> =
        (0..bytes.len()).step_by(2).map(|at| u8::from_str_radix(&bytes[at..at + 2], 16).unwrap()).collect();
    let instruction = Instruction::decode(bitness, VirtAddr(at), &bytes).unwrap();
    assert_eq!(instruction.bytes, bytes);
    instruction
}

/// Lines of WinDbg's that were published: `uf nt!KiSwapContext` in a question about its columns, and the stop of Microsoft's
/// series on pool leaks, part 5.
#[test]
fn instructions_are_written_as_windbg_writes_them() {
    for (bytes, text) in [
        ("4881ec38010000", "sub     rsp,138h"),
        ("488d842400010000", "lea     rax,[rsp+100h]"),
        ("0f29742430", "movaps  xmmword ptr [rsp+30h],xmm6"),
        ("0f297c2440", "movaps  xmmword ptr [rsp+40h],xmm7"),
        ("440f29442450", "movaps  xmmword ptr [rsp+50h],xmm8"),
        ("440f294c2460", "movaps  xmmword ptr [rsp+60h],xmm9"),
        ("440f29542470", "movaps  xmmword ptr [rsp+70h],xmm10"),
        ("cc", "int     3"),
    ] {
        assert_eq!(decoded(64, 0xffff_f803_5c14_3fa0, bytes).text(None), text);
    }
}

#[test]
fn an_address_in_an_operand_is_called_what_it_is_and_a_constant_is_not() {
    let name = || Some("nt!X (somewhere)".to_owned());
    let at = 0xffff_f800_0140_1000;
    for (bitness, bytes, text) in [
        (64, "e8fb0f0000", "call    nt!X (somewhere)"),
        (64, "0f84fa0f0000", "je      nt!X (somewhere)"),
        (64, "ebfe", "jmp     nt!X (somewhere)"),
        (64, "488b05f90f0000", "mov     rax,qword ptr [nt!X (somewhere)]"),
        (64, "ff15fa0f0000", "call    qword ptr [nt!X (somewhere)]"),
        (32, "a1a0654580", "mov     eax,dword ptr [nt!X (somewhere)]"),
        (64, "65488b042588010000", "mov     rax,qword ptr gs:[188h]"),
        (32, "64a124010000", "mov     eax,dword ptr fs:[124h]"),
        (64, "48b80000400100f8ffff", "mov     rax,0FFFFF80001400000h"),
        (64, "8b4c2408", "mov     ecx,dword ptr [rsp+8]"),
    ] {
        assert_eq!(decoded(bitness, at, bytes).text(name()), text);
    }
}

#[test]
fn where_code_goes_on_is_known() {
    let at = 0x1_8000_1000;
    let to = VirtAddr(at + 2 + 0x10);
    for (bytes, flow) in [
        ("90", Flow::Next),
        ("e800000000", Flow::Next),
        ("7410", Flow::May(to)),
        ("eb10", Flow::Jumps(to)),
        ("c3", Flow::Ends),
        ("c20800", Flow::Ends),
        ("48cf", Flow::Ends),
        ("cd29", Flow::Ends),
        ("cd2d", Flow::Next),
        ("0f0b", Flow::Ends),
        ("ff2500000000", Flow::Somewhere { is_by_table: false }),
        ("ffe0", Flow::Somewhere { is_by_table: true }),
        ("ff24c1", Flow::Somewhere { is_by_table: true }),
    ] {
        assert_eq!(decoded(64, at, bytes).flow, flow, "{bytes}");
    }
}

#[test]
fn any_bytes_are_an_instruction_a_byte_that_begins_none_or_cut_off() {
    for bitness in [32, 64] {
        for (first, rest) in (0..=u16::MAX).flat_map(|first| [0, 0x66, 0xff].map(|rest| (first, rest))) {
            let bytes = [&first.to_be_bytes()[..], &[rest; LONGEST]].concat();
            let at = VirtAddr(u64::from(first) << 48 | 0xffff_ffff);
            let whole = Instruction::decode(bitness, at, &bytes).unwrap();
            assert!((1..=LONGEST).contains(&whole.bytes.len()));
            assert!(!whole.text(whole.refers_to().map(|at| format!("{at:?}"))).is_empty());
            let cut = Instruction::decode(bitness, at, &bytes[..whole.bytes.len() - 1]);
            assert!(cut.is_none_or(|cut| cut.bytes.len() < whole.bytes.len()), "{bytes:x?}");
        }
    }
}
