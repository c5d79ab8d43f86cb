//! Short stops on the real clock: how long a machine stands still at a time while all that its drivers hold is read of it, and
//! whether what is listed is what it held at the moment that is told. Stops are measured by the simulated machine.
//!
//! ```sh
//! cargo bench --bench short_stops                  100 runs; another number behind `--`
//! ```
//!
//! A round trip takes 1 ms, one driver of three allocates and frees 500 blocks a second, and every stop counts, those of the
//! attach too. The same on a clock that the test moves: `cargo test --test kernels short_stops`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kd_protocol::kd::DebugIo;
use kd_protocol::kdnet::Key;
use verikd::commands::verifier::leaks::{LeakQuery, LeakReport};
use verikd::commands::verifier::pool_log::{PoolLogQuery, Wanted};
use verikd::commands::verifier::{OneMoment, VerifierQuery, VerifierReport};
use verikd::debugger::{Debugger, Notice, Observer, ShortStops};
use verikd::session::{Session, SessionConfig};
use verikd::source::Resumed;
use verikd::symbols::store::SymbolPath;
use verikd::target::Progress;
use verikd_sim::windows::{Build, Growth, Scenario};
use verikd_sim::{Faults, Simulator, SimulatorConfig, export_symbols};

const PATIENCE: Duration = Duration::from_secs(60);
const SHORT: ShortStops =
    ShortStops { longest: Duration::from_millis(50), breath: Duration::from_millis(50) };
/// What is allowed beyond it: a machine and its debugger share the cores of the one that runs this.
const ALLOWED: Duration = Duration::from_millis(60);
const BUILDS: [&str; 3] = ["7sp1", "10-22h2", "11-23h2"];
/// A whole log takes a hundred times as long as all lists: so many runs read one.
const RUNS_PER_LOG: u64 = 10;

fn main() {
    let given = std::env::args().skip(1).find_map(|word| word.parse().ok());
    let runs: u64 = given.unwrap_or(100);
    let mut sums = BTreeMap::<&str, Sum>::new();
    for run in 0..runs {
        let build = BUILDS[run as usize % BUILDS.len()];
        println!("run {run}, {build}");
        let mut machine = Live::of(build, run);
        // At the first stop it is asked who it is, and symbols are read.
        measure(&mut machine, "attach", &mut sums, |_| Blocks::default());
        measure(&mut machine, "!leaks", &mut sums, |machine| {
            let query = LeakQuery { keep_blocks: true, ..LeakQuery::default() };
            let answered = machine.debugger.ask_for(&query, &Nobody).expect("it is answered");
            let report = answered.facts;
            machine.held_against(report.moment.as_ref(), &of_leaks(&report))
        });
        measure(&mut machine, "!verifier 3", &mut sums, |machine| {
            let query = VerifierQuery { flags: 3, driver: None };
            let answered = machine.debugger.ask_for(&query, &Nobody).expect("it is answered");
            let report = answered.facts;
            machine.held_against(report.moment.as_ref(), &of_verifier(&report))
        });
        if run % RUNS_PER_LOG == 0 {
            measure(&mut machine, "!verifier 80", &mut sums, |machine| {
                let query = PoolLogQuery { wanted: Wanted::Newest(Some(0x1_0000)), verbose: false };
                let answered = machine.debugger.ask_for(&query, &Nobody).expect("it is answered");
                assert!(!answered.facts.entries.is_empty());
                Blocks::default()
            });
        }
    }
    println!(
        "\n{:<14} {:>5} {:>7} {:>12} {:>7} {:>9} {:>11} {:>6}",
        "question", "runs", "stops", "the longest", "> 60 ms", "blocks", "told apart", "wrong"
    );
    for (question, sum) in &sums {
        let Sum { runs, stops, longest, late, blocks } = sum;
        let Blocks { exact, told, wrong } = blocks;
        println!(
            "{question:<14} {runs:>5} {stops:>7} {:>12} {late:>7} {exact:>9} {told:>11} {wrong:>6}",
            format!("{longest:.1?}")
        );
    }
    assert!(sums.values().all(|sum| sum.blocks.wrong == 0), "what is listed is what was held");
}

/// Blocks that a report lists as the machine held them, those that it says it knows in part or not at all, and others.
#[derive(Clone, Copy, Default)]
struct Blocks {
    exact: usize,
    told: usize,
    wrong: usize,
}

#[derive(Default)]
struct Sum {
    runs: u64,
    stops: u64,
    longest: Duration,
    /// Runs with a stop that took longer than is allowed.
    late: u64,
    blocks: Blocks,
}

