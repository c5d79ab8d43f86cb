//! A kernel written down by tests: its memory, laid out by the symbols it is read with.

#![allow(dead_code, unreachable_pub, reason = "each test program has its own copy and uses a part of it")]

pub mod blind;
pub mod everything;
pub mod heap;
pub mod image;
#[cfg(unix)]
pub mod kernels;
pub mod layouts;
pub mod machine;
pub mod pool;
pub mod reviewed;
pub mod text;
pub mod verifier;

use std::collections::BTreeMap;
use std::sync::Arc;

use blind::Blind;
use kd_protocol::MachineType;
use verikd::memory::{CountingMemory, ImageMemory, ReadCause, VirtAddr};
use verikd::symbols::store::SymbolPath;
use verikd::symbols::table::TableSymbols;
use verikd::symbols::{Symbols, Type};
use verikd::target::{Kernel, KernelVersion, Target};

pub const PAGE: u64 = 0x1000;

/// A kernel whose bytes are being written.
pub struct World {
    pages: BTreeMap<u64, Vec<u8>>,
    pub nt_base: VirtAddr,
    pub nt: Arc<dyn Symbols>,
    pub version: KernelVersion,
    modules: Vec<(VirtAddr, u32, Arc<dyn Symbols>)>,
}

impl World {
    pub fn new(nt_base: VirtAddr, nt_size: u32, nt: Arc<dyn Symbols>) -> Self {
        let (machine, base) = match nt.pointer_size() {
            // A 32-bit kernel's addresses come sign-extended from KD.
            4 => (MachineType::I386, VirtAddr(nt_base.0 | 0xffff_ffff_0000_0000)),
            _ => (MachineType::AMD64, nt_base),
        };
        let version =
            KernelVersion { major: 0xf, build: 7601, flags: 7, machine, base, ..KernelVersion::default() };
        let modules = vec![(nt_base, nt_size, Arc::clone(&nt))];
        Self { pages: BTreeMap::new(), nt_base, nt, version, modules }
    }

    /// Gives symbols to the image at `base`.
    pub fn symbols(&mut self, base: VirtAddr, size: u32, symbols: TableSymbols) {
        self.modules.push((base, size, Arc::new(symbols)));
    }

    /// Writes bytes, mapping their pages with zeros first.
    pub fn write(&mut self, at: VirtAddr, bytes: &[u8]) {
        for (index, byte) in bytes.iter().enumerate() {
            let at = at.0 + index as u64;
            let page = self.pages.entry(at & !(PAGE - 1)).or_insert_with(|| vec![0; PAGE as usize]);
            page[(at & (PAGE - 1)) as usize] = *byte;
        }
    }

    /// Maps pages of zeros.
    pub fn map(&mut self, at: VirtAddr, len: u64) {
        for page in (at.0 & !(PAGE - 1)..at.0 + len).step_by(PAGE as usize) {
            self.pages.entry(page).or_insert_with(|| vec![0; PAGE as usize]);
        }
    }

    /// Makes the page around `at` unreadable.
    pub fn unmap(&mut self, at: VirtAddr) {
        self.pages.remove(&(at.0 & !(PAGE - 1)));
    }

    /// Unmaps every page from `at` up.
    pub fn drop_pages(&mut self, at: VirtAddr) {
        self.pages.split_off(&at.0);
    }

    /// Where a global of the kernel is.
    pub fn global(&self, name: &str) -> VirtAddr {
        self.nt_base.offset(self.nt.address_of(name).unwrap_or_else(|| panic!("no {name}")).0.into())
    }

    /// Writes a field of a structure, where this kernel's symbols have it.
    pub fn put(&mut self, ty: &str, at: VirtAddr, path: &str, value: u64) {
        let layout = self.nt.layout(self.nt.find_type(ty).unwrap_or_else(|| panic!("no {ty}"))).unwrap();
        let place = self.nt.place(&layout, path).unwrap().unwrap_or_else(|| panic!("no {ty}.{path}"));
        let size = match place.ty {
            Type::Array { element, .. } => element.size(),
            ty => ty.size(),
        };
        let value = match place.bits {
            Some(bits) => {
                let mut word = [0; 8];
                word[..size as usize].copy_from_slice(&self.read(at.offset(place.offset), size));
                let mask = if bits.length == 64 { u64::MAX } else { (1 << bits.length) - 1 };
                u64::from_le_bytes(word) & !(mask << bits.position) | (value & mask) << bits.position
            }
            None => value,
        };
        self.write(at.offset(place.offset), &value.to_le_bytes()[..size as usize]);
    }

