//! What images export, as symbols where there is no symbol file: read from the target's memory, whatever is there.

use std::sync::Arc;

use crate::support::World;
use crate::support::image::pe_image;
use crate::support::machine::{Still, folder, stopped, store, version_of};
use crate::support::text::{run, text};
use object::{LittleEndian as LE, U16, U32, pe};
use proptest::prelude::*;
use verikd::memory::{CountingMemory, VirtAddr};
use verikd::symbols::store::SymbolPath;
use verikd::symbols::table::TableSymbols;
use verikd::symbols::{ExportSymbols, Guid, PdbIdentity, Rva, Symbols};
use verikd::target::{Kernel, Module, Target};
use verikd_sim::windows::{Machine, WINDOWS_7_SP1};

/// Of the simulated machine, a kernel whose PDBs are those called in `pdbs`, in a folder called `name`.
fn with_pdbs(name: &str, pdbs: &[&str]) -> (Still, Kernel) {
    let mut machine = Machine::windows_7_sp1();
    machine.break_in();
    let folder = folder(name);
    for image in WINDOWS_7_SP1.images.iter().filter(|image| pdbs.contains(&image.pdb_file)) {
        std::fs::write(folder.join(image.pdb_file), image.pdb).unwrap();
    }
    let kernel = Kernel::new(version_of(&machine), SymbolPath::parse(&folder.display().to_string()));
    (Still(machine), kernel)
}

#[test]
fn exports_equal_the_pdbs_symbols_of_the_same_names() {
    let (machine, without) = with_pdbs("exports_none", &[]);
    let (_, with) = stopped("exports_all");
    let (without, with) = (Target::new(&machine, &without), Target::new(&machine, &with));
    for (image, module) in WINDOWS_7_SP1.images.iter().zip(["nt", "hal", "ndis", "myfault"]) {
        let names = image.layout().unwrap().exports;
        let found = without.module_names(module).map(|(_, symbols)| {
            symbols
                .symbols()
                .map(|symbol| symbol.name.into_owned())
                .collect::<std::collections::BTreeSet<_>>()
        });
        if names.is_empty() {
            assert!(found.unwrap_err().to_string().starts_with("myfault has no symbols: no symbols for"));
            continue;
        }
        assert_eq!(found.unwrap(), names.iter().cloned().collect(), "{module}");
        for name in names {
            let name = format!("{module}!{name}");
            assert_eq!(without.address_of(&name).unwrap(), with.address_of(&name).unwrap(), "{name}");
        }
    }
}

#[test]
fn an_export_table_costs_its_headers_and_one_read_and_only_when_a_name_is_needed() {
    let (machine, kernel) = with_pdbs("exports_cost", &["ntkrnlmp.pdb"]);
    let memory = CountingMemory::new(machine.clone());
    let target = || Target::new(&memory, &kernel);
    let row = |name: &str| {
        let text = text(&target(), &format!("lm m {name}"));
        text.lines().nth(1).unwrap().split_once("   ").unwrap().1.to_owned()
    };
    assert_eq!(row("hal"), "hal        (deferred)");
    assert_eq!(row("ndis"), "ndis       (deferred)");

    let modules = target().modules().unwrap();
    let hal = modules.called("hal").unwrap();
    let inside =
        hal.base.offset(u64::from(target().exports(hal).unwrap().address_of("HalMakeBeep").unwrap().0));
    let ndis = modules.called("ndis").unwrap();
    let before = memory.reads();
    assert!(target().symbols(ndis).is_err());
    assert_eq!(memory.reads() - before, 2, "headers and debug directory: types need no exports");
    let before = memory.reads();
    assert!(target().names(ndis).is_ok());
    assert!(memory.reads() - before <= 3, "headers, section headers, the table: {}", memory.reads() - before);
    let before = memory.reads();
    assert!(target().names(ndis).is_ok());
    assert_eq!(memory.reads(), before, "read once");

    assert_eq!(row("ndis"), "ndis       (export symbols)       ndis.sys");
    assert_eq!(target().symbol_at(inside.offset(0x12)).to_string(), "hal!HalMakeBeep+0x12");
    assert!(target().names(modules.called("myfault").unwrap()).is_err());
    assert_eq!(row("myfault"), "myfault    (no symbols)");
    assert!(text(&target(), "lml").contains("ndis       (export symbols)"));
    let without_file = text(&target(), "lme");
    assert!(without_file.contains("myfault    (no symbols)"), "{without_file}");
    assert!(without_file.contains("ndis       (export symbols)"), "{without_file}");
}

