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

use super::walk::{self, WalkEnd};
use super::{FileName, Layout, TargetError};
use crate::memory::{Memory, ReadError, VirtAddr};

/// Most modules that are listed; a large server has some three hundred.
const MAX_MODULES: usize = 0x1000;
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

    /// Where the path of a module's image is, and bytes of it; nothing if the kernel has none.
    pub(super) fn path_of(&self, module: &Module) -> Option<(VirtAddr, usize)> {
        self.paths.get(&module.base).copied()
    }

    /// The module that the user's `name` means.
    #[must_use]
    pub fn called(&self, name: &str) -> Option<&Module> {
        self.modules.iter().find(|module| module.is_called(name))
    }

    /// Walks the list whose head is at `head`. `layout` is the build's `_KLDR_DATA_TABLE_ENTRY`, if symbols have one;
    /// `pointer_size` is the target's.
    pub(super) fn read(
        memory: &dyn Memory,
        head: VirtAddr,
        kernel_base: VirtAddr,
        layout: Option<&Layout>,
        pointer_size: usize,
    ) -> Result<Self, TargetError> {
        let known = if pointer_size == 4 { Offsets::X86 } else { Offsets::X64 };
        let offsets = layout.and_then(Offsets::of).unwrap_or(known);
        let mut first = [0; 8];
        let first = match memory.read_virtual(head, &mut first[..offsets.pointer]) {
            Ok(()) => VirtAddr(u64::from_le_bytes(first)),
            Err(error) => return Err(TargetError::read("head of PsLoadedModuleList", error)),
        };
        let mut modules = Vec::new();
        let mut names = HashSet::new();
        let mut paths = HashMap::new();
        let end = walk::list(head, first, MAX_MODULES, |at| {
            let entry = Entry::read(memory, at, &offsets)?;
            if !entry.base.is_null() {
                let name = entry.name(memory, &offsets).ok().filter(|name| !name.is_empty());
                let name = name.unwrap_or_else(|| format!("unknown_{:x}", entry.base));
                let base = entry.base;
                paths.extend(entry.path(&offsets).map(|path| (base, path)));
                let mut short: Arc<str> =
                    if base == kernel_base { "nt".into() } else { module_name(&name).into() };
                if !names.insert(Arc::clone(&short)) {
                    short = format!("{short}_{base:x}").into();
                    names.insert(Arc::clone(&short));
                }
                modules.push(Module { name: short, image_name: name, base, size: entry.size });
            }
            Ok::<_, ReadError>(entry.next)
        });
        modules.sort_by_key(|module| module.base);
        Ok(Self { modules, end, paths })
    }
}

/// Where an entry's fields are.
struct Offsets {
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
struct Entry {
    at: VirtAddr,
    bytes: Vec<u8>,
    next: VirtAddr,
    base: VirtAddr,
    size: u32,
}

impl Entry {
    fn read(memory: &dyn Memory, at: VirtAddr, offsets: &Offsets) -> Result<Self, ReadError> {
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
        let mut entry = Self { at, bytes, next: VirtAddr(0), base: VirtAddr(0), size: 0 };
        entry.next = VirtAddr(entry.uint(0, offsets.pointer));
        entry.base = VirtAddr(entry.uint(offsets.base, offsets.pointer));
        entry.size = entry.uint(offsets.size, 4) as u32;
        Ok(entry)
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

/// The text of a `_UNICODE_STRING`'s bytes.
pub(super) fn utf16(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
    char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
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
