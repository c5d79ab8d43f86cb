//! A simulated kernel while it is being furnished: its memory, its structures by name, its images.
//!
//! Every structure is written through the layout file's names and offsets. A name that the layout files lack is a mistake
//! in this project, found by any test that boots a machine; so it panics and says which. What the memory holds is another
//! matter: once the machine is furnished, a debugger may have written anything to it, so nothing read from it is trusted.

use std::ops::Range;
use std::sync::Arc;

use kd_protocol::VirtAddr;

use super::growth;
use super::growth::Growth;
use super::images::{Build, Image};
use super::layout::{ImageLayout, Release, Step, Type, Types};
use super::ledger::Ledger;
use super::pool_account::PoolAccount;
use super::time::BOOT_TIME;
use crate::paging::{Access, VirtualMemory};
use crate::physical::{PAGE_SIZE, PageSource};

/// What a build's layout files say, parsed once.
#[derive(Debug)]
pub(super) struct Layouts {
    pub(super) types: Types,
    pub(super) release: Release,
    pub(super) images: Vec<(&'static Image, ImageLayout)>,
    /// Drivers of which there are headers alone.
    pub(super) further: Vec<ImageLayout>,
}

impl Layouts {
    /// `drivers` are images that are loaded beside the build's own.
    pub(super) fn of(build: &Build, drivers: &'static [Image]) -> Self {
        let layout =
            |image: &'static Image| (image, image.layout().expect("a test parses the committed files"));
        Self {
            types: build.types().expect("a test parses the committed files"),
            release: build.release().expect("a test parses the committed files"),
            images: build.images.iter().chain(drivers).map(layout).collect(),
            further: Vec::new(),
        }
    }

    /// The same with further drivers.
    pub(super) fn grown(self, growth: Growth) -> Self {
        Self { further: growth::layouts(growth), ..self }
    }

    /// The same with the kernel and the HAL this much higher.
    pub(super) fn moved(mut self, bytes: u64) -> Self {
        for (_, layout) in
            self.images.iter_mut().filter(|(_, layout)| ["nt", "hal"].contains(&&*layout.module))
        {
            layout.base += bytes;
        }
        self
    }
}

/// A place in a routine: module, routine, displacement.
pub(super) type Site = (&'static str, &'static str, u32);

/// Memory of a machine, and the names of what lies in it.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    pub(super) layouts: Arc<Layouts>,
    pub(super) memory: VirtualMemory,
    pub(super) growth: Growth,
    /// False while the machine starts, when memory that is not mapped is a mistake of ours. Later it may be a debugger's
    /// doing: then it reads as zeros and takes no writes.
    pub(super) furnished: bool,
    pub(super) ledger: Ledger,
    pub(super) pool: PoolAccount,
    /// When it booted, in units of 100 ns since 1601.
    pub(super) boot_time: u64,
}

impl Kernel {
    /// Nothing but empty page tables in `ram` bytes of RAM.
    pub(super) fn new(layouts: Arc<Layouts>, ram: u64, growth: Growth) -> Self {
        // Real memory managers leave the first mebibyte to firmware and real-mode code.
        const FIRST_PAGE: u64 = 0x187;
        Self {
            layouts,
            memory: VirtualMemory::new(ram, FIRST_PAGE),
            growth,
            furnished: false,
            ledger: Ledger::default(),
            pool: PoolAccount::default(),
            boot_time: BOOT_TIME,
        }
    }

    /// The layout of a module's image.
    pub(super) fn image(&self, module: &str) -> &ImageLayout {
        let images = self.layouts.images.iter().map(|(_, layout)| layout).chain(&self.layouts.further);
        let image = images.into_iter().find(|layout| layout.module == module);
        image.unwrap_or_else(|| panic!("no layout file for module {module}"))
    }

    /// Address of a symbol of the kernel.
    pub(super) fn symbol(&self, name: &str) -> VirtAddr {
        self.address_in("nt", name, 0)
    }

    /// Address of the symbol if the kernel's layout file lists it.
    pub(super) fn find_symbol(&self, name: &str) -> Option<VirtAddr> {
        let image = self.image("nt");
        image.symbol(name).map(|at| VirtAddr(image.base).offset(at.into()))
    }

