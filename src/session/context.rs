//! A CPU's `CONTEXT` in a stopped target: read, and written back.

use bytes::Bytes;
use kd_protocol::kd::{Arm, Manipulate};
use kd_protocol::{KDNET_REPLY_DATA, MachineType, VirtAddr};

/// A piece of a context that every KDNET target gives and takes.
const PIECE: usize = KDNET_REPLY_DATA as usize;
/// A target that gives less than a few dozen bytes at a time gives no context.
const MAX_PIECES: usize = 64;
/// Contexts with extended state are a few kilobytes; more is no context.
const MAX_CONTEXT: usize = 0x1_0000;

/// Where things lie in a machine's `CONTEXT`, without extended state.
///
/// | machine | size | program counter | source |
/// |---|---:|---|---|
/// | x86 | 2CC | Eip, 4 bytes at B8 | PROTOCOL.md 12 |
/// | x64 | 4D0 | Rip, 8 bytes at F8 | PROTOCOL.md 12 |
/// | MachineType::ARM64 | 390 | Pc, 8 bytes at 108 | the Windows SDK's `winnt.h`; no MachineType::ARM64 target was seen |
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    size: usize,
    program_counter: (usize, usize),
    /// State changes carry the instruction bytes where [`kd_protocol::kd::ControlReport`] has them.
    pub(super) reports_instructions: bool,
}

impl Layout {
    /// Of a machine that the target names; `None` for one that is not known.
    pub(super) const fn of(machine: MachineType) -> Option<Self> {
        let (size, program_counter, reports_instructions) = match machine {
            MachineType::I386 => (0x2cc, (0xb8, 4), false),
            MachineType::AMD64 => (0x4d0, (0xf8, 8), true),
            MachineType::ARM64 => (0x390, (0x108, 8), false),
            _ => return None,
        };
        Some(Self { size, program_counter, reports_instructions })
    }

    /// The digits of an address that the machine has: KD sign-extends those of 32-bit ones.
    pub(super) const fn cut(&self, address: VirtAddr) -> u64 {
        if self.program_counter.1 == 4 { address.0 & 0xffff_ffff } else { address.0 }
    }
}

/// A context, and how the target gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) bytes: Vec<u8>,
    /// By GetContextEx, so that it is taken back by SetContextEx.
    in_pieces: bool,
}

impl Context {
    pub(super) fn program_counter(&self, layout: &Layout) -> Option<u64> {
        let (at, len) = layout.program_counter;
        let mut value = [0; 8];
        value[..len].copy_from_slice(self.bytes.get(at..at + len)?);
        Some(u64::from_le_bytes(value))
    }

    pub(super) fn set_program_counter(&mut self, layout: &Layout, value: VirtAddr) {
        let (at, len) = layout.program_counter;
        if let Some(field) = self.bytes.get_mut(at..at + len) {
            field.copy_from_slice(&value.0.to_le_bytes()[..len]);
        }
    }
}

/// The context of a CPU; nothing if the target gives none. `request` sends one request and returns its reply.
///
/// Where a reply's ByteCount is only an echo of what was asked for, as one kernel has it, the size of the whole is the
/// machine's: no field of a reply is taken for a promise.
pub(super) fn read<E>(
    processor: u16,
    layout: &Layout,
    mut request: impl FnMut(Manipulate) -> Result<Manipulate, E>,
) -> Result<Option<Context>, E> {
    let mut bytes = Vec::new();
    let mut total = layout.size;
    for _ in 0..MAX_PIECES {
        if bytes.len() == total {
            break;
        }
        let asked = (total - bytes.len()).min(PIECE);
        let reply = request(Manipulate::get_context_ex(processor, bytes.len() as u32, asked as u32))?;
        let Arm::ContextEx(arm) = reply.arm else { break };
        if !reply.return_status.is_success() || reply.data.is_empty() || reply.data.len() > asked {
            break;
        }
        bytes.extend_from_slice(&reply.data);
        let said = arm.byte_count as usize;
        if said != asked && said > MAX_CONTEXT {
            break;
        }
        // Extended state makes the whole larger; whatever is smaller than the machine's own has something else there.
        if said != asked && said >= layout.size {
            total = said;
        }
    }
    if bytes.len() == total {
        return Ok(Some(Context { bytes, in_pieces: true }));
    }
    // Boot debuggers and old kernels have only the whole context.
    let reply = request(Manipulate::get_context(processor))?;
    let is_whole = reply.return_status.is_success() && reply.data.len() >= layout.size;
    Ok(is_whole.then(|| Context { bytes: reply.data.to_vec(), in_pieces: false }))
}

/// The machine whose `CONTEXT` a reply to GetContext is as long as.
pub(super) fn machine_of(reply: &Manipulate) -> Option<MachineType> {
    let is_its =
        |machine: &MachineType| Layout::of(*machine).is_some_and(|layout| layout.size == reply.data.len());
    [MachineType::I386, MachineType::AMD64, MachineType::ARM64]
        .into_iter()
        .find(is_its)
        .filter(|_| reply.return_status.is_success())
}

