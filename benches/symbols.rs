//! How long the first answer of a PDB takes, beside what merely iterating its records takes.
//!
//! ```text
//! cargo bench --bench symbols [-- FILE.pdb]
//! ```
//! Without a file it makes one of a real kernel's size: 30,000 publics, 5,000 structures. Times are the best of several
//! runs in one process with the file in the system's cache; the ratios are what to compare between machines. A question
//! for an address or a name is held against one pass over the symbol records alone, one for a type against one over the
//! type records. A warm answer is opening two files and a few blocks of them: of a PDB with few types, as one made from a
//! table of a real kernel's types is (0.1 ms for all), opening alone is more than a tenth of the pass.

use std::fmt::Write;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kd_protocol::MachineType;
use ms_pdb::Pdb;
use ms_pdb::syms::SymIter;
use ms_pdb::types::TypesIter;
use verikd::commands::{Run, Style, ask, find};
use verikd::memory::{ImageMemory, VirtAddr};
use verikd::symbols::pdb::{PdbFile, PdbSymbols, index_of};
use verikd::symbols::store::SymbolPath;
use verikd::symbols::{Rva, Symbols};
use verikd::target::{Kernel, KernelVersion, Target};
use verikd_images::{Linker, build};
use verikd_sim::windows::layout::{ImageLayout, Types};

const RUNS: usize = 15;
const PUBLICS: usize = 30_000;
const STRUCTURES: usize = 5_000;
const FIELDS: usize = 72;

fn main() {
    let given = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).map(PathBuf::from);
    let Some(pdb) = given.or_else(generated) else { return };
    let len = std::fs::metadata(&pdb).expect("the file is there").len();
    let sample = PdbFile::open(&pdb).and_then(PdbFile::load).expect("the file is a PDB");
    let symbol = sample.iter().nth(sample.iter().count() / 2).expect("it has symbols");
    let (rva, symbol_name) = (Rva(symbol.rva.0 + 1), symbol.name.into_owned());
    let id = sample.type_ids().into_iter().nth(7).expect("it has types");
    let ty = sample.layout(id).expect("its types can be read").name.to_string();
    let (symbols, types) = (sample.iter().count(), sample.type_ids().len());
    println!("{}: {len} bytes, {symbols} symbols, {types} types", pdb.display());
    drop(sample);

    let address = |symbols: &PdbSymbols| {
        assert_eq!(symbols.nearest(rva).expect("a symbol is near").rva.0 + 1, rva.0);
    };
    let name = |symbols: &PdbSymbols| {
        assert!(symbols.address_of(&symbol_name).is_some());
    };
    let field = |symbols: &PdbSymbols| {
        let id = symbols.find_type(&ty).expect("the type is there");
        black_box(symbols.layout(id).expect("it can be read"));
    };
    let index = index_of(&pdb);
    // From opening the file to the answer; the index is written while the program goes on.
    let first = |ask: &dyn Fn(&PdbSymbols)| {
        let start = Instant::now();
        let symbols = PdbFile::open(&pdb).and_then(PdbFile::load).expect("the file is a PDB");
        ask(&symbols);
        let answered = start.elapsed();
        drop(symbols);
        answered
    };
    let without_index = |ask: &dyn Fn(&PdbSymbols)| {
        best(|| {
            let _ = std::fs::remove_file(&index);
            first(ask)
        })
    };
    let with_index = |ask: &dyn Fn(&PdbSymbols)| {
        first(ask);
        best(|| first(ask))
    };
    let symbols_once = best(|| iterate_symbols(&pdb));
    let types_once = best(|| iterate_types(&pdb));
    // What no index can save: a file has to be opened, and the places of its streams read, before it is asked anything.
    let opened = best(|| first(&|_| ()));
    println!(
        "ms-pdb, each record once: symbols {symbols_once:?}, types {types_once:?}; opening file and index: {opened:?}"
    );
    for (what, run, once) in [
        ("address", &address as &dyn Fn(&PdbSymbols), symbols_once),
        ("name", &name, symbols_once),
        ("type", &field, types_once),
    ] {
        let (cold, warm) = (without_index(run), with_index(run));
        let ratio = |time| ratio_of(time, once);
        println!(
            "first {what}: cold {cold:?} = {:.2} x its stream (bar 1.20), warm {warm:?} = {:.3} x (bar 0.10), {:.3} x \
             without opening",
            ratio(cold),
            ratio(warm),
            ratio(warm.saturating_sub(opened)),
        );
    }
    let symbols: Arc<dyn Symbols> =
        Arc::new(PdbFile::open(&pdb).and_then(PdbFile::load).expect("the file is a PDB"));
    let len = symbol_name.chars().count();
    let part: String = symbol_name.chars().skip(len.saturating_sub(5)).collect();
    for line in [format!("x nt!{symbol_name}"), format!("x nt!*{part}*"), "x nt!*Verif*".to_owned()] {
        let (_, found) = examine(&symbols, &line);
        let time = best(|| examine(&symbols, &line).0);
        println!(
            "{line}: {found} found, {time:?} = {:.2} x its stream (bar 1.00)",
            ratio_of(time, symbols_once)
        );
    }
    drop(symbols);
    let six = |symbols: &PdbSymbols| {
        for _ in 0..3 {
            address(symbols);
            field(symbols);
        }
    };
    let later = without_index(&six);
    println!(
        "six questions, cold: {later:?} = {:.2} x both streams",
        ratio_of(later, symbols_once + types_once)
    );
}

