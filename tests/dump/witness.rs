//! Strangers' readers on the files that are written here: they find the kernel, list the same modules and read the same bytes.
//!
//! kdmp-parser is a library, and is always asked. ntoseye is a debugger of its own with its own way to the kernel: it is asked
//! where it is installed (`pip install ntoseye`), and else there is a word.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use kdmp_parser::{Gva, Gxa, KernelDumpParser};
use support::text::text;
use verikd::memory::VirtAddr;
use verikd::target::Target;
use verikd_sim::windows::{Machine, WINDOWS_7_SP1};
use verikd_sim::{DumpKind, write_dump};

use super::{answers, debugger, folder, support, symbols};

/// Every kind that strangers read, as the simulator and as `.dump` write them.
const SIMULATED: [DumpKind; 4] = [DumpKind::Full, DumpKind::Active, DumpKind::Kernel, DumpKind::Ranges];
const WRITTEN: [&str; 3] = ["/f", "/ka", "/used"];

/// A machine whose kernel's first page has what real ones have and the simulator's linker does not write: the DOS header as
/// Microsoft's linker begins it, and the name of a section.
fn machine() -> Machine {
    let mut machine = Machine::new(&WINDOWS_7_SP1);
    machine.break_in();
    let base = machine.version().kern_base;
    let mut page = [0; 0x1000];
    assert_eq!(machine.read_virtual(base, &mut page), page.len());
    let room = (0..page.len()).step_by(8).rev().find(|at| page[*at..*at + 8] == [0; 8]).unwrap();
    machine.write_virtual(base, b"MZ\x90\0");
    machine.write_virtual(base.offset(room as u64), b"POOLCODE");
    machine
}

/// Every file that is to be read, by what wrote it.
fn files(name: &str) -> Vec<(String, PathBuf)> {
    let folder = folder("witness").join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let machine = machine();
    let mut files = Vec::new();
    for kind in SIMULATED {
        let path = folder.join(kind.name());
        write_dump(&machine, kind, &path).unwrap();
        files.push((format!("--dump-type {}", kind.name()), path));
    }
    let core = folder.join("core.elf");
    write_dump(&machine, DumpKind::Elf, &core).unwrap();
    let opened = debugger(&core, &symbols(&WINDOWS_7_SP1));
    let target = opened.target().unwrap();
    let _ = answers(&target);
    for option in WRITTEN {
        let path = folder.join(&option[1..]);
        let said = text(&target, &format!(".dump /o {option} {}", path.display()));
        assert!(said.contains("Dump successfully written"), "{said}");
        files.push((format!(".dump {option}"), path));
    }
    files
}

/// Base, end and file name of each module, as this program lists them.
fn modules(target: &Target<'_>) -> BTreeSet<(u64, u64, String)> {
    let list = target.modules().unwrap();
    let of = |module: &verikd::target::Module| (module.base.0, module.end().0, module.image_name.to_string());
    list.modules().iter().map(of).collect()
}

/// Pages that are worth comparing: what a question about the driver's allocations has read.
fn pages(target: &Target<'_>) -> Vec<u64> {
    let told = text(target, "!verifier 3 myfault.sys");
    assert!(told.contains("myfault.sys"), "{told}");
    let touched = target.memory().touched();
    let is_there = |at: &VirtAddr| target.memory().read_virtual(*at, &mut [0; 0x1000]).is_ok();
    touched.into_iter().filter(is_there).map(|at| at.0).collect()
}

#[test]
fn a_strangers_library_lists_the_same_modules_and_reads_the_same_bytes() {
    for (what, path) in files("library") {
        let stranger = KernelDumpParser::new(&path).unwrap_or_else(|error| panic!("{what}: {error}"));
        let opened = debugger(&path, &symbols(&WINDOWS_7_SP1));
        let target = opened.target().unwrap();
        let theirs: BTreeSet<_> = stranger
            .kernel_modules()
            .map(|(range, name)| {
                let name = name.rsplit('\\').next().unwrap_or(name);
                (range.start.u64(), range.end.u64(), name.to_owned())
            })
            .collect();
        assert_eq!(theirs, modules(&target), "{what}");
        assert_eq!(theirs.len(), 4, "{what}");
        let pages = pages(&target);
        assert!(pages.len() > 10, "{what}: {pages:x?}");
        for at in pages {
            let (mut ours, mut theirs) = (vec![0; 0x1000], vec![0; 0x1000]);
            target.memory().read_virtual(VirtAddr(at), &mut ours).unwrap();
            stranger.virt_read_exact(Gva::from(at), &mut theirs).unwrap();
            assert_eq!(ours, theirs, "{at:#x} of {what}");
        }
        std::fs::remove_file(path).unwrap();
    }
}

/// What ntoseye says of a dump; nothing if it is not there.
fn ntoseye(dump: &Path, commands: &str) -> Option<String> {
    let home = tempfile::tempdir().unwrap();
    let _ = symbols(&WINDOWS_7_SP1);
    let store = folder("symbols").join(WINDOWS_7_SP1.name);
    let output = Command::new("ntoseye")
        .env("HOME", home.path())
        .arg("--dump")
        .arg(dump)
        .arg("--sympath-append")
        .arg(store)
        .args(["--batch", "-c", commands])
        .output()
        .ok()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {out}{err}", dump.display());
    Some(out.into_owned())
}

/// Its list of modules, its dump of bytes, and its own report of Driver Verifier, which it makes from the same structures.
#[test]
fn a_strangers_debugger_finds_the_kernel_lists_the_same_modules_and_reads_the_same_bytes() {
    for (what, path) in files("debugger") {
        let opened = debugger(&path, &symbols(&WINDOWS_7_SP1));
        let target = opened.target().unwrap();
        let pages = pages(&target);
        let dumps = pages.iter().map(|at| format!("; db 0x{at:x} L0x1000")).collect::<String>();
        let Some(told) = ntoseye(&path, &format!("lm; !verifier{dumps}")) else {
            println!("skipped: there is no ntoseye here (pip install ntoseye)");
            return;
        };
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let theirs: BTreeSet<_> = told
            .lines()
            .filter_map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let (first, last) = words.first().zip(words.last()).filter(|_| words.len() == 7)?;
                Some((hex(first)?, hex(words[1])?, (*last).to_owned()))
            })
            .collect();
        assert_eq!(theirs, modules(&target), "{what}: {told}");
        let numbers = "Current nonpaged pool allocations       0xa for 0x9ce000 bytes";
        assert!(told.contains(numbers), "{what}: {told}");
        for at in pages {
            let mut ours = vec![0; 0x1000];
            target.memory().read_virtual(VirtAddr(at), &mut ours).unwrap();
            assert_eq!(bytes_at(&told, at), ours, "{at:#x} of {what}");
        }
        std::fs::remove_file(path).unwrap();
    }
}

/// The page that ntoseye's lines of sixteen bytes have from `at` on.
fn bytes_at(told: &str, at: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in told.lines() {
        // Behind the address a byte of two digits: a list of modules has another address there.
        let begins = format!("{:016x}  ", at + bytes.len() as u64);
        if line.starts_with(&begins) && line.as_bytes().get(20) == Some(&b' ') && bytes.len() < 0x1000 {
            let columns = line[18..].split("  ").next().unwrap_or_default();
            bytes.extend(columns.split([' ', '-']).map(|byte| u8::from_str_radix(byte, 16).unwrap()));
        }
    }
    bytes
}
