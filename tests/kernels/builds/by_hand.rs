//! The machine's structures read by hand, at the offsets that `../shared/data/layouts.json` has for real kernels: no layout
//! file and no PDB says where anything is, but for the addresses of global variables.
//!
//! Without `../shared` (a user's clone; `VERIKD_SHARED` names another folder) these tests say so and pass.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde_json::Value;
use verikd::memory::VirtAddr;
use verikd_sim::windows::{BUILDS, Build, Machine, Scenario};

/// Which builds of `layouts.json` a simulated one is made from: its own, then those that say what its own leaves out.
const SOURCES: &[(&str, &[&str])] = &[
    ("7sp1", &["6.1.7601"]),
    ("8.1", &["6.3.9600"]),
    ("10-1607", &["10.0.14393"]),
    ("10-1809", &["10.0.17763"]),
    ("10-1903", &["10.0.18362"]),
    ("10-22h2", &["10.0.19041"]),
    ("2022", &["10.0.20348"]),
    ("11-21h2", &["10.0.22000"]),
    ("11-23h2", &["10.0.22621", "10.0.22000"]),
    ("11-24h2", &["10.0.26100", "10.0.22000"]),
    ("11-25h2", &["10.0.26200", "10.0.26100", "10.0.22000"]),
];

const DATA: &str = "_VF_TARGET_VERIFIED_DRIVER_DATA";

#[test]
fn the_published_leak_lies_where_real_kernels_have_it() {
    let Some(layouts) = layouts() else { return };
    for build in BUILDS {
        let hand = Hand::new(build, Scenario::Myfault, &layouts);
        let name = build.name;
        let global = hand.symbol("MmVerifierData");
        let counter = |field| hand.number(global, "_MM_DRIVER_VERIFIER_DATA", field);
        assert_eq!((counter("Level"), counter("AllocationsAttempted")), (8, 0xb), "{name}");
        assert_eq!((counter("NonPagedBytes"), counter("PeakPagedBytes")), (0x9c_e000, 0x80), "{name}");

        let [driver] = hand.drivers()[..] else { panic!("{name}: one driver") };
        assert_eq!(driver, 0xffff_fa80_031b_5830, "{name}: printed as Entry");
        let base = hand.number(driver, "_VF_TARGET_DRIVER", "TreeNode");
        assert_eq!(base, 0xffff_f880_0447_c000, "{name}: a tree node begins with the image's base");
        let data = hand.number(driver, "_VF_TARGET_DRIVER", "VerifiedData");
        assert_eq!(hand.number(data, DATA, "Signature"), 0x9876_1940, "{name}");
        let counted = ["CurrentNonPagedPoolAllocations", "NonPagedBytes", "PeakPagedPoolAllocations"];
        assert_eq!(counted.map(|field| hand.number(data, DATA, field)), [0xa, 0x9c_e000, 1], "{name}");
        let suspect = hand.number(data, DATA, "SuspectDriverEntry");
        let file = suspect + hand.offset("_VF_SUSPECT_DRIVER_ENTRY", "BaseName");
        assert_eq!(hand.unicode(file), "myfault.sys", "{name}");

        let blocks = hand.blocks(data);
        assert_eq!(blocks.len(), 10, "{name}");
        assert_eq!(blocks[0], (0xffff_fa80_0540_0000, 0xffff_f880_0447_d634, 0xf_b000, *b"Leak"), "{name}");
        let newest = hand.log_record(0x11c);
        assert_eq!(
            (newest[0], newest[1], newest[2]),
            (blocks[0].0, 0xf_a000, 0xffff_fa80_044c_eb60),
            "{name}"
        );
        assert_eq!(
            (newest[3], newest[10], newest[11]),
            (0xffff_f800_0192_7cc6, 0xffff_f800_0148_bed3, 0),
            "{name}"
        );
    }
}

#[test]
fn three_drivers_and_20_000_blocks_lie_where_real_kernels_have_them() {
    let Some(layouts) = layouts() else { return };
    for build in BUILDS {
        let hand = Hand::new(build, Scenario::Many, &layouts);
        let mut blocks = HashSet::new();
        let drivers = hand.drivers();
        for driver in &drivers {
            let data = hand.number(*driver, "_VF_TARGET_DRIVER", "VerifiedData");
            let listed = hand.blocks(data);
            let counted: u64 = ["CurrentPagedPoolAllocations", "CurrentNonPagedPoolAllocations"]
                .map(|field| hand.number(data, DATA, field))
                .iter()
                .sum();
            assert_eq!(counted, listed.len() as u64, "{}", build.name);
            blocks.extend(listed.into_iter().map(|(address, ..)| address));
        }
        assert_eq!((drivers.len(), blocks.len()), (3, 20_000), "{}", build.name);
    }
}

