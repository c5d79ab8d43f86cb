#![allow(unreachable_pub, reason = "a test program exports nothing")]
//! A person before a terminal: the program on a pseudo-terminal of its own, whose leader it is, as in a terminal window.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pty_process::blocking::{Command as TerminalCommand, Pty};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{Termios, tcgetattr};
use tempfile::TempDir;

use crate::field::{PATIENCE, symbols, wait_until_suspended};

/// Ctrl+C, Ctrl+D and Ctrl+Z as a terminal sends them.
pub const CTRL_C: &str = "\x03";
pub const CTRL_D: &str = "\x04";
pub const CTRL_Z: &str = "\x1a";

/// Whoever types, and what he sees.
pub struct Person {
    child: Child,
    /// The window; none once it is closed.
    window: Option<Arc<Pty>>,
    /// The program's end of the terminal, held open so that its mode can be asked at any time.
    terminal: OwnedFd,
    mode_before: Termios,
    screen: Arc<Screen>,
    reader: Option<JoinHandle<()>>,
    /// What was waited for lies before this.
    seen: usize,
    _home: Arc<TempDir>,
}

/// How it ended.
#[derive(Debug)]
pub struct Left {
    pub code: i32,
    /// Everything that was on the screen, from top to bottom.
    pub screen: String,
    pub after: Duration,
}

#[derive(Default)]
struct Screen {
    text: Mutex<String>,
    changed: Condvar,
    is_closed: AtomicBool,
}

/// Where somebody sits down.
pub struct Desk {
    /// What is typed at the shell's prompt.
    pub arguments: Vec<String>,
    /// The program is run by a shell, with this behind it: `| tee log`.
    pub behind: Option<String>,
    /// Where the program keeps what it keeps.
    pub home: Arc<TempDir>,
    /// Columns of the window.
    pub columns: u16,
    pub environment: Vec<(&'static str, &'static str)>,
}

impl Desk {
    /// Before the program at a port.
    pub fn at(port: u16, options: &[&str]) -> Self {
        let connection = format!("net:port={port},key=1.2.3.4");
        let symbols = symbols().display().to_string();
        Self::with(&[&["-k", &connection, "-y", &symbols], options].concat())
    }

    pub fn with(arguments: &[&str]) -> Self {
        Self {
            arguments: arguments.iter().map(|it| (*it).to_owned()).collect(),
            behind: None,
            home: Arc::new(tempfile::tempdir().unwrap()),
            // Wide enough that nothing is broken into lines.
            columns: 500,
            environment: Vec::new(),
        }
    }

    fn command(&self) -> TerminalCommand {
        let program = env!("CARGO_BIN_EXE_verikd");
        let command = match &self.behind {
            None => TerminalCommand::new(program).args(&self.arguments),
            Some(behind) => {
                let arguments = self.arguments.iter().map(|it| format!("'{it}'"));
                // The shell lives on at Ctrl+C, to tell how the program ended.
                let line =
                    format!("trap : INT; '{program}' {} {behind}", arguments.collect::<Vec<_>>().join(" "));
                // What is started in the background of a script ignores Ctrl+C, and so would all that it starts.
                if cfg!(target_os = "linux") {
                    TerminalCommand::new("env").args(["--default-signal=INT", "sh", "-c", &line])
                } else {
                    TerminalCommand::new("sh").args(["-c", &line])
                }
            }
        };
        let command = command
            .env_remove("_NT_SYMBOL_PATH")
            .env_remove("XDG_DATA_HOME")
            .env_remove("NO_COLOR")
            // What is written by a name alone lands there as well.
            .current_dir(self.home.path())
            .env("HOME", self.home.path())
            .env("TERM", "xterm");
        self.environment.iter().fold(command, |command, (name, value)| command.env(name, value))
    }
}

impl Person {
    /// Starts the program at the port, to prompt.
    pub fn at(port: u16, options: &[&str]) -> Self {
        Self::sits_at(&Desk::at(port, options))
    }

    pub fn sits_at(desk: &Desk) -> Self {
        let (window, terminal) = pty_process::blocking::open().unwrap();
        window.resize(pty_process::Size::new(50, desk.columns)).unwrap();
        let held = terminal.as_fd().try_clone_to_owned().unwrap();
        let mode_before = tcgetattr(&held).unwrap();
        let child = desk.command().spawn(terminal).expect("the program starts");
        let window = Arc::new(window);
        let screen = Arc::new(Screen::default());
        let reader = {
            let (window, screen) = (Arc::clone(&window), Arc::clone(&screen));
            Some(std::thread::spawn(move || screen.read(&window)))
        };
        Self {
            child,
            window: Some(window),
            terminal: held,
            mode_before,
            screen,
            reader,
            seen: 0,
            _home: Arc::clone(&desk.home),
        }
    }

