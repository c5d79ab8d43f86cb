//! Every fault of the wire and of the machine, in every state of a session, virtual clock, and at the end the question that
//! counts: does the machine run? What came of it is the table `FAULTS.md`, which this test holds.
//!
//! `VERIKD_SEEDS=100 cargo test --release -p kd-protocol --test faults` plays 15,000 schedules and leaves the table alone;
//! `UPDATE_EXPECTED=1` writes it. A failing schedule is named by fault, state and seed: `VERIKD_SCHEDULE="Loss Resuming 7"`
//! plays it alone.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::net::{Chance, Faults, TARGET, World, address, end_of, memory_at};
use kd_protocol::VirtAddr;
use kd_protocol::kd::{Manipulate, NtStatus};
use kd_protocol::kdnet::Key;
use kd_protocol::link::{Event, HostLink, LinkConfig, RequestError, RequestId, RunState};

/// Schedules a cell that the table is made of.
const SEEDS: u64 = 4;

#[derive(Clone, Copy, Debug)]
enum Fault {
    Loss,
    Duplication,
    Reordering,
    Corruption,
    Truncation,
    DelayAndJitter,
    Bursts,
    SilenceToTarget,
    SilenceToHost,
    Replay,
    JunkFlood,
    Reboot,
    PowerOff,
    Suspend,
    SecondMachine,
}

const FAULTS: [Fault; 15] = [
    Fault::Loss,
    Fault::Duplication,
    Fault::Reordering,
    Fault::Corruption,
    Fault::Truncation,
    Fault::DelayAndJitter,
    Fault::Bursts,
    Fault::SilenceToTarget,
    Fault::SilenceToHost,
    Fault::Replay,
    Fault::JunkFlood,
    Fault::Reboot,
    Fault::PowerOff,
    Fault::Suspend,
    Fault::SecondMachine,
];

#[derive(Clone, Copy, Debug)]
enum State {
    BeforeTheOffer,
    BetweenResponseAndPing,
    Attached,
    Running,
    BreakingIn,
    Stopped,
    InMidRequest,
    InMidSearch,
    Resuming,
    Leaving,
}

const STATES: [State; 10] = [
    State::BeforeTheOffer,
    State::BetweenResponseAndPing,
    State::Attached,
    State::Running,
    State::BreakingIn,
    State::Stopped,
    State::InMidRequest,
    State::InMidSearch,
    State::Resuming,
    State::Leaving,
];

/// How a schedule ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// Resumed was told, or no stop; and it runs.
    Runs,
    /// ResumeUnproven was told; it runs all the same.
    UnprovenRuns,
    /// ResumeUnproven was told; it is stopped.
    UnprovenStopped,
    /// A break-in without an answer was given up, which its owner knows; it runs.
    UnansweredRuns,
    /// The same; it is stopped.
    UnansweredStopped,
    /// There is no machine any more.
    Off,
}

#[test]
fn every_fault_in_every_state_leaves_a_running_machine_or_is_told() {
    if let Ok(schedule) = std::env::var("VERIKD_SCHEDULE") {
        let mut words = schedule.split(' ');
        let (fault, state) = (words.next().unwrap(), words.next().unwrap());
        let seed = words.next().unwrap().parse().unwrap();
        let fault = *FAULTS.iter().find(|it| format!("{it:?}") == fault).expect("a fault");
        let state = *STATES.iter().find(|it| format!("{it:?}") == state).expect("a state");
        let mut schedule = Schedule::new(fault, state, seed);
        let end = schedule.play();
        eprintln!("{end:?}: {:#?}", schedule.world.log);
        return;
    }
    let seeds = std::env::var("VERIKD_SEEDS").map(|it| it.parse().expect("VERIKD_SEEDS is a number"));
    let mut table = String::new();
    for fault in FAULTS {
        for state in STATES {
            let (mut ends, mut told) = (BTreeMap::new(), BTreeSet::new());
            for seed in 0..*seeds.as_ref().unwrap_or(&SEEDS) {
                let mut schedule = Schedule::new(fault, state, seed);
                *ends.entry(schedule.play()).or_insert(0) += 1;
                told.extend(schedule.world.log.iter().map(|it| name_of(it).to_owned()));
            }
            let ends =
                ends.iter().map(|(end, count)| format!("{end:?} {count}")).collect::<Vec<_>>().join(", ");
            let told = told.into_iter().collect::<Vec<_>>().join(", ");
            writeln!(table, "| {fault:?} | {state:?} | {ends} | {told} |").unwrap();
        }
    }
    if seeds.is_ok() {
        return;
    }
    let page = format!("{HEADING}{table}");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/FAULTS.md");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(path, &page).expect("the table can be written");
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    let differs = page.lines().zip(expected.lines()).find(|(now, then)| now != then);
    assert_eq!(differs, None, "UPDATE_EXPECTED=1 rewrites the table");
    assert_eq!(page.len(), expected.len(), "UPDATE_EXPECTED=1 rewrites the table");
}

