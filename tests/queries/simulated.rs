//! The queries on the simulated machine, with nothing in hand but its memory and its PDBs on a symbol path.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use crate::support::blind::{Blind, UNKNOWN_API};
use crate::support::machine::{Still, folder, stopped, store};
use crate::support::text::WithNotes as _;
use crate::support::text::{assert_same_text, notes, run, text};
use pdb2::FallibleIterator;
use verikd::commands::NoteKind;
use verikd::commands::verifier::requirements::{Allowed, allowed_by};
use verikd::memory::{CountingMemory, Memory};
use verikd::symbols::isf::IsfSymbols;
use verikd::symbols::pdb::{PdbFile, PdbSymbols};
use verikd::symbols::store::SymbolPath;
use verikd::symbols::{Field, Rva, Symbols, TypeLayout};
use verikd::target::{Image, Kernel, Target};
use verikd_sim::windows::{BUILDS, WINDOWS_7_SP1};
use verikd_sim::{export_isf, export_symbols};

#[test]
fn the_published_leak_prints_as_published() {
    let (machine, kernel) = stopped("leak");
    let target = || Target::new(&machine, &kernel);
    assert_same_text(
        &text(&target(), "!verifier 3 myfault.sys"),
        include_str!("../golden/verifier-3-myfault.txt"),
    );
    assert_same_text(
        &text(&target(), "!verifier 80 fffffa8005400000"),
        include_str!("../golden/verifier-80.txt"),
    );
    assert_eq!(notes(&target(), "!verifier 3 myfault.sys"), []);
    let noted = notes(&target(), "!verifier 80 fffffa8005400000");
    assert!(noted.iter().all(|note| note.kind == NoteKind::Remark), "nothing is missing: {noted:?}");
}

/// The target's own search finds what reading every entry finds, at whatever byte of a block it is asked for.
#[test]
fn searching_the_log_finds_what_reading_it_finds() {
    let (machine, kernel) = stopped("search");
    let blind = Blind { inner: machine.clone(), refusal: Some(UNKNOWN_API) };
    // That a kernel does not search is remembered for its boot, so the two are two boots.
    let (_, blind_kernel) = stopped("search_blind");
    for address in [
        "fffffa8005400000",
        "fffffa8005400010",
        "fffffa80054f9fff",
        "fffffa80054fa000",
        "fffffa8004a66000",
        "fffffa8004aff123",
        "fffffa8006000000",
        "fffffa8000000000",
    ] {
        let line = format!("!verifier 80 {address}");
        let entries = |memory: &dyn Memory, kernel: &Kernel| {
            let log = run(&Target::new(memory, kernel), &line).unwrap().with_notes();
            (log["entries"].clone(), log["method"].clone())
        };
        let (searched, method) = entries(&machine, &kernel);
        // What is not in the log at all, in a region where much else is, has to be read to be sure.
        let is_there = searched.as_array().is_some_and(|entries| !entries.is_empty());
        assert!(method == "search" || !is_there, "{address}");
        let (read, method) = entries(&blind, &blind_kernel);
        assert_eq!(method, "read", "{address}");
        assert_eq!(searched, read, "{address}");
    }
}

#[test]
fn the_published_leak_prints_as_published_with_isf_files_only() {
    let (machine, kernel) = stopped("leak_isf");
    let files = folder("leak_isf_files");
    assert_eq!(export_isf(&WINDOWS_7_SP1, &files).unwrap().len(), WINDOWS_7_SP1.all_images().count());
    kernel.set_symbol_path(SymbolPath::parse(&files.display().to_string()));
    let target = || Target::new(&machine, &kernel);
    assert_same_text(
        &text(&target(), "!verifier 3 myfault.sys"),
        include_str!("../golden/verifier-3-myfault.txt"),
    );
    assert_same_text(
        &text(&target(), "!verifier 80 fffffa8005400000"),
        include_str!("../golden/verifier-80.txt"),
    );
    assert!(text(&target(), "lm m nt").contains("   nt         (isf symbols)          "));
}