#[test]
fn what_only_some_builds_have_is_there_on_those() {
    let Some(layouts) = layouts() else { return };
    for build in BUILDS {
        let hand = Hand::new(build, Scenario::Unloaded, &layouts);
        let [driver] = hand.drivers()[..] else { panic!("{}: one driver", build.name) };
        if hand.has("_VF_TARGET_DRIVER", "DriverObject") {
            let object = hand.number(driver, "_VF_TARGET_DRIVER", "DriverObject");
            // _DRIVER_OBJECT, the same on all x64 builds: Type 4, DriverStart at 0x18, DriverName at 0x38.
            assert_eq!((hand.word(object) & 0xffff, hand.word(object + 0x18)), (4, 0xffff_f880_044a_0000));
            assert_eq!(hand.unicode(object + 0x38), r"\Driver\netfilt", "{}", build.name);
        }
        let mut suspects = Vec::new();
        let head = hand.symbol("VfSuspectDriversList");
        let mut entry = hand.word(head);
        while entry != head {
            let count = |field| hand.number(entry, "_VF_SUSPECT_DRIVER_ENTRY", field);
            let field = |field| entry + hand.offset("_VF_SUSPECT_DRIVER_ENTRY", field);
            suspects.push((hand.unicode(field("BaseName")), count("Loads"), count("Unloads")));
            if hand.has("_VF_SUSPECT_DRIVER_ENTRY", "FullName") && count("Loads") > 0 {
                assert!(hand.unicode(field("FullName")).ends_with(&suspects[suspects.len() - 1].0));
            }
            entry = hand.word(entry);
        }
        let suspect = |name: &str, loads, unloads| (name.to_owned(), loads, unloads);
        let expected =
            [suspect("myfault.sys", 1, 1), suspect("netfilt.sys", 2, 1), suspect("storfilt.sys", 0, 0)];
        assert_eq!(suspects, expected, "{}", build.name);
    }
}

fn layouts() -> Option<Value> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let shared = std::env::var_os("VERIKD_SHARED").map_or_else(beside, PathBuf::from);
    let Ok(text) = std::fs::read(shared.join("data/layouts.json")) else {
        println!("skipped: there is no {} with data of real kernels", shared.display());
        return None;
    };
    Some(serde_json::from_slice(&text).unwrap())
}

/// A machine, and where a real kernel of its build has what.
struct Hand<'a> {
    machine: Machine,
    build: &'static Build,
    layouts: Vec<&'a Value>,
}

/// Address, caller, size and tag of a block.
type Block = (u64, u64, u64, [u8; 4]);

impl<'a> Hand<'a> {
    fn new(build: &'static Build, scenario: Scenario, layouts: &'a Value) -> Self {
        let mut machine = Machine::with_scenario(build, scenario, 0);
        machine.break_in();
        let (_, sources) = SOURCES.iter().find(|(name, _)| *name == build.name).expect("every build");
        let of_source = |source: &&str| {
            let found = layouts.as_object().unwrap().iter().find(|(key, _)| key.starts_with(source));
            found.unwrap_or_else(|| panic!("layouts of {source}")).1
        };
        Self { machine, build, layouts: sources.iter().map(of_source).collect() }
    }

    /// Offset, bytes and bits of a field; a structure is told by the first source that has it.
    fn field(&self, structure: &str, field: &str) -> Option<&Value> {
        let found = self.layouts.iter().find_map(|layouts| layouts.get(structure));
        found.unwrap_or_else(|| panic!("{}: {structure}", self.build.name))["fields"].get(field)
    }

    fn has(&self, structure: &str, field: &str) -> bool {
        self.field(structure, field).is_some()
    }

    fn offset(&self, structure: &str, field: &str) -> u64 {
        let found = self.field(structure, field);
        let found = found.unwrap_or_else(|| panic!("{}: {structure}.{field}", self.build.name));
        found["offset"].as_u64().unwrap()
    }

    fn size(&self, structure: &str) -> u64 {
        let found = self.layouts.iter().find_map(|layouts| layouts.get(structure)).expect("a structure");
        found["size"].as_u64().unwrap()
    }

