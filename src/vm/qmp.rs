//! QMP: a line of JSON each way, with events between the answers.
//!
//! ```text
//!  -> {"execute":"stop","id":7}
//!  <- {"event":"STOP",...}
//!  <- {"return":{},"id":7}
//! ```
//! Every wait ends, every line is bounded. An answer that was not waited for to the end is skipped by its id when it comes.
//!
//! Source: docs/vm.md 2.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::config::{Attention, VmConfig};
use super::error::{QmpError, VmError, shown};
use super::place::VmPlace;
use super::stream::Stream;

/// A monitor greets at once, unless it serves somebody else.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);
/// A line is no longer: the registers of a hundred processors have 400 KB.
const MAX_LINE: usize = 8 << 20;
/// Bytes that are taken at once.
const PIECE: usize = 0x1_0000;
/// How often it is looked whether somebody wants the wait to end.
const LOOK: Duration = Duration::from_millis(100);

/// What crossed the socket.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct QmpCounters {
    pub(super) commands: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
}

/// How a wait may end before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Whenever somebody wants it.
    ByInterrupt,
    /// By its deadline only: what lets a machine run.
    Never,
}

/// A connection to a monitor.
pub(super) struct Qmp {
    stream: Stream,
    /// Bytes that came and are of no whole line yet.
    rest: Vec<u8>,
    /// How many of them have no line's end.
    searched: usize,
    next_id: u64,
    timeout: Duration,
    attention: Arc<dyn Attention>,
    counters: QmpCounters,
    /// How often the machine was reset.
    resets: u64,
    /// How often it stopped, whoever stopped it.
    stops: u64,
    /// How often it was let run, whoever let it.
    resumes: u64,
    /// Why nothing can be said to it any more.
    gone: Option<QmpError>,
    version: String,
}

