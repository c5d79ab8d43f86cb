//! `.dump`: the target's memory as a crash dump that other debuggers open.
//!
//! ```text
//! 0: kd> .dump /used leak.dmp
//! Creating leak.dmp - kernel bitmap dump
//! Dump successfully written: 79 pages, 0x52000 bytes
//! ```
//! `/f` is all of RAM. `/ka` is what the kernel has mapped. `/used` is what was read in this session, with what leads to it:
//! a few MiB over a slow line instead of all, enough to ask the same questions again.
//!
//! A kernel that keeps its debugger data block encoded has it plain in the dump, as other debuggers look for it.

use std::fmt;
use std::path::Path;

use kd_protocol::MachineType;
use serde::Serialize;

use super::answer::{Facts, Found, Query, answer};
use super::bugcheck::BugCheckQuery;
use super::context::Context;
use super::error::QueryError;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, Glued, Run, Takes};
use super::version::Clocks;
use super::write_file::may_write;
use crate::dump::{self, DumpFacts, DumpForm};
use crate::memory::{
    Frames, Memory, Paging, PhysAddr, PhysicalMemory, ReadCause, SharedData, Translation, Translator,
};
use crate::target::{DebuggerData, Image, Note, NoteCode, Target, TargetError, VirtAddr};

pub(super) static COMMAND: CommandSpec = CommandSpec {
    names: &[".dump"],
    usage: ".dump [/o] /f|/ka|/used FILE",
    summary: "write the target's memory to a crash dump",
    takes: Takes::Arguments(Glued::Slash),
    category: Category::Target,
    details: &[
        ("/f", "all of RAM"),
        ("/ka", "what the kernel has mapped"),
        (
            "/used",
            "what was read in this session, and the stopped processor's stack: little, and enough for the same questions",
        ),
        ("/o", "overwrite the file"),
        ("FILE", "up to the next semicolon, or in quotes"),
    ],
    answers: &[Dumped::SCHEMA],
    run: Run::Query(run),
};

const PAGE: u64 = 0x1000;
/// Where a kernel's addresses begin, of 64-bit machines and of 32-bit ones, and where they end.
const KERNEL: [(VirtAddr, VirtAddr); 2] =
    [(VirtAddr(0xffff_8000_0000_0000), VirtAddr(u64::MAX)), (VirtAddr(0x8000_0000), VirtAddr(0xffff_ffff))];
/// Bytes of a processor's block that are kept.
const KPRCB: usize = 0x8000;
/// No machine has more processors.
const MAX_PROCESSORS: u64 = 2048;
/// Bytes of the stopped processor's stack, and how much of it is walked.
const STACK: usize = 0x4000;
const FRAMES: usize = 128;

/// Which pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Selection {
    Full,
    Kernel,
    Used,
}

/// What was written where.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub(super) struct Dumped {
    file: String,
    /// `1`, `5`, `6`.
    dump_type: u32,
    pages: u64,
    /// Pages that could not be read.
    unread: u64,
    bytes: u64,
}

struct DumpQuery<'a> {
    selection: Selection,
    overwrites: bool,
    path: &'a str,
}

fn run(arguments: &str, target: &Target<'_>) -> Found {
    answer(&parsed(arguments)?, target)
}

fn parsed(arguments: &str) -> Result<DumpQuery<'_>, QueryError> {
    let usage =
        |problem: String| QueryError::Usage { command: COMMAND.names[0], problem, usage: COMMAND.usage };
    let (mut selection, mut overwrites) = (None, false);
    let mut rest = arguments.trim();
    while let Some(option) = rest.strip_prefix('/') {
        let (option, behind) = option.split_once(char::is_whitespace).unwrap_or((option, ""));
        match option {
            "f" => selection = Some(Selection::Full),
            // What WinDbg's /k and /ka leave out is a user's; a kernel's tables lead to none of it.
            "k" | "ka" => selection = Some(Selection::Kernel),
            "used" => selection = Some(Selection::Used),
            "o" => overwrites = true,
            // A path begins so too.
            _ if selection.is_some() => break,
            other if other.starts_with('m') => {
                return Err(usage("a small dump (/m) has nothing of pool or Driver Verifier in it, and is not written; /used is small".into()));
            }
            other => return Err(usage(format!("/{other} is not known"))),
        }
        rest = behind.trim_start();
    }
    let path = rest.trim().trim_matches('"').trim();
    let selection = selection.ok_or_else(|| usage("which pages: /f, /ka or /used".into()))?;
    if path.is_empty() { Err(usage("no file".into())) } else { Ok(DumpQuery { selection, overwrites, path }) }
}