    /// A field of four or eight bytes; of an aggregate its first eight.
    fn number(&self, at: u64, structure: &str, field: &str) -> u64 {
        let size = self.field(structure, field).and_then(|field| field["size"].as_u64()).unwrap_or(8);
        let value = self.word(at + self.offset(structure, field));
        if size == 4 { value & 0xffff_ffff } else { value }
    }

    fn word(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        assert_eq!(self.machine.read_virtual(VirtAddr(at), &mut bytes), 8, "{}: {at:x}", self.build.name);
        u64::from_le_bytes(bytes)
    }

    fn unicode(&self, at: u64) -> String {
        let mut text = vec![0; (self.word(at) & 0xffff) as usize];
        self.machine.read_virtual(VirtAddr(self.word(at + 8)), &mut text);
        let units: Vec<_> = text.chunks(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
        String::from_utf16(&units).unwrap()
    }

    fn symbol(&self, name: &str) -> u64 {
        let layout = self.build.images[0].layout().unwrap();
        layout.base + u64::from(layout.symbol(name).unwrap_or_else(|| panic!("{name}")))
    }

    /// Entries of the drivers in the tree.
    fn drivers(&self) -> Vec<u64> {
        let tree = self.symbol("ViTargetDriversAvl");
        let tables = self.number(tree, "_VF_AVL_TREE", "Tables");
        let links = self.size("_RTL_BALANCED_LINKS");
        let mut drivers = Vec::new();
        for number in 0..self.number(tree, "_VF_AVL_TREE", "TablesNo") {
            let table = tables + number * self.size("_VF_AVL_TABLE");
            let elements = self.number(table, "_RTL_AVL_TABLE", "NumberGenericTableElements");
            let before = drivers.len();
            let mut nodes = vec![self.number(table, "_RTL_BALANCED_LINKS", "RightChild")];
            while let Some(node) = nodes.pop() {
                if node != 0 {
                    let child = |field| self.number(node, "_RTL_BALANCED_LINKS", field);
                    nodes.extend([child("LeftChild"), child("RightChild")]);
                    drivers.push(node + links);
                }
            }
            assert_eq!((drivers.len() - before) as u64, elements, "{}", self.build.name);
        }
        drivers
    }

    /// Blocks of a driver, the newest first.
    fn blocks(&self, data: u64) -> Vec<Block> {
        let head = |field| data + self.offset(DATA, field);
        // Both forms of 16-byte list header have the first entry in the upper 60 bits of the second quadword.
        let first = |head| self.word(head + 8) & !0xf;
        let depth = |head| self.word(head) & 0xffff;
        let mut free = HashSet::new();
        let mut slot = first(head("PoolTrackers"));
        while slot != 0 {
            assert!(free.insert(slot));
            slot = self.word(slot);
        }
        assert_eq!(free.len() as u64, depth(head("PoolTrackers")), "{}", self.build.name);
        let (mut blocks, mut pages) = (Vec::new(), 0);
        let mut page = first(head("PoolPageHeaders"));
        let slot_size = self.size("_VI_POOL_ENTRY");
        while page != 0 {
            pages += 1;
            assert_eq!(self.number(page, "_VI_POOL_PAGE_HEADER", "Signature"), 0x2132_1345);
            assert_eq!(self.number(page, "_VI_POOL_PAGE_HEADER", "VerifierEntry"), data);
            for number in 1..0x1000 / slot_size {
                let slot = page + number * slot_size;
                if !free.contains(&slot) {
                    let field = |field| self.number(slot, "_VI_POOL_ENTRY_INUSE", field);
                    let tag = (field("Tag") as u32).to_le_bytes();
                    let address = field("VirtualAddress");
                    blocks.push((address, field("CallingAddress"), field("NumberOfBytes"), tag));
                    assert_eq!(self.word(address + field("NumberOfBytes") - 8), slot, "leads back");
                }
            }
            page = self.word(page);
        }
        assert_eq!(pages, depth(head("PoolPageHeaders")), "{}", self.build.name);
        blocks
    }

    /// The quadwords of the log's record of `age` events ago.
    fn log_record(&self, age: u64) -> Vec<u64> {
        let variable = |name| self.word(self.symbol(name)) & 0xffff_ffff;
        let (index, length) = (variable("VfPoolTracesIndex"), variable("VfPoolTracesLength"));
        let size = self.size("_VF_POOL_TRACE");
        let record = self.word(self.symbol("VfPoolTraces")) + (index - age) % length * size;
        (0..size / 8).map(|number| self.word(record + number * 8)).collect()
    }
}
