//! The program as a person runs it: two processes, real UDP on loopback, what they print and how they end.

use std::net::UdpSocket;
use std::path::Path;

use crate::program::{COMMANDS, Setup, golden, normalized, run, verikd};
use serde_json::Value;

#[test]
fn the_demo_prints_both_golden_texts() {
    let output = verikd(&["demo", "--batch"]);
    assert_eq!(output.code, 0, "{}", output.err);
    assert_eq!(normalized(&output.out), golden());
}

#[test]
fn two_processes_give_the_golden_texts_and_the_target_runs_on() {
    let setup = Setup::new();
    let mut target = setup.target(&["--leak-every", "50ms"]);
    let first = setup.debug(&["-b", "-c", COMMANDS]);
    assert_eq!(first.code, 0, "{}", first.err);
    assert_eq!(normalized(&first.out), golden());
    target.wait_for("leaked");
    target.wait_for("leaked");
    let second = setup.debug(&["-b", "-c", "!verifier 3 myfault.sys"]);
    let blocks = second.out.lines().filter(|line| line.contains(" Leak ")).count();
    assert!(blocks > 10, "{blocks} blocks at the second stop:\n{}", second.out);
    target.wait_for("Runs on");
}

#[test]
fn a_bad_network_changes_no_byte() {
    let setup = Setup::new();
    let faults =
        ["--loss", "0.2", "--duplicate", "0.05", "--reorder", "0.05", "--corrupt", "0.02", "--seed", "7"];
    let _target = setup.target(&faults);
    let output = setup.debug(&["-b", "-c", COMMANDS]);
    assert_eq!(output.code, 0, "{}", output.err);
    assert_eq!(normalized(&output.out), golden());
}

#[test]
fn a_rebooted_target_is_the_same_debugger_s_again() {
    let setup = Setup::new();
    let mut target = setup.target(&["--leak-every", "50ms"]);
    let first = setup.debug(&["-b", "-c", "lm; .reboot"]);
    assert_eq!(first.code, 0, "{}", first.err);
    target.wait_for("Restarted");
    let second = setup.debug(&["-b", "-c", COMMANDS]);
    assert_eq!(normalized(&second.out), golden(), "a fresh boot is in the golden state: {}", second.err);
}

#[test]
fn json_has_one_object_a_command() {
    let setup = Setup::new();
    let _target = setup.target(&[]);
    let output =
        setup.debug(&["-b", "--json", "-c", "!verifier 3 myfault.sys; !verifier 3 other.sys; nosuch"]);
    let lines: Vec<Value> =
        output.out.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["command"], "!verifier 3 myfault.sys");
    assert!(output.out.contains("\"0xfffffa8005400000\""), "addresses are strings: {}", output.out);
    assert_eq!(
        (&lines[2]["answer"], &lines[2]["errors"][0]["code"]),
        (&Value::Null, &"unknown_command".into())
    );
    assert_eq!(lines[0]["errors"], Value::Array(Vec::new()));
    assert!(lines[0]["stats"]["requests"].as_u64().is_some_and(|it| it > 0), "{}", output.out);
    assert_eq!(
        (&lines[0]["stamp"]["build"], &lines[0]["stamp"]["stop"]),
        (&7601.into(), &lines[2]["stamp"]["stop"])
    );
    assert_eq!(output.code, 2, "the worst of the commands decides");
}

#[test]
fn a_spent_freeze_budget_lets_the_target_run_and_names_what_was_left_undone() {
    let setup = Setup::new();
    let mut target = setup.target(&["--rtt", "30ms"]);
    let output = setup.debug(&[
        "-b",
        "--freeze-budget",
        "400ms",
        "--stats",
        "-c",
        "lm; !verifier 80; !verifier 3; lm",
    ]);
    assert_eq!(output.code, 3, "{}{}", output.out, output.err);
    assert!(output.err.contains("The freeze budget is spent; the target runs on"), "{}", output.err);
    assert!(output.err.contains("not run: the freeze budget is spent"), "{}", output.err);
    assert!(output.err.contains("stats: "), "{}", output.err);
    target.wait_for("Runs on");
}

