//! Dumps of ARM64 machines: a kernel of a few pages, written by hand from the architecture's own description of its tables.
//!
//! ```text
//!  bits 47..39    38..30    29..21      20..12    11..0
//!      L0 ------> L1 -----> L2 -------> L3 -----> byte        an entry: 3 a table, or in L3 a page; 1 in L1, L2 a block
//! ```
//! Source: Arm Architecture Reference Manual, D8.3 (4 KiB granule); docs/dumps.md 2, 4 and 7.

use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use kd_protocol::MachineType;
use verikd::dump;
use verikd::memory::{Memory, ReadCause, VirtAddr};
use verikd::source::Source;

use verikd_sim::windows::WINDOWS_7_SP1;

use super::support::text::text;
use super::{debugger, folder, program, symbols};

const PAGE: usize = 0x1000;
/// Frames of such machines do not begin at 0.
const FIRST_FRAME: u64 = 0x8_0000;
const KUSER: u64 = 0xffff_f780_0000_0000;
/// The kernel's image lies in a block of 2 MiB.
const BASE: u64 = 0xffff_f803_f2e0_0000;
const DRIVER: u64 = 0xffff_f803_f400_0000;
const DATA: u64 = 0xffff_f803_f3a0_0000;
const AWAY: u64 = 0xffff_f803_f3b0_0000;
const IN_TRANSITION: u64 = 0xffff_f803_f3b0_1000;
/// An entry whose lower bits are those of no page.
const RESERVED: u64 = 0xffff_f803_f3b0_2000;

/// AttrIndx, AP, SH, AF; UXN, PXN and bits for software above.
const ATTRIBUTES: u64 = 0x0060_0000_0000_0f04;
/// Frames of a block of 2 MiB, of which only the first are written.
const BLOCK_FRAMES: u64 = 0x200;

/// Pages by frame.
#[derive(Default)]
struct Ram {
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
    next: u64,
}

impl Ram {
    fn take(&mut self) -> u64 {
        self.next += 1;
        let frame = FIRST_FRAME + self.next;
        self.pages.insert(frame, Box::new([0; PAGE]));
        frame
    }

