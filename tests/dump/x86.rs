//! 32-bit dumps, with and without PAE: a kernel of a few pages, written by hand.

use std::io::Write;
use std::path::{Path, PathBuf};

use kd_protocol::MachineType;
use verikd::dump;
use verikd::memory::{Memory, ReadCause, VirtAddr};
use verikd::source::Source;

use verikd_sim::windows::WINDOWS_7_SP1;

use super::support::text::text;
use super::{debugger, folder, symbols};

const PAGE: usize = 0x1000;
const KUSER: u32 = 0xffdf_0000;
const BASE: u32 = 0x8040_0000;
const DATA: u32 = 0x8050_0000;
/// One that is in a page file, one in transition.
const AWAY: u32 = 0x8060_0000;
const IN_TRANSITION: u32 = 0x8060_1000;

/// Frames of the file, from frame 1 on.
struct Frames(Vec<[u8; PAGE]>);

impl Frames {
    fn take(&mut self) -> u32 {
        self.0.push([0; PAGE]);
        self.0.len() as u32
    }

    fn put(&mut self, frame: u32, at: usize, bytes: &[u8]) {
        self.0[frame as usize - 1][at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// Page tables of one kind.
struct Tables {
    is_pae: bool,
    root: u32,
}

impl Tables {
    /// Sets the entry that maps `address`, making its table where there is none.
    fn set(&self, frames: &mut Frames, address: u32, entry: u64) {
        let (top, table, len) = if self.is_pae {
            (vec![address >> 30, address >> 21 & 0x1ff], address >> 12 & 0x1ff, 8)
        } else {
            (vec![address >> 22], address >> 12 & 0x3ff, 4)
        };
        let mut at = self.root;
        for index in top {
            let place = index as usize * len;
            let mut value = [0; 8];
            value[..len].copy_from_slice(&frames.0[at as usize - 1][place..place + len]);
            let mut next = (u64::from_le_bytes(value) >> 12) as u32;
            if next == 0 {
                next = frames.take();
                frames.put(at, place, &(u64::from(next) << 12 | 1).to_le_bytes()[..len]);
            }
            at = next;
        }
        frames.put(at, table as usize * len, &entry.to_le_bytes()[..len]);
    }
}

/// A machine whose kernel has an image's header, a debugger data block and a list of one module.
fn machine(is_pae: bool) -> (Frames, u32) {
    let mut frames = Frames(Vec::new());
    let root = frames.take();
    let tables = Tables { is_pae, root };
    let map = |frames: &mut Frames, address: u32| {
        let frame = frames.take();
        tables.set(frames, address, u64::from(frame) << 12 | 1);
        frame
    };
    let shared = map(&mut frames, KUSER);
    let image = map(&mut frames, BASE);
    let data = map(&mut frames, DATA);
    let moved = frames.take();
    tables.set(&mut frames, AWAY, if is_pae { 7 << 32 | 2 << 12 } else { 7 << 12 | 2 << 1 });
    tables.set(&mut frames, IN_TRANSITION, u64::from(moved) << 12 | 1 << 11);
    frames.put(moved, 0, b"still here");
    frames.put(shared, 0x26c, &6_u32.to_le_bytes());
    frames.put(image, 0, b"MZ");
    frames.put(image, 0x3c, &0x80_u32.to_le_bytes());
    frames.put(image, 0x80, b"PE\0\0\x4c\x01");
    // KDDEBUGGER_DATA64 at DATA, the head of its list behind it, then the list of modules.
    let head = DATA + 0x800;
    frames.put(data, 0, &u64::from(head).to_le_bytes());
    frames.put(data, 8, &u64::from(head).to_le_bytes());
    frames.put(data, 0x10, b"KDBG");
    frames.put(data, 0x14, &0x340_u32.to_le_bytes());
    frames.put(data, 0x18, &(0xffff_ffff_0000_0000 | u64::from(BASE)).to_le_bytes());
    frames.put(data, 0x800, &DATA.to_le_bytes());
    frames.put(data, 0x804, &DATA.to_le_bytes());

    // KiDivideErrorFault, as its gate has it.
    frames.put(data, 0xa00, &[0x23, 0x05, 8, 0, 0, 0x8e, 0x40, 0x80]);
    (frames, root)
}

/// A dump of type 1 of it.
pub(crate) fn write(name: &str, is_pae: bool) -> PathBuf {
    let (frames, root) = machine(is_pae);
    let header = header(root, is_pae, frames.0.len() as u32);
    let path = folder("x86").join(name);
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(&header).unwrap();
    frames.0.iter().for_each(|frame| file.write_all(frame).unwrap());
    path
}

/// `DUMP_HEADER32` of type 1, of a machine that bug-checked.
fn header(root: u32, is_pae: bool, pages: u32) -> Vec<u8> {
    let mut header: Vec<u8> = b"PAGE".iter().copied().cycle().take(PAGE).collect();
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"PAGEDUMP");
    put(8, &0xf_u32.to_le_bytes());
    put(0xc, &7601_u32.to_le_bytes());
    put(0x10, &(root << 12).to_le_bytes());
    put(0x18, &(DATA + 0x900).to_le_bytes());
    put(0x20, &0x14c_u32.to_le_bytes());
    put(0x24, &1_u32.to_le_bytes());
    put(0x28, &[0xc4, 0, 0, 0, 0x62, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]);
    put(0x5c, &[u8::from(is_pae)]);
    put(0x60, &DATA.to_le_bytes());
    put(0x64, &1_u32.to_le_bytes());
    put(0x68, &pages.to_le_bytes());
    put(0x6c, &1_u32.to_le_bytes());
    put(0x70, &pages.to_le_bytes());
    put(0x320, &[0; 0x2cc]);
    put(0x320 + 0xb8, &(BASE + 0x123).to_le_bytes());
    put(0x7d0, &[0; 0x50]);
    put(0x8a0, &[0; 4]);
    put(0xf88, &1_u32.to_le_bytes());
    header
}

fn examine(path: &Path) {
    let opened = dump::open(path, None).unwrap();
    let version = opened.source.version().unwrap();
    assert_eq!((version.build, version.machine, version.is_64_bit()), (7601, MachineType::I386, false));
    assert_eq!(
        (version.base, version.debugger_data_list),
        (VirtAddr(BASE.into()), VirtAddr(u64::from(DATA) + 0x800))
    );
    assert_eq!(opened.source.stopped().unwrap().program_counter, VirtAddr(u64::from(BASE) + 0x123));
    let memory = opened.source.memory();
    let mut bytes = [0; 10];
    memory.read_virtual(VirtAddr(IN_TRANSITION.into()), &mut bytes).unwrap();
    assert_eq!(&bytes, b"still here");
    let away = memory.read_virtual(VirtAddr(AWAY.into()), &mut bytes).unwrap_err();
    assert_eq!(away.cause, ReadCause::PagedOut { file: 2 });
    let nothing = memory.read_virtual(VirtAddr(0x9000_0000), &mut bytes).unwrap_err();
    assert_eq!(nothing.cause, ReadCause::NotMapped);
    let found = memory.search_virtual(VirtAddr(0x8000_0000)..VirtAddr(0x9000_0000), b"still").unwrap();
    assert_eq!(found, Some(VirtAddr(IN_TRANSITION.into())));
}

#[test]
fn tables_with_pae_are_walked() {
    examine(&write("pae.dmp", true));
}

#[test]
fn tables_without_pae_are_walked() {
    examine(&write("plain.dmp", false));
}

/// Symbols of another kernel are of no use for it, and it needs none.
#[test]
fn what_is_written_of_a_32_bit_machine_is_a_32_bit_dump() {
    for (is_pae, name) in [(true, "pae"), (false, "plain")] {
        let opened = debugger(&write(&format!("{name}-first.dmp"), is_pae), &symbols(&WINDOWS_7_SP1));
        for (option, dump_type) in [("/f", 1), ("/ka", 6)] {
            let path = folder("x86").join(format!("{name}{}.dmp", &option[1..]));
            let said = text(&opened.target().unwrap(), &format!(".dump /o {option} {}", path.display()));
            assert!(said.contains("Dump successfully written"), "{said}");
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!((&bytes[..8], bytes[0xf88]), (&b"PAGEDUMP"[..], dump_type));
            examine(&path);
            let again = debugger(&path, &symbols(&WINDOWS_7_SP1));
            for line in [".bugcheck", "r", "vertarget"] {
                assert_eq!(
                    text(&again.target().unwrap(), line),
                    text(&opened.target().unwrap(), line),
                    "{line}"
                );
            }
        }
    }
}

/// A small dump: every list of it is made anew, with pointers of four bytes.
pub(crate) fn write_small(name: &str, counted_in: usize) -> PathBuf {
    const TRIAGE: usize = PAGE;
    const STACK: u32 = 0x8a00_1f00;
    let mut file = header(0x123, true, 1);
    file[0xf88] = 4;
    // MiniDumpFields: DUMP_MM_STORAGE32 is filled.
    file[0xf8c..0xf90].copy_from_slice(&0xdff_u32.to_le_bytes());
    file[0x320 + 0xc4..0x320 + 0xc8].copy_from_slice(&STACK.to_le_bytes());
    file.resize(TRIAGE + 0x80, 0);
    let mut fields: Vec<(usize, u32)> = vec![(0xc, 0x320), (0x10, 0x7d0)];
    let mut append = |file: &mut Vec<u8>, at: usize, bytes: &[u8]| {
        fields.push((at, file.len() as u32));
        file.extend(bytes);
        file.resize(file.len().next_multiple_of(8), 0);
    };
    let units = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    append(&mut file, 0x14, &words(&[1, 0x50, 0, 0, 9, 1]));
    // UNICODE_STRING32, twelve characters, start, end.
    let mut unloaded = vec![0; counted_in];
    unloaded[0] = 1;
    unloaded.extend(words(&[0x10_000e, 0x1234]));
    unloaded.extend([units("gone.sy"), vec![0; 10]].concat());
    unloaded.extend(words(&[0x9000_0000, 0x9000_4000]));
    append(&mut file, 0x18, &unloaded);
    append(&mut file, 0x28, &words(&[0x9000_0634, BASE + 0x1234, 7]));
    // DUMP_DRIVER_ENTRY32, whose names follow.
    let drivers = file.len();
    let names = drivers + 2 * 0x4c + 4;
    let second = names + 64;
    let mut entries = Vec::new();
    for (name_at, base, len) in [(names, BASE, 0x41_2000), (second, 0x8b00_0000, 0x8000)] {
        let mut entry = vec![0; 0x4c];
        entry[..4].copy_from_slice(&(name_at as u32).to_le_bytes());
        entry[4 + 0x18..4 + 0x1c].copy_from_slice(&base.to_le_bytes());
        entry[4 + 0x20..4 + 0x24].copy_from_slice(&u32::to_le_bytes(len));
        entries.extend(entry);
    }
    append(&mut file, 0x30, &entries);
    for (at, name) in [(names, "\\SystemRoot\\ntkrnlpa.exe"), (second, "\\x\\leaky.sys")] {
        file.resize(at, 0);
        file.extend((name.len() as u32).to_le_bytes());
        file.extend([units(name), vec![0, 0]].concat());
    }
    file.resize(second + 64, 0);
    let mut block = vec![0; 0x340];
    block[0x10..0x14].copy_from_slice(b"KDBG");
    block[0x14..0x18].copy_from_slice(&0x340_u32.to_le_bytes());
    block[0x18..0x20].copy_from_slice(&(0xffff_ffff_0000_0000 | u64::from(BASE)).to_le_bytes());
    append(&mut file, 0x58, &block);
    let block_bytes = file.len() as u32;
    file.extend(b"a block.");
    append(&mut file, 0x60, &words(&[0x8c00_0010, block_bytes, 8]));
    append(&mut file, 0x08, b"TRGD");
    fields.extend([(0x2c, 12), (0x34, 2), (0x48, STACK), (0x5c, 0x340), (0x64, 1)]);
    for (at, value) in fields {
        file[TRIAGE + at..TRIAGE + at + 4].copy_from_slice(&value.to_le_bytes());
    }
    let path = folder("x86").join(name);
    std::fs::write(&path, file).unwrap();
    path
}

/// Whether a count has four bytes or eight before what is aligned to four is not known: what follows tells.
#[test]
fn a_small_dump_of_a_32_bit_machine_opens_for_what_it_has() {
    for counted_in in [4, 8] {
        let path = write_small(&format!("small-{counted_in}.dmp"), counted_in);
        let what = dump::open(&path, None).unwrap().what;
        assert!(
            what.contains("1 blocks, 2 modules; none of the records of Driver Verifier, whose level was 0x9"),
            "{what}"
        );
        let opened = debugger(&path, &symbols(&WINDOWS_7_SP1));
        let target = opened.target().unwrap();
        let bug_check = text(&target, ".bugcheck");
        assert_eq!(bug_check, "Bugcheck code 000000C4\nArguments 00000062 00000001 00000002 00000003\n");
        let modules = text(&target, "lm");
        assert!(modules.contains("\n80400000 80812000   nt "), "{modules}");
        assert!(modules.contains("\n8b000000 8b008000   leaky "), "{modules}");
        assert_eq!(text(&target, "r esp, eip"), "esp=8a001f00 eip=80400123\n");
        let stack = text(&target, "dps @esp L3");
        assert!(
            stack.starts_with("8a001f00  90000634 <Unloaded_gone.sy>+0x634\n8a001f04  80401234 nt+0x1234\n"),
            "{stack}"
        );
        assert!(text(&target, "da 8c000010 L8").contains("a block."), "{}", text(&target, "da 8c000010 L8"));
        let verifier = text(&target, "!verifier 3");
        assert!(verifier.contains("a small memory dump does not hold it"), "{verifier}");
    }
}

/// A core as QEMU writes it of a machine that is not in long mode: its note leads to the tables and to the kernel.
#[test]
fn a_core_of_a_32_bit_machine_is_found_through_its_processor() {
    for is_pae in [true, false] {
        let (frames, root) = machine(is_pae);
        let mut state = vec![0; 0x1b8];
        let mut put = |at: usize, value: u32| state[at..at + 4].copy_from_slice(&value.to_le_bytes());
        for (at, value) in
            [(0, 1), (4, 0x1b8), (8, 0xeaea), (0x38, 0x8a00_1f00), (0x88, BASE + 0x123), (0x90, 0x246)]
        {
            put(at, value);
        }
        // cs; IDT; CR3, CR4.
        for (at, value) in
            [(0x98, 8), (0x180, DATA + 0xa00), (0x1a0, root << 12), (0x1a8, if is_pae { 0x20 } else { 0 })]
        {
            put(at, value);
        }
        let mut note: Vec<u8> = [5_u32, 0x1b8, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
        note.extend(b"QEMU\0\0\0\0");
        note.extend(&state);
        let mut core = b"\x7fELF\x01\x01\x01".to_vec();
        core.resize(52 + 2 * 32, 0);
        core[16..24].copy_from_slice(&[4, 0, 3, 0, 1, 0, 0, 0]);
        core[28] = 52;
        core[40..46].copy_from_slice(&[52, 0, 32, 0, 2, 0]);
        let notes_at = core.len() as u32;
        let len = (frames.0.len() * PAGE) as u32;
        // Type, offset, virtual and physical address, bytes in the file and in memory.
        let segments = [
            [4, notes_at, 0, 0, note.len() as u32, 0],
            [1, notes_at + note.len() as u32, 0, PAGE as u32, len, len],
        ];
        for (index, segment) in segments.iter().enumerate() {
            let bytes: Vec<u8> = segment.iter().flat_map(|word| word.to_le_bytes()).collect();
            core[52 + 32 * index..][..24].copy_from_slice(&bytes);
        }
        core.extend(note);
        frames.0.iter().for_each(|frame| core.extend(frame));
        let path = folder("x86").join(if is_pae { "pae.core" } else { "plain.core" });
        std::fs::write(&path, core).unwrap();
        let opened = dump::open(&path, None).unwrap_or_else(|error| panic!("{is_pae}: {error}"));
        let version = opened.source.version().unwrap();
        assert_eq!(
            (version.base, version.machine, version.is_64_bit()),
            (VirtAddr(BASE.into()), MachineType::I386, false)
        );
        let opened = debugger(&path, &symbols(&WINDOWS_7_SP1));
        let target = opened.target().unwrap();
        assert_eq!(text(&target, "r eax, esp, eip, cs"), "eax=0000eaea esp=8a001f00 eip=80400123 cs=0008\n");
        assert!(text(&target, &format!("da {IN_TRANSITION:x} L8")).contains("still he"));
    }
}
