//! A stopped target as a query sees it: memory, modules, symbols, structures.
//!
//! ```text
//!  Kernel: one boot              Target: one stop
//!  version, symbol path,  <----  memory + kernel:  target.record("nt!_VF_POOL_TRACE", at)
//!  symbols found so far            modules, symbol at an address, globals, lists
//! ```
//! Requests are what a stopped machine pays with, so structures are read whole and once, neighbouring variables in one
//! read, the list of modules once per stop, and an image's headers when its symbols are first needed.

mod breathing;
mod built_in;
mod call_stack;
mod changing;
mod debugger_data;
mod error;
mod exports;
mod fallback;
mod file_name;
mod image;
mod image_bytes;
mod kernel;
mod known;
mod loaded;
mod modules;
mod names;
mod note;
mod patience;
mod processor;
mod progress;
mod record;
mod register_place;
mod registers;
mod registers_arm64;
mod scatter;
mod search;
mod searched;
mod sparse;
mod stack;
mod symbol_at;
mod unloaded;
mod unloaded_module;
mod utf16;
pub mod walk;
mod width;

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::fmt;
use std::sync::Arc;

pub use crate::source::KernelVersion;
pub use breathing::Breathing;
pub use call_stack::{CallStack, CodePart, FrameKind, StackEnd, StackFrame, StackStart, StackTrouble};
pub use debugger_data::DebuggerData;
use debugger_data::Encoding;
pub use error::{MissingSymbols, OfLink, TargetError, Trouble};
pub use fallback::{built_in_layouts, stands_in};
pub use file_name::FileName;
pub use image::{Image, ImageError, ImageFacts};
pub use kernel::{DisplayPosition, Kernel, ModuleSymbols, SymbolsOrWhyNot};
pub use modules::{Module, ModuleList, module_name};
pub use note::{Note, NoteCode, NoteKind, Notes};
pub use patience::is_over;
pub use progress::Progress;
pub use record::{Layout, Record, Records};
pub use register_place::{RegisterPlace, pseudo_register};
pub use registers::{Register, Registers};
pub use searched::Searched;
pub use sparse::SparseBytes;
pub use symbol_at::{NamedType, Neighbours, SymbolAt, SymbolStart};
pub use unloaded_module::UnloadedModule;
pub use walk::{SListHead, WalkEnd};

// Commands see memory and symbols through the target only.
pub use crate::memory::{ReadCause, ReadError, VirtAddr};
pub use crate::symbols::store::{Part as SymbolPart, SymbolPath, SymbolSource, default_store};
pub use crate::symbols::{
    BaseKind, Bits, Constant, ExportSymbols, Field, Place, Symbol, SymbolKind, Symbols, Type, TypeLayout,
    undecorate,
};

use self::patience::Patience;
use self::width::Width;
use crate::memory::{Changeable, Memory, Noted, StoppedCpu};
use crate::output::Address;

/// A stopped target.
///
/// Cheap to make: one per command. What ends one read for good (Ctrl+C, a target that is gone) ends all of the same
/// target's, and modules that could not be read are not asked for again by it.
pub struct Target<'a> {
    memory: Patience<'a>,
    kernel: &'a Kernel,
    cpu: Option<&'a dyn StoppedCpu>,
    changes: Option<&'a dyn Changeable>,
    progress: Option<&'a dyn Progress>,
    breathing: Option<&'a dyn Breathing>,
    breaths: Cell<u64>,
    registers: OnceCell<Result<Registers, ReadCause>>,
    modules: OnceCell<Result<Arc<ModuleList>, TargetError>>,
    unloaded: OnceCell<Result<Arc<[UnloadedModule]>, TargetError>>,
    /// An address got no name, and the list of modules is not whole.
    missed_name: Cell<bool>,
    built_in: fallback::BuiltInUsed,
    notes: Notes,
}

