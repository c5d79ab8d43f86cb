//! Every fault in every state, played with the real program over real UDP: what it said, how it ended, and whether the
//! machine runs afterwards, which the machine itself is asked. The table is `tests/FAULTS.md`.

use std::fmt::Write as _;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use verikd_sim::windows::{Build, Stop};
use verikd_sim::{AtBoot, Faults, MachineState, Simulator, SimulatorConfig, SimulatorEvent};

use crate::field::{self, Debugger, Ended, PATIENCE, cut, free_port, machine, runs, runs_after_the_advice};

/// What each of the two builds answers on a quiet day.
static RIGHT: LazyLock<[Vec<String>; 2]> = LazyLock::new(|| {
    [false, true].map(|is_other| {
        let port = free_port();
        let target = machine(port, Faults::default());
        if is_other {
            target.reboot_as(other_windows().0, other_windows().1, AtBoot::Runs).unwrap();
        }
        let ended = Debugger::start(port, &["-b", "-c", "!verifier 3 myfault.sys"]).finish();
        assert_eq!(ended.code, 0, "{ended:?}");
        lines(&ended.out)
    })
});

/// The build that a machine comes back as, and where its kernel lies then.
fn other_windows() -> (&'static Build, u64) {
    (Build::find(field::OTHER_BUILD).unwrap(), 5)
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

/// Waits that are shorter than a person's, so that a table of them takes minutes.
const DEADLINES: [&str; 10] = [
    "--connect-timeout",
    "6s",
    "--break-timeout",
    "6s",
    "--request-timeout",
    "5s",
    "--leave-timeout",
    "4s",
    "--stop-timeout",
    "8s",
];

/// A round trip that leaves time to do something within it.
const SLOW: Duration = Duration::from_millis(240);

/// Where the session is when something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    BeforeTheOffer,
    BreakingIn,
    Attaching,
    Running,
    Reading,
    Leaving,
}

impl State {
    const ALL: [Self; 6] = [
        Self::BeforeTheOffer,
        Self::BreakingIn,
        Self::Attaching,
        Self::Running,
        Self::Reading,
        Self::Leaving,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::BeforeTheOffer => "before the offer",
            Self::BreakingIn => "breaking in",
            Self::Attaching => "attaching",
            Self::Running => "running",
            Self::Reading => "in a query",
            Self::Leaving => "leaving",
        }
    }
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Noise,
    Burst,
    Cut,
    SilentToHost,
    SilentToTarget,
    Junk,
    Suspended,
    PowerOff,
    Reboot,
    AnotherWindows,
    SecondMachine,
    Prompt,
    Assertion,
    BugCheck,
}

