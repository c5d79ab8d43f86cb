//! Files of a machine's memory: each kind gives the live machine's answers; and files that nobody should have written.

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/ports.rs"]
mod ports;
#[path = "../support/program.rs"]
mod program;

mod arm64;
mod encoded;
mod fields;
mod hostile;
mod opening;
mod processors;
mod small;
mod vmware;
mod witness;
mod writing;
mod x86;

use std::collections::BTreeSet;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use kd_protocol::PhysAddr;
use kd_protocol::kd::DebugIo;
use support::machine::{Still, version_of};
use support::text::text;
use verikd::debugger::{Debugger, Notice, Observer};
use verikd::dump;
use verikd::symbols::store::{SymbolPath, SymbolSource};
use verikd::target::{Kernel, Target};
use verikd_sim::windows::{BUILDS, Build, Machine, Scenario, WINDOWS_7_SP1};
use verikd_sim::{DumpKind, export_symbols, write_dump};

/// What is asked of every machine and of every file of it.
const QUESTIONS: &[&str] = &[
    "!verifier",
    "!verifier 3",
    "!verifier 3 myfault.sys",
    "!verifier 80 fffffa8005400000",
    "!verifier 80 0n16",
    "!verifier 100 0n4",
    "!leaks",
    "!leaks -tree",
    "lm",
    "vertarget",
    ".bugcheck",
    "r",
    "dps @rsp L10",
    "kv",
    "kf",
];
/// A machine with more pages in use is written as one kind of one build: the kinds differ in the page map only.
const MANY_PAGES: usize = 0x8000;

struct Nobody;