#[test]
fn without_the_kernels_pdb_its_exports_name_addresses_and_stand_in_expressions() {
    let (machine, kernel) = with_pdbs("exports_nt", &[]);
    let target = || Target::new(&machine, &kernel);
    let listed = text(&target(), "x nt!KeBug*");
    let [check, check_ex] = listed.lines().collect::<Vec<_>>()[..] else { panic!("{listed}") };
    assert!(check.ends_with(" nt!KeBugCheck") && check_ex.ends_with(" nt!KeBugCheckEx"), "{listed}");
    let address = check_ex.split_once(' ').unwrap().0;
    assert_eq!(text(&target(), "? nt!KeBugCheckEx+0"), text(&target(), &format!("? {address}")));
    assert!(text(&target(), &format!("ln {address}+4")).contains("nt!KeBugCheckEx+0x4   |  ("));
    let frame = text(&target(), "ln nt!IofCallDriver");
    assert!(frame.contains("Exact matches:\n    nt!IofCallDriver\n"), "{frame}");
    let reloaded = text(&target(), ".reload ndis");
    assert_eq!(reloaded, "ndis   (export symbols)   ndis.sys\n");
    let dt = run(&target(), "dt nt!_VF_POOL_TRACE").map(|_| ()).unwrap_err().to_string();
    assert!(dt.contains("nt has no symbols: no symbols for ntkrnlmp.pdb (identity "), "{dt}");
}

#[test]
fn a_stack_of_the_pool_log_is_named_by_exports_where_a_driver_has_no_pdb() {
    let (machine, kernel) = with_pdbs("exports_stack", &["ntkrnlmp.pdb"]);
    let target = Target::new(&machine, &kernel);
    let log = text(&target, "!verifier 80 fffffa8005400000");
    assert!(log.contains("nt!IovCallDriver+0xa0") && log.contains(" myfault+0x1634"), "{log}");
}

/// An image at [`BASE`] whose export table is at [`TABLE`].
struct Exporting {
    image: Vec<u8>,
    table: Vec<u8>,
}

const BASE: VirtAddr = VirtAddr(0xffff_f880_0100_0000);
const SIZE: u32 = 0x2_0000;
const TABLE: u32 = 0x2000;

impl Exporting {
    /// Functions at these RVAs; names are of those numbered; forwarders' texts stand in place of an RVA.
    fn new(functions: &[Result<u32, &str>], names: &[(&str, u16)]) -> Self {
        const HEAD: usize = size_of::<pe::ImageExportDirectory>();
        let (addresses, pointers) = (HEAD, HEAD + functions.len() * 4);
        let ordinals = pointers + names.len() * 4;
        let mut table = vec![0; ordinals + names.len() * 2];
        let rva = |at: usize| TABLE + u32::try_from(at).unwrap();
        let text = |table: &mut Vec<u8>, text: &str| {
            let at = rva(table.len());
            table.extend_from_slice(text.as_bytes());
            table.push(0);
            at
        };
        for (index, function) in functions.iter().enumerate() {
            let value = match function {
                Ok(rva) => *rva,
                Err(forwarder) => text(&mut table, forwarder),
            };
            table[addresses + index * 4..][..4].copy_from_slice(&value.to_le_bytes());
        }
        for (index, (name, ordinal)) in names.iter().enumerate() {
            let at = text(&mut table, name);
            table[pointers + index * 4..][..4].copy_from_slice(&at.to_le_bytes());
            table[ordinals + index * 2..][..2].copy_from_slice(&ordinal.to_le_bytes());
        }
        let word = |value: usize| U32::new(LE, u32::try_from(value).unwrap());
        let head = pe::ImageExportDirectory {
            characteristics: word(0),
            time_date_stamp: word(0),
            major_version: U16::new(LE, 0),
            minor_version: U16::new(LE, 0),
            name: word(0),
            base: word(100),
            number_of_functions: word(functions.len()),
            number_of_names: word(names.len()),
            address_of_functions: U32::new(LE, rva(addresses)),
            address_of_names: U32::new(LE, rva(pointers)),
            address_of_name_ordinals: U32::new(LE, rva(ordinals)),
        };
        table[..HEAD].copy_from_slice(object::pod::bytes_of(&head));
        let mut exporting = Self { image: pe_image(SIZE, &identity()), table };
        exporting.say(TABLE, u32::try_from(exporting.table.len()).unwrap());
        exporting
    }

