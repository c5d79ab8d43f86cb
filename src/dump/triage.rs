//! Small memory dumps: a stack, a few blocks, the lists of drivers, and none of the records that a pool leak is found by.
//!
//! ```text
//!  header | TRIAGE_DUMP64, TRIAGE_DUMP32 | context | exception | .. | drivers | unloaded drivers | names | debugger data | blocks
//! ```
//! The lists are no kernel structures in such a file. They are written as such into memory that is made here, at addresses
//! that the dump has nothing at but for the list's head and the block, so that whoever reads a kernel's lists reads these.
//!
//! Source: docs/dumps.md 7; seen in a small dump of build 22000 on ARM64.

use std::ops::Range;
use std::sync::Arc;

use memchr::memmem;

use super::error::DumpError;
use super::header::{CONTEXT_X64, CONTEXT_X86, Header, LEN_32, LEN_64};
use super::opened::Opened;
use super::stop;
use crate::memory::{Address, ImageMemory, Memory, PhysAddr, ReadCause, ReadError, StopId, VirtAddr};
use crate::physical::PositionedFile;
use crate::source::{ImageSource, KernelVersion};

/// `TRIAGE_DUMP64` and `TRIAGE_DUMP32`, behind the header: where their fields are that both have.
mod at {
    pub(super) const VALID_OFFSET: usize = 0x08;
    pub(super) const CONTEXT: usize = 0x0c;
    pub(super) const MM: usize = 0x14;
    pub(super) const UNLOADED: usize = 0x18;
    pub(super) const CALL_STACK: usize = 0x28;
    pub(super) const SIZE_OF_CALL_STACK: usize = 0x2c;
    pub(super) const DRIVERS: usize = 0x30;
    pub(super) const DRIVER_COUNT: usize = 0x34;
    pub(super) const TOP_OF_STACK: usize = 0x48;
}

/// What differs between the two.
struct Form {
    is_64_bit: bool,
    header: usize,
    data_page_address: usize,
    data_page: usize,
    data_page_size: usize,
    debugger_data: usize,
    debugger_data_size: usize,
    blocks: usize,
    block_count: usize,
    /// Bytes of a block's entry: address, offset, size.
    block: usize,
    /// Bytes of a driver's entry: its name's place, then what the kernel had in its list.
    driver: usize,
    /// `DllBase`, `FullDllName`, `BaseDllName` in the latter.
    base: usize,
    names: [usize; 2],
    /// Bytes of an unloaded driver's: UNICODE_STRING, 12 characters, start, end.
    unloaded: usize,
    /// Where what is made here lies: where no kernel has anything else that a small dump holds.
    made: u64,
}

const FORM_64: Form = Form {
    is_64_bit: true,
    header: LEN_64,
    data_page_address: 0x60,
    data_page: 0x68,
    data_page_size: 0x6c,
    debugger_data: 0x70,
    debugger_data_size: 0x74,
    blocks: 0x78,
    block_count: 0x7c,
    block: 16,
    driver: 0x90,
    base: 0x30,
    names: [0x48, 0x58],
    unloaded: 0x38,
    // Above everything that a kernel maps.
    made: 0xffff_ffff_c000_0000,
};

const FORM_32: Form = Form {
    is_64_bit: false,
    header: LEN_32,
    data_page_address: 0x4c,
    data_page: 0x50,
    data_page_size: 0x54,
    debugger_data: 0x58,
    debugger_data_size: 0x5c,
    blocks: 0x60,
    block_count: 0x64,
    block: 12,
    driver: 0x4c,
    base: 0x18,
    names: [0x24, 0x2c],
    unloaded: 0x28,
    // Its page tables.
    made: 0xc000_0000,
};

impl Form {
    /// Bytes of a pointer.
    const fn pointer(&self) -> usize {
        if self.is_64_bit { 8 } else { 4 }
    }

    /// A number as wide as a pointer.
    fn bytes(&self, value: u64) -> Vec<u8> {
        value.to_le_bytes()[..self.pointer()].to_vec()
    }