/// Some symbol files are said to miss these types; they are the same in every kernel.
#[test]
fn symbols_without_the_types_of_pool_tracking_give_the_same_answer_and_say_what_stood_in_for_them() {
    let (machine, kernel) = stopped("leak_lacking");
    let files = folder("leak_lacking_files");
    let exported = export_isf(&WINDOWS_7_SP1, &files).unwrap();
    let mut nt: serde_json::Value = serde_json::from_slice(&std::fs::read(&exported[0]).unwrap()).unwrap();
    let lacking = ["_VI_POOL_ENTRY", "_VI_POOL_ENTRY_INUSE", "_VI_POOL_PAGE_HEADER"];
    for name in lacking {
        assert!(nt["user_types"].as_object_mut().unwrap().remove(name).is_some(), "{name}");
    }
    std::fs::write(&exported[0], nt.to_string()).unwrap();
    kernel.set_symbol_path(SymbolPath::parse(&files.display().to_string()));
    let target = || Target::new(&machine, &kernel);
    let line = "!verifier 3 myfault.sys";
    assert_same_text(&text(&target(), line), include_str!("../golden/verifier-3-myfault.txt"));
    let said = notes(&target(), line);
    let [note] = &said[..] else { panic!("{said:?}") };
    let expected = "Built-in layouts, which every known x64 kernel shares, were used for _VI_POOL_ENTRY, \
                    _VI_POOL_PAGE_HEADER: ntkrnlmp.pdb (identity ";
    assert!(note.kind == NoteKind::Remark && note.text.starts_with(expected), "{note:?}");
    let json = run(&target(), line).unwrap().with_notes();
    assert_eq!(json["notes"][0]["text"], note.text.as_str());
    assert_eq!(notes(&target(), "lm"), [], "what needs no such type says nothing of them");
    let lacking = IsfSymbols::open(&exported[0]).unwrap();
    let allowed = allowed_by(&lacking);
    // Windows 7's public symbols lack the record of one log, whatever was taken out of them here.
    let lacks = |query: &&Allowed| !query.missing.is_empty();
    let missing: Vec<_> =
        allowed.iter().filter(lacks).map(|query| (query.query, &query.missing[..])).collect();
    assert_eq!(missing, [("!verifier 100", &["_IOV_IRP_TRACE".to_owned()][..])]);
    assert!(text(&target(), "dt nt!_VI_POOL_PAGE_HEADER").contains("   +0x010 Signature        : Uint8B"));
}

#[test]
fn exported_isf_files_say_what_the_pdbs_say() {
    let images = BUILDS.iter().flat_map(|build| {
        let files = folder(&format!("isf_compared_{}", build.name));
        let isf = export_isf(build, &files).unwrap();
        let pdbs = export_symbols(build, &files).unwrap();
        isf.into_iter().zip(pdbs).zip(build.all_images())
    });
    for ((isf, pdb), image) in images {
        let isf = IsfSymbols::open(&isf).unwrap();
        let pdb = PdbSymbols::open(&pdb).unwrap();
        assert_eq!(isf.identity(), pdb.identity());
        for symbol in pdb.iter() {
            assert_eq!(isf.address_of(&symbol.name), Some(symbol.rva), "{}", image.pdb_file);
            assert_eq!(isf.nearest(symbol.rva), pdb.nearest(symbol.rva));
        }
        assert_eq!(isf.iter().count(), pdb.iter().count());
        let named = |name: &Cow<'_, str>| !name.starts_with("__unnamed");
        for name in isf.types().filter(named) {
            let (a, b) = (isf.find_type(&name).unwrap(), pdb.find_type(&name).unwrap());
            let (a, b) = (isf.layout(a).unwrap(), pdb.layout(b).unwrap());
            let fields = |layout: &TypeLayout| -> Vec<_> {
                let field = |field: &Field| (field.offset, field.bits, field.name.clone(), field.ty.size());
                let mut fields: Vec<_> = layout.fields.iter().map(field).collect();
                fields.sort_by_key(|(offset, bits, name, _)| {
                    (*offset, bits.map(|bits| bits.position), Arc::clone(name))
                });
                fields
            };
            assert_eq!((a.size, fields(&a)), (b.size, fields(&b)), "{name}");
        }
    }
}

#[test]
fn a_machine_that_ran_on_has_leaked_more() {
    let (mut machine, kernel) = stopped("ran_on");
    machine.run_for(Duration::from_secs(11));
    machine.break_in();
    let target = Target::new(&machine, &kernel);
    let report = run(&target, "!verifier 3 myfault").unwrap().with_notes();
    let blocks = report["drivers"][0]["allocations"]["blocks"].as_array().unwrap();
    assert!(blocks.len() > 10 && report["notes"] == serde_json::json!([]), "{}", report["notes"]);
    let newest = blocks[0]["address"].as_str().unwrap();
    let log = run(&target, &format!("!verifier 80 {newest}")).unwrap().with_notes();
    assert_eq!(log["entries"].as_array().unwrap().len(), 1);
}

