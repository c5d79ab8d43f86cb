//! Cases of trials outside the project that need a wire: what was seen there, and what is right.

use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use verikd_sim::{Faults, MachineState, Quirk, SerialPort, Simulator, SimulatorConfig};

use crate::field::{
    Debugger, PATIENCE, debugger_command, debugger_command_at, free_port, key, machine, runs,
};

/// A log that takes half a minute to read over a network as slow as `slow`.
const LONG: &str = "!verifier 80 0n4000";

fn slow() -> Faults {
    Faults { round_trip: Duration::from_millis(10), ..Faults::default() }
}

fn behind(socket: &Path, faults: Faults) -> Simulator {
    let port = SerialPort::Unix(socket.to_owned());
    Simulator::start(SimulatorConfig { faults, ..SimulatorConfig::serial(port) }).unwrap()
}

/// A5: lines that a kernel prints in the middle of a command are shown then, in their order, on standard error.
#[test]
fn what_a_target_prints_during_a_command_is_shown_at_once_and_in_order() {
    let port = free_port();
    let mut debugger = Debugger::start(port, &["-b", "-c", LONG]);
    debugger.wait_for("Waiting for a target");
    let connect = SocketAddr::from(([127, 0, 0, 1], port));
    let config = SimulatorConfig { faults: slow(), ..SimulatorConfig::new(connect, key()) };
    let target =
        Simulator::start(SimulatorConfig { quirks: [Quirk::PrintMidRequest].into(), ..config }).unwrap();
    debugger.wait_for(&format!("0: kd> {LONG}"));
    debugger.wait_for("request 60 of this stop");
    // The command has thousands of requests before it.
    assert_eq!(target.state(), MachineState::Stopped, "{:#?}", debugger.told);
    assert!(!debugger.has_ended() && target.requests() < 1000, "{}", target.requests());
    debugger.signal("INT");
    let ended = debugger.finish();
    let lines = ended.err.lines().filter_map(|line| line.strip_prefix("request ")?.split(' ').next());
    let numbers: Vec<u64> = lines.map(|number| number.parse().unwrap()).collect();
    let expected: Vec<u64> = (1..=numbers.len() as u64).map(|number| number * 3).collect();
    assert_eq!((numbers.len() >= 20, numbers), (true, expected), "{ended:#?}");
    assert!(!ended.out.contains("request "), "{}", ended.out);
    assert!(runs(&target), "{ended:#?}");
}

/// A10: an empty standard input was a script that did nothing, successfully.
#[test]
fn a_script_of_nothing_is_refused_before_any_machine_is_stopped() {
    let port = free_port();
    let target = machine(port, Faults::default());
    let mut typed = debugger_command(port, &["-b"]);
    typed.stdin(Stdio::piped());
    let mut child = typed.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b" \n ; \n* a comment\n").unwrap();
    let typed = child.wait_with_output().unwrap();
    let given = [
        debugger_command(port, &["-b"]).output().unwrap(),
        debugger_command(port, &["-b", "-c", ""]).output().unwrap(),
        debugger_command(port, &["-b", "-c", " ; ;"]).output().unwrap(),
    ];
    for ended in given.iter().chain([&typed]) {
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(2), "{said}");
        assert!(said.contains("nothing to do. Give commands with -c"), "{said}");
    }
    assert_eq!((target.stops(), target.requests()), (0, 0));
}

