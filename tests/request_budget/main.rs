//! What queries cost a live target, in requests: over real UDP, against the simulated machine. Counts, no times.

mod breakpoints;
mod grown;
mod hits;
mod leaks;
mod live;
mod pool;

use std::sync::Arc;

use kd_protocol::kd::DebugIo;
use live::{Live, PATIENCE};
use verikd::debugger::{Debugger, Notice, Observer};
use verikd::memory::{CachedMemory, Memory};
use verikd::session::Session;
use verikd::shell::Shell;
use verikd::source::{Control, Resumed, Source};
use verikd::symbols::store::SymbolPath;
use verikd_sim::export_isf;
use verikd_sim::windows::{BUILDS, Scenario, WINDOWS_7_SP1};

/// Data that one reply of the simulated target carries.
const REPLY: u64 = 1096;

#[test]
fn attach_and_each_query_stay_within_their_bars() {
    let live = Live::start();
    let (mut shell, _) = live.shell();
    let mut spent = 0;
    let mut cost = |what: &str, bar: u64, session: &Session| {
        let requests = session.counters().requests - spent;
        spent += requests;
        assert!(requests <= bar, "{what}: {requests} requests, at most {bar} are allowed");
    };
    shell.break_in().unwrap();
    cost("attach to prompt, symbols at hand", 5, &live.session);
    for (command, bar) in [
        ("!verifier 3 myfault.sys", 25),
        ("!verifier 80 fffffa8005400000", 20),
        ("!verifier 3 myfault.sys", 0),
        ("!verifier 80 fffffa8005400000", 0),
        ("lm", 5),
        ("lm", 0),
    ] {
        shell.run(command);
        cost(command, bar, &live.session);
    }
}

/// Tables of functions are read as far as a stack needs them, and kept over stops.
#[test]
fn a_stack_costs_its_frames_once() {
    for (scenario, frames, first, later) in [(Scenario::Many, 20, 40, 12), (Scenario::Myfault, 8, 20, 8)] {
        let live = Live::of(&WINDOWS_7_SP1, scenario);
        let (mut shell, out) = live.shell();
        let cost = |shell: &mut Shell, command: &str| {
            let before = live.session.counters().requests;
            shell.run(command);
            live.session.counters().requests - before
        };
        shell.break_in().unwrap();
        let costs = ["k 20", "k 20", "kv 20"].map(|line| cost(&mut shell, line));
        assert!(costs[0] <= first, "{costs:?} requests for {frames} frames, at most {first} are allowed");
        assert_eq!(costs[1..], [0, 0], "the same stack in the same stop");
        let printed = out();
        let lines = printed.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
        assert_eq!(lines.count(), 3 * frames, "{printed}");
        assert_eq!(live.session.go(), Resumed::Running);
        shell.break_in().unwrap();
        let again = cost(&mut shell, "k 20");
        println!("{frames} frames: {} requests, {again} in a later stop", costs[0]);
        assert!(again <= later, "{again} requests for a stack that is known, at most {later} are allowed");
    }
}

#[test]
fn a_few_instructions_cost_one_request_and_their_names() {
    for (line, bar) in [("u", 3), ("u nt!DbgBreakPointWithStatus", 3), ("uf nt!DbgBreakPointWithStatus", 8)] {
        let (requests, out) = Live::start().cost_of(line);
        assert!(out.contains("int     3"), "{out}");
        println!("{line}: {requests} requests");
        assert!(requests <= bar, "{line}: {requests} requests, at most {bar} are allowed");
    }
}

#[test]
fn a_long_read_wastes_no_request() {
    let live = Live::start();
    live.session.break_in(PATIENCE).unwrap();
    let memory = CachedMemory::new(live.session.memory());
    let bytes = 0x80_0000;
    let log = live.pool_log();
    let before = live.session.counters().requests;
    let mut piece = vec![0; 0x1_0000];
    for at in (0..bytes).step_by(piece.len()) {
        memory.read_virtual(log.offset(at), &mut piece).unwrap();
    }
    let requests = live.session.counters().requests - before;
    let least = bytes.div_ceil(REPLY);
    assert!(requests * 100 <= least * 101, "{requests} requests, {least} would do");
}

#[test]
fn a_large_log_is_searched_in_few_requests() {
    let build = BUILDS.iter().find(|build| build.name == "11-25h2").expect("a build with large entries");
    let live = Live::of(build, Scenario::BigLog);
    let (requests, out) = live.cost_of("!verifier 80 fffffa8005400000");
    assert!(out.contains("There are up to 0x100000 entries in the log."), "{out}");
    assert!(out.contains("Pool block fffffa8005400000, Size 00000000000fa000"), "{out}");
    assert!(requests <= 60, "{requests} requests for a log of 424 MiB");
}

