//! A kernel in which every kind of name and every kind of answer occurs, and lines that ask for all of it.

use verikd::memory::VirtAddr;
use verikd::symbols::table::TableSymbols;
use verikd::symbols::{Guid, PdbIdentity};

use super::World;
use super::image::pe_image;
use super::verifier::{Build, MYFAULT, MYFAULT_SIZE, SUSPECT, leak};

pub const OTHER: VirtAddr = VirtAddr(0xffff_f880_0500_0000);
const ENTRY: VirtAddr = VirtAddr(0xffff_fa80_0330_0200);
const OTHER_ENTRY: VirtAddr = VirtAddr(0xffff_fa80_0330_0600);
const UNLOADED: VirtAddr = VirtAddr(0xffff_fa80_0b00_0000);
const GONE: VirtAddr = VirtAddr(0xffff_f880_0600_0000);
const THING: VirtAddr = VirtAddr(0xffff_fa80_0a00_0000);

/// Each with everything that a command may print of a target.
pub const LINES: &[&str] = &[
    "lm",
    "lmv",
    "lmvn",
    "lmnt",
    "lm1m",
    "lmsm",
    "lmv m other*",
    "lma fffff88005000010",
    "x myfault!*",
    "x *!*",
    "x /1 /n myfault!*",
    "x nt!*no*such*",
    "ln fffff8800447c010",
    "ln fffff8800447c000",
    "ln fffff88005000010",
    "ln fffff88006000010",
    "ln fffff88007000010",
    "lma fffff88006000010",
    "dt myfault!*",
    "dt myfault!_T* fffffa800a000000",
    "dt -v myfault!_THING fffffa800a000000",
    "dt -r myfault!_THING",
    "dt myfault!_THING fffffa800a000000 Kind Nothing*",
    "dt myfault!_NOTHING",
    "dt nt!_KLDR_DATA_TABLE_ENTRY fffffa8003300200",
    "dps fffffa800a000000 L20",
    "dds fffffa800a000000 L4",
    "dqs fffffa800a000000 L4",
    "dpp fffffa800a000000 L20",
    "dpa fffffa800a000000 L20",
    "dpu fffffa800a000000 L20",
    "dl nt!PsLoadedModuleList",
    "da fffffa800a000100",
    "du fffffa800a000200",
    "db fffffa800a000100 L80",
    "dc fffffa800a000100 L20",
    "dw fffffa800a000100 L20",
    "s -b fffffa800a000100 L80 2e 73 79 73",
    "u fffff8800447c000 L4",
    "ub fffff8800447c020 L2",
    "uf fffffa800a000f80",
    "!verifier",
    "!verifier 1",
    "!verifier 3",
    "!verifier 3 nosuch.sys",
    ".dump /used /nowhere/at/all.dmp",
    ".writemem /nowhere/at/all.bin fffffa800a000000 L20",
    "!poolused",
    "!poolused 3 Le*",
    "!poolfind Leak",
    "!poolfind Irp -small",
    "!poolfind -k Leak",
    "!pool fffffa8005400000",
    "!pool -k fffffa8005400000",
    "!pool -f fffffa8003667810 1",
    "!pooltag Leak",
    "!vm 1",
    "!leaks -v",
    "!leaks -by thread nosuch.sys",
    "!verifier 7cf",
    "!verifier 80",
    "!verifier 80 fffffa8005400000",
    ".reload /f",
    ".reload /u myfault",
    ".reload",
    ".bugcheck",
    "vertarget",
    ".time",
    "!running -i",
    "? myfault!nosuch",
    "? poi(myfault!nosuch)",
    "r",
    "~1s",
    "k",
    "kv",
    "kb",
    "kn 1",
    "kc = fffffa800a000000 fffff8800447c010",
    "k = fffffa800a000000 fffff88005000010",
    "kf = fffffa800a000000 fffff88006000010",
    ".formats 1b1b1b1b07070707",
    ".sympath",
    "!sym",
    ".help",
    ".echo x",
];

/// The published leak, in which everything that has a name is called `name`.
pub fn named(name: &str) -> World {
    let mut world = leak(Build::Windows7);
    let file = format!("{name}.sys");
    let units: Vec<u8> = file.encode_utf16().flat_map(u16::to_le_bytes).collect();
    world.put_string(ENTRY.offset(0x58), ENTRY.offset(0xe0), &file);
    // A module whose symbols nobody has, and whose PDB is called so too.
    let next = world.read(ENTRY, 8);
    world.write(ENTRY, &OTHER_ENTRY.0.to_le_bytes());
    world.write(OTHER_ENTRY, &next);
    world.put_pointers(OTHER_ENTRY.offset(0x30), &[OTHER.0]);
    world.write(OTHER_ENTRY.offset(0x40), &0x8000_u32.to_le_bytes());
    world.put_string(OTHER_ENTRY.offset(0x58), OTHER_ENTRY.offset(0xe0), &format!("other{file}"));
    // No file has a name with a colon: the harmless one is refused with the same words.
    world.put_string(
        OTHER_ENTRY.offset(0x48),
        OTHER_ENTRY.offset(0x140),
        &format!("\\SystemRoot\\other{file}"),
    );
    let pdb = PdbIdentity { name: format!(":{name}.pdb"), guid: Guid([9; 16]), age: 1 };
    world.write(OTHER, &pe_image(0x8000, &pdb));
    world.write(MYFAULT, &pe_image(MYFAULT_SIZE, &pdb));
    put_suspect(&mut world, &file);
    // The types' own grammar has no room for spaces and line ends.
    let word: String = name.chars().filter(|c| !c.is_whitespace()).collect();
    let types = format!(
        "_T{word} 10\n  F{word} 0 u64\n_THING 40\n  Kind 0 enum=_K\n  Code 8 code\n  Text 10 char[10]\n  Wide 20 wchar[8]\n  F{word} 38 *_T{word}\n"
    );
    let symbols = TableSymbols::new(pdb)
        .symbol(name, 0)
        .symbol(&format!("Other{name}"), 0x20)
        .symbol(&format!("?{name}@@YAXXZ"), 0x40)
        .enumeration("_K", &[(name, 1)])
        .types(&types);
    world.symbols(MYFAULT, MYFAULT_SIZE, symbols);
    let gone = world.global("MmUnloadedDrivers");
    world.put_pointers(gone, &[UNLOADED.0]);
    world.map(UNLOADED, 50 * 0x28);
    world.put_string(UNLOADED, UNLOADED.offset(0x900), &format!("gone{file}"));
    world.put_pointers(UNLOADED.offset(0x10), &[GONE.0, GONE.0 + 0x8000]);
    world.put_pointers(THING.offset(0x28), &[GONE.0 + 0x10]);
    world.write(THING, &[1, 0, 0, 0, 0, 0, 0, 0]);
    world.put_pointers(THING.offset(8), &[MYFAULT.0 + 4]);
    world.write(THING.offset(0x10), &file.as_bytes()[..file.len().min(15)]);
    world.write(THING.offset(0x20), &units[..units.len().min(14)]);
    world.put_pointers(THING.offset(0x38), &[OTHER.0 + 8]);
    world.write(THING.offset(0x100), file.as_bytes());
    world.write(THING.offset(0x200), &units);
    world
}

fn put_suspect(world: &mut World, file: &str) {
    let at = SUSPECT.offset(world.offset("_VF_SUSPECT_DRIVER_ENTRY", "BaseName"));
    let text = SUSPECT.offset(world.size("_VF_SUSPECT_DRIVER_ENTRY"));
    world.put_string(at, text, file);
}
