//! The export table of an image in the target: symbols where there is no file of them.
//!
//! ```text
//!  base -> PE headers --data directory 0--> | export directory | addresses | name pointers | ordinals | names, forwarders |
//! ```
//! Linkers write all of it in one run, whose length the data directory has: it is read at once, and the pages of it that
//! are not in memory are passed over. What lies elsewhere is not followed.
//!
//! Source: Microsoft, "PE Format". Names of exports that have none are those of WinDbg's `dbghelp`.

use std::sync::Arc;

use object::read::pe::ExportTable;

use super::Target;
use super::error::{MissingSymbols, TargetError};
use super::image::{Headers, IMAGE_DIRECTORY_ENTRY_EXPORT, ImageError};
use super::kernel::{ModuleSymbols, SymbolsOrWhyNot};
use super::modules::Module;
use super::patience::is_over;
use super::sparse::SparseBytes;
use crate::memory::{Address, ReadError, VirtAddr};
use crate::symbols::{ExportSymbols, Symbols};

/// Most bytes of an export table that are read; the kernel's has some hundred thousand.
const MAX_TABLE: u32 = 0x10_0000;
/// Longest name; compilers' decorated ones stay below.
const MAX_NAME: usize = 0x1000;
/// Most exports that are looked at; ordinals have sixteen bits.
const MAX_NAMES: usize = 0x1_0000;
/// Most modules that an export is followed through.
const MAX_FORWARDS: u32 = 4;

impl Target<'_> {
    /// What the image of a loaded module exports, read from the target at the first call; nothing if it exports nothing.
    ///
    /// A table that cannot be read is none; one whose reading was broken off is read again next time.
    #[must_use]
    pub fn exports(&self, module: &Module) -> Option<Arc<ExportSymbols>> {
        if let Some(known) = self.kernel.known_exports(module) {
            return known;
        }
        let read = self.read_exports(module);
        let is_over = matches!(&read, Err(ImageError::Read(error)) if is_over(&error.cause));
        let exports = read.ok().flatten().map(Arc::new);
        if !is_over {
            self.kernel.remember_exports(module, exports.clone());
        }
        exports
    }

    /// Names and addresses of a loaded module: its symbols, or failing those its exports.
    ///
    /// # Errors
    /// [`MissingSymbols`] if it has neither: why there is no symbol file.
    pub fn names(&self, module: &Module) -> SymbolsOrWhyNot {
        self.symbols(module).or_else(|missing| self.exports_or(module, missing))
    }

    pub(super) fn exports_or(&self, module: &Module, missing: MissingSymbols) -> SymbolsOrWhyNot {
        let exports = if missing.is_interrupted() { None } else { self.exports(module) };
        exports.map(|exports| exports as _).ok_or(missing)
    }

    /// The module that `name` means and its names: those of its symbols, or failing those its exports.
    ///
    /// # Errors
    /// As [`module_symbols`](Self::module_symbols), if the module exports nothing either.
    pub fn module_names(&self, name: &str) -> Result<ModuleSymbols, TargetError> {
        let (module, symbols) = self.module_and_symbols(name)?;
        match symbols.or_else(|missing| self.exports_or(&module, missing)) {
            Ok(symbols) => Ok((module, symbols)),
            Err(source) => Err(TargetError::NoSymbols { module: module.name, source }),
        }
    }

    /// Where the export called `name` of a module without symbols is; one that another module has is looked for there.
    pub(super) fn exported(&self, module: &Module, name: &str, missing: &MissingSymbols) -> Option<VirtAddr> {
        self.exported_within(module, name, missing, MAX_FORWARDS)
    }

    fn exported_within(
        &self,
        module: &Module,
        name: &str,
        missing: &MissingSymbols,
        forwards: u32,
    ) -> Option<VirtAddr> {
        if missing.is_interrupted() {
            return None;
        }
        let exports = self.exports(module)?;
        if let Some(rva) = exports.address_of(name) {
            return Some(module.base.offset(rva.0.into()));
        }
        let (other, name) = exports.forwarder(name)?;
        let other = if other.eq_ignore_ascii_case("ntoskrnl") { "nt" } else { other };
        let (module, symbols) = self.module_and_symbols(other).ok()?;
        match symbols {
            Ok(symbols) => Some(module.base.offset(symbols.address_of(&name)?.0.into())),
            Err(missing) => self.exported_within(&module, &name, &missing, forwards.checked_sub(1)?),
        }
    }

    /// What the image of a module exports, read from the target: its headers, and the table in one read.
    ///
    /// Nothing if the image exports nothing. Exports whose part of the table is not in memory are counted, not named.
    ///
    /// # Errors
    /// [`ImageError`] if not even the table's head can be read, whatever the bytes there are.
    pub fn read_exports(&self, module: &Module) -> Result<Option<ExportSymbols>, ImageError> {
        let headers = Headers::read(self.memory(), module.base)?;
        let directory = headers.directory(self.memory(), module.base, IMAGE_DIRECTORY_ENTRY_EXPORT)?;
        let Some((rva, size)) = directory else { return Ok(None) };
        let size = size.min(headers.size - rva).min(MAX_TABLE);
        let bytes = self.read_sparse(module.base.offset(rva.into()), size as usize);
        if let Some(cause) = bytes.over() {
            let address = Address::of_target(module.base.offset(rva.into()), self.pointer_size());
            let (wanted, got) = (size as usize, bytes.readable_len());
            return Err(ReadError { address, wanted, got, cause: cause.clone() }.into());
        }
        let sections = headers.sections(self.memory(), module.base);
        let exports = ExportSymbols::new(&module.image_name, headers.pointer_size, sections);
        let exports = collect(exports, &bytes, rva, headers.size)?;
        Ok(Some(exports).filter(|exports| !exports.is_empty()))
    }
}