impl<'a> Target<'a> {
    /// The target whose stopped memory is `memory`; `kernel` is what is known of its boot.
    #[must_use]
    pub const fn new(memory: &'a dyn Memory, kernel: &'a Kernel) -> Self {
        Self {
            memory: Patience::new(memory, Width::of(kernel.version().machine)),
            kernel,
            cpu: None,
            changes: None,
            progress: None,
            breathing: None,
            breaths: Cell::new(0),
            registers: OnceCell::new(),
            modules: OnceCell::new(),
            unloaded: OnceCell::new(),
            missed_name: Cell::new(false),
            built_in: fallback::BuiltInUsed::new(std::collections::BTreeSet::new()),
            notes: Notes::new(),
        }
    }

    /// The same target, whose registers are those of `cpu`.
    #[must_use]
    pub const fn with_cpu(mut self, cpu: &'a dyn StoppedCpu) -> Self {
        self.cpu = Some(cpu);
        self
    }

    /// The same target, whose long reads tell `progress` how far they have come.
    #[must_use]
    pub const fn with_progress(mut self, progress: &'a dyn Progress) -> Self {
        self.progress = Some(progress);
        self
    }

    /// The same target, which is let run in the middle of questions that can bear it.
    #[must_use]
    pub const fn with_breathing(mut self, breathing: &'a dyn Breathing) -> Self {
        self.breathing = Some(breathing);
        self
    }

    /// True if it is let run in the middle of questions that can bear it.
    #[must_use]
    pub const fn breathes(&self) -> bool {
        self.breathing.is_some()
    }

