//! `--max-stop` and `.maxstop`: the program lets the machine run in the middle of a question, whatever it does meanwhile.

use std::time::Duration;

use serde_json::Value;
use verikd_sim::windows::{Growth, Stop, WINDOWS_7_SP1};
use verikd_sim::{AtBoot, Faults, Simulator, SimulatorConfig, export_symbols};

use crate::program::{Running, Setup};

/// Shorter than what drivers hold can be read in, over any network.
const SHORT: [&str; 2] = ["--max-stop", "2ms"];

/// A machine whose driver is at work.
fn busy(setup: &Setup) -> Simulator {
    machine(setup, 20, Duration::ZERO)
}

/// A machine whose driver takes and gives back `busy` blocks a second, and leaks one each time `leak_every` is over; never if it is
/// nothing.
fn machine(setup: &Setup, busy: u32, leak_every: Duration) -> Simulator {
    export_symbols(&WINDOWS_7_SP1, &setup.symbols()).unwrap();
    let config = SimulatorConfig {
        growth: Growth { busy, ..Growth::default() },
        faults: Faults { round_trip: Duration::from_micros(300), ..Faults::default() },
        leak_every: Some(leak_every),
        ..SimulatorConfig::new(([127, 0, 0, 1], setup.port).into(), "1.2.3.4".parse().unwrap())
    };
    Simulator::start(config).unwrap()
}

fn start(setup: &Setup, command: &[&str], options: &[&str]) -> Running {
    let (connection, symbols) = (setup.connection("1.2.3.4"), setup.symbols().display().to_string());
    Running::start(&[command, &["-k", &connection, "-y", &symbols], options].concat())
}

/// Waits until the machine has been stopped so often, and runs.
fn wait_for_breath(machine: &Simulator, resumes: u64) {
    while machine.resumes() < resumes || !machine.is_running() {
        assert!(machine.next_event(Some(Duration::from_secs(60))).is_some(), "it is stopped {resumes} times");
    }
}

#[test]
fn a_question_is_cut_and_says_of_which_moment_it_is() {
    let setup = Setup::new();
    let machine = busy(&setup);
    for (command, options) in [
        (&["leaks"][..], &["--max-stop", "2ms", "--breathe", "20ms", "--json"][..]),
        (&[], &["-b", "--json", "-c", ".maxstop 2ms 20ms; !leaks; .maxstop off; .maxstop"]),
    ] {
        let before = machine.stops();
        let ended = start(&setup, command, options).finish();
        // Blocks that only the log tells of are a gap, of which there are more the shorter a stop is.
        assert!(matches!(ended.code, 0 | 3), "{}", ended.err);
        let lines: Vec<Value> = ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let leaks =
            lines.iter().find(|line| line["command"].as_str().unwrap().starts_with("!leaks")).unwrap();
        let moment = &leaks["answer"]["moment"];
        let stops = moment["stops"].as_u64().unwrap();
        assert!(stops > 1 && machine.stops() - before >= stops, "{moment}");
        let event = u32::try_from(moment["event"].as_u64().unwrap()).unwrap();
        let held = machine.outstanding_at(event).unwrap().len();
        let undecided = moment["undecided"].as_array().unwrap().len();
        assert_eq!(leaks["answer"]["blocks"].as_u64().unwrap() as usize + undecided, held, "{moment}");
        let told: Vec<&str> =
            leaks["notes"].as_array().unwrap().iter().map(|it| it["code"].as_str().unwrap()).collect();
        assert!(told.contains(&"short_stops"), "{told:?}");
        if let Some(last) = lines.last().filter(|line| line["command"] == ".maxstop") {
            assert_eq!(last["answer"]["longest_us"], Value::Null, "it was switched off");
        }
        assert!(machine.is_running() && machine.written() == 0);
    }
}

#[test]
fn what_cannot_be_cut_says_so() {
    let setup = Setup::new();
    let machine = busy(&setup);
    let ended = start(&setup, &[], &["-b", "--max-stop", "1ms", "-c", "db nt L4000"]).finish();
    assert!(ended.err.contains("note: This question is not cut into short stops"), "{}", ended.err);
    assert!(machine.is_running());
    for wrong in [&["--max-stop", "0s"][..], &["--max-stop", "soon"], &["--breathe", "1s"]] {
        assert_eq!(start(&setup, &[], wrong).finish().code, 2, "{wrong:?}");
    }
}