#[test]
fn twenty_thousand_blocks_cost_their_pages() {
    let live = Live::of(&WINDOWS_7_SP1, Scenario::Many);
    let (requests, out) = live.cost_of("!verifier 3");
    let blocks = out.lines().filter(|line| line.contains("     0x")).count() as u64;
    assert!(blocks >= 20_000, "{blocks} blocks");
    // 127 blocks a page of trackers, in each of which slot 0 is the header.
    let pages = blocks.div_ceil(127);
    let bar = (pages * 4096).div_ceil(REPLY) * 105 / 100 + 40;
    assert!(requests <= bar, "{requests} requests for {pages} pages of trackers, at most {bar} are allowed");
}

#[test]
fn a_serial_line_costs_a_third_of_the_requests_at_most() {
    let newest = BUILDS.last().expect("there are builds");
    for (build, scenario, command) in [
        (&WINDOWS_7_SP1, Scenario::Myfault, "!verifier 3 myfault.sys"),
        (&WINDOWS_7_SP1, Scenario::Myfault, "!verifier 80 fffffa8005400000"),
        (&WINDOWS_7_SP1, Scenario::Myfault, "!verifier 80"),
        (&WINDOWS_7_SP1, Scenario::Many, "!verifier 3"),
        (newest, Scenario::BigLog, "!verifier 80 fffffa8005400000"),
        (newest, Scenario::Myfault, "!verifier"),
    ] {
        let (over_kdnet, expected) = Live::of(build, scenario).cost_of(command);
        let (over_line, text) = Live::over_serial_line(build, scenario).cost_of(command);
        assert_eq!(text, expected, "{command}");
        let bar = over_kdnet / 3 + 20;
        assert!(
            over_line <= bar,
            "{command}: {over_line} requests, {over_kdnet} over KDNET, at most {bar} are allowed"
        );
    }
}

#[test]
fn a_query_after_a_resume_reads_anew() {
    let live = Live::start();
    let memory = CachedMemory::new(live.session.memory());
    live.session.break_in(PATIENCE).unwrap();
    let mut word = [0; 8];
    let log = live.pool_log();
    memory.read_virtual(log, &mut word).unwrap();
    let before = live.session.counters().requests;
    memory.read_virtual(log, &mut word).unwrap();
    assert_eq!(live.session.counters().requests, before, "the same stop");
    assert_eq!(live.session.go(), Resumed::Running);
    live.session.break_in(PATIENCE).unwrap();
    let before = live.session.counters().requests;
    memory.read_virtual(log, &mut word).unwrap();
    assert_eq!(live.session.counters().requests, before + 1, "another stop");
}

#[test]
fn isf_files_are_read_once_while_the_target_runs() {
    let live = Live::start();
    let folder = tempfile::tempdir().unwrap();
    let files = export_isf(&WINDOWS_7_SP1, folder.path()).unwrap();
    let path = SymbolPath::parse(&folder.path().to_string_lossy());
    let mut debugger = Debugger::new(Arc::clone(&live.session), path.clone(), PATIENCE);
    let mut heard = Heard::default();
    debugger.break_in(&mut heard).unwrap();
    assert_eq!(heard.0, ["the kernel's symbols true"], "what is fetched, and whether the target runs");
    let known = debugger.target().unwrap().address_of("nt!VfPoolTraces");
    assert!(known.is_ok(), "{known:?}");
    debugger.go();
    // What was read is kept for the session.
    debugger.break_in(&mut heard).unwrap();
    assert_eq!(heard.0.len(), 1, "{:?}", heard.0);
    debugger.go();
    // And, in an index, for those that come later: they read nothing whole, neither in a stop nor between two.
    for file in files {
        let modified = file.metadata().unwrap().modified().unwrap();
        std::fs::write(&file, "x".repeat(file.metadata().unwrap().len() as usize)).unwrap();
        std::fs::File::options().append(true).open(&file).unwrap().set_modified(modified).unwrap();
    }
    let mut later = Debugger::new(Arc::clone(&live.session), path, PATIENCE);
    later.break_in(&mut heard).unwrap();
    assert_eq!(heard.0.len(), 1, "{:?}", heard.0);
    assert_eq!(later.target().unwrap().address_of("nt!VfPoolTraces").unwrap(), known.unwrap());
}

#[derive(Default)]
struct Heard(Vec<String>);

impl Observer for Heard {
    fn notice(&mut self, notice: &Notice<'_>) {
        if let Notice::Fetching { what, is_running } = notice {
            self.0.push(format!("{what} {is_running}"));
        }
    }

    fn prompt(&mut self, _: &DebugIo) -> bytes::Bytes {
        bytes::Bytes::new()
    }
}