impl Observer for Nobody {
    fn notice(&mut self, _: &Notice<'_>) {}

    fn prompt(&mut self, _: &DebugIo) -> Bytes {
        panic!("a file asks nothing")
    }
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dump").join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The symbols of a build, written once: a test must not write over what another reads.
fn symbols(build: &'static Build) -> Arc<SymbolSource> {
    static WRITTEN: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    let folder = folder("symbols").join(build.name);
    let mut written = WRITTEN.lock().unwrap();
    if !written.contains(build.name) {
        export_symbols(build, &folder).unwrap();
        written.insert(build.name);
    }
    drop(written);
    Arc::new(SymbolSource::new(SymbolPath::parse(&folder.display().to_string())))
}

/// A debugger before an opened file.
fn debugger(path: &Path, symbols: &Arc<SymbolSource>) -> Debugger {
    let opened = dump::open(path, None).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(opened.warnings, [""; 0]);
    let mut debugger = Debugger::new(Arc::new(opened.source), Arc::clone(symbols), Duration::ZERO);
    debugger.break_in(&mut Nobody).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    debugger
}

fn answers(target: &Target<'_>) -> Vec<String> {
    QUESTIONS.iter().map(|line| text(target, line)).collect()
}

/// Byte for byte, on every build and in every scenario; from one kind of file each, which takes turns, or from every kind if
/// `VERIKD_ALL` is set.
#[test]
fn every_kind_of_file_gives_the_live_machines_answers() {
    // LiME has no processor, so no registers, a small dump has next to nothing: their own tests ask for what they have.
    let has_all = |kind: &DumpKind| !matches!(kind, DumpKind::Lime | DumpKind::Triage);
    let kinds: Vec<_> = DumpKind::ALL.into_iter().filter(has_all).collect();
    let is_all = std::env::var_os("VERIKD_ALL").is_some();
    let (mut compared, mut turn) = (0, 0);
    for build in BUILDS {
        let symbols = symbols(build);
        for scenario in Scenario::ALL {
            if scenario.check(build).is_err() {
                continue;
            }
            let mut machine = Machine::with_scenario(build, scenario, 1);
            machine.run_for(Duration::from_millis(4_118));
            machine.stop_for_dump();
            let is_large = machine.pages_in_use().len() > MANY_PAGES;
            if is_large && build.name != WINDOWS_7_SP1.name {
                continue;
            }
            let kernel = Kernel::new(version_of(&machine), Arc::clone(&symbols));
            let live = Still(machine);
            let live_answers = answers(&Target::new(&live, &kernel).with_cpu(&live));
            turn += 1;
            for kind in kinds.iter().copied().cycle().skip(turn).take(if is_all { kinds.len() } else { 1 }) {
                if is_large && kind != DumpKind::Kernel {
                    continue;
                }
                let path = folder(build.name).join(format!("{}.{}", scenario.name(), kind.name()));
                write_dump(&live, kind, &path).unwrap();
                let debugger = debugger(&path, &symbols);
                let answers = answers(&debugger.target().unwrap());
                for ((question, answer), live) in QUESTIONS.iter().zip(&answers).zip(&live_answers) {
                    assert_eq!(answer, live, "{question} of {} {scenario} as {}", build.name, kind.name());
                }
                std::fs::remove_file(&path).unwrap();
                compared += answers.len();
            }
        }
    }
    println!("{compared} answers compared");
    assert!(compared > 1000, "{compared}");
}

/// Neither a debugger's header nor a processor: the kernel is found by what its memory looks like.
#[test]
fn a_lime_image_is_found_by_its_tables() {
    let build = &WINDOWS_7_SP1;
    let symbols = symbols(build);
    let mut machine = Machine::new(build);
    machine.break_in();
    let path = folder("lime").join("ram.lime");
    write_dump(&machine, DumpKind::Lime, &path).unwrap();
    let debugger = debugger(&path, &symbols);
    let target = debugger.target().unwrap();
    let kernel = Kernel::new(version_of(&machine), Arc::clone(&symbols));
    let live = Still(machine);
    for line in ["!verifier 3 myfault.sys", "!verifier 80 fffffa8005400000", "lm"] {
        assert_eq!(text(&target, line), text(&Target::new(&live, &kernel), line), "{line}");
    }
    let registers = text(&target, "r");
    assert!(registers.contains("registers: no processor's are known of it"), "{registers}");
}

/// Nothing in it says what it is but the kernel that is found.
#[test]
fn an_image_of_raw_memory_is_found_by_its_tables() {
    let build = &WINDOWS_7_SP1;
    let mut machine = Machine::new(build);
    machine.break_in();
    let path = folder("raw").join("ram.raw");
    let mut file = std::fs::File::create(&path).unwrap();
    file.set_len(machine.ram()).unwrap();
    for frame in machine.pages_in_use() {
        let mut page = [0; 0x1000];
        machine.read_physical(PhysAddr(frame * 0x1000), &mut page);
        file.seek(SeekFrom::Start(frame * 0x1000)).unwrap();
        file.write_all(&page).unwrap();
    }
    let place = format!("raw:{}", path.display());
    let found = folder("symbols").join("raw");
    export_symbols(build, &found).unwrap();
    let found = found.display().to_string();
    for file in [["--vm", &place], ["-z", &path.display().to_string()]] {
        let asked = [&file[..], &["-y", &found, "-c", "!verifier 3 myfault.sys"]].concat();
        let ended = program::run(&asked);
        assert_eq!(ended.code, 0, "{}", ended.err);
        let told = program::normalized(&ended.out);
        assert!(program::golden().starts_with(&told) && told.len() > 20, "{told:#?}");
    }
    let zeros = folder("raw").join("zeros");
    std::fs::File::create(&zeros).unwrap().set_len(4 << 20).unwrap();
    let refused = dump::open(&zeros, None).unwrap_err().to_string();
    assert!(refused.contains("no kernel is found in it"), "{refused}");
}

/// A page that this kind of dump does not have is a gap that is named, not "not mapped".
#[test]
fn a_page_that_is_cut_off_is_told_apart() {
    let build = &WINDOWS_7_SP1;
    let mut machine = Machine::new(build);
    machine.break_in();
    let path = folder("cut").join("cut.dmp");
    write_dump(&machine, DumpKind::Full, &path).unwrap();
    // The pages of the pool tracker lie near the end of what is in use.
    let last = *machine.pages_in_use().last().unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(0x2000 + (last - 0x40) * 0x1000).unwrap();
    let opened = dump::open(&path, None).unwrap();
    assert!(opened.warnings[0].starts_with("The dump is cut short: it has "), "{:?}", opened.warnings);
    let mut debugger = Debugger::new(Arc::new(opened.source), symbols(build), Duration::ZERO);
    debugger.break_in(&mut Nobody).unwrap();
    let target = debugger.target().unwrap();
    let text = text(&target, "lm");
    let told =
        format!("{text}{:?}", support::text::run(&target, "!verifier 3 myfault.sys").map(|it| it.notes));
    assert!(
        told.contains("the dump is cut short: it ends before the page") || text.contains("myfault"),
        "{told}"
    );
}