    pub fn types(&self, keys: &str) {
        let mut window = self.window.as_deref().expect("the window is open");
        window.write_all(keys.as_bytes()).unwrap();
    }

    /// Types a line at the prompt and waits until it is taken.
    pub fn enters(&mut self, line: &str) {
        self.types(&format!("{line}\r"));
        self.sees(&format!("{line}\n"));
    }

    /// Makes the window another size.
    pub fn resizes(&self, columns: u16) {
        let window = self.window.as_deref().expect("the window is open");
        window.resize(pty_process::Size::new(50, columns)).unwrap();
    }

    /// Waits until this is on the screen, below what was waited for before; returns what came above it.
    pub fn sees(&mut self, wanted: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut text = self.screen.text.lock().unwrap();
        loop {
            let shown = plain(&text);
            if let Some(at) = shown[self.seen..].find(wanted) {
                let above = shown[self.seen..self.seen + at].to_owned();
                self.seen += at + wanted.len();
                return above;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "never saw {wanted:?} below {:?}, but:\n{shown}", self.seen);
            text = self.screen.changed.wait_timeout(text, left).unwrap().0;
        }
    }

    /// Waits until this is anywhere on the screen.
    pub fn has_on_the_screen(&self, wanted: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut text = self.screen.text.lock().unwrap();
        while !plain(&text).contains(wanted) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "never saw {wanted:?}, but:\n{}", plain(&text));
            text = self.screen.changed.wait_timeout(text, left).unwrap().0;
        }
    }

    /// Types a command at the prompt of the stopped target; returns its answer.
    pub fn asks(&mut self, command: &str) -> String {
        self.enters(command);
        self.sees("kd> ").rsplit_once('\n').map_or_else(String::new, |(answer, _)| answer.to_owned())
    }

    /// Everything that was on the screen so far, with what colours it and moves the cursor.
    pub fn raw_screen(&self) -> String {
        self.screen.text.lock().unwrap().clone()
    }

    /// Everything that was on the screen so far.
    pub fn screen(&self) -> String {
        plain(&self.screen.text.lock().unwrap())
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &pid]).stderr(Stdio::null()).status();
        assert!(status.unwrap().success());
    }

    /// Closes the window.
    pub fn closes_the_window(&mut self) {
        self.screen.is_closed.store(true, Ordering::Release);
        self.reader.take().unwrap().join().unwrap();
        let window = Arc::into_inner(self.window.take().unwrap());
        drop(window.expect("nobody else holds it"));
    }

    /// Waits until the system has stopped the program, as Ctrl+Z does.
    pub fn is_suspended(&self) {
        wait_until_suspended(self.child.id());
    }

    /// The terminal is as the program found it: whoever comes next types into it.
    pub fn finds_the_terminal_as_before(&self) {
        let mode = |it: &Termios| (it.input_modes, it.output_modes, it.control_modes, it.local_modes);
        let (now, before) = (mode(&tcgetattr(&self.terminal).unwrap()), mode(&self.mode_before));
        assert_eq!(now, before, "the terminal's mode is another:\n{}", self.screen());
    }

    /// Waits until the program has ended. A terminal that is still open is as it was before.
    pub fn leaves(&mut self) -> Left {
        let start = Instant::now();
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "never ended:\n{}", self.screen());
            std::thread::sleep(Duration::from_millis(2));
        };
        let after = start.elapsed();
        if self.window.is_some() {
            self.finds_the_terminal_as_before();
            // What it wrote last is read before the reader ends.
            self.screen.is_closed.store(true, Ordering::Release);
            self.reader.take().unwrap().join().unwrap();
        }
        let code = status.code().unwrap_or_else(|| panic!("ended by {status}:\n{}", self.screen()));
        Left { code, screen: self.screen(), after }
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        self.screen.is_closed.store(true, Ordering::Release);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Screen {
    /// Reads what is written to the window until it is closed, and then what is left there.
    fn read(&self, mut window: &Pty) {
        const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        let mut buffer = [0; 4096];
        loop {
            let is_closed = self.is_closed.load(Ordering::Acquire);
            let mut wanted = [PollFd::new(&window, PollFlags::IN)];
            let _ = poll(&mut wanted, Some(&LOOK));
            let is_there = wanted[0].revents().contains(PollFlags::IN);
            if !is_there && is_closed {
                return;
            }
            if is_there && let Ok(len) = window.read(&mut buffer) {
                self.text.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..len]));
                self.changed.notify_all();
            }
        }
    }
}

/// What a terminal's bytes show, without what moves its cursor.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\x1b' => {
                // CSI: parameters, then a letter.
                if rest.next() == Some('[') {
                    let _ = rest.find(char::is_ascii_alphabetic);
                }
            }
            '\r' | '\x07' => {}
            c => plain.push(c),
        }
    }
    plain
}
