//! The program as a process, for tests that run it as a person does.

#![allow(dead_code, unreachable_pub, reason = "each test program has its own copy and uses a part of it")]

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::ports::free_port;

const GOLDEN_LIST: &str = include_str!("../golden/verifier-3-myfault.txt");
const GOLDEN_LOG: &str = include_str!("../golden/verifier-80.txt");
/// What a driver developer does with a machine that leaks.
pub const COMMANDS: &str = "!verifier 3 myfault.sys; !verifier 80 fffffa8005400000; g";

/// A target, its symbols, and a port to meet at.
pub struct Setup {
    pub folder: tempfile::TempDir,
    pub port: u16,
}

/// How a process ended, and what it printed.
pub struct Finished {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// A process whose standard error can be waited for.
pub struct Running {
    child: Child,
    err: Lines,
}

type Lines = std::sync::mpsc::Receiver<String>;

impl Setup {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), port: free_port() }
    }

    /// A dump of the published leak, its symbols in their folder.
    pub fn dump(&self) -> String {
        let dump = self.folder.path().join("memory.dmp").display().to_string();
        let symbols = self.symbols().display().to_string();
        assert_eq!(verikd(&["sim", "--write-dump", &dump, "--export-symbols", &symbols]).code, 0);
        dump
    }

    pub fn symbols(&self) -> PathBuf {
        self.folder.path().join("symbols")
    }

    pub fn connection(&self, key: &str) -> String {
        format!("net:port={},key={key}", self.port)
    }

    pub fn target(&self, options: &[&str]) -> Running {
        let connect = format!("127.0.0.1:{}", self.port);
        let mut target = self.simulate(&["--connect", &connect, "--key", "1.2.3.4"], options);
        target.wait_for("offers go from");
        target
    }

    /// A target behind a serial line.
    pub fn serial_target(&self, place: &str, options: &[&str]) -> Running {
        let mut target = self.simulate(&["--serial", place], options);
        target.wait_for("its serial line is");
        target
    }

    fn simulate(&self, link: &[&str], options: &[&str]) -> Running {
        let symbols = self.symbols().display().to_string();
        Running::start(&[&["sim", "--export-symbols", &symbols], link, options].concat())
    }

    pub fn debug(&self, options: &[&str]) -> Finished {
        self.start_debugging(options).finish()
    }

    pub fn start_debugging(&self, options: &[&str]) -> Running {
        self.start_debugging_at(&self.connection("1.2.3.4"), options)
    }

    /// The same, met at another place.
    pub fn start_debugging_at(&self, connection: &str, options: &[&str]) -> Running {
        let symbols = self.symbols().display().to_string();
        Running::start(&[&["-k", connection, "-y", &symbols], options].concat())
    }
}

impl Running {
    pub fn start(arguments: &[&str]) -> Self {
        let mut child = command(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let err = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in err.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, err: lines }
    }

    pub fn wait_for(&mut self, wanted: &str) {
        self.seen_before(wanted);
    }

    /// Of a simulated machine: waits until it has run for a second from now on. One that is stopped has no heartbeat.
    pub fn runs_on(&mut self) {
        while self.err.try_recv().is_ok() {}
        self.wait_for("up ");
        self.wait_for("up ");
    }

    /// The lines before the first that contains `wanted`.
    pub fn seen_before(&mut self, wanted: &str) -> Vec<String> {
        self.lines_to(wanted).0
    }

    /// The first line that contains `wanted`.
    pub fn line_with(&mut self, wanted: &str) -> String {
        self.lines_to(wanted).1
    }

    fn lines_to(&mut self, wanted: &str) -> (Vec<String>, String) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut seen = Vec::new();
        loop {
            match self.err.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(wanted) => return (seen, line),
                Ok(line) => seen.push(line),
                Err(_) => panic!("no {wanted:?} within a minute; seen: {seen:#?}"),
            }
        }
    }

    #[cfg(unix)]
    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub fn finish(mut self) -> Finished {
        let mut out = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        let code = self.child.wait().unwrap().code().expect("ends by itself, not by a signal");
        // Whoever reads its lines may not have come to the last one yet.
        let next = || self.err.recv_timeout(Duration::from_secs(1)).ok();
        let err: Vec<String> = std::iter::from_fn(next).collect();
        Finished { code, out, err: err.join("\n") }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_verikd"));
    command.args(arguments).env_remove("_NT_SYMBOL_PATH");
    command
}

pub fn run(arguments: &[&str]) -> Finished {
    Running::start(arguments).finish()
}

pub fn verikd(arguments: &[&str]) -> Finished {
    let Output { status, stdout, stderr } = command(arguments).stdin(Stdio::null()).output().unwrap();
    Finished {
        code: status.code().unwrap(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

pub fn golden() -> Vec<String> {
    [normalized(GOLDEN_LIST), normalized(GOLDEN_LOG)].concat()
}

/// Lines without runs of blank ones, and without the indent of an option's name: four published copies of the text
/// have four different ones there.
pub fn normalized(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    lines
        .map(|line| line.strip_prefix('\t').unwrap_or(line))
        .map(|line| line.trim_start().to_owned())
        .collect()
}
