//! What a crash dump costs by its size: the time to the first answer and the most memory that its reader had; and the same
//! walk by kdmp-parser, which is somebody else's.
//!
//! ```sh
//! cargo bench --bench dumps
//! ```
//!
//! Every file is a bitmap dump that holds what a session with a simulated machine had read, and empty pages up to its size,
//! which are holes of the file. Each number is the best of several processes of their own, the sizes taking turns; quote the
//! ratios, the times are this machine's. Peak memory is what Linux says of each process (`VmHWM`).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kd_protocol::kd::DebugIo;
use kdmp_parser::{Gva, KernelDumpParser};
use verikd::commands::{Run, Style, ask, find};
use verikd::debugger::{Debugger, Notice, Observer};
use verikd::dump;
use verikd::memory::{Memory, VirtAddr};
use verikd::source::Source;
use verikd::symbols::store::{SymbolPath, SymbolSource};
use verikd::target::{Kernel, Target};
use verikd_sim::windows::{Machine, WINDOWS_7_SP1};
use verikd_sim::{DumpKind, export_symbols, write_dump};

const QUESTION: &str = "!verifier 3 myfault.sys";
const PAGE: u64 = 0x1000;
const HEADER: usize = 0x2000;
const MIB: u64 = 1 << 20;
const SIZES: [(&str, u64); 3] = [("1 MiB", MIB), ("1 GiB", 1 << 30), ("64 GiB", 64 << 30)];
/// Processes for each number.
const RUNS: usize = 9;
/// How often a walk reads every page.
const ROUNDS: usize = 200;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|it| it != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["answer", file, symbols] => answer(Path::new(file), symbols),
        ["walk", reader, file, addresses] => walk(reader, Path::new(file), Path::new(addresses)),
        _ => compare(),
    }
}

/// What a process of its own measured.
#[derive(Clone, Copy)]
struct Measured {
    opened: Duration,
    done: Duration,
    /// KiB; 0 where the system does not tell.
    peak: u64,
    /// What was read, so that nobody is fast by reading less.
    sum: u64,
}

fn compare() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-dumps");
    std::fs::create_dir_all(&folder).expect("a folder can be made there");
    let symbols = folder.join("symbols");
    export_symbols(&WINDOWS_7_SP1, &symbols).expect("symbols are written");
    let symbols = symbols.display().to_string();
    let addresses = folder.join("addresses");
    let used = used(&folder, &symbols, &addresses);
    let files = SIZES.map(|(name, size)| {
        let path = folder.join(format!("{}.dmp", size / MIB));
        grow(&used, size, &path);
        (name, path)
    });

    println!(
        "{:<10} {:>12} {:>16} {:>12} {:>10} {:>10}",
        "file", "opened", "first answer", "peak", "time", "memory"
    );
    // Each once before anything counts: symbols' index, the file in the system's cache.
    let mut best: Vec<Measured> =
        files.iter().map(|(_, path)| child(&["answer", &name(path), &symbols])).collect();
    for _ in 0..RUNS {
        for (best, (_, path)) in best.iter_mut().zip(&files) {
            *best = best.better(child(&["answer", &name(path), &symbols]));
        }
    }
    for (it, (name, _)) in best.iter().zip(&files) {
        assert_eq!(it.sum, best[0].sum, "{name} answers as the others do");
        println!(
            "{name:<10} {:>12.1?} {:>16.1?} {:>8} KiB {:>9.2}x {:>9.2}x",
            it.opened,
            it.done,
            it.peak,
            ratio(it.done, best[0].done),
            it.peak as f64 / best[0].peak.max(1) as f64
        );
    }

    println!();
    println!(
        "the same walk: open, the list of modules, {ROUNDS} times every page that the question had read"
    );
    println!("{:<10} {:<12} {:>12} {:>16} {:>12}", "file", "reader", "opened", "walked", "peak");
    for (file, path) in &files {
        let [ours, theirs] = ["verikd", "kdmp-parser"].map(|reader| {
            let run = || child(&["walk", reader, &name(path), &name(&addresses)]);
            (0..RUNS / 3).fold(run(), |best, _| best.better(run()))
        });
        assert_eq!(ours.sum, theirs.sum, "both read the same bytes");
        for (reader, it) in [("verikd", ours), ("kdmp-parser", theirs)] {
            println!(
                "{file:<10} {reader:<12} {:>12.1?} {:>16.1?} {:>8} KiB",
                it.opened,
                it.done - it.opened,
                it.peak
            );
        }
        println!(
            "{file:<10} {:<12} {:>11.3}x {:>15.3}x {:>11.3}x   both: {:.3}x (bar 1.0)",
            "ratio",
            ratio(ours.opened, theirs.opened),
            ratio(ours.done - ours.opened, theirs.done - theirs.opened),
            ours.peak as f64 / theirs.peak.max(1) as f64,
            ratio(ours.done, theirs.done)
        );
    }
    let _ = std::fs::remove_dir_all(&folder);
}