#[test]
fn a_flood_of_junk_causes_nothing() {
    let mut world = World::new(1, Faults::default());
    world.attach();
    world.stop_target();
    world.run_for(Duration::from_secs(1));
    let mut chance = Chance::new(3);
    let mut junk = [0; 200];
    let mut out = BytesMut::new();
    for round in 0..100_000_u64 {
        kd_protocol::link::Entropy::fill(&mut chance, &mut junk);
        junk[..6].copy_from_slice(&[b'M', b'D', b'B', b'G', 5, round as u8 % 2]);
        let _ =
            world.host.handle_datagram(world.now, address(TARGET), &junk[..38 + (round % 10) as usize * 16]);
    }
    let mut caused = 0;
    while world.host.poll_transmit(&mut out).is_some() {
        caused += 1;
    }
    assert!(caused <= 1, "{caused} datagrams are sent for 100,000 of nobody's");
    assert_eq!(world.host.poll_event(), None);
    assert_eq!(world.read(0x1000, 8).unwrap(), memory_at(0x1000, 8));
}

struct Schedule {
    world: World,
    fault: Fault,
    state: State,
    name: String,
    chance: Chance,
    /// How long the fault lasts.
    lasts: Duration,
}

impl Schedule {
    fn new(fault: Fault, state: State, seed: u64) -> Self {
        let mut chance = Chance::new(seed + 100);
        // One in four lasts longer than any patience.
        let lasts = match chance.next() % 4 {
            0 => Duration::from_secs(25),
            _ => Duration::from_millis(50 + chance.next() % 6000),
        };
        let name = format!("{fault:?} {state:?} {seed}");
        Self { world: World::new(seed, Faults::default()), fault, state, name, chance, lasts }
    }

    /// Plays it and asks the target.
    fn play(&mut self) -> End {
        if matches!(self.state, State::BeforeTheOffer) {
            // Whoever offers first is the target: the second machine is not.
            if matches!(self.fault, Fault::SecondMachine) {
                self.world.run_for(Duration::from_micros(100));
            }
            self.strike();
        }
        if matches!(self.state, State::BetweenResponseAndPing) {
            // The offer takes half a millisecond, and so does each of the two behind it.
            self.world.run_for(Duration::from_micros(700));
            self.strike();
        }
        let connects = self.world.run_until(Duration::from_secs(60), |it| it.host.peer().is_some());
        if !connects {
            assert!(self.world.is_dead, "{}: no connection", self.name);
            return End::Off;
        }
        if matches!(self.state, State::Attached | State::Running) {
            if matches!(self.state, State::Running) {
                self.world.run_for(Duration::from_secs(4));
            }
            self.strike();
            self.world.target.print(self.world.now, Bytes::from_static(b"text\n"));
            self.idle();
        }
        self.world.host.break_in(self.world.now);
        if matches!(self.state, State::BreakingIn) {
            let moment = Duration::from_micros(self.chance.next() % 2000);
            self.world.run_for(moment);
            self.strike();
        }
        let stops = self.world.run_until(Duration::from_secs(40), |it| it.host.state() == RunState::Stopped);
        if !stops {
            return self.give_up_break_in();
        }
        match self.state {
            State::Stopped => {
                self.strike();
                self.idle();
            }
            State::InMidRequest | State::InMidSearch => self.ask_under_fault(),
            _ => self.ask_a_few(),
        }
        self.leave()
    }

