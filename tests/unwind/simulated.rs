//! Stacks of simulated machines: found frame by frame, as they were laid out.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use verikd::commands::VerifierFormat;
use verikd::memory::{Memory, PhysAddr, ReadCause, ReadError, StopId, VirtAddr};
use verikd::symbols::store::SymbolPath;
use verikd::target::{FrameKind, Kernel, NoteCode, StackEnd, StackStart, Target};
use verikd_sim::export_symbols;
use verikd_sim::windows::{BUILDS, Build, CallFrame, Chance, Growth, Machine, Scenario, Stop, WINDOWS_7_SP1};

use crate::support::machine::{Still, folder, version_of};
use crate::support::reviewed::assert_reviewed;
use crate::support::text::{notes, run, text, text_in};

const STOPS: [Option<Stop>; 6] = [
    None,
    Some(Stop::Assertion),
    Some(Stop::Breakpoint),
    Some(Stop::AccessViolation(Chance::First)),
    Some(Stop::LoadSymbols),
    Some(Stop::BugCheck { code: 0xd1, parameters: [0; 4] }),
];

#[test]
fn every_stop_of_every_build_has_the_frames_that_were_laid_out() {
    let mut longest = 0;
    for build in BUILDS {
        let symbols = store(build);
        for scenario in [Scenario::Myfault, Scenario::Many, Scenario::Unloaded] {
            if scenario == Scenario::Many && build.name != WINDOWS_7_SP1.name {
                continue;
            }
            let mut machine = Still(Machine::with_scenario(build, scenario, 0));
            let kernel = kernel(&machine, &symbols);
            for stop in STOPS {
                match stop {
                    None => machine.break_in(),
                    Some(stop) => machine.stop_by_itself(stop),
                }
                for processor in 0..2 {
                    kernel.choose_processor(Some(processor));
                    let laid_out = machine.processors()[usize::from(processor)].frames.clone();
                    let target = Target::new(&machine, &kernel).with_cpu(&machine);
                    let what = format!("{} {scenario} {stop:?} processor {processor}", build.name);
                    assert_eq!(found(&target), laid_out, "{what}");
                    longest = longest.max(laid_out.len());
                }
            }
        }
    }
    assert_eq!(longest, 20);
}

#[test]
fn every_use_of_a_tag_has_the_frames_that_were_laid_out() {
    let symbols = store(&WINDOWS_7_SP1);
    for scenario in [Scenario::Myfault, Scenario::VerifierOff] {
        let growth = Growth { processors: 4, callers: 3, ..Growth::default() };
        let mut machine = Still(Machine::grown(&WINDOWS_7_SP1, scenario, 0, 0, growth));
        machine.break_in();
        let kernel = kernel(&machine, &symbols);
        let variable = Target::new(&machine, &kernel).address_of("nt!PoolHitTag").unwrap();
        machine.write_virtual(variable, b"Leak");
        let mut interrupted = 0;
        for number in 0..12 {
            machine.run_for(Duration::from_secs(3600));
            let hit = machine.stop_at_pool_hit().unwrap();
            kernel.choose_processor(Some(hit.processor as u16));
            let laid_out = machine.processors()[hit.processor].frames.clone();
            let target = Target::new(&machine, &kernel).with_cpu(&machine);
            assert_eq!(found(&target), laid_out, "{scenario} {number}: {hit:?}");
            interrupted += usize::from(laid_out.iter().any(|frame| frame.is_interrupted));
        }
        assert!(interrupted >= 4, "{scenario}: requests and deferred calls interrupt something");
    }
}

/// What a debugger finds of the stack, as the simulator says what is there.
fn found(target: &Target<'_>) -> Vec<CallFrame> {
    let stack = target.stack(None, 64).unwrap();
    let last = stack.frames.last().unwrap();
    match stack.end {
        StackEnd::Whole => assert!(last.program_counter.is_kernel()),
        StackEnd::UserMode => assert!(!last.program_counter.is_kernel()),
        end => panic!("{end:?}"),
    }
    let callers = stack.frames.iter().skip(1).map(|frame| Some(frame.program_counter));
    let told: Vec<_> = stack.frames.iter().map(|frame| frame.return_address).collect();
    assert!(callers.zip(&told).all(|(caller, told)| caller == *told), "{stack:?}");
    let mut interrupts = false;
    let mut frames = Vec::new();
    for frame in stack.frames {
        frames.push(CallFrame {
            program_counter: frame.program_counter,
            stack_pointer: frame.stack_pointer,
            is_interrupted: interrupts,
        });
        interrupts = matches!(frame.kind, FrameKind::Trap { .. });
        assert_ne!(frame.kind, FrameKind::Missing);
    }
    frames
}

