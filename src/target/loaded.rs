//! What is known of the loaded modules: which one an address lies in, without the whole list; and kept from stop to stop.
//!
//! ```text
//!  PsLoadedModuleList <-> nt <-> hal <-> ndis <-> ... <-> storfilt <-> myfault <-> PsLoadedModuleList
//!                      1 --> 3 --> 5 -->                     <-- 4 <-- 2
//! ```
//! An entry costs a request, and a machine has two hundred. Those whose code is looked into are mostly near an end of the
//! list: what the boot loader brought, and what was loaded last. So the list is walked from both ends, as far as it takes
//! to place an address. That an address lies in no module only the whole list shows.
//!
//! What was read holds in another stop too if since then nothing was loaded, which would have come to the list's end, and
//! nothing was unloaded, which the kernel counts (`MmLastUnloadedDriver`) and remembers. A driver is remembered before it
//! is taken out of the list: where the last one that is remembered lies over one that is known to be loaded, and that one is
//! not at the list's end, it may have been on its way out, and everything is read anew. That costs four requests at the most.
//!
//! Names of two modules whose files are called alike are told apart by [`ModuleList`] only.

use std::sync::Arc;

use super::Target;
use super::error::TargetError;
use super::known::{Ends, Loaded, Looked, Mark};
use super::modules::{Entry, Offsets};
use super::modules::{Module, ModuleList};
use super::unloaded_module::UnloadedModule;
use crate::memory::{Memory, VirtAddr};
use crate::symbols::Symbols;

/// How often the list is read of a target that breathes, if it changes meanwhile.
const READINGS: usize = 3;

