//! `!running`: which thread each processor runs.
//!
//! ```text
//! 0: kd> !running -i
//!
//! System Processors:  (0000000000000003)
//!   Idle Processors:  (0000000000000002)
//!
//!        Prcbs             Current         (pri) Next            (pri) Idle
//!   0    fffff800015dfe80  fffffa80044ceb60 ( 8)                       fffff800015edcc0
//!   1    fffff880009e6180  fffff880009f1040 ( 0)                       fffff880009f1040
//! ```
//! Without `-i` processors that are idle are left out. One request for their addresses, and one or two for each kernel's
//! worth of them: `_KPRCB.CurrentThread`, `NextThread` and `IdleThread` are neighbours. Source: the symbols of kernels from
//! 7601 to 26100; `nt!KiProcessorBlock` is in KDDEBUGGER_DATA64 too.

use std::fmt;

use serde::Serialize;

use super::answer::{Facts, Found};
use super::arguments::Arguments;
use super::context::Context;
use super::error::QueryError;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, Glued, Run, Takes};
use crate::output;
use crate::target::{Note, NoteCode, OfLink, ReadError, Target, TargetError, VirtAddr};

pub(super) static COMMAND: CommandSpec = CommandSpec {
    names: &["!running"],
    usage: "!running [-i]",
    summary: "show which thread each processor runs",
    takes: Takes::Arguments(Glued::Dash),
    category: Category::Target,
    details: &[("-i", "idle processors too")],
    answers: &[Running::SCHEMA],
    run: Run::Query(run),
};

/// Most processors that a kernel has a place for.
const MAX_PROCESSORS: usize = 2048;
/// Addresses read at a time: all of a machine of that many processors.
const AT_ONCE: usize = 64;

/// Processors and their threads.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
struct Running {
    processors: Vec<Processor>,
    #[serde(skip)]
    with_idle: bool,
}

/// One processor.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
struct Processor {
    number: u16,
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    prcb: VirtAddr,
    /// Nothing where they cannot be read.
    threads: Option<Threads>,
}

/// What a processor has of threads.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
struct Threads {
    current: Thread,
    /// The one that was chosen to come next.
    next: Option<Thread>,
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    idle: VirtAddr,
}

#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
struct Thread {
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    thread: VirtAddr,
    priority: Option<u8>,
}

impl Processor {
    fn is_idle(&self) -> bool {
        self.threads.as_ref().is_some_and(|threads| threads.current.thread == threads.idle)
    }
}

impl Running {
    /// The form of its JSON.
    const SCHEMA: Schema = Schema::of::<Self>("running");
}

impl Facts for Running {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, context: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        let masks = |fits: fn(&Processor) -> bool| -> String {
            let groups = self.processors.len().div_ceil(64).max(1);
            let mut masks = vec![0_u64; groups];
            for it in self.processors.iter().filter(|it| fits(it)) {
                masks[usize::from(it.number) / 64] |= 1 << (it.number % 64);
            }
            let masks: Vec<String> = masks.iter().map(|mask| format!("({mask:016x})")).collect();
            masks.join(" ")
        };
        writeln!(out, "\nSystem Processors:  {}", masks(|_| true))?;
        writeln!(out, "  Idle Processors:  {}\n", masks(Processor::is_idle))?;
        let width = 2 * context.pointer_size;
        writeln!(out, "       {:width$}  {:width$}(pri) {:width$}(pri) Idle", "Prcbs", "Current", "Next")?;
        for it in self.processors.iter().filter(|it| self.with_idle || !it.is_idle()) {
            write!(out, "{:3}    {}  ", it.number, context.pointer(it.prcb))?;
            let Some(threads) = &it.threads else {
                writeln!(out, "??")?;
                continue;
            };
            let shown = |thread: &Thread| {
                let priority = thread.priority.map_or_else(|| "??".into(), |it| format!("{it:2}"));
                format!("{} ({priority})", context.pointer(thread.thread))
            };
            let next = threads.next.as_ref().map(shown).unwrap_or_default();
            let (current, room) = (shown(&threads.current), width + 5);
            writeln!(out, "{current} {next:room$} {}", context.pointer(threads.idle))?;
        }
        Ok(())
    }
}