/// Stops the machine, does something with it, and lets it run.
fn measure<'a>(
    machine: &mut Live,
    question: &'a str,
    sums: &mut BTreeMap<&'a str, Sum>,
    ask: impl FnOnce(&Live) -> Blocks,
) {
    let (stops, start) = (machine.target.stops(), Instant::now());
    machine.target.forget_longest_stop();
    machine.debugger.break_in(&mut Nobody).expect("it stops");
    let Blocks { exact, told, wrong } = ask(machine);
    assert_eq!(machine.debugger.go(), Resumed::Running);
    let longest = machine.target.longest_stop();
    let sum = sums.entry(question).or_default();
    sum.runs += 1;
    sum.stops += machine.target.stops() - stops;
    sum.longest = sum.longest.max(longest);
    sum.late += u64::from(longest > ALLOWED);
    sum.blocks.exact += exact;
    sum.blocks.told += told;
    sum.blocks.wrong += wrong;
    let stops = machine.target.stops() - stops;
    println!(
        "    {question:<14} {stops} stops, the longest {longest:.1?}; {exact} blocks, {told} told apart, {wrong} wrong; {:.1?}",
        start.elapsed()
    );
}

/// A block by its address: driver, bytes, tag.
type Listed = BTreeMap<u64, (String, u64, String)>;

fn of_leaks(report: &LeakReport) -> Listed {
    let mut listed = Listed::new();
    for group in &report.groups {
        for block in group.list.iter().flatten() {
            listed.insert(block.address.0, (stem(&group.driver), block.size, block.tag.clone()));
        }
    }
    listed
}

fn of_verifier(report: &VerifierReport) -> Listed {
    let mut listed = Listed::new();
    for driver in report.drivers.iter().flatten() {
        for block in driver.allocations.iter().flat_map(|it| &it.blocks) {
            listed
                .insert(block.address.0, (stem(&driver.driver.shown_name()), block.size, block.tag.clone()));
        }
    }
    listed
}

fn stem(driver: &str) -> String {
    driver.trim_end_matches(".sys").to_owned()
}

struct Live {
    debugger: Debugger,
    target: Simulator,
    _symbols: tempfile::TempDir,
}

impl Live {
    fn of(build: &str, seed: u64) -> Self {
        let build = Build::find(build).expect("a build that there is");
        let symbols = tempfile::tempdir().expect("a temporary folder");
        export_symbols(build, symbols.path()).expect("its files are written");
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let session =
            Arc::new(Session::open(&SessionConfig::new(listen, key())).expect("loopback has ports"));
        let target = Simulator::start(SimulatorConfig {
            build,
            scenario: Scenario::Many,
            faults: Faults { round_trip: Duration::from_millis(1), seed, ..Faults::default() },
            growth: Growth { busy: 500, ..Growth::default() },
            leak_every: Some(Duration::ZERO),
            ..SimulatorConfig::new(session.listens_at().expect("it listens"), key())
        })
        .expect("the simulated target starts");
        session.wait_for_target(Some(PATIENCE)).expect("it connects");
        let path = SymbolPath::parse(&symbols.path().to_string_lossy());
        let mut debugger = Debugger::new(session, path, PATIENCE);
        debugger.set_short_stops(Some(SHORT));
        Self { debugger, target, _symbols: symbols }
    }
}

impl Live {
    /// Holds what is listed against what the machine says that it held at the moment that is told.
    fn held_against(&self, moment: Option<&OneMoment>, listed: &Listed) -> Blocks {
        let moment = moment.expect("it takes more than one stop");
        let event = moment.event.expect("its kernel keeps a log");
        let held = self.target.outstanding_at(event).expect("it remembers as much");
        let held: Listed = held
            .iter()
            .map(|block| {
                let tag = block.tag.map(|tag| String::from_utf8_lossy(&tag).into_owned());
                (block.address.0, (block.driver.to_owned(), block.size, tag.unwrap_or_default()))
            })
            .collect();
        let told: BTreeSet<u64> = (moment.from_log.iter().copied())
            .chain(moment.undecided.iter().map(|it| it.address))
            .map(|address| address.0)
            .collect();
        let mut blocks = Blocks::default();
        for address in listed.keys().chain(held.keys().filter(|it| !listed.contains_key(it))) {
            let (ours, theirs) = (listed.get(address), held.get(address));
            let is_told = told.contains(address);
            let count = match (ours, theirs) {
                (Some(ours), Some(theirs)) if ours == theirs => &mut blocks.exact,
                // The log knows what was asked for, and no tag.
                (Some(ours), Some(theirs)) if is_told && ours.0 == theirs.0 => &mut blocks.told,
                (None, Some(_)) if is_told || moment.lost > 0 => &mut blocks.told,
                _ => &mut blocks.wrong,
            };
            *count += 1;
        }
        blocks
    }
}

fn key() -> Key {
    "1.2.3.4".parse().expect("a valid key")
}

/// Who asks and wants to hear nothing else.
struct Nobody;

impl Observer for Nobody {
    fn notice(&mut self, _: &Notice<'_>) {}

    fn prompt(&mut self, _: &DebugIo) -> Bytes {
        Bytes::new()
    }
}

impl Progress for Nobody {
    fn advance(&self, _: &'static str, _: u64, _: u64) {}
}
