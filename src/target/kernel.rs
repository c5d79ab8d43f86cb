//! One booted kernel: where it is and which symbols were found, kept from stop to stop.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::error::MissingSymbols;
use super::image::{Image, ImageError};
use super::known::Loaded;
use super::modules::Module;
use super::width::Width;
use crate::memory::{Memory, ReadCause, StopId, VirtAddr};
use crate::source::KernelVersion;
use crate::symbols::store::{SymbolPath, SymbolSource};
use crate::symbols::{ExportSymbols, Symbols};

/// One booted kernel. Ends with its boot: a rebooted target needs another.
#[derive(Debug)]
pub struct Kernel {
    version: KernelVersion,
    source: Arc<SymbolSource>,
    symbols: Mutex<HashMap<VirtAddr, Found>>,
    /// What images without a symbol file export, by base and size.
    exports: Mutex<HashMap<(VirtAddr, u32), Exports>>,
    loaded: Mutex<Loaded>,
    display: Mutex<Option<DisplayPosition>>,
    /// The processor whose registers are asked for, if it is not the one that stopped.
    processor: Mutex<Option<u16>>,
    contexts: Mutex<Contexts>,
    /// Why its memory is read instead of searched.
    no_search: OnceLock<ReadCause>,
    /// What queries keep from one stop to the next, one thing of each type.
    kept: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

/// Registers of processors that were asked for in one stop; by number, or of the one that stopped.
#[derive(Debug, Default)]
struct Contexts {
    stop: Option<StopId>,
    known: HashMap<Option<u16>, Vec<u8>>,
}

/// Where the last command that displays memory ended: the next one without an address goes on there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DisplayPosition {
    /// The command.
    pub command: &'static str,
    /// First byte after what it displayed.
    pub next: VirtAddr,
    /// The last value that it displayed: `$p`.
    pub value: Option<u64>,
}

/// A module's symbols, or why it has none.
pub type SymbolsOrWhyNot = Result<Arc<dyn Symbols>, MissingSymbols>;

/// A loaded module and its symbols.
pub type ModuleSymbols = (Module, Arc<dyn Symbols>);

/// What an image exports; nothing if it exports nothing.
type Exports = Option<Arc<ExportSymbols>>;

#[derive(Clone, Debug)]
struct Found {
    /// Bytes of the image they belong to; another image may be loaded at the same base later.
    image_size: u32,
    symbols: SymbolsOrWhyNot,
    /// The source's generation when they were looked for: after it, what was missing is looked for again.
    generation: u64,
}

impl Found {
    fn is_current(&self, generation: u64) -> bool {
        self.symbols.is_ok() || self.generation == generation
    }
}

impl Kernel {
    /// A kernel of which only `GetVersion` is known; symbols are looked for in `source`, which may be a
    /// [`SymbolPath`], when they are needed.
    #[must_use]
    pub fn new(version: KernelVersion, source: impl Into<Arc<SymbolSource>>) -> Self {
        let cut = |address| Width::of(version.machine).cut(address);
        let version = KernelVersion {
            base: cut(version.base),
            module_list: cut(version.module_list),
            debugger_data_list: cut(version.debugger_data_list),
            ..version
        };
        Self {
            version,
            source: source.into(),
            symbols: Mutex::default(),
            exports: Mutex::default(),
            loaded: Mutex::default(),
            display: Mutex::default(),
            processor: Mutex::default(),
            contexts: Mutex::default(),
            no_search: OnceLock::new(),
            kept: Mutex::default(),
        }
    }

    /// What the target said of it; addresses as wide as the target's.
    #[must_use]
    pub const fn version(&self) -> &KernelVersion {
        &self.version
    }

    /// Where symbols are looked for.
    #[must_use]
    pub fn symbol_source(&self) -> &SymbolSource {
        &self.source
    }

    /// Where the last display of memory ended.
    #[must_use]
    pub fn display_position(&self) -> Option<DisplayPosition> {
        *lock(&self.display)
    }

    /// Remembers where a display of memory ended.
    pub fn set_display_position(&self, position: DisplayPosition) {
        *lock(&self.display) = Some(position);
    }

    /// The processor whose registers are asked for; nothing for the one that stopped.
    #[must_use]
    pub fn chosen_processor(&self) -> Option<u16> {
        *lock(&self.processor)
    }

    /// Chooses the processor whose registers are asked for until the target runs: `~1s`.
    pub fn choose_processor(&self, number: Option<u16>) {
        *lock(&self.processor) = number;
    }

