//! Uses of a pool tag: every one that the machine reports is taken, and whatever ends the waiting for them leaves a machine that
//! runs and watches for no tag. The machine is asked itself, and its own account is what answers are held against.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;
use verikd_sim::windows::Stop;
use verikd_sim::{AtBoot, Faults, MachineState, Simulator};

use crate::field::{Debugger, Ended, PATIENCE, cut, free_port, leaking, runs, subcommand};

/// `verikd hits`, behind `options`.
fn hits(port: u16, options: &[&str]) -> Debugger {
    Debugger::start_heard(subcommand("hits", port, options))
}

/// A debugger that waits for uses of Leak, and the machine, once it has met `least` of them.
fn waiting(options: &[&str], least: usize) -> (Debugger, Simulator, u16) {
    let port = free_port();
    let mut debugger = hits(port, &[&["--tag", "Leak"], options].concat());
    debugger.wait_for("Waiting for a target");
    let target = leaking(port, Duration::from_millis(100), Faults::default());
    debugger.wait_for("waiting for uses of the tag");
    wait_for_hits(&target, least);
    (debugger, target, port)
}

fn wait_for_hits(target: &Simulator, least: usize) {
    let deadline = Instant::now() + PATIENCE;
    while target.pool_hits().len() < least {
        assert!(Instant::now() < deadline, "{} hits", target.pool_hits().len());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The machine watches for no tag, and runs on by itself.
fn is_left_in_peace(target: &Simulator, ended: &Ended) {
    assert_eq!(target.pool_hit_tag(), None, "a tag is left: {ended:#?}");
    assert!(runs(target), "left stopped: {ended:#?}");
}

fn answer(ended: &Ended) -> Value {
    let line = ended.out.lines().last().unwrap_or_else(|| panic!("no answer: {ended:#?}"));
    serde_json::from_str::<Value>(line).unwrap()["answer"].clone()
}

/// 0xfffff88000000000, as JSON has it.
fn addresses(frames: &Value) -> Vec<u64> {
    let number = |frame: &Value| {
        let text = frame["address"].as_str().unwrap();
        u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
    };
    frames.as_array().unwrap().iter().map(number).collect()
}

/// Every hit that the machine has reported is in one of the groups, and those have no other.
fn is_the_machines_account(answer: &Value, target: &Simulator, is_free: bool) {
    let groups = answer["groups"].as_array().unwrap();
    let told: BTreeMap<Vec<u64>, u64> = groups
        .iter()
        .filter(|group| group["has_stack"] == true && (group["kind"] == "free") == is_free)
        .map(|group| {
            assert_eq!(group["breaks_off"], Value::Null, "{group}");
            let frames = [addresses(&group["allocator"]), addresses(&group["path"])].concat();
            (frames, group["hits"].as_u64().unwrap())
        })
        .collect();
    let mut counted: BTreeMap<Vec<u64>, u64> = BTreeMap::new();
    for hit in target.pool_hits().iter().filter(|hit| hit.is_free == is_free) {
        let frames: Vec<u64> = hit.frames.iter().map(|frame| frame.0).collect();
        // An interrupt's own frames are told, not what it broke into.
        let path = told.keys().find(|path| frames.starts_with(path));
        let path = path.unwrap_or_else(|| panic!("no group has {frames:x?}: {told:x?}"));
        *counted.entry(path.clone()).or_default() += 1;
    }
    assert_eq!(told, counted);
}

/// How many hits, unless the environment says otherwise.
fn wanted() -> u64 {
    std::env::var("VERIKD_HITS").ok().and_then(|text| text.parse().ok()).unwrap_or(60)
}

#[test]
fn every_hit_that_the_machine_reports_is_counted_by_its_path_over_a_bad_network() {
    let wanted = wanted();
    let port = free_port();
    let mut debugger = hits(port, &["--tag", "Leak", "--count", &wanted.to_string(), "--json"]);
    debugger.wait_for("Waiting for a target");
    let network = Faults { loss: 0.05, seed: 18, ..Faults::default() };
    let target = leaking(port, Duration::from_millis(20), network);
    let ended = debugger.finish_within(PATIENCE.max(Duration::from_millis(400) * wanted as u32));
    assert_eq!(ended.code, 0, "{ended:#?}");
    let answer = answer(&ended);
    assert_eq!((answer["hits"].as_u64(), answer["end"].as_str()), (Some(wanted), Some("count")), "{answer}");
    assert_eq!(target.pool_hits().len() as u64, wanted);
    is_the_machines_account(&answer, &target, false);
    let groups = answer["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 3, "{answer:#}");
    for group in groups {
        assert_eq!(group["processors"], serde_json::json!([0, 1, 2, 3]), "{group}");
        assert_eq!((&group["smallest"], &group["largest"]), (&Value::from(0xf_a000), &Value::from(0xf_a000)));
    }
    is_left_in_peace(&target, &ended);
}

#[test]
fn frees_are_hits_where_that_is_asked_for_and_are_counted_elsewhere() {
    for is_free in [true, false] {
        let port = free_port();
        let free: &[&str] = if is_free { &["--free"] } else { &[] };
        let mut debugger = hits(port, &[&["--tag", "Busy", "--count", "12", "--json"], free].concat());
        debugger.wait_for("Waiting for a target");
        let target = leaking(port, Duration::ZERO, Faults::default());
        let ended = debugger.finish();
        assert_eq!(ended.code, 0, "{ended:#?}");
        let answer = answer(&ended);
        let machine = target.pool_hits();
        let frees = machine.iter().filter(|hit| hit.is_free).count() as u64;
        assert_eq!(answer["hits"].as_u64(), Some(machine.len() as u64), "{answer}");
        assert_eq!(answer["frees"].as_u64(), Some(frees));
        is_the_machines_account(&answer, &target, false);
        if is_free {
            assert_eq!(machine.len(), 12);
            is_the_machines_account(&answer, &target, true);
            // The last allocation's block is not waited for where the count is reached by it.
            let sum = |of: &str| -> u64 {
                let groups = answer["groups"].as_array().unwrap().iter();
                groups.map(|group| group[of].as_u64().unwrap()).sum()
            };
            let mut held = std::collections::BTreeSet::new();
            let mut freed = 0;
            for hit in &machine {
                if hit.is_free {
                    freed += u64::from(held.remove(&hit.block));
                } else {
                    held.insert(hit.block);
                }
            }
            let allocations = machine.len() as u64 - frees;
            assert!((allocations.saturating_sub(1)..=allocations).contains(&sum("followed")), "{answer:#}");
            assert_eq!(sum("freed"), freed, "{answer:#}");
            assert_eq!((target.breakpoints(), target.debug_registers()), (0, 0));
        } else {
            assert_eq!(answer["allocations"], 12);
            let of_frees = answer["groups"].as_array().unwrap().iter().find(|group| group["kind"] == "free");
            assert!(of_frees.is_none_or(|group| group["has_stack"] == false), "{answer}");
        }
        is_left_in_peace(&target, &ended);
    }
}

#[test]
fn ctrl_c_ends_it_with_an_answer_and_signals_end_the_program() {
    let ways = [("INT", 0), ("TERM", 143), ("HUP", 129)];
    // A hit that is followed has a debug register or a breakpoint in the machine until its allocation is over.
    for ((signal, code), follows) in ways.iter().flat_map(|way| [false, true].map(|follows| (*way, follows)))
    {
        let options: &[&str] = if follows { &["--json", "--free"] } else { &["--json"] };
        let (debugger, target, _) = waiting(options, 3);
        debugger.signal(signal);
        let ended = debugger.finish();
        assert_eq!(ended.code, code, "SIG{signal}: {ended:#?}");
        is_left_in_peace(&target, &ended);
        assert_eq!((target.breakpoints(), target.debug_registers()), (0, 0), "SIG{signal}: {ended:#?}");
        if signal == "INT" && !follows {
            let answer = answer(&ended);
            assert_eq!(answer["hits"].as_u64(), Some(target.pool_hits().len() as u64), "{answer}");
            assert_eq!(
                (&answer["end"], &answer["is_cleared"]),
                (&Value::from("interrupted"), &Value::from(true))
            );
        }
    }
}

#[test]
fn the_time_and_the_deadline_end_it_and_are_named() {
    let ways = [
        ("--for", "2s", 0, "The time is over."),
        ("--deadline", "4s", 1, "It was ended by the deadline of 4s."),
    ];
    for (option, time, code, said) in ways {
        let (debugger, target, _) = waiting(&[option, time], 1);
        let ended = debugger.finish();
        assert_eq!(ended.code, code, "{ended:#?}");
        assert!(ended.out.contains(said), "{ended:#?}");
        is_left_in_peace(&target, &ended);
    }
    let nobody = hits(free_port(), &["--tag", "Leak", "--deadline", "1s"]).finish();
    assert!(nobody.err.contains("the deadline of 1s ended the wait for a target"), "{nobody:#?}");
}

#[test]
fn a_tag_that_is_never_used_is_taken_back_from_a_running_machine() {
    let port = free_port();
    let mut debugger = hits(port, &["--tag", "None"]);
    debugger.wait_for("Waiting for a target");
    let target = leaking(port, Duration::from_millis(100), Faults::default());
    debugger.wait_for("waiting for uses of the tag");
    assert!(runs(&target));
    assert_eq!(target.pool_hit_tag(), Some(*b"None"));
    debugger.signal("TERM");
    let ended = debugger.finish();
    assert_eq!(ended.code, 143, "{ended:#?}");
    is_left_in_peace(&target, &ended);
}

#[test]
fn a_reader_that_goes_keeps_neither_machine_nor_tag() {
    let (mut debugger, target, _) = waiting(&["--count", "8"], 1);
    debugger.close_stdout();
    let ended = debugger.finish();
    is_left_in_peace(&target, &ended);
}

#[test]
fn a_new_boot_watches_for_no_tag() {
    let (debugger, target, _) = waiting(&["--json"], 2);
    target.reboot(AtBoot::Runs);
    let ended = debugger.finish();
    assert_eq!((ended.code, &answer(&ended)["end"]), (3, &Value::from("restarted")), "{ended:#?}");
    is_left_in_peace(&target, &ended);
}

/// One that vanishes, and of whose new boot nobody hears before the time is over, has not been watched for all of it.
#[test]
fn a_machine_that_is_another_one_at_the_end_is_no_end_of_the_time() {
    let (mut debugger, target, port) = waiting(&["--json", "--for", "4s"], 1);
    drop(target);
    let target = leaking(port, Duration::from_millis(100), Faults::default());
    debugger.wait_for("The target restarted and is connected again");
    let ended = debugger.finish();
    assert_eq!((ended.code, &answer(&ended)["end"]), (3, &Value::from("restarted")), "{ended:#?}");
    is_left_in_peace(&target, &ended);
}

/// Ctrl+C while it is attached to is heeded as any other.
#[test]
fn ctrl_c_while_it_attaches_ends_it_before_the_tag_is_set() {
    for line in ["Connected to", "Kernel base"] {
        let port = free_port();
        let mut debugger = hits(port, &["--tag", "Leak"]);
        debugger.wait_for("Waiting for a target");
        let slow = Faults { round_trip: Duration::from_millis(20), ..Faults::default() };
        let target = leaking(port, Duration::from_millis(100), slow);
        debugger.wait_for(line);
        debugger.signal("INT");
        let ended = debugger.finish();
        assert_eq!(ended.code, 130, "{line}: {ended:#?}");
        assert!(!ended.err.contains("waiting for uses of the tag"), "{line}: {ended:#?}");
        is_left_in_peace(&target, &ended);
    }
}

#[test]
fn another_stop_ends_it_and_is_told() {
    for bug_check in [false, true] {
        let (debugger, target, _) = waiting(&["--json"], 2);
        target.stop_with(if bug_check {
            Stop::BugCheck { code: 0xc4, parameters: [0x62, 0, 0, 0] }
        } else {
            Stop::Breakpoint
        });
        let ended = debugger.finish();
        assert_eq!(&answer(&ended)["end"], &Value::from("other_stop"), "{ended:#?}");
        assert_eq!(target.pool_hit_tag(), None, "{ended:#?}");
        assert!(runs(&target) || ended.code == 4, "left stopped, and not told: {ended:#?}");
    }
}

#[test]
fn a_killed_debugger_s_tag_is_told_and_cleared_by_the_next_one() {
    // One that is used stops the machine before the next one attaches, one that is not is met by whoever leaves.
    for (tag, least) in [("Leak", 2), ("None", 0)] {
        let port = free_port();
        let mut debugger = hits(port, &["--tag", tag]);
        debugger.wait_for("Waiting for a target");
        let target = leaking(port, Duration::from_millis(100), Faults::default());
        debugger.wait_for("waiting for uses of the tag");
        wait_for_hits(&target, least);
        debugger.signal("KILL");
        drop(debugger);
        assert!(target.pool_hit_tag().is_some(), "nobody can do anything then");
        let ended = Debugger::start(port, &["-b", "-c", "q"]).finish();
        assert_eq!(ended.code, 0, "{ended:#?}");
        let told = format!("held the tag {tag}, which nobody here has written");
        assert_eq!(ended.err.matches(&told).count(), 1, "{ended:#?}");
        is_left_in_peace(&target, &ended);
    }
}

#[test]
fn of_a_lost_machine_it_is_said_what_stays_and_the_next_attach_clears_it() {
    let (debugger, target, port) = waiting(&["--break-timeout", "3s", "--leave-timeout", "3s"], 2);
    target.set_faults(cut(), cut());
    debugger.signal("INT");
    let ended = debugger.finish();
    assert_eq!(ended.code, 4, "{ended:#?}");
    for said in ["may still stand still", "'Leak' in nt!PoolHitTag is still there", "ed nt!PoolHitTag"] {
        assert!(ended.err.contains(said), "{said}: {ended:#?}");
    }
    assert_eq!(target.pool_hit_tag(), Some(*b"Leak"));
    target.set_faults(Faults::default(), Faults::default());
    let next = Debugger::start(port, &["-b", "-c", "q"]).finish();
    assert!(next.err.contains("held the tag Leak"), "{next:#?}");
    is_left_in_peace(&target, &next);
}

#[test]
fn a_suspended_debugger_leaves_no_tag() {
    let (debugger, target, _) = waiting(&["--json"], 2);
    debugger.signal("TSTP");
    debugger.is_suspended();
    assert_eq!(target.pool_hit_tag(), None);
    assert!(target.wait_for(MachineState::Running, PATIENCE));
    debugger.signal("CONT");
    let ended = debugger.finish();
    assert_eq!(&answer(&ended)["end"], &Value::from("suspended"), "{ended:#?}");
    is_left_in_peace(&target, &ended);
}

#[test]
fn a_tag_that_was_written_by_hand_is_taken_back_from_a_running_machine_too() {
    for (signal, code) in [("TERM", 143), ("HUP", 129)] {
        let port = free_port();
        let options = ["--write", "-b", "-c", "ed nt!PoolHitTag 'enoN'; g; k"];
        let mut debugger = Debugger::start(port, &options);
        debugger.wait_for("Waiting for a target");
        let target = leaking(port, Duration::from_millis(100), Faults::default());
        debugger.wait_for("Waiting for the target to stop by itself");
        assert_eq!(target.pool_hit_tag(), Some(*b"None"));
        debugger.signal(signal);
        let ended = debugger.finish();
        assert_eq!(ended.code, code, "{ended:#?}");
        is_left_in_peace(&target, &ended);
    }
}