#[test]
fn stacks_print_as_windbg_prints_them() {
    let mut machine = Still(Machine::windows_7_sp1());
    machine.break_in();
    let kernel = kernel(&machine, &store(&WINDOWS_7_SP1));
    let target = || Target::new(&machine, &kernel).with_cpu(&machine);
    let mut printed = String::new();
    for line in ["k", "kn 3", "kb 3", "kv", "kc", "kf 4", "~1s", "k", "~0s", "k=@rsp @rip 1"] {
        printed.push_str(&format!("kd> {line}\n{}", text(&target(), line)));
    }
    printed.push_str("kd> .verifierformat old\n");
    for line in ["k 2", "kn 2", "kb 2", "kv 2"] {
        printed.push_str(&format!("kd> {line}\n{}", text_in(VerifierFormat::Old, &target(), line)));
    }
    assert_reviewed("unwind", "stacks", &printed);
}

#[test]
fn columns_are_those_of_published_stacks() {
    let mut machine = Still(Machine::windows_7_sp1());
    machine.break_in();
    let kernel = kernel(&machine, &store(&WINDOWS_7_SP1));
    let target = || Target::new(&machine, &kernel).with_cpu(&machine);
    // docs/stacks.md: a line of each form as WinDbg printed it, and where its words begin.
    for (line, header, sample) in [
        (
            "k",
            " # Child-SP          RetAddr               Call Site",
            "00 fffffa86`b7eaee88 fffff804`6f4d2b58     nt!KeBugCheckEx",
        ),
        (
            "kv",
            " # Child-SP          RetAddr               : Args to Child                                                           : Call Site",
            "00 ffff9888`50a05cd0 fffff806`4556ad95     : 00000000`fffffffe 00000000`00000008 00000000`00000000 ffff9888`50a06900 : nt!KiSwapContext+0x76",
        ),
        (
            "kb",
            " # RetAddr               : Args to Child                                                           : Call Site",
            "00 fffff806`4556ad95     : 00000000`fffffffe 00000000`00000008 00000000`00000000 ffff9888`50a06900 : nt!KiSwapContext+0x76",
        ),
    ] {
        let text = text(&target(), line);
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some(header));
        for line in lines {
            assert_eq!(columns(line), columns(sample), "{line}");
        }
    }
}

/// Where the words of a line begin.
fn columns(line: &str) -> Vec<usize> {
    let line = line.split(" (TrapFrame").next().unwrap_or(line);
    let words =
        line.char_indices().filter(|(at, c)| *c != ' ' && (*at == 0 || line.as_bytes()[at - 1] == b' '));
    let site = line.rfind(' ').map(|at| at + 1);
    words.map(|(at, _)| at).filter(|at| Some(*at) <= site).collect()
}

#[test]
fn a_stack_that_breaks_off_says_why() {
    let mut machine = Still(Machine::windows_7_sp1());
    machine.break_in();
    let kernel = kernel(&machine, &store(&WINDOWS_7_SP1));
    let target = || Target::new(&machine, &kernel).with_cpu(&machine);
    let end_of = |line: &str| {
        let notes = notes(&target(), line);
        assert_eq!(notes.len(), 1, "{line}: {notes:?}");
        (notes[0].code, notes[0].text.clone())
    };
    let (code, text) = end_of("k 2");
    assert_eq!(
        (code, text.as_str()),
        (NoteCode::Limit, "There may be more than 2 frames: k 4 shows twice as many.")
    );
    assert_eq!(end_of("k 1").1, "There may be more than 1 frame: k 2 shows twice as many.");
    // A stack pointer where nothing is mapped; code that no module has; a program.
    let (code, text) = end_of("k = fffffa7fdead0000 @rip");
    assert_eq!(code, NoteCode::StackBreaksOff);
    assert!(text.contains("the stack is not readable: read 0x0 of 0x8 bytes"), "{text}");
    let (code, text) = end_of("k = @rsp fffff8a000002010");
    assert_eq!(code, NoteCode::StackBreaksOff);
    assert!(text.contains("fffff8a0`00002010 lies in no module"), "{text}");
    let (code, _) = end_of("k = @rsp 7759138a");
    assert_eq!(code, NoteCode::UserMode);
    for wrong in ["k 0", "k 401", "k = ", "k = @rsp", "k 1 2", "k x", "k = 1 2 3 4"] {
        assert!(run(&target(), wrong).is_err(), "{wrong}");
    }
}

