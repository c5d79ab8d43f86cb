//! One instruction: decoded from bytes, and written as WinDbg writes it.

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Formatter, Instruction as Decoded, MasmFormatter,
    MemorySizeOptions, OpKind, Register, SymbolResolver, SymbolResult,
};

use crate::target::VirtAddr;

/// Longest instruction of x64 and x86.
pub(super) const LONGEST: usize = 15;
/// Where operands begin behind the mnemonic.
const OPERANDS_AT: u32 = 8;

/// Where the processor goes on behind an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// At the next one; a call comes back to it.
    Next,
    /// At the next one or at this address.
    May(VirtAddr),
    /// At this address.
    Jumps(VirtAddr),
    /// Nobody knows where: a jump by a register or a table. `false` if by a pointer in the image, as to an import.
    Somewhere { is_by_table: bool },
    /// It does not.
    Ends,
}

/// A decoded instruction, or a byte that begins none.
#[derive(Clone, Debug)]
pub(super) struct Instruction {
    pub(super) address: VirtAddr,
    pub(super) bytes: Vec<u8>,
    pub(super) flow: Flow,
    decoded: Option<Decoded>,
}

impl Instruction {
    /// The instruction that `bytes` begin with; nothing if they end before it does.
    pub(super) fn decode(bitness: u32, address: VirtAddr, bytes: &[u8]) -> Option<Self> {
        let whole = &bytes[..bytes.len().min(LONGEST)];
        let mut decoder = Decoder::with_ip(bitness, whole, address.0, DecoderOptions::NONE);
        let decoded = decoder.decode();
        if decoder.last_error() == iced_x86::DecoderError::NoMoreBytes && whole.len() < LONGEST {
            return None;
        }
        if decoded.is_invalid() {
            let bytes = whole.get(..1)?.to_vec();
            return Some(Self { address, bytes, flow: Flow::Ends, decoded: None });
        }
        let bytes = whole[..decoded.len()].to_vec();
        Some(Self { address, bytes, flow: flow(&decoded), decoded: Some(decoded) })
    }

    /// False of a byte that begins no instruction.
    pub(super) const fn is_valid(&self) -> bool {
        self.decoded.is_some()
    }

    /// True for a call, and for what is repeated: a step goes over it.
    pub(super) fn is_stepped_over(&self) -> bool {
        self.decoded.as_ref().is_some_and(|it| {
            let is_call = matches!(it.flow_control(), FlowControl::Call | FlowControl::IndirectCall);
            is_call || it.has_rep_prefix() || it.has_repne_prefix()
        })
    }

    /// True if its last operand is a constant of four bytes, which end it.
    pub(super) fn ends_in_constant(&self) -> bool {
        let last =
            self.decoded.as_ref().and_then(|it| it.op_count().checked_sub(1).map(|last| it.op_kind(last)));
        matches!(last, Some(OpKind::Immediate32 | OpKind::Immediate32to64))
    }

    /// The first byte past it.
    pub(super) fn end(&self) -> VirtAddr {
        self.address.offset(self.bytes.len() as u64)
    }

    /// The address of the image that an operand names: where a branch goes, or what lies in memory there.
    pub(super) fn refers_to(&self) -> Option<VirtAddr> {
        let decoded = self.decoded.as_ref()?;
        let near = (0..decoded.op_count()).find_map(|operand| match decoded.op_kind(operand) {
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
                Some(decoded.near_branch_target())
            }
            OpKind::Memory if decoded.is_ip_rel_memory_operand() => Some(decoded.ip_rel_memory_address()),
            // Without a register it is an address; behind FS and GS it is none.
            OpKind::Memory
                if decoded.memory_base() == Register::None
                    && decoded.memory_index() == Register::None
                    && !matches!(decoded.memory_segment(), Register::FS | Register::GS) =>
            {
                Some(decoded.memory_displacement64())
            }
            _ => None,
        });
        near.map(VirtAddr)
    }

    /// Mnemonic and operands; `named` is what stands for the address that it [refers to](Self::refers_to).
    pub(super) fn text(&self, named: Option<String>) -> String {
        let Some(decoded) = &self.decoded else { return "???".to_owned() };
        let at = self.refers_to().map(|address| address.0);
        let names: Option<Box<dyn SymbolResolver>> =
            at.zip(named).map(|(at, name)| Box::new(Name { at, name }) as Box<dyn SymbolResolver>);
        let mut formatter = MasmFormatter::with_options(names, None);
        let options = formatter.options_mut();
        options.set_first_operand_char_index(OPERANDS_AT);
        options.set_memory_size_options(MemorySizeOptions::Always);
        options.set_branch_leading_zeros(false);
        options.set_show_branch_size(false);
        let mut text = String::new();
        formatter.format(decoded, &mut text);
        text
    }
}

fn flow(decoded: &Decoded) -> Flow {
    let target = VirtAddr(decoded.near_branch_target());
    match decoded.flow_control() {
        FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall | FlowControl::Interrupt => {
            // int 29h ends a program or the machine.
            let is_fast_fail = decoded.flow_control() == FlowControl::Interrupt
                && decoded.op_count() == 1
                && decoded.op_kind(0) == OpKind::Immediate8
                && decoded.immediate8() == 0x29;
            if is_fast_fail { Flow::Ends } else { Flow::Next }
        }
        FlowControl::ConditionalBranch | FlowControl::XbeginXabortXend => Flow::May(target),
        FlowControl::UnconditionalBranch => Flow::Jumps(target),
        FlowControl::IndirectBranch => Flow::Somewhere {
            is_by_table: !(decoded.op_kind(0) == OpKind::Memory
                && (decoded.is_ip_rel_memory_operand()
                    || (decoded.memory_base() == Register::None
                        && decoded.memory_index() == Register::None))),
        },
        FlowControl::Return | FlowControl::Exception => Flow::Ends,
    }
}

/// What one address is called.
struct Name {
    at: u64,
    name: String,
}

impl SymbolResolver for Name {
    fn symbol(
        &mut self,
        instruction: &Decoded,
        operand: u32,
        instruction_operand: Option<u32>,
        address: u64,
        _: u32,
    ) -> Option<SymbolResult<'_>> {
        // A constant of the same value is a number all the same.
        let operand = instruction_operand.unwrap_or(operand);
        let is_address = matches!(
            instruction.op_kind(operand),
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 | OpKind::Memory
        );
        (is_address && address == self.at).then(|| SymbolResult::with_str(address, self.name.as_str()))
    }
}
