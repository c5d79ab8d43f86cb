//! Short stops: a driver allocates and frees while what drivers hold is read, on a clock that only the test moves. Each
//! request takes its time, each breath lets the machine run; how long it stood still is the machine's own account.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kd_protocol::kd::{DebugIo, NtStatus, StateChange};
use kd_protocol::link::{LinkCounters, RequestError, RunState};
use verikd::commands::verifier::leaks::{LeakQuery, LeakReport};
use verikd::commands::verifier::{OneMoment, VerifierQuery};
use verikd::commands::{NoteCode, NoteKind, QueryError};
use verikd::debugger::{Answered, AskError, Debugger, Notice, Observer, ShortStops};
use verikd::memory::{Address, Memory, PhysAddr, ReadCause, ReadError, StopId, StoppedCpu, VirtAddr};
use verikd::source::{
    BootId, BreakInError, Control, Halt, KernelVersion, Resumed, Source, SourceMemory, Step, Wait,
};
use verikd::symbols::store::{SymbolPath, SymbolSource};
use verikd::target::Progress;
use verikd_sim::windows::{BUILDS, Build, Growth, Machine, Scenario, Stop, System};
use verikd_sim::{Debuggee, Quirks};

use crate::support::machine::version_of;

const REPLY: usize = 1096;
const MAX_STOP: Duration = Duration::from_millis(50);
/// What a stop may take beyond it.
const LONGEST: Duration = Duration::from_millis(60);

/// What happens to the machine while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mishap {
    BugCheck,
    Restart,
    /// It restarts when it has just been stopped again, before anybody looks at the stop.
    RestartStopped,
    CtrlC,
    FallsSilent,
    /// It runs for long enough for the log to come round.
    RunsLong,
}

/// A machine on a clock of its own.
struct Clockwork {
    version: KernelVersion,
    epoch: Instant,
    state: Mutex<State>,
}

struct State {
    debuggee: Debuggee,
    random: fastrand::Rng,
    now: Duration,
    /// Since when it stands still, if it does.
    stopped_at: Option<Duration>,
    change: Option<StateChange>,
    is_break_in: bool,
    wants_break_in: bool,
    pinned: u64,
    stop: u64,
    boot: u64,
    requests: u64,
    /// Of stops that are over.
    frozen: Duration,
    longest: Duration,
    /// What happens in which breath.
    mishap: Option<(u64, Mishap)>,
    breaths: u64,
}

impl State {
    /// A request: it takes its time, and so does the network.
    fn ask(&mut self) {
        self.now += Duration::from_micros(self.random.u64(800..1400));
        self.requests += 1;
    }

    fn stop(&mut self, change: StateChange, is_break_in: bool) {
        self.stopped_at = Some(self.now);
        (self.change, self.is_break_in) = (Some(change), is_break_in);
        self.stop += 1;
        self.wants_break_in = false;
        // Until the debugger hears of it.
        self.now += Duration::from_micros(self.random.u64(400..700));
    }

    fn run(&mut self, time: Duration) {
        self.debuggee.machine.run_for(time);
        self.now += time;
    }
}

