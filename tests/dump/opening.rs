//! What is said when a file is opened, before anything is asked.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};

use verikd_sim::windows::{Machine, Scenario, WINDOWS_7_SP1};
use verikd_sim::{DumpKind, write_dump};

use super::program::{self, Running, golden, normalized};
use super::{folder, symbols};

/// The dump that people bring: a driver was unloaded and left its pool behind.
#[test]
fn a_bug_check_is_announced_with_the_command_that_answers_it() {
    let _ = symbols(&WINDOWS_7_SP1);
    let store = folder("symbols").join(WINDOWS_7_SP1.name).display().to_string();
    let path = folder("opening").join("c4-62.dmp");
    let name = path.display().to_string();
    let written = program::run(&["sim", "--scenario", "bugcheck-c4-62", "--write-dump", &name]);
    assert_eq!(written.code, 0, "{}", written.err);
    let ended =
        Running::start(&["-z", &name, "-y", &store, "-c", ".bugcheck; !verifier 3 myfault.sys"]).finish();
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.err.contains("*** Fatal System Error: 0x000000c4\n"), "{}", ended.err);
    assert!(ended.err.contains("(0x0000000000000062,0x"), "{}", ended.err);
    let hint = "The driver myfault.sys was unloaded and left 10 pool allocations behind; type !verifier 3 myfault.sys for them";
    assert_eq!(ended.err.matches(hint).count(), 1, "{}", ended.err);
    let (bug_check, verifier) = ended.out.split_at(ended.out.match_indices('\n').nth(1).unwrap().0 + 1);
    assert!(bug_check.starts_with("Bugcheck code 000000C4\nArguments 00000000`00000062 "), "{bug_check}");
    let told = normalized(verifier);
    assert!(golden().starts_with(&told) && told.len() > 20, "{told:#?}");
}