    /// Has the data directory say where the table is.
    fn say(&mut self, rva: u32, size: u32) {
        let at = 0xe8 + 24 + 112;
        self.image[at..at + 8].copy_from_slice(&[rva.to_le_bytes(), size.to_le_bytes()].concat());
    }

    fn world(&self) -> World {
        let nt = TableSymbols::new(identity()).symbol("ExFreePool", 0x1230);
        let mut world = World::new(VirtAddr(0xffff_f800_0140_0000), 0x10_0000, Arc::new(nt));
        world.map(BASE, SIZE.into());
        world.write(BASE, &self.image);
        world.write(BASE.offset(TABLE.into()), &self.table);
        world
    }

    fn read(&self) -> Option<Arc<ExportSymbols>> {
        self.world().boot().target().exports(&module())
    }
}

fn identity() -> PdbIdentity {
    PdbIdentity::new("d.pdb", Guid([3; 16]), 1)
}

fn module() -> Module {
    Module { name: "d".into(), image_name: "d.sys".to_owned(), base: BASE, size: SIZE }
}

fn listed(exports: &ExportSymbols) -> Vec<(String, u32)> {
    exports.symbols().map(|symbol| (symbol.name.into_owned(), symbol.rva.0)).collect()
}

#[test]
fn nameless_exports_are_called_by_ordinal_and_gaps_are_none() {
    let image = Exporting::new(&[Ok(0x1100), Ok(0), Ok(0x1300), Ok(0x1200)], &[("Beta", 3), ("Zeta", 0)]);
    let exports = image.read().unwrap();
    let named = [("Zeta", 0x1100), ("Beta", 0x1200), ("Ordinal102", 0x1300)];
    assert_eq!(listed(&exports), named.map(|(name, rva)| (name.to_owned(), rva)));
    assert_eq!((exports.unread(), exports.nearest(Rva(0x12ff)).unwrap().rva), (0, Rva(0x1200)));
}

#[test]
fn a_forwarder_is_followed_to_its_module_and_is_no_address_of_its_own() {
    let forwarders = [Err("NTOSKRNL.ExFreePool"), Err("ntoskrnl.#7"), Err("nowhere"), Ok(0x1100)];
    let image = Exporting::new(&forwarders, &[("Free", 0), ("Here", 3), ("Lost", 2), ("Seven", 1)]);
    let exports = image.read().unwrap();
    assert_eq!(listed(&exports), [("Here".to_owned(), 0x1100)]);
    assert_eq!(exports.forwarder("Seven").unwrap(), ("ntoskrnl", "Ordinal7".into()));

    let mut world = image.world();
    let (list, entry) = (VirtAddr(0xffff_f800_0163_0000), VirtAddr(0xffff_fa80_0000_1000));
    world.version.module_list = list;
    world.write(list, &entry.0.to_le_bytes());
    world.write(entry, &list.0.to_le_bytes());
    world.write(entry.offset(0x30), &BASE.0.to_le_bytes());
    world.write(entry.offset(0x40), &SIZE.to_le_bytes());
    world.put_string(entry.offset(0x58), entry.offset(0xe0), "d.sys");
    let booted = world.boot();
    let target = booted.target();
    assert_eq!(target.address_of("d!Free").unwrap(), world.global("ExFreePool"));
    assert_eq!(target.address_of("d!Here").unwrap(), BASE.offset(0x1100));
    assert!(target.address_of("d!Seven").is_err() && target.address_of("d!Lost").is_err());
}

#[test]
fn pages_that_are_not_in_memory_cost_their_names_only() {
    let names: Vec<_> = (0..1500_u16).map(|index| format!("RoutineNumber{index:05}")).collect();
    let functions: Vec<_> = (0..1500).map(|index| Ok(0x1000 + index)).collect();
    let named: Vec<_> = (0..).zip(&names).map(|(index, name)| (name.as_str(), index)).collect();
    let image = Exporting::new(&functions, &named);
    let whole = image.read().unwrap();
    assert_eq!((listed(&whole).len(), whole.unread()), (1500, 0));
    for page in 0..image.table.len().div_ceil(0x1000) as u64 {
        let mut world = image.world();
        world.unmap(BASE.offset(u64::from(TABLE) + page * 0x1000));
        let exports = world.boot().target().exports(&module());
        if page == 0 {
            assert!(exports.is_none(), "without its head there is no table");
            continue;
        }
        let exports = exports.unwrap();
        let listed = listed(&exports);
        assert_eq!(listed.len() + exports.unread(), 1500, "page {page}");
        assert!(exports.unread() > 0 && listed.iter().all(named_right), "page {page}");
    }
}