#[test]
fn kdstats_shows_what_each_command_cost_and_chose() {
    let setup = Setup::new();
    let _target = setup.target(&[]);
    let output = setup.debug(&["-b", "-c", "!verifier 80 fffffa8005400000; .kdstats"]);
    let (_, shown) =
        output.out.split_once("Finished parsing all pool tracking information.").expect("the log first");
    assert!(shown.contains("!verifier 80 fffffa8005400000\n    "), "{shown}");
    assert!(
        shown.contains("    The target searched its log for blocks that begin at this address"),
        "{shown}"
    );
    assert!(shown.contains("\nsession\n    "), "{shown}");
    let output = setup.debug(&["-b", "--json", "--stats", "-c", ".kdstats"]);
    let lines: Vec<Value> =
        output.out.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    assert!(lines[0]["answer"]["session"]["requests"].as_u64().is_some_and(|it| it > 0), "{}", output.out);
    assert_eq!(lines[0]["stats"]["requests"], 0);
    let beside: Vec<_> =
        lines[1..].iter().map(|line| (&line["command"], line["stats"]["requests"].as_u64())).collect();
    assert!(
        matches!(beside[..], [(stop, Some(1..)), (resume, Some(1..))]
        if stop == "(stop)" && resume == "(resume)"),
        "{}",
        output.out
    );
    let output = setup.debug(&["-b", "--stats", "-c", "lm"]);
    assert!(output.err.contains("stats: (stop) "), "{}", output.err);
    assert!(output.err.contains("stats: (resume) "), "{}", output.err);
}

#[test]
fn what_is_asked_wrongly_is_answered_helpfully() {
    let setup = Setup::new();
    let _target = setup.target(&[]);
    let ask = |command: &str| {
        let output = setup.debug(&["-b", "-c", command]);
        (output.code, output.err + &output.out)
    };
    let (code, text) = ask("!verifyer 3");
    assert!(
        code == 2 && text.contains("unknown command !verifyer (is !verifier meant?); .help lists"),
        "{code}: {text}"
    );
    let (code, text) = ask("!verifier 3 other.sys");
    assert!(
        code == 1 && text.contains("other.sys is not verified. Verified drivers: myfault.sys"),
        "{code}: {text}"
    );
    let (code, text) = ask("!verifier 80 fffffa8006000000");
    assert!(code == 1 && text.contains("fffffa80`06000000"), "{code}: {text}");
    assert!(text.contains("Finished parsing all pool tracking information."), "{text}");
}

#[test]
fn without_symbols_it_attaches_and_says_what_is_missing() {
    let setup = Setup::new();
    let _target = setup.target(&[]);
    let output = run(&["-k", &setup.connection("1.2.3.4"), "-b", "-c", "lm; !verifier 3"]);
    assert_eq!(output.code, 1);
    assert!(output.out.contains("myfault"), "lm works: {}", output.out);
    assert!(output.err.contains("no symbols for ntkrnlmp.pdb (identity "), "{}", output.err);
    assert!(output.err.contains("-y, _NT_SYMBOL_PATH or .sympath"), "{}", output.err);
    assert!(output.out.starts_with("start") && output.out.contains("Verify Level "), "{}", output.out);
    assert!(output.err.contains("/download/symbols/ntkrnlmp.pdb/"), "the URL: {}", output.err);
}

/// It is the same with every answer, until they are looked for anew; a program reads each answer by itself.
#[test]
fn why_a_module_has_no_symbols_is_told_once() {
    let setup = Setup::new();
    let target = setup.target(&[]);
    let script = "k 1; u . L1; k 1; .reload; k 1";
    let output = run(&["-k", &setup.connection("1.2.3.4"), "-b", "-c", script]);
    let told = output.err.lines().filter(|line| line.starts_with("note: nt has only export symbols: "));
    assert_eq!(told.count(), 2, "{}", output.err);
    assert_eq!(output.err.matches("There may be more than 1 frame: k 2").count(), 3, "{}", output.err);
    drop(target);
    let _target = setup.target(&[]);
    let output = run(&["-k", &setup.connection("1.2.3.4"), "-b", "--json", "-c", "k 1; k 1"]);
    assert_eq!(output.out.matches("nt has only export symbols: ").count(), 2, "{}", output.out);
}

#[test]
fn a_pdb_of_another_build_is_refused() {
    let setup = Setup::new();
    let _target = setup.target(&[]);
    let wrong = setup.folder.path().join("wrong");
    std::fs::create_dir(&wrong).unwrap();
    let hal = Path::new(env!("CARGO_MANIFEST_DIR")).join("sim/src/windows/7sp1/images/hal.pdb");
    std::fs::copy(hal, wrong.join("ntkrnlmp.pdb")).unwrap();
    let wrong = wrong.display().to_string();
    let output = run(&["-k", &setup.connection("1.2.3.4"), "-y", &wrong, "-b", "-c", "!verifier 3"]);
    assert_eq!(output.code, 1);
    assert!(output.err.contains("belongs to another build (identity "), "{}", output.err);
}

#[test]
fn a_wrong_key_and_no_target_are_told_apart() {
    let setup = Setup::new();
    let nobody = run(&["-k", &setup.connection("1.2.3.4"), "--connect-timeout", "300ms", "-c", "lm"]);
    assert_eq!(nobody.code, 1);
    assert!(nobody.err.contains("no datagram arrived"), "{}", nobody.err);
    assert!(nobody.err.contains("bcdedit /dbgsettings"), "{}", nobody.err);
    let _target = setup.target(&[]);
    let wrong = run(&["-k", &setup.connection("1.2.3.5"), "--connect-timeout", "4s", "-c", "lm"]);
    assert_eq!(wrong.code, 1);
    assert!(wrong.err.contains("it was given another key"), "{}", wrong.err);
}