    fn ask_under_fault(&mut self) {
        let is_search = matches!(self.state, State::InMidSearch);
        self.ask_a_few();
        let request = if is_search {
            self.world.execution = Duration::from_millis(40);
            Manipulate::search_memory(VirtAddr(0x1000), 0x1000, Bytes::from_static(b"pattern"))
        } else {
            Manipulate::read_virtual(VirtAddr(0x7000), 64)
        };
        let boot = self.world.boot;
        let id = self.world.host.request(self.world.now, request);
        let moment = Duration::from_micros(self.chance.next() % if is_search { 45_000 } else { 1500 });
        self.world.run_for(moment);
        self.strike();
        self.end_of(id, if is_search { None } else { Some((0x7000, boot)) });
        self.world.execution = Duration::ZERO;
        self.ask_a_few();
    }

    /// Reads what must be right, as long as the target is stopped.
    fn ask_a_few(&mut self) {
        for _ in 0..3 {
            if self.world.host.state() != RunState::Stopped {
                return;
            }
            let (at, boot) = (self.chance.next() % 0x10_0000, self.world.boot);
            let id = self.world.host.request(self.world.now, Manipulate::read_virtual(VirtAddr(at), 32));
            self.end_of(id, Some((at, boot)));
        }
    }

    /// Waits for the end of a request: a right answer of the boot that was asked, or a reason.
    fn end_of(&mut self, id: RequestId, expected: Option<(u64, u8)>) {
        let mut end = None;
        self.world.run_until(Duration::from_secs(70), |world| {
            end = world.log.iter().find(|it| end_of(it) == Some(id)).cloned();
            end.is_some()
        });
        match (end, expected) {
            (Some(Event::Replied(_, reply)), Some((at, boot))) => {
                let bytes: Vec<u8> = memory_at(at, reply.data.len()).iter().map(|it| it ^ boot).collect();
                assert_eq!(reply.data, bytes, "{}: other bytes than boot {boot} has at {at:#x}", self.name);
            }
            (Some(Event::Failed(_, error)), _) => {
                let restarted = matches!(error, RequestError::TargetRestarted | RequestError::TargetRunning);
                assert!(!restarted || self.world.boot > 0, "{}: {error}", self.name);
            }
            (Some(_), _) => {}
            (None, _) => panic!("{}: a request without an end", self.name),
        }
    }

    /// Lets the machine run as an owner does, goes away, and asks the machine.
    fn leave(&mut self) -> End {
        let since = self.world.log.len();
        if self.world.host.state() == RunState::Stopped {
            if matches!(self.state, State::Leaving) {
                self.strike();
            }
            self.world.host.resume(self.world.now, NtStatus::DBG_CONTINUE);
            if matches!(self.state, State::Resuming) {
                let moment = Duration::from_micros(self.chance.next() % 1500);
                self.world.run_for(moment);
                self.strike();
            }
        }
        self.resume_until_gone();
        let is_unproven = self.world.log[since..].iter().any(|it| matches!(it, Event::ResumeUnproven { .. }));
        self.go_away();
        match (self.world.is_dead, is_unproven, self.world.target.is_running()) {
            (true, ..) => End::Off,
            (false, true, true) => End::UnprovenRuns,
            (false, true, false) => End::UnprovenStopped,
            (false, false, true) => End::Runs,
            (false, false, false) => {
                panic!("{}: stopped, and nobody was told: {:?}", self.name, &self.world.log[since..])
            }
        }
    }

    /// Stops that come instead of the end of a resume, or because a break-in was late, are left like the last one.
    fn resume_until_gone(&mut self) {
        self.world.run_until(Duration::from_secs(120), |world| match world.host.state() {
            RunState::Stopped => {
                world.host.resume(world.now, NtStatus::DBG_CONTINUE);
                false
            }
            RunState::Running | RunState::Unknown => !world.host.may_stop_again(),
        });
    }