#[test]
fn modules_are_listed_with_the_pdbs_they_were_matched_to() {
    let (machine, kernel) = stopped("modules");
    let target = Target::new(&machine, &kernel);
    let listed = text(&target, "lm");
    let names: Vec<_> = listed.lines().skip(1).map(|line| line.split_whitespace().nth(2).unwrap()).collect();
    assert_eq!(names, ["nt", "hal", "ndis", "myfault"], "{listed}");
    text(&target, "!verifier 80 fffffa8005400000");
    let listed = text(&target, "lm");
    assert!(listed.lines().any(|line| line.contains("   myfault    (pdb symbols)          ")), "{listed}");
    assert!(listed.lines().any(|line| line.ends_with("   ndis       (deferred)")), "{listed}");
}

#[test]
fn requests_from_attach_on_are_few() {
    let (machine, kernel) = stopped("requests");
    let memory = CountingMemory::new(machine);
    let target = || Target::new(&memory, &kernel);
    let spent = |line: &str| {
        memory.reset();
        text(&target(), line);
        (memory.reads(), memory.bytes())
    };
    // The kernel's headers, 2; a head and four modules; where unloaded drivers are, and their array.
    let (reads, _) = spent("lm");
    assert!(reads <= 2 + 1 + 4 + 2, "lm: {reads}");
    let (reads, bytes) = spent("!verifier 3 myfault.sys");
    // A reply of a live target carries 1096 bytes.
    assert!(reads + bytes / 1096 <= 25, "!verifier 3: {reads} reads of {bytes:#x} bytes");
    let (reads, bytes) = spent("!verifier 80 fffffa8005400000");
    let requests = reads + bytes / 1096 + memory.searches();
    assert!(
        requests <= 20,
        "!verifier 80: {reads} reads of {bytes:#x} bytes, {} searches",
        memory.searches()
    );
}

#[test]
fn without_the_kernels_pdb_modules_are_listed_and_the_missing_file_is_named() {
    let (machine, kernel) = stopped("no_nt");
    kernel.set_symbol_path(SymbolPath::parse("/no/symbols/here"));
    let target = Target::new(&machine, &kernel);
    assert_eq!(text(&target, "lm").lines().count(), 5);
    let identity = identity_of_kernel(&machine);
    let error = run(&target, "!verifier 80").err().unwrap().to_string();
    let expected = format!("!verifier: nt has no symbols: no symbols for ntkrnlmp.pdb (identity {identity})");
    assert!(error.starts_with(&expected) && error.contains("/no/symbols/here: no such file\n"), "{error}");
    let url = format!("https://msdl.microsoft.com/download/symbols/ntkrnlmp.pdb/{identity}/ntkrnlmp.pdb");
    assert!(error.contains(&url), "{error}");

    let report = run(&target, "!verifier 3 myfault.sys").unwrap();
    assert_eq!((report.notes.len(), report.worst()), (1, Some(NoteKind::Failed)));
    assert!(report.notes[0].text.contains("built-in layout") && report.notes[0].text.contains(&url));
    let found = report.with_notes();
    kernel.set_symbol_path(SymbolPath::parse(&store("no_nt").display().to_string()));
    let known = run(&target, "!verifier").unwrap().with_notes();
    assert_eq!(found["settings"]["level"], known["settings"]["level"]);
    for counter in ["raise_irqls", "trims", "allocations_attempted", "allocations_failed_deliberately"] {
        let of = |report: &serde_json::Value| report["settings"]["statistics"][counter].clone();
        assert_eq!(of(&found), of(&known), "{counter}");
    }
    let data = target.debugger_data().unwrap();
    assert_eq!(data.ps_loaded_module_list(), Some(machine.version().ps_loaded_module_list));
    assert!(data.mm_verifier_data().is_some());
}

#[test]
fn a_pdb_of_another_build_is_refused_with_both_identities() {
    let (machine, kernel) = stopped("other_build");
    let folder = folder("another");
    std::fs::write(folder.join("ntkrnlmp.pdb"), WINDOWS_7_SP1.images[1].pdb).unwrap();
    kernel.set_symbol_path(SymbolPath::parse(&folder.display().to_string()));
    let error = run(&Target::new(&machine, &kernel), "!verifier 80").err().unwrap().to_string();
    let other = PdbFile::open(&folder.join("ntkrnlmp.pdb")).unwrap().identity().to_string();
    assert!(error.contains(&identity_of_kernel(&machine)) && error.contains(&other), "{error}");
    assert!(error.contains("belongs to another build"), "{error}");
}