    /// What a query kept of this type, in this stop or an earlier one of the same boot.
    #[must_use]
    pub fn kept<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        lock(&self.kept).get(&TypeId::of::<T>()).cloned()?.downcast().ok()
    }

    /// Keeps something for later queries of this boot, in place of what was kept of its type.
    pub fn keep<T: Any + Send + Sync>(&self, thing: T) -> Arc<T> {
        let thing = Arc::new(thing);
        lock(&self.kept).insert(TypeId::of::<T>(), Arc::<T>::clone(&thing));
        thing
    }

    /// The `CONTEXT` of a processor, asked for once in a stop.
    pub(super) fn context(
        &self,
        stop: StopId,
        processor: Option<u16>,
        ask: impl FnOnce() -> Result<Vec<u8>, ReadCause>,
    ) -> Result<Vec<u8>, ReadCause> {
        let known = |contexts: &Contexts| contexts.known.get(&processor).cloned();
        let kept = Some(lock(&self.contexts)).filter(|it| it.stop == Some(stop)).and_then(|it| known(&it));
        if let Some(context) = kept {
            return Ok(context);
        }
        let context = ask()?;
        let mut contexts = lock(&self.contexts);
        if contexts.stop != Some(stop) {
            *contexts = Contexts { stop: Some(stop), known: HashMap::new() };
        }
        contexts.known.insert(processor, context.clone());
        Ok(context)
    }

    /// Asks again for every processor's `CONTEXT`: one was changed.
    pub(super) fn forget_contexts(&self) {
        *lock(&self.contexts) = Contexts::default();
    }

    /// Why this kernel's memory is read instead of searched; nothing as long as it was not found to refuse a search.
    pub(super) fn refuses_search(&self) -> Option<ReadCause> {
        self.no_search.get().cloned()
    }

    /// Remembers that this kernel does not search, if that is what `cause` means: it is asked once only.
    ///
    /// Who is silent may only have been lost on the way, and another status may be about the range.
    pub fn remember_refusal(&self, cause: &ReadCause) {
        /// `STATUS_UNSUCCESSFUL`, what KD answers to what it does not know; `NOT_IMPLEMENTED`, `NOT_SUPPORTED`.
        const NO_SUCH_API: [u32; 3] = [0xc000_0001, 0xc000_0002, 0xc000_00bb];
        let is_missing = match cause {
            ReadCause::Status(status) => NO_SUCH_API.contains(status),
            cause => matches!(cause, ReadCause::Unsupported(_)),
        };
        if is_missing {
            self.no_search.get_or_init(|| cause.clone());
        }
    }

    /// Looks for symbols elsewhere from here on; those that were missing are looked for again.
    pub fn set_symbol_path(&self, path: SymbolPath) {
        self.source.set_path(path);
    }

    /// Forgets all symbols and modules, so that they are read again when needed: `.reload`.
    pub fn reload(&self) {
        lock(&self.symbols).clear();
        lock(&self.exports).clear();
        *lock(&self.loaded) = Loaded::default();
        self.source.look_again(false);
    }

    /// Forgets the symbols of one module: `.reload /u`. False if none were loaded.
    pub fn unload(&self, module: &Module) -> bool {
        let had_exports = lock(&self.exports).remove(&(module.base, module.size)).flatten().is_some();
        let had_file = lock(&self.symbols).remove(&module.base).is_some_and(|found| found.symbols.is_ok());
        had_file || had_exports
    }

    /// Uses `symbols` for the image of `size` bytes at `base`, whatever the symbol path has.
    pub fn use_symbols(&self, base: VirtAddr, size: u32, symbols: Arc<dyn Symbols>) {
        lock(&self.symbols).insert(base, Found { image_size: size, symbols: Ok(symbols), generation: 0 });
    }

    /// The symbols of `module`, if they were looked for; reads nothing.
    #[must_use]
    pub fn known_symbols(&self, module: &Module) -> Option<SymbolsOrWhyNot> {
        let generation = self.source.generation();
        let symbols = lock(&self.symbols);
        symbols
            .get(&module.base)
            .filter(|found| found.image_size == module.size && found.is_current(generation))
            .map(|found| found.symbols.clone())
    }

    /// What the image of `module` exports, if that was read: nothing inside if it exports nothing.
    #[must_use]
    pub fn known_exports(&self, module: &Module) -> Option<Option<Arc<ExportSymbols>>> {
        lock(&self.exports).get(&(module.base, module.size)).cloned()
    }

    /// Remembers what the image of `module` exports.
    pub(super) fn remember_exports(&self, module: &Module, exports: Exports) {
        lock(&self.exports).insert((module.base, module.size), exports);
    }

    /// The symbols of `module`, looked for if they were not yet: image headers, then the symbol path.
    pub(super) fn symbols(&self, memory: &dyn Memory, module: &Module) -> SymbolsOrWhyNot {
        if let Some(known) = self.known_symbols(module) {
            return known;
        }
        let image = Image::read(memory, module.base);
        self.remember(module.base, module.size, image)
    }

    /// The kernel's own image, found without the list of modules.
    pub(super) fn nt(&self, memory: &dyn Memory) -> (Module, SymbolsOrWhyNot) {
        let base = self.version.base;
        let nt = |size| Module { name: "nt".into(), image_name: "ntoskrnl.exe".to_owned(), base, size };
        let generation = self.source.generation();
        let known = lock(&self.symbols).get(&base).filter(|found| found.is_current(generation)).cloned();
        if let Some(found) = known {
            return (nt(found.image_size), found.symbols);
        }
        let image = Image::read(memory, base);
        let size = image.as_ref().map_or(0, |image| image.size);
        (nt(size), self.remember(base, size, image))
    }

    fn remember(&self, base: VirtAddr, image_size: u32, image: Result<Image, ImageError>) -> SymbolsOrWhyNot {
        let generation = self.source.generation();
        let symbols = match image {
            Ok(image) => self.source.load(&image.pdb).map_err(|error| MissingSymbols::File(Arc::new(error))),
            Err(error) => Err(MissingSymbols::Image(error)),
        };
        // A search that was interrupted says nothing of the symbols, so they are looked for again next time.
        if !symbols.as_ref().is_err_and(MissingSymbols::is_interrupted) {
            lock(&self.symbols).insert(base, Found { image_size, symbols: symbols.clone(), generation });
        }
        symbols
    }

    /// What is known of the loaded modules, perhaps of an earlier stop.
    pub(super) fn loaded(&self) -> MutexGuard<'_, Loaded> {
        lock(&self.loaded)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