    fn give_up_break_in(&mut self) -> End {
        self.world.host.cancel_break_in();
        self.resume_until_gone();
        self.go_away();
        match (self.world.is_dead, self.world.target.is_running()) {
            (true, _) => End::Off,
            (false, true) => End::UnansweredRuns,
            (false, false) => End::UnansweredStopped,
        }
    }

    /// Nobody is there any more, and what is on its way arrives.
    fn go_away(&mut self) {
        let nobodys: Key = "9.9.9.9".parse().expect("a valid key");
        self.world.host = HostLink::new(LinkConfig::new(nobodys), Box::new(Chance::new(1)));
        let leaves = self.world.now + self.world.clears_at.map_or(Duration::ZERO, |at| at - self.world.now);
        self.world.run_until(Duration::from_secs(30), |world| world.now > leaves + Duration::from_secs(3));
    }

    /// The network is bad for a while, and nobody wants anything.
    fn idle(&mut self) {
        let time = self.lasts / 2;
        self.world.run_for(time);
    }

    fn strike(&mut self) {
        let world = &mut self.world;
        let until = world.now + self.lasts;
        let faults = Faults::default();
        match self.fault {
            Fault::Loss => world.weather.faults = Faults { loss: 0.4, ..faults },
            Fault::Duplication => world.weather.faults = Faults { duplicate: 0.5, ..faults },
            Fault::Reordering => world.weather.faults = Faults { reorder: 0.4, ..faults },
            Fault::Corruption => world.weather.faults = Faults { corrupt: 0.3, ..faults },
            Fault::Truncation => world.weather.truncate = 0.3,
            Fault::DelayAndJitter => world.weather.jitter = Duration::from_millis(120),
            Fault::Bursts => world.weather.bursts = true,
            Fault::SilenceToTarget => world.is_deaf = true,
            Fault::SilenceToHost => world.is_mute = true,
            Fault::Replay => world.weather.replay = 0.7,
            Fault::JunkFlood => world.weather.junk = 20,
            Fault::Reboot => {
                world.boot += 1;
                return world.unplug_and_reboot();
            }
            Fault::PowerOff => {
                world.is_dead = true;
                return;
            }
            Fault::Suspend => world.is_suspended = true,
            Fault::SecondMachine => return world.add_second(address("192.168.2.72:50001"), 5),
        }
        world.clear_up(until);
    }
}

fn name_of(event: &Event) -> &'static str {
    match event {
        Event::Connected(_) => "Connected",
        Event::Restarted(_) => "Restarted",
        Event::Stopped(_) => "Stopped",
        Event::Resumed => "Resumed",
        Event::ResumeUnproven { .. } => "ResumeUnproven",
        Event::Replied(..) => "Replied",
        Event::Acknowledged(_) => "Acknowledged",
        Event::Failed(_, RequestError::NoAnswer { .. }) => "Failed: no answer",
        Event::Failed(_, RequestError::TargetRestarted) => "Failed: restarted",
        Event::Failed(..) => "Failed: runs",
        Event::DebugPrint(_) => "DebugPrint",
        Event::SecondTarget { .. } => "SecondTarget",
        Event::TakenOver(_) => "TakenOver",
        _ => "another",
    }
}

const HEADING: &str = "\
# What becomes of a session when something fails

Written by `tests/faults.rs` (`UPDATE_EXPECTED=1`), four schedules a line, virtual clock. A fault begins in a state and lasts
between 50 ms and 6 s, in one of four schedules 25 s; a reboot, a power cut and a second machine last. The owner breaks in,
reads, resumes, waits while the link says that the target may stop again, and goes away; what is on its way arrives; then the
simulated machine is asked. No answer may be wrong, nor of another boot than was asked. *Runs*: it runs. *Unproven*:
`ResumeUnproven` was told, and it runs or is stopped. *Unanswered*: the owner gave a break-in up after 40 s. *Off*: no machine.
No line says that it is stopped and nobody was told: the test fails then.

| fault | state | the machine | told |
|---|---|---|---|
";