#[test]
fn names_and_fields_are_those_that_another_reader_finds() {
    let folder = store("cross_check");
    for image in WINDOWS_7_SP1.images {
        let symbols = PdbSymbols::open(&folder.join(image.pdb_file)).unwrap();
        let mut other = pdb2::PDB::open(Cursor::new(image.pdb)).unwrap();
        let map = other.address_map().unwrap();
        let globals = other.global_symbols().unwrap();
        let mut iter = globals.iter();
        let mut names = 0;
        while let Some(symbol) = iter.next().unwrap() {
            if let Ok(pdb2::SymbolData::Public(public)) = symbol.parse()
                && let Some(rva) = public.offset.to_rva(&map)
            {
                let name = public.name.to_string();
                assert_eq!(symbols.address_of(&name), Some(Rva(rva.0)), "{}: {name}", image.pdb_file);
                assert_eq!(
                    symbols.nearest(Rva(rva.0)).unwrap().rva,
                    Rva(rva.0),
                    "{}: {name}",
                    image.pdb_file
                );
                names += 1;
            }
        }
        assert!(names > 5, "{}: {names} names", image.pdb_file);
        let fields = compare_fields(&symbols, &mut other);
        assert!(fields > 100 || image.pdb_file != "ntkrnlmp.pdb", "{}: {fields} fields", image.pdb_file);
    }
}

#[test]
fn a_damaged_pdb_is_an_error_or_reads_on_and_never_a_panic() {
    let whole = WINDOWS_7_SP1.images[0].pdb;
    let copy = folder("damaged").join("ntkrnlmp.pdb");
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    for round in 0..300 {
        let mut bytes = whole.to_vec();
        if round % 5 == 0 {
            bytes.truncate(next(whole.len()));
        } else {
            for _ in 0..=next(12) {
                let reach = [0x40, 0x2000, whole.len()][next(3)];
                bytes[next(reach)] ^= 1 << next(8);
            }
        }
        std::fs::write(&copy, &bytes).unwrap();
        let Ok(symbols) = PdbFile::open(&copy).and_then(PdbFile::load) else { continue };
        for symbol in symbols.iter() {
            assert!(symbols.nearest(symbol.rva).is_none_or(|found| found.rva <= symbol.rva));
        }
        for name in ["_EPROCESS", "_VF_POOL_TRACE", "_SLIST_HEADER", "_VF_TARGET_DRIVER"] {
            let Some(Ok(layout)) = symbols.find_type(name).map(|id| symbols.layout(id)) else { continue };
            for field in &layout.fields {
                let _ = symbols.place(&layout, &format!("{}.Flags", field.name));
            }
        }
    }
}

fn identity_of_kernel(machine: &Still) -> String {
    Image::read(machine, machine.version().kern_base).unwrap().pdb.to_string()
}

/// Every data member of every structure of the other reader has the same offset and bits here; returns how many.
fn compare_fields<'a>(symbols: &PdbSymbols, other: &mut pdb2::PDB<'a, Cursor<&'a [u8]>>) -> usize {
    let types = other.type_information().unwrap();
    let mut finder = types.finder();
    let mut structures = Vec::new();
    let mut iter = types.iter();
    while let Some(item) = iter.next().unwrap() {
        finder.update(&iter);
        match item.parse() {
            Ok(pdb2::TypeData::Class(class)) if !class.properties.forward_reference() => {
                structures.push((class.name.to_string().into_owned(), class.size, class.fields));
            }
            Ok(pdb2::TypeData::Union(union)) if !union.properties.forward_reference() => {
                structures.push((union.name.to_string().into_owned(), union.size, Some(union.fields)));
            }
            _ => {}
        }
    }
    let mut compared = 0;
    // Anonymous types share their names, so that a name does not say which of them is meant.
    for (name, size, fields) in structures.into_iter().filter(|(name, ..)| !name.contains('<')) {
        let layout = symbols.layout(symbols.find_type(&name).unwrap()).unwrap();
        assert_eq!(layout.size, size, "{name}");
        let mut expected = BTreeMap::new();
        let mut list = fields;
        while let Some(Ok(pdb2::TypeData::FieldList(fields))) =
            list.take().map(|at| finder.find(at).unwrap().parse())
        {
            for field in &fields.fields {
                let pdb2::TypeData::Member(member) = field else { continue };
                let bits = match finder.find(member.field_type).unwrap().parse() {
                    Ok(pdb2::TypeData::Bitfield(bits)) => Some((bits.position, bits.length)),
                    _ => None,
                };
                expected.insert(member.name.to_string().into_owned(), (member.offset, bits));
            }
            list = fields.continuation;
        }
        let bits_of = |field: &Field| field.bits.map(|bits| (bits.position, bits.length));
        let found: BTreeMap<_, _> = layout
            .fields
            .iter()
            .map(|field| (field.name.to_string(), (field.offset, bits_of(field))))
            .collect();
        assert_eq!(found, expected, "{name}");
        compared += found.len();
    }
    compared
}