impl Clockwork {
    fn new(machine: Machine, seed: u64, mishap: Option<(u64, Mishap)>) -> Arc<Self> {
        let version = version_of(&machine);
        let state = State {
            debuggee: Debuggee::new(System::X64(Box::new(machine)), REPLY, Quirks::default()),
            random: fastrand::Rng::with_seed(seed),
            now: Duration::ZERO,
            stopped_at: None,
            change: None,
            is_break_in: false,
            wants_break_in: false,
            pinned: 0,
            stop: 0,
            boot: 1,
            requests: 0,
            frozen: Duration::ZERO,
            longest: Duration::ZERO,
            mishap,
            breaths: 0,
        };
        Arc::new(Self { version, epoch: Instant::now(), state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn read<T>(&self, requests: usize, read: impl FnOnce(&System) -> T) -> Result<T, ReadCause> {
        let mut state = self.lock();
        if state.mishap == Some((state.breaths, Mishap::RestartStopped)) && state.stopped_at.take().is_some()
        {
            state.boot += 1;
            return Err(ReadCause::NotKnown);
        }
        if state.stopped_at.is_none() || state.pinned != state.stop {
            return Err(ReadCause::TargetRunning);
        }
        (0..requests.max(1)).for_each(|_| state.ask());
        Ok(read(&state.debuggee.machine))
    }
}

impl std::fmt::Debug for Clockwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clockwork").finish_non_exhaustive()
    }
}

/// Its memory, and the machine as its debugger has it.
#[derive(Clone, Debug)]
struct Wired(Arc<Clockwork>);

impl Memory for Wired {
    fn read_virtual(&self, address: VirtAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        let wanted = buf.len();
        let fail = |got, cause| Err(ReadError { address: Address::Virtual(address), wanted, got, cause });
        match self.0.read(wanted.div_ceil(REPLY), |machine| machine.read_virtual(address, buf)) {
            Ok(got) if got == wanted => Ok(()),
            Ok(got) => fail(got, ReadCause::NotMapped),
            Err(cause) => fail(0, cause),
        }
    }

    fn read_physical(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        let (address, wanted) = (Address::Physical(address), buf.len());
        Err(ReadError { address, wanted, got: 0, cause: ReadCause::Unsupported("physical memory") })
    }

    fn search_virtual(&self, range: Range<VirtAddr>, pattern: &[u8]) -> Result<Option<VirtAddr>, ReadError> {
        let length = range.end.since(range.start);
        let found = self.0.read(1, |machine| machine.search_virtual(range.start, length, pattern));
        let address = Address::Virtual(range.start);
        found.map_err(|cause| ReadError { address, wanted: pattern.len(), got: 0, cause })
    }

    fn request_len(&self) -> usize {
        REPLY
    }

    fn stop(&self) -> StopId {
        StopId(self.0.lock().pinned)
    }
}

impl StoppedCpu for Wired {
    fn context(&self) -> Result<Vec<u8>, ReadCause> {
        Err(ReadCause::Unsupported("a CPU"))
    }
}

impl SourceMemory for Wired {
    fn pin(&self, stop: StopId) {
        self.0.lock().pinned = stop.0;
    }
}

impl Source for Wired {
    fn place(&self) -> String {
        "a clockwork".into()
    }

    fn boot(&self) -> BootId {
        BootId(self.0.lock().boot)
    }

    fn version(&self) -> Result<KernelVersion, RequestError> {
        Ok(self.0.version)
    }

    fn memory(&self) -> Arc<dyn SourceMemory> {
        Arc::new(self.clone())
    }

    fn run_state(&self) -> RunState {
        if self.0.lock().stopped_at.is_some() { RunState::Stopped } else { RunState::Running }
    }

    fn stop(&self) -> StopId {
        StopId(self.0.lock().stop)
    }

    fn stopped(&self) -> Option<Box<StateChange>> {
        let state = self.0.lock();
        state.stopped_at.and_then(|_| state.change.clone()).map(Box::new)
    }

    fn control(&self) -> Option<&dyn Control> {
        Some(self)
    }

    fn counters(&self) -> LinkCounters {
        LinkCounters { requests: self.0.lock().requests, ..LinkCounters::default() }
    }

    fn stopped_for(&self) -> Duration {
        let state = self.0.lock();
        state.stopped_at.map_or(Duration::ZERO, |at| state.now - at)
    }

    fn frozen(&self) -> Duration {
        let state = self.0.lock();
        state.frozen + state.stopped_at.map_or(Duration::ZERO, |at| state.now - at)
    }
}

impl Control for Wired {
    fn request_break_in(&self) {
        let mut state = self.0.lock();
        state.wants_break_in = state.stopped_at.is_none();
    }

    fn cancel_break_in(&self) {
        self.0.lock().wants_break_in = false;
    }

    fn is_break_in(&self) -> bool {
        let state = self.0.lock();
        state.stopped_at.is_some() && state.is_break_in
    }

