//! Reads the symbols of real kernels: the ISF files of `../shared/data/isf`, and PDBs rebuilt from them.
//!
//! Without `../shared` (a user's clone; `VERIKD_SHARED` names another folder), `python3` or the toolchain's `rust-lld`
//! these tests say so and pass. `VERIKD_ALL_KERNELS=1` reads all six; a debug build reads one otherwise.

#![cfg(unix)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use crate::support::World;
use crate::support::kernels::{isf_files, kernels_to_read, rebuild, shared};
use crate::support::text::WithNotes as _;
use crate::support::text::{assert_same_text, run, text};
use crate::support::verifier::{CALLER, RING, RINGS, add_ring, leak_on};
use serde_json::Value;
use verikd::memory::VirtAddr;
use verikd::symbols::isf::IsfSymbols;
use verikd::symbols::pdb::{PdbFile, PdbSymbols};
use verikd::symbols::store::{Attempt, Miss, SymbolPath, SymbolSource};
use verikd::symbols::{Guid, PdbIdentity, Rva, SymbolKind, Symbols, Type};
use verikd::target::built_in_layouts;

#[test]
fn every_field_and_address_of_a_real_kernel_is_read_as_its_symbol_table_has_it() {
    for isf in isf_files().into_iter().take(kernels_to_read()) {
        let table = unpack(&isf);
        let metadata = &table["metadata"]["windows"]["pdb"];
        let identity =
            format!("{}{:X}", metadata["GUID"].as_str().unwrap(), metadata["age"].as_u64().unwrap());
        for symbols in readers(&isf) {
            assert_eq!(symbols.identity().to_string(), identity);
            let fields = compare_types(&table["user_types"], &*symbols);
            let names = compare_addresses(&table["symbols"], &*symbols);
            println!("{}: {}: {fields} fields, {names} names", isf.display(), symbols.kind());
            assert!(fields > 5_000 && names > 15_000);
        }
    }
}

#[test]
fn the_structures_of_driver_verifier_are_where_the_layout_tables_say() {
    let Some(shared) = shared() else { return };
    let layouts: Value =
        serde_json::from_slice(&std::fs::read(shared.join("data/layouts.json")).unwrap()).unwrap();
    for isf in isf_files().into_iter().take(kernels_to_read()) {
        let name = isf.file_name().unwrap().to_string_lossy().into_owned();
        // The tables have another update of some builds; updates leave these structures alone.
        let build = name.split('-').nth(1).unwrap().rsplit_once('.').unwrap().0.to_owned();
        let of_build = layouts.as_object().unwrap().iter().find(|(key, _)| key.starts_with(&build));
        let (_, layout) = of_build.unwrap_or_else(|| panic!("no layouts of {build}"));
        for symbols in readers(&isf) {
            let fields = compare_layouts(&build, layout, &*symbols);
            assert!(fields > 200, "{build}: {fields} fields");
        }
    }
}

/// The built-in layouts are of no build: of all.
#[test]
fn built_in_layouts_are_those_of_every_known_kernel() {
    let Some(shared) = shared() else { return };
    let layouts: Value =
        serde_json::from_slice(&std::fs::read(shared.join("data/layouts.json")).unwrap()).unwrap();
    let built_in = built_in_layouts();
    let mut fields = BTreeMap::new();
    let mut same = |build: &str, name: &str, structure: &Value| {
        let layout = built_in.layout(built_in.find_type(name).unwrap()).unwrap();
        let of_build = &structure["fields"];
        for field in &layout.fields {
            let expected = of_build[&*field.name]["offset"].as_u64();
            assert_eq!(expected, Some(field.offset), "{build}: {name}.{}", field.name);
            *fields.entry(name.to_owned()).or_insert(0) += 1;
        }
        // Of these two only the beginning is the same everywhere.
        if !["_MM_DRIVER_VERIFIER_DATA", "_KLDR_DATA_TABLE_ENTRY"].contains(&name) {
            assert_eq!(structure["size"].as_u64(), Some(layout.size), "{build}: {name}");
            let fields = of_build.as_object().unwrap().keys().filter(|name| *name != "Reserved");
            assert_eq!(fields.count(), layout.fields.len(), "{build}: {name}");
        }
    };
    for (build, of_build) in layouts.as_object().unwrap().iter().filter(|(build, _)| build.contains("x64")) {
        for name in built_in.types().filter(|name| of_build[&**name]["fields"].is_object()) {
            same(build, &name, &of_build[&*name]);
        }
    }
    for isf in isf_files().into_iter().take(kernels_to_read()) {
        let types = &unpack(&isf)["user_types"];
        for name in built_in.types().filter(|name| types[&**name].is_object()) {
            same(&isf.display().to_string(), &name, &types[&*name]);
        }
    }
    let missing: Vec<_> = built_in.types().filter(|name| !fields.contains_key(&**name)).collect();
    assert!(missing.is_empty(), "no known kernel has {missing:?}");
}

