//! One instruction: its text, and what runs after it.

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Formatter, MasmFormatter, MemorySizeOptions, OpKind, Register,
    SymbolResolver, SymbolResult,
};
use kd_protocol::VirtAddr;

use crate::output::Address;

/// Bytes of the longest instruction.
pub const LONGEST: usize = 15;

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Where it is.
    pub address: u64,
    /// Bytes of it.
    pub len: usize,
    /// As it is written: mnemonic, operands from the ninth character on. `???` if it is none.
    pub text: String,
    /// What runs after it.
    pub flow: Flow,
    /// False if no instruction begins so: one byte that a processor refuses.
    pub is_one: bool,
}

/// What runs after an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The next one, and if it is a call, before that what it calls.
    Next,
    /// What it jumps to, if the instruction says where that is.
    Jump(Option<u64>),
    /// One of both.
    Branch(u64),
    /// The next one, if a debugger goes on; compilers also fill gaps with it.
    Breakpoint,
    /// Nothing in this function: a return, no instruction at all.
    End,
}

/// Decodes an instruction, of which `bytes` has the first byte and what follows.
///
/// Nothing if `bytes` ends before it does. `name` says what an address that the instruction leads to is called:
/// `nt!KeBugCheckEx`, without the address, which is written in any case.
#[must_use]
pub fn decode(
    pointer_size: usize,
    address: u64,
    bytes: &[u8],
    name: &dyn Fn(u64) -> Option<String>,
) -> Option<Instruction> {
    let bits = if pointer_size == 4 { 32 } else { 64 };
    let mut decoder = Decoder::with_ip(bits, bytes, address, DecoderOptions::NONE);
    let instruction = decoder.decode();
    if instruction.is_invalid() {
        if decoder.last_error() == iced_x86::DecoderError::NoMoreBytes {
            return None;
        }
        return Some(Instruction { address, len: 1, text: "???".to_owned(), flow: Flow::End, is_one: false });
    }
    let near = || match instruction.op0_kind() {
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
            Some(instruction.near_branch_target())
        }
        _ => None,
    };
    let flow = match instruction.flow_control() {
        FlowControl::UnconditionalBranch => Flow::Jump(near()),
        FlowControl::IndirectBranch => Flow::Jump(None),
        FlowControl::ConditionalBranch => near().map_or(Flow::Next, Flow::Branch),
        FlowControl::Return | FlowControl::Exception => Flow::End,
        FlowControl::Interrupt if instruction.mnemonic() == iced_x86::Mnemonic::Int3 => Flow::Breakpoint,
        _ => Flow::Next,
    };
    let led_to = near().or_else(|| memory_address(&instruction));
    let written = led_to.map(|to| (to, written(pointer_size, to, name(to))));
    let mut shown = instruction;
    if instruction.is_ip_rel_memory_operand() {
        // Where it leads to is written, not how.
        shown.set_memory_base(Register::None);
    }
    let mut text = String::new();
    formatter(written).format(&shown, &mut text);
    Some(Instruction { address, len: instruction.len(), text, flow, is_one: true })
}

/// Bytes of the instruction that `bytes` begin with; nothing if they begin with none, or end before it does.
pub(super) fn length(pointer_size: usize, bytes: &[u8]) -> Option<usize> {
    let bits = if pointer_size == 4 { 32 } else { 64 };
    let instruction = Decoder::with_ip(bits, bytes, 0, DecoderOptions::NONE).decode();
    (!instruction.is_invalid()).then(|| instruction.len())
}

/// The address that a memory operand has, if no register but the program counter is part of it.
fn memory_address(instruction: &iced_x86::Instruction) -> Option<u64> {
    let is_memory = instruction.op_kinds().any(|kind| kind == OpKind::Memory);
    let base = instruction.memory_base();
    let is_plain = instruction.is_ip_rel_memory_operand() || base == Register::None;
    let is_segment = matches!(instruction.memory_segment(), Register::FS | Register::GS);
    let is_fixed = is_memory && is_plain && instruction.memory_index() == Register::None && !is_segment;
    is_fixed.then(|| instruction.memory_displacement64())
}

