//! Small memory dumps: a stack, a few blocks, the lists of drivers, and none of the records that a pool leak is found by.
//!
//! ```text
//!  header | TRIAGE_DUMP64 | context | exception | .. | drivers | unloaded drivers | names | debugger data | blocks
//! ```
//! The lists are no kernel structures in such a file. They are written as such into memory that is made here, at addresses
//! that the dump has nothing at but for the list's head and the block, so that whoever reads a kernel's lists reads these.
//!
//! Source: docs/dumps.md 7; seen in a small dump of build 22000 on ARM64.

use std::ops::Range;
use std::sync::Arc;

use memchr::memmem;

use super::error::DumpError;
use super::header::{Header, LEN_64};
use super::opened::Opened;
use super::stop;
use crate::memory::{Address, ImageMemory, Memory, PhysAddr, ReadCause, ReadError, StopId, VirtAddr};
use crate::physical::PositionedFile;
use crate::source::{ImageSource, KernelVersion};

/// `TRIAGE_DUMP64`, behind the header.
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
    pub(super) const DATA_PAGE_ADDRESS: usize = 0x60;
    pub(super) const DATA_PAGE: usize = 0x68;
    pub(super) const DATA_PAGE_SIZE: usize = 0x6c;
    pub(super) const DEBUGGER_DATA: usize = 0x70;
    pub(super) const DEBUGGER_DATA_SIZE: usize = 0x74;
    pub(super) const BLOCKS: usize = 0x78;
    pub(super) const BLOCK_COUNT: usize = 0x7c;
}

/// A small dump is a few MiB at most; what is larger is none.
const MAX_FILE: u64 = 64 << 20;
const MAX_DRIVERS: u32 = 4096;
const MAX_BLOCKS: u32 = 0x1_0000;
/// A kernel keeps this many.
const MAX_UNLOADED: usize = 50;
/// Characters of a path.
const MAX_NAME: usize = 260;
/// Bytes of a driver's entry: its name's place, then what the kernel had in its list.
const DRIVER_ENTRY: usize = 0x90;
/// Bytes of an unloaded driver's: UNICODE_STRING, 12 characters, start, end.
const UNLOADED_ENTRY: usize = 0x38;

/// Where what is made here lies: above everything that a kernel maps.
const MADE: u64 = 0xffff_ffff_c000_0000;
/// Bytes for one module's entry, larger than any kernel's.
const MADE_ENTRY: u64 = 0x200;

