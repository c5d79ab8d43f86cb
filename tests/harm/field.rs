#![allow(unreachable_pub, reason = "a test program exports nothing")]
//! A machine in the field, and a debugger before it as a process.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use kd_protocol::kdnet::Key;
use verikd_sim::windows::{Build, Growth, WINDOWS_7_SP1};
use verikd_sim::{Faults, MachineState, Quirks, Simulator, SimulatorConfig, export_symbols};

pub use crate::ports::free_port;

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The build that a machine comes back as when it comes back as another.
pub const OTHER_BUILD: &str = "10-22h2";

/// Symbols of every build that is used here.
static SYMBOLS: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    for build in [&WINDOWS_7_SP1, Build::find(OTHER_BUILD).unwrap()] {
        export_symbols(build, folder.path()).unwrap();
    }
    folder
});

pub fn symbols() -> PathBuf {
    SYMBOLS.path().to_owned()
}

pub fn key() -> Key {
    "1.2.3.4".parse().unwrap()
}

/// A network that loses everything.
pub fn cut() -> Faults {
    Faults { loss: 1.0, ..Faults::default() }
}

pub fn machine(port: u16, faults: Faults) -> Simulator {
    let connect = SocketAddr::from(([127, 0, 0, 1], port));
    Simulator::start(SimulatorConfig { faults, ..SimulatorConfig::new(connect, key()) }).unwrap()
}

/// True if the machine runs within a while, without anybody's help.
pub fn runs(machine: &Simulator) -> bool {
    machine.wait_for(MachineState::Running, Duration::from_secs(6))
}

pub fn debugger_command(port: u16, options: &[&str]) -> Command {
    debugger_command_at(&format!("net:port={port},key=1.2.3.4"), options)
}

pub fn debugger_command_at(connection: &str, options: &[&str]) -> Command {
    command_at(&[], connection, options)
}

/// `verikd NAME`.
pub fn subcommand(name: &str, port: u16, options: &[&str]) -> Command {
    command_at(&[name], &format!("net:port={port},key=1.2.3.4"), options)
}

fn command_at(name: &[&str], connection: &str, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_verikd"));
    command
        .args(name)
        .args(["-k", connection, "-y"])
        .arg(symbols())
        .args(options)
        .env_remove("_NT_SYMBOL_PATH")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Waits until the system has stopped a process: one that goes on before that is stopped for ever.
pub fn wait_until_suspended(process: u32) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let state = Command::new("ps").args(["-o", "stat=", "-p", &process.to_string()]).output().unwrap();
        if state.stdout.starts_with(b"T") {
            return;
        }
        assert!(Instant::now() < deadline, "process {process} was never stopped");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A machine whose driver leaks by three call paths, on four processors, and is at work beside it.
pub fn leaking(port: u16, every: Duration, faults: Faults) -> Simulator {
    leaking_with(port, every, faults, Quirks::default())
}

/// The same with quirks.
pub fn leaking_with(port: u16, every: Duration, faults: Faults, quirks: Quirks) -> Simulator {
    let connect = SocketAddr::from(([127, 0, 0, 1], port));
    let growth = Growth { processors: 4, callers: 3, busy: 4, ..Growth::default() };
    let config = SimulatorConfig::new(connect, key());
    Simulator::start(SimulatorConfig { faults, growth, leak_every: Some(every), quirks, ..config }).unwrap()
}

/// A debugger with commands, and the machine, which leaks `every` so often.
pub fn debugging(options: &[&str], every: Duration, faults: Faults) -> (Debugger, Simulator, u16) {
    let port = free_port();
    let mut debugger = Debugger::start(port, options);
    debugger.wait_for("Waiting for a target");
    (debugger, leaking(port, every, faults), port)
}

/// Nothing makes the machine stop for a debugger, and it runs on by itself.
pub fn is_left_in_peace(target: &Simulator, ended: &Ended) {
    assert!(runs(target), "left stopped: {ended:#?}");
    assert_eq!((target.breakpoints(), target.debug_registers()), (0, 0), "left in it: {ended:#?}");
}

/// A debugger as a process.
pub struct Debugger {
    child: Child,
    err: Receiver<String>,
    pub told: Vec<String>,
    out: Option<Receiver<String>>,
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
    /// From the last thing that was done to it.
    pub after: Duration,
}

impl Debugger {
    pub fn start(port: u16, options: &[&str]) -> Self {
        Self::start_heard(debugger_command(port, options))
    }

    /// The same with another command line; its standard output is kept.
    pub fn start_heard(command: Command) -> Self {
        let mut debugger = Self::spawn(command);
        debugger.out = debugger.child.stdout.take().map(|mut stdout| {
            let (tell, out) = channel();
            std::thread::spawn(move || {
                let mut text = String::new();
                let _ = stdout.read_to_string(&mut text);
                let _ = tell.send(text);
            });
            out
        });
        debugger
    }

    /// The same, whose standard output nobody reads, or which is what `command` says.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the program starts");
        let err = BufReader::new(child.stderr.take().unwrap());
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in err.lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, err: lines, told: Vec::new(), out: None }
    }

    /// Waits until it says something that contains `wanted`.
    pub fn wait_for(&mut self, wanted: &str) {
        assert!(self.says(wanted), "never said {wanted:?}, but: {:#?}", self.told);
    }

    /// The same; false if it ends without having said it.
    pub fn says(&mut self, wanted: &str) -> bool {
        self.says_within(PATIENCE, wanted)
    }

    /// The same; false also if it has not said it within this.
    pub fn says_within(&mut self, time: Duration, wanted: &str) -> bool {
        let deadline = Instant::now() + time;
        while let Ok(line) = self.err.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            let is_it = line.contains(wanted);
            self.told.push(line);
            if is_it {
                return true;
            }
        }
        false
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let _ =
            Command::new("kill").args([&format!("-{name}"), &pid]).stderr(Stdio::null()).status().unwrap();
    }

    /// Waits until the system has stopped it, as Ctrl+Z does.
    pub fn is_suspended(&self) {
        wait_until_suspended(self.child.id());
    }

    /// Nobody reads its answers any more.
    pub fn close_stdout(&mut self) {
        drop(self.child.stdout.take());
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub fn finish(self) -> Ended {
        self.finish_within(PATIENCE)
    }

    /// The same for what takes longer.
    pub fn finish_within(mut self, patience: Duration) -> Ended {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > patience {
                let _ = self.child.kill();
                self.told.extend(self.err.try_iter());
                panic!("never ended; it said: {:#?}", self.told);
            }
            std::thread::yield_now();
            std::thread::sleep(Duration::from_millis(2));
        };
        let after = start.elapsed();
        while let Ok(line) = self.err.recv_timeout(Duration::from_secs(2)) {
            self.told.push(line);
        }
        let out = self.out.take().and_then(|out| out.recv_timeout(PATIENCE).ok()).unwrap_or_default();
        let code = status.code().unwrap_or_else(|| panic!("ended by {status}: {:#?}", self.told));
        Ended { code, out, err: self.told.join("\n"), after }
    }
}

impl Drop for Debugger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Does what the warning of a target that may stand still says, and asks the machine whether it runs then.
pub fn runs_after_the_advice(machine: &Simulator, port: u16) -> bool {
    machine.set_faults(Faults::default(), Faults::default());
    let freed = Debugger::start(port, &["-b", "-c", "q"]).finish();
    freed.code == 0 && runs(machine)
}
