//! `.dump`: what it writes answers as what it was written from, to us and to a stranger; over a line too.

use kdmp_parser::{Gxa, KernelDumpParser};
use support::text::text;
use verikd_sim::windows::{Machine, WINDOWS_7_SP1};
use verikd_sim::{DumpKind, write_dump};

use super::program::{Running, Setup, golden, normalized};
use super::{QUESTIONS, answers, debugger, folder, support, symbols};

#[test]
fn a_dump_of_a_dump_answers_as_it_does() {
    let symbols = symbols(&WINDOWS_7_SP1);
    let mut machine = Machine::new(&WINDOWS_7_SP1);
    machine.break_in();
    let folder = folder("written");
    let first = folder.join("first.elf");
    write_dump(&machine, DumpKind::Elf, &first).unwrap();
    let debugger_of_first = debugger(&first, &symbols);
    let target = debugger_of_first.target().unwrap();
    let told = answers(&target);
    for (option, dump_type) in [("/used", 6), ("/ka", 6), ("/f", 1)] {
        let path = folder.join(&option[1..]);
        let _ = std::fs::remove_file(&path);
        let said = text(&target, &format!(".dump {option} {}", path.display()));
        assert!(said.contains("Dump successfully written"), "{said}");
        let again = text(&target, &format!(".dump {option} {}", path.display()));
        assert!(again.contains("is there already; /o overwrites it"), "{again}");
        let opened = debugger(&path, &symbols);
        for ((question, answer), told) in QUESTIONS.iter().zip(answers(&opened.target().unwrap())).zip(&told)
        {
            assert_eq!(&answer, told, "{question} of {option}");
        }
        if dump_type != 1 {
            let stranger = KernelDumpParser::new(&path).unwrap();
            let modules: Vec<u64> = stranger.kernel_modules().map(|(range, _)| range.start.u64()).collect();
            assert!(modules.contains(&machine.version().kern_base.0) && modules.len() == 4, "{modules:x?}");
        }
        assert_eq!(std::fs::read(&path).unwrap()[0xf98], dump_type, "{option}");
    }
    let len = |option: &str| folder.join(option).metadata().unwrap().len();
    // Most of it is the log, which was searched here.
    assert!(len("used") < 16 << 20 && len("used") < len("ka") && len("ka") < len("f"));
}

/// Some hundred requests instead of all of RAM. A log that the target searched by itself was not read: it is not in the dump,
/// and whoever asks it is told so.
#[test]
fn what_a_session_used_goes_over_the_line_and_answers_again() {
    let setup = Setup::new();
    let path = setup.folder.path().join("used.dmp").display().to_string();
    let _target = setup.target(&[]);
    let commands = format!("!verifier 3 myfault.sys; .dump /used {path}");
    let ended = setup.debug(&["-b", "-c", &commands]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.err.contains("requests while the target stands still; Ctrl+C gives up"), "{}", ended.err);
    let symbols = setup.symbols().display().to_string();
    let ended = Running::start(&["-z", &path, "-y", &symbols, "-c", "!verifier 3 myfault.sys"]).finish();
    assert_eq!(ended.code, 0, "{}", ended.err);
    let told = normalized(&ended.out);
    assert!(golden().starts_with(&told) && told.len() > 20, "{told:#?}");
    let ended =
        Running::start(&["-z", &path, "-y", &symbols, "-c", "!verifier 80 fffffa8005400000"]).finish();
    assert_eq!((ended.code, ended.out.as_str()), (1, ""));
    assert!(ended.err.contains("the page is not in this dump"), "{}", ended.err);
}

/// The frames of the stop, also where nobody asked for them before.
#[test]
fn what_a_session_used_has_the_stack_of_the_stop() {
    for scenario in ["myfault", "bugcheck-c4-62"] {
        let setup = Setup::new();
        let path = setup.folder.path().join("used.dmp").display().to_string();
        let _target = setup.target(&["--scenario", scenario]);
        let live = setup.debug(&["-b", "-c", &format!(".dump /used {path}; kn 20")]);
        // The other bug-checks in every boot, as often as it is let run.
        assert!(live.code == 0 || scenario != "myfault", "{}", live.err);
        let stack = &live.out[live.out.find(" # Child-SP").unwrap()..];
        let symbols = setup.symbols().display().to_string();
        let ended = Running::start(&["-z", &path, "-y", &symbols, "-c", "kn 20"]).finish();
        assert_eq!((ended.code, ended.out.as_str()), (0, stack), "{scenario}: {}", ended.err);
        assert!(stack.lines().count() > 3, "{stack}");
    }
}

/// Its page tables are read through what KD gives of an x86 processor.
#[test]
fn a_live_32_bit_machine_is_written_over_the_line() {
    let setup = Setup::new();
    let path = setup.folder.path().join("xp.dmp").display().to_string();
    let _target = setup.target(&["--windows", "xp-x86", "--scenario", "verifier-off"]);
    let live = setup.debug(&["-b", "-c", &format!("lm; .bugcheck; .dump /ka {path}")]);
    assert_eq!(live.code, 0, "{}", live.err);
    let (told, written) = live.out.split_once("Creating ").unwrap_or_else(|| panic!("{}", live.out));
    assert!(written.contains("Dump successfully written"), "{written}");
    assert!(std::fs::read(&path).unwrap().starts_with(b"PAGEDUMP"));
    let ended = Running::start(&["-z", &path, "-y", "/nowhere", "-c", "lm; .bugcheck"]).finish();
    assert_eq!((ended.code, ended.out.as_str()), (0, told), "{}", ended.err);
}