/// Writes a context back, the way it was read. A target that refuses one way is tried the other: what counts is that it
/// can go on.
pub(super) fn write<E>(
    processor: u16,
    context: &Context,
    mut request: impl FnMut(Manipulate) -> Result<Manipulate, E>,
) -> Result<(), E> {
    let bytes = Bytes::copy_from_slice(&context.bytes);
    if context.in_pieces && write_in_pieces(processor, &bytes, &mut request)? {
        return Ok(());
    }
    let reply = request(Manipulate::set_context(processor, bytes.clone()))?;
    if !reply.return_status.is_success() && !context.in_pieces {
        write_in_pieces(processor, &bytes, &mut request)?;
    }
    Ok(())
}

/// True if the target took every piece.
fn write_in_pieces<E>(
    processor: u16,
    bytes: &Bytes,
    request: &mut impl FnMut(Manipulate) -> Result<Manipulate, E>,
) -> Result<bool, E> {
    for start in (0..bytes.len()).step_by(PIECE) {
        let piece = bytes.slice(start..bytes.len().min(start + PIECE));
        let reply = request(Manipulate::set_context_ex(processor, start as u32, bytes.len() as u32, piece))?;
        if !reply.return_status.is_success() {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kd_protocol::kd::{ApiNumber, ContextEx, NtStatus};

    /// A target with a context of this many bytes.
    struct Cpu {
        bytes: Vec<u8>,
        /// ByteCount is what was asked for, and a piece that reaches beyond the end is refused.
        echoes: bool,
        has_ex: bool,
        requests: usize,
    }

    impl Cpu {
        fn new(len: usize) -> Self {
            let bytes = (0..len).map(|at| at as u8).collect();
            Self { bytes, echoes: false, has_ex: true, requests: 0 }
        }

        fn answer(&mut self, request: &Manipulate) -> Manipulate {
            self.requests += 1;
            let refused = request.reply(NtStatus::UNSUCCESSFUL, Bytes::new());
            match request.arm {
                Arm::ContextEx(arm) if self.has_ex && request.api_number == ApiNumber::GET_CONTEXT_EX => {
                    let (start, wanted) = (arm.offset as usize, arm.byte_count as usize);
                    let end = start + wanted;
                    if self.echoes && end > self.bytes.len() {
                        return refused;
                    }
                    let data = Bytes::copy_from_slice(&self.bytes[start..end.min(self.bytes.len())]);
                    let byte_count = if self.echoes { arm.byte_count } else { self.bytes.len() as u32 };
                    let arm = ContextEx { byte_count, bytes_copied: data.len() as u32, ..arm };
                    Manipulate { arm: Arm::ContextEx(arm), ..request.reply(NtStatus::SUCCESS, data) }
                }
                Arm::GetContext(_) => request.reply(NtStatus::SUCCESS, self.bytes.clone().into()),
                _ => refused,
            }
        }

        fn read(&mut self, machine: MachineType) -> Option<Context> {
            let layout = Layout::of(machine).unwrap();
            read::<()>(0, &layout, |request| Ok(self.answer(&request))).unwrap()
        }
    }

    #[test]
    fn a_context_is_read_whole_whatever_byte_count_means() {
        for (len, machine) in [
            (0x4d0, MachineType::AMD64),
            (0x4d0 + 0x340, MachineType::AMD64),
            (0x2cc, MachineType::I386),
            (0x390, MachineType::ARM64),
        ] {
            for (echoes, has_ex) in [(false, true), (true, true), (false, false)] {
                let mut cpu = Cpu { echoes, has_ex, ..Cpu::new(len) };
                let context = cpu.read(machine).expect("it has a context");
                let least = if echoes { Layout::of(machine).unwrap().size } else { len };
                assert_eq!(
                    context.bytes,
                    cpu.bytes[..least.max(context.bytes.len())],
                    "{len:x} {echoes} {has_ex}"
                );
                assert!(cpu.requests <= 3, "{} requests", cpu.requests);
            }
        }
    }

    #[test]
    fn a_machine_is_known_by_the_length_of_its_context() {
        for machine in [MachineType::AMD64, MachineType::I386, MachineType::ARM64] {
            let mut cpu = Cpu::new(Layout::of(machine).unwrap().size);
            let reply = cpu.answer(&Manipulate::get_context(0));
            assert_eq!(machine_of(&reply), Some(machine));
            assert_eq!(machine_of(&Manipulate { return_status: NtStatus::UNSUCCESSFUL, ..reply }), None);
        }
        assert_eq!(machine_of(&Cpu::new(0x400).answer(&Manipulate::get_context(0))), None);
    }

    #[test]
    fn a_target_without_a_context_has_none() {
        let layout = Layout::of(MachineType::AMD64).unwrap();
        let refuse = |request: Manipulate| Ok::<_, ()>(request.reply(NtStatus::UNSUCCESSFUL, Bytes::new()));
        assert_eq!(read(0, &layout, refuse), Ok(None));
        let short =
            |request: Manipulate| Ok::<_, ()>(request.reply(NtStatus::SUCCESS, Bytes::from_static(&[1])));
        assert_eq!(read(0, &layout, short), Ok(None));
    }
}