    fn put(&mut self, frame: u64, at: usize, bytes: &[u8]) {
        self.pages.get_mut(&frame).unwrap()[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn entry(&mut self, table: u64, address: u64, shift: u32) -> (usize, u64) {
        let at = (address >> shift & 0x1ff) as usize * 8;
        let page = &self.pages[&table];
        (at, u64::from_le_bytes(page[at..at + 8].try_into().unwrap()))
    }

    /// The table whose entries are chosen by the bits from `shift` on.
    fn table(&mut self, root: u64, address: u64, shift: u32) -> u64 {
        let mut table = root;
        for above in [39, 30, 21].into_iter().filter(|above| *above > shift) {
            let (at, entry) = self.entry(table, address, above);
            table = if entry == 0 {
                let next = self.take();
                self.put(table, at, &(next << 12 | 3).to_le_bytes());
                next
            } else {
                entry >> 12 & 0x3_ffff_ffff
            };
        }
        table
    }

    fn set(&mut self, root: u64, address: u64, shift: u32, entry: u64) {
        let table = self.table(root, address, shift);
        let (at, _) = self.entry(table, address, shift);
        self.put(table, at, &entry.to_le_bytes());
    }

    fn map(&mut self, root: u64, address: u64) -> u64 {
        let frame = self.take();
        self.set(root, address, 12, frame << 12 | ATTRIBUTES | 3);
        frame
    }
}

fn machine() -> (Ram, u64) {
    machine_with(None)
}

/// A machine whose kernel has an image's header, a debugger data block and a list of two modules; its root. The driver's image
/// lies in a frame that may be chosen.
fn machine_with(driver: Option<u64>) -> (Ram, u64) {
    let mut ram = Ram::default();
    let root = ram.take();
    // The kernel's own way to its tables: entry 0x1ed of the top one leads to itself.
    ram.put(root, 0x1ed * 8, &(root << 12 | 0x0060_0000_0000_0f03).to_le_bytes());
    let shared = ram.map(root, KUSER);
    ram.put(shared, 0x26c, &10_u32.to_le_bytes());
    ram.put(shared, 0x260, &(22000 | 0xf000_0000_u32).to_le_bytes());
    // SystemTime, InterruptTime: {low, high, high}.
    for (at, value) in [(0x14, 0x01d8_0000_1234_5678_u64), (0x8, 0x1_0000_0000)] {
        ram.put(shared, at, &value.to_le_bytes());
        ram.put(shared, at + 8, &(value >> 32).to_le_bytes()[..4]);
    }
    // A block begins at a multiple of its size.
    let block = (FIRST_FRAME + 0x400) & !(BLOCK_FRAMES - 1);
    ram.set(root, BASE, 21, block << 12 | ATTRIBUTES | 1);
    ram.pages.insert(block, Box::new([0; PAGE]));
    image(&mut ram, block);
    let driver = match driver {
        None => ram.map(root, DRIVER),
        Some(frame) => {
            ram.pages.insert(frame, Box::new([0; PAGE]));
            ram.set(root, DRIVER, 12, frame << 12 | ATTRIBUTES | 3);
            frame
        }
    };
    image(&mut ram, driver);
    let moved = ram.take();
    ram.put(moved, 0, b"still here");
    ram.set(root, AWAY, 12, 7 << 32 | 2 << 12);
    ram.set(root, IN_TRANSITION, 12, moved << 12 | 1 << 11);
    ram.set(root, RESERVED, 12, moved << 12 | 1);

    let data = ram.map(root, DATA);
    let mut put = |at: usize, value: u64| ram.put(data, at, &value.to_le_bytes());
    // KDDEBUGGER_DATA64, the head of its list behind it.
    put(0, DATA + 0x800);
    put(8, DATA + 0x800);
    put(0x10, u64::from(u32::from_le_bytes(*b"KDBG")) | 0x3a0 << 32);
    put(0x18, BASE);
    put(0x48, DATA + 0x900);
    put(0x800, DATA);
    put(0x808, DATA);
    // PsLoadedModuleList, two entries, their names.
    for (at, next, previous) in [(0x900, 0xa00, 0xb00), (0xa00, 0xb00, 0x900), (0xb00, 0x900, 0xa00)] {
        put(at, DATA + next);
        put(at + 8, DATA + previous);
    }
    for (at, base, size, name, text) in
        [(0xa00, BASE, 0x60_0000_u32, 0xc00, "ntoskrnl.exe"), (0xb00, DRIVER, 0x8000, 0xc40, "leaky.sys")]
    {
        put(at + 0x30, base);
        put(at + 0x40, size.into());
        let text: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let len = text.len() as u64;
        for string in [at + 0x48, at + 0x58] {
            put(string, len | (len + 2) << 16);
            put(string + 8, DATA + name as u64);
        }
        for (index, unit) in text.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..unit.len()].copy_from_slice(unit);
            put(name + 8 * index, u64::from_le_bytes(word));
        }
    }
    (ram, root)
}

/// The header of an image, with a directory of exports that has NtBuildNumber.
fn image(ram: &mut Ram, frame: u64) {
    ram.put(frame, 0, b"MZ");
    ram.put(frame, 0x3c, &0x80_u32.to_le_bytes());
    ram.put(frame, 0x80, b"PE\0\0\x64\xaa");
    // The optional header: magic, then the first of the data directories: exports at 0x400.
    ram.put(frame, 0x98, &0x20b_u16.to_le_bytes());
    ram.put(frame, 0x98 + 112, &0x400_u32.to_le_bytes());
    ram.put(frame, 0x98 + 116, &0x100_u32.to_le_bytes());
    // Two addresses (0x440), their names (0x448) and ordinals (0x450): the build, which lies at 0x600, and the list of modules.
    for (at, value) in [
        (0x410, 1_u32),
        (0x414, 2),
        (0x418, 2),
        (0x41c, 0x440),
        (0x420, 0x448),
        (0x424, 0x450),
        (0x440, 0x600),
        (0x444, (DATA + 0x900 - BASE) as u32),
        (0x448, 0x458),
        (0x44c, 0x470),
        (0x450, 1 << 16),
    ] {
        ram.put(frame, at, &value.to_le_bytes());
    }
    ram.put(frame, 0x458, b"NtBuildNumber\0");
    ram.put(frame, 0x470, b"PsLoadedModuleList\0");
    ram.put(frame, 0x600, &(22000 | 0xf000_0000_u32).to_le_bytes());
}