    /// `UNICODE_STRING` of `len` bytes of text at `at`.
    fn unicode_string(&self, len: usize, at: u64) -> Vec<u8> {
        let len = u16::try_from(len).unwrap_or(0xfffe);
        let mut bytes = vec![0; 2 * self.pointer()];
        bytes[..2].copy_from_slice(&len.to_le_bytes());
        bytes[2..4].copy_from_slice(&len.saturating_add(2).to_le_bytes());
        bytes[self.pointer()..].copy_from_slice(&self.bytes(at));
        bytes
    }
}

/// A small dump is a few MiB at most; what is larger is none.
const MAX_FILE: u64 = 64 << 20;
const MAX_DRIVERS: u32 = 4096;
const MAX_BLOCKS: u32 = 0x1_0000;
/// A kernel keeps this many.
const MAX_UNLOADED: usize = 50;
/// Characters of a path.
const MAX_NAME: usize = 260;
/// Bytes for one module's entry, larger than any kernel's.
const MADE_ENTRY: u64 = 0x200;

/// Opens a small dump.
pub(super) fn open(file: &Arc<PositionedFile>, header: &Header) -> Result<Opened, DumpError> {
    let form = if header.is_64_bit { &FORM_64 } else { &FORM_32 };
    if file.len() > MAX_FILE {
        return Err(DumpError::Damaged(format!("a small dump of {:#x} bytes is none", file.len())));
    }
    let bytes = file.read_some(0, file.len() as usize);
    let bytes = bytes.map_err(|source| DumpError::File { path: file.path().to_owned(), source })?;
    let dump = Triage { bytes, form };
    let valid = dump.word(at::VALID_OFFSET);
    if dump.slice(valid as usize, 4) != Some(b"TRGD") {
        return Err(DumpError::Damaged(format!(
            "no TRGD at the end of the small dump (ValidOffset {valid:#x}): its writing did not finish, or it was cut"
        )));
    }
    let mut made = Made { memory: ImageMemory::new(), taken: Vec::new(), next: form.made };
    // Where the header has no list, one is made somewhere else.
    let module_list = if header.module_list.is_null() { VirtAddr(made.take(16)) } else { header.module_list };
    dump.make_modules(&mut made, module_list);
    let list = dump.make_debugger_data(&mut made, header);
    let base = dump.drivers().next().map_or(VirtAddr(0), |driver| driver.base);
    let version = KernelVersion {
        major: header.major,
        build: header.build,
        flags: 1 | if form.is_64_bit { KernelVersion::PTR64 } else { 0 },
        machine: header.machine,
        base,
        module_list,
        debugger_data_list: list,
    };
    let context = dump.context().or_else(|| header.context.clone());
    let level = match dump.verifier_level(header) {
        None => String::new(),
        Some(0) => ", which was off".into(),
        Some(level) => format!(", whose level was {level:#x}"),
    };
    let what = format!(
        "{}: a stack, {} blocks, {} modules; none of the records of Driver Verifier{level}",
        header.kind(),
        dump.blocks().count(),
        dump.drivers().count()
    );
    let stopped = stop::of_header(&Header { context: context.clone(), ..header.clone() }, 0);
    let memory = TriageMemory { pieces: dump.pieces(), made: made.memory, bytes: dump.bytes };
    let name = file.path().display().to_string();
    let source = ImageSource::with_noted(name, memory, version, stopped, context, header.noted());
    Ok(Opened { source, what, warnings: Vec::new() })
}

/// The whole file: it is small.
struct Triage {
    bytes: Vec<u8>,
    form: &'static Form,
}

struct Driver<'a> {
    base: VirtAddr,
    /// As the kernel had it, without what it pointed to.
    entry: &'a [u8],
    /// UTF-16, with its path.
    name: Vec<u8>,
}

impl Triage {
    fn slice(&self, at: usize, len: usize) -> Option<&[u8]> {
        self.bytes.get(at..at.checked_add(len)?)
    }

    fn u32(&self, at: usize) -> u32 {
        self.slice(at, 4).map_or(0, |it| u32::from_le_bytes(it.try_into().expect("four bytes")))
    }

    fn u64(&self, at: usize) -> u64 {
        self.slice(at, 8).map_or(0, |it| u64::from_le_bytes(it.try_into().expect("eight bytes")))
    }

