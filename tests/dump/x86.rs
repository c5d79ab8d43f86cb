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

/// A dump of type 1 whose kernel has an image's header, a debugger data block and a list of one module.
pub(crate) fn write(name: &str, is_pae: bool) -> PathBuf {
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
    put(0x68, &(frames.0.len() as u32).to_le_bytes());
    put(0x6c, &1_u32.to_le_bytes());
    put(0x70, &(frames.0.len() as u32).to_le_bytes());
    put(0x320, &[0; 0x2cc]);
    put(0x320 + 0xb8, &(BASE + 0x123).to_le_bytes());
    put(0x7d0, &[0; 0x50]);
    put(0x8a0, &[0; 4]);
    put(0xf88, &1_u32.to_le_bytes());
    let path = folder("x86").join(name);
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(&header).unwrap();
    frames.0.iter().for_each(|frame| file.write_all(frame).unwrap());
    path
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