#[test]
fn the_globals_of_driver_verifier_are_where_the_index_of_builds_says() {
    let Some(shared) = shared() else { return };
    let index: Value =
        serde_json::from_slice(&std::fs::read(shared.join("data/builds_index.json")).unwrap()).unwrap();
    for isf in isf_files().into_iter().take(kernels_to_read()) {
        for symbols in readers(&isf) {
            let identity = symbols.identity();
            let of_build = &index[format!("{}-{:x}", identity.guid, identity.age)]["rva"];
            let mut globals = 0;
            for (name, rva) in of_build.as_object().unwrap() {
                let rva = rva.as_u64().map(|rva| Rva(u32::try_from(rva).unwrap()));
                assert_eq!(symbols.address_of(name), rva, "{}: {name}", isf.display());
                globals += 1;
            }
            assert!(globals > 10);
        }
    }
}

#[test]
fn a_folder_of_isf_files_is_searched_by_what_is_in_them() {
    let Some(isf) = isf_files().into_iter().next() else { return };
    let folder = tempfile::tempdir().unwrap();
    let in_folder =
        |source: &SymbolSource, wanted: &PdbIdentity| source.load(wanted).map(|found| found.kind());
    let wanted = IsfSymbols::open(&isf).unwrap().identity().clone();
    let other = PdbIdentity { age: wanted.age + 1, ..wanted.clone() };
    let source = || SymbolSource::new(SymbolPath::parse(&folder.path().display().to_string()));

    std::fs::write(folder.path().join("broken.json"), "{").unwrap();
    std::fs::write(folder.path().join(format!("x-{}-1.json", Guid::default())), "never read").unwrap();
    let nothing = source();
    assert!(in_folder(&nothing, &wanted).is_err());
    std::fs::copy(&isf, folder.path().join("some kernel.json.xz")).unwrap();
    assert_eq!(in_folder(&nothing, &wanted).unwrap(), SymbolKind::Isf, "a file that came later is seen");
    assert!(in_folder(&nothing, &other).is_err());

    for name in [
        format!("NTKRNLMP.pdb/{}-{:x}.json.xz", wanted.guid.to_string().to_lowercase(), wanted.age),
        format!("windows/{}/{}-{:X}.json.xz", wanted.name, wanted.guid, wanted.age),
        format!("{}-{}-{:X}.json.xz", "ntkrnlmp", wanted.guid, wanted.age),
    ] {
        std::fs::remove_dir_all(folder.path()).unwrap();
        let file = folder.path().join(&name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::copy(&isf, &file).unwrap();
        assert_eq!(in_folder(&source(), &wanted).unwrap(), SymbolKind::Isf, "{name}");
        let refused = in_folder(&source(), &other).unwrap_err().to_string();
        assert!(refused.contains("no such file") || refused.contains("another build"), "{refused}");
    }
}

#[test]
fn a_damaged_xz_stream_is_an_error_and_never_a_panic() {
    let Some(isf) = isf_files().into_iter().next() else { return };
    let whole = std::fs::read(&isf).unwrap();
    let copy = tempfile::NamedTempFile::new().unwrap();
    let mut errors = 0;
    for round in 1..40 {
        let mut bytes = whole.clone();
        if round % 2 == 0 {
            bytes.truncate(whole.len() * round / 40);
        } else {
            // The headers are at both ends.
            let at = [round, whole.len() * round / 40, whole.len() - round][round % 3];
            bytes[at] ^= 1 << (round % 8);
        }
        std::fs::write(copy.path(), &bytes).unwrap();
        errors += usize::from(IsfSymbols::open(copy.path()).is_err());
    }
    assert!(errors >= 38, "a checksum covers the text: {errors} of 39");
}

#[test]
fn a_damaged_pdb_is_an_error_or_reads_on_and_never_a_panic() {
    let Some(pdb) = isf_files().first().and_then(|isf| rebuild(isf)) else { return };
    let whole = std::fs::read(&pdb).unwrap();
    let copy = pdb.with_extension("damaged.pdb");
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    for round in 0..60 {
        let mut bytes = whole.clone();
        if round % 4 == 0 {
            bytes.truncate(next(whole.len()));
        } else {
            // Header, directory and the first pages decide most; the rest is hit too.
            let reach = [0x40, 0x4000, whole.len()][round % 3];
            for _ in 0..8 {
                bytes[next(reach)] = next(256) as u8;
            }
            let directory = whole.len() - next(0x4000) - 1;
            bytes[directory] ^= 1 << next(8);
        }
        std::fs::write(&copy, &bytes).unwrap();
        if let Ok(symbols) = PdbFile::open(&copy).and_then(PdbFile::load) {
            read_everything(&symbols);
        }
    }
}

#[test]
fn a_store_gives_the_wanted_build_and_refuses_another() {
    let Some(pdb) = isf_files().first().and_then(|isf| rebuild(isf)) else { return };
    let wanted =
        PdbIdentity { name: "ntkrnlmp.pdb".into(), ..PdbFile::open(&pdb).unwrap().identity().clone() };
    let store = pdb.with_extension("store");
    let folder = store.join("NtKrnlMp.pdb").join(wanted.to_string());
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(&pdb, folder.join("ntkrnlmp.pdb")).unwrap();

    let path = SymbolPath::parse(&format!("/nowhere;srv*{}*https://symbols.example", store.display()));
    assert!(
        SymbolSource::new(path).load(&wanted).unwrap().identity().same_build(&wanted),
        "found whatever the case of its folder"
    );

    let flat = pdb.with_extension("flat");
    std::fs::create_dir_all(&flat).unwrap();
    std::fs::copy(&pdb, flat.join("ntkrnlmp.pdb")).unwrap();
    let other = PdbIdentity { age: wanted.age + 1, ..wanted.clone() };
    let path = SymbolPath::parse(&flat.display().to_string());
    let error = SymbolSource::new(path).load(&other).unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(&error.tried[..], [Attempt { miss: Miss::OtherBuild(found), .. }] if found.same_build(&wanted))
    );
    assert!(text.contains(&other.to_string()) && text.contains(&wanted.to_string()), "{text}");
    assert!(text.contains("ntkrnlmp.pdb: belongs to another build"), "{text}");
}