    /// A number as wide as a pointer.
    fn pointer(&self, at: usize) -> u64 {
        if self.form.is_64_bit { self.u64(at) } else { self.u32(at).into() }
    }

    /// A field of `TRIAGE_DUMP64` or `TRIAGE_DUMP32`.
    fn word(&self, at: usize) -> u32 {
        self.u32(self.form.header + at)
    }

    fn context(&self) -> Option<Vec<u8>> {
        // x64's is the longer one; what lies behind ARM64's is not read.
        let at = self.word(at::CONTEXT) as usize;
        let len = if self.form.is_64_bit { CONTEXT_X64 } else { CONTEXT_X86 };
        (at != 0).then(|| self.slice(at, len).map(<[u8]>::to_vec)).flatten()
    }

    /// `DUMP_MM_STORAGE64.MmVerifyDriverLevel`, if it is kept.
    fn verifier_level(&self, header: &Header) -> Option<u32> {
        const HAS_MM: u32 = 0x100;
        const MM_VERIFY_DRIVER_LEVEL: usize = 0x10;
        let at = self.word(at::MM) as usize;
        let is_kept = header.mini_dump_fields & HAS_MM != 0 && at != 0;
        let level = is_kept.then(|| self.slice(at.checked_add(MM_VERIFY_DRIVER_LEVEL)?, 4)).flatten()?;
        Some(u32::from_le_bytes(level.try_into().expect("four bytes")))
    }