fn failed(source: TargetError) -> QueryError {
    QueryError::Target { command: COMMAND.names[0], source }
}

fn refused(reason: impl Into<String>) -> QueryError {
    QueryError::NoData { command: COMMAND.names[0], reason: reason.into() }
}

impl Query for DumpQuery<'_> {
    type Facts = Dumped;

    fn run(&self, target: &Target<'_>) -> Result<Dumped, QueryError> {
        may_write(COMMAND.names[0], std::iter::once(Path::new(self.path)))?;
        let tables = target.memory().page_tables().map_err(|cause| match cause {
            cause if cause.is_of_link() => QueryError::Lost(cause),
            cause => refused(format!("the root of the kernel's page tables is not known: {cause}")),
        })?;
        let facts = DumpFacts { root: tables.root, is_pae: tables.paging == Paging::Pae, ..facts(target) };
        let translator = Translator::new(tables.root, tables.paging);
        let mut physical = Physical { memory: target.memory(), changed: Vec::new() };
        let mut frames = Frames::default();
        match self.selection {
            Selection::Full => {
                for range in ram(target)? {
                    frames.add(range.start / PAGE, (range.end - range.start) / PAGE);
                }
            }
            Selection::Kernel => {
                let all = KERNEL[usize::from(is_32_bit(target))];
                translator.add_frames(&physical, all, &mut frames).map_err(QueryError::Lost)?;
            }
            Selection::Used => {
                let read = read_what_readers_want(target, &facts);
                for page in target.memory().touched().into_iter().chain(read) {
                    let page = (page, page.offset(PAGE - 1));
                    translator.add_frames(&physical, page, &mut frames).map_err(QueryError::Lost)?;
                }
            }
        }
        if let Ok(block) = target.debugger_data()
            && let Some((plain, flag)) = block.decoded()
        {
            physical.change(&translator, block.address(), plain);
            physical.change(&translator, flag, &[0]);
        }
        let runs = frames.into_runs();
        let total: u64 = runs.iter().map(|(_, count)| count).sum();
        target.announce(&announcement(total, target.memory().request_len() as u64));
        let form = if self.selection == Selection::Full { DumpForm::Full } else { DumpForm::Kernel };
        let mut advance = |done, total| target.advance("pages", done, total);
        let written =
            dump::write(Path::new(self.path), self.overwrites, &facts, form, &runs, &physical, &mut advance);
        let written = written.map_err(|error| match error {
            dump::WriteError::Read(cause) => QueryError::Lost(cause),
            other => QueryError::File { command: COMMAND.names[0], reason: other.to_string() },
        })?;
        if written.unread > 0 {
            let text =
                format!("{} of {total} pages could not be read, and are not in the dump", written.unread);
            target.note(Note::partial(NoteCode::Unreadable, text));
        }
        Ok(Dumped {
            file: self.path.to_owned(),
            dump_type: written.dump_type,
            pages: written.pages,
            unread: written.unread,
            bytes: written.bytes,
        })
    }
}

/// What it will cost.
fn announcement(pages: u64, request_len: u64) -> String {
    let mib = (pages * PAGE) as f64 / f64::from(1 << 20);
    let bytes = format!("{pages} pages, {mib:.1} MiB");
    if request_len == 0 {
        return format!("Writing {bytes}");
    }
    let requests = pages * PAGE.div_ceil(request_len);
    format!("Writing {bytes}: {requests} requests while the target stands still; Ctrl+C gives up")
}

