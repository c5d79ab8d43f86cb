//! The stack of the CPU that stopped, frame by frame, by the unwind information of the images that its code lies in.
//!
//! ```text
//!  CONTEXT -> PC -> module -> headers, .pdata, unwind information (kept over stops) -> stack words -> the caller's PC ..
//! ```
//! A file of the image on the symbol path spares the target all that but the headers.
//!
//! Source: docs/stacks.md.

use std::sync::Arc;

use kd_protocol::MachineType;

use super::Target;
use super::call_stack::{CallStack, CodePart, FrameKind, StackEnd, StackFrame, StackStart, StackTrouble};
use super::error::TargetError;
use super::image::{Headers, IMAGE_DIRECTORY_ENTRY_EXCEPTION, ImageError};
use super::image_bytes::{Unwindable, read_around};
use super::modules::Module;
use crate::memory::{Memory, ReadError, VirtAddr};
use crate::symbols::{ImageFile, ImageIdentity};
use crate::unwind::{self, Counter, Fault, Image, Kind, Registers as Unwound, What};

impl Target<'_> {
    /// The frames from `start` on, or from where the CPU is whose registers are asked for; at most `limit`.
    ///
    /// # Errors
    /// [`TargetError::NoRegisters`]; [`TargetError::NotSupported`] for a machine that is not x64.
    pub fn stack(&self, start: Option<StackStart>, limit: usize) -> Result<CallStack, TargetError> {
        let machine = self.kernel().version().machine;
        if machine != MachineType::AMD64 {
            let pointer = if machine == MachineType::I386 { "esp" } else { "sp" };
            let what =
                format!("stacks are not walked; dps @{pointer} L40 shows what looks like return addresses");
            return Err(TargetError::NotSupported { machine: self.machine_name(), what });
        }
        let StackStart(mut registers) = start.map_or_else(|| self.stopped_at(), Ok)?;
        let (mut frames, mut counter) = (Vec::new(), Counter::Exact);
        let end = loop {
            if registers.rip == 0 && !frames.is_empty() {
                break StackEnd::Whole;
            }
            if frames.len() >= limit {
                break StackEnd::Limit;
            }
            let (frame, next) = self.frame(&registers, counter);
            frames.push(frame);
            match next {
                Ok((caller, caller_counter)) => (registers, counter) = (caller, caller_counter),
                Err(end) => break end,
            }
        };
        Ok(CallStack { frames, end })
    }

    fn stopped_at(&self) -> Result<StackStart, TargetError> {
        /// As instructions number them.
        const NAMES: [&str; 16] = [
            "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
            "r14", "r15",
        ];
        let registers = self.registers()?;
        let general = NAMES.map(|name| registers.get(name).map(|register| register.value));
        let rsp = general[4].unwrap_or_default();
        Ok(StackStart(Unwound { rip: registers.program_counter().0, rsp, general }))
    }

    /// A frame, and the registers of its caller or why there are none.
    fn frame(
        &self,
        registers: &Unwound,
        counter: Counter,
    ) -> (StackFrame, Result<(Unwound, Counter), StackEnd>) {
        let program_counter = VirtAddr(registers.rip);
        // The call belongs to the frame, what stands behind it may not.
        let back = u64::from(counter == Counter::Return);
        let inside = VirtAddr(registers.rip.wrapping_sub(back));
        let module = self.module_at(inside);
        let mut frame = StackFrame {
            stack_pointer: VirtAddr(registers.rsp),
            program_counter,
            return_address: None,
            arguments: None,
            kind: FrameKind::Last,
            symbol: match &module {
                Some(module) => self.symbol_in(inside, module),
                None => self.symbol_at(inside),
            },
        };
        frame.symbol.address = program_counter;
        frame.symbol.displacement += back;
        if registers.rip == 0 {
            // A call through a null pointer: where it was called from is on top of the stack.
            frame.kind = FrameKind::Leaf;
            let mut word = [0; 8];
            let caller = match self.memory.read_virtual(frame.stack_pointer, &mut word) {
                Ok(()) => registers.returned_to(u64::from_le_bytes(word)),
                Err(source) => {
                    let trouble = StackTrouble::Read { what: What::Stack, module: None, source };
                    return (frame, Err(StackEnd::Broken(trouble)));
                }
            };
            frame.return_address = Some(VirtAddr(caller.rip));
            return (frame, Ok((caller, Counter::Return)));
        }
        let Some(module) = module else {
            let end = if self.is_kernel(program_counter) { StackEnd::NoModule } else { StackEnd::UserMode };
            return (frame, Err(end));
        };
        let step = match self.step(&module, registers, counter) {
            Ok(step) => step,
            Err(trouble) => return (frame, Err(StackEnd::Broken(trouble))),
        };
        if let Some(begin) = step.begin {
            frame.symbol.begins_at(module.base.offset(begin.into()), module.base);
        }
        frame.return_address = Some(VirtAddr(step.caller.rip));
        frame.kind = match step.kind {
            Kind::Call => FrameKind::Call,
            Kind::Leaf if counter == Counter::Exact => FrameKind::Leaf,
            Kind::Leaf => FrameKind::Missing,
            Kind::Trap { frame } => FrameKind::Trap { frame: VirtAddr(frame) },
        };
        // An interrupt may have come with a stack of its own.
        let is_trap = matches!(step.kind, Kind::Trap { .. });
        if !is_trap && step.caller.rsp <= registers.rsp {
            return (frame, Err(StackEnd::NotAbove(VirtAddr(step.caller.rsp))));
        }
        let mut words = [0; 32];
        let read = self.memory.read_virtual(VirtAddr(step.caller.rsp), &mut words);
        let word = |number: usize| u64::from_le_bytes(std::array::from_fn(|byte| words[number * 8 + byte]));
        frame.arguments = read.is_ok().then(|| std::array::from_fn(word));
        (frame, Ok((step.caller, step.counter)))
    }

    fn step(
        &self,
        module: &Module,
        registers: &Unwound,
        counter: Counter,
    ) -> Result<unwind::Step, StackTrouble> {
        self.in_image(module, |image, read| unwind::step(image, registers, counter, read))
    }

    /// The part of a function that `address` lies in; nothing where there is none, as in code that calls nothing, in no module, and
    /// on a machine that is not x64.
    ///
    /// # Errors
    /// [`StackTrouble`].
    pub fn function_part(&self, address: VirtAddr) -> Result<Option<CodePart>, StackTrouble> {
        if self.kernel().version().machine != MachineType::AMD64 {
            return Ok(None);
        }
        let Some(module) = self.module_at(address) else { return Ok(None) };
        let Ok(rva) = u32::try_from(address.since(module.base)) else { return Ok(None) };
        let part = self.in_image(&module, |image, read| image.part_at(rva, read))?;
        let at = |rva: u32| module.base.offset(rva.into());
        Ok(part.map(|part| CodePart { range: at(part.begin)..at(part.end), function: at(part.function) }))
    }

    /// Asks something of an image's unwind information.
    fn in_image<T>(
        &self,
        module: &Module,
        ask: impl FnOnce(&Image, &mut unwind::Read<'_, ReadError>) -> Result<T, Fault<ReadError>>,
    ) -> Result<T, StackTrouble> {
        let name = || module.name.to_string();
        let image =
            self.unwindable(module).map_err(|source| StackTrouble::Headers { module: name(), source })?;
        let mut read = |what, at, buf: &mut [u8]| match what {
            What::Stack | What::Code => self.memory.read_virtual(VirtAddr(at), buf),
            What::Functions | What::Info => self.read_image(module, &image, VirtAddr(at), buf),
        };
        ask(&image.image, &mut read).map_err(|fault| match fault {
            Fault::Read { what, at: _, error } => {
                StackTrouble::Read { what, module: (what != What::Stack).then(name), source: error }
            }
            Fault::Unknown { at, what } => StackTrouble::Unknown { module: name(), at: VirtAddr(at), what },
            Fault::Register { .. } => StackTrouble::Register,
        })
    }

    /// Where the table of functions of an image is, and its file if the symbol path has that.
    fn unwindable(&self, module: &Module) -> Result<Unwindable, ImageError> {
        if let Some(known) = self.with_loaded(|loaded| loaded.images.unwindable(module)) {
            return Ok(known);
        }
        let headers = Headers::read(&self.memory, module.base)?;
        let directory = headers.directory(&self.memory, module.base, IMAGE_DIRECTORY_ENTRY_EXCEPTION)?;
        // Whatever the headers say, no entry lies outside of the image.
        let (table, size) = directory.unwrap_or_default();
        let table_size = size.min(module.size.saturating_sub(table));
        let image = Image { base: module.base.0, size: module.size, table, table_size };
        let wanted = ImageIdentity::new(&module.image_name, headers.timestamp, headers.size);
        let file = self.kernel.symbol_source().image(&wanted);
        let file = file.filter(|file| self.agrees(file, module, table)).map(Arc::new);
        let found = Unwindable { image, file };
        self.with_loaded(|loaded| loaded.images.remember(module, found.clone()));
        Ok(found)
    }

    /// True if a file has the first function that the target has too, or the target does not say.
    fn agrees(&self, file: &ImageFile, module: &Module, table: u32) -> bool {
        let (mut here, mut there) = ([0; 12], [0; 12]);
        let read = self.memory.read_virtual(module.base.offset(table.into()), &mut there);
        file.read(table, &mut here) && (read.is_err() || here == there)
    }

    /// Bytes of an image that do not change while it is loaded.
    fn read_image(
        &self,
        module: &Module,
        image: &Unwindable,
        at: VirtAddr,
        buf: &mut [u8],
    ) -> Result<(), ReadError> {
        let rva = u32::try_from(at.since(module.base)).ok();
        if image.file.as_ref().zip(rva).is_some_and(|(file, rva)| file.read(rva, buf)) {
            return Ok(());
        }
        if self.with_loaded(|loaded| loaded.images.copy(module, at, buf)) {
            return Ok(());
        }
        let (start, bytes) = read_around(&self.memory, at, buf.len())?;
        let from = at.since(start) as usize;
        buf.copy_from_slice(&bytes[from..from + buf.len()]);
        self.with_loaded(|loaded| loaded.images.keep(module, start, bytes));
        Ok(())
    }
}
