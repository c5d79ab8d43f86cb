//! What a processor holds where it was stopped: told by the source, or kept by the kernel in its memory.

use super::{Note, NoteCode, Registers, Target, TargetError, VirtAddr};
use crate::memory::{Memory, ReadCause};

impl Target<'_> {
    /// The `CONTEXT` of the CPU that stopped, as its kernel lays it out.
    ///
    /// # Errors
    /// Why there is none.
    pub fn context(&self) -> Result<Vec<u8>, ReadCause> {
        let cpu = self.cpu.ok_or(ReadCause::Unsupported("a CPU"))?;
        self.kernel.context(self.memory.stop(), None, || cpu.context())
    }

    /// The registers of the CPU that stopped, or was [chosen](super::Kernel::choose_processor), read when they are first needed.
    ///
    /// # Errors
    /// [`TargetError::NoRegisters`].
    pub fn registers(&self) -> Result<&Registers, TargetError> {
        self.registers.get_or_init(|| self.registers_of(self.kernel.chosen_processor())).as_ref().map_err(
            |cause| match cause {
                ReadCause::Unsupported(_) if self.is_kept() => TargetError::NoneButKept,
                cause => TargetError::NoRegisters(cause.clone()),
            },
        )
    }

    /// The registers of a processor by its number; of the one that stopped if none is named.
    ///
    /// # Errors
    /// Why they cannot be read.
    pub fn registers_of(&self, processor: Option<u16>) -> Result<Registers, ReadCause> {
        let cpu = self.cpu.ok_or(ReadCause::Unsupported("a CPU"))?;
        let machine = self.kernel.version().machine;
        if !Registers::knows(machine) {
            return Err(ReadCause::Unsupported(
                "the context of a machine that is neither x64, x86 nor ARM64",
            ));
        }
        let context = match processor {
            None => self.context()?,
            Some(number) => self.kernel.context(self.memory.stop(), processor, || {
                cpu.context_of(number).or_else(|cause| match cause {
                    ReadCause::Unsupported(_) => self.context_in_memory(number).ok_or(cause),
                    cause => Err(cause),
                })
            })?,
        };
        if let Some(number) = processor.filter(|_| cpu.is_kept() && cpu.context().is_err()) {
            // Nobody stopped it for the image.
            let text = format!(
                "The registers of processor {number} are those that the kernel kept when it stopped its processors the last time: \
                 where it stood when this was made is not known"
            );
            self.note(Note::partial(NoteCode::RegistersKept, text));
        }
        Registers::decode(machine, &context).ok_or(ReadCause::Unsupported("a whole CONTEXT"))
    }

    /// What the kernel has kept of a processor's registers when it stopped them all.
    fn context_in_memory(&self, number: u16) -> Option<Vec<u8>> {
        /// `_KPRCB.ProcessorState` of x86, whose old kernels do not say where it is.
        const PROCESSOR_STATE_X86: u64 = 0x18;
        let data = self.debugger_data().ok()?;
        let width = self.pointer_size();
        let pointer = |at: VirtAddr| {
            let mut value = [0; 8];
            self.memory.read_virtual(at, &mut value[..width]).ok()?;
            Some(self.address(u64::from_le_bytes(value))).filter(|it| self.is_kernel(*it))
        };
        let prcb = pointer(data.ki_processor_block()?.offset(u64::from(number) * width as u64))?;
        let [kept, inside] = data.offsets_of_context();
        let inside = inside.or_else(|| (width == 4).then_some(PROCESSOR_STATE_X86));
        let kept = kept.and_then(|at| pointer(prcb.offset(at)));
        let len = Registers::context_len(self.kernel.version().machine)?;
        let read = |at: VirtAddr| {
            let mut context = vec![0; len];
            self.memory.read_virtual(at, &mut context).ok()?;
            // What was never saved is zeros.
            context.iter().any(|byte| *byte != 0).then_some(context)
        };
        kept.and_then(read).or_else(|| inside.and_then(|at| read(prcb.offset(at))))
    }
}
