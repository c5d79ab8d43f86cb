//! `verikd symbols check`: what it says of whole files, and how it ends on damaged ones.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use verikd::symbols::check::census;
use verikd::symbols::pdb::{PdbFile, PdbSymbols, index_of};
use verikd::symbols::store::{SymbolPath, SymbolSource};
use verikd::symbols::{PdbIdentity, Rva, Symbols};
use verikd_sim::windows::{BUILDS, WINDOWS_7_SP1};
use verikd_sim::{export_isf, export_symbols};

#[test]
fn whole_symbols_of_every_simulated_kernel_allow_every_query_and_a_drivers_none() {
    for build in BUILDS {
        let folder = TempDir::new().unwrap();
        let pdbs = export_symbols(build, folder.path()).unwrap();
        for (files, kind) in [(pdbs, "pdb"), (export_isf(build, folder.path()).unwrap(), "isf")] {
            let (code, text) = check(&files[0]);
            assert!(text.contains(&format!("): {kind} symbols, whole\n")), "{text}");
            // Windows 7's public symbols lack the record of one log.
            let is_7 = build.name == WINDOWS_7_SP1.name;
            assert_eq!(code, if is_7 { 3 } else { 0 }, "{}: {text}", build.name);
            for flag in ["", "1 ", "3 ", "4 ", "8 ", "40 ", "80 ", "100 ", "200 ", "400 "] {
                let query = format!("!verifier {flag}");
                let line = text.lines().find(|line| line.starts_with(&query)).unwrap_or_default();
                let verdict = if is_7 && flag == "100 " { " no, it lacks _IOV_IRP_TRACE" } else { " yes" };
                assert!(line.ends_with(verdict), "{}: {query}: {text}", build.name);
            }
            let (code, text) = check(&files[3]);
            assert!(code == 0 && text.contains("Not a kernel's"), "{text}");
        }
    }
}

#[test]
fn a_file_is_found_wherever_debuggers_of_windows_look() {
    let image = &WINDOWS_7_SP1.images[3];
    let folder = TempDir::new().unwrap();
    let whole = folder.path().join("elsewhere.pdb");
    std::fs::write(&whole, image.pdb).unwrap();
    let wanted = PdbFile::open(&whole).unwrap().identity().clone();
    let wanted = PdbIdentity { name: "MyFault.pdb".to_owned(), ..wanted };
    let load = |place: &Path, path: &str| {
        let path = path.replace("DIR", &place.display().to_string());
        SymbolSource::new(SymbolPath::parse(&path)).load(&wanted).map(|symbols| symbols.identity().clone())
    };
    for below in ["", "exe", "sys", "dll", "symbols/sys", "Symbols/EXE"] {
        let place = TempDir::new().unwrap();
        std::fs::create_dir_all(place.path().join(below)).unwrap();
        std::fs::write(place.path().join(below).join("myfault.pdb"), image.pdb).unwrap();
        assert!(load(place.path(), "DIR").is_ok(), "{below}");
        assert!(load(place.path(), "srv*DIR").is_err(), "a store has no such folders: {below}");
    }
    let place = TempDir::new().unwrap();
    let key = place.path().join("myfault.pdb").join(wanted.to_string());
    std::fs::create_dir_all(&key).unwrap();
    std::fs::write(key.join("file.ptr"), format!("PATH:{}\r\n", whole.display())).unwrap();
    assert!(load(place.path(), "srv*DIR").is_ok() && load(place.path(), "DIR").is_ok());
    for (text, said) in [
        (&b"PATH:/no/such/file.pdb"[..], "file.ptr: points to /no/such/file.pdb, and no such file is there"),
        (b"MSG: not for you\x1b[2J", "file.ptr: the store has no file, but says: not for you\\x1b[2J"),
        (b"", "the store has no file, but says: "),
    ] {
        std::fs::write(key.join("file.ptr"), text).unwrap();
        let error = load(place.path(), "srv*DIR").unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn what_a_kernels_symbols_lack_is_named() {
    let folder = TempDir::new().unwrap();
    let file = export_isf(&WINDOWS_7_SP1, folder.path()).unwrap().swap_remove(0);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        text.replace("\"VfPoolTracesIndex\"", "\"VfOther\"")
            .replace("_VI_POOL_ENTRY\"", "_X\"")
            .replace("_VF_TARGET_DRIVER\"", "_Y\""),
    )
    .unwrap();
    let (code, text) = check(&file);
    assert_eq!(code, 3, "{text}");
    assert!(
        text.contains("verified drivers                         no, it lacks _VF_TARGET_DRIVER\n"),
        "{text}"
    );
    assert!(
        text.contains("allocations   no, it lacks _VF_TARGET_DRIVER\n"),
        "what is built in is there: {text}"
    );
    assert!(text.contains("no, it lacks nt!VfPoolTracesIndex\n"), "{text}");
}

#[test]
fn a_damaged_or_foreign_file_is_an_error_that_names_it() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("x.pdb");
    for (bytes, sentence) in [
        (&WINDOWS_7_SP1.images[0].pdb[..0x5000], "damaged: container header: cut off"),
        (b"MSCF\0\0\0\0", "a compressed cabinet"),
        (b"{\"metadata\": {}}", "damaged: JSON: missing field"),
        (b"", "not a PDB"),
    ] {
        std::fs::write(&file, bytes).unwrap();
        let (code, text) = check(&file);
        assert!(code == 1 && text.contains("x.pdb: ") && text.contains(sentence), "{code}: {text}");
    }
    let (code, text) = check(&folder.path().join("none.pdb"));
    assert!(code == 1 && text.contains("none.pdb"), "{text}");
}

