//! Small memory dumps: they open for what they have, and say why that is not enough for the rest.

use std::path::Path;

use support::machine::{Still, version_of};
use support::text::text;
use verikd::target::{Kernel, Target};
use verikd_sim::windows::{Build, Machine, Scenario, WINDOWS_7_SP1};
use verikd_sim::{DumpKind, write_dump};

use super::program::{self, Running};
use super::{debugger, folder, support, symbols};

/// What a small dump has is what the machine had; no symbols are needed for it.
#[test]
fn a_small_dump_has_modules_registers_stack_and_bug_check() {
    for (build, scenario) in
        [("7sp1", Scenario::BugcheckC462), ("11-23h2", Scenario::Unloaded), ("10-22h2", Scenario::Bugcheck7e)]
    {
        let build = Build::find(build).unwrap();
        let symbols = symbols(build);
        let mut machine = Machine::with_scenario(build, scenario, 0);
        machine.run_for(std::time::Duration::from_millis(4_118));
        machine.stop_for_dump();
        let path = folder("small").join(format!("{}.dmp", build.name));
        write_dump(&machine, DumpKind::Triage, &path).unwrap();
        let opened = debugger(&path, &symbols);
        let small = opened.target().unwrap();
        let kernel = Kernel::new(version_of(&machine), std::sync::Arc::clone(&symbols));
        let live = Still(machine);
        let live = Target::new(&live, &kernel).with_cpu(&live);
        // Headers of images, which name symbols, are not in it.
        let modules = |text: String| -> Vec<String> {
            text.lines().map(|line| line.split("  (").next().unwrap_or(line).trim_end().to_owned()).collect()
        };
        assert_eq!(modules(text(&small, "lm")), modules(text(&live, "lm")), "{}", build.name);
        for line in [".bugcheck", "dd @rsp L20", "r rip, rsp, efl"] {
            assert_eq!(text(&small, line), text(&live, line), "{line} of {}", build.name);
        }
        let version = text(&small, "vertarget");
        let clocks = text(&live, "vertarget").split_once("Debug session").unwrap().1.to_owned();
        assert!(version.ends_with(&clocks) && clocks.contains("2013 (UTC"), "{version}");
    }
}

#[test]
fn a_small_dump_says_what_it_lacks_and_how_to_get_more() {
    let path = folder("small").join("lacking.dmp").display().to_string();
    let _ = symbols(&WINDOWS_7_SP1);
    let store = folder("symbols").join(WINDOWS_7_SP1.name).display().to_string();
    let written = program::run(&["sim", "--write-dump", &path, "--dump-type", "triage"]);
    assert_eq!(written.code, 0, "{}", written.err);
    let ended = Running::start(&["-z", &path, "-y", &store, "-c", "!verifier 3"]).finish();
    assert_eq!((ended.code, ended.out.as_str()), (1, ""), "{}", ended.err);
    assert!(
        ended.err.contains("none of the records of Driver Verifier, whose level was 0x8\n"),
        "{}",
        ended.err
    );
    assert!(
        ended.err.contains("a small memory dump does not hold it; let the machine write"),
        "{}",
        ended.err
    );
    assert!(ended.err.contains("DebugInfoType = 7"), "{}", ended.err);
}

/// A file that Windows wrote: what it says of its machine is known. The registers are where its other parts say they are: the
/// stack pointer is the top of its stack, two registers are the bug check's parameters.
#[test]
fn a_real_small_dump_of_an_arm64_machine_says_what_it_has() {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/captures/triage-arm64-22000.dmp.gz");
    let Ok(packed) = std::fs::File::open(&packed) else {
        println!("skipped: {} is not here", packed.display());
        return;
    };
    let path = folder("small").join("real.dmp");
    std::io::copy(&mut flate2::read::GzDecoder::new(packed), &mut std::fs::File::create(&path).unwrap())
        .unwrap();
    let opened = debugger(&path, &symbols(&WINDOWS_7_SP1));
    let target = opened.target().unwrap();
    let bug_check = "Bugcheck code 000001C8\nArguments 00000000`00001b58 fffff803`f3a20860 00000000`00000000 00000000`00000000\n";
    assert_eq!(text(&target, ".bugcheck"), bug_check);
    let version = text(&target, "vertarget");
    assert!(version.starts_with("Windows Kernel Version 22000 MP Free ARM 64-bit (AArch64)\n"), "{version}");
    assert!(version.contains("Built by: 22000.1.arm64fre.co_release.210604-1628\n"), "{version}");
    assert!(version.contains("System Uptime: 0 days 0:13:16.705\n"), "{version}");
    let modules = text(&target, "lm");
    let (loaded, unloaded) = modules.split_once("Unloaded modules:\n").unwrap();
    let count = |text: &str| text.lines().filter(|line| line.starts_with("ffff")).count();
    assert_eq!((count(loaded), count(unloaded)), (245, 11), "{modules}");
    let registers = text(&target, "r");
    for shown in [
        "x25=0000000000001b58  x26=fffff803f3a20860",
        "   sp=ffffe00e0e4bc4a0\n pc=fffff803f32de014  psr=80000144 N--- EL1\n",
    ] {
        assert!(registers.contains(shown), "{shown}: {registers}");
    }
    let stack = text(&target, "dps @sp L2");
    assert_eq!(
        stack,
        "ffffe00e`0e4bc4a0  ffffe00e`0e4bcb10\nffffe00e`0e4bc4a8  fffff803`f33442a0 nt+0x5442a0\n"
    );
}