#[test]
fn a_bad_command_line_says_what_to_write() {
    let three_parts = run(&["-k", "net:port=50000,key=1.2.3"]);
    assert!(three_parts.code == 2 && three_parts.err.contains("this one has 3"), "{}", three_parts.err);
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let taken = run(&["-k", &format!("net:port={port},key=1.2.3.4"), "-c", "lm"]);
    assert!(taken.code == 1 && taken.err.contains(&format!("UDP port {port} is in use")), "{}", taken.err);
    let nowhere = run(&["sim", "--export-symbols", "s"]);
    let places = "<--connect <HOST:PORT>|--serial <PLACE>|--write-dump <FILE>>";
    assert!(nowhere.code == 2 && nowhere.err.contains(places), "{}", nowhere.err);
    let share = run(&["sim", "--connect", "127.0.0.1:1", "--key", "1.2.3.4", "--loss", "20"]);
    assert!(share.code == 2 && share.err.contains("a share is a number from 0 to 1"), "{}", share.err);
}

#[cfg(unix)]
#[test]
fn ctrl_c_breaks_in_and_sigterm_leaves_the_target_running() {
    let setup = Setup::new();
    let mut target = setup.target(&[]);
    let mut waiting = setup.start_debugging(&["-c", "lm; g; vertarget"]);
    target.wait_for("Runs on");
    // While it is attached to, Ctrl+C ends the program.
    waiting.wait_for("Waiting for the target to stop by itself");
    waiting.signal("INT");
    target.wait_for("Stopped");
    target.wait_for("Runs on");
    waiting.signal("TERM");
    let output = waiting.finish();
    assert!(output.out.contains("myfault"), "lm ran at the stop: {}", output.out);
    assert!(!output.out.contains("Windows Kernel Version"), "vertarget waited for a stop that never came");
    target.wait_for("up ");
}

#[test]
fn a_target_that_stops_after_it_was_given_up_is_let_go() {
    // A break-in that meets the target at its heartbeat is lost, so that it may take a few tries until one stops it.
    for attempt in 1.. {
        let setup = Setup::new();
        let mut waiting = setup.start_debugging(&["-b", "--break-timeout", "100ms", "-c", "lm"]);
        waiting.wait_for("Waiting for a target");
        let mut target = setup.target(&["--rtt", "400ms"]);
        let output = waiting.finish();
        assert!(output.code == 1 && output.err.contains("did not stop within 100ms"), "{}", output.err);
        // Only a machine that runs gets to its heartbeats.
        let has_stopped = target.seen_before("up 5 s").iter().any(|line| line == "Stopped");
        if has_stopped {
            return;
        }
        assert!(attempt < 8, "no break-in has stopped the target");
    }
}

#[test]
fn a_target_that_dies_in_mid_command_ends_it_with_a_sentence() {
    let setup = Setup::new();
    let target = setup.target(&["--rtt", "40ms"]);
    let script = "!verifier 80 0n65536; lm; !verifier 3; r; q";
    let patience = ["--request-timeout", "1s", "--leave-timeout", "1s"];
    let mut waiting = setup.start_debugging(&[&["-b", "-c", script][..], &patience].concat());
    waiting.wait_for("kd> ");
    drop(target);
    let output = waiting.finish();
    assert_eq!(output.code, 4, "nobody knows whether it runs: {}{}", output.out, output.err);
    assert!(output.err.contains("the target is lost: no answer within 1 s"), "{}", output.err);
    assert!(output.err.contains("may still stand still"), "{}", output.err);
    // The others do not wait for it again.
    let not_run: Vec<_> = output.err.lines().filter(|line| line.contains(": not run: ")).collect();
    assert_eq!(not_run.len(), 1, "{}", output.err);
    let named = "error: lm and the 2 commands behind it: not run: the target is lost";
    assert!(not_run[0].starts_with(named), "{}", output.err);
    assert_eq!(output.out, "", "what was not read is not told");
}
#[test]
fn an_answer_that_lacks_something_says_what_and_ends_with_3() {
    let setup = Setup::new();
    // A page of storfilt.sys's trackers is not mapped, among other things.
    let _target = setup.target(&["--scenario", "corrupt", "--seed", "1"]);
    let output = setup.debug(&["-b", "-c", "!verifier 3 storfilt"]);
    assert_eq!(output.code, 3, "{}", output.err);
    assert!(
        output.err.contains("storfilt.sys: current allocations 663, listed 28: 5 pages unreadable"),
        "{}",
        output.err
    );
    assert_eq!(output.out.lines().filter(|line| line.contains(" StNm ")).count(), 28, "{}", output.out);
}