/// The published leak, laid out by each kernel's own symbols: the answers differ in nothing but the stack's names.
#[test]
fn the_same_leak_prints_the_same_on_every_kernel() {
    let files = isf_files().into_iter().take(kernels_to_read());
    for (isf, symbols) in files.flat_map(|isf| readers(&isf).into_iter().map(move |it| (isf.clone(), it))) {
        let booted = leak_on(symbols, 0x100_0000).boot();
        let kernel = isf.display();
        let transcript = include_str!("../golden/verifier-3-myfault.txt");
        assert_same_text(&text(&booted.target(), "!verifier 3 myfault.sys"), transcript);
        let log = run(&booted.target(), "!verifier 80 fffffa8005400000").unwrap().with_notes();
        let entries = log["entries"].as_array().unwrap();
        assert_eq!((entries.len(), &entries[0]["size"]), (1, &0xf_a000.into()), "{kernel}");
        assert_eq!(entries[0]["stack"].as_array().unwrap().len(), 8, "{kernel}");
        assert_eq!(entries[0]["stack"][2]["symbol"], "myfault!MyfaultDeviceControl+0x358", "{kernel}");
        let noted = log["notes"].as_array().unwrap();
        assert!(noted.iter().all(|note| note["kind"] == "remark"), "{kernel}: {noted:?}");
    }
}

