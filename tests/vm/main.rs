//! Virtual machines: a real QEMU whose machine has a simulated machine's memory; the published texts come out of it, and it
//! runs afterwards, on every way out. Where there is no QEMU, these are skipped with a word.

#![cfg(target_os = "linux")]

#[path = "../support/ports.rs"]
mod ports;
#[path = "../support/program.rs"]
mod program;

mod guest;
mod monitor;
mod relay;
mod rom;

use guest::{Backing, Guest, Line, symbols};
use program::{Finished, Running, golden, normalized};
use serde_json::json;

const QUESTIONS: &str = "!verifier 3 myfault.sys; !verifier 80 fffffa8005400000";
/// Takes seconds where a page takes a millisecond: some 4,600 are mapped there.
const LONG: &str = "s -b fffffa8000000000 L10000000 de ad be ef 01 02 03 04 05";

fn start(guest: &Guest, options: &[&str]) -> Running {
    Running::start(&[&["--vm", &guest.place(), "-y", &symbols()], options].concat())
}

fn ask(guest: &Guest, options: &[&str]) -> Finished {
    start(guest, options).finish()
}

fn is_golden(ended: &Finished) {
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert_eq!(normalized(&ended.out), golden(), "{}", ended.err);
}

#[test]
fn a_question_in_short_stops_pauses_the_machine_again_and_again() {
    let Some(mut guest) = Guest::start(Backing::Shared, Line::Unix) else { return };
    let short = ["--max-stop", "1us", "--breathe", "20ms", "--json"];
    let ended = ask(&guest, &[&["-c", "!leaks myfault.sys"][..], &short].concat());
    assert_eq!(ended.code, 0, "{}", ended.err);
    let answer: serde_json::Value = serde_json::from_str(ended.out.trim()).unwrap();
    assert_eq!(answer["answer"]["blocks"], 10, "{answer:#}");
    assert!(answer["answer"]["moment"]["stops"].as_u64().is_some_and(|stops| stops > 1), "{answer:#}");
    assert_eq!(guest.status(), "running");
}

#[test]
fn a_running_machine_gives_the_published_texts_out_of_its_shared_file_and_runs() {
    let Some(mut guest) = Guest::start(Backing::Shared, Line::Unix) else { return };
    let ended = ask(&guest, &["-c", QUESTIONS, "--stats"]);
    is_golden(&ended);
    assert_eq!(guest.status(), "running");
    let ram = guest.folder().join("ram").display().to_string();
    let said = format!("2 processors, its RAM read from {ram}; it runs, and is paused only while it is read");
    assert!(ended.err.contains(&said), "{}", ended.err);
    assert!(ended.err.contains("target frozen 0."), "{}", ended.err);
}

/// A private mapping shows others what was there at the start.
#[test]
fn a_file_that_is_not_shared_is_not_believed() {
    let Some(mut guest) = Guest::start(Backing::Private, Line::Unix) else { return };
    let ended = ask(&guest, &["-c", QUESTIONS]);
    is_golden(&ended);
    assert_eq!(guest.status(), "running");
    let is_of_process = ended.err.contains("its RAM read from the memory of process ");
    assert!(is_of_process || ended.err.contains("the monitor, page by page"), "{}", ended.err);
}

#[test]
fn the_monitor_alone_will_do() {
    let Some(mut guest) = Guest::start(Backing::Private, Line::Tcp) else { return };
    let ended = ask(&guest, &["-c", QUESTIONS]);
    is_golden(&ended);
    assert!(ended.err.contains("its RAM read from the monitor, page by page"), "{}", ended.err);
    assert_eq!(guest.status(), "running");
}

#[test]
fn a_machine_that_somebody_else_has_paused_stays_paused() {
    let Some(mut guest) = Guest::start(Backing::Shared, Line::Unix) else { return };
    guest.execute("stop", json!({}));
    let ended = ask(&guest, &["-c", QUESTIONS]);
    is_golden(&ended);
    assert!(ended.err.contains("it does not run (paused), and is left so"), "{}", ended.err);
    assert_eq!(guest.status(), "paused");
}