    /// Requests that still fit into the present stop: without number where it lasts until the question's end.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.breathing.map_or(u64::MAX, Breathing::room)
    }

    /// Sees to it that the next `requests` fit into the present stop, or into one of their own: true if the target was let
    /// run for that, so that what was read before is of another moment.
    ///
    /// # Errors
    /// Why it does not stand still as it did. Nothing can be read of it any more by this question.
    pub fn make_room(&self, requests: u64) -> Result<bool, ReadCause> {
        if requests <= self.room() {
            return Ok(false);
        }
        self.breathe().map(|()| true)
    }

    /// The same for whoever reads on in either case: what has become of a target that does not stand still is what every
    /// read fails with.
    pub fn breathe_if_full(&self, requests: u64) {
        let _ = self.make_room(requests);
    }

    /// Lets it run for a breath, and stops it again, if it is let run in the middle of questions.
    ///
    /// # Errors
    /// As [`make_room`](Self::make_room).
    pub fn breathe(&self) -> Result<(), ReadCause> {
        let Some(breathing) = self.breathing else { return Ok(()) };
        if let Some(cause) = self.over() {
            return Err(cause.clone());
        }
        self.breaths.set(self.breaths.get() + 1);
        breathing.breathe().inspect_err(|cause| self.memory.end(cause))
    }

    /// How often it was let run since the question began: what was read before another number is of another moment.
    #[must_use]
    pub const fn breaths(&self) -> u64 {
        self.breaths.get()
    }

    /// Tells how far a long read has come.
    pub fn advance(&self, what: &'static str, done: u64, total: u64) {
        if let Some(progress) = self.progress {
            progress.advance(what, done, total);
        }
    }

    /// Tells what a long read will cost, before it begins.
    pub fn announce(&self, text: &str) {
        if let Some(progress) = self.progress {
            progress.announce(text);
        }
    }

    /// True of a file: its machine stood so when the file was written, not now.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.cpu.is_some_and(StoppedCpu::is_kept)
    }

    /// What was written down with the stop beside its memory: by a crash dump's header.
    #[must_use]
    pub fn noted(&self) -> Noted {
        self.cpu.map_or_else(Noted::default, StoppedCpu::noted)
    }

    /// Says something beside the answer that is being made. Once reading is over it is not damage that makes it fail, and what
    /// is found missing from then on is not said to be: only that it was broken off, in how many stops, and what claims more.
    pub fn note(&self, note: Note) {
        let is_true =
            note.kind == NoteKind::Failed || matches!(note.code, NoteCode::BrokenOff | NoteCode::ShortStops);
        if self.over().is_none() || is_true {
            self.notes.add(note);
        }
    }

    /// What was said beside the answer so far.
    #[must_use]
    pub const fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Its memory.
    #[must_use]
    pub const fn memory(&self) -> &dyn Memory {
        &self.memory
    }

    /// What ended all reading of it: the link, the session, the user; nothing while it can be read. What was not read by
    /// then is not known, and must not be told as not there.
    #[must_use]
    pub fn over(&self) -> Option<&ReadCause> {
        self.memory.over()
    }

    /// What is wrong with the list of modules, if it was needed and is not whole: who is not in it may still be loaded.
    #[must_use]
    pub fn module_trouble(&self) -> Option<Trouble> {
        match self.modules.get()? {
            Ok(list) if list.end().is_complete() => None,
            Ok(list) => Some(Trouble::of(list.end())),
            Err(error) => Some(Trouble::of(error)),
        }
    }

    /// The loaded module that the user's `name` means.
    ///
    /// # Errors
    /// [`TargetError::NoModule`]; [`TargetError::ModulesBreakOff`] if it may be among those that could not be read;
    /// [`TargetError::Read`].
    pub fn module_called(&self, name: &str) -> Result<Module, TargetError> {
        let list = self.modules()?;
        list.called(name).cloned().ok_or_else(|| match self.module_trouble() {
            None => TargetError::NoModule(name.to_owned()),
            Some(trouble) => TargetError::ModulesBreakOff { name: name.to_owned(), trouble },
        })
    }

    /// Bytes of a pointer.
    #[must_use]
    pub const fn pointer_size(&self) -> usize {
        self.width().bytes()
    }

    /// The address that a number means: on a 32-bit target its lower half, which KD and WinDbg sign-extend.
    #[must_use]
    pub const fn address(&self, number: u64) -> VirtAddr {
        self.width().cut(VirtAddr(number))
    }

    /// An address as it prints, with as many digits as the target's have.
    #[must_use]
    pub const fn shown(&self, address: VirtAddr) -> Address {
        self.width().shown(address)
    }

    /// True if `address` lies in the kernel's part of the address space, as Windows divides it unless told otherwise.
    #[must_use]
    pub const fn is_kernel(&self, address: VirtAddr) -> bool {
        match self.width() {
            Width::Bits32 => address.0 >= 0x8000_0000,
            Width::Bits64 => address.is_kernel(),
        }
    }

    /// What processor it has, in a word: `x64`.
    #[must_use]
    pub fn machine_name(&self) -> &'static str {
        self.kernel.version().machine.name().unwrap_or("such")
    }

    const fn width(&self) -> Width {
        Width::of(self.kernel.version().machine)
    }

    /// Its kernel.
    #[must_use]
    pub const fn kernel(&self) -> &'a Kernel {
        self.kernel
    }

    /// The kernel's debugger data block.
    ///
    /// # Errors
    /// [`TargetError::Read`]; [`TargetError::Unexpected`] if there is no block, or it belongs to another kernel.
    pub fn debugger_data(&self) -> Result<DebuggerData, TargetError> {
        let version = self.kernel.version();
        let read = |at| DebuggerData::read(&self.memory, at, version.base, self.width(), || self.encoding());
        let of_list =
            DebuggerData::first_of(&self.memory, version.debugger_data_list, self.width()).and_then(read);
        let Err(error) = of_list else { return of_list };
        if error.is_of_link() {
            return Err(error);
        }
        // The links of an encoded block lead nowhere; a dump's header and the symbols know where it is.
        let noted = self.noted().debugger_data.map(|at| self.address(at.0));
        let of_symbol = || self.address_of("nt!KdDebuggerDataBlock").ok();
        noted.and_then(|at| read(at).ok()).or_else(|| of_symbol().and_then(|at| read(at).ok())).ok_or(error)
    }

    /// What the kernel encodes its debugger data block with, if it does and its symbols say so.
    fn encoding(&self) -> Option<Encoding> {
        let [never, always, flag] = ["nt!KiWaitNever", "nt!KiWaitAlways", "nt!KdpDataBlockEncoded"]
            .map(|name| self.address_of(name).ok());
        let word = |at: VirtAddr| {
            let mut value = [0; 8];
            self.memory.read_virtual(at, &mut value).ok()?;
            Some(u64::from_le_bytes(value))
        };
        Some(Encoding { never: word(never?)?, always: word(always?)?, flag: flag? })
    }

    /// The symbols of a loaded module, looked for at the first call.
    ///
    /// # Errors
    /// [`MissingSymbols`].
    pub fn symbols(&self, module: &Module) -> SymbolsOrWhyNot {
        self.kernel.symbols(&self.memory, module)
    }

    /// What the headers of a loaded module say, read from the target.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn image(&self, module: &Module) -> Result<ImageFacts, ImageError> {
        ImageFacts::read(&self.memory, module.base)
    }

    /// The path that a loaded module's image was loaded from, as the kernel has it; at most 260 characters of it.
    ///
    /// # Errors
    /// [`TargetError::Read`] and those of [`modules`](Self::modules).
    pub fn image_path(&self, module: &Module) -> Result<String, TargetError> {
        let list = self.modules()?;
        let Some((at, len)) = list.path_of(module) else { return Ok(String::new()) };
        let mut bytes = vec![0; len];
        let read = self.memory.read_virtual(at, &mut bytes);
        read.map_err(|error| TargetError::read("FullDllName", error))?;
        Ok(utf16::utf16(&bytes))
    }

    /// When the image of a loaded module was linked, in seconds since 1970 or whatever its linker put there.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn timestamp(&self, module: &Module) -> Result<u32, ImageError> {
        image::Headers::read(&self.memory, module.base).map(|headers| headers.timestamp)
    }

    /// The module that `name` means and its symbols. The kernel, `nt`, is found without the list of modules.
    ///
    /// # Errors
    /// [`TargetError::NoModule`], [`TargetError::NoSymbols`], [`TargetError::Read`].
    pub fn module_symbols(&self, name: &str) -> Result<ModuleSymbols, TargetError> {
        let (module, symbols) = self.module_and_symbols(name)?;
        match symbols {
            Ok(symbols) => Ok((module, symbols)),
            Err(source) => Err(TargetError::NoSymbols { module: module.name, source }),
        }
    }

    fn module_and_symbols(&self, name: &str) -> Result<(Module, SymbolsOrWhyNot), TargetError> {
        if name.eq_ignore_ascii_case("nt") {
            return Ok(self.kernel.nt(&self.memory));
        }
        let module = self.module_called(name)?;
        let symbols = self.symbols(&module);
        Ok((module, symbols))
    }

    /// Where `nt!VfPoolTraces` is.
    ///
    /// # Errors
    /// [`TargetError::NoSymbol`] and those of [`module_symbols`](Self::module_symbols).
    pub fn address_of(&self, symbol: &str) -> Result<VirtAddr, TargetError> {
        let (module_name, name) = split(symbol);
        let (module, symbols) = self.module_and_symbols(module_name)?;
        let symbols = match symbols {
            Ok(symbols) => symbols,
            Err(source) => {
                let exported = self.exported(&module, name, &source);
                return exported.ok_or(TargetError::NoSymbols { module: module.name, source });
            }
        };
        let rva = symbols.address_of(name).ok_or_else(|| TargetError::NoSymbol {
            module: module.name,
            name: name.to_owned(),
            pdb: record::describe(&*symbols),
        })?;
        Ok(module.base.offset(rva.0.into()))
    }

    /// What `nt!_VF_POOL_TRACE` looks like in this build; where the kernel's symbols do not say, one of the
    /// [built-in](built_in_layouts) layouts, which [`built_in_note`](Self::built_in_note) then tells.
    ///
    /// # Errors
    /// [`TargetError::NoType`] and those of [`module_symbols`](Self::module_symbols).
    pub fn layout(&self, ty: &str) -> Result<Layout, TargetError> {
        self.layout_of_symbols(ty).or_else(|error| match (&error, split(ty)) {
            (TargetError::NoType { .. } | TargetError::NoSymbols { .. }, ("nt", name)) => {
                self.built_in(name).ok_or(error)
            }
            _ => Err(error),
        })
    }

    fn layout_of_symbols(&self, ty: &str) -> Result<Layout, TargetError> {
        let (module_name, name) = split(ty);
        let (module, symbols) = self.module_symbols(module_name)?;
        let id = symbols.find_type(name).ok_or_else(|| TargetError::NoType {
            module: module.name,
            name: name.to_owned(),
            pdb: record::describe(&*symbols),
        })?;
        let layout = symbols.layout(id)?;
        Ok(Layout::new(symbols, layout))
    }

    /// The structure at `at`, in one read.
    ///
    /// # Errors
    /// [`TargetError::Read`] if not even its first byte can be read; if only its end cannot, the fields there are
    /// what fails. Those of [`layout`](Self::layout).
    pub fn record(&self, ty: &str, at: VirtAddr) -> Result<Record<'static>, TargetError> {
        self.record_of(&self.layout(ty)?, at)
    }

    /// The same for a layout that is known already.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub fn record_of(&self, layout: &Layout, at: VirtAddr) -> Result<Record<'static>, TargetError> {
        let (bytes, missing) = self.read_some(at, layout.size());
        match missing {
            Some(error) if error.got == 0 => Err(TargetError::read(&**layout.name(), error)),
            missing => {
                Ok(Record::new(layout.clone(), at, Cow::Owned(bytes), missing.map(|error| error.cause)))
            }
        }
    }

    /// The structure at `at` and `extra` bytes after it, in one read: a name often follows its structure.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub fn record_and_tail(
        &self,
        layout: &Layout,
        at: VirtAddr,
        extra: usize,
    ) -> Result<Record<'static>, TargetError> {
        let (bytes, missing) = self.read_some(at, layout.size().saturating_add(extra));
        match missing {
            Some(error) if error.got == 0 => Err(TargetError::read(&**layout.name(), error)),
            missing => {
                Ok(Record::new(layout.clone(), at, Cow::Owned(bytes), missing.map(|error| error.cause)))
            }
        }
    }

    /// `count` structures in a row from `at`, in one read; the last ones may be missing.
    #[must_use]
    pub fn records(&self, layout: &Layout, at: VirtAddr, count: usize) -> Records {
        let (bytes, missing) = self.read_some(at, layout.size().saturating_mul(count));
        Records {
            layout: layout.clone(),
            address: at,
            count,
            bytes,
            missing: missing.map(|error| error.cause),
        }
    }

    /// Every `(address, length)`, neighbours in one read; answers in the order of the questions.
    #[must_use]
    pub fn read_ranges(&self, ranges: &[(VirtAddr, usize)]) -> Vec<Result<Vec<u8>, ReadError>> {
        scatter::read_ranges(&self.memory, ranges)
    }

    /// What of `len` bytes at `at` can be read from the start, and why the rest cannot.
    ///
    /// `len` comes from symbols or from a bound of the caller's, never straight from the target.
    #[must_use]
    pub fn read_some(&self, at: VirtAddr, len: usize) -> (Vec<u8>, Option<ReadError>) {
        let mut bytes = vec![0; len];
        match self.memory.read_virtual(at, &mut bytes) {
            Ok(()) => (bytes, None),
            Err(error) => {
                bytes.truncate(error.got);
                (bytes, Some(error))
            }
        }
    }

    /// The file's name in a `_UNICODE_STRING` field.
    ///
    /// # Errors
    /// [`TargetError::Read`] and those of [`Record::uint`].
    pub fn file_name(&self, record: &Record<'_>, path: &str) -> Result<FileName, TargetError> {
        let length = record.uint(&format!("{path}.Length"))? as usize;
        let bytes = self.unicode_bytes(record, path, FileName::bytes_to_read(length))?;
        Ok(FileName::new(&bytes, length))
    }

    /// The `len` bytes from `at`, in one read if none is missing; unreadable pages are passed over.
    ///
    /// `len` is the caller's, who has bounded it.
    #[must_use]
    pub fn read_sparse(&self, at: VirtAddr, len: usize) -> SparseBytes {
        SparseBytes::read(self.memory(), at, len)
    }

    /// What the buffer of a `_UNICODE_STRING` field has, `len` bytes of it.
    fn unicode_bytes(&self, record: &Record<'_>, path: &str, len: usize) -> Result<Vec<u8>, TargetError> {
        let buffer = record.pointer(&format!("{path}.Buffer"))?;
        let from = usize::try_from(buffer.since(record.address())).ok();
        if let Some(near) = from.and_then(|from| record.bytes().get(from..)?.get(..len)) {
            return Ok(near.to_vec());
        }
        let mut bytes = vec![0; len];
        let what = || format!("{}.{path}", record.layout().name());
        self.memory.read_virtual(buffer, &mut bytes).map_err(|error| TargetError::read(what(), error))?;
        Ok(bytes)
    }

    /// The symbol that `address`, which lies in `module`, is at; reads no list of modules.
    #[must_use]
    pub fn symbol_in(&self, address: VirtAddr, module: &Module) -> SymbolAt {
        self.name_in(address, module, self.symbols(module))
    }

    fn name_in(&self, address: VirtAddr, module: &Module, symbols: SymbolsOrWhyNot) -> SymbolAt {
        let (names, missing) = match symbols {
            Ok(symbols) => (Some(symbols), None),
            Err(missing) => (self.exports_or(module, missing.clone()).ok(), Some(missing)),
        };
        SymbolAt::new(address, module, names.as_deref(), missing, self.pointer_size())
    }

    /// The module and symbol that `address` lies at. Never fails: what is not known is left out.
    #[must_use]
    pub fn symbol_at(&self, address: VirtAddr) -> SymbolAt {
        match self.module_at(address) {
            Some(module) => self.symbol_in(address, &module),
            None => self.unloaded_symbol(address),
        }
    }
}