#[test]
fn no_truncation_passes_and_no_flipped_bit_is_a_panic() {
    let folder = TempDir::new().unwrap();
    let (pdb, isf) = (&WINDOWS_7_SP1.images[3].pdb, export_isf(&WINDOWS_7_SP1, folder.path()).unwrap());
    let file = folder.path().join("damaged");
    for whole in [pdb.to_vec(), std::fs::read(&isf[3]).unwrap()] {
        for part in 0..64 {
            std::fs::write(&file, &whole[..whole.len() * part / 64]).unwrap();
            assert!(census(&file).is_err(), "{part} of 64 parts");
        }
        let mut random = 1_u64;
        for _ in 0..400 {
            let mut bytes = whole.clone();
            for _ in 0..4 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (random >> 33) as usize % whole.len();
                bytes[at] ^= 1 << (random >> 61);
            }
            std::fs::write(&file, &bytes).unwrap();
            let _ = census(&file);
        }
    }
}

#[test]
fn an_index_is_kept_beside_a_large_pdb_and_never_believed_of_another() {
    let folder = TempDir::new().unwrap();
    let file = large_pdb(&folder);
    let mut bytes = std::fs::read(&file).unwrap();
    let symbols = || PdbSymbols::open(&file).unwrap();
    let everything = |symbols: &PdbSymbols| {
        let names: Vec<_> = symbols.iter().map(|symbol| (symbol.name.into_owned(), symbol.rva)).collect();
        let layouts: Vec<_> = symbols.type_ids().into_iter().map(|id| symbols.layout(id).unwrap()).collect();
        (names, layouts)
    };
    let built = everything(&symbols());
    let index = index_of(&file);
    let whole = std::fs::read(&index).expect("kept once the symbols that built it are gone");
    assert_eq!(everything(&symbols()), built, "read from the index");
    assert_eq!(std::fs::read(&index).unwrap(), whole, "and not written again");

    std::fs::write(&index, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(everything(&symbols()), built, "half an index is none");
    assert_eq!(std::fs::read(&index).unwrap(), whole);
    bytes.push(0);
    std::fs::write(&file, &bytes).unwrap();
    assert_eq!(everything(&symbols()), built);
    assert_ne!(std::fs::read(&index).unwrap(), whole, "another file's index is replaced");

    // Whatever its tables say: answers, or none.
    for at in (92..whole.len()).step_by(whole.len() / 300) {
        let mut damaged = std::fs::read(&index).unwrap();
        damaged[at] ^= 0xff;
        std::fs::write(&index, &damaged).unwrap();
        let symbols = symbols();
        let _ = symbols.iter().filter_map(|symbol| symbols.nearest(symbol.rva)).count();
        for id in symbols.type_ids() {
            let _ = symbols.layout(id);
        }
    }
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let _ = std::fs::remove_file(&index);
                assert_eq!(everything(&symbols()).0.len(), built.0.len());
            });
        }
    });
}