    fn gave_up_break_in(&self, wait: Wait<()>, after: Duration) -> BreakInError {
        self.cancel_break_in();
        match wait {
            Wait::TimedOut => {
                BreakInError::NoReaction { place: self.place(), after, last_heard: self.last_heard() }
            }
            Wait::Ended(why) => BreakInError::Ended(why),
            Wait::Done(()) | Wait::Interrupted => BreakInError::Interrupted,
        }
    }

    fn wait_for_halt(&self, boot: Option<BootId>, deadline: Option<Instant>) -> Wait<Halt> {
        let mut state = self.0.lock();
        let left =
            deadline.map_or(Duration::ZERO, |at| at.duration_since(self.0.epoch).saturating_sub(state.now));
        if state.stopped_at.is_none() && !state.wants_break_in {
            state.breaths += 1;
            let breath = state.breaths;
            match state.mishap.filter(|(at, _)| *at == breath).map(|(_, mishap)| mishap) {
                None | Some(Mishap::FallsSilent | Mishap::RestartStopped) => state.run(left),
                Some(Mishap::RunsLong) => state.run(Duration::from_secs(34)),
                Some(Mishap::CtrlC) => {
                    state.run(left / 2);
                    return Wait::Interrupted;
                }
                Some(Mishap::Restart) => state.boot += 1,
                Some(Mishap::BugCheck) => {
                    state.run(left / 2);
                    let bug_check = Stop::BugCheck { code: 0xc4, parameters: [0x62, 0, 0, 1] };
                    let change = state.debuggee.stop_by_itself(bug_check);
                    state.stop(change, false);
                }
            }
        }
        if boot.is_some_and(|boot| boot.0 != state.boot) {
            return Wait::Done(Halt::Restarted);
        }
        if state.wants_break_in {
            if state.mishap == Some((state.breaths, Mishap::FallsSilent)) {
                state.run(left);
                return Wait::TimedOut;
            }
            let delay = Duration::from_micros(state.random.u64(200..900));
            state.run(delay);
            let change = state.debuggee.break_in();
            state.stop(change, true);
        }
        match (&state.stopped_at, &state.change) {
            (Some(_), Some(change)) => Wait::Done(Halt::Stopped(Box::new(change.clone()))),
            _ => Wait::TimedOut,
        }
    }

    fn deadline_after(&self, time: Duration) -> Instant {
        self.0.epoch + self.0.lock().now + time
    }

    fn begin(&self, _: Step) {}

    fn step(&self) -> Step {
        Step::Idle
    }

    fn prompt(&self) -> Option<DebugIo> {
        None
    }

    fn waits_at_prompt(&self) -> bool {
        false
    }

    fn answer_prompt(&self, _: DebugIo, _: Bytes) {}

    fn go(&self) -> Resumed {
        let mut state = self.0.lock();
        if state.stopped_at.is_some() {
            // Its program counter is moved, and it is told to go on.
            (0..3).for_each(|_| state.ask());
            let stop = state.now - state.stopped_at.take().unwrap();
            state.frozen += stop;
            state.longest = state.longest.max(stop);
            state.debuggee.resume(NtStatus::DBG_CONTINUE, false);
        }
        Resumed::Running
    }

    fn leave(&self) -> Resumed {
        self.go()
    }

    fn hurry(&self) {}

    fn reboot(&self) -> Result<(), RequestError> {
        Err(RequestError::NotConnected)
    }

    fn lost(&self) -> Option<RequestError> {
        None
    }

    fn try_again(&self) {}

    fn last_heard(&self) -> String {
        "never".into()
    }

    fn line_is_gone(&self) -> Option<String> {
        None
    }
}

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

/// A build in a scenario, ready to be copied.
struct Ready {
    build: &'static Build,
    symbols: Arc<SymbolSource>,
}

impl Ready {
    fn of(build: &str) -> Self {
        let build = BUILDS.iter().find(|it| it.name == build).unwrap();
        let path = SymbolPath::parse(&super::store(build).display().to_string());
        Self { build, symbols: path.into() }
    }

    fn machine(&self, scenario: Scenario, growth: Growth, seed: u64) -> Machine {
        let mut machine = Machine::grown(self.build, scenario, seed, 0, growth);
        machine.leak_every(Duration::ZERO);
        // Its driver has been at work for a while.
        machine.break_in();
        machine.run_for(Duration::from_secs(2));
        machine
    }