/// `nt!KeBugCheckEx (fffff800`0149ded0)`.
fn written(pointer_size: usize, address: u64, name: Option<String>) -> String {
    let address = Address { address: VirtAddr(address), pointer_size };
    match name {
        Some(name) => format!("{name} ({address})"),
        None => address.to_string(),
    }
}

/// An address, and what is written for it.
struct Written(Option<(u64, String)>);

impl SymbolResolver for Written {
    fn symbol(
        &mut self,
        instruction: &iced_x86::Instruction,
        _: u32,
        operand: Option<u32>,
        address: u64,
        _: u32,
    ) -> Option<SymbolResult<'_>> {
        let is_address = match instruction.op_kind(operand?) {
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => true,
            OpKind::Memory => memory_address(instruction).is_some(),
            _ => false,
        };
        let (at, written) = self.0.as_ref().filter(|(at, _)| is_address && *at == address)?;
        Some(SymbolResult::with_str(*at, written))
    }
}

fn formatter(written: Option<(u64, String)>) -> MasmFormatter {
    let mut formatter = MasmFormatter::with_options(Some(Box::new(Written(written))), None);
    let options = formatter.options_mut();
    options.set_first_operand_char_index(8);
    options.set_memory_size_options(MemorySizeOptions::Always);
    options.set_rip_relative_addresses(true);
    options.set_show_branch_size(false);
    options.set_masm_add_ds_prefix32(false);
    options.set_masm_symbol_displ_in_brackets(true);
    formatter
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = 0xffff_f800_0149_de0d;

    fn of(bytes: &[u8]) -> String {
        let name = |address| (address == 0xffff_f800_0149_ded0).then(|| "nt!KeBugCheckEx".to_owned());
        decode(8, AT, bytes, &name).unwrap().text
    }

    /// Lines of published sessions of WinDbg.
    #[test]
    fn instructions_are_written_as_windbg_writes_them() {
        for (bytes, text) in [
            (&[0x48, 0x89, 0x4c, 0x24, 0x08][..], "mov     qword ptr [rsp+8],rcx"),
            (&[0x48, 0x83, 0xec, 0x38], "sub     rsp,38h"),
            (&[0x48, 0x81, 0xec, 0xc8, 0, 0, 0], "sub     rsp,0C8h"),
            (&[0x48, 0x81, 0xec, 0x38, 1, 0, 0], "sub     rsp,138h"),
            (&[0x48, 0x8d, 0x84, 0x24, 0, 1, 0, 0], "lea     rax,[rsp+100h]"),
            (&[0x0f, 0x29, 0x74, 0x24, 0x30], "movaps  xmmword ptr [rsp+30h],xmm6"),
            (&[0x0f, 0x10, 0x54, 0x11, 0x10], "movups  xmm2,xmmword ptr [rcx+rdx+10h]"),
            (&[0x49, 0xff, 0xc9], "dec     r9"),
            (&[0x0f, 0x20, 0xe1], "mov     rcx,cr4"),
            (&[0x0f, 0x22, 0xe0], "mov     cr4,rax"),
            (&[0x48, 0x0f, 0xba, 0xf0, 0x07], "btr     rax,7"),
            (&[0x80, 0x79, 0x10, 0], "cmp     byte ptr [rcx+10h],0"),
            (&[0x83, 0x64, 0x24, 0x30, 0], "and     dword ptr [rsp+30h],0"),
            (&[0x0f, 0x1f, 0x44, 0, 0], "nop     dword ptr [rax+rax]"),
            (&[0x48, 0x83, 0xf9, 0xff], "cmp     rcx,0FFFFFFFFFFFFFFFFh"),
            (&[0x45, 0x8a, 0x9d, 0x9d, 0x10, 0, 0], "mov     r11b,byte ptr [r13+109Dh]"),
            (&[0x41, 0xb8, 0xe8, 3, 0, 0], "mov     r8d,3E8h"),
            (&[0x48, 0xc1, 0xe1, 0x20], "shl     rcx,20h"),
            (&[0x0f, 0xb7, 0x89, 4, 1, 0, 0], "movzx   ecx,word ptr [rcx+104h]"),
            (&[0x0f, 0x95, 0xc0], "setne   al"),
            (&[0x9c], "pushfq"),
            (&[0x48, 0x0f, 0xc7, 0xf2], "rdrand  rdx"),
            (&[0xba, 0x31, 0x42, 0x72, 0x57], "mov     edx,57724231h"),
            (&[0xe8, 0xbe, 0, 0, 0], "call    nt!KeBugCheckEx (fffff800`0149ded0)"),
            (&[0x74, 0x1b], "je      fffff800`0149de2a"),
            (&[0xeb, 0xfe], "jmp     fffff800`0149de0d"),
            (
                &[0x48, 0x8b, 0x05, 0xbc, 0, 0, 0],
                "mov     rax,qword ptr [nt!KeBugCheckEx (fffff800`0149ded0)]",
            ),
            (&[0x4c, 0x8d, 0x05, 0xbc, 0, 0, 0], "lea     r8,[nt!KeBugCheckEx (fffff800`0149ded0)]"),
            (&[0x48, 0x8b, 0x05, 0, 0, 0, 0], "mov     rax,qword ptr [fffff800`0149de14]"),
            (&[0xff, 0x15, 0xbd, 0, 0, 0], "call    qword ptr [nt!KeBugCheckEx (fffff800`0149ded0)]"),
            (&[0x48, 0xff, 0x25, 0xbc, 0, 0, 0], "jmp     qword ptr [nt!KeBugCheckEx (fffff800`0149ded0)]"),
            (&[0x65, 0x48, 0x8b, 0x04, 0x25, 0x88, 1, 0, 0], "mov     rax,qword ptr gs:[188h]"),
            (&[0xcc], "int     3"),
            (&[0xc3], "ret"),
            (&[0x33, 0xc0], "xor     eax,eax"),
            (&[0x48, 0x8d, 0x6c, 0x24, 0xe0], "lea     rbp,[rsp-20h]"),
            (&[0x90], "nop"),
            (&[0xcd, 0x2c], "int     2Ch"),
            (&[0x06, 0, 0], "???"),
        ] {
            assert_eq!(of(bytes), text, "{bytes:x?}");
        }
        let of_x86 = |bytes: &[u8]| decode(4, 0x8052_7bdc, bytes, &|_| None).unwrap().text;
        assert_eq!(of_x86(&[0xa1, 0xdc, 0x7b, 0x52, 0x80]), "mov     eax,dword ptr [80527bdc]");
        assert_eq!(of_x86(&[0x55]), "push    ebp");
        assert_eq!(of_x86(&[0x8b, 0xff]), "mov     edi,edi");
        assert_eq!(of_x86(&[0x39, 0x75, 0x08]), "cmp     dword ptr [ebp+8],esi");
        assert_eq!(of_x86(&[0xc2, 8, 0]), "ret     8");
        assert_eq!(of_x86(&[0x74, 7]), "je      80527be5");
    }

    #[test]
    fn what_runs_next_is_known() {
        let flow = |bytes: &[u8]| decode(8, AT, bytes, &|_| None).unwrap().flow;
        assert_eq!(flow(&[0x90]), Flow::Next);
        assert_eq!(flow(&[0xe8, 0, 0, 0, 0]), Flow::Next);
        assert_eq!(flow(&[0x74, 2]), Flow::Branch(AT + 4));
        assert_eq!(flow(&[0xeb, 2]), Flow::Jump(Some(AT + 4)));
        assert_eq!(flow(&[0xff, 0xe0]), Flow::Jump(None));
        assert_eq!(flow(&[0xcc]), Flow::Breakpoint);
        for end in [&[0xc3][..], &[0x0f, 0x0b], &[0x06, 0, 0]] {
            assert_eq!(decode(8, AT, end, &|_| None).map(|it| it.flow), Some(Flow::End), "{end:x?}");
        }
    }

    #[test]
    fn an_instruction_that_is_cut_off_is_none_yet() {
        let whole = [0x48, 0x81, 0xec, 0xc8, 0, 0, 0];
        for len in 0..whole.len() {
            assert_eq!(decode(8, AT, &whole[..len], &|_| None), None, "{len}");
        }
        assert_eq!(decode(8, AT, &[&whole[..], &[0xff]].concat(), &|_| None).unwrap().len, 7);
    }
}