/// `dt` and `x` on a kernel's own symbols, PDB or ISF, print what its symbol table and the layout tables have.
#[test]
fn dt_and_x_print_the_offsets_and_addresses_of_the_data_files() {
    let Some(shared) = shared() else { return };
    let layouts: Value =
        serde_json::from_slice(&std::fs::read(shared.join("data/layouts.json")).unwrap()).unwrap();
    for isf in isf_files().into_iter().take(kernels_to_read()) {
        let Some(pdb) = rebuild(&isf) else { return };
        let table = unpack(&isf);
        let base = VirtAddr(0xffff_f800_0000_0000);
        let symbols: [Arc<dyn Symbols>; 2] =
            [Arc::new(PdbSymbols::open(&pdb).unwrap()), Arc::new(IsfSymbols::open(&isf).unwrap())];
        let name = isf.file_name().unwrap().to_string_lossy().into_owned();
        let build = name.split('-').nth(1).unwrap().rsplit_once('.').unwrap().0.to_owned();
        let of_build = layouts.as_object().unwrap().iter().find(|(key, _)| key.starts_with(&build));
        for symbols in symbols {
            let booted = World::new(base, 0x200_0000, symbols).boot();
            for ty in ["_VF_TARGET_VERIFIED_DRIVER_DATA", "_VF_POOL_TRACE"] {
                let printed = text(&booted.target(), &format!("dt nt!{ty}"));
                let fields: Vec<(u64, &str)> = printed
                    .lines()
                    .map(|line| line.trim().strip_prefix("+0x").unwrap().split_once(' ').unwrap())
                    .map(|(offset, rest)| {
                        (u64::from_str_radix(offset, 16).unwrap(), rest.split(' ').next().unwrap())
                    })
                    .collect();
                let expected = table["user_types"][ty]["fields"].as_object().unwrap();
                assert_eq!(fields.len(), expected.len(), "{build}: {printed}");
                for (offset, field) in &fields {
                    assert_eq!(Some(*offset), expected[*field]["offset"].as_u64(), "{build}: {ty}.{field}");
                }
                let Some((_, layout)) = of_build else { continue };
                for (path, field) in layout[ty]["fields"].as_object().unwrap() {
                    if let Some((offset, _)) = fields.iter().find(|(_, name)| name == path) {
                        assert_eq!(Some(*offset), field["offset"].as_u64(), "{build}: {ty}.{path}");
                    }
                }
            }
            let printed = text(&booted.target(), "x nt!Vf*");
            let found: Vec<(u64, &str)> = printed
                .lines()
                .map(|line| line.split_once(" nt!").unwrap())
                .map(|(at, name)| (u64::from_str_radix(&at.replace('`', ""), 16).unwrap() - base.0, name))
                // The rebuilt image begins its only section there.
                .filter(|(at, _)| *at >= 0x2000)
                .collect();
            assert!(found.is_sorted(), "{build}");
            let expected = table["symbols"].as_object().unwrap().iter().filter(|(name, symbol)| {
                name.to_lowercase().starts_with("vf") && symbol["address"].as_u64().unwrap() >= 0x2000
            });
            let mut names = 0;
            for (name, symbol) in expected {
                assert!(found.contains(&(symbol["address"].as_u64().unwrap(), name)), "{build}: {name}");
                names += 1;
            }
            assert!(names > 50 && names == found.len(), "{build}: {names} of {}", found.len());
        }
    }
}

