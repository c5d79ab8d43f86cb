//! Loaded modules: `PsLoadedModuleList`, one read per module where the name follows its entry.
//!
//! ```text
//!  PsLoadedModuleList -> _KLDR_DATA_TABLE_ENTRY -> ... -> back to the head
//!                     x64  0x30 DllBase   0x40 SizeOfImage   0x58 BaseDllName
//!                     x86  0x18           0x20               0x2c
//! ```
//! The kernel allocates an entry and its name together, so a read of a little more than the entry has both.
//!
//! Source: verifier.md 6; these offsets are the same in every x64 kernel, so that the list works without any PDB. Those of x86
//! are what the same fields come to with pointers of 4 bytes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::error::TargetError;
use super::file_name::FileName;
use super::record::Layout;
use super::walk::{self, WalkEnd};
use crate::memory::{Memory, ReadError, VirtAddr};

/// Most modules that are listed; a large server has some three hundred.
pub(super) const MAX_MODULES: usize = 0x1000;
/// Bytes read at an entry: the fields used, and a name after the longest known structure (0xa0).
const ENTRY_READ: usize = 0x120;
/// Most bytes of an image's path: `MAX_PATH` characters.
const MAX_PATH: usize = 260 * 2;

/// One loaded image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Name as WinDbg has it: `nt` for the kernel, else the file name without extension.
    pub name: Arc<str>,
    /// File name: `myfault.sys`.
    pub image_name: String,
    /// Where it is loaded.
    pub base: VirtAddr,
    /// Bytes of the image; the kernel's word, so it may be wrong.
    pub size: u32,
}

impl Module {
    /// True if `address` lies in the image.
    #[must_use]
    pub fn contains(&self, address: VirtAddr) -> bool {
        address.since(self.base) < u64::from(self.size)
    }

    /// First address past the image.
    #[must_use]
    pub fn end(&self) -> VirtAddr {
        self.base.offset(self.size.into())
    }

    /// True if the user's `name` means this module: `nt`, `myfault` or `myfault.sys`, in any case.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name) || self.image_name.eq_ignore_ascii_case(name)
    }
}

/// The modules that were loaded when the list was read.
#[derive(Clone, Debug)]
pub struct ModuleList {
    /// In order of address.
    modules: Vec<Module>,
    end: WalkEnd,
    /// Where the path of each image is, and how many bytes of it are read; by base.
    paths: HashMap<VirtAddr, (VirtAddr, usize)>,
    /// The entry at the kernel's list's end, and its image.
    last: Option<(VirtAddr, VirtAddr)>,
}

impl ModuleList {
    /// The modules in order of address.
    #[must_use]
    pub fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// How the walk along the kernel's list ended.
    #[must_use]
    pub const fn end(&self) -> &WalkEnd {
        &self.end
    }

    /// The module that `address` lies in.
    #[must_use]
    pub fn containing(&self, address: VirtAddr) -> Option<&Module> {
        let above = self.modules.partition_point(|module| module.base <= address);
        self.modules[..above].last().filter(|module| module.contains(address))
    }

    /// The entry at the end of the kernel's list, and its image; nothing if the list is empty.
    pub(super) const fn last(&self) -> Option<(VirtAddr, VirtAddr)> {
        self.last
    }

    /// Where the path of a module's image is, and bytes of it; nothing if the kernel has none.
    pub(super) fn path_of(&self, module: &Module) -> Option<(VirtAddr, usize)> {
        self.paths.get(&module.base).copied()
    }

    /// The module that the user's `name` means.
    #[must_use]
    pub fn called(&self, name: &str) -> Option<&Module> {
        self.modules.iter().find(|module| module.is_called(name))
    }

    /// Walks the list whose head is at `head`, and leads to `first` if that was read already; `prepare` is called before each
    /// entry is read.
    pub(super) fn read(
        memory: &dyn Memory,
        head: VirtAddr,
        kernel_base: VirtAddr,
        first: Option<VirtAddr>,
        offsets: &Offsets,
        prepare: &dyn Fn(),
    ) -> Result<Self, TargetError> {
        let read_first = || {
            let mut first = [0; 8];
            let read = memory.read_virtual(head, &mut first[..offsets.pointer]);
            read.map_err(|error| TargetError::read("head of PsLoadedModuleList", error))?;
            Ok::<_, TargetError>(VirtAddr(u64::from_le_bytes(first)))
        };
        let first = first.map_or_else(read_first, Ok)?;
        let mut modules = Vec::new();
        let mut names = HashSet::new();
        let mut paths = HashMap::new();
        let mut last = None;
        let end = walk::list(offsets.pointer, head, first, MAX_MODULES, |at| {
            prepare();
            let entry = Entry::read(memory, at, offsets)?;
            last = Some((at, entry.base));
            if !entry.base.is_null() {
                let name = entry.file_name(memory, offsets);
                let base = entry.base;
                paths.extend(entry.path(offsets).map(|path| (base, path)));
                let mut short = short_name(base, &name, kernel_base);
                if !names.insert(Arc::clone(&short)) {
                    short = format!("{short}_{base:x}").into();
                    names.insert(Arc::clone(&short));
                }
                modules.push(Module { name: short, image_name: name, base, size: entry.size });
            }
            Ok::<_, ReadError>(entry.next)
        });
        modules.sort_by_key(|module| module.base);
        Ok(Self { modules, end, paths, last })
    }
}

/// What commands call the image at `base`.
fn short_name(base: VirtAddr, file: &str, kernel_base: VirtAddr) -> Arc<str> {
    if base == kernel_base { "nt".into() } else { module_name(file).into() }
}

