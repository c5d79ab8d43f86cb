//! Which processor a crash dump was written by: the one whose registers the kernel has kept as the header has them.
//!
//! ```text
//!  KDDEBUGGER_DATA64 --KiProcessorBlock--> KPRCB of each --OffsetPrcbContext, OffsetPrcbProcStateContext--> CONTEXT
//! ```
//! Source: docs/dumps.md 9.

use kd_protocol::MachineType;

use super::header::Header;
use crate::memory::{Memory, VirtAddr};

/// `KDDEBUGGER_DATA64`.
const KI_PROCESSOR_BLOCK: u64 = 0x218;
const OFFSET_PRCB_PROC_STATE_CONTEXT: u64 = 0x2bc;
const OFFSET_PRCB_CONTEXT: u64 = 0x338;
/// `_KPRCB.ProcessorState` of x86, whose old kernels do not say where it is.
const PROCESSOR_STATE_X86: u64 = 0x18;

/// The number of the processor whose stack and place in the code `context` has.
pub(super) fn of_context(memory: &dyn Memory, header: &Header, context: &[u8]) -> Option<u16> {
    let width = if header.is_64_bit { 8 } else { 4 };
    let word = |at: VirtAddr, len: usize| {
        let mut value = [0; 8];
        memory.read_virtual(at, &mut value[..len]).ok()?;
        Some(u64::from_le_bytes(value))
    };
    let cut = |address: u64| VirtAddr(if header.is_64_bit { address } else { address & 0xffff_ffff });
    let (stack, code) = match header.machine {
        MachineType::AMD64 => (0x98, 0xf8),
        MachineType::ARM64 => (0x100, 0x108),
        _ => (0xc4, 0xb8),
    };
    let block = cut(header.debugger_data.0);
    if word(block.offset(0x10), 4) != Some(0x4742_444b) {
        return None;
    }
    let size = word(block.offset(0x14), 4)?;
    let field =
        |at: u64, len: usize| (at + len as u64 <= size).then(|| word(block.offset(at), len)).flatten();
    let array = cut(field(KI_PROCESSOR_BLOCK, 8)?);
    let pointer = field(OFFSET_PRCB_CONTEXT, 2).filter(|it| *it != 0);
    let inside = field(OFFSET_PRCB_PROC_STATE_CONTEXT, 2).filter(|it| *it != 0);
    let inside = inside.or_else(|| (!header.is_64_bit).then_some(PROCESSOR_STATE_X86));
    let is_its = |at: VirtAddr| {
        [stack, code].iter().all(|register| {
            let theirs = word(at.offset(*register as u64), width);
            theirs.is_some_and(|it| {
                context.get(*register..*register + width) == Some(&it.to_le_bytes()[..width])
            })
        })
    };
    (0..header.processors as u16).find(|number| {
        let Some(prcb) = word(array.offset(u64::from(*number) * width as u64), width).map(cut) else {
            return false;
        };
        let kept = pointer.and_then(|at| word(prcb.offset(at), width)).map(cut);
        let places = [kept, inside.map(|at| prcb.offset(at))];
        places.into_iter().flatten().any(is_its)
    })
}
