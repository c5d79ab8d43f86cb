//! Names as a user types them and addresses as a user reads them: across all modules, decorated or not.

use std::sync::Arc;

use super::error::TargetError;
use super::kernel::ModuleSymbols;
use super::kernel::SymbolsOrWhyNot;
use super::modules::Module;
use super::record::Layout;
use super::symbol_at::{NamedType, Neighbours};
use super::{Target, record};
use crate::memory::VirtAddr;
use crate::symbols::undecorate;
use crate::symbols::{Rva, Symbols};

impl Target<'_> {
    /// Where `nt!VfPoolTraces`, a module, or a symbol of any module whose symbols are loaded is.
    ///
    /// # Errors
    /// [`TargetError::Unknown`] and those of [`address_of`](Self::address_of).
    pub fn resolve(&self, name: &str) -> Result<VirtAddr, TargetError> {
        if let Some((module_name, symbol)) = name.split_once('!') {
            return match self.address_of(name) {
                Err(error @ (TargetError::NoSymbol { .. } | TargetError::NoSymbols { .. })) => {
                    let Ok((module, symbols)) = self.module_names(module_name) else { return Err(error) };
                    undecorated(&*symbols, symbol).map(|rva| at(&module, rva)).ok_or(error)
                }
                found => found,
            };
        }
        if name.eq_ignore_ascii_case("nt") {
            return Ok(self.kernel().version().base);
        }
        let modules = self.modules()?;
        if let Some(module) = modules.called(name) {
            return Ok(module.base);
        }
        let loaded = self.loaded_symbols()?;
        let exact = |(module, symbols): &ModuleSymbols| Some(at(module, symbols.address_of(name)?));
        let other = |(module, symbols): &ModuleSymbols| Some(at(module, undecorated(&**symbols, name)?));
        loaded.iter().find_map(exact).or_else(|| loaded.iter().find_map(other)).ok_or_else(|| {
            if let Some(trouble) = self.module_trouble() {
                return TargetError::ModulesBreakOff { name: name.to_owned(), trouble };
            }
            let names = loaded.iter().map(|(module, _)| module.name.to_string()).collect();
            TargetError::Unknown { name: name.to_owned(), searched: names }
        })
    }

    /// The structure or union that the user's `name` means: `nt!_VF_POOL_TRACE`, or without a module one of the kernel's
    /// or, failing that, of any module whose symbols are loaded. Case counts only where both exist.
    ///
    /// # Errors
    /// [`TargetError::NoType`] and those of [`module_symbols`](Self::module_symbols).
    pub fn named_type(&self, name: &str) -> Result<NamedType, TargetError> {
        let (module_name, ty) = name.split_once('!').unwrap_or(("nt", name));
        let is_kernel = module_name.eq_ignore_ascii_case("nt");
        let built_in = || {
            let layout = if is_kernel { self.built_in(ty)? } else { return None };
            Some(NamedType { module: "nt".into(), layout })
        };
        let (module, symbols) = match self.module_symbols(module_name) {
            Ok(found) => found,
            Err(error) => return built_in().ok_or(error),
        };
        let missing = TargetError::NoType {
            module: Arc::clone(&module.name),
            name: ty.to_owned(),
            pdb: record::describe(&*symbols),
        };
        let mut modules = vec![(module, symbols)];
        if !name.contains('!') {
            modules.extend(self.loaded_symbols().unwrap_or_default());
        }
        for (module, symbols) in modules {
            let other_case =
                || symbols.find_type(&symbols.types().find(|known| known.eq_ignore_ascii_case(ty))?);
            if let Some(id) = symbols.find_type(ty).or_else(other_case) {
                let layout = symbols.layout(id)?;
                return Ok(NamedType { module: module.name, layout: Layout::new(symbols, layout) });
            }
        }
        built_in().ok_or(missing)
    }

    /// Every module whose symbols were found or whose exports were read, the kernel first.
    ///
    /// # Errors
    /// As [`modules`](Self::modules).
    pub fn loaded_symbols(&self) -> Result<Vec<ModuleSymbols>, TargetError> {
        let (nt, nt_symbols) = self.kernel().nt(self.memory());
        let nt_names = nt_symbols.or_else(|missing| self.exports_or(&nt, missing));
        let modules = self.modules()?;
        let mut loaded: Vec<_> = nt_names.ok().map(|symbols| (nt.clone(), symbols)).into_iter().collect();
        let others = modules.modules().iter().filter(|module| module.base != nt.base);
        loaded.extend(others.filter_map(|module| Some((module.clone(), self.known_names(module)?.ok()?))));
        Ok(loaded)
    }

    /// The names of `module`, if they were looked for; reads nothing.
    #[must_use]
    pub fn known_names(&self, module: &Module) -> Option<SymbolsOrWhyNot> {
        let symbols = self.kernel().known_symbols(module)?;
        let exports = || self.kernel().known_exports(module).flatten();
        Some(symbols.or_else(|missing| exports().map(|exports| exports as _).ok_or(missing)))
    }

    /// The symbols around `address`; nothing if it lies in no module, nor in one that was unloaded.
    #[must_use]
    pub fn neighbours(&self, address: VirtAddr) -> Option<Neighbours> {
        let symbol = self.symbol_at(address);
        let start = VirtAddr(address.0.wrapping_sub(symbol.displacement));
        if symbol.module.is_none() && symbol.is_named() {
            return Some(Neighbours { at: symbol, start, exact: Vec::new(), above: None });
        }
        let module = self.module_at(address)?;
        let Ok(symbols) = self.names(&module) else {
            return Some(Neighbours { at: symbol, start, exact: Vec::new(), above: None });
        };
        let rva = u32::try_from(address.since(module.base)).ok().map(Rva)?;
        let above = symbols.above(rva);
        let exact = if symbol.displacement == 0 && symbol.symbol.is_some() {
            symbols.at(rva).iter().map(|other| undecorate(&other.name).into_owned()).collect()
        } else {
            Vec::new()
        };
        let above = above.map(|above| (at(&module, above.rva), undecorate(&above.name).into_owned()));
        Some(Neighbours { at: symbol, start, exact, above })
    }
}

/// The symbol whose name reads `name` without decoration.
fn undecorated(symbols: &dyn Symbols, name: &str) -> Option<Rva> {
    let mut decorated = symbols.named(name).into_iter().filter(|symbol| symbol.name.starts_with('?'));
    decorated.find(|symbol| undecorate(&symbol.name) == name).map(|symbol| symbol.rva)
}

fn at(module: &Module, rva: Rva) -> VirtAddr {
    module.base.offset(rva.0.into())
}