impl Qmp {
    /// Connects, and takes the greeting.
    pub(super) fn connect(place: &VmPlace, config: &VmConfig) -> Result<Self, VmError> {
        let busy = || VmError::Busy { place: place.to_string(), after: GREETING_TIMEOUT };
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::WouldBlock => busy(),
            _ => VmError::Connect { place: place.to_string(), source },
        };
        let stream = Stream::connect(place).map_err(failed)?;
        stream.set_timeouts(LOOK, config.command_timeout).map_err(failed)?;
        let mut qmp = Self {
            stream,
            rest: Vec::new(),
            searched: 0,
            next_id: 0,
            timeout: config.command_timeout,
            attention: Arc::clone(&config.attention),
            counters: QmpCounters::default(),
            resets: 0,
            stops: 0,
            resumes: 0,
            gone: None,
            version: String::new(),
        };
        let command = |source| VmError::Command { command: "greeting".into(), source };
        let not_qmp = |said: &str| VmError::NotQmp { place: place.to_string(), said: shown(said) };
        let greeting = match qmp.line(Instant::now() + GREETING_TIMEOUT, Cut::ByInterrupt) {
            Ok(line) => line,
            Err(QmpError::TimedOut(_)) if qmp.rest.is_empty() => return Err(busy()),
            Err(QmpError::TimedOut(_) | QmpError::TooLong(_)) => {
                return Err(not_qmp(&String::from_utf8_lossy(&qmp.rest)));
            }
            Err(error) => return Err(command(error)),
        };
        let value: Value = serde_json::from_slice(&greeting).unwrap_or_default();
        let Some(version) = value.get("QMP").map(|it| &it["version"]["qemu"]) else {
            return Err(not_qmp(&String::from_utf8_lossy(&greeting)));
        };
        let number = |name: &str| version[name].as_u64().unwrap_or(0);
        qmp.version = format!("{}.{}.{}", number("major"), number("minor"), number("micro"));
        qmp.execute("qmp_capabilities", None, Cut::ByInterrupt)
            .map_err(|source| VmError::Command { command: "qmp_capabilities".into(), source })?;
        Ok(qmp)
    }

    /// Has the machine carry out a command, and returns what it returns.
    pub(super) fn execute(
        &mut self,
        command: &str,
        arguments: Option<Value>,
        cut: Cut,
    ) -> Result<Value, QmpError> {
        let id = self.next_id;
        self.next_id += 1;
        let mut request = json!({ "execute": command, "id": id });
        if let Some(arguments) = arguments {
            request["arguments"] = arguments;
        }
        let mut line = request.to_string();
        line.push('\n');
        self.counters.commands += 1;
        if let Some(gone) = &self.gone {
            return Err(gone.clone());
        }
        self.send(line.as_bytes())?;
        let deadline = Instant::now() + self.timeout;
        loop {
            let line = match self.line(deadline, cut) {
                Err(QmpError::TimedOut(_)) => return Err(QmpError::TimedOut(self.timeout)),
                line => line?,
            };
            let Some(mut value) = self.parsed(&line)? else { continue };
            if value.get("id").and_then(Value::as_u64) != Some(id) {
                // Of a command whose answer nobody waited for.
                continue;
            }
            if let Some(error) = value.get("error") {
                return Err(QmpError::Refused(shown(error["desc"].as_str().unwrap_or_default())));
            }
            return Ok(value["return"].take());
        }
    }

    /// Looks for events for `time`, or until one comes.
    pub(super) fn listen(&mut self, time: Duration) -> Result<(), QmpError> {
        match self.line(Instant::now() + time, Cut::Never) {
            Ok(line) => self.parsed(&line).map(drop),
            Err(QmpError::TimedOut(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What a line says, unless it is an event.
    fn parsed(&mut self, line: &[u8]) -> Result<Option<Value>, QmpError> {
        let value: Value =
            serde_json::from_slice(line).map_err(|_| QmpError::form(&String::from_utf8_lossy(line)))?;
        let Some(event) = value.get("event") else { return Ok(Some(value)) };
        match event.as_str() {
            Some("RESET") => self.resets += 1,
            Some("STOP") => self.stops += 1,
            Some("RESUME") => self.resumes += 1,
            _ => {}
        }
        Ok(None)
    }

    fn send(&mut self, line: &[u8]) -> Result<(), QmpError> {
        match self.stream.write_all(line) {
            Ok(()) => {
                self.counters.sent += line.len() as u64;
                Ok(())
            }
            // A part of a line may have gone out: nothing that follows would be understood.
            Err(error) => Err(self.ends(&error)),
        }
    }

    fn ends(&mut self, error: &io::Error) -> QmpError {
        let why = match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => QmpError::Closed,
            _ => QmpError::Socket(error.to_string()),
        };
        self.gone.get_or_insert(why).clone()
    }

    /// The next line.
    fn line(&mut self, deadline: Instant, cut: Cut) -> Result<Vec<u8>, QmpError> {
        let began = Instant::now();
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.rest[self.searched..]) {
                let line: Vec<u8> = self.rest.drain(..=self.searched + end).collect();
                self.searched = 0;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Ok(line);
            }
            self.searched = self.rest.len();
            if self.rest.len() > MAX_LINE {
                return Err(self.gone.insert(QmpError::TooLong(MAX_LINE)).clone());
            }
            if cut == Cut::ByInterrupt && self.attention.is_interrupted() {
                return Err(QmpError::Interrupted);
            }
            if Instant::now() >= deadline {
                return Err(QmpError::TimedOut(deadline.saturating_duration_since(began)));
            }
            let mut piece = [0; PIECE];
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(self.gone.insert(QmpError::Closed).clone()),
                Ok(len) => {
                    self.counters.received += len as u64;
                    self.rest.extend_from_slice(&piece[..len]);
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(self.ends(&error)),
            }
        }
    }

    /// The process of the machine, if the system tells.
    pub(super) fn peer(&self) -> Option<u32> {
        self.stream.peer()
    }

    pub(super) const fn counters(&self) -> QmpCounters {
        self.counters
    }

    pub(super) const fn resets(&self) -> u64 {
        self.resets
    }

    pub(super) const fn stops(&self) -> u64 {
        self.stops
    }

    pub(super) const fn resumes(&self) -> u64 {
        self.resumes
    }

    pub(super) fn gone(&self) -> Option<String> {
        self.gone.as_ref().map(ToString::to_string)
    }

    /// QEMU's.
    pub(super) fn version(&self) -> &str {
        &self.version
    }
}