/// Where an entry's fields are.
pub(super) struct Offsets {
    pointer: usize,
    base: usize,
    size: usize,
    name: usize,
    /// `FullDllName`, which every known entry has right before the other.
    path: usize,
}

impl Offsets {
    const X64: Self = Self { pointer: 8, base: 0x30, size: 0x40, name: 0x58, path: 0x48 };
    const X86: Self = Self { pointer: 4, base: 0x18, size: 0x20, name: 0x2c, path: 0x24 };

    /// Those of `layout`, the build's `_KLDR_DATA_TABLE_ENTRY`, if symbols have one; else those of every known build.
    pub(super) fn find(layout: Option<&Layout>, pointer_size: usize) -> Self {
        let known = if pointer_size == 4 { Self::X86 } else { Self::X64 };
        layout.and_then(Self::of).unwrap_or(known)
    }

    fn of(layout: &Layout) -> Option<Self> {
        let offset =
            |path| layout.offset(path).ok().map(|offset| offset as usize).filter(|at| *at < ENTRY_READ);
        Some(Self {
            pointer: layout.pointer_size().min(8),
            base: offset("DllBase")?,
            size: offset("SizeOfImage")?,
            name: offset("BaseDllName")?,
            path: offset("FullDllName")?,
        })
    }
}

/// An entry's bytes and what they say.
#[derive(Debug)]
pub(super) struct Entry {
    at: VirtAddr,
    bytes: Vec<u8>,
    pub(super) next: VirtAddr,
    pub(super) previous: VirtAddr,
    pub(super) base: VirtAddr,
    pub(super) size: u32,
}

impl Entry {
    pub(super) fn read(memory: &dyn Memory, at: VirtAddr, offsets: &Offsets) -> Result<Self, ReadError> {
        let needed = (offsets.name.max(offsets.path) + 2 * offsets.pointer)
            .max(offsets.size + 4)
            .max(offsets.base + offsets.pointer);
        let mut bytes = vec![0; ENTRY_READ.max(needed)];
        if let Err(error) = memory.read_virtual(at, &mut bytes) {
            if error.got < needed {
                return Err(error);
            }
            bytes.truncate(error.got);
        }
        let nowhere = VirtAddr(0);
        let mut entry = Self { at, bytes, next: nowhere, previous: nowhere, base: nowhere, size: 0 };
        entry.next = VirtAddr(entry.uint(0, offsets.pointer));
        entry.previous = VirtAddr(entry.uint(offsets.pointer, offsets.pointer));
        entry.base = VirtAddr(entry.uint(offsets.base, offsets.pointer));
        entry.size = entry.uint(offsets.size, 4) as u32;
        Ok(entry)
    }

    /// Its module, under its own name.
    pub(super) fn module(&self, memory: &dyn Memory, offsets: &Offsets, kernel_base: VirtAddr) -> Module {
        let image_name = self.file_name(memory, offsets);
        Module {
            name: short_name(self.base, &image_name, kernel_base),
            image_name,
            base: self.base,
            size: self.size,
        }
    }

    /// The name of its file, or what stands for it.
    fn file_name(&self, memory: &dyn Memory, offsets: &Offsets) -> String {
        let name = self.name(memory, offsets).ok().filter(|name| !name.is_empty());
        name.unwrap_or_else(|| format!("unknown_{:x}", self.base))
    }

    /// Where its path is and how much of it is read; nothing if it has none.
    fn path(&self, offsets: &Offsets) -> Option<(VirtAddr, usize)> {
        let len = self.uint(offsets.path, 2) as usize & !1;
        let buffer = VirtAddr(self.uint(offsets.path + offsets.pointer, offsets.pointer));
        (len > 0 && !buffer.is_null()).then_some((buffer, len.min(MAX_PATH)))
    }

    fn name(&self, memory: &dyn Memory, offsets: &Offsets) -> Result<String, ReadError> {
        let length = self.uint(offsets.name, 2) as usize;
        let len = FileName::bytes_to_read(length);
        let buffer = VirtAddr(self.uint(offsets.name + offsets.pointer, offsets.pointer));
        let near =
            usize::try_from(buffer.since(self.at)).ok().and_then(|from| self.bytes.get(from..)?.get(..len));
        if let Some(bytes) = near {
            return Ok(FileName::new(bytes, length).text);
        }
        let mut bytes = vec![0; len];
        memory.read_virtual(buffer, &mut bytes)?;
        Ok(FileName::new(&bytes, length).text)
    }

    /// A number of up to 8 bytes, which `read` has made sure is there.
    fn uint(&self, offset: usize, size: usize) -> u64 {
        let mut word = [0; 8];
        word[..size].copy_from_slice(&self.bytes[offset..][..size]);
        u64::from_le_bytes(word)
    }
}

/// A module's name as commands write it: without extension, and nothing but letters, digits and `_`.
#[must_use]
pub fn module_name(file: &str) -> String {
    let file = file.rsplit(['\\', '/']).next().unwrap_or_default();
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    stem.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_called_by_its_file_without_extension() {
        assert_eq!(module_name("myfault.sys"), "myfault");
        assert_eq!(module_name("dump_diskdump.sys.bak"), "dump_diskdump_sys");
        assert_eq!(module_name(r"\SystemRoot\a\My-Driver.SYS"), "My_Driver");
        assert_eq!(module_name("\u{1b}[2J"), "__2J", "nothing from the target reaches the terminal as it is");
    }
}