impl Target<'_> {
    /// The module that `address` lies in, if that is known or can be read.
    #[must_use]
    pub fn module_at(&self, address: VirtAddr) -> Option<Module> {
        let (nt, _) = self.kernel.nt(&self.memory);
        if nt.contains(address) {
            return Some(nt);
        }
        if !self.is_kernel(address) {
            return None;
        }
        let found = if self.modules.get().is_none() { self.find_from_ends(address) } else { None };
        found.or_else(|| self.modules().ok()?.containing(address).cloned())
    }

    /// The first module that fits, found from the ends of the list; nothing if none does, as far as the list can be read.
    #[must_use]
    pub fn find_module(&self, fits: impl Fn(&Module) -> bool) -> Option<Module> {
        let from_ends = || {
            let (offsets, version) = (self.entry_offsets(), self.kernel.version());
            self.look_from_ends(|ends, room| {
                let module = |entry: &Entry| entry.module(&self.memory, &offsets, version.base);
                if let Some(known) = ends.seen.iter().map(module).find(&fits) {
                    return Looked::Found(known);
                }
                for _ in 0..room {
                    match ends.step(&self.memory, &offsets).map(module) {
                        Some(found) if fits(&found) => return Looked::Found(found),
                        Some(_) => {}
                        None => return Looked::Absent,
                    }
                }
                Looked::Unfinished
            })
        };
        let found = if self.modules.get().is_none() { from_ends() } else { None };
        found.or_else(|| self.modules().ok()?.modules().iter().find(|module| fits(module)).cloned())
    }

    /// The loaded modules, read at most once per stop.
    ///
    /// # Errors
    /// [`TargetError::Read`] if not even the list's head can be read. A list that breaks off is no error: see
    /// [`ModuleList::end`].
    pub fn modules(&self) -> Result<Arc<ModuleList>, TargetError> {
        self.modules.get_or_init(|| self.read_modules()).clone()
    }

    /// Where the head of the list of loaded modules is: `nt!PsLoadedModuleList`. A source that does not know it leaves it to
    /// the kernel's symbols, which may be found later than the kernel.
    ///
    /// # Errors
    /// Those of [`address_of`](Self::address_of).
    pub fn module_list(&self) -> Result<VirtAddr, TargetError> {
        let known = self.kernel.version().module_list;
        if known.is_null() { self.address_of("nt!PsLoadedModuleList") } else { Ok(known) }
    }

    fn read_modules(&self) -> Result<Arc<ModuleList>, TargetError> {
        let (version, head) = (self.kernel.version(), self.module_list()?);
        let mut readings = 0;
        loop {
            let (known, mark) = self.with_loaded(|loaded| (loaded.whole.clone(), loaded.mark));
            if let Some(whole) = known {
                return Ok(whole);
            }
            let (first, offsets) = (mark.map(|mark| mark.first), self.entry_offsets());
            let breaths = self.breaths();
            let breathe = || self.breathe_if_full(1);
            let list = ModuleList::read(&self.memory, head, version.base, first, &offsets, &breathe)?;
            readings += 1;
            let has_changed = breaths != self.breaths() && self.with_loaded(|loaded| loaded.mark) != mark;
            if has_changed && readings < READINGS {
                continue;
            }
            let list = Arc::new(list);
            // A list that broke off is worth another try in the next command.
            if list.end().is_complete() && !has_changed {
                self.with_loaded(|loaded| loaded.whole = Some(Arc::clone(&list)));
            }
            return Ok(list);
        }
    }

    /// The drivers that were unloaded, the last first; read at most once per stop. None if the kernel does not say.
    ///
    /// # Errors
    /// [`TargetError::Read`].
    pub fn unloaded_modules(&self) -> Result<Arc<[UnloadedModule]>, TargetError> {
        let known = self.with_loaded(|loaded| loaded.unloaded.clone());
        if let Some(list) = known {
            return Ok(list);
        }
        let list = self.unloaded.get_or_init(|| self.read_unloaded()).clone()?;
        self.with_loaded(|loaded| loaded.unloaded = Some(Arc::clone(&list)));
        Ok(list)
    }

    fn find_from_ends(&self, address: VirtAddr) -> Option<Module> {
        let (offsets, version) = (self.entry_offsets(), self.kernel.version());
        self.look_from_ends(|ends, room| match ends.find(&self.memory, &offsets, address, room) {
            Looked::Found(entry) => Looked::Found(entry.module(&self.memory, &offsets, version.base)),
            Looked::Absent => Looked::Absent,
            Looked::Unfinished => Looked::Unfinished,
        })
    }

    /// Looks at the list from its ends for so many entries at a time as fit into a stop; at the next, what is known of it is
    /// held against the kernel's. Where that cannot be done, the list is looked at in one stop.
    fn look_from_ends<T>(&self, look: impl Fn(&mut Ends, u64) -> Looked<T>) -> Option<T> {
        let mut seen = 0;
        loop {
            let room = self.room().max(2);
            let looked = self.with_ends(|ends| {
                let room = if ends.seen.len() < seen { u64::MAX } else { room };
                let looked = look(ends, room);
                seen = ends.seen.len();
                Some(looked)
            });
            match looked? {
                Looked::Found(found) => return Some(found),
                Looked::Absent => return None,
                Looked::Unfinished => {
                    self.make_room(1).ok()?;
                }
            }
        }
    }

    /// Looks at the list from its ends; nothing if it is known whole, or not even its ends are.
    fn with_ends<T>(&self, look: impl FnOnce(&mut Ends) -> Option<T>) -> Option<T> {
        let head = self.module_list().ok()?;
        self.with_loaded(|loaded| {
            let mark = loaded.mark.filter(|_| loaded.whole.is_none())?;
            look(loaded.ends.get_or_insert_with(|| Ends::new(head, mark.first, mark.last)))
        })
    }

    fn entry_offsets(&self) -> Offsets {
        let layout = ["nt!_KLDR_DATA_TABLE_ENTRY", "nt!_LDR_DATA_TABLE_ENTRY"];
        let layout = layout.into_iter().find_map(|name| self.layout_of_symbols(name).ok());
        Offsets::find(layout.as_ref(), self.pointer_size())
    }

    /// Looks at what is known, of which nothing is left that does not hold in this stop. `look` must not come back here.
    pub(super) fn with_loaded<T>(&self, look: impl FnOnce(&mut Loaded) -> T) -> T {
        let symbols = self.module_symbols("nt").ok();
        let symbols = symbols.as_ref().map(|(_, symbols)| &**symbols);
        let head = self.module_list().ok();
        let mut loaded = self.kernel.loaded();
        let stop = Some(self.memory.stop());
        if loaded.stop != stop {
            let mark = head.and_then(|head| self.read_mark(head, symbols));
            let holds = mark.is_some() && mark == loaded.mark && self.still_holds(&loaded, symbols);
            if !holds {
                let mut images = std::mem::take(&mut loaded.images);
                images.retain(self.kernel.version().base);
                *loaded = Loaded { images, ..Loaded::default() };
            }
            (loaded.stop, loaded.mark) = (stop, mark);
        }
        look(&mut loaded)
    }

    /// Reads what changes with the list. In most kernels it lies in one reply.
    fn read_mark(&self, head: VirtAddr, symbols: Option<&dyn Symbols>) -> Option<Mark> {
        let pointer = self.pointer_size();
        let mut ranges = vec![(head, 2 * pointer)];
        ranges.extend(self.variable(symbols, "MmLastUnloadedDriver").map(|at| (at, 4)));
        let mut answers = self.read_ranges(&ranges).into_iter();
        let links = answers.next()?.ok()?;
        let last_unloaded = answers.next().and_then(Result::ok);
        let last_unloaded = last_unloaded.and_then(|bytes| Some(u32::from_le_bytes(bytes.try_into().ok()?)));
        let (first, last) = links.split_at(pointer);
        Some(Mark { first: word(first), last: word(last), last_unloaded })
    }

    /// True if what is known of another stop, in which the mark was the same, holds in this one.
    fn still_holds(&self, loaded: &Loaded, symbols: Option<&dyn Symbols>) -> bool {
        let Some((mark, count)) = loaded.mark.and_then(|mark| Some((mark, mark.last_unloaded?))) else {
            return false;
        };
        let Some((tail, base)) = loaded.tail().filter(|(at, _)| *at == mark.last) else { return false };
        let entry = Entry::read(&self.memory, tail, &self.entry_offsets());
        if !entry.is_ok_and(|entry| entry.base == base) {
            return false;
        }
        let Some(newest) = count.checked_sub(1) else { return true };
        let Some(pointer) = self.variable(symbols, "MmUnloadedDrivers") else { return false };
        let Ok(Some(newest)) = self.read_unloaded_entry(pointer, newest) else { return false };
        let is_over = |(known, size): (VirtAddr, u32)| {
            known != base && known < newest.end && newest.base < known.offset(size.into())
        };
        let is_listed = |list: &Arc<[UnloadedModule]>| list.iter().any(|driver| driver.is(&newest));
        loaded.unloaded.as_ref().is_none_or(is_listed) && !loaded.known().any(is_over)
    }

    /// Where a variable of the kernel is, if its symbols say.
    fn variable(&self, symbols: Option<&dyn Symbols>, name: &str) -> Option<VirtAddr> {
        Some(self.kernel.version().base.offset(symbols?.address_of(name)?.0.into()))
    }
}

/// The address in up to 8 bytes.
fn word(bytes: &[u8]) -> VirtAddr {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    VirtAddr(u64::from_le_bytes(word))
}

#[cfg(test)]
mod tests;