    /// Writes the kernel's variables that this build has: name, value, bytes.
    pub(super) fn write_variables(&mut self, variables: &[(&str, u64, usize)]) {
        for (name, value, size) in variables {
            if let Some(at) = self.find_symbol(name) {
                self.write(at, &value.to_le_bytes()[..*size]);
            }
        }
    }

    /// An address in a routine: `module!name+displacement`.
    pub(super) fn address_in(&self, module: &str, name: &str, displacement: u32) -> VirtAddr {
        let image = self.image(module);
        let at = image.symbol(name).unwrap_or_else(|| panic!("no symbol {module}!{name} in its layout file"));
        VirtAddr(image.base).offset((at + displacement).into())
    }

    /// The addresses of a call stack. Routines that a build does not have are not on its stacks.
    pub(super) fn stack(&self, sites: &[Site]) -> Vec<VirtAddr> {
        sites
            .iter()
            .filter(|(module, name, _)| self.image(module).symbol(name).is_some())
            .map(|(module, name, displacement)| self.address_in(module, name, *displacement))
            .collect()
    }

    /// What of its routine's prolog a processor has done at `address`; nothing for a leaf.
    ///
    /// Panics if no image has a routine there: every place where a processor stands is one of ours.
    pub(super) fn prolog_at(&self, address: VirtAddr) -> &'static [Step] {
        let images = self.layouts.images.iter().map(|(_, layout)| layout);
        let routine = images.into_iter().find_map(|image| {
            let rva = u32::try_from(address.0.checked_sub(image.base)?).ok()?;
            let routine = image.routines().into_iter().find(|it| (it.begin..it.end).contains(&rva))?;
            Some(routine.done_at(rva))
        });
        routine.unwrap_or_else(|| panic!("no routine at {address:?}"))
    }

    /// Where the routine begins that `address` lies in, if one does.
    pub(super) fn entry_of(&self, address: VirtAddr) -> Option<VirtAddr> {
        self.layouts.images.iter().find_map(|(_, image)| {
            let rva = u32::try_from(address.0.checked_sub(image.base)?).ok()?;
            let routine = image.routines().into_iter().find(|it| (it.begin..it.end).contains(&rva))?;
            Some(VirtAddr(image.base).offset(routine.begin.into()))
        })
    }

    /// The instruction of a prolog that begins at `address`, if one does.
    pub(super) fn step_at(&self, address: VirtAddr) -> Option<Step> {
        let entry = self.entry_of(address)?;
        let whole = self.prolog_of(entry);
        let mut at = entry;
        whole.iter().copied().filter(|step| !step.code().is_empty()).find(|step| {
            let begins = at;
            at = at.offset(step.code().len() as u64);
            begins == address
        })
    }

    fn prolog_of(&self, entry: VirtAddr) -> &'static [Step] {
        let prolog = self.layouts.images.iter().find_map(|(_, image)| {
            let rva = u32::try_from(entry.0.checked_sub(image.base)?).ok()?;
            image.routines().into_iter().find(|it| it.begin == rva).map(|it| it.prolog)
        });
        prolog.unwrap_or_default()
    }

    /// Bytes of a structure.
    pub(super) fn size_of(&self, aggregate: &str) -> u64 {
        let found = self.layouts.types.aggregate(aggregate);
        found.unwrap_or_else(|| panic!("no {aggregate} in types.toml")).size.into()
    }

    /// Where in a structure a field is, through structures inside it: `Prcb.CurrentThread`.
    pub(super) fn offset_of(&self, aggregate: &str, path: &str) -> u64 {
        self.locate(aggregate, path).0
    }

    /// True if this build's structure has the field.
    pub(super) fn has(&self, aggregate: &str, path: &str) -> bool {
        self.layouts.types.locate(aggregate, path).is_some()
    }

    /// The first of these structures that this build has.
    pub(super) fn first_of(&self, aggregates: &[&'static str]) -> &'static str {
        let found = aggregates.iter().find(|aggregate| self.layouts.types.aggregate(aggregate).is_some());
        found.unwrap_or_else(|| panic!("none of {aggregates:?} in types.toml"))
    }

    /// Maps the pages of `range`; those that are new hold zeros.
    ///
    /// Panics if RAM is used up: what a machine starts with always fits.
    pub(super) fn map(&mut self, range: Range<VirtAddr>, access: Access) {
        self.memory.map(range, access).expect("RAM holds what a machine starts with");
    }

    /// Maps memory that holds what `source` says until someone writes to it, from a multiple of 2 MiB on.
    ///
    /// Panics as [`map`](Self::map) does.
    pub(super) fn map_large(&mut self, start: VirtAddr, size: u64, source: Arc<dyn PageSource>) {
        self.memory.map_large(start, size, source).expect("RAM holds what a machine starts with");
    }

    /// Writes bytes into mapped memory.
    pub(super) fn write(&mut self, at: VirtAddr, bytes: &[u8]) {
        let written = self.memory.write(at, bytes);
        assert!(
            written == bytes.len() || self.furnished,
            "{at:?} is not mapped for {:#x} bytes",
            bytes.len()
        );
    }

    /// Writes a quadword, a pointer for example.
    pub(super) fn write_u64(&mut self, at: VirtAddr, value: u64) {
        self.write(at, &value.to_le_bytes());
    }

    /// Writes an unsigned long.
    pub(super) fn write_u32(&mut self, at: VirtAddr, value: u32) {
        self.write(at, &value.to_le_bytes());
    }

    /// Reads a quadword.
    pub(super) fn read_u64(&self, at: VirtAddr) -> u64 {
        self.read_uint(at, 8)
    }

    /// Reads an unsigned long.
    pub(super) fn read_u32(&self, at: VirtAddr) -> u32 {
        self.read_uint(at, 4) as u32
    }

    /// Sets a number, pointer or bit field of the structure at `at`.
    pub(super) fn set(&mut self, at: VirtAddr, aggregate: &str, path: &str, value: u64) {
        let (offset, size, bits) = self.place(aggregate, path);
        let at = at.offset(offset);
        let value = match bits {
            None => value,
            Some((mask, shift)) => self.read_uint(at, size) & !(mask << shift) | (value & mask) << shift,
        };
        let bytes = value.to_le_bytes();
        assert!(bytes[size..].iter().all(|byte| *byte == 0), "{value:#x} does not fit {aggregate}.{path}");
        self.write(at, &bytes[..size]);
    }

    /// Sets several fields of the structure at `at`.
    pub(super) fn set_all(&mut self, at: VirtAddr, aggregate: &str, fields: &[(&str, u64)]) {
        for (path, value) in fields {
            self.set(at, aggregate, path, *value);
        }
    }

    /// Sets those of several fields that this build's structure has.
    pub(super) fn set_existing(&mut self, at: VirtAddr, aggregate: &str, fields: &[(&str, u64)]) {
        for (path, value) in fields {
            if self.has(aggregate, path) {
                self.set(at, aggregate, path, *value);
            }
        }
    }

    /// The value of a number, pointer or bit field of the structure at `at`.
    pub(super) fn get(&self, at: VirtAddr, aggregate: &str, path: &str) -> u64 {
        let (offset, size, bits) = self.place(aggregate, path);
        let value = self.read_uint(at.offset(offset), size);
        bits.map_or(value, |(mask, shift)| value >> shift & mask)
    }

    /// Adds to a counter, which wraps at its size.
    pub(super) fn add(&mut self, at: VirtAddr, aggregate: &str, path: &str, value: i64) {
        let (_, size, _) = self.place(aggregate, path);
        let sum = self.get(at, aggregate, path).wrapping_add_signed(value);
        self.set(at, aggregate, path, sum & u64::MAX >> (64 - size * 8));
    }

    /// Makes an empty list of the LIST_ENTRY at `head`.
    pub(super) fn list_init(&mut self, head: VirtAddr) {
        self.set_all(head, "_LIST_ENTRY", &[("Flink", head.0), ("Blink", head.0)]);
    }

    /// Inserts the LIST_ENTRY `entry` at the end of the list at `head`.
    pub(super) fn list_append(&mut self, head: VirtAddr, entry: VirtAddr) {
        let last = VirtAddr(self.get(head, "_LIST_ENTRY", "Blink"));
        self.set_all(entry, "_LIST_ENTRY", &[("Flink", head.0), ("Blink", last.0)]);
        self.set(last, "_LIST_ENTRY", "Flink", entry.0);
        self.set(head, "_LIST_ENTRY", "Blink", entry.0);
    }

    /// Writes `text` at `buffer`, with a zero behind it, and a UNICODE_STRING for it at `at`.
    pub(super) fn unicode_string(&mut self, at: VirtAddr, buffer: VirtAddr, text: &str) {
        let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        self.write(buffer, &bytes);
        self.write(buffer.offset(bytes.len() as u64), &[0; 2]);
        let length = bytes.len() as u64;
        let fields = [("Length", length), ("MaximumLength", length + 2), ("Buffer", buffer.0)];
        self.set_all(at, "_UNICODE_STRING", &fields);
    }

    /// Maps a block of nonpaged pool at `at`, with the header that the pool has in front of it.
    pub(super) fn pool_block(&mut self, at: VirtAddr, size: u64, tag: &[u8; 4]) {
        let header_size = self.size_of("_POOL_HEADER");
        let header = VirtAddr(at.0 - header_size);
        self.map(header..at.offset(size), Access::Write);
        let units = (size + header_size).div_ceil(header_size);
        let fields = [("BlockSize", units), ("PoolType", 2), ("PoolTag", u32::from_le_bytes(*tag).into())];
        self.set_all(header, "_POOL_HEADER", &fields);
    }

    fn read_uint(&self, at: VirtAddr, size: usize) -> u64 {
        let mut bytes = [0; 8];
        let read = self.memory.read(at, &mut bytes[..size]);
        assert!(read == size || self.furnished, "{at:?} is not mapped for {size:#x} bytes");
        u64::from_le_bytes(bytes)
    }

    /// Offset and bytes of a field; of a bit field also its mask and its lowest bit.
    fn place(&self, aggregate: &str, path: &str) -> (u64, usize, Option<(u64, u8)>) {
        let (offset, ty) = self.locate(aggregate, path);
        let size = self.layouts.types.size_of(ty).map(|size| size as usize).filter(|size| *size <= 8);
        let size = size.unwrap_or_else(|| panic!("{aggregate}.{path} is not a number"));
        let bits = match ty {
            Type::Bits { width, bit, .. } => Some((u64::MAX >> (64 - width), *bit)),
            _ => None,
        };
        (offset, size, bits)
    }

    fn locate(&self, aggregate: &str, path: &str) -> (u64, &Type) {
        let found = self.layouts.types.locate(aggregate, path);
        let (offset, ty) = found.unwrap_or_else(|| panic!("no {aggregate}.{path} in types.toml"));
        (offset.into(), ty)
    }
}

/// The pages from `at` on that hold `size` bytes.
pub(super) fn span(at: VirtAddr, size: u64) -> Range<VirtAddr> {
    debug_assert!(at.0.is_multiple_of(PAGE_SIZE));
    at..at.offset(size)
}

/// Panics if a site lies behind the next symbol of some build, and so in another routine, or if no build has its routine.
#[cfg(test)]
pub(super) fn assert_sites_lie_in_their_routines<'a>(sites: impl IntoIterator<Item = &'a Site>) {
    use super::images::{BUILDS, FILTER_DRIVERS};
    let builds: Vec<_> = BUILDS.iter().map(|build| Layouts::of(build, FILTER_DRIVERS)).collect();
    for (module, name, displacement) in sites {
        let mut found = false;
        for layouts in &builds {
            let (_, image) =
                layouts.images.iter().find(|(_, image)| image.module == *module).expect("a module");
            let Some(at) = image.symbol(name) else { continue };
            found = true;
            let nearer = image.symbols().values().any(|other| (at + 1..=at + displacement).contains(other));
            assert!(!nearer, "{module}!{name}+{displacement:#x} lies in another routine");
        }
        assert!(found, "{module}!{name} is in no layout file");
    }
}
