//! What QEMU's monitor is told and asked.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::config::VmConfig;
use super::error::{QmpError, VmError};
use super::layout::{self, RamRange};
use super::place::VmPlace;
use super::qmp::{Cut, Qmp};
use super::registers;
use crate::physical::Processor;

pub(super) const PAGE: usize = 0x1000;

/// A monitor, in the words of machines.
pub(super) struct Monitor {
    pub(super) qmp: Qmp,
}

impl Monitor {
    pub(super) fn connect(place: &VmPlace, config: &VmConfig) -> Result<Self, VmError> {
        Ok(Self { qmp: Qmp::connect(place, config)? })
    }

    /// True if the machine runs; else it is paused, off, or was never started: what it is, in the monitor's word.
    pub(super) fn is_running(&mut self) -> Result<(bool, String), QmpError> {
        let status = self.qmp.execute("query-status", None, Cut::ByInterrupt)?;
        match (status["running"].as_bool(), status["status"].as_str()) {
            (Some(is_running), Some(word)) => Ok((is_running, word.chars().take(40).collect())),
            _ => Err(QmpError::form(&status.to_string())),
        }
    }

    /// Pauses the machine. Not cut short: what was told to stop must be known to have stopped.
    pub(super) fn stop(&mut self) -> Result<(), QmpError> {
        self.qmp.execute("stop", None, Cut::Never).map(drop)
    }

    /// Lets the machine run.
    pub(super) fn cont(&mut self) -> Result<(), QmpError> {
        self.qmp.execute("cont", None, Cut::Never).map(drop)
    }

    /// What a person would be told (HMP).
    fn human(&mut self, line: &str) -> Result<String, QmpError> {
        let arguments = json!({ "command-line": line });
        match self.qmp.execute("human-monitor-command", Some(arguments), Cut::ByInterrupt)? {
            Value::String(text) => Ok(text),
            other => Err(QmpError::form(&other.to_string())),
        }
    }

    pub(super) fn processors(&mut self) -> Result<Vec<Processor>, VmError> {
        let text = self.human("info registers -a").map_err(of("info registers -a"))?;
        registers::of_all(&text).map_err(VmError::Processors)
    }

    pub(super) fn ram(&mut self) -> Result<Vec<RamRange>, VmError> {
        let text = self.human("info mtree -f").map_err(of("info mtree -f"))?;
        let ranges = layout::of_tree(&text).map_err(|text| of("info mtree -f")(QmpError::form(&text)))?;
        if ranges.is_empty() { Err(VmError::NoRam) } else { Ok(ranges) }
    }

    /// The file that a backend's memory is shared in; nothing if it is private, or in no file.
    pub(super) fn shared_file(&mut self, backend: &str) -> Result<Option<PathBuf>, QmpError> {
        let path = format!("/objects/{backend}");
        let mut property = |name: &str| {
            let arguments = json!({ "path": path, "property": name });
            match self.qmp.execute("qom-get", Some(arguments), Cut::ByInterrupt) {
                Ok(value) => Ok(Some(value)),
                // Other kinds of backends have no such property, and a machine's own RAM is no object.
                Err(QmpError::Refused(_)) => Ok(None),
                Err(error) => Err(error),
            }
        };
        // What is not shared shows what was there when the machine was started.
        if property("share")? != Some(Value::Bool(true)) {
            return Ok(None);
        }
        Ok(property("mem-path")?.and_then(|it| it.as_str().map(PathBuf::from)))
    }

    /// Where QEMU's process has the byte at this physical address.
    pub(super) fn host_address(&mut self, at: u64) -> Result<Option<u64>, QmpError> {
        let text = self.human(&format!("gpa2hva {at:#x}"))?;
        let address = text.trim().rsplit_once(" is 0x").map(|(_, address)| address);
        Ok(address.and_then(|address| u64::from_str_radix(address, 16).ok()))
    }

    /// The page at this physical address, which must be RAM.
    pub(super) fn page(&mut self, at: u64) -> Result<[u8; PAGE], QmpError> {
        let text = self.human(&format!("xp /512gx {at:#x}"))?;
        let mut page = [0; PAGE];
        let words = text
            .lines()
            .filter_map(|line| line.split_once(": "))
            .flat_map(|(_, words)| words.split_whitespace());
        let mut count = 0;
        for word in words {
            let value = word.strip_prefix("0x").and_then(|word| u64::from_str_radix(word, 16).ok());
            match (value, page.get_mut(8 * count..8 * count + 8)) {
                (Some(value), Some(bytes)) => bytes.copy_from_slice(&value.to_le_bytes()),
                _ => return Err(QmpError::form(&text)),
            }
            count += 1;
        }
        if count * 8 == PAGE { Ok(page) } else { Err(QmpError::form(&text)) }
    }
}

/// Of a command that was not carried out.
pub(super) fn of(command: &str) -> impl Fn(QmpError) -> VmError {
    move |source| VmError::Command { command: command.to_owned(), source }
}
