//! Serial lines as a person uses them: sockets of virtual machines, the bridge, and what goes wrong with either.
#![cfg(unix)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use crate::program::{COMMANDS, Running, Setup, golden, normalized, run};

/// Where the virtual machine's socket is, and what -k and sim call it.
struct Line {
    setup: Setup,
    path: String,
}

impl Line {
    fn new() -> Self {
        let setup = Setup::new();
        let path = setup.folder.path().join("vm.sock").display().to_string();
        Self { setup, path }
    }

    fn target(&self, options: &[&str]) -> Running {
        self.setup.serial_target(&format!("unix:{}", self.path), options)
    }

    fn debug(&self, line_options: &str, options: &[&str]) -> Running {
        self.setup.start_debugging_at(&format!("com:pipe,port={}{line_options}", self.path), options)
    }

    fn bridge(&self, port: u16) -> Running {
        let (from, to) =
            (format!("com:pipe,port={}", self.path), format!("net:hostip=127.0.0.1,port={port},key=1.2.3.4"));
        let mut bridge = Running::start(&["bridge", "--from", &from, "--to", &to]);
        bridge.wait_for("is offered to");
        bridge
    }
}

#[test]
fn a_unix_socket_gives_the_golden_texts_and_the_target_runs_on() {
    let line = Line::new();
    let mut target = line.target(&["--leak-every", "50ms"]);
    let first = line.debug("", &["-b", "-c", COMMANDS]).finish();
    assert_eq!(first.code, 0, "{}", first.err);
    assert_eq!(normalized(&first.out), golden());
    target.wait_for("leaked");
    let second = line.debug(",resets=0,reconnect", &["-b", "-c", "!verifier 3 myfault.sys"]).finish();
    assert_eq!(second.code, 0, "{}", second.err);
    let blocks = second.out.lines().filter(|line| line.contains(" Leak ")).count();
    assert!(blocks > 10, "{blocks} blocks at the second stop:\n{}", second.out);
    target.wait_for("Runs on");
}

#[test]
fn tcp_gives_the_golden_texts() {
    let setup = Setup::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let _target = setup.serial_target(&format!("tcp:{port}"), &[]);
    let connection = format!("com:ipport={port},port=127.0.0.1");
    let output = setup.start_debugging_at(&connection, &["-b", "-c", COMMANDS]).finish();
    assert_eq!(output.code, 0, "{}", output.err);
    assert_eq!(normalized(&output.out), golden());
}

#[test]
fn the_debugger_may_be_there_before_the_machine() {
    let line = Line::new();
    let mut debugger = line.debug("", &["-b", "-c", COMMANDS]);
    debugger.wait_for("Waiting for a target on");
    let _target = line.target(&[]);
    let output = debugger.finish();
    assert_eq!(output.code, 0, "{}", output.err);
    assert_eq!(normalized(&output.out), golden());
}

#[test]
fn a_bridge_gives_kdnet_debuggers_the_golden_texts() {
    let line = Line::new();
    let mut target = line.target(&[]);
    let _bridge = line.bridge(line.setup.port);
    let output = line.setup.debug(&["-b", "-c", COMMANDS]);
    assert_eq!(output.code, 0, "{}", output.err);
    assert_eq!(normalized(&output.out), golden());
    target.wait_for("Runs on");
}

#[test]
fn a_bridge_gives_them_over_a_network_that_loses_a_tenth() {
    let line = Line::new();
    let _target = line.target(&[]);
    let relay = lossy_relay(line.setup.port, 0.1);
    let _bridge = line.bridge(relay.port());
    let output = line.setup.debug(&["-b", "-c", COMMANDS]);
    assert_eq!(output.code, 0, "{}", output.err);
    assert_eq!(normalized(&output.out), golden());
}

#[test]
fn a_bridge_that_ends_lets_a_stopped_target_run() {
    let line = Line::new();
    let mut target = line.target(&["--leak-every", "50ms"]);
    let bridge = line.bridge(line.setup.port);
    let mut debugger = line.setup.start_debugging(&["-b", "-c", "!verifier 3 myfault.sys"]);
    // A debugger that is gone without a word leaves its target stopped.
    debugger.wait_for("0: kd> !verifier 3");
    debugger.signal("KILL");
    drop(debugger);
    bridge.signal("TERM");
    let ended = bridge.finish();
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.err.contains("The bridge ends"), "{}", ended.err);
    target.wait_for("leaked");
}

#[test]
fn a_line_that_ends_is_waited_for_if_that_is_wanted() {
    let line = Line::new();
    let mut target = line.target(&[]);
    let mut debugger = line.debug(",reconnect", &["-b", "-c", "g; !verifier 3 myfault.sys"]);
    target.wait_for("Runs on");
    drop(target);
    debugger.wait_for("The line to the target has ended; waiting for it");
    let _target = line.target(&[]);
    debugger.wait_for("The line to the target is there again");
    debugger.signal("INT");
    let output = debugger.finish();
    assert_eq!(output.code, 0, "{}", output.err);
    assert!(output.out.contains("fffffa8005400000     0x000fb000     Leak"), "{}", output.out);
    let line = Line::new();
    let target = line.target(&[]);
    let mut debugger = line.debug("", &["-b", "-c", "g; !verifier 3 myfault.sys"]);
    debugger.wait_for("0: kd> g");
    drop(target);
    debugger.wait_for("the serial line has ended");
}