    /// A debugger of the machine, which it has stopped, with short stops.
    fn attach(&self, clockwork: &Arc<Clockwork>, breath: Duration) -> Debugger {
        let source = Arc::new(Wired(Arc::clone(clockwork)));
        let mut debugger = Debugger::new(source, Arc::clone(&self.symbols), Duration::from_secs(5));
        debugger.break_in(&mut Nobody).unwrap();
        debugger.set_short_stops(Some(ShortStops { longest: MAX_STOP, breath }));
        debugger
    }
}

/// One driver allocates and frees so many blocks a second.
fn busy(busy: u32) -> Growth {
    Growth { busy, ..Growth::default() }
}

fn leaks() -> LeakQuery {
    LeakQuery { keep_blocks: true, ..LeakQuery::default() }
}

/// Blocks that a report lists, by address: driver, size, tag.
fn listed(report: &LeakReport) -> BTreeMap<u64, (String, u64, String)> {
    let mut blocks = BTreeMap::new();
    for group in &report.groups {
        let driver = group.driver.trim_end_matches(".sys").to_owned();
        for block in group.list.as_ref().unwrap() {
            let what = (driver.clone(), block.size, block.tag.clone());
            assert_eq!(blocks.insert(block.address.0, what), None, "{:?} is listed twice", block.address);
        }
    }
    blocks
}

/// Holds a report against what the machine says that its drivers held at the moment that the report is of. Returns how many
/// blocks it does not know all about, each of which it names.
fn compare(answered: &Answered<LeakReport>, clockwork: &Clockwork, what: &str) -> usize {
    let report = &answered.facts;
    let event = match &report.moment {
        Some(moment) => moment.event.unwrap(),
        None => report.log.unwrap().index,
    };
    let state = clockwork.lock();
    let outstanding = state.debuggee.machine.outstanding_at(event).unwrap();
    let moment = report.moment.clone().unwrap_or_default();
    let from_log: BTreeSet<_> = moment.from_log.iter().map(|address| address.0).collect();
    let undecided: BTreeSet<_> = moment.undecided.iter().map(|it| it.address.0).collect();
    let listed = listed(report);
    let expected: BTreeMap<_, _> = outstanding
        .iter()
        .map(|block| {
            let tag = String::from_utf8(block.tag.unwrap().to_vec()).unwrap();
            (block.address.0, (block.driver.to_owned(), block.size, tag))
        })
        .collect();
    for (address, block) in &expected {
        match listed.get(address) {
            Some(it) if from_log.contains(address) => {
                assert_eq!(it.0, block.0, "{what}: {address:#x}");
                assert!(it.1 <= block.1 && it.2.is_empty(), "{what}: {it:?} {block:?}");
            }
            Some(it) => assert_eq!(it, block, "{what}: {address:#x}"),
            None => {
                let is_told = undecided.contains(address) || moment.lost > 0;
                assert!(is_told, "{what}: {address:#x} {block:?} is missing");
            }
        }
    }
    for address in listed.keys() {
        assert!(expected.contains_key(address), "{what}: {address:#x} was not outstanding");
    }
    let codes: Vec<_> = answered.notes.iter().map(|note| note.code).collect();
    assert_eq!(codes.contains(&NoteCode::FromLogAlone), !from_log.is_empty(), "{what}");
    from_log.len() + undecided.len()
}

fn seeds(usual: u64) -> u64 {
    std::env::var("VERIKD_SEEDS").map_or(usual, |it| it.parse().unwrap())
}

#[test]
fn no_stop_is_longer_than_it_may_be_and_what_is_listed_is_of_one_moment() {
    let ready = ["7sp1", "10-22h2", "11-23h2"].map(Ready::of);
    let mut machines = BTreeMap::new();
    let (mut unsure, mut stops, mut overtaken, mut longest, seeds) = (0, 0, 0, Duration::ZERO, seeds(4));
    for seed in 0..seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        let ready = &ready[random.usize(0..ready.len())];
        let busy = [200, 500, 1000][random.usize(0..3)];
        let new = || ready.machine(Scenario::Many, Growth { busy, ..Growth::default() }, 7);
        let mut machine = machines.entry((ready.build.name, busy)).or_insert_with(new).clone();
        machine.run_for(Duration::from_millis(random.u64(0..5000)));
        let clockwork = Clockwork::new(machine, seed, None);
        let debugger = ready.attach(&clockwork, Duration::from_millis(random.u64(20..400)));
        let answered = debugger.ask_for(&leaks(), &Nobody).unwrap();
        debugger.go();
        let what = format!("seed {seed}, {}", ready.build.name);
        unsure += compare(&answered, &clockwork, &what);
        let state = clockwork.lock();
        assert!(state.longest <= LONGEST, "{what}: {:?}", state.longest);
        longest = longest.max(state.longest);
        let moment = answered.facts.moment.as_ref().unwrap();
        // Who writes the log faster than it can be read loses some of it; that is said.
        let OneMoment { stops: own, lost, replayed, undecided, .. } = moment;
        assert!(*own > 10 && *replayed > 0, "{what}: {own} stops, {replayed} entries");
        assert!(*lost == 0 || busy > 500, "{what}: {lost} entries are lost");
        overtaken += u64::from(*lost > 0);
        stops += state.stop;
        let blocks = answered.facts.blocks;
        for driver in &answered.facts.drivers {
            let counted = driver.counted_paged_blocks.value().unwrap()
                + driver.counted_nonpaged_blocks.value().unwrap();
            assert!(
                driver.blocks == counted || *lost > 0 || !undecided.is_empty(),
                "{what}: {counted} of {blocks} are {}'s",
                driver.name
            );
        }
    }
    println!(
        "{seeds} schedules: {stops} stops, the longest {longest:?}; {unsure} blocks known in part, each named, most of them \
         of the {overtaken} in which the log was overtaken"
    );
}

