//! `vertarget`: which Windows the target runs.

use std::fmt;

use kd_protocol::MachineType;
use serde::Serialize;

use super::answer::{Facts, Found, Query, answer};
use super::context::Context;
use super::error::QueryError;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, Run, Takes};
use crate::output;
use crate::target::{Note, NoteCode, Notes, OfLink, SymbolSource, Target, VirtAddr};

pub(super) static COMMAND: CommandSpec = CommandSpec {
    names: &["vertarget"],
    usage: "vertarget",
    summary: "show which Windows the target runs and where its kernel is",
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
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    loaded_module_list: VirtAddr,
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
            loaded_module_list: version.module_list,
        })
    }
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
        writeln!(out, "Windows Kernel Version {} {processors} {kind} {}", self.build, self.machine)?;
        if let Some(built_by) = &self.built_by {
            writeln!(out, "Built by: {built_by}")?;
        }
        let shown = |address| context.address(address);
        let (base, list) = (shown(self.kernel_base), shown(self.loaded_module_list));
        writeln!(out, "Kernel base = 0x{base} PsLoadedModuleList = 0x{list}")
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