#[test]
fn a_line_without_a_target_says_what_is_wrong_with_it() {
    let line = Line::new();
    let give_up = ["-b", "--connect-timeout", "1s", "-c", "lm"];
    let absent = line.debug("", &give_up).finish();
    assert_eq!(absent.code, 1);
    assert!(
        absent.err.contains("is not there: No such file") && absent.err.contains("-serial unix:"),
        "{}",
        absent.err
    );
    let listener = UnixListener::bind(&line.path).unwrap();
    let silent = line.debug("", &give_up).finish();
    assert_eq!(silent.code, 1);
    assert!(
        silent.err.contains("nothing came from it") && silent.err.contains("bcdedit /dbgsettings serial"),
        "{}",
        silent.err
    );
    let _ = listener.accept();
    let console = line.debug("", &give_up);
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(b"SeaBIOS (version 1.16)\r\nBooting from Hard Disk...\r\n").unwrap();
    let console = console.finish();
    assert_eq!(console.code, 1);
    assert!(
        console.err.contains("51 bytes came from") && console.err.contains("Booting from Hard Disk"),
        "{}",
        console.err
    );
}

#[test]
fn a_bad_command_line_says_what_to_write() {
    for (arguments, wanted) in [
        (&["-k", "com:pipe"][..], "port is missing; write -k com:pipe,port=/path/to/vm.sock"),
        (
            &[
                "bridge",
                "--from",
                "net:port=1,key=1.2.3.4",
                "--to",
                "net:hostip=127.0.0.1,port=1,key=1.2.3.4",
            ],
            "--from takes a serial line",
        ),
        (
            &["bridge", "--from", "com:pipe,port=a", "--to", "net:port=1,key=1.2.3.4"],
            "--to takes the debugger's address",
        ),
        (&["sim", "--serial", "usb:1"], "write unix:PATH, tcp:PORT or tcp:ADDR:PORT"),
        (&["sim", "--serial", "tcp:1", "--loss", "0.1"], "cannot be used with"),
        (&["sim"], "--serial"),
    ] {
        let output = run(arguments);
        assert_eq!(output.code, 2, "{arguments:?}: {}", output.err);
        assert!(output.err.contains(wanted), "{arguments:?}: {}", output.err);
    }
}

/// Carries datagrams between whoever sends to the returned address and `port`, and loses a share of them, seeded.
fn lossy_relay(port: u16, loss: f64) -> SocketAddr {
    let (near, far) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let address = near.local_addr().unwrap();
    far.connect(("127.0.0.1", port)).unwrap();
    let (near_back, far_back) = (near.try_clone().unwrap(), far.try_clone().unwrap());
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut chance = fastrand::Rng::with_seed(1);
        let mut datagram = vec![0; 65_536];
        while let Ok((len, from)) = near.recv_from(&mut datagram) {
            let _ = tell.send(from);
            if chance.f64() >= loss {
                // Where nobody listens yet, a datagram is lost too.
                let _ = far.send(&datagram[..len]);
            }
        }
    });
    std::thread::spawn(move || {
        let mut chance = fastrand::Rng::with_seed(2);
        let mut datagram = vec![0; 65_536];
        let bridge = told.recv_timeout(Duration::from_secs(60)).unwrap();
        loop {
            // A refused send of the other direction is reported here.
            let Ok(len) = far_back.recv(&mut datagram) else { continue };
            if chance.f64() >= loss {
                let _ = near_back.send_to(&datagram[..len], bridge);
            }
        }
    });
    address
}

/// A virtual machine's socket that goes away for a moment in the middle of an answer, as one does that is moved to another host.
#[test]
fn a_line_that_is_cut_while_the_machine_stands_still_is_waited_for_to_let_it_run() {
    let line = Line::new();
    let mut target = line.target(&["--leak-every", "400ms"]);
    let cut = format!("{}.cut", line.path);
    let listener = UnixListener::bind(&cut).unwrap();
    let machine = line.path.clone();
    std::thread::spawn(move || {
        // The first is cut behind so many bytes, the second is whole.
        for most in [30_000, u64::MAX] {
            let (mut near, _) = listener.accept().unwrap();
            let mut far = UnixStream::connect(&machine).unwrap();
            let (mut to, mut from) = (far.try_clone().unwrap(), near.try_clone().unwrap());
            let there = std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            let _ = std::io::copy(&mut (&mut far).take(most), &mut near);
            for stream in [&near, &far] {
                let _ = stream.shutdown(Shutdown::Both);
            }
            let _ = there.join();
        }
    });
    let options = ["-b", "-c", "!poolused 2", "--stats"];
    let ended = line.setup.start_debugging_at(&format!("com:pipe,port={cut},reconnect"), &options).finish();
    assert!(ended.err.contains("The line to the target has ended; waiting for it"), "{}", ended.err);
    assert!(ended.err.contains("The line to the target is there again"), "{}", ended.err);
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert!(!ended.err.contains("WARNING"), "{}", ended.err);
    target.runs_on();
}