/// True if the name says the address, as in the test above.
fn named_right((name, rva): &(String, u32)) -> bool {
    name.strip_prefix("RoutineNumber").is_some_and(|number| number.parse() == Ok(rva - 0x1000))
}

#[test]
fn a_table_that_cannot_be_is_none() {
    let good = || Exporting::new(&[Ok(0x1100)], &[("Name", 0)]);
    assert!(good().read().is_some());
    for (rva, size) in [(0, 0), (SIZE, 0x100), (u32::MAX, u32::MAX), (TABLE, 0x20), (TABLE + 1, 0x40)] {
        let mut image = good();
        image.say(rva, size);
        assert!(image.read().is_none(), "{rva:#x} {size:#x}");
    }
    let mut long = good();
    long.say(TABLE, u32::MAX);
    assert_eq!(listed(&long.read().unwrap()).len(), 1, "a length past the image's end is cut there");
    let mut control = Exporting::new(&[Ok(0x1100)], &[("a\x1b[2J", 0)]);
    assert!(control.read().is_none(), "nothing of the target's reaches the terminal as it is");
    control = Exporting::new(&[Ok(SIZE + 5)], &[("Outside", 0)]);
    assert!(control.read().is_none());
}

/// A name for each ordinal there is, all of the same bytes: what a table says must not cost more than it is long.
#[test]
fn a_table_whose_names_are_one_long_text_costs_no_more_than_its_bytes() {
    let names: Vec<_> = (0..2000_u16).map(|index| (if index == 0 { "x" } else { "" }, index)).collect();
    let mut image = Exporting::new(&vec![Ok(0x1100); 2000], &names);
    let pointers = size_of::<pe::ImageExportDirectory>() + 2000 * 4;
    let long = u32::try_from(image.table.len()).unwrap();
    image.table.extend_from_slice(&[b'n'; 0xfff]);
    image.table.push(0);
    for at in (0..2000).map(|index| pointers + index * 4) {
        // Each begins one byte further on, so that no two are the same.
        let name = TABLE + long + u32::try_from((at - pointers) / 4).unwrap();
        image.table[at..at + 4].copy_from_slice(&name.to_le_bytes());
    }
    image.say(TABLE, u32::try_from(image.table.len()).unwrap());
    let exports = image.read().unwrap();
    let text: usize = exports.symbols().map(|symbol| symbol.name.len()).sum();
    assert!(text <= image.table.len() && exports.unread() > 1900, "{text} bytes, {}", exports.unread());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_byte_of_a_table_can_do_harm(
        changes in proptest::collection::vec((0_usize..0x80, any::<u8>()), 1..12),
    ) {
        let mut image =
            Exporting::new(&[Ok(0x1100), Err("nt.Name"), Ok(0x1200)], &[("One", 0), ("Three", 2), ("Two", 1)]);
        for (at, byte) in changes {
            if let Some(place) = image.table.get_mut(at) {
                *place = byte;
            }
        }
        if let Some(exports) = image.read() {
            prop_assert!(exports.symbols().all(|symbol| symbol.rva.0 < SIZE));
            prop_assert!(exports.symbols().count() <= 0x1_0000);
        }
    }
}

#[test]
fn symbols_found_later_take_the_place_of_exports() {
    let (machine, kernel) = with_pdbs("exports_then_pdb", &[]);
    let target = || Target::new(&machine, &kernel);
    assert!(target().layout("nt!_VF_POOL_TRACE").is_err());
    assert!(text(&target(), "lm m nt").contains("(no symbols)"), "names alone make exports be read");
    assert!(target().address_of("nt!VfPoolTraces").is_err());
    assert!(text(&target(), "lm m nt").contains("nt         (export symbols)       ntoskrnl.exe"));
    kernel.set_symbol_path(SymbolPath::parse(&store("exports_then_pdb_store").display().to_string()));
    assert!(target().address_of("nt!VfPoolTraces").is_ok());
    assert!(text(&target(), "lm m nt").contains("nt         (pdb symbols)"));
}
