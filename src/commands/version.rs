//! `vertarget`: which Windows the target runs, when it was stopped, and how long it had been running.
//!
//! ```text
//! 0: kd> vertarget
//! Windows Kernel Version 7601 MP Free x64
//! Built by: 7601.17514.amd64fre.win7sp1_rtm.101119-1850
//! Kernel base = 0xfffff800`0141b000 PsLoadedModuleList = 0xfffff800`01660e90
//! Debug session time: Wed Jun 19 00:05:20.118 2013 (UTC + 0:00)
//! System Uptime: 0 days 0:05:20.118
//! ```
//! WinDbg tells the time where it runs; here it is UTC everywhere. A crash dump's header has both clocks; else they are in
//! `KUSER_SHARED_DATA`, one request. Source: docs/dumps.md 2; `_KUSER_SHARED_DATA` in the symbols of kernels from 7601 to
//! 19041.

use std::fmt;

use kd_protocol::MachineType;
use serde::Serialize;

use super::answer::{Facts, Found, Query, answer};
use super::clock::{TargetTime, TargetUptime};
use super::context::Context;
use super::error::QueryError;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, Run, Takes};
use crate::memory::SharedData;
use crate::output;
use crate::target::{Note, NoteCode, Notes, OfLink, ReadError, SymbolSource, Target, VirtAddr};

pub(super) static COMMAND: CommandSpec = CommandSpec {
    names: &["vertarget"],
    usage: "vertarget",
    summary: "show which Windows the target runs, where its kernel is, its time and how long it has been running",
    takes: Takes::Nothing,
    category: Category::Target,
    details: &[],
    answers: &[TargetVersion::SCHEMA],
    run: Run::Query(run),
};

pub(super) static VERSION: CommandSpec = CommandSpec {
    names: &["version", "vercommand"],
    usage: "version",
    summary: "show verikd's version, and which Windows the target runs",
    takes: Takes::Nothing,
    category: Category::Target,
    details: &[],
    answers: &[Versions::SCHEMA],
    run: Run::Symbols(both),
};

/// The end of the latter.
const CLOCKS_END: usize = 0x20;
/// Longest build text read; the kernel's own array has 128 bytes.
const MAX_BUILD_LAB: usize = 128;

/// Asks which Windows the target runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Version;

/// Which Windows a target runs.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct TargetVersion {
    build: u16,
    free: bool,
    multiprocessor: bool,
    machine: &'static str,
    /// `nt!NtBuildLab`; nothing without symbols and debugger data.
    built_by: Option<String>,
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    kernel_base: VirtAddr,
    /// 0 where it is not known.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    loaded_module_list: VirtAddr,
    /// When it was stopped, as its own clock had it: UTC, `2013-06-19T00:05:20.118Z`.
    system_time: Option<TargetTime>,
    /// How long it had been running then, in milliseconds.
    uptime_ms: Option<TargetUptime>,
}

impl Query for Version {
    type Facts = TargetVersion;

    fn run(&self, target: &Target<'_>) -> Result<TargetVersion, QueryError> {
        let version = target.kernel().version();
        let lab = target.address_of("nt!NtBuildLab").or_else(|missing| {
            let of_data = target.debugger_data().ok().and_then(|data| data.nt_build_lab());
            of_data.ok_or(missing)
        });
        if let Err(missing) = &lab {
            let text = format!(
                "Who built the kernel is not known: no debugger data block leads to nt!NtBuildLab, and {missing}"
            );
            target.note(Note::partial(NoteCode::NoSymbols, text).broken_off_if(target.over().is_some()));
        }
        let read = lab.ok().map(|at| target.read_some(at, MAX_BUILD_LAB));
        if let Some((bytes, Some(error))) = &read
            && bytes.is_empty()
        {
            let text = format!("nt!NtBuildLab cannot be read: {error}");
            target.note(Note::partial(NoteCode::Unreadable, text).broken_off_if(error.is_of_link()));
        }
        let built_by = read.map(|(bytes, _)| bytes).and_then(|bytes| {
            let text = bytes.split(|byte| *byte == 0).next()?;
            let printable =
                !text.is_empty() && text.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
            printable.then(|| String::from_utf8_lossy(text).into_owned())
        });
        let clocks = Clocks::read(target);
        if let Some(error) = &clocks.missing {
            let text = format!("The target's clocks (KUSER_SHARED_DATA) cannot be read: {error}");
            target.note(Note::partial(NoteCode::Unreadable, text).broken_off_if(error.is_of_link()));
        }
        Ok(TargetVersion {
            build: version.build,
            free: version.major & 0xff != 0xc,
            multiprocessor: version.flags & 1 != 0,
            machine: match version.machine {
                MachineType::AMD64 => "x64",
                MachineType::ARM64 => "ARM 64-bit (AArch64)",
                MachineType::I386 => "x86 compatible",
                _ => "unknown machine",
            },
            built_by,
            kernel_base: version.base,
            loaded_module_list: target.module_list().unwrap_or_default(),
            system_time: clocks.system_time.and_then(TargetTime::of_filetime),
            uptime_ms: clocks.up_time.map(TargetUptime::of_hundreds),
        })
    }
}