    fn drivers(&self) -> impl Iterator<Item = Driver<'_>> {
        let first = self.word(at::DRIVERS) as usize;
        let count = self.word(at::DRIVER_COUNT).min(MAX_DRIVERS) as usize;
        (0..count).map_while(move |index| {
            let at = first.checked_add(index * self.form.driver)?;
            let entry = self.slice(at, self.form.driver)?;
            let name_at = self.u32(at) as usize;
            let base = self.pointer(at + self.form.pointer() + self.form.base);
            // A count of characters, then as many and a NUL.
            Some(Driver {
                base: VirtAddr(base),
                entry: &entry[self.form.pointer()..],
                name: self.text(name_at.saturating_add(4)),
            })
        })
    }

    /// UTF-16 up to its NUL.
    fn text(&self, at: usize) -> Vec<u8> {
        let rest = self.bytes.get(at..).unwrap_or(&[]);
        let units = rest.chunks_exact(2).take(MAX_NAME).take_while(|unit| *unit != [0, 0]);
        units.flatten().copied().collect()
    }

    fn blocks(&self) -> impl Iterator<Item = Piece> + '_ {
        let first = self.word(self.form.blocks) as usize;
        let count = self.word(self.form.block_count).min(MAX_BLOCKS) as usize;
        let pointer = self.form.pointer();
        (0..count).map_while(move |index| {
            let entry = first.checked_add(index * self.form.block)?;
            self.slice(entry, self.form.block)?;
            self.piece(self.pointer(entry), self.u32(entry + pointer), self.u32(entry + pointer + 4))
        })
    }

    /// Bytes of the file at an address; nothing if they are not in the file.
    fn piece(&self, address: u64, offset: u32, len: u32) -> Option<Piece> {
        let (offset, len) = (offset as usize, len as usize);
        self.slice(offset, len)?;
        let end = address.checked_add(len as u64)?;
        (len > 0).then_some(Piece { range: address..end, offset })
    }

    fn pieces(&self) -> Vec<Piece> {
        let stack = self.piece(
            self.pointer(self.form.header + at::TOP_OF_STACK),
            self.word(at::CALL_STACK),
            self.word(at::SIZE_OF_CALL_STACK),
        );
        let page = self.piece(
            self.pointer(self.form.header + self.form.data_page_address),
            self.word(self.form.data_page),
            self.word(self.form.data_page_size),
        );
        let mut pieces: Vec<Piece> = stack.into_iter().chain(page).chain(self.blocks()).collect();
        pieces.sort_by_key(|piece| piece.range.start);
        pieces
    }

    /// The kernel's list of modules, whose head is where it was.
    fn make_modules(&self, made: &mut Made, head: VirtAddr) {
        let (form, drivers) = (self.form, self.drivers().collect::<Vec<_>>());
        let head = head.0;
        let places: Vec<u64> = drivers.iter().map(|_| made.take(MADE_ENTRY)).collect();
        let links = |index: usize| {
            let next = places.get(index).copied().unwrap_or(head);
            let previous = index.checked_sub(2).map_or(head, |index| places[index]);
            [form.bytes(next), form.bytes(previous)].concat()
        };
        let last = places.last().copied().unwrap_or(head);
        let first = places.first().copied().unwrap_or(head);
        made.put(head, [form.bytes(first), form.bytes(last)].concat());
        for (index, driver) in drivers.iter().enumerate() {
            let mut entry = vec![0; MADE_ENTRY as usize];
            entry[..driver.entry.len()].copy_from_slice(driver.entry);
            entry[..2 * form.pointer()].copy_from_slice(&links(index + 1));
            let name = made.take(driver.name.len() as u64 + 2);
            let is_separator = |unit: &[u8]| unit == [b'\\', 0];
            let path_units = driver.name.chunks_exact(2).rposition(is_separator).map_or(0, |at| at + 1);
            let base_name = driver.name.len() - 2 * path_units;
            let strings = [
                form.unicode_string(driver.name.len(), name),
                form.unicode_string(base_name, name + 2 * path_units as u64),
            ];
            for (at, string) in form.names.into_iter().zip(strings) {
                entry[at..at + string.len()].copy_from_slice(&string);
            }
            made.put(name, [driver.name.clone(), vec![0, 0]].concat());
            made.put(places[index], entry);
        }
    }

    /// The debugger data block, in a list of its own, with what the dump has of what it leads to; the list's head.
    fn make_debugger_data(&self, made: &mut Made, header: &Header) -> VirtAddr {
        const LEAST: usize = 0x228;
        const KI_BUGCHECK_DATA: usize = 0x88;
        const MM_UNLOADED_DRIVERS: usize = 0x220;
        let at = self.word(self.form.debugger_data) as usize;
        let len = self.word(self.form.debugger_data_size) as usize;
        let Some(block) = self.slice(at, len).filter(|block| (LEAST..0x1000).contains(&block.len())) else {
            return VirtAddr(0);
        };
        let mut block = block.to_vec();
        let (head, place) = (made.take(16), header.debugger_data.0);
        block[..8].copy_from_slice(&head.to_le_bytes());
        block[8..16].copy_from_slice(&head.to_le_bytes());
        if let Some(words) = header.bug_check_words() {
            let at = made.take(40);
            made.put(at, words.iter().flat_map(|word| self.form.bytes(*word)).collect());
            block[KI_BUGCHECK_DATA..][..8].copy_from_slice(&at.to_le_bytes());
        }
        if let Some(array) = self.unloaded(made) {
            let variable = made.take(8);
            made.put(variable, self.form.bytes(array));
            block[MM_UNLOADED_DRIVERS..][..8].copy_from_slice(&variable.to_le_bytes());
        }
        made.put(head, [self.form.bytes(place), self.form.bytes(place)].concat());
        made.put(place, block);
        VirtAddr(head)
    }

    /// The kernel's array of unloaded drivers.
    fn unloaded(&self, made: &mut Made) -> Option<u64> {
        let (form, pointer) = (self.form, self.form.pointer());
        let at = self.word(at::UNLOADED) as usize;
        let count = usize::try_from(self.u32(at)).ok().filter(|count| at != 0 && *count <= MAX_UNLOADED)?;
        // UNICODE_STRING, characters, start, end.
        let characters = 2 * pointer..2 * pointer + 24;
        let start = |first: usize| self.pointer(first + characters.end);
        // Behind a count of four bytes, or of eight as those of 64-bit machines are: where the first is a kernel's.
        let is_kernels = |first: &usize| start(*first) >= if form.is_64_bit { 1 << 63 } else { 1 << 31 };
        let behind = if form.is_64_bit { [8, 8] } else { [4, 8] };
        let first = behind.into_iter().filter_map(|behind| at.checked_add(behind)).find(is_kernels);
        let mut array = Vec::new();
        for index in 0..first.map_or(0, |_| count) {
            let entry = self.slice(first?.checked_add(index * form.unloaded)?, form.unloaded)?;
            let units = entry[characters.clone()].chunks_exact(2).take_while(|unit| *unit != [0, 0]);
            let name: Vec<u8> = units.flatten().copied().collect();
            let place = made.take(name.len() as u64 + 2);
            array.extend(form.unicode_string(name.len(), place));
            array.extend(&entry[characters.end..characters.end + 2 * pointer]);
            // When is not kept.
            array.extend([0; 8]);
            made.put(place, [name, vec![0, 0]].concat());
        }
        array.resize(MAX_UNLOADED * (4 * pointer + 8), 0);
        let at = made.take(array.len() as u64);
        made.put(at, array);
        Some(at)
    }
}