impl Fault {
    const ALL: [Self; 14] = [
        Self::Noise,
        Self::Burst,
        Self::Cut,
        Self::SilentToHost,
        Self::SilentToTarget,
        Self::Junk,
        Self::Suspended,
        Self::PowerOff,
        Self::Reboot,
        Self::AnotherWindows,
        Self::SecondMachine,
        Self::Prompt,
        Self::Assertion,
        Self::BugCheck,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Noise => "30 % lost, 10 % twice, 10 % late, 5 % damaged",
            Self::Burst => "nothing for 1.5 s",
            Self::Cut => "cut for good",
            Self::SilentToHost => "silent to the debugger for good",
            Self::SilentToTarget => "silent to the target for good",
            Self::Junk => "a flood of junk",
            Self::Suspended => "suspended for 1.5 s",
            Self::PowerOff => "switched off",
            Self::Reboot => "restarts",
            Self::AnotherWindows => "restarts as another Windows, which stops by itself",
            Self::SecondMachine => "a second machine with the same key",
            Self::Prompt => "asks at a prompt",
            Self::Assertion => "an assertion fails",
            Self::BugCheck => "bug-checks",
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    answered: &'static str,
    told: String,
    code: i32,
    runs: &'static str,
}

/// What came of it, and what is wrong with that.
type Played = (Row, Vec<String>);

#[test]
fn every_fault_in_every_state_leaves_a_machine_that_runs_or_a_loud_word() {
    let cases: Vec<(Fault, State)> =
        Fault::ALL.iter().flat_map(|fault| State::ALL.map(|state| (*fault, state))).collect();
    // One case again: VERIKD_CASE=Burst:Leaving
    let wanted = std::env::var("VERIKD_CASE").ok();
    if let Some(wanted) = wanted {
        for (fault, state) in cases.iter().filter(|(fault, state)| format!("{fault:?}:{state:?}") == wanted) {
            let (row, complaints) = play(*fault, *state);
            assert!(complaints.is_empty(), "{row:#?}{}", complaints.join("\n"));
        }
        return;
    }
    let next = AtomicUsize::new(0);
    let rows: Mutex<Vec<Option<Played>>> = Mutex::new(vec![None; cases.len()]);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while let Some((fault, state)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let index = cases.iter().position(|it| it == &(*fault, *state)).unwrap();
                    rows.lock().unwrap()[index] = Some(play(*fault, *state));
                }
            });
        }
    });
    let (rows, complaints): (Vec<Row>, Vec<Vec<String>>) =
        rows.into_inner().unwrap().into_iter().map(Option::unwrap).unzip();
    let complaints = complaints.concat();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    let mut table = String::from(INTRODUCTION);
    for (fault, rows) in Fault::ALL.iter().zip(rows.chunks(State::ALL.len())) {
        writeln!(
            table,
            "\n## {}\n\n| when | answered | the user was told | exit | does the machine run afterwards |",
            fault.name()
        )
        .unwrap();
        table.push_str("|---|---|---|---:|---|\n");
        for (state, Row { answered, told, code, runs }) in State::ALL.iter().zip(rows) {
            writeln!(table, "| {} | {answered} | {told} | {code} | {runs} |", state.name()).unwrap();
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/FAULTS.md");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    // Words depend on what was on its way at the moment; that every case is there, and none is empty, does not.
    let shape = |table: &str| -> Vec<String> {
        let first = |line: &str| line.split(" | ").next().unwrap_or_default().to_owned();
        table.lines().filter(|line| line.starts_with(['#', '|'])).map(first).collect()
    };
    let committed = std::fs::read_to_string(path).unwrap();
    assert_eq!(shape(&committed), shape(&table), "UPDATE_EXPECTED=1 writes tests/FAULTS.md anew");
    assert!(
        !committed.contains("|  |") && !committed.contains("stopped |"),
        "an empty cell, or a stopped machine"
    );
}

const INTRODUCTION: &str = "\
# What happens to a machine when something goes wrong

Made by `cargo test --test harm` (`UPDATE_EXPECTED=1` rewrites it): the program as a process, a simulated machine over real
UDP, one fault in one state of a session. The session is a script, `!verifier 3 myfault.sys` after whatever leads to the
state; *answered* is what it printed to standard output: never anything but the whole right answer, or nothing. Whether the
machine runs afterwards was asked of the machine; a run in which one does not, without a warning and exit code 4, fails. Where it could not be reached any more, what the warning advises was done
once it could be reached again.
";

fn play(fault: Fault, state: State) -> Played {
    let port = free_port();
    let network = match state {
        State::BreakingIn | State::Attaching | State::Leaving => {
            Faults { round_trip: SLOW, ..Faults::default() }
        }
        State::Reading => Faults { round_trip: Duration::from_millis(20), ..Faults::default() },
        State::BeforeTheOffer | State::Running => Faults::default(),
    };
    let script = match state {
        State::Running => "g; !verifier 3 myfault.sys",
        State::Reading => "!verifier 80 0n2000; !verifier 3 myfault.sys",
        State::Leaving => ".echo done",
        _ => "!verifier 3 myfault.sys",
    };
    // A machine whose first datagram is not lost has made its offer.
    let at_first = if state == State::BeforeTheOffer { cut() } else { network };
    let options = [&["-b", "-c", script][..], &DEADLINES].concat();
    let mut debugger = Debugger::start(port, &options);
    debugger.wait_for("Waiting for a target");
    let target = machine(port, at_first);
    match state {
        State::BeforeTheOffer => {}
        State::BreakingIn => {
            while !matches!(target.next_event(Some(PATIENCE)), Some(SimulatorEvent::Connected(_))) {}
        }
        State::Attaching => assert!(target.wait_for(MachineState::Stopped, PATIENCE)),
        State::Running => debugger.wait_for("Waiting for the target to stop by itself"),
        State::Reading => {
            debugger.wait_for("kd> ");
            let before = target.requests();
            while target.requests() < before + 20 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        State::Leaving => debugger.wait_for("kd> .echo done"),
    }
    let helpers = strike(fault, &target, port, network);
    if state == State::Running && !debugger.has_ended() {
        // Whoever waits for a stop presses Ctrl+C sooner or later.
        debugger.signal("INT");
    }
    let ended = debugger.finish();
    drop(helpers);
    if std::env::var_os("VERIKD_CASE").is_some() {
        while let Some(event) = target.next_event(Some(Duration::ZERO)) {
            eprintln!("{event:?}");
        }
    }
    row(fault, state, &ended, &target, port)
}

/// What has to live on while the debugger deals with a fault.
struct Helpers(#[expect(dead_code, reason = "kept alive")] Option<Simulator>);

fn strike(fault: Fault, target: &Simulator, port: u16, network: Faults) -> Helpers {
    let both = |faults| target.set_faults(faults, faults);
    let pause = Duration::from_millis(1500);
    let mut second = None;
    match fault {
        Fault::Noise => both(Faults {
            loss: 0.3,
            duplicate: 0.1,
            reorder: 0.1,
            corrupt: 0.05,
            seed: 3,
            ..Faults::default()
        }),
        Fault::Burst => {
            both(cut());
            std::thread::sleep(pause);
            both(network);
        }
        Fault::Cut => both(cut()),
        Fault::SilentToHost => target.set_faults(cut(), network),
        Fault::SilentToTarget => target.set_faults(network, cut()),
        Fault::Junk => {
            both(network);
            flood_with_junk(port);
        }
        Fault::Suspended => {
            both(network);
            target.suspend();
            std::thread::sleep(pause);
            target.wake();
        }
        Fault::PowerOff => {
            both(network);
            target.power_off();
        }
        Fault::Reboot => {
            both(network);
            target.reboot(AtBoot::Runs);
        }
        Fault::AnotherWindows => {
            both(network);
            let (other, seed) = other_windows();
            target.reboot_as(other, seed, AtBoot::Stops(Stop::Breakpoint)).unwrap();
        }
        Fault::SecondMachine => {
            both(network);
            second = Some(
                Simulator::start(SimulatorConfig::new(([127, 0, 0, 1], port).into(), field::key())).unwrap(),
            );
        }
        Fault::Prompt => {
            both(network);
            target.ask("Break, Ignore, Terminate Process or Terminate Thread (bipt)? ");
        }
        Fault::Assertion => {
            both(network);
            target.stop_with(Stop::Assertion);
        }
        Fault::BugCheck => {
            both(network);
            target.stop_with(Stop::BugCheck { code: 0xc4, parameters: [0x62, 0, 0, 10] });
        }
    }
    Helpers(second)
}

/// What no key opens, and what only looks like KDNET.
fn flood_with_junk(port: u16) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut chance = fastrand::Rng::with_seed(port.into());
    for count in 0..3000 {
        let mut junk = vec![0; chance.usize(1..1400)];
        chance.fill(&mut junk);
        if count % 2 == 0 && junk.len() > 6 {
            junk[..6].copy_from_slice(b"MDBG\x05\x00");
        }
        let _ = socket.send_to(&junk, ("127.0.0.1", port));
    }
}

fn row(fault: Fault, state: State, ended: &Ended, target: &Simulator, port: u16) -> Played {
    let mut complaints = Vec::new();
    let mut complain_unless = |is_right: bool, what: &str| {
        if !is_right {
            complaints.push(format!("{what}: {fault:?} while {state:?}: {ended:#?}"));
        }
    };
    let (out, right) =
        (lines(&ended.out), &RIGHT[usize::from(fault == Fault::AnotherWindows && target.boot() > 1)]);
    let answered = match () {
        () if out.is_empty() => "nothing",
        () if out.ends_with(right) || state == State::Leaving && out == ["done"] => "all",
        () => "in part",
    };
    // A part is right only where it says that it is one.
    if answered == "in part" {
        let says_so = state == State::Reading || ended.err.contains("incomplete:");
        complain_unless(says_so && ended.code != 0, "a wrong answer");
    }
    complain_unless(ended.code != 0 || answered == "all", "0 without the answer");
    let is_warned = ended.err.contains("may still stand still");
    let is_off = target.state() == MachineState::Off;
    let runs = match () {
        () if is_off => "it is off",
        () if runs(target) => "yes",
        () => {
            complain_unless(is_warned && ended.code == 4, "left stopped without a word");
            complain_unless(runs_after_the_advice(target, port), "the advice does not help");
            "once it is reached again, by the advice"
        }
    };
    (Row { answered, told: told(ended), code: ended.code, runs }, complaints)
}

/// The sentences of a session that matter here, shortened, in the order of importance.
fn told(ended: &Ended) -> String {
    const SENTENCES: [(&str, &str); 14] = [
        ("may still stand still", "WARNING: it may still stand still"),
        ("the target is lost", "the target is lost"),
        ("did not stop within", "it did not stop; last sign of life"),
        ("no datagram arrived", "no datagram arrived; what to check"),
        ("does not react to answers", "it makes offers and does not react to answers"),
        ("does not say who it is", "it does not say who it is"),
        ("restarted", "it restarted"),
        ("another machine", "a second machine has the same key"),
        ("did not stop by itself", "it did not stop by itself"),
        ("(answered: i)", "the prompt and its answer"),
        ("Assertion failure", "Assertion failure"),
        ("Fatal System Error", "Fatal System Error"),
        ("the session has ended", "the session has ended"),
        ("not run:", "which commands were not run"),
    ];
    let said: Vec<&str> =
        SENTENCES.iter().filter(|(needle, _)| ended.err.contains(needle)).map(|(_, said)| *said).collect();
    if said.is_empty() { "nothing, all went well".into() } else { said.join("; ") }
}