/// When the target was stopped, and how long it had been running then, in units of 100 ns: as far as that is known, and why
/// no further.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    /// Since 1601.
    pub(super) system_time: Option<u64>,
    pub(super) up_time: Option<u64>,
    pub(super) missing: Option<ReadError>,
}

impl Clocks {
    pub(super) fn read(target: &Target<'_>) -> Self {
        let noted = target.noted();
        let (system_time, up_time) = (noted.system_time, noted.up_time);
        if system_time.is_some() && up_time.is_some() {
            return Self { system_time, up_time, missing: None };
        }
        let page = SharedData::address(target.pointer_size() != 4);
        let (bytes, missing) = target.read_some(page, CLOCKS_END);
        Self {
            system_time: system_time.or_else(|| system_time_at(&bytes, SharedData::SYSTEM_TIME)),
            up_time: up_time.or_else(|| system_time_at(&bytes, SharedData::INTERRUPT_TIME)),
            missing,
        }
    }
}

/// A `_KSYSTEM_TIME`; nothing if it was being written when the target was stopped: its two upper halves differ then.
fn system_time_at(page: &[u8], at: usize) -> Option<u64> {
    let word =
        |at: usize| page.get(at..at + 4).map(|it| u32::from_le_bytes(it.try_into().expect("four bytes")));
    let (low, high, again) = (word(at)?, word(at + 4)?, word(at + 8)?);
    (high == again).then(|| u64::from(high) << 32 | u64::from(low))
}

impl TargetVersion {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("target_version");
}

impl Facts for TargetVersion {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        let processors = if self.multiprocessor { "MP" } else { "UP" };
        let kind = if self.free { "Free" } else { "Checked" };
        let build = if self.build == 0 { "not known".to_owned() } else { self.build.to_string() };
        writeln!(out, "Windows Kernel Version {build} {processors} {kind} {}", self.machine)?;
        if let Some(built_by) = &self.built_by {
            writeln!(out, "Built by: {built_by}")?;
        }
        let shown = |address| context.address(address);
        write!(out, "Kernel base = 0x{} PsLoadedModuleList = ", shown(self.kernel_base))?;
        match self.loaded_module_list {
            list if list.is_null() => writeln!(out, "not known")?,
            list => writeln!(out, "0x{}", shown(list))?,
        }
        match &self.system_time {
            Some(time) => writeln!(out, "Debug session time: {time}")?,
            None => writeln!(out, "Debug session time: not available")?,
        }
        match &self.uptime_ms {
            Some(up) => writeln!(out, "System Uptime: {up}"),
            None => writeln!(out, "System Uptime: not available"),
        }
    }
}

/// Which program this is, and which Windows a stopped target runs.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
struct Versions {
    verikd: &'static str,
    target: Option<TargetVersion>,
}

impl Versions {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("versions");
}

impl Facts for Versions {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        if let Some(target) = &self.target {
            target.write_text(context, out)?;
        }
        writeln!(out, "verikd {}", self.verikd)
    }
}

fn both(_arguments: &str, _source: &SymbolSource, target: Option<&Target<'_>>, _: &Notes) -> Found {
    let verikd = env!("CARGO_PKG_VERSION");
    let target = target.map(|target| Version.run(target)).transpose()?;
    Ok(Box::new(Versions { verikd, target }))
}

fn run(_arguments: &str, target: &Target<'_>) -> Found {
    answer(&Version, target)
}