fn run(text: &str, target: &Target<'_>) -> Found {
    let mut arguments = Arguments::new(&COMMAND, text);
    let mut with_idle = false;
    while let Some(word) = arguments.word() {
        match word {
            "-i" => with_idle = true,
            "-t" | "-it" | "-ti" => {
                return Err(arguments.usage("stacks are not walked here; `dps` shows what a stack holds"));
            }
            other => return Err(arguments.usage(format!("`{other}` is none of its options"))),
        }
    }
    let prcbs = prcbs(target).map_err(of_target)?;
    let threads = threads(&prcbs, target).map_err(of_target)?;
    let processors = prcbs.into_iter().zip(threads).zip(0..);
    let processors =
        processors.map(|((prcb, threads), number)| Processor { number, prcb, threads }).collect();
    Ok(Box::new(Running { processors, with_idle }))
}

const fn of_target(source: TargetError) -> QueryError {
    QueryError::Target { command: "!running", source }
}

/// The processors' control blocks; the array of them ends with a null.
fn prcbs(target: &Target<'_>) -> Result<Vec<VirtAddr>, TargetError> {
    let block = target.address_of("nt!KiProcessorBlock").or_else(|missing| {
        let of_data = target.debugger_data().ok().and_then(|data| data.ki_processor_block());
        of_data.ok_or(missing)
    })?;
    let size = target.pointer_size();
    let mut found = Vec::new();
    while found.len() < MAX_PROCESSORS {
        let at = block.offset((found.len() * size) as u64);
        let (bytes, error) = target.read_some(at, AT_ONCE * size);
        let pointers: Vec<_> = bytes.chunks_exact(size).map(|bytes| pointer(bytes, target)).collect();
        let valid = pointers.iter().take_while(|it| target.is_kernel(**it)).count();
        found.extend_from_slice(&pointers[..valid]);
        match error {
            _ if valid < pointers.len() => break,
            Some(error) if found.is_empty() => return Err(TargetError::read("nt!KiProcessorBlock", error)),
            Some(error) => {
                note(&format!("The list of processors breaks off: {error}"), &error, target);
                break;
            }
            None => {}
        }
    }
    Ok(found)
}

fn pointer(bytes: &[u8], target: &Target<'_>) -> VirtAddr {
    let mut whole = [0; 8];
    whole[..bytes.len()].copy_from_slice(bytes);
    target.address(u64::from_le_bytes(whole))
}

fn note(text: &str, error: &ReadError, target: &Target<'_>) {
    target.note(Note::partial(NoteCode::Unreadable, text).broken_off_if(error.is_of_link()));
}

/// The threads of each processor, in two rounds of reading: who they are, and their priorities.
fn threads(prcbs: &[VirtAddr], target: &Target<'_>) -> Result<Vec<Option<Threads>>, TargetError> {
    let prcb = target.layout("nt!_KPRCB")?;
    let places = [
        prcb.place("CurrentThread")?.offset,
        prcb.place("NextThread")?.offset,
        prcb.place("IdleThread")?.offset,
    ];
    let priority = target.layout("nt!_KTHREAD").and_then(|thread| thread.place("Priority"));
    let size = target.pointer_size();
    let ranges: Vec<_> = prcbs.iter().flat_map(|at| places.map(|place| (at.offset(place), size))).collect();
    let words = target.read_ranges(&ranges);
    let mut found = Vec::new();
    for (number, words) in words.chunks(places.len()).enumerate() {
        let [Ok(current), Ok(next), Ok(idle)] = words else {
            if let Some(Err(error)) = words.iter().find(|it| it.is_err()) {
                note(&format!("The threads of processor {number} cannot be read: {error}"), error, target);
            }
            found.push(None);
            continue;
        };
        found.push(Some([current, next, idle].map(|bytes| pointer(bytes, target))));
    }
    let wanted: Vec<VirtAddr> = found
        .iter()
        .flatten()
        .flat_map(|[current, next, _]| [*current, *next])
        .filter(|it| !it.is_null())
        .collect();
    let priorities = priority.ok().map(|place| {
        let ranges: Vec<_> = wanted.iter().map(|thread| (thread.offset(place.offset), 1)).collect();
        target.read_ranges(&ranges)
    });
    let thread = |address: VirtAddr| {
        let at = wanted.iter().position(|it| *it == address);
        let read = at.and_then(|at| priorities.as_ref()?.get(at)?.as_ref().ok());
        Thread { thread: address, priority: read.and_then(|bytes| bytes.first().copied()) }
    };
    let of = |[current, next, idle]: [VirtAddr; 3]| Threads {
        current: thread(current),
        next: (!next.is_null()).then(|| thread(next)),
        idle,
    };
    Ok(found.into_iter().map(|threads| threads.map(of)).collect())
}