#[test]
fn what_the_log_has_lost_is_said() {
    let ready = Ready::of("7sp1");
    let machine = ready.machine(Scenario::Many, busy(1000), 3);
    let clockwork = Clockwork::new(machine, 3, Some((7, Mishap::RunsLong)));
    let debugger = ready.attach(&clockwork, Duration::from_millis(200));
    let answered = debugger.ask_for(&leaks(), &Nobody).unwrap();
    debugger.go();
    compare(&answered, &clockwork, "overtaken");
    let moment = answered.facts.moment.as_ref().unwrap();
    assert!(moment.lost > 0x100, "{moment:?}");
    assert!(!moment.undecided.is_empty(), "blocks that were read before are not decided");
    let lost =
        |note: &&verikd::commands::Note| note.code == NoteCode::Undecided && note.kind == NoteKind::Partial;
    assert_eq!(answered.notes.iter().filter(lost).count(), 2, "{:#?}", answered.notes);
}

#[test]
fn what_fits_into_one_stop_is_read_in_one() {
    let ready = Ready::of("7sp1");
    let clockwork = Clockwork::new(ready.machine(Scenario::Myfault, busy(0), 1), 1, None);
    let debugger = ready.attach(&clockwork, Duration::from_millis(200));
    let query = LeakQuery { drivers: vec!["myfault.sys".into()], ..leaks() };
    let answered = debugger.ask_for(&query, &Nobody).unwrap();
    debugger.go();
    compare(&answered, &clockwork, "myfault");
    assert!(answered.facts.moment.is_none() && answered.facts.blocks == 10);
    assert!(clockwork.lock().longest <= LONGEST);
}

#[test]
fn the_list_alone_is_of_one_moment_too() {
    let ready = Ready::of("10-22h2");
    let clockwork = Clockwork::new(ready.machine(Scenario::Many, busy(500), 5), 5, None);
    let debugger = ready.attach(&clockwork, Duration::from_millis(200));
    let query = VerifierQuery { flags: 3, driver: Some("myfault".into()) };
    let answered = debugger.ask_for(&query, &Nobody).unwrap();
    debugger.go();
    let event = answered.facts.moment.as_ref().unwrap().event.unwrap();
    let outstanding = clockwork.lock().debuggee.machine.outstanding_at(event).unwrap();
    let expected: BTreeSet<_> =
        outstanding.iter().filter(|block| block.driver == "myfault").map(|block| block.address).collect();
    let drivers = answered.facts.drivers.unwrap();
    let blocks = &drivers[0].allocations.as_ref().unwrap().blocks;
    assert_eq!(blocks.iter().map(|block| block.address).collect::<BTreeSet<_>>(), expected);
    assert_eq!((drivers.len(), blocks.len()), (1, expected.len()), "each once");
    assert!(clockwork.lock().longest <= LONGEST);
}