/// The time of a command that needs nothing but the kernel's symbols, and the lines it printed.
fn examine(symbols: &Arc<dyn Symbols>, line: &str) -> (Duration, usize) {
    let base = VirtAddr(0xffff_f800_0140_0000);
    let version = KernelVersion { machine: MachineType::AMD64, base, ..KernelVersion::default() };
    let kernel = Kernel::new(version, SymbolPath::parse("/nowhere"));
    kernel.use_symbols(base, u32::MAX, Arc::clone(symbols));
    let memory = ImageMemory::new();
    let target = Target::new(&memory, &kernel);
    let (spec, arguments) = find(line).expect("a command that there is");
    let Run::Query(run) = spec.run else { unreachable!("it asks a target") };
    let start = Instant::now();
    let answer = ask(run, arguments, &target).expect("symbols are there");
    let time = start.elapsed();
    let mut text = String::new();
    answer.write_text(Style::default(), &mut text).expect("a String takes any text");
    (time, text.lines().count())
}

fn ratio_of(time: Duration, to: Duration) -> f64 {
    time.as_secs_f64() / to.as_secs_f64()
}

fn best(mut run: impl FnMut() -> Duration) -> Duration {
    (0..RUNS).map(|_| run()).min().expect("there is more than one run")
}

fn iterate_symbols(pdb: &Path) -> Duration {
    let start = Instant::now();
    let pdb = Pdb::open(pdb).expect("the file is a PDB");
    let stream = pdb.dbi_header().global_symbol_stream.get().expect("it has symbol records");
    let records = pdb.read_stream_to_vec(stream).expect("they can be read");
    for record in SymIter::new(&records) {
        black_box(record.parse().is_ok());
    }
    start.elapsed()
}

fn iterate_types(pdb: &Path) -> Duration {
    let start = Instant::now();
    let pdb = Pdb::open(pdb).expect("the file is a PDB");
    let types = pdb.read_type_stream().expect("it has types");
    for record in TypesIter::new(types.type_records_bytes()) {
        black_box(record.parse().is_ok());
    }
    start.elapsed()
}

/// A PDB of a real kernel's size, made once.
fn generated() -> Option<PathBuf> {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench.pdb");
    if file.exists() {
        return Some(file);
    }
    let linker = match Linker::find() {
        Ok(linker) => linker,
        Err(error) => {
            println!("skipped: {error}");
            return None;
        }
    };
    let layout = ImageLayout::parse(&[&layout_text()]).expect("the text above is a layout file");
    let types = Types::parse(&[&types_text()]).expect("the text above is a file of structures");
    let built = build(&linker, layout, Some(&types)).expect("the linker does its work");
    std::fs::write(&file, built.pdb).expect("there is room for it");
    Some(file)
}

fn layout_text() -> String {
    let mut text = String::from(
        "file = 'bench.exe'\nmodule = 'bench'\npdb = 'bench.pdb'\ntypes = ['types.toml']\n\
         loaded_at = \"fffff800`01400000\"\npreferred_base = 0x140000000\ntimestamp = 1\nentry = 'Routine0'\n\
         [[section]]\nname = '.text'\nat = 0x1000\nsize = 0x400000\nkind = 'code'\nsymbols = [\n",
    );
    for index in 0..PUBLICS {
        let at = 0x1000 + index * 0x80;
        let name = if index == 0 { "Routine0".into() } else { format!("ExpSomeSubsystemRoutine{index:05}") };
        writeln!(text, "[{at:#x}, '{name}'],").expect("a String takes any text");
    }
    text.push_str("]\n[[section]]\nname = '.rdata'\nat = 0x401000\nsize = 0x2000\nkind = 'linker'\n");
    text
}

fn types_text() -> String {
    let mut text = String::from("unnamed = '<unnamed-tag>'\n");
    for index in 0..STRUCTURES {
        let size = FIELDS * 8;
        write!(text, "[struct._EXP_SUBSYSTEM_BLOCK_{index:04}]\nsize = {size}\nfields = [\n")
            .expect("as above");
        for field in 0..FIELDS {
            let ty = match field % 4 {
                0 => "unsigned long long".to_owned(),
                1 => format!("_EXP_SUBSYSTEM_BLOCK_{:04}*", (index + field) % STRUCTURES),
                2 => "unsigned long:12@3".to_owned(),
                _ => "void*".to_owned(),
            };
            writeln!(text, "[{}, 'SubsystemField{field}', '{ty}'],", field * 8).expect("as above");
        }
        text.push_str("]\n");
    }
    text
}