/// The smaller logs, laid out by each kernel's own symbols: every flag's answer is the same on all that have it.
#[test]
fn every_log_prints_the_same_on_every_kernel() {
    let mut answers: BTreeMap<u64, String> = BTreeMap::new();
    for isf in isf_files().into_iter().take(kernels_to_read()) {
        let Some(pdb) = rebuild(&isf) else { return };
        let mut world = leak_on(Arc::new(PdbSymbols::open(&pdb).unwrap()), 0x100_0000);
        let mut flags = vec![0x400];
        for (number, (names, record, flag)) in (0..).zip(RINGS) {
            // Windows 7's public symbols have no _IOV_IRP_TRACE.
            if world.nt.find_type(record).is_none() {
                continue;
            }
            flags.push(flag);
            let at = RING.offset(number * 0x10_0000);
            add_ring(&mut world, names, at, 0x80, 0x182);
            for slot in 1..3 {
                let at = at.offset(slot * world.size(record));
                for (field, value) in [
                    ("Thread", 0xffff_fa80_044c_eb60),
                    ("Irp", 0xffff_fa80_0700_0000 + slot),
                    ("OldIrql", 0),
                    ("NewIrql", 2),
                    ("TickCount", slot),
                    ("Irql", 1),
                    ("StackTrace", CALLER),
                ] {
                    if world.has(record, field) {
                        world.put(record, at, field, value);
                    }
                }
            }
        }
        let (head, entry) = (world.global("VfWdIrpListHead"), RING.offset(0x100_0000));
        world.write(head, &entry.0.to_le_bytes());
        world.write(entry, &head.0.to_le_bytes());
        world.put("_VF_WATCHDOG_IRP", entry, "Irp", 0xffff_fa80_0700_0000);
        let booted = world.boot();
        for flag in flags {
            let shown = text(&booted.target(), &format!("!verifier {flag:x}"));
            assert!(
                shown.contains("fffffa8007000") || shown.to_lowercase().contains("fffffa80044ceb60"),
                "{shown}"
            );
            let expected = answers.entry(flag).or_insert_with(|| shown.clone());
            // A record's own address and how many return addresses it holds are the build's.
            let common = |text: &str| -> Vec<String> {
                let own = |line: &&str| !line.starts_with("Tracker @") && !line.starts_with("Entry @");
                text.lines().filter(own).map(str::to_owned).collect()
            };
            assert_eq!(common(&shown), common(expected), "{}: {flag:#x}", isf.display());
        }
    }
    println!("compared the logs {:x?}", answers.keys());
}

fn read_everything(symbols: &PdbSymbols) {
    for symbol in symbols.iter().take(2_000) {
        assert!(symbols.nearest(symbol.rva).is_none_or(|found| found.rva <= symbol.rva));
    }
    for name in ["_EPROCESS", "_KTHREAD", "_VF_POOL_TRACE", "_SLIST_HEADER", "_LDR_DATA_TABLE_ENTRY"] {
        if let Some(Ok(layout)) = symbols.find_type(name).map(|id| symbols.layout(id)) {
            for field in &layout.fields {
                let _ = symbols.place(&layout, &format!("{}.Flags", field.name));
            }
        }
    }
}

/// The symbols of a kernel from its ISF file, and from a PDB made of that, where one can be made.
fn readers(isf: &Path) -> Vec<Arc<dyn Symbols>> {
    let mut readers: Vec<Arc<dyn Symbols>> = vec![Arc::new(IsfSymbols::open(isf).unwrap())];
    if let Some(pdb) = rebuild(isf) {
        readers.push(Arc::new(PdbSymbols::open(&pdb).unwrap()));
    }
    readers
}