#[test]
fn a_watch_counts_every_stop_of_its_looks() {
    let setup = Setup::new();
    let machine = busy(&setup);
    let options = ["--breathe", "10ms", "--every", "100ms", "--count", "3", "--json"];
    let ended = start(&setup, &["watch"], &[&SHORT[..], &options].concat()).finish();
    assert!(matches!(ended.code, 0 | 3), "{}", ended.err);
    let lines: Vec<Value> = ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, looks) = lines.split_last().unwrap();
    let number = |line: &Value, key: &str| line[key].as_u64().unwrap();
    assert_eq!(looks.len(), 3);
    for look in looks {
        let frozen = look["stats"]["frozen_us"].as_u64().unwrap();
        assert!(number(look, "stops") > 1 && number(look, "longest_frozen_us") < frozen, "{look}");
    }
    assert_eq!(number(last, "stops"), looks.iter().map(|look| number(look, "stops")).sum::<u64>());
    assert!(number(last, "stops") <= machine.stops(), "all of them were stops of the machine");
}

#[test]
fn a_machine_that_bug_checks_in_between_is_told_and_ends_the_watch() {
    let setup = Setup::new();
    let machine = busy(&setup);
    let watching = start(&setup, &["watch"], &[&SHORT[..], &["--breathe", "2s", "--every", "1s"]].concat());
    // It was let run once after it said who it is.
    wait_for_breath(&machine, 2);
    machine.stop_with(Stop::BugCheck { code: 0xc4, parameters: [0x62, 0, 0, 1] });
    let ended = watching.finish();
    assert!(ended.err.contains("0x000000c4") && ended.err.contains("The watch ends"), "{}", ended.err);
    assert!(!ended.out.contains(" blocks ("), "nothing of it is told: {}", ended.out);
}

#[test]
fn a_restart_in_between_leaves_the_look_out_and_the_watch_begins_anew() {
    let setup = Setup::new();
    let machine = busy(&setup);
    let options = ["--breathe", "1s", "--every", "100ms", "--count", "2", "--json"];
    let watching = start(&setup, &["watch"], &[&SHORT[..], &options].concat());
    wait_for_breath(&machine, 2);
    machine.reboot(AtBoot::Runs);
    let ended = watching.finish();
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert!(ended.err.contains("restarted"), "{}", ended.err);
    let looks = ended.out.lines().filter(|line| line.contains("\"snapshot\"")).count();
    assert_eq!(looks, 1, "{}", ended.err);
    assert!(machine.is_running() && machine.boot() == 2);
}

/// What it saw before the restart is not compared with what comes after it; what comes after is judged.
#[test]
fn a_leak_behind_a_restart_is_told_by_what_was_seen_since() {
    let setup = Setup::new();
    let machine = machine(&setup, 0, Duration::from_millis(50));
    let options = ["--every", "300ms", "--count", "16", "--json"];
    let watching = start(&setup, &["watch"], &options);
    // It was let run when it had said who it is, and behind each of two looks.
    wait_for_breath(&machine, 3);
    machine.reboot(AtBoot::Runs);
    let ended = watching.finish();
    assert!(ended.err.contains("what was seen before is of another boot"), "{}", ended.err);
    let lines: Vec<Value> = ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let verdict = &lines.last().unwrap()["verdict"];
    let leaks = verdict["leaks"].as_array().unwrap();
    assert!(!leaks.is_empty() && leaks[0]["path"][0] == "myfault!MyfaultDeviceControl+0x358", "{verdict}");
    assert!(verdict["snapshots"].as_u64().unwrap() < 16, "{verdict}");
    let boots = lines.iter().filter_map(|line| line["snapshot"]["boot"]["boot_time"].as_str());
    assert_eq!(boots.collect::<std::collections::BTreeSet<_>>().len(), 2, "{}", ended.out);
    assert!(machine.is_running() && machine.boot() == 2);
}