#[test]
fn a_monitor_that_serves_somebody_else_is_told_as_that() {
    let Some(mut guest) = Guest::start(Backing::Shared, Line::Unix) else { return };
    let client = guest.another_client();
    let ended = ask(&guest, &["-c", QUESTIONS]);
    assert_eq!((ended.code, ended.out.as_str()), (1, ""), "{}", ended.err);
    assert!(ended.err.contains("it serves one client at a time"), "{}", ended.err);
    assert_eq!(guest.status(), "running");
    drop(client);
    is_golden(&ask(&guest, &["-c", QUESTIONS]));
}

#[test]
fn a_core_that_qemu_wrote_gives_the_published_texts() {
    let Some(mut guest) = Guest::start(Backing::Shared, Line::Unix) else { return };
    let core = guest.folder().join("core").display().to_string();
    guest.execute("dump-guest-memory", json!({ "paging": false, "protocol": format!("file:{core}") }));
    assert_eq!(guest.status(), "running");
    let ended = Running::start(&["-z", &core, "-y", &symbols(), "-c", QUESTIONS]).finish();
    is_golden(&ended);
}

#[test]
fn a_command_that_fails_leaves_it_running() {
    let Some(mut guest) = Guest::start(Backing::Shared, Line::Unix) else { return };
    let ended = ask(&guest, &["-c", "db fffff6fb00000000; !verifier 80 nothing!here; .reboot"]);
    assert_ne!(ended.code, 0, "{}", ended.err);
    assert_eq!(guest.status(), "running");
}

#[test]
fn whoever_is_told_to_end_lets_it_run_first() {
    let Some(mut guest) = Guest::start(Backing::Private, Line::Tcp) else { return };
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let mut debugger = start(&guest, &["-c", LONG]);
        guest.wait_until_read(&mut debugger);
        debugger.signal(signal);
        let ended = debugger.finish();
        assert_eq!(ended.code, code, "{signal}: {}", ended.err);
        assert_eq!(guest.status(), "running", "{signal}: {}", ended.err);
    }
}

/// What docs/vm.md says of it: nobody lets a machine run for a program that was killed while it read.
#[test]
fn a_kill_while_it_is_read_leaves_it_paused_and_one_at_the_prompt_does_not() {
    let Some(mut guest) = Guest::start(Backing::Private, Line::Tcp) else { return };
    let mut debugger = start(&guest, &["-c", LONG]);
    guest.wait_until_read(&mut debugger);
    drop(debugger);
    assert_eq!(guest.status(), "paused");
    guest.execute("cont", json!({}));
    // Between two questions it runs, so that there is nothing to be undone.
    let mut debugger = start(&guest, &["-c", "g; lm"]);
    debugger.wait_for("Connected to");
    guest.wait_until("running");
    drop(debugger);
    assert_eq!(guest.status(), "running");
}

#[test]
fn a_freeze_budget_ends_a_pause() {
    let Some(mut guest) = Guest::start(Backing::Private, Line::Tcp) else { return };
    let ended = ask(&guest, &["--freeze-budget", "2s", "-c", &format!("{LONG}; ? 6*7")]);
    assert!(ended.err.contains("freeze budget"), "{}", ended.err);
    assert!(ended.out.contains("Evaluate expression: 42"), "{}", ended.out);
    assert_eq!(guest.status(), "running");
}

/// What was read while it ran is of no one moment; whoever let it run may have stopped it again for himself.
#[test]
fn a_machine_that_somebody_else_lets_run_meanwhile_gives_no_answer() {
    let Some(mut guest) = Guest::start(Backing::Private, Line::Tcp) else { return };
    for (is_theirs, ends) in [(false, "running"), (true, "running"), (false, "paused")] {
        guest.execute(if is_theirs { "stop" } else { "cont" }, json!({}));
        let mut debugger = start(&guest, &["-c", LONG]);
        guest.wait_until_read(&mut debugger);
        guest.execute("cont", json!({}));
        if ends == "paused" {
            guest.execute("stop", json!({}));
        }
        let ended = debugger.finish();
        assert_ne!(ended.code, 0, "{}", ended.err);
        assert!(ended.err.contains("the target ran on in the middle of it"), "{}", ended.err);
        assert!(!ended.err.contains("not found"), "{}", ended.err);
        assert_eq!(guest.status(), ends, "{}", ended.err);
    }
}