/// Memory that is made here.
struct Made {
    memory: ImageMemory,
    taken: Vec<Range<u64>>,
    next: u64,
}

impl Made {
    /// Room for so many bytes.
    const fn take(&mut self, len: u64) -> u64 {
        let at = self.next;
        self.next = (at + len).next_multiple_of(16);
        at
    }

    /// Nothing is put where the file has set no address, or one that is taken.
    fn put(&mut self, at: u64, bytes: Vec<u8>) {
        let end = at.checked_add(bytes.len() as u64);
        let is_taken = |range: &Range<u64>| end.is_none_or(|end| at < range.end && range.start < end);
        if at == 0 || end.is_none() || self.taken.iter().any(is_taken) {
            return;
        }
        self.taken.push(at..end.unwrap_or(at));
        self.memory.map(VirtAddr(at), bytes);
    }
}

/// Bytes at an address, and where they are in the file.
#[derive(Clone, Debug)]
struct Piece {
    range: Range<u64>,
    offset: usize,
}

/// What a small dump has, and what was made of its lists.
struct TriageMemory {
    bytes: Vec<u8>,
    /// By address; some lie over others.
    pieces: Vec<Piece>,
    made: ImageMemory,
}

impl TriageMemory {
    /// The bytes from `at` on that lie together in one piece.
    fn from(&self, at: u64) -> Option<&[u8]> {
        let before = self.pieces.partition_point(|piece| piece.range.start <= at);
        // A longer one that begins earlier may reach further: dumps have some thousand at most.
        let piece = self.pieces[..before].iter().rev().find(|piece| piece.range.contains(&at))?;
        let (from, end) = (at - piece.range.start, piece.range.end - piece.range.start);
        Some(&self.bytes[piece.offset + from as usize..piece.offset + end as usize])
    }
}

impl Memory for TriageMemory {
    fn read_virtual(&self, address: VirtAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        let (mut got, wanted) = (0, buf.len());
        while got < wanted {
            // What was made lies apart, but for the list's head and the block, which are where they were.
            match self.made.read_virtual(address.offset(got as u64), &mut buf[got..]) {
                Ok(()) => return Ok(()),
                Err(error) => got += error.got,
            }
            let here = address.0.checked_add(got as u64).and_then(|at| self.from(at));
            let Some(bytes) = here else {
                let cause = ReadCause::NotInSmallDump;
                return Err(ReadError { address: Address::Virtual(address), wanted, got, cause });
            };
            let len = bytes.len().min(wanted - got);
            buf[got..got + len].copy_from_slice(&bytes[..len]);
            got += len;
        }
        Ok(())
    }

    fn read_physical(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        let (address, wanted) = (Address::Physical(address), buf.len());
        Err(ReadError { address, wanted, got: 0, cause: ReadCause::NotInSmallDump })
    }

    fn search_virtual(&self, range: Range<VirtAddr>, pattern: &[u8]) -> Result<Option<VirtAddr>, ReadError> {
        let found = self.pieces.iter().filter_map(|piece| {
            let from = range.start.0.max(piece.range.start);
            let end = range.end.0.saturating_add(pattern.len() as u64).min(piece.range.end);
            let len = end.checked_sub(from)? as usize;
            let at = piece.offset + (from - piece.range.start) as usize;
            let found = memmem::find(&self.bytes[at..at + len], pattern)?;
            Some(VirtAddr(from + found as u64)).filter(|it| range.contains(it))
        });
        Ok(found.min())
    }

    fn stop(&self) -> StopId {
        StopId(0)
    }
}
