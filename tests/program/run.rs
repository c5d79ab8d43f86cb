//! `verikd run`: breaks and dumps by a plan, before simulated machines.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use verikd::shell::run::{Event, RunSummary};
use verikd::shell::schema_of_line;
use verikd_sim::windows::{Scenario, Stop, WINDOWS_7_SP1};
use verikd_sim::{Faults, MachineState, Simulator, SimulatorConfig, SimulatorEvent, export_symbols};

use crate::committed::assert_committed;
use crate::program::{Running, Setup, verikd};

const BLOCK: u64 = 0x9ce000 / 10;

/// Files of a target with this extension, in the order of their events.
fn files(out: &Path, target: &str, extension: &str) -> Vec<PathBuf> {
    let Ok(folder) = std::fs::read_dir(out.join(target)) else { return Vec::new() };
    let paths = folder.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths.filter(|path| path.extension().is_some_and(|it| it == extension)).collect();
    files.sort();
    files
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A plan's text for targets at these ports, with symbols that all have.
fn plan(setup: &Setup, targets: &[(&str, u16)], rest: &str) -> PathBuf {
    let symbols = setup.symbols();
    let mut text = format!("out = {:?}\n{rest}\n", setup.folder.path().join("out"));
    for (name, port) in targets {
        text += &format!(
            "[[target]]\nname = \"{name}\"\nconnection = \"net:port={port},key=1.2.3.4\"\nsymbols = {symbols:?}\n"
        );
    }
    let path = setup.folder.path().join("plan.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// A machine in this process, which tests command.
fn machine(setup: &Setup, port: u16, scenario: Scenario) -> Simulator {
    machine_behind(setup, port, scenario, Faults::default())
}

fn machine_behind(setup: &Setup, port: u16, scenario: Scenario, faults: Faults) -> Simulator {
    export_symbols(&WINDOWS_7_SP1, &setup.symbols()).unwrap();
    let connect = SocketAddr::from(([127, 0, 0, 1], port));
    let config = SimulatorConfig::new(connect, "1.2.3.4".parse().unwrap());
    Simulator::start(SimulatorConfig { scenario, faults, leak_every: None, ..config }).unwrap()
}

/// Waits until it has restarted, and runs.
fn restarts(machine: &Simulator, told: &str) {
    loop {
        match machine.next_event(Some(Duration::from_secs(60))) {
            Some(SimulatorEvent::Rebooted) => break,
            Some(_) => {}
            None => panic!("{:?} after {} stops:\n{told}", machine.state(), machine.stops()),
        }
    }
    assert!(runs(machine), "{told}");
}

fn runs(machine: &Simulator) -> bool {
    machine.wait_for(MachineState::Running, Duration::from_secs(60))
}

#[test]
fn five_breaks_write_five_files_that_grow_by_what_was_leaked() {
    let setup = Setup::new();
    let mut target = setup.target(&["--leak-every", "40ms"]);
    let out = setup.folder.path().join("out");
    let (connection, symbols) = (setup.connection("1.2.3.4"), setup.symbols());
    let ended = verikd(&[
        "run",
        "-k",
        &connection,
        "-y",
        symbols.to_str().unwrap(),
        "--every",
        "300ms",
        "--count",
        "5",
        "--out",
        out.to_str().unwrap(),
        "--freeze-budget",
        "20s",
        "--total-freeze-budget",
        "60s",
        "-c",
        "!leaks myfault.sys",
    ]);
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    let (mut leaked, mut before_stop) = (0, Vec::new());
    for _ in 0..5 {
        for line in target.seen_before("Runs on") {
            leaked += u64::from(line.contains("leaked"));
            if line == "Stopped" {
                before_stop.push(leaked);
            }
        }
    }
    let events: Vec<Value> = files(&out, "target", "json").iter().map(|file| json(file)).collect();
    assert_eq!((events.len(), files(&out, "target", "txt").len()), (5, 5));
    let bytes: Vec<u64> =
        events.iter().map(|event| event["commands"][0]["answer"]["bytes"].as_u64().unwrap()).collect();
    let expected: Vec<u64> = before_stop.iter().map(|leaked| (10 + leaked) * BLOCK).collect();
    assert_eq!(bytes, expected);
    assert!(bytes[4] > bytes[0], "{bytes:?}");
    let report = json(&out.join("report.json"));
    assert_committed("lines/event", &schema_of_line::<Event<'_>>(), &events[0]);
    assert_committed("lines/run", &schema_of_line::<RunSummary<'_>>(), &report);
    let frozen = report["frozen_us"].as_u64().unwrap();
    let each: u64 = events.iter().map(|event| event["frozen_us"].as_u64().unwrap()).sum();
    assert!(each <= frozen && frozen < 60_000_000, "{report:#}");
    assert!(ended.out.contains("stood still for"), "{}", ended.out);
}

#[test]
fn of_three_targets_one_dies_and_two_finish() {
    let setup = Setup::new();
    let others = [Setup::new(), Setup::new()];
    let ports = [setup.port, others[0].port, others[1].port];
    let path = plan(
        &setup,
        &[("one", ports[0]), ("two", ports[1]), ("three", ports[2])],
        "count = 3\nbreak_timeout = \"2s\"\ncommands = [\"!verifier 3 myfault.sys\"]\n[[on]]\nevery = \"500ms\"\n",
    );
    let machines = ports.map(|port| machine(&setup, port, Scenario::default()));
    let mut running = Running::start(&["run", path.to_str().unwrap()]);
    running.wait_for("two    Event 1, every");
    machines[1].power_off();
    let ended = running.finish();
    assert_eq!(ended.code, 6, "{}{}", ended.out, ended.err);
    let out = setup.folder.path().join("out");
    assert_eq!(files(&out, "one", "json").len(), 3);
    assert_eq!(files(&out, "three", "json").len(), 3);
    assert!(files(&out, "two", "json").len() < 3);
    let report = json(&out.join("report.json"));
    let codes: Vec<_> =
        report["targets"].as_array().unwrap().iter().map(|it| it["exit_code"].as_u64().unwrap()).collect();
    assert_eq!(codes, [0, 6, 0], "{report:#}");
    assert!(
        ended.out.contains("two: exit code 6; ") && ended.out.contains("one: done; 3 events"),
        "{}",
        ended.out
    );
    assert!(runs(&machines[0]) && runs(&machines[2]));
}

#[test]
fn a_wrong_plan_does_not_start() {
    let setup = Setup::new();
    let path =
        plan(&setup, &[("one", setup.port)], "count = 3\n[[on]]\nevery = \"soon\"\ncommands = [\"lm\"]\n");
    let ended = verikd(&["run", path.to_str().unwrap()]);
    assert_eq!(ended.code, 2);
    assert!(ended.err.contains("plan.toml:4:9: `soon` is no time"), "{}", ended.err);
    let path = plan(&setup, &[("one", setup.port)], "[[on]]\nevery = \"1s\"\ncommands = [\"lm\"]\n");
    assert_eq!(verikd(&["run", "--check", path.to_str().unwrap()]).code, 0);
    assert_eq!(verikd(&["run"]).code, 2);
    assert_eq!(verikd(&["run", "-k", "net:port=1,key=1.2.3.4"]).code, 2, "--every is missing");
    let nobody = verikd(&["run", path.to_str().unwrap(), "--connect-timeout", "1s"]);
    assert_eq!(nobody.code, 5, "{}", nobody.err);
}

#[test]
fn what_a_machine_prints_loads_and_asserts_is_an_event() {
    let setup = Setup::new();
    let happenings = "count = 3\ncommands = [\"lm m myfault\"]\n\
        [[on]]\nprint = \"^myfault: trouble \\\\d+$\"\n[[on]]\nload = \"myfault.sys\"\n[[on]]\nassertion = true\n";
    let path = plan(&setup, &[("one", setup.port)], happenings);
    let machine = machine(&setup, setup.port, Scenario::default());
    let mut running = Running::start(&["run", path.to_str().unwrap()]);
    running.wait_for("Connected to");
    assert!(runs(&machine));
    machine.print("myfault: no trouble\n");
    machine.print("myfault: trouble 7\n");
    running.wait_for("Event 1, print");
    assert!(runs(&machine));
    machine.stop_with(Stop::LoadSymbols);
    running.wait_for("Event 2, load");
    assert!(runs(&machine));
    machine.stop_with(Stop::Assertion);
    running.wait_for("Event 3, assertion");
    let ended = running.finish();
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    let events = files(&setup.folder.path().join("out"), "one", "json");
    assert_eq!(json(&events[0])["detail"], "myfault: trouble 7");
    assert!(json(&events[1])["detail"].as_str().unwrap().contains("myfault.sys"));
    assert!(runs(&machine));
}

#[test]
fn a_leak_at_unload_is_decoded_and_listed_and_the_machine_does_what_the_plan_says() {
    for then in ["run", "reboot", "stop"] {
        let setup = Setup::new();
        let rest = format!("count = 1\n[[on]]\nbug_check = true\ndump = \"used\"\nthen = \"{then}\"\n");
        let path = plan(&setup, &[("one", setup.port)], &rest);
        let machine = machine(&setup, setup.port, Scenario::default());
        let mut running = Running::start(&["run", path.to_str().unwrap()]);
        running.wait_for("Connected to");
        assert!(runs(&machine));
        // As in the scenario bugcheck-c4-62, whose next boots bug-check too; the name of the driver lies at the second.
        let parameters = [0x62, 0xffff_fa80_0366_7630, 0xffff_fa80_031b_5830, 10];
        machine.stop_with(Stop::BugCheck { code: 0xc4, parameters });
        let ended = running.finish();
        assert_eq!(ended.code, 0, "{then}: {}{}", ended.out, ended.err);
        let out = setup.folder.path().join("out");
        let event = json(&files(&out, "one", "json")[0]);
        assert!(event["detail"].as_str().unwrap().contains("the driver is myfault.sys"), "{event:#}");
        let commands: Vec<_> =
            event["commands"].as_array().unwrap().iter().map(|it| it["command"].as_str().unwrap()).collect();
        assert_eq!(commands[..2], [".bugcheck", "!verifier 3 \"myfault.sys\""]);
        let text = std::fs::read_to_string(&files(&out, "one", "txt")[0]).unwrap();
        assert!(text.contains("fffffa8005400000"), "{text}");
        assert_eq!(files(&out, "one", "dmp").len(), 1);
        if then == "stop" {
            assert_eq!(machine.state(), MachineState::Stopped);
            assert_eq!(machine.resumes() + 1, machine.stops(), "the last stop was not left");
        } else {
            restarts(&machine, &format!("{then}: {}", ended.err));
        }
        assert_eq!(ended.err.contains("is left stopped, as the plan says"), then == "stop", "{}", ended.err);
    }
}

#[test]
fn a_bug_check_that_stops_again_behind_the_end_of_a_plan_is_let_run_too() {
    for seed in 1..=3 {
        let setup = Setup::new();
        let rest = "count = 1\n[[on]]\nbug_check = true\n";
        let path = plan(&setup, &[("one", setup.port)], rest);
        let faults = Faults { jitter: Duration::from_millis(120), seed, ..Faults::default() };
        let machine = machine_behind(&setup, setup.port, Scenario::default(), faults);
        let mut running = Running::start(&["run", path.to_str().unwrap()]);
        running.wait_for("Connected to");
        assert!(runs(&machine));
        machine.stop_with(Stop::BugCheck { code: 0xc4, parameters: [0x62, 0, 0, 10] });
        let ended = running.finish();
        assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
        restarts(&machine, &ended.err);
    }
}

#[cfg(unix)]
#[test]
fn whoever_ends_a_plan_leaves_every_machine_running() {
    for (signal, code) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
        let setup = Setup::new();
        let other = Setup::new();
        let ports = [setup.port, other.port];
        let rest = "commands = [\"!verifier 80 0n2000\"]\n[[on]]\nevery = \"100ms\"\n";
        let path = plan(&setup, &[("one", ports[0]), ("two", ports[1])], rest);
        let machines = ports.map(|port| machine(&setup, port, Scenario::default()));
        let mut running = Running::start(&["run", path.to_str().unwrap()]);
        running.wait_for("Event 2, every");
        running.signal(signal);
        let ended = running.finish();
        assert_eq!(ended.code, code, "{}{}", ended.out, ended.err);
        assert!(machines.iter().all(runs), "{signal}: {}", ended.err);
    }
}