#[test]
fn a_hundred_drivers_and_two_hundred_modules_are_cut_too() {
    let ready = Ready::of("7sp1");
    let growth = Growth { busy: 500, modules: 200, drivers: 100, ..Growth::default() };
    let clockwork = Clockwork::new(ready.machine(Scenario::Many, growth, 5), 5, None);
    let debugger = ready.attach(&clockwork, Duration::from_millis(200));
    let answered = debugger.ask_for(&leaks(), &Nobody).unwrap();
    let query = LeakQuery { drivers: vec!["myfault.sys".into(), "netfilt".into()], ..leaks() };
    let of_two = debugger.ask_for(&query, &Nobody).unwrap();
    debugger.go();
    compare(&answered, &clockwork, "all");
    assert_eq!(of_two.facts.drivers.len(), 2);
    let longest = clockwork.lock().longest;
    assert!(longest <= LONGEST, "{longest:?}");
    let differ: Vec<_> = answered.notes.iter().filter(|note| note.code == NoteCode::CountsDiffer).collect();
    assert!(differ.is_empty(), "{differ:#?}");
}

#[test]
fn a_machine_that_does_something_else_in_between_ends_the_question_and_is_left_as_it_is() {
    let ready = Ready::of("7sp1");
    let machine = ready.machine(Scenario::Many, busy(500), 9);
    for (mishap, cause) in [
        (Mishap::BugCheck, ReadCause::StoppedByItself),
        (Mishap::Restart, ReadCause::TargetRestarted),
        (Mishap::RestartStopped, ReadCause::TargetRestarted),
        (Mishap::CtrlC, ReadCause::Interrupted),
        (Mishap::FallsSilent, ReadCause::NotStoppedAgain("".into())),
    ] {
        for breath in [1, 2, 9, 15] {
            let clockwork = Clockwork::new(machine.clone(), breath, Some((breath, mishap)));
            let debugger = ready.attach(&clockwork, Duration::from_millis(200));
            let stops = clockwork.lock().stop;
            let asked = debugger.ask_for(&leaks(), &Nobody);
            let Err(AskError::Query(QueryError::Lost(why))) = asked else {
                panic!("{mishap:?} in breath {breath}: {asked:?}")
            };
            let is_alike = std::mem::discriminant(&why) == std::mem::discriminant(&cause);
            assert!(is_alike, "{mishap:?} in breath {breath}: {why}");
            let by_itself = debugger.stops_over().by_itself;
            assert_eq!(by_itself, mishap == Mishap::BugCheck, "{mishap:?} in breath {breath}");
            let state = clockwork.lock();
            let stands = mishap == Mishap::BugCheck;
            assert_eq!(state.stopped_at.is_some(), stands, "{mishap:?} in breath {breath}");
            assert!(state.stop >= stops + breath - 1, "it was let run as often");
        }
    }
}

#[test]
fn a_machine_that_stopped_by_itself_is_not_let_run() {
    let ready = Ready::of("7sp1");
    let clockwork = Clockwork::new(ready.machine(Scenario::Many, busy(500), 9), 2, None);
    let debugger = ready.attach(&clockwork, Duration::from_millis(200));
    clockwork.lock().is_break_in = false;
    let stops = clockwork.lock().stop;
    let answered = debugger.ask_for(&leaks(), &Nobody).unwrap();
    assert_eq!(clockwork.lock().stop, stops);
    assert!(answered.facts.moment.is_none());
    assert!(answered.notes.iter().any(|note| note.code == NoteCode::ShortStops), "{:#?}", answered.notes);
}