fn header(dump_type: u32, root: u64, build: u32, (first, count): (u64, u64)) -> Vec<u8> {
    let mut header: Vec<u8> = b"PAGE".iter().copied().cycle().take(0x2000).collect();
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"PAGEDU64");
    put(8, &0xf_u32.to_le_bytes());
    put(0xc, &build.to_le_bytes());
    put(0x10, &root.to_le_bytes());
    put(0x20, &(DATA + 0x900).to_le_bytes());
    put(0x30, &0xaa64_u32.to_le_bytes());
    put(0x34, &8_u32.to_le_bytes());
    put(0x38, &[0xc4, 0, 0, 0]);
    put(0x40, &[0x62_u64, 1, 2, 3].map(u64::to_le_bytes).concat());
    put(0x80, &DATA.to_le_bytes());
    put(0x88, &[0; 0xf98 - 0x88]);
    put(0x88, &1_u32.to_le_bytes());
    put(0x90, &count.to_le_bytes());
    put(0x98, &first.to_le_bytes());
    put(0xa0, &count.to_le_bytes());
    // CONTEXT: flags, Sp, Pc.
    put(0x348, &0x0040_0007_u32.to_le_bytes());
    put(0x348 + 4, &0x8000_0144_u32.to_le_bytes());
    put(0x348 + 8 + 8 * 25, &0x1b58_u64.to_le_bytes());
    put(0x348 + 0x100, &(DATA + 0xf00).to_le_bytes());
    put(0x348 + 0x108, &(BASE + 0x123).to_le_bytes());
    put(0xf98, &dump_type.to_le_bytes());
    put(0x1050, &[0; 4]);
    header
}

/// The pages of a run from the first frame on, holes being zeros.
fn write_runs(path: &Path, ram: &Ram, root: u64, build: u32) {
    let last = *ram.pages.keys().next_back().unwrap();
    let count = last + 1 - FIRST_FRAME;
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(&header(1, root, build, (FIRST_FRAME, count))).unwrap();
    for frame in FIRST_FRAME..=last {
        let page = ram.pages.get(&frame).map_or([0; PAGE], |page| **page);
        file.write_all(&page).unwrap();
    }
}