/// The budget is for what stands still for us.
#[test]
fn a_machine_that_somebody_else_has_paused_has_no_freeze_budget() {
    let Some(mut guest) = Guest::start(Backing::Shared, Line::Unix) else { return };
    guest.execute("stop", json!({}));
    let ended = ask(&guest, &["-c", QUESTIONS, "--freeze-budget", "1us", "--stats"]);
    is_golden(&ended);
    assert!(ended.err.contains("target frozen 0.000 s"), "{}", ended.err);
    assert_eq!(guest.status(), "paused");
}

/// Nobody can tell it to run any more; what is advised is what would help.
#[test]
fn a_machine_that_goes_away_while_it_is_read_is_told_as_that() {
    let Some(guest) = Guest::start(Backing::Private, Line::Tcp) else { return };
    let mut debugger = start(&guest, &["-c", LONG]);
    guest.wait_until_read(&mut debugger);
    drop(guest);
    let ended = debugger.finish();
    assert_eq!(ended.code, 4, "{}", ended.err);
    let is_told = ["the line to the target has ended", "its monitor was closed"]
        .iter()
        .any(|it| ended.err.contains(it));
    assert!(is_told && !ended.err.contains("restarted"), "{}", ended.err);
    assert!(ended.err.contains("may still stand still"), "{}", ended.err);
    assert!(ended.err.contains("To let it run, tell its monitor cont"), "{}", ended.err);
}

/// Whatever is being asked when the line breaks: nothing is made of it, and a machine that is left paused is told.
#[test]
fn a_line_that_breaks_anywhere_makes_no_claim_about_the_machine() {
    let Some(mut guest) = Guest::start(Backing::Private, Line::Tcp) else { return };
    let question = ["-c", "!verifier 3 myfault.sys; vertarget"];
    let whole = ask(&guest, &question);
    assert_eq!(whole.code, 0, "{}", whole.err);
    let commands = guest.relay().commands();
    // A few in each part of a session: attaching, the search for the kernel, the second pause and its looks, the question, the end.
    let each =
        (2..commands).step_by(commands / 24).chain((commands / 2..commands).rev().step_by(commands / 48));
    for broken in each {
        guest.relay().break_behind(Some(broken));
        let ended = ask(&guest, &question);
        guest.relay().break_behind(None);
        assert_ne!(ended.code, 0, "behind {broken} of {commands} commands: {}", ended.err);
        for claim in ["restarted", "no Windows kernel is found", "not found", "Page not present"] {
            assert!(!ended.err.contains(claim), "behind {broken} of {commands} commands: {}", ended.err);
        }
        if guest.status() == "paused" {
            assert!(
                ended.err.contains("may still stand still"),
                "behind {broken} of {commands}: {}",
                ended.err
            );
            assert_eq!(ended.code, 4, "behind {broken} of {commands}: {}", ended.err);
            guest.execute("cont", json!({}));
        }
    }
}

/// `g` waits until the machine is stopped by somebody else, who has the right to.
#[test]
fn after_g_the_next_stop_is_somebody_elses() {
    let Some(mut guest) = Guest::start(Backing::Shared, Line::Unix) else { return };
    let mut debugger = start(&guest, &["-c", "g; !verifier 3 myfault.sys; !verifier 80 fffffa8005400000"]);
    debugger.wait_for("Connected to");
    guest.wait_until("running");
    guest.execute("stop", json!({}));
    let ended = debugger.finish();
    is_golden(&ended);
    assert_eq!(guest.status(), "paused");
}