/// What a header says.
fn facts(target: &Target<'_>) -> DumpFacts {
    let version = target.kernel().version();
    let block = target.debugger_data().ok();
    let bug_check = BugCheckQuery.run(target).ok().filter(super::bugcheck::BugCheck::happened);
    let clocks = Clocks::read(target);
    DumpFacts {
        system_time: clocks.system_time.unwrap_or(0),
        up_time: clocks.up_time.unwrap_or(0),
        major: version.major,
        build: version.build,
        machine: version.machine,
        root: 0,
        is_pae: false,
        module_list: target.module_list().unwrap_or_default(),
        process_list: block.as_ref().and_then(DebuggerData::ps_active_process_head).unwrap_or_default(),
        debugger_data: block.as_ref().map_or(VirtAddr(0), |block| block.address()),
        processors: processor_blocks(target).len() as u32,
        bug_check: bug_check.and_then(|it| {
            let [first, second, third, fourth] = it.parameters?;
            Some([it.code.into(), first, second, third, fourth])
        }),
        context: target.context().ok(),
    }
}

fn is_32_bit(target: &Target<'_>) -> bool {
    target.pointer_size() == 4
}

/// As wide as a pointer is.
fn word(target: &Target<'_>, at: VirtAddr) -> Option<u64> {
    let mut bytes = [0; 8];
    target.memory().read_virtual(at, &mut bytes[..target.pointer_size()]).ok()?;
    Some(u64::from_le_bytes(bytes))
}

/// `KiProcessorBlock`: the KPRCB of each processor.
fn processor_blocks(target: &Target<'_>) -> Vec<VirtAddr> {
    let Ok(block) = target.debugger_data() else { return Vec::new() };
    let Some(array) = block.ki_processor_block() else { return Vec::new() };
    let size = target.pointer_size() as u64;
    let blocks = (0..MAX_PROCESSORS).map_while(|index| word(target, array.offset(size * index)));
    blocks.take_while(|block| *block != 0).map(VirtAddr).filter(|block| target.is_kernel(*block)).collect()
}

/// Reads what whoever opens a dump looks at first, so that it is among what was read; what lies in no page that is kept by
/// reading is returned.
fn read_what_readers_want(target: &Target<'_>, facts: &DumpFacts) -> Vec<VirtAddr> {
    // Whoever opens a dump without more looks there.
    let mut pages = vec![SharedData::address(!is_32_bit(target))];
    let read = |at: VirtAddr, len: usize| drop(target.read_some(at, len));
    read(facts.module_list, 16);
    if let Ok(modules) = target.modules() {
        for module in modules.modules() {
            read(module.base, PAGE as usize);
            // Its debug directory too. What cannot be read is told when it is asked for.
            let _ = Image::read(target.memory(), module.base);
        }
    }
    if let Ok(unloaded) = target.unloaded_modules() {
        target.read_unloaded_names(&unloaded);
    }
    let _ = super::version::Version.run(target);
    // A stack needs its images' tables; where it ends, or that none is to be had, is told to whoever asks for it.
    let _ = target.stack(None, FRAMES);
    if !facts.debugger_data.is_null() {
        pages.push(facts.debugger_data);
    }
    for block in processor_blocks(target) {
        // A KPCR begins in the page before its KPRCB.
        let before = VirtAddr(block.0.saturating_sub(PAGE));
        pages.extend((0..=KPRCB as u64 / PAGE).map(|page| before.offset(page * PAGE)));
    }
    let stack = match facts.machine {
        MachineType::ARM64 => 0x100..0x108,
        MachineType::I386 => 0xc4..0xc8,
        _ => 0x98..0xa0,
    };
    if let Some(register) = facts.context.as_ref().and_then(|context| context.get(stack)) {
        let mut pointer = [0; 8];
        pointer[..register.len()].copy_from_slice(register);
        let pointer = u64::from_le_bytes(pointer);
        pages.extend((0..STACK as u64 / PAGE).map(|page| VirtAddr(pointer.saturating_add(page * PAGE))));
    }
    pages.iter().map(|page| VirtAddr(page.0 & !(PAGE - 1))).collect()
}

