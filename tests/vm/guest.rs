//! A real QEMU whose machine has a simulated machine's RAM.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use kd_protocol::PhysAddr;
use serde_json::{Value, json};
use verikd_sim::export_symbols;
use verikd_sim::windows::{Machine, WINDOWS_7_SP1};

use crate::program::Running;
use crate::relay::Relay;
use crate::rom;

const QEMU: &str = "qemu-system-x86_64";
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How the machine's RAM is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backing {
    /// In a file that others see.
    Shared,
    /// In a file that QEMU maps for itself: others see what was there before.
    Private,
}

/// Where the monitor is that the debugger gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Unix,
    Tcp,
}

/// A running QEMU with two monitors: one for the debugger, one for the test.
pub(crate) struct Guest {
    qemu: Child,
    folder: tempfile::TempDir,
    relay: Relay,
    line: Line,
    monitor: Qmp,
}

/// The test's own client.
pub(crate) struct Qmp {
    lines: BufReader<UnixStream>,
}

/// The simulated machine's RAM and a ROM for it, made once.
fn files() -> &'static (PathBuf, PathBuf) {
    static FILES: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    FILES.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vm");
        std::fs::create_dir_all(&folder).unwrap();
        let (ram, rom_file) = (folder.join("ram"), folder.join("rom"));
        let mut machine = Machine::new(&WINDOWS_7_SP1);
        machine.break_in();
        std::fs::write(&rom_file, rom::rom(&machine)).unwrap();
        rom::map_rom(&mut machine);
        write_ram(&machine, &ram);
        (ram, rom_file)
    })
}

/// Sparse: what nobody wrote to is a hole.
fn write_ram(machine: &Machine, path: &Path) {
    let file = File::create(path).unwrap();
    file.set_len(machine.ram()).unwrap();
    for frame in machine.pages_in_use() {
        let mut page = [0; 0x1000];
        machine.read_physical(PhysAddr(frame * 0x1000), &mut page);
        file.write_all_at(&page, frame * 0x1000).unwrap();
    }
}

/// Symbols of the simulated machine, in a folder that -y can name.
pub(crate) fn symbols() -> String {
    static FOLDER: OnceLock<String> = OnceLock::new();
    let of = || {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vm").join("symbols");
        export_symbols(&WINDOWS_7_SP1, &folder).unwrap();
        folder.display().to_string()
    };
    FOLDER.get_or_init(of).clone()
}

impl Guest {
    /// Starts QEMU, and waits until its processor has come to rest in the simulated machine. Nothing, and a word, if there
    /// is no QEMU here.
    pub(crate) fn start(backing: Backing, line: Line) -> Option<Self> {
        if Command::new(QEMU).arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("skipped: there is no {QEMU} here (Debian: apt-get install qemu-system-x86)");
            return None;
        }
        let (ram, rom) = files();
        let folder = tempfile::tempdir().unwrap();
        // Free now; nobody else is likely to take it within the test.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // A machine may write to its RAM: each has its own.
        let own = folder.path().join("ram");
        let copied = Command::new("cp").arg("--sparse=always").args([ram, &own]).status().unwrap();
        assert!(copied.success());
        let len = own.metadata().unwrap().len() >> 20;
        let share = if backing == Backing::Shared { "on" } else { "off" };
        let socket = |name: &str| folder.path().join(name).display().to_string();
        let mut command = Command::new(QEMU);
        command
            .args(["-machine", "pc,accel=tcg,memory-backend=ram", "-cpu", "max", "-smp", "2"])
            .args(["-m", &len.to_string(), "-nodefaults", "-display", "none", "-no-reboot"])
            .arg("-object")
            .arg(format!("memory-backend-file,id=ram,size={len}M,mem-path={},share={share}", own.display()))
            .arg("-bios")
            .arg(rom)
            .args(["-qmp", &format!("unix:{},server=on,wait=off", socket("test"))])
            .args([
                "-qmp",
                &match line {
                    Line::Unix => format!("unix:{},server=on,wait=off", socket("debugger")),
                    Line::Tcp => format!("tcp:127.0.0.1:{port},server=on,wait=off"),
                },
            ]);
        let qemu = command.stdin(Stdio::null()).spawn().unwrap();
        let mut guest = Self {
            qemu,
            monitor: Qmp::connect(&folder.path().join("test")),
            folder,
            relay: Relay::to(port),
            line,
        };
        let begun = Instant::now();
        while !guest.human("info registers").contains("CR3=0000000000187000") {
            assert!(
                begun.elapsed() < PATIENCE,
                "the ROM does not reach long mode: {}",
                guest.human("info registers")
            );
        }
        Some(guest)
    }

    /// What --vm is given.
    pub(crate) fn place(&self) -> String {
        match self.line {
            Line::Unix => format!("qmp:{}", self.folder.path().join("debugger").display()),
            Line::Tcp => format!("tcp:127.0.0.1:{}", self.relay.port()),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The line that the debugger has to the monitor.
    pub(crate) fn relay(&self) -> &Relay {
        &self.relay
    }

    /// Another client of the monitor that the debugger is told of.
    pub(crate) fn another_client(&self) -> Qmp {
        Qmp::connect(&self.folder.path().join("debugger"))
    }

    pub(crate) fn status(&mut self) -> String {
        self.monitor.execute("query-status", json!({}))["status"].as_str().unwrap().to_owned()
    }

    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Value {
        self.monitor.execute(command, arguments)
    }

    fn human(&mut self, line: &str) -> String {
        let text = self.monitor.execute("human-monitor-command", json!({ "command-line": line }));
        text.as_str().unwrap().to_owned()
    }

    /// Waits until this debugger, at a command that takes long, is in the middle of reading the machine, line by line.
    pub(crate) fn wait_until_read(&self, debugger: &mut Running) {
        assert_eq!(self.line, Line::Tcp);
        debugger.wait_for("kd> s -b");
        self.relay.wait_for_reads();
    }

    /// Waits until the machine is in this state.
    pub(crate) fn wait_until(&mut self, status: &str) {
        let begun = Instant::now();
        while self.status() != status {
            assert!(begun.elapsed() < PATIENCE, "{} instead of {status}", self.status());
            std::thread::yield_now();
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl Qmp {
    fn connect(socket: &Path) -> Self {
        let begun = Instant::now();
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{}: {error}", socket.display()),
            }
            std::thread::yield_now();
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut qmp = Self { lines: BufReader::new(stream) };
        assert!(qmp.line().get("QMP").is_some());
        qmp.execute("qmp_capabilities", json!({}));
        qmp
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }

    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Value {
        let request = json!({ "execute": command, "arguments": arguments }).to_string();
        writeln!(self.lines.get_mut(), "{request}").unwrap();
        loop {
            let mut line = self.line();
            if let Some(error) = line.get("error") {
                panic!("{command}: {error}");
            }
            if line.get("return").is_some() {
                return line["return"].take();
            }
        }
    }
}