/// Contexts go in one piece there, and everything else as over a network.
#[test]
fn breakpoints_registers_steps_and_hits_work_over_it() {
    let line = Line::new();
    let mut target = line.target(&["--leak-every", "50ms", "--callers", "3"]);
    let commands = "bp nt!ExAllocatePoolWithTag 2; g; t; gu; bc *; ba w 4 nt!VfPoolTracesIndex; g; bc *; !poolhit Leak -n 3; \
                    ? poi(nt!PoolHitTag) & 0xffffffff";
    let ended = line.debug("", &["-b", "-c", commands]).finish();
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert_eq!(ended.err.matches("Breakpoint 0 hit").count(), 2, "{}", ended.err);
    assert!(ended.err.contains("nt!ExAllocatePoolWithTag+0x891:"), "{}", ended.err);
    assert!(ended.out.contains("Uses of pool tag Leak: 3 hits (3 allocations"), "{}", ended.out);
    target.wait_for("Runs on");
    let left = line.debug(",resets=0,reconnect", &["-b", "-c", "bl; .lastevent"]).finish();
    assert!(!left.err.contains("nobody here has set"), "{}", left.err);
    target.wait_for("Runs on");
    target.wait_for("leaked");
}

/// A damaged acknowledgement, and the report of the next stop damaged too, must not leave the machine at a stop that nobody knows of.
#[test]
fn steps_over_a_line_that_damages_bytes_end_with_the_machine_running() {
    let run = |seed: u32| {
        let line = Line::new();
        let seed = seed.to_string();
        let noisy = ["--noise", "0.0003", "--seed", &seed, "--processors", "4", "--leak-every", "400ms"];
        let mut target = line.target(&noisy);
        let script = "bp /1 nt!ExAllocatePoolWithTag; g; gu; t 4; t 4; t 4; p 3; t 4; r rip";
        let ended = line.debug("", &["-b", "-c", script, "--stop-timeout", "20s"]).finish();
        assert_eq!(ended.code, 0, "seed {seed}: {}", ended.err);
        assert!(ended.out.contains("rip="), "seed {seed}: {}", ended.out);
        target.runs_on();
    };
    std::thread::scope(|scope| [21, 26, 27, 31].map(|seed| scope.spawn(move || run(seed))).map(drop));
}

/// Whoever is told to go while the target repeats a reply that no line as noisy as this carries does not wait for it.
#[test]
fn whoever_is_told_to_end_over_a_noisy_line_lets_the_machine_run() {
    let run = |seed: u32, signal: &str, subcommand: &[&str], options: &[&str], moment: &str| {
        let line = Line::new();
        let (place, symbols) =
            (format!("com:pipe,port={}", line.path), line.setup.symbols().display().to_string());
        let seed = seed.to_string();
        let noisy = ["--noise", "0.0005", "--seed", &seed, "--processors", "4", "--leak-every", "400ms"];
        let mut target = line.target(&noisy);
        let arguments = [subcommand, &["-k", &place, "-y", &symbols], options].concat();
        let mut debugger = Running::start(&arguments);
        debugger.wait_for(moment);
        debugger.signal(signal);
        let ended = debugger.finish();
        let runs_after_all = ended.err.contains("runs after all");
        assert!(
            runs_after_all || !ended.err.contains("WARNING"),
            "seed {seed}, {signal} to {arguments:?}: {}",
            ended.err
        );
        target.runs_on();
    };
    let reads = ["-b", "-c", "lm; !verifier 3 myfault.sys; !poolused 2; lm; k; lm"];
    let steps = ["-b", "-c", "bp /1 nt!ExAllocatePoolWithTag; g; t 60; t 60", "--stop-timeout", "20s"];
    let goes_on = ["-b", "-c", "bp nt!ExAllocatePoolWithTag \"k 3; g\"; g", "--stop-timeout", "20s"];
    let hits = ["--tag", "Leak", "--for", "60s"];
    let pool = ["--watch", "3s", "--for", "60s"];
    std::thread::scope(|scope| {
        for (at, (subcommand, options, moment)) in [
            (&[][..], &reads[..], "Kernel base"),
            (&[], &steps, "Breakpoint 0 hit"),
            (&[], &goes_on, "Breakpoint 0 hit"),
            (&["hits"], &hits, "Kernel base"),
            (&["pool"], &pool, "Kernel base"),
        ]
        .into_iter()
        .enumerate()
        {
            let signal = ["TERM", "HUP", "INT"][at % 3];
            scope.spawn(move || run(41 + at as u32, signal, subcommand, options, moment));
        }
    });
}