    pub fn offset(&self, ty: &str, path: &str) -> u64 {
        let layout = self.nt.layout(self.nt.find_type(ty).unwrap()).unwrap();
        self.nt.place(&layout, path).unwrap().unwrap().offset
    }

    pub fn size(&self, ty: &str) -> u64 {
        self.nt.layout(self.nt.find_type(ty).unwrap()).unwrap().size
    }

    pub fn has(&self, ty: &str, path: &str) -> bool {
        let layout = self.nt.layout(self.nt.find_type(ty).unwrap()).unwrap();
        self.nt.place(&layout, path).unwrap().is_some()
    }

    /// Bytes of a pointer.
    pub fn pointer_size(&self) -> u64 {
        self.nt.pointer_size()
    }

    /// Writes pointers in a row.
    pub fn put_pointers(&mut self, at: VirtAddr, pointers: &[u64]) {
        let size = self.pointer_size();
        for (index, pointer) in (0..).zip(pointers) {
            self.write(at.offset(index * size), &pointer.to_le_bytes()[..size as usize]);
        }
    }

    /// Writes a `_UNICODE_STRING` at `at` and its text at `text_at`.
    pub fn put_string(&mut self, at: VirtAddr, text_at: VirtAddr, text: &str) {
        let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let len = u16::try_from(bytes.len()).unwrap().to_le_bytes();
        self.write(at, &[len, len].concat());
        self.put_pointers(at.offset(self.pointer_size()), &[text_at.0]);
        self.write(text_at, &bytes);
    }

    pub fn read(&self, at: VirtAddr, len: u64) -> Vec<u8> {
        let byte =
            |at: u64| self.pages.get(&(at & !(PAGE - 1))).map_or(0, |page| page[(at & (PAGE - 1)) as usize]);
        (at.0..at.0 + len).map(byte).collect()
    }

    /// The same, answering searches with `refusal`.
    pub fn boot_blind(&self, refusal: ReadCause) -> Booted {
        let booted = self.boot();
        let Blind { inner, .. } = booted.memory.into_inner();
        Booted { memory: CountingMemory::new(Blind { inner, refusal: Some(refusal) }), kernel: booted.kernel }
    }

    /// What a debugger knows of it: its version and its symbols.
    pub fn kernel(&self) -> Kernel {
        let kernel = Kernel::new(self.version, SymbolPath::default());
        for (base, size, symbols) in &self.modules {
            kernel.use_symbols(*base, *size, Arc::clone(symbols));
        }
        kernel
    }

    /// The kernel as it is now, with its symbols in hand.
    pub fn boot(&self) -> Booted {
        let mut memory = ImageMemory::new();
        // Neighbouring pages as one run, which is read much faster.
        let mut run: Option<(u64, Vec<u8>)> = None;
        for (at, page) in &self.pages {
            match &mut run {
                Some((start, bytes)) if *start + bytes.len() as u64 == *at => bytes.extend_from_slice(page),
                _ => {
                    if let Some((start, bytes)) = run.replace((*at, page.clone())) {
                        memory.map(VirtAddr(start), bytes);
                    }
                }
            }
        }
        if let Some((start, bytes)) = run {
            memory.map(VirtAddr(start), bytes);
        }
        let kernel = self.kernel();
        Booted { memory: CountingMemory::new(Blind { inner: memory, refusal: None }), kernel }
    }
}

/// A kernel that can be asked.
pub struct Booted {
    pub memory: CountingMemory<Blind<ImageMemory>>,
    pub kernel: Kernel,
}

impl Booted {
    pub fn target(&self) -> Target<'_> {
        Target::new(&self.memory, &self.kernel)
    }
}