/// The header has it where nothing leads to the kernel's own note.
#[test]
fn a_bug_check_is_known_without_symbols_and_debugger_data() {
    let mut machine = Machine::with_scenario(&WINDOWS_7_SP1, Scenario::BugcheckC462, 0);
    machine.stop_for_dump();
    machine.encode_debugger_data(0);
    let path = folder("opening").join("alone.dmp");
    write_dump(&machine, DumpKind::Kernel, &path).unwrap();
    let ended = program::run(&["-z", &path.display().to_string(), "-y", "/nowhere", "-c", ".bugcheck"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.out.starts_with("Bugcheck code 000000C4\nArguments 00000000`00000062 "), "{}", ended.out);
}

/// What people send instead of a dump, and dumps that something happened to on their way.
#[test]
fn a_file_of_another_kind_is_told_by_its_name() {
    let folder = folder("opening");
    let told = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, [bytes, &[0; 0x3000]].concat()).unwrap();
        let ended = program::run(&["-z", &path.display().to_string(), "-c", "lm"]);
        assert_eq!((ended.code, ended.out.as_str()), (1, ""), "{name}: {}", ended.err);
        ended.err
    };
    for (name, bytes, what) in [
        ("a.gz", &b"\x1f\x8b\x08\0"[..], "compressed with gzip: unpack it first"),
        ("a.zip", b"PK\x03\x04", "a zip archive"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
        ("a.zst", b"\x28\xb5\x2f\xfd", "compressed with zstd"),
        ("a.qcow2", b"QFI\xfb\0\0\0\x03", "a virtual machine's disk"),
        ("a.vmdk", b"# Disk DescriptorFile\nversion=1", "a virtual machine's disk"),
        ("a.sys", b"MZ\x90\0\x03\0\0\0", "a program, a driver or a library"),
        ("a.pdb", b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0", "a symbol file (PDB)"),
        ("swapped.dmp", b"EGAP46UD", "swapped word by word"),
    ] {
        let said = told(name, bytes);
        assert!(said.contains(what), "{name}: {said}");
    }
}

/// `-z <(zcat MEMORY.DMP.gz)` is a pipe; nobody waits at one.
#[cfg(unix)]
#[test]
fn what_is_no_file_is_told_so_at_once() {
    let pipe = folder("opening").join("pipe");
    let _ = std::fs::remove_file(&pipe);
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let pipe = pipe.display().to_string();
    let as_raw = format!("raw:{pipe}");
    for options in [["-z", &pipe], ["--vm", &as_raw], ["-z", "/dev/zero"]] {
        let ended = program::run(&[&options[..], &["-c", "lm"]].concat());
        assert_eq!(ended.code, 1, "{}", ended.err);
        assert!(ended.err.contains("it is a pipe or a device"), "{}", ended.err);
    }
}

#[test]
fn a_core_is_opened_as_a_virtual_machine_too() {
    let path = folder("opening").join("core.elf").display().to_string();
    let written = program::run(&["sim", "--write-dump", &path, "--dump-type", "elf"]);
    assert_eq!(written.code, 0, "{}", written.err);
    let ended = program::run(&["--vm", &format!("elf:{path}"), "-c", "r rip"]);
    assert_eq!((ended.code, ended.out.as_str()), (0, "rip=fffff800014846a0\n"), "{}", ended.err);
}

/// The type is a good one; what it says of the file is not so.
#[test]
fn a_dump_without_its_list_of_pages_is_told_so() {
    let path = folder("opening").join("listless.dmp");
    let mut machine = Machine::new(&WINDOWS_7_SP1);
    machine.stop_for_dump();
    write_dump(&machine, DumpKind::Kernel, &path).unwrap();
    let mut file = File::options().write(true).open(&path).unwrap();
    let told = || {
        let ended = program::run(&["-z", &path.display().to_string(), "-c", "lm"]);
        assert_eq!(ended.code, 1, "{}", ended.err);
        ended.err
    };
    file.set_len(0x3000).unwrap();
    file.seek(SeekFrom::Start(0x2000)).unwrap();
    file.write_all(&[0; 12]).unwrap();
    let said = told();
    assert!(
        said.contains("its type 0x6 has a list of pages (SDMPDUMP, FDMPDUMP or RDMPDUMP) at 0x2000"),
        "{said}"
    );
    file.set_len(0x2000).unwrap();
    let said = told();
    assert!(said.contains("its list of pages needs 0x2040 bytes, the file has 0x2000"), "{said}");
}

/// No address is told where none is known.
#[test]
fn a_file_without_registers_says_that_it_has_none() {
    let path = folder("opening").join("ram.lime").display().to_string();
    let written = program::run(&["sim", "--write-dump", &path, "--dump-type", "lime"]);
    assert_eq!(written.code, 0, "{}", written.err);
    let ended = Running::start(&["-z", &path, "-c", "lm"]).finish();
    assert!(ended.err.contains("No processor's registers are known of it"), "{}", ended.err);
    assert!(ended.err.contains("PsLoadedModuleList = not known\n"), "{}", ended.err);
    assert!(ended.err.contains("error: lm: nt has no symbols: "), "{}", ended.err);
    assert!(!ended.err.contains("00000000`00000000"), "{}", ended.err);
    assert!(!ended.err.contains("Break instruction"), "{}", ended.err);
}

/// A kernel that its file says little of is found without symbols, which may come later.
#[test]
fn symbols_that_are_given_later_say_where_the_modules_are() {
    let _ = symbols(&WINDOWS_7_SP1);
    let store = folder("symbols").join(WINDOWS_7_SP1.name).display().to_string();
    let path = folder("opening").join("later.lime").display().to_string();
    let written = program::run(&["sim", "--write-dump", &path, "--dump-type", "lime"]);
    assert_eq!(written.code, 0, "{}", written.err);
    let path_first = format!(".sympath \"{store}\"; .reload; lm; vertarget");
    let ended = Running::start(&["-z", &path, "-c", &path_first]).finish();
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.out.contains("   myfault    (deferred)\n"), "{}", ended.out);
    assert!(ended.out.contains("PsLoadedModuleList = 0xfffff800`01654c90\n"), "{}", ended.out);
}

/// Large files are often mostly holes.
#[test]
fn an_image_of_64_gib_without_a_kernel_is_looked_through_by_what_was_written() {
    let path = folder("opening").join("sparse.raw");
    let mut file = File::create(&path).unwrap();
    file.write_all(b"something").unwrap();
    file.set_len(64 << 30).unwrap();
    let refused = verikd::dump::open(&path, None).unwrap_err().to_string();
    std::fs::remove_file(&path).unwrap();
    assert!(
        refused.contains("images of raw memory by the kernel in them, of which there is none"),
        "{refused}"
    );
}

/// What was asked for and does not hold is said, and not passed over.
#[test]
fn tables_that_lead_nowhere_and_a_file_that_is_no_raw_memory_are_named() {
    let path = folder("opening").join("tables.lime").display().to_string();
    let written = program::run(&["sim", "--write-dump", &path, "--dump-type", "lime"]);
    assert_eq!(written.code, 0, "{}", written.err);
    let told = "--dtb 123000 leads to no kernel: the page tables at 187000 are used, which were found";
    let of = |dtb: &str| Running::start(&["-z", &path, "--dtb", dtb, "-c", "vertarget"]).finish();
    let (wrong, right) = (of("123000"), of("187000"));
    assert!(wrong.err.contains(told), "{}", wrong.err);
    assert!(!right.err.contains("leads to no kernel"), "{}", right.err);
    assert_eq!(wrong.out, right.out);
    let raw = Running::start(&["--vm", &format!("raw:{path}"), "-c", "lm"]).finish();
    assert_eq!(raw.code, 1, "{}", raw.err);
    assert!(
        raw.err.contains("a file that says what it is, and no raw memory: -z FILE opens it"),
        "{}",
        raw.err
    );
}
