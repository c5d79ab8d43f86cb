//! What is said when a file is opened, before anything is asked.

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