impl Target<'_> {
    /// What is wrong with the list of modules, if an address got no name for it.
    #[must_use]
    pub fn missed_names(&self) -> Option<Trouble> {
        self.module_trouble().filter(|_| self.missed_name.get())
    }

    /// What an address outside of all loaded modules is called: what was loaded there before, if that is known.
    fn unloaded_symbol(&self, address: VirtAddr) -> SymbolAt {
        if self.is_kernel(address) && self.module_trouble().is_some() {
            self.missed_name.set(true);
        }
        let driver = self.unloaded_at(address).ok().flatten();
        let displacement = driver.as_ref().map_or(0, |driver| address.since(driver.base));
        // A name that cannot be read leaves what is known: that a driver was there.
        let name = |driver| self.unloaded_name(&driver).unwrap_or_else(|_| "unknown".to_owned());
        SymbolAt {
            address,
            module: None,
            symbol: None,
            displacement,
            missing: None,
            unloaded: driver.map(name),
            pointer_size: self.pointer_size(),
        }
    }
}

impl fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("kernel", self.kernel).finish_non_exhaustive()
    }
}

/// `nt!Name` into module and name; a name alone is the kernel's.
fn split(symbol: &str) -> (&str, &str) {
    symbol.split_once('!').unwrap_or(("nt", symbol))
}
