//! `~Ns`: the registers of each processor, wherever they are kept.

use std::io::{Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::time::Duration;

use support::machine::{Still, version_of};
use support::text::{run, text};
use verikd::dump;
use verikd::source::Source;
use verikd::target::{Kernel, Target};
use verikd_sim::windows::{Build, Machine, WINDOWS_7_SP1};
use verikd_sim::{DumpKind, MachineState, Simulator, SimulatorConfig, export_symbols, write_dump};

use super::program::Setup;
use super::{debugger, folder, support, symbols};

#[test]
fn each_processor_has_the_registers_that_the_live_machine_tells() {
    for (build, kind) in [
        ("7sp1", DumpKind::Full),
        ("8.1", DumpKind::Kernel),
        ("10-1903", DumpKind::Active),
        ("10-22h2", DumpKind::Elf),
        ("11-24h2", DumpKind::Ranges),
    ] {
        let build = Build::find(build).unwrap();
        let symbols = symbols(build);
        let mut machine = Machine::new(build);
        machine.stop_for_dump();
        let path = folder("processors").join(format!("{}.{}", build.name, kind.name()));
        write_dump(&machine, kind, &path).unwrap();
        let opened = debugger(&path, &symbols);
        let kernel = Kernel::new(version_of(&machine), symbols);
        let live = Still(machine);
        let asked_live = |line: &str| text(&Target::new(&live, &kernel).with_cpu(&live), line);
        let asked = |line: &str| text(&opened.target().unwrap(), line);
        let mut seen = Vec::new();
        for processor in ["~0s", "~1s", "~0s"] {
            assert_eq!((asked(processor), asked_live(processor)), (String::new(), String::new()));
            assert_eq!(asked("r"), asked_live("r"), "{processor} of {}", build.name);
            assert_eq!(asked("k"), asked_live("k"), "{processor} of {}", build.name);
            seen.push(asked("r"));
        }
        assert!(seen[0] == seen[2] && seen[0] != seen[1], "{seen:#?}");
        for wrong in ["~2s", "~9999s", "~", "~*", "~1 r"] {
            assert!(run(&opened.target().unwrap(), wrong).is_err(), "{wrong}");
        }
        assert_eq!(opened.processor(), 0, "what could not be chosen was not");
    }
}

/// The header has one processor's registers; which it is, the kernel's own copies say.
#[test]
fn the_processor_that_wrote_the_dump_is_known_by_its_registers() {
    let mut machine = Machine::new(&WINDOWS_7_SP1);
    machine.stop_for_dump();
    let path = folder("processors").join("second.dmp");
    write_dump(&machine, DumpKind::Kernel, &path).unwrap();
    assert_eq!(dump::open(&path, None).unwrap().source.stopped().unwrap().processor, 0);
    let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(0x348)).unwrap();
    file.write_all(&machine.processors()[1].context).unwrap();
    drop(file);
    let stopped = dump::open(&path, None).unwrap().source.stopped().unwrap();
    assert_eq!((stopped.processor, stopped.number_processors), (1, 2));
    let opened = debugger(&path, &symbols(&WINDOWS_7_SP1));
    let rip = |line: &str| {
        text(&opened.target().unwrap(), line);
        text(&opened.target().unwrap(), "r rip")
    };
    let of = |number: usize| {
        let rip = u64::from_le_bytes(machine.processors()[number].context[0xf8..0x100].try_into().unwrap());
        format!("rip={rip:016x}\n")
    };
    assert_eq!((rip("r"), rip("~0s"), rip("~1s")), (of(1), of(0), of(1)));
}

/// The prompt follows; when the machine has run, it is the processor that stopped again.
#[test]
fn a_live_target_tells_another_processors_registers() {
    let setup = Setup::new();
    export_symbols(&WINDOWS_7_SP1, &setup.symbols()).unwrap();
    let connect = SocketAddr::from(([127, 0, 0, 1], setup.port));
    let machine = Simulator::start(SimulatorConfig::new(connect, "1.2.3.4".parse().unwrap())).unwrap();
    let ended = setup.debug(&["-b", "-c", "r rip\n~1s; r rip\n~0s; r rip\n~7s"]);
    assert_eq!(ended.code, 1, "{}", ended.err);
    let lines: Vec<&str> = ended.out.lines().collect();
    assert!(lines.len() == 3 && lines[0] == lines[2] && lines[0] != lines[1], "{}", ended.out);
    assert!(ended.err.contains("1: kd> r rip"), "{}", ended.err);
    assert!(
        ended.err.contains("registers of processor 7: a processor of that number is not available"),
        "{}",
        ended.err
    );
    assert!(machine.wait_for(MachineState::Running, Duration::from_secs(10)), "{}", ended.err);
}

/// Nobody stops a machine for a LiME image: what its kernel kept of registers at an earlier stop is told as that.
#[test]
fn an_image_without_registers_says_so_and_tells_what_the_kernel_kept_as_that() {
    let setup = Setup::new();
    let path = setup.folder.path().join("ram.lime").display().to_string();
    let symbols = setup.symbols().display().to_string();
    let written = ["sim", "--write-dump", &path, "--dump-type", "lime", "--export-symbols", &symbols];
    assert_eq!(super::program::run(&written).code, 0);
    let asked = |commands: &str| super::program::run(&["-z", &path, "-y", &symbols, "-c", commands]);
    for command in ["k", "r", ".lastevent"] {
        let ended = asked(command);
        assert_eq!((ended.code, ended.out.as_str()), (1, ""), "{command}: {}", ended.err);
        let why =
            if command == ".lastevent" { "where, or why, the machine stood" } else { "~0s chooses those" };
        assert!(ended.err.contains(why), "{command}: {}", ended.err);
    }
    let ended = asked("~1s; k; r rip");
    assert_eq!(ended.code, 3, "{}", ended.err);
    assert!(ended.out.contains("nt!KiIdleLoop+0x"), "{}", ended.out);
    let told = "The registers of processor 1 are those that the kernel kept when it stopped";
    assert_eq!(ended.err.matches(told).count(), 3, "{}", ended.err);
}

/// A call through a null pointer is where a good many machines stop: its caller is on top of the stack.
#[test]
fn a_stack_from_a_null_program_counter_has_the_caller() {
    let setup = Setup::new();
    let (dump, symbols) = (setup.dump(), setup.symbols().display().to_string());
    let asked = |commands: &str| super::program::run(&["-z", &dump, "-y", &symbols, "-c", commands]);
    let ended = asked("kn = @rsp 0 3; kn = @rsp @rip 3");
    assert_eq!(ended.code, 0, "{}", ended.err);
    let rows: Vec<&str> = ended.out.lines().filter(|line| line.starts_with("0")).collect();
    assert!(rows[0].ends_with("     0x0"), "{}", ended.out);
    // As if the routine's first instruction stood there: the frames above are the same.
    assert_eq!(rows[1..3], rows[4..6], "{}", ended.out);
    let ended = asked("k = 0 0");
    assert_eq!(ended.code, 3, "{}", ended.err);
    assert!(ended.err.contains("not readable"), "{}", ended.err);
}
