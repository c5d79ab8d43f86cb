//! One debugger before one machine for a long time: break in, ask, resume, `VERIKD_CYCLES` times in one process over real
//! UDP. Nothing is answered otherwise than the first time, nothing costs more, nothing grows.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kd_protocol::kd::DebugIo;
use verikd::commands::{self, Run, Style};
use verikd::debugger::{Debugger, Notice, Observer};
use verikd::session::{Session, SessionConfig, Watcher};
use verikd::source::Resumed;
use verikd::symbols::store::SymbolPath;
use verikd::target::Progress;
use verikd_sim::{Simulator, SimulatorConfig};

use crate::field::{PATIENCE, key, runs, symbols};

/// Cycles that are played where nothing else is said.
const CYCLES: u64 = 300;
/// What a process needs it has by then.
const WARM: u64 = 1000;
/// Cycles after which memory says something: less is the allocator's business.
const LONG: u64 = 5000;
const COMMANDS: [&str; 2] = ["!verifier 3 myfault.sys", "!verifier 80 fffffa8005400000"];
/// Set in the process that is looked at.
const ALONE: &str = "VERIKD_SOAK_IS_ALONE";

#[test]
fn nothing_grows_and_no_answer_changes_however_often_a_machine_is_stopped() {
    if std::env::var_os(ALONE).is_some() {
        return soak();
    }
    // In a process of its own, since the other tests of this one hold memory and files too.
    let name = "soak::nothing_grows_and_no_answer_changes_however_often_a_machine_is_stopped";
    let alone = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let [out, err] = [alone.stdout, alone.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
    println!("{out}");
    assert!(alone.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

fn soak() {
    let cycles = std::env::var("VERIKD_CYCLES").map_or(CYCLES, |it| it.parse().expect("a number"));
    let begin = Instant::now();
    let (mut debugger, watcher, target) = meet();
    let first = cycle(&mut debugger);
    // The first has learned who the target is, which no other has to.
    let usual = cycle(&mut debugger);
    let early = Held::now();
    let mut warm = early;
    for number in 3..=cycles {
        let this = cycle(&mut debugger);
        assert_eq!(this.answers, first.answers, "cycle {number}");
        assert_eq!(this.requests, usual.requests, "requests of cycle {number}");
        // A front end shows the session's news; what nobody takes is kept, the newest 10,000. The machine's have no bound.
        drop(watcher.take_news());
        while target.next_event(Some(Duration::ZERO)).is_some() {}
        if number == WARM {
            warm = Held::now();
        }
        if number % 10_000 == 0 || number == WARM {
            println!("after {number}: {:?}, {:?}", Held::now(), begin.elapsed());
        }
    }
    let end = Held::now();
    println!(
        "{cycles} cycles in {:?}: {} requests each, {} in all; early {early:?}, warm {warm:?}, at the end {end:?}",
        begin.elapsed(),
        usual.requests,
        debugger.stats().requests
    );
    assert_eq!((end.files, end.threads), (early.files, early.threads), "files and threads");
    if cycles >= LONG {
        let most = warm.resident_pages * 105 / 100;
        assert!(end.resident_pages <= most, "memory: {warm:?}, then {end:?}");
    }
    // It has acknowledged the last resume, and counts it when it has carried it out.
    assert!(runs(&target), "left stopped");
    assert_eq!((target.stops(), target.resumes()), (cycles, cycles));
}

/// A debugger, and a machine that has found it.
fn meet() -> (Debugger, Watcher, Simulator) {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let session = Arc::new(Session::open(&SessionConfig::new(listen, key())).unwrap());
    let target = Simulator::start(SimulatorConfig::new(session.listens_at().unwrap(), key())).unwrap();
    session.wait_for_target(Some(PATIENCE)).unwrap();
    let symbols = SymbolPath::parse(&symbols().to_string_lossy());
    let watcher = session.watcher();
    (Debugger::new(session, symbols, PATIENCE), watcher, target)
}

struct Cycle {
    answers: Vec<String>,
    requests: u64,
}

fn cycle(debugger: &mut Debugger) -> Cycle {
    let before = debugger.stats().requests;
    debugger.break_in(&mut Nobody).unwrap();
    let answers = COMMANDS.map(|command| answer(debugger, command)).to_vec();
    assert_eq!(debugger.go(), Resumed::Running);
    Cycle { answers, requests: debugger.stats().requests - before }
}

/// What a command prints, and what is said beside it.
fn answer(debugger: &Debugger, command: &str) -> String {
    let (spec, arguments) = commands::find(command).unwrap();
    let Run::Query(run) = spec.run else { panic!("{command} asks nothing") };
    let answer = debugger.ask(run, arguments, &Nobody).unwrap();
    let mut text = String::new();
    answer.write_text(Style::default(), &mut text).unwrap();
    format!("{text}{:?}", answer.notes)
}

/// Looks on and says nothing.
struct Nobody;

impl Observer for Nobody {
    fn notice(&mut self, _: &Notice<'_>) {}

    fn prompt(&mut self, prompt: &DebugIo) -> Bytes {
        panic!("a machine without trouble asks: {prompt:?}")
    }
}

impl Progress for Nobody {
    fn advance(&self, _: &'static str, _: u64, _: u64) {}
}

/// What this process has of its machine, as `/proc/self` tells it; nothing where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    resident_pages: u64,
    files: usize,
    threads: usize,
}

impl Held {
    fn now() -> Self {
        let count = |folder| std::fs::read_dir(folder).map_or(0, Iterator::count);
        let sizes = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let resident = sizes.split_whitespace().nth(1).and_then(|it| it.parse().ok());
        Self {
            resident_pages: resident.unwrap_or(0),
            files: count("/proc/self/fd"),
            threads: count("/proc/self/task"),
        }
    }
}