/// The first question is answered from the records, later ones from tables.
#[test]
fn the_first_answer_is_the_one_that_later_ones_are() {
    let folder = TempDir::new().unwrap();
    let file = large_pdb(&folder);
    let index = index_of(&file);
    let whole = PdbSymbols::open(&file).unwrap();
    for symbol in whole.symbols().step_by(97) {
        let _ = std::fs::remove_file(&index);
        for rva in [symbol.rva, Rva(symbol.rva.0 + 1), Rva(symbol.rva.0.wrapping_sub(1))] {
            let first = PdbFile::open(&file).and_then(PdbFile::load).unwrap();
            assert_eq!(first.nearest(rva), whole.nearest(rva), "{rva}");
            assert_eq!(first.nearest(rva), whole.nearest(rva), "{rva}, asked again");
        }
        let _ = std::fs::remove_file(&index);
        let first = PdbFile::open(&file).and_then(PdbFile::load).unwrap();
        assert_eq!(first.address_of(&symbol.name), whole.address_of(&symbol.name), "{}", symbol.name);
    }
    let first = PdbFile::open(&file).and_then(PdbFile::load).unwrap();
    assert_eq!((first.nearest(Rva(0)), first.address_of("NoSuchName")), (None, None));
}

/// The first question for a type is answered by the PDB's own table, if what that says is so.
#[test]
fn the_first_type_is_the_one_that_later_ones_are() {
    let folder = TempDir::new().unwrap();
    let file = large_pdb(&folder);
    let index = index_of(&file);
    let whole = PdbSymbols::open(&file).unwrap();
    let first = || {
        let _ = std::fs::remove_file(&index);
        PdbFile::open(&file).and_then(PdbFile::load).unwrap()
    };
    for name in whole.types() {
        let found = whole.find_type(&name);
        let (asked, id) = (first(), found.expect("it is one of its types"));
        assert_eq!(asked.find_type(&name), found, "{name}");
        assert_eq!(asked.layout(id).unwrap(), whole.layout(id).unwrap(), "{name}");
    }
    assert!(whole.constants("_POOL_TYPE").is_some());
    assert_eq!(first().constants("_POOL_TYPE"), whole.constants("_POOL_TYPE"));
    assert_eq!((first().find_type("_NO_SUCH_TYPE"), first().constants("_NO_SUCH_TYPE")), (None, None));

    // Its own table says something else of every name: the records are right.
    let mut bytes = std::fs::read(&file).unwrap();
    // Version and length of a type stream's header, 28 bytes before its number of buckets.
    let header = [0x0b, 0xca, 0x31, 0x01, 56, 0, 0, 0];
    let headers: Vec<_> = (0..bytes.len() - 56).filter(|at| bytes[*at..].starts_with(&header)).collect();
    assert!(!headers.is_empty());
    headers.iter().for_each(|at| bytes[at + 28] ^= 1);
    std::fs::write(&file, &bytes).unwrap();
    for name in whole.types().step_by(7) {
        let (asked, id) = (first(), whole.find_type(&name).unwrap());
        assert_eq!(asked.find_type(&name), Some(id), "{name}");
        assert_eq!(asked.layout(id).unwrap(), whole.layout(id).unwrap(), "{name}");
    }
}

#[test]
fn damage_that_a_question_meets_is_told_with_its_answer_and_no_index_hides_it() {
    let folder = TempDir::new().unwrap();
    let file = large_pdb(&folder);
    let mut bytes = std::fs::read(&file).unwrap();
    let name = bytes.windows(13).position(|window| window == b"KeBugCheckEx\0").unwrap();
    // Before a public's name are length, kind, flags, offset and segment.
    bytes[name - 14..name - 12].fill(0xff);
    std::fs::write(&file, &bytes).unwrap();
    for _ in 0..2 {
        let symbols = PdbFile::open(&file).and_then(PdbFile::load).unwrap();
        assert_eq!(symbols.symbols().filter(|symbol| symbol.name == "KeBugCheckEx").count(), 0);
        let damage = symbols.damage().unwrap();
        assert!(damage.starts_with("damaged: symbol records: no record can begin at offset"), "{damage}");
        let error = PdbSymbols::open(&file).unwrap_err().to_string();
        assert!(error.contains(&damage), "{error}");
    }
    assert!(!index_of(&file).exists());
}

/// A PDB large enough to be indexed: a small one, and a tail that no stream has.
fn large_pdb(folder: &TempDir) -> PathBuf {
    let file = folder.path().join("nt.pdb");
    let mut bytes = WINDOWS_7_SP1.images[0].pdb.to_vec();
    bytes.resize(bytes.len().max(2 << 20), 0);
    std::fs::write(&file, &bytes).unwrap();
    file
}

fn check(file: &Path) -> (i32, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_verikd")).args(["symbols", "check"]).arg(file).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}