/// Compares every structure that a layout table has; returns how many fields.
fn compare_layouts(build: &str, layout: &Value, symbols: &dyn Symbols) -> usize {
    let mut fields = 0;
    for (name, structure) in layout.as_object().unwrap().iter().filter(|(_, it)| it["fields"].is_object()) {
        let Some(id) = symbols.find_type(name) else { panic!("{build}: no type {name}") };
        let found = symbols.layout(id).unwrap();
        assert_eq!(Some(found.size), structure["size"].as_u64(), "{build}: {name}");
        for (path, field) in structure["fields"].as_object().unwrap() {
            let place = symbols.place(&found, path).unwrap();
            let place = place.unwrap_or_else(|| panic!("{build}: no {name}.{path}"));
            assert_eq!(Some(place.offset), field["offset"].as_u64(), "{build}: {name}.{path}");
            let bits = place.bits.map(|bits| (bits.position.into(), bits.length.into()));
            let expected = field["bit_position"].as_u64().zip(field["bit_length"].as_u64());
            assert_eq!(bits, expected, "{build}: {name}.{path}");
            fields += 1;
        }
    }
    fields
}

/// Compares every field of every structure; returns how many.
fn compare_types(types: &Value, symbols: &dyn Symbols) -> usize {
    let mut fields = 0;
    for (name, structure) in types.as_object().unwrap() {
        let Some(id) = symbols.find_type(name) else { panic!("no type {name}") };
        let layout = symbols.layout(id).unwrap();
        assert_eq!(Some(layout.size), structure["size"].as_u64(), "{name}");
        let expected = structure["fields"].as_object().unwrap();
        assert_eq!(layout.fields.len(), expected.len(), "{name}");
        for field in &layout.fields {
            let of_table = &expected[&*field.name];
            assert_eq!(Some(field.offset), of_table["offset"].as_u64(), "{name}.{}", field.name);
            compare_type(&of_table["type"], &field.ty, &format!("{name}.{}", field.name));
            let bits = field.bits.map(|bits| (bits.position.into(), bits.length.into()));
            let expected = &of_table["type"];
            assert_eq!(
                bits,
                expected["bit_position"].as_u64().zip(expected["bit_length"].as_u64()),
                "{name}"
            );
            fields += 1;
        }
    }
    fields
}

fn compare_type(expected: &Value, found: &Type, field: &str) {
    match (expected["kind"].as_str().unwrap(), found) {
        ("pointer", Type::Pointer { size: 8, to }) => compare_type(&expected["subtype"], to, field),
        ("array", Type::Array { count, element, .. }) => {
            // The count of an array of empty elements is not in a PDB.
            assert!(Some(*count) == expected["count"].as_u64() || element.size() == 0, "{field}");
            compare_type(&expected["subtype"], element, field);
        }
        ("struct" | "union" | "class", Type::Record { name, .. }) => {
            assert_eq!(Some(&**name), expected["name"].as_str(), "{field}");
        }
        ("bitfield", found) => compare_type(&expected["type"], found, field),
        (
            "base" | "enum" | "function" | "struct" | "union",
            Type::Base { .. } | Type::Enum { .. } | Type::Function,
        ) => {}
        (kind, found) => panic!("{field}: {kind} read as {found:?}"),
    }
}

/// Compares every symbol's address, and that the way back leads to a symbol of that address; returns how many.
fn compare_addresses(table: &Value, symbols: &dyn Symbols) -> usize {
    // The rebuilt image begins its only section here, so lower symbols are not in it.
    const FIRST: u64 = 0x2000;
    let mut names = 0;
    for (name, symbol) in table.as_object().unwrap() {
        let address = symbol["address"].as_u64().unwrap();
        if address < FIRST {
            continue;
        }
        let rva = Rva(u32::try_from(address).unwrap());
        assert_eq!(symbols.address_of(name), Some(rva), "{name}");
        assert_eq!(symbols.nearest(rva).unwrap().rva, rva, "{name}");
        names += 1;
    }
    names
}

fn unpack(isf: &Path) -> Value {
    let output =
        Command::new("xz").arg("-dc").arg(isf).output().expect("xz is installed where Python's lzma is");
    serde_json::from_slice(&output.stdout).unwrap()
}
