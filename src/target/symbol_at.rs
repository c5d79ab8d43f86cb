//! What an address is called, and what lies around it.

use std::fmt;
use std::sync::Arc;

use super::error::MissingSymbols;
use super::modules::Module;
use super::note::{Note, NoteCode};
use super::record::Layout;
use crate::memory::VirtAddr;
use crate::output::{Escaped, Pointer};
use crate::symbols::{Rva, Symbols, undecorate};

/// What an address is called.
///
/// Prints as WinDbg does: `nt!VeAllocatePoolWithTagPriority+0x2b6`; without symbols `myfault+0x634`; where a driver was
/// unloaded `<Unloaded_myfault.sys>+0x634`; else the address alone.
#[derive(Clone, Debug)]
pub struct SymbolAt {
    /// The address.
    pub address: VirtAddr,
    /// The module it lies in.
    pub module: Option<Arc<str>>,
    /// The nearest symbol at or below it.
    pub symbol: Option<String>,
    /// Bytes from the symbol, or else from the module's base.
    pub displacement: u64,
    /// Why the module has no symbol file; the symbol is an export then.
    pub missing: Option<MissingSymbols>,
    /// The file name of the driver that was loaded there before, if no module is.
    pub unloaded: Option<String>,
    /// Bytes of a pointer in the target.
    pub pointer_size: usize,
}

impl SymbolAt {
    /// True if the address has a name: that of a loaded module, or of one that was unloaded.
    #[must_use]
    pub const fn is_named(&self) -> bool {
        self.module.is_some() || self.unloaded.is_some()
    }

    /// Its name, without how far the address lies from where that begins.
    #[must_use]
    pub const fn start(&self) -> SymbolStart<'_> {
        SymbolStart(self)
    }

    /// What is to be said of a name that no symbol file gave.
    #[must_use]
    pub fn missing_note(&self) -> Option<Note> {
        let (module, why) = self.module.as_ref().zip(self.missing.as_ref())?;
        let (code, has) = match self.symbol {
            Some(_) => (NoteCode::ExportSymbols, "only export symbols"),
            None => (NoteCode::NoSymbols, "no symbols"),
        };
        Some(Note::remark(code, format!("{module} has {has}: {why}")))
    }

    /// The code that it lies in begins at `begin`: an export below that names other code. Symbol files name every function,
    /// and are believed as WinDbg believes them.
    pub(super) fn begins_at(&mut self, begin: VirtAddr, base: VirtAddr) {
        let is_below = self.address.since(begin) < self.displacement;
        if is_below && self.missing.is_some() && self.symbol.take().is_some() {
            self.displacement = self.address.since(base);
        }
    }

    pub(super) fn new(
        address: VirtAddr,
        module: &Module,
        symbols: Option<&dyn Symbols>,
        missing: Option<MissingSymbols>,
        pointer_size: usize,
    ) -> Self {
        let offset = address.since(module.base);
        let rva = u32::try_from(offset).ok().map(Rva);
        let nearest = symbols.zip(rva).and_then(|(symbols, rva)| symbols.nearest(rva));
        let displacement = nearest.as_ref().map_or(offset, |symbol| offset - u64::from(symbol.rva.0));
        let symbol = nearest.map(|symbol| undecorate(&symbol.name).into_owned());
        Self {
            address,
            module: Some(Arc::clone(&module.name)),
            symbol,
            displacement,
            missing,
            unloaded: None,
            pointer_size,
        }
    }
}

impl fmt::Display for SymbolAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.start().fmt(f)?;
        match self.displacement {
            displacement @ 1.. if self.is_named() => write!(f, "+{displacement:#x}"),
            _ => Ok(()),
        }
    }
}

/// What an address is called, without how far it lies from there.
#[derive(Clone, Copy, Debug)]
pub struct SymbolStart<'a>(&'a SymbolAt);

impl fmt::Display for SymbolStart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SymbolAt { module, symbol, unloaded, address, pointer_size, .. } = self.0;
        match (module, symbol, unloaded) {
            (Some(module), Some(symbol), _) => write!(f, "{module}!{}", Escaped(symbol)),
            (Some(module), None, _) => f.write_str(module),
            (None, _, Some(unloaded)) => write!(f, "<Unloaded_{}>", Escaped(unloaded)),
            (None, _, None) => Pointer { address: *address, pointer_size: *pointer_size }.fmt(f),
        }
    }
}

/// A structure or union and the module whose symbols define it.
#[derive(Clone, Debug)]
pub struct NamedType {
    /// The module.
    pub module: Arc<str>,
    /// What it looks like.
    pub layout: Layout,
}

/// What lies around an address: the answer to `ln`.
#[derive(Clone, Debug)]
pub struct Neighbours {
    /// The nearest symbol at or below.
    pub at: SymbolAt,
    /// Where that symbol, or else its module, begins.
    pub start: VirtAddr,
    /// Every name of the address itself.
    pub exact: Vec<String>,
    /// The next symbol above, without its module.
    pub above: Option<(VirtAddr, String)>,
}