/// Opens a small dump.
pub(super) fn open(file: &Arc<PositionedFile>, header: &Header) -> Result<Opened, DumpError> {
    if !header.is_64_bit {
        return Err(DumpError::Refused(
            "a small memory dump of a 32-bit machine, which verikd does not read; a kernel dump it does"
                .into(),
        ));
    }
    if file.len() > MAX_FILE {
        return Err(DumpError::Damaged(format!("a small dump of {:#x} bytes is none", file.len())));
    }
    let bytes = file.read_some(0, file.len() as usize);
    let bytes = bytes.map_err(|source| DumpError::File { path: file.path().to_owned(), source })?;
    let dump = Triage { bytes };
    let valid = dump.word(at::VALID_OFFSET);
    if dump.slice(valid as usize, 4) != Some(b"TRGD") {
        return Err(DumpError::Damaged(format!(
            "no TRGD at the end of the small dump (ValidOffset {valid:#x}): its writing did not finish, or it was cut"
        )));
    }
    let mut made = Made { memory: ImageMemory::new(), taken: Vec::new(), next: MADE };
    // Where the header has no list, one is made somewhere else.
    let module_list = if header.module_list.is_null() { VirtAddr(made.take(16)) } else { header.module_list };
    dump.make_modules(&mut made, module_list);
    let list = dump.make_debugger_data(&mut made, header);
    let base = dump.drivers().next().map_or(VirtAddr(0), |driver| driver.base);
    let version = KernelVersion {
        major: header.major,
        build: header.build,
        flags: KernelVersion::PTR64 | 1,
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

    /// A field of `TRIAGE_DUMP64`.
    fn word(&self, at: usize) -> u32 {
        self.u32(LEN_64 + at)
    }

    fn context(&self) -> Option<Vec<u8>> {
        // x64's is the longer one; what lies behind ARM64's is not read.
        let at = self.word(at::CONTEXT) as usize;
        (at != 0).then(|| self.slice(at, 0x4d0).map(<[u8]>::to_vec)).flatten()
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
            let entry = self.slice(first.checked_add(index * DRIVER_ENTRY)?, DRIVER_ENTRY)?;
            let name_at = u32::from_le_bytes(entry[..4].try_into().expect("four bytes")) as usize;
            let base = u64::from_le_bytes(entry[0x38..0x40].try_into().expect("eight bytes"));
            // A count of characters, then as many and a NUL.
            Some(Driver {
                base: VirtAddr(base),
                entry: &entry[8..],
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
        let first = self.word(at::BLOCKS) as usize;
        let count = self.word(at::BLOCK_COUNT).min(MAX_BLOCKS) as usize;
        (0..count).map_while(move |index| {
            let entry = first.checked_add(index * 16)?;
            self.slice(entry, 16)?;
            self.piece(self.u64(entry), self.u32(entry + 8), self.u32(entry + 12))
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
            self.u64(LEN_64 + at::TOP_OF_STACK),
            self.word(at::CALL_STACK),
            self.word(at::SIZE_OF_CALL_STACK),
        );
        let page = self.piece(
            self.u64(LEN_64 + at::DATA_PAGE_ADDRESS),
            self.word(at::DATA_PAGE),
            self.word(at::DATA_PAGE_SIZE),
        );
        let mut pieces: Vec<Piece> = stack.into_iter().chain(page).chain(self.blocks()).collect();
        pieces.sort_by_key(|piece| piece.range.start);
        pieces
    }

    /// The kernel's list of modules, whose head is where it was.
    fn make_modules(&self, made: &mut Made, head: VirtAddr) {
        let drivers: Vec<_> = self.drivers().collect();
        let head = head.0;
        let places: Vec<u64> = drivers.iter().map(|_| made.take(MADE_ENTRY)).collect();
        let links = |index: usize| {
            let next = places.get(index).copied().unwrap_or(head);
            let previous = index.checked_sub(2).map_or(head, |index| places[index]);
            [next.to_le_bytes(), previous.to_le_bytes()].concat()
        };
        let last = places.last().copied().unwrap_or(head);
        made.put(head, [places.first().copied().unwrap_or(head).to_le_bytes(), last.to_le_bytes()].concat());
        for (index, driver) in drivers.iter().enumerate() {
            let mut entry = vec![0; MADE_ENTRY as usize];
            entry[..driver.entry.len()].copy_from_slice(driver.entry);
            entry[..16].copy_from_slice(&links(index + 1));
            let name = made.take(driver.name.len() as u64 + 2);
            let is_separator = |unit: &[u8]| unit == [b'\\', 0];
            let path_units = driver.name.chunks_exact(2).rposition(is_separator).map_or(0, |at| at + 1);
            let base_name = driver.name.len() - 2 * path_units;
            // FullDllName, BaseDllName.
            entry[0x48..0x58].copy_from_slice(&unicode_string(driver.name.len(), name));
            entry[0x58..0x68].copy_from_slice(&unicode_string(base_name, name + 2 * path_units as u64));
            made.put(name, [driver.name.clone(), vec![0, 0]].concat());
            made.put(places[index], entry);
        }
    }

    /// The debugger data block, in a list of its own, with what the dump has of what it leads to; the list's head.
    fn make_debugger_data(&self, made: &mut Made, header: &Header) -> VirtAddr {
        const LEAST: usize = 0x228;
        const KI_BUGCHECK_DATA: usize = 0x88;
        const MM_UNLOADED_DRIVERS: usize = 0x220;
        let at = self.word(at::DEBUGGER_DATA) as usize;
        let len = self.word(at::DEBUGGER_DATA_SIZE) as usize;
        let Some(block) = self.slice(at, len).filter(|block| (LEAST..0x1000).contains(&block.len())) else {
            return VirtAddr(0);
        };
        let mut block = block.to_vec();
        let (head, place) = (made.take(16), header.debugger_data.0);
        block[..8].copy_from_slice(&head.to_le_bytes());
        block[8..16].copy_from_slice(&head.to_le_bytes());
        if let Some(words) = header.bug_check_words() {
            let at = made.take(40);
            made.put(at, words.iter().flat_map(|word| word.to_le_bytes()).collect());
            block[KI_BUGCHECK_DATA..][..8].copy_from_slice(&at.to_le_bytes());
        }
        if let Some(array) = self.unloaded(made) {
            let variable = made.take(8);
            made.put(variable, array.to_le_bytes().to_vec());
            block[MM_UNLOADED_DRIVERS..][..8].copy_from_slice(&variable.to_le_bytes());
        }
        made.put(head, [place.to_le_bytes(), place.to_le_bytes()].concat());
        made.put(place, block);
        VirtAddr(head)
    }

    /// The kernel's array of unloaded drivers.
    fn unloaded(&self, made: &mut Made) -> Option<u64> {
        let at = self.word(at::UNLOADED) as usize;
        // A count, then the entries.
        let count = usize::try_from(self.u64(at)).ok().filter(|count| at != 0 && *count <= MAX_UNLOADED)?;
        let mut array = Vec::new();
        for index in 0..count {
            let entry =
                self.slice(at.checked_add(8)?.checked_add(index * UNLOADED_ENTRY)?, UNLOADED_ENTRY)?;
            let name: Vec<u8> =
                entry[16..40].chunks_exact(2).take_while(|unit| *unit != [0, 0]).flatten().copied().collect();
            let place = made.take(name.len() as u64 + 2);
            array.extend(unicode_string(name.len(), place));
            array.extend(&entry[40..56]);
            // When is not kept.
            array.extend([0; 8]);
            made.put(place, [name, vec![0, 0]].concat());
        }
        array.resize(MAX_UNLOADED * 0x28, 0);
        let at = made.take(array.len() as u64);
        made.put(at, array);
        Some(at)
    }
}

/// `UNICODE_STRING` of `len` bytes of text at `at`.
fn unicode_string(len: usize, at: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    let len = u16::try_from(len).unwrap_or(0xfffe);
    bytes[..2].copy_from_slice(&len.to_le_bytes());
    bytes[2..4].copy_from_slice(&len.saturating_add(2).to_le_bytes());
    bytes[8..].copy_from_slice(&at.to_le_bytes());
    bytes
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