/// All of RAM: as the source has it, else as its kernel counts it.
fn ram(target: &Target<'_>) -> Result<Vec<std::ops::Range<u64>>, QueryError> {
    if let Some(ram) = target.memory().ram() {
        return Ok(ram);
    }
    // _PHYSICAL_MEMORY_DESCRIPTOR: u32 NumberOfRuns, then words: NumberOfPages, {BasePage, PageCount} each.
    const MAX_RUNS: u32 = 4096;
    let variable = target.address_of("nt!MmPhysicalMemoryBlock").map_err(failed)?;
    let unread =
        |at: VirtAddr| refused(format!("nt!MmPhysicalMemoryBlock cannot be read at {}", target.shown(at)));
    let size = target.pointer_size() as u64;
    let block = word(target, variable).map(VirtAddr).ok_or_else(|| unread(variable))?;
    let count = word(target, block).map(|it| it as u32).ok_or_else(|| unread(block))?;
    if count == 0 || count > MAX_RUNS {
        return Err(refused(format!("nt!MmPhysicalMemoryBlock has {count:#x} runs")));
    }
    let run = |index: u32| {
        let at = block.offset(2 * size * (1 + u64::from(index)));
        let (first, count) = word(target, at).zip(word(target, at.offset(size))).ok_or_else(|| unread(at))?;
        let end = first.checked_add(count).filter(|end| *end < 1 << 38);
        end.map(|end| first * PAGE..end * PAGE)
            .ok_or_else(|| refused(format!("a run of {count:#x} pages at frame {first:#x} is no machine's")))
    };
    (0..count).map(run).collect()
}

/// A target's physical memory, and what is written otherwise than it has it.
struct Physical<'a> {
    memory: &'a dyn Memory,
    /// Where, within a page, and what.
    changed: Vec<(PhysAddr, Vec<u8>)>,
}

impl Physical<'_> {
    /// Has `bytes` at an address, as far as it is mapped.
    fn change(&mut self, translator: &Translator, mut at: VirtAddr, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let len = bytes.len().min((PAGE - at.0 % PAGE) as usize);
            if let Translation::Mapped { at, .. } = translator.translate(self, at) {
                self.changed.push((at, bytes[..len].to_vec()));
            }
            (at, bytes) = (at.offset(len as u64), &bytes[len..]);
        }
    }
}

impl PhysicalMemory for Physical<'_> {
    fn read(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), (usize, ReadCause)> {
        let read = self.memory.read_physical(address, buf).map_err(|error| (error.got, error.cause));
        for (at, bytes) in &self.changed {
            let start = at.0.max(address.0);
            let end = (at.0 + bytes.len() as u64).min(address.0.saturating_add(buf.len() as u64));
            if start < end {
                let (from, to) = ((start - at.0) as usize, (end - at.0) as usize);
                buf[(start - address.0) as usize..(end - address.0) as usize]
                    .copy_from_slice(&bytes[from..to]);
            }
        }
        read
    }

    fn ranges(&self) -> Vec<std::ops::Range<u64>> {
        self.memory.ram().unwrap_or_default()
    }

    fn end(&self) -> PhysAddr {
        let last = self.memory.ram().and_then(|ram| ram.iter().map(|range| range.end).max());
        // Where it is not known a frame is believed.
        PhysAddr(last.unwrap_or(1 << 52))
    }
}

impl Dumped {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("dumped");
}

impl Facts for Dumped {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, _: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        let kind = match self.dump_type {
            6 => "Kernel bitmap dump",
            5 => "Full bitmap dump",
            _ => "Full kernel dump",
        };
        writeln!(out, "Creating {} - {kind}", self.file)?;
        writeln!(out, "Dump successfully written: {} pages, {:#x} bytes", self.pages, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_which_pages_and_where_to() {
        let of = |line| parsed(line).map(|it| (it.selection, it.overwrites, it.path)).ok();
        assert_eq!(of("/f a.dmp"), Some((Selection::Full, false, "a.dmp")));
        assert_eq!(of("/o /ka \"a b.dmp\""), Some((Selection::Kernel, true, "a b.dmp")));
        assert_eq!(of("/used /o a b.dmp"), Some((Selection::Used, true, "a b.dmp")));
        assert_eq!(of("/f /tmp/a.dmp"), Some((Selection::Full, false, "/tmp/a.dmp")));
        for bad in ["", "a.dmp", "/f", "/ma a.dmp", "/x a.dmp", "/o a.dmp", "/o /tmp/a.dmp"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_it_costs_is_told_before() {
        assert_eq!(announcement(0x100, 0), "Writing 256 pages, 1.0 MiB");
        assert_eq!(
            announcement(0x200, 1096),
            "Writing 512 pages, 2.0 MiB: 2048 requests while the target stands still; Ctrl+C gives up"
        );
    }
}