/// A file of the image spares the target its tables: here they cannot be read at all.
#[test]
fn an_image_on_the_symbol_path_has_what_the_target_does_not() {
    let mut machine = Still(Machine::windows_7_sp1());
    machine.break_in();
    let laid_out = machine.processors()[0].frames.clone();
    let tables = |image: &verikd_sim::windows::Image| {
        let layout = image.layout().unwrap();
        let tables = layout.unwind_tables().unwrap();
        let at = VirtAddr(layout.base).offset(tables.at.into());
        at..at.offset(tables.bytes.len() as u64)
    };
    let away = Away { inner: machine, ranges: WINDOWS_7_SP1.images.iter().map(tables).collect() };
    let symbols = store(&WINDOWS_7_SP1);
    let without = kernel(&away.inner, &symbols);
    let stack = Target::new(&away, &without).with_cpu(&away.inner).stack(None, 64).unwrap();
    let StackEnd::Broken(trouble) = &stack.end else { panic!("{:?}", stack.end) };
    assert!(trouble.to_string().starts_with("the table of functions of nt is not readable"), "{trouble}");
    assert_eq!(stack.frames.len(), 1, "not even that it is a leaf is known");

    let files = folder("unwind_images");
    for image in WINDOWS_7_SP1.images {
        let layout = image.layout().unwrap();
        let key = format!("{:08X}{:x}", layout.timestamp, layout.size_of_image());
        let folder = files.join(image.file).join(key);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(image.file), image.bytes).unwrap();
    }
    let path = format!("{};srv*{}", symbols.display(), files.display());
    let with = Kernel::new(version_of(&away.inner), SymbolPath::parse(&path));
    assert_eq!(found(&Target::new(&away, &with).with_cpu(&away.inner)), laid_out);
}

/// Of an image without a symbol file, an export names only the code that begins there.
#[test]
fn an_export_does_not_name_the_code_behind_it() {
    let mut machine = Still(Machine::windows_7_sp1());
    machine.break_in();
    let kernel = Kernel::new(version_of(&machine), SymbolPath::default());
    let printed = text(&Target::new(&machine, &kernel).with_cpu(&machine), "kc");
    let sites: Vec<_> = printed.lines().skip(1).map(|line| &line[3..]).collect();
    let (nt, hal) = ("nt", "hal");
    assert_eq!(sites, ["nt!DbgBreakPointWithStatus", nt, nt, nt, hal, nt, "hal!HalProcessorIdle", nt]);
    let at = machine.processors()[0].frames[4].program_counter;
    let stack = Target::new(&machine, &kernel).with_cpu(&machine).stack(None, 64).unwrap();
    assert_eq!(stack.frames[4].symbol.displacement, at.0 - machine_base(hal));
}

fn machine_base(module: &str) -> u64 {
    let layouts = WINDOWS_7_SP1.images.iter().map(|image| image.layout().unwrap());
    layouts.into_iter().find(|layout| layout.module == module).unwrap().base
}

#[test]
fn a_stack_can_be_told_where_to_begin() {
    let mut machine = Still(Machine::windows_7_sp1());
    machine.break_in();
    let kernel = kernel(&machine, &store(&WINDOWS_7_SP1));
    let target = Target::new(&machine, &kernel).with_cpu(&machine);
    let laid_out = &machine.processors()[0].frames;
    let CallFrame { stack_pointer, program_counter, .. } = laid_out[1];
    let stack = target.stack(Some(StackStart::at(stack_pointer, program_counter)), 64).unwrap();
    let counters: Vec<_> = stack.frames.iter().map(|frame| frame.program_counter).collect();
    let expected: Vec<_> = laid_out[1..].iter().map(|frame| frame.program_counter).collect();
    // Registers are not known: the walk goes on to the first frame that is found by one.
    assert!(expected.starts_with(&counters) && counters.len() >= 4, "{counters:x?}");
}

/// A machine of which some ranges cannot be read.
struct Away {
    inner: Still,
    ranges: Vec<Range<VirtAddr>>,
}

impl Memory for Away {
    fn read_virtual(&self, address: VirtAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        let end = address.offset(buf.len() as u64);
        if self.ranges.iter().any(|range| address < range.end && range.start < end) {
            let address = verikd::memory::Address::Virtual(address);
            return Err(ReadError { address, wanted: buf.len(), got: 0, cause: ReadCause::NotMapped });
        }
        self.inner.read_virtual(address, buf)
    }

    fn read_physical(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        self.inner.read_physical(address, buf)
    }

    fn search_virtual(&self, range: Range<VirtAddr>, pattern: &[u8]) -> Result<Option<VirtAddr>, ReadError> {
        self.inner.search_virtual(range, pattern)
    }

    fn stop(&self) -> StopId {
        self.inner.stop()
    }
}

fn store(build: &'static Build) -> PathBuf {
    let folder = folder("unwind").join(build.name);
    std::fs::create_dir_all(&folder).unwrap();
    export_symbols(build, &folder).unwrap();
    folder
}

fn kernel(machine: &Still, symbols: &std::path::Path) -> Kernel {
    Kernel::new(version_of(machine), SymbolPath::parse(&symbols.display().to_string()))
}