impl Measured {
    fn better(self, other: Self) -> Self {
        Self {
            opened: self.opened.min(other.opened),
            done: self.done.min(other.done),
            peak: self.peak.min(other.peak),
            sum: if self.sum == other.sum { self.sum } else { panic!("it read something else") },
        }
    }

    fn print(self) {
        println!("{} {} {} {}", self.opened.as_nanos(), self.done.as_nanos(), self.peak, self.sum);
    }
}

fn child(arguments: &[&str]) -> Measured {
    let program = std::env::current_exe().expect("this program has a name");
    let output = Command::new(program).args(arguments).output().expect("it can be started again");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|it| it.parse().ok()).collect();
    let [opened, done, peak, sum] = numbers[..] else {
        panic!("{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    };
    Measured { opened: Duration::from_nanos(opened), done: Duration::from_nanos(done), peak, sum }
}

/// The most memory that this process has had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn name(path: &Path) -> String {
    path.display().to_string()
}

fn ratio(time: Duration, to: Duration) -> f64 {
    time.as_secs_f64() / to.as_secs_f64()
}

struct Nobody;

impl Observer for Nobody {
    fn notice(&mut self, _: &Notice<'_>) {}

    fn prompt(&mut self, _: &DebugIo) -> Bytes {
        unreachable!("a file asks nothing")
    }
}

fn debugger(path: &Path, symbols: &str) -> (Debugger, Duration) {
    let start = Instant::now();
    let opened = dump::open(path, None).expect("the dump opens");
    let time = start.elapsed();
    let symbols = Arc::new(SymbolSource::new(SymbolPath::parse(symbols)));
    let mut debugger = Debugger::new(Arc::new(opened.source), symbols, Duration::ZERO);
    debugger.break_in(&mut Nobody).expect("a file stands still");
    (debugger, time)
}

fn text(target: &Target<'_>, line: &str) -> String {
    let (spec, arguments) = find(line).expect("a command that there is");
    let Run::Query(run) = spec.run else { unreachable!("it asks a target") };
    let answer = ask(run, arguments, target).expect("the dump has the answer");
    let mut text = String::new();
    answer.write_text(Style::default(), &mut text).expect("a String takes any text");
    text
}

/// From a program that has begun to the first answer.
fn answer(path: &Path, symbols: &str) {
    let start = Instant::now();
    let (debugger, opened) = debugger(path, symbols);
    let text = text(&debugger.target().expect("it is known"), QUESTION);
    let done = start.elapsed();
    assert!(text.contains("myfault.sys"), "{text}");
    let sum = text.bytes().fold(0, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    Measured { opened, done, peak: peak(), sum }.print();
}

/// One reader's way through a dump.
fn walk(reader: &str, path: &Path, addresses: &Path) {
    let text = std::fs::read_to_string(addresses).expect("the addresses are there");
    let addresses: Vec<u64> = text.lines().map(|line| line.parse().expect("an address")).collect();
    let start = Instant::now();
    let measured = match reader {
        "verikd" => {
            let source = dump::open(path, None).expect("the dump opens").source;
            let memory = source.memory();
            let kernel = Kernel::new(source.version().expect("the file says so"), SymbolPath::parse(""));
            let target = Target::new(&*memory, &kernel);
            let modules = target.modules().expect("there is a list").modules().len() as u64;
            walked(start, modules, &addresses, |at, page| memory.read_virtual(VirtAddr(at), page).is_ok())
        }
        _ => {
            let dump = KernelDumpParser::new(path).expect("the dump opens");
            let modules = dump.kernel_modules().len() as u64;
            walked(start, modules, &addresses, |at, page| dump.virt_read_exact(Gva::from(at), page).is_ok())
        }
    };
    measured.print();
}

fn walked(
    start: Instant,
    modules: u64,
    addresses: &[u64],
    mut read: impl FnMut(u64, &mut [u8]) -> bool,
) -> Measured {
    let opened = start.elapsed();
    let mut sum = modules;
    let mut page = [0; PAGE as usize];
    for round in 0..ROUNDS {
        // Not in order: every page is as far from the last as it comes.
        for index in 0..addresses.len() {
            let at = addresses[(index * 7 + round) % addresses.len()];
            assert!(read(at, &mut page), "{at:#x} is in the dump");
            sum = sum.wrapping_mul(31).wrapping_add(u64::from(page[0]) << 8 | u64::from(page[0xfff]));
        }
    }
    Measured { opened, done: start.elapsed(), peak: peak(), sum }
}

/// A dump of what the question reads; the addresses of these pages go to `addresses`.
fn used(folder: &Path, symbols: &str, addresses: &Path) -> PathBuf {
    let mut machine = Machine::new(&WINDOWS_7_SP1);
    machine.break_in();
    let all = folder.join("all.dmp");
    write_dump(&machine, DumpKind::Kernel, &all).expect("there is room for it");
    let (debugger, _) = debugger(&all, symbols);
    let target = debugger.target().expect("it is known");
    let _ = text(&target, "lm");
    let _ = text(&target, QUESTION);
    let readable = |at: &VirtAddr| target.memory().read_virtual(*at, &mut [0; PAGE as usize]).is_ok();
    let mut touched: Vec<u64> =
        target.memory().touched().into_iter().filter(readable).map(|at| at.0).collect();
    // A count that has no factor with the step visits each.
    while touched.len().is_multiple_of(7) {
        touched.pop();
    }
    let lines: String = touched.iter().map(|at| format!("{at}\n")).collect();
    std::fs::write(addresses, lines).expect("there is room for it");
    let path = folder.join("used.dmp");
    let _ = text(&target, &format!(".dump /o /used {}", path.display()));
    path
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The same dump with empty pages, at frames that it lacks, up to this many bytes.
fn grow(small: &Path, size: u64, path: &Path) {
    let mut bytes = Vec::new();
    File::open(small).and_then(|mut file| file.read_to_end(&mut bytes)).expect("it was written");
    let (first, bits) = (u64_at(&bytes, HEADER + 0x20), u64_at(&bytes, HEADER + 0x30));
    let bitmap = &bytes[HEADER + 0x38..][..bits as usize / 8];
    let kept: Vec<u64> = (0..bits).filter(|bit| bitmap[*bit as usize / 8] >> (bit % 8) & 1 == 1).collect();
    let wanted = size / PAGE;
    let has: BTreeSet<u64> = kept.iter().copied().collect();
    let empty =
        (0..).filter(|frame| !has.contains(frame)).take((wanted as usize).saturating_sub(kept.len() + 0x20));
    let mut map = vec![0_u8; bits.max(wanted).next_multiple_of(64) as usize / 8];
    empty.chain(kept.iter().copied()).for_each(|frame| map[frame as usize / 8] |= 1 << (frame % 8));
    // How many frames lie before each byte of the map.
    let mut before = Vec::with_capacity(map.len());
    let mut count = 0_u64;
    for byte in &map {
        before.push(count);
        count += u64::from(byte.count_ones());
    }
    let place = |frame: u64| {
        let (byte, bit) = (frame as usize / 8, frame % 8);
        before[byte] + u64::from((map[byte] & ((1_u16 << bit) - 1) as u8).count_ones())
    };
    let new_first = (HEADER as u64 + 0x38 + map.len() as u64).next_multiple_of(PAGE);
    let mut head = bytes[..HEADER + 0x38].to_vec();
    for (at, value) in [(0x20, new_first), (0x28, count), (0x30, 8 * map.len() as u64)] {
        head[HEADER + at..][..8].copy_from_slice(&value.to_le_bytes());
    }
    let write = || -> std::io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(&head)?;
        file.write_all(&map)?;
        for (index, frame) in kept.iter().enumerate() {
            file.seek(SeekFrom::Start(new_first + place(*frame) * PAGE))?;
            file.write_all(&bytes[(first + index as u64 * PAGE) as usize..][..PAGE as usize])?;
        }
        file.set_len(new_first + count * PAGE)
    };
    write().expect("there is room for it");
}