/// The exports of the table `bytes`, which lies at `table_rva` of an image of `image_size` bytes.
fn collect(
    mut exports: ExportSymbols,
    bytes: &SparseBytes,
    table_rva: u32,
    image_size: u32,
) -> Result<ExportSymbols, ImageError> {
    let damaged = |_| ImageError::Wrong("its export table cannot be");
    let with_holes = bytes.with_zeros();
    let table = ExportTable::parse(with_holes, table_rva).map_err(damaged)?;
    let at = |rva: u32| rva.wrapping_sub(table_rva) as usize;
    let is_read =
        |rva: u32, len: usize| at(rva).checked_add(len).is_some_and(|end| bytes.get(at(rva)..end).is_some());
    // A text that begins at an RVA of the table, if it and its end were read. Never looks further than a name is long:
    // a hostile table may have all its names begin at the same long run of bytes.
    let text = |rva: u32| {
        let rest = with_holes.get(at(rva)..)?;
        let len = memchr::memchr(0, &rest[..rest.len().min(MAX_NAME)])?;
        let name = std::str::from_utf8(&rest[..len]).ok().filter(|_| is_read(rva, len + 1))?;
        (!name.is_empty() && !name.contains(char::is_control)).then_some(name)
    };
    let directory = table.directory();
    let le = object::LittleEndian;
    let (functions, ordinals) =
        (directory.address_of_functions.get(le), directory.address_of_name_ordinals.get(le));
    let names = directory.address_of_names.get(le);
    let element = |array: u32, index: usize, size: usize| array.wrapping_add((index * size) as u32);

    let entry = |index: usize| {
        let rva = table.addresses().get(index).filter(|_| is_read(element(functions, index, 4), 4))?.get(le);
        match rva {
            0 => Some(Entry::Empty),
            _ if table.is_forward(rva) => text(rva).map(Entry::Elsewhere),
            _ => (rva < image_size).then_some(Entry::Here(rva)),
        }
    };
    // No genuine table has more text than bytes.
    let mut room = bytes.len();
    let mut add = |name: &str, entry: Entry<'_>| {
        let forwarder = if let Entry::Elsewhere(to) = entry { to.len() } else { 0 };
        let Some(left) = room.checked_sub(name.len() + forwarder) else { return false };
        room = left;
        match entry {
            Entry::Empty => {}
            Entry::Here(rva) => exports.add(name, rva),
            Entry::Elsewhere(to) => exports.add_forwarder(name, to),
        }
        true
    };
    let mut unread = 0;
    let mut has_name = vec![false; table.addresses().len()];
    for (number, (name, index)) in table.name_iter().enumerate().take(MAX_NAMES) {
        let is_known = is_read(element(names, number, 4), 4) && is_read(element(ordinals, number, 2), 2);
        if let Some(has_name) = has_name.get_mut(usize::from(index.0)).filter(|_| is_known) {
            *has_name = true;
        }
        let found = text(name).filter(|_| is_known).zip(entry(index.0.into()));
        if !found.is_some_and(|(name, entry)| add(name, entry)) {
            unread += 1;
        }
    }
    // Where a name could not be read, an export without one may be the one that it belongs to.
    let nameless = (0..has_name.len()).filter(|index| !has_name[*index] && unread == 0);
    for (index, entry) in nameless.filter_map(|index| Some((index, entry(index)?))) {
        add(&format!("Ordinal{}", usize::from(table.ordinal_base()) + index), entry);
    }
    exports.set_unread(unread);
    Ok(exports)
}

/// What stands in the table of addresses.
enum Entry<'a> {
    /// Nothing: a gap between two ordinals.
    Empty,
    /// An address in the image.
    Here(u32),
    /// The export of another module.
    Elsewhere(&'a str),
}