fn write_bitmap(path: &Path, ram: &Ram, root: u64) {
    let bits = (ram.pages.keys().next_back().unwrap() + 1).next_multiple_of(64);
    let mut summary = vec![0; 0x38 + bits as usize / 8];
    let first = (0x2000 + summary.len()).next_multiple_of(PAGE);
    summary[..8].copy_from_slice(b"SDMPDUMP");
    for (at, value) in [(0x20, first as u64), (0x28, ram.pages.len() as u64), (0x30, bits)] {
        summary[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    for frame in ram.pages.keys() {
        summary[0x38 + *frame as usize / 8] |= 1 << (frame % 8);
    }
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(&header(6, root, 22000, (0, bits))).unwrap();
    file.write_all(&summary).unwrap();
    file.write_all(&vec![0; first - 0x2000 - summary.len()]).unwrap();
    ram.pages.values().for_each(|page| file.write_all(&page[..]).unwrap());
}

/// A core as QEMU writes it, whose notes have no registers of the kernel's tables.
fn write_core(path: &Path, ram: &Ram) {
    let last = *ram.pages.keys().next_back().unwrap();
    let len = (last + 1 - FIRST_FRAME) * PAGE as u64;
    let mut head = vec![0; 0x78];
    let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &[4, 0, 183, 0, 1, 0, 0, 0]);
    put(32, &0x40_u64.to_le_bytes());
    put(52, &[0x40, 0, 0x38, 0, 1, 0]);
    put(0x40, &1_u32.to_le_bytes());
    for (at, value) in [(8, 0x78), (24, FIRST_FRAME * PAGE as u64), (32, len), (40, len)] {
        put(0x40 + at, &value.to_le_bytes());
    }
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(&head).unwrap();
    for frame in FIRST_FRAME..=last {
        let page = ram.pages.get(&frame).map_or([0; PAGE], |page| **page);
        file.write_all(&page).unwrap();
    }
}

fn examine(path: &Path) {
    let opened = dump::open(path, None).unwrap();
    assert_eq!(opened.warnings, [""; 0], "{}", path.display());
    let version = opened.source.version().unwrap();
    assert_eq!((version.build, version.machine, version.is_64_bit()), (22000, MachineType::ARM64, true));
    assert_eq!(version.base, VirtAddr(BASE), "{}", path.display());
    let memory = opened.source.memory();
    let mut bytes = [0; 10];
    memory.read_virtual(VirtAddr(IN_TRANSITION), &mut bytes).unwrap();
    assert_eq!(&bytes, b"still here");
    let cause = |at| memory.read_virtual(VirtAddr(at), &mut [0; 10]).unwrap_err().cause;
    assert_eq!(cause(AWAY), ReadCause::PagedOut { file: 2 });
    for nothing in
        [RESERVED, 0xffff_f803_f400_1000, 0xffff_8000_0000_0000, 0, 0x8000_0000_0000, u64::MAX - 0x10]
    {
        assert_eq!(cause(nothing), ReadCause::NotMapped, "{nothing:#x}");
    }
    // Within the block, over a page's end.
    let mut page = vec![0; 2 * PAGE];
    memory.read_virtual(VirtAddr(BASE), &mut page[..PAGE]).unwrap();
    assert_eq!(&page[0x80..0x86], b"PE\0\0\x64\xaa");
}

fn write(name: &str) -> PathBuf {
    folder("arm64").join(name)
}

#[test]
fn tables_of_an_arm64_machine_are_walked() {
    let (ram, root) = machine();
    // TTBR0: a number of the address space above, a flag below.
    let registers = root << 12 | 0x0017_0000_0000_0001;
    let runs = write("runs.dmp");
    write_runs(&runs, &ram, registers, 22000);
    examine(&runs);
    let opened = dump::open(&runs, None).unwrap();
    assert_eq!(opened.source.stopped().unwrap().program_counter, VirtAddr(BASE + 0x123));
    assert_eq!(opened.source.version().unwrap().debugger_data_list, VirtAddr(DATA + 0x800));
    let bitmap = write("bitmap.dmp");
    write_bitmap(&bitmap, &ram, registers);
    examine(&bitmap);
    // A root of no use, and a build that nobody set: the tables are found, the shared page says the build.
    write_runs(&runs, &ram, 0x1234_5000, u32::from_le_bytes(*b"PAGE"));
    examine(&runs);
    let core = write("core.elf");
    write_core(&core, &ram);
    examine(&core);
    // What is written of it is another machine's header on the same pages.
    let opened = debugger(&bitmap, &symbols(&WINDOWS_7_SP1));
    for option in ["/f", "/ka"] {
        let path = write(&format!("written-{}.dmp", &option[1..]));
        let said = text(&opened.target().unwrap(), &format!(".dump /o {option} {}", path.display()));
        assert!(said.contains("Dump successfully written"), "{said}");
        examine(&path);
        let again = debugger(&path, &symbols(&WINDOWS_7_SP1));
        for line in [".bugcheck", "lm", "vertarget"] {
            assert_eq!(text(&again.target().unwrap(), line), text(&opened.target().unwrap(), line), "{line}");
        }
    }
}

/// As WinDbg writes them.
#[test]
fn registers_of_an_arm64_machine_go_by_their_own_names() {
    let (ram, root) = machine();
    let path = write("registers.dmp");
    write_runs(&path, &ram, root << 12, 22000);
    let opened = debugger(&path, &symbols(&WINDOWS_7_SP1));
    let target = opened.target().unwrap();
    let all = text(&target, "r");
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!(lines.len(), 11, "{all}");
    assert_eq!(
        lines[6],
        "x24=0000000000000000  x25=0000000000001b58  x26=0000000000000000  x27=0000000000000000"
    );
    assert_eq!(
        lines[7],
        "x28=0000000000000000   fp=0000000000000000   lr=0000000000000000   sp=fffff803f3a00f00"
    );
    assert_eq!(lines[8..], [" pc=fffff803f2e00123  psr=80000144 N--- EL1", "nt+0x123:", "fffff803`f2e00123"]);
    assert_eq!(text(&target, "r x25, w25, sp"), "x25=0000000000001b58 w25=00001b58 sp=fffff803f3a00f00\n");
    assert_eq!(text(&target, "? @$csp - @sp + @$ip - @pc"), "Evaluate expression: 0 = 00000000`00000000\n");
    let refused = text(&target, "r rax");
    assert!(refused.contains("x0 to x28, w0 to w28, fp, lr, sp, pc, psr"), "{refused}");
}

/// Nobody has symbols of it: build, bug check and modules are told all the same.
#[test]
fn an_arm64_dump_without_symbols_says_what_it_can() {
    let (ram, root) = machine();
    let path = write("program.dmp");
    write_runs(&path, &ram, root << 12, 22000);
    let place = path.display().to_string();
    let ended = program::run(&["-z", &place, "-y", "/nowhere", "-c", "vertarget; .bugcheck; lm"]);
    assert_eq!(ended.code, 3, "{}", ended.err);
    for told in [
        "Windows Kernel Version 22000 MP Free ARM 64-bit (AArch64)\n",
        "Kernel base = 0xfffff803`f2e00000 ",
        "Debug session time: ",
        "Bugcheck code 000000C4\nArguments 00000000`00000062 00000000`00000001 ",
        "fffff803`f2e00000 fffff803`f3400000   nt ",
        "fffff803`f4000000 fffff803`f4008000   leaky ",
    ] {
        assert!(ended.out.contains(told), "{told}: {}{}", ended.out, ended.err);
    }
    let refused = program::run(&["-z", &place, "-y", "/nowhere", "-c", "!verifier 3"]);
    assert_ne!(refused.code, 0, "{}", refused.out);
    assert!(refused.err.contains("symbols"), "{}", refused.err);
}

/// What firmware keeps below 4 GiB is in some images and not in others: nothing says so but what the pages are.
#[test]
fn a_raw_image_without_its_hole_is_laid_out_as_its_machine() {
    const FOUR_GIB: u64 = 0x10_0000;
    let (ram, root) = machine_with(Some(FOUR_GIB + 5));
    for hole in [None, Some(0xc_0000), Some(0x8_1000)] {
        let place = |frame: u64| match hole {
            Some(hole) if frame >= FOUR_GIB => frame - FOUR_GIB + hole,
            _ => frame,
        };
        let path = write("squeezed.raw");
        let mut file = std::fs::File::create(&path).unwrap();
        for (frame, page) in &ram.pages {
            file.seek(SeekFrom::Start(place(*frame) * PAGE as u64)).unwrap();
            file.write_all(&page[..]).unwrap();
        }
        file.set_len(place(FOUR_GIB + 0x100) * PAGE as u64).unwrap();
        let opened = dump::open(&path, Some(root << 12)).unwrap();
        let read = opened.source.memory().read_virtual(VirtAddr(DRIVER), &mut [0; PAGE]);
        // 2 GiB and 16 MiB is no machine's.
        assert_eq!(read.is_ok(), hole != Some(0x8_1000), "{hole:x?}");
        std::fs::remove_file(path).unwrap();
    }
}