/// Takes connections and ends each at once, until it is told to stop; counts them.
fn take_and_end(listener: &UnixListener, taken: &AtomicU32, ends: &AtomicBool) {
    listener.set_nonblocking(true).unwrap();
    while !ends.load(Ordering::Acquire) {
        match listener.accept() {
            Ok(_) => drop(taken.fetch_add(1, Ordering::AcqRel)),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// A11: such a socket was tried four times a second for ever, with two lines each time.
#[test]
fn a_socket_that_takes_and_ends_is_tried_less_and_less_often_and_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("vm.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let (taken, ends) = (AtomicU32::new(0), AtomicBool::new(false));
    let connection = format!("com:pipe,port={},reconnect", socket.display());
    std::thread::scope(|scope| {
        scope.spawn(|| take_and_end(&listener, &taken, &ends));
        let options = ["-b", "-c", "lm", "--connect-timeout", "6s"];
        let ended = Debugger::start_heard(debugger_command_at(&connection, &options)).finish();
        ends.store(true, Ordering::Release);
        // After 0, 0.5, 1.5 and 3.5 s: a busy machine tries fewer times, none more.
        let count = taken.load(Ordering::Acquire);
        assert!((2..=4).contains(&count), "{count} times: {ended:#?}");
        assert_eq!(ended.err.matches("ends it at once").count(), 1, "{ended:#?}");
        assert!(!ended.err.contains("is there again"), "{ended:#?}");
        let why = format!("took a connection {count} times and ended it, and nothing came from it");
        assert!(ended.err.contains(&why), "{ended:#?}");
        assert_eq!(ended.code, 1, "{ended:#?}");
    });
}

/// The same, and then there is a machine.
#[test]
fn a_socket_that_comes_to_hold_is_used_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("vm.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let (taken, ends) = (AtomicU32::new(0), AtomicBool::new(false));
    let connection = format!("com:pipe,port={},reconnect", socket.display());
    let (mut debugger, target) = std::thread::scope(|scope| {
        scope.spawn(|| take_and_end(&listener, &taken, &ends));
        let mut debugger = Debugger::start_heard(debugger_command_at(&connection, &["-b", "-c", "lm"]));
        debugger.wait_for("ends it at once");
        while taken.load(Ordering::Acquire) < 2 {
            std::thread::yield_now();
        }
        ends.store(true, Ordering::Release);
        std::fs::remove_file(&socket).unwrap();
        (debugger, behind(&socket, Faults::default()))
    });
    debugger.wait_for("The line to the target holds again, after");
    let ended = debugger.finish();
    assert_eq!((ended.code, runs(&target)), (0, true), "{ended:#?}");
    assert!(ended.out.contains("   myfault    "), "{ended:#?}");
}

/// A12: after the line had ended in the middle of a command, the target was said to be running.
#[test]
fn a_line_that_ends_in_the_middle_of_a_command_is_told_as_that() {
    for reconnects in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("vm.sock");
        let target = behind(&socket, slow());
        let option = if reconnects { ",reconnect" } else { "" };
        let connection = format!("com:pipe,port={}{option}", socket.display());
        let script = format!("{LONG}\nlm\nr");
        let mut debugger = Debugger::start_heard(debugger_command_at(
            &connection,
            &["-b", "-c", &script, "--leave-timeout", "3s"],
        ));
        debugger.wait_for(&format!("0: kd> {LONG}"));
        let before = target.requests();
        while target.requests() < before + 5 {
            std::thread::sleep(Duration::from_millis(2));
        }
        drop(target);
        let ended = debugger.finish();
        assert!(!ended.err.contains("is running"), "{ended:#?}");
        assert!(!ended.err.contains("ran on"), "{ended:#?}");
        assert!(!ended.err.contains("restarted"), "{ended:#?}");
        let waits = ended.err.contains("waiting for it");
        let told = ended.err.contains("with `reconnect` in -k it would be waited for");
        assert_eq!((waits, told), (reconnects, !reconnects), "{ended:#?}");
        assert!(ended.err.contains("may still stand still") && ended.code == 4, "{ended:#?}");
        assert_eq!(ended.out, "", "what was not read is not told");
    }
}

/// A12, over a network: who let a target run and heard nothing of it does not know that it runs.
#[test]
fn a_target_that_may_run_is_not_said_to() {
    let port = free_port();
    let script = "lm\ng\nlm";
    let options = ["-b", "-c", script, "--leave-timeout", "3s", "--stop-timeout", "4s"];
    let mut debugger = Debugger::start(port, &options);
    debugger.wait_for("Waiting for a target");
    let target = machine(port, Faults { round_trip: Duration::from_millis(200), ..Faults::default() });
    debugger.wait_for("0: kd> lm");
    let silent = Faults { loss: 1.0, ..Faults::default() };
    assert!(target.wait_for(MachineState::Stopped, PATIENCE));
    target.set_faults(silent, silent);
    let ended = debugger.finish();
    assert!(!ended.err.contains("is running"), "{ended:#?}");
    assert!(ended.err.contains("may still stand still") && ended.code == 4, "{ended:#?}");
}

/// B3: WinDbg's `target=` means that the debugger speaks first.
#[test]
fn target_in_the_connection_asks_that_machine_for_an_offer_and_says_what_is_not_proven() {
    let port = free_port();
    let there = UdpSocket::bind("127.0.0.1:0").unwrap();
    there.set_read_timeout(Some(PATIENCE)).unwrap();
    let place = there.local_addr().unwrap();
    let connection = format!("net:port={port},key=1.2.3.4,target={place}");
    let mut debugger = Debugger::start_heard(debugger_command_at(
        &connection,
        &["-b", "-c", "lm", "--connect-timeout", "30s"],
    ));
    let mut datagram = [0; 2000];
    let (len, from) = there.recv_from(&mut datagram).unwrap();
    assert_eq!(
        (&datagram[..4], from.port()),
        (&b"MDBG"[..], port),
        "a poke, from where the debugger listens"
    );
    let envelope = kd_protocol::kdnet::Envelope::parse(&datagram[..len]).unwrap();
    let opened = envelope.open(&key().control_cipher()).unwrap();
    assert!(opened.body.is_empty(), "it opens with the key that both have, and says nothing more");
    debugger.wait_for("is asked for an offer");
    drop(there);
    // The machine that is there sends from the same place, and is heard.
    let config = SimulatorConfig::new(([127, 0, 0, 1], port).into(), key());
    let link = verikd_sim::SimulatorLink::Kdnet {
        connect: ([127, 0, 0, 1], port).into(),
        source: Some(place),
        key: key(),
    };
    let target = Simulator::start(SimulatorConfig { link, ..config }).unwrap();
    let ended = debugger.finish();
    assert_eq!((ended.code, runs(&target)), (0, true), "{ended:#?}");
    assert!(ended.err.contains("no Windows was seen to"), "{ended:#?}");
}

/// A20: KD's sum is one of bytes, and no sum covers an id. What that leaves open is said.
#[test]
fn a_noisy_line_gives_the_answer_and_what_cannot_be_excluded() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("vm.sock");
    let target = behind(&socket, Faults { loss: 0.0002, corrupt: 0.0002, seed: 3, ..Faults::default() });
    let connection = format!("com:pipe,port={}", socket.display());
    let options = ["-b", "-c", "lm\n!verifier 3 myfault.sys", "--request-timeout", "60s"];
    let ended = Debugger::start_heard(debugger_command_at(&connection, &options)).finish();
    assert!(ended.err.contains("a wrong byte in an answer cannot be excluded"), "{ended:#?}");
    assert!(!ended.err.contains("restarted"), "{ended:#?}");
    assert_eq!((ended.code, runs(&target)), (0, true), "{ended:#?}");
    let quiet = behind(&folder.path().join("quiet.sock"), Faults::default());
    let connection = format!("com:pipe,port={}", folder.path().join("quiet.sock").display());
    let right = Debugger::start_heard(debugger_command_at(&connection, &options)).finish();
    assert!(!right.err.contains("came damaged"), "{right:#?}");
    assert_eq!((ended.out, runs(&quiet)), (right.out, true));
}
