//! The logs of injected faults, IRQL changes, forced-pending requests, I/O requests and critical regions.
//!
//! ```text
//!  flag   array                      record
//!     4   ViFaultTraces              _VI_FAULT_TRACE               Thread
//!     8   ViTrackIrqlQueue           _VI_TRACK_IRQL                Thread, OldIrql, NewIrql, Processor, TickCount
//!    40   VfForcedPendingLog         _IOV_FORCED_PENDING_TRACE     Irp, Thread
//!   100   IovIrpTraces               _IOV_IRP_TRACE                Irp, Thread, KernelApcDisable, SpecialApcDisable, Irql
//!   200   VfKeCriticalRegionTraces   _VF_KE_CRITICAL_REGION_TRACE  Thread
//! ```
//! Each has a `StackTrace` too, and each is a ring, read as the pool log is. The public symbols of Windows 7 lack `_IOV_IRP_TRACE`,
//! so its log of I/O requests is not shown.
//!
//! Source: verifier.md 5; text of 4 and 8: verifier-samples.md S3, S4. No sample was found of the other logs; they are
//! printed in the style of 8.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

use super::common::{NAME, failed};
use super::format::Era;
use super::frames::{self, Frame, Names};
use super::ring::{self, Filter, Ring, Variables, Wanted};
use super::scan::{self, Scan, Seen};
use crate::commands::answer::Query;
use crate::commands::error::QueryError;
use crate::commands::schema::Schema;
use crate::output;
use crate::target::{Layout, Note, NoteCode, Place, ReadCause, Target, TargetError, VirtAddr};

/// Most records kept in one answer.
const MAX_RECORDS: usize = 0x1_0000;

/// One of these logs.
#[derive(Debug)]
pub struct TraceKind {
    /// `!verifier`'s flag for it.
    pub flag: u64,
    /// How it is asked for.
    pub(super) query: &'static str,
    /// Its name in JSON.
    pub name: &'static str,
    /// Its heading in text.
    pub(super) title: &'static str,
    /// What it is called in a sentence.
    pub(super) called: &'static str,
    variables: Variables,
    pub(super) record: &'static str,
    /// Records shown if nothing says how many.
    usual: u64,
    fields: &'static [FieldKind],
    /// Which Level bit turns it on.
    turned_on_by: &'static str,
}

impl TraceKind {
    /// The kernel's variables of it.
    pub(super) fn variables(&self) -> [&'static str; 3] {
        [self.variables.pointer, self.variables.index, self.variables.length]
    }
}

/// A field that such a record may have.
#[derive(Debug)]
struct FieldKind {
    path: &'static str,
    name: &'static str,
    label: &'static str,
    is_address: bool,
}

const fn address(path: &'static str, name: &'static str, label: &'static str) -> FieldKind {
    FieldKind { path, name, label, is_address: true }
}

const fn number(path: &'static str, name: &'static str, label: &'static str) -> FieldKind {
    FieldKind { path, name, label, is_address: false }
}

const THREAD: FieldKind = address("Thread", "thread", "Thread:");
const IRP: FieldKind = address("Irp", "irp", "Irp:");

/// Injected faults.
pub(super) const FAULTS: u64 = 4;

/// The logs by their flags.
pub(super) static TRACES: &[TraceKind] = &[
    TraceKind {
        flag: FAULTS,
        query: "!verifier 4",
        name: "faults",
        title: "Fault injection trace log",
        called: "fault injection log",
        variables: Variables {
            pointer: "nt!ViFaultTraces",
            index: "nt!ViFaultTracesIndex",
            length: "nt!ViFaultTracesLength",
        },
        record: "nt!_VI_FAULT_TRACE",
        usual: 4,
        fields: &[THREAD],
        turned_on_by: "Randomized low resources simulation (/flags 0x4)",
    },
    TraceKind {
        flag: 8,
        query: "!verifier 8",
        name: "irql",
        title: "Track irql trace log",
        called: "IRQL transition log",
        variables: Variables {
            pointer: "nt!ViTrackIrqlQueue",
            index: "nt!ViTrackIrqlIndex",
            length: "nt!ViTrackIrqlQueueLength",
        },
        record: "nt!_VI_TRACK_IRQL",
        usual: 4,
        fields: &[
            THREAD,
            number("OldIrql", "old_irql", "Old irql:"),
            number("NewIrql", "new_irql", "New irql:"),
            number("Processor", "processor", "Processor:"),
            number("TickCount", "tick_count", "Time stamp:"),
        ],
        turned_on_by: "Force IRQL checking (/flags 0x2)",
    },
    TraceKind {
        flag: 0x40,
        query: "!verifier 40",
        name: "forced_pending",
        title: "Forced pending trace log",
        called: "forced pending log",
        variables: Variables {
            pointer: "nt!VfForcedPendingLog",
            index: "nt!VfForcedPendingIrps",
            length: "nt!VfForcedPendingLogLength",
        },
        record: "nt!_IOV_FORCED_PENDING_TRACE",
        usual: 4,
        fields: &[IRP, THREAD],
        turned_on_by: "Force pending I/O requests (/flags 0x200)",
    },
    TraceKind {
        flag: 0x100,
        query: "!verifier 100",
        name: "irps",
        title: "Irp trace log",
        called: "IRP log",
        variables: Variables {
            pointer: "nt!IovIrpTraces",
            index: "nt!IovIrpTracesIndex",
            length: "nt!IovIrpTracesLength",
        },
        record: "nt!_IOV_IRP_TRACE",
        usual: 0x40,
        fields: &[
            IRP,
            THREAD,
            number("Irql", "irql", "Irql:"),
            number("KernelApcDisable", "kernel_apc_disable", "KernelApcDisable:"),
            number("SpecialApcDisable", "special_apc_disable", "SpecialApcDisable:"),
        ],
        turned_on_by: "IRP logging (/flags 0x400)",
    },
    TraceKind {
        flag: 0x200,
        query: "!verifier 200",
        name: "critical_regions",
        title: "Critical region trace log",
        called: "critical region log",
        variables: Variables {
            pointer: "nt!VfKeCriticalRegionTraces",
            index: "nt!VfKeCriticalRegionTracesIndex",
            length: "nt!VfKeCriticalRegionTracesLength",
        },
        record: "nt!_VF_KE_CRITICAL_REGION_TRACE",
        usual: 0x40,
        fields: &[THREAD],
        turned_on_by: "the options that check critical regions",
    },
];

/// Asks for records of one of the logs.
#[derive(Clone, Copy, Debug)]
pub struct TraceQuery {
    /// Which log.
    pub kind: &'static TraceKind,
    /// Which records: the newest, or those of a thread or request.
    pub wanted: Wanted,
}

/// Records of one of the logs, newest first.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct TraceLog {
    /// Which log.
    #[serde(serialize_with = "name_of_kind", rename = "log")]
    #[schemars(with = "String")]
    pub kind: &'static TraceKind,
    /// The time that the target's Windows is of.
    pub era: Era,
    /// The array; 0 if there is none.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub start: VirtAddr,
    /// Records that the log has room for.
    pub length: u64,
    /// Counts events, its low bits are the newest slot.
    pub index: u32,
    /// Return addresses that a record has room for.
    pub depth: u64,
    /// The thread or request that was searched for, if one was.
    #[serde(serialize_with = "output::address_or_null")]
    #[schemars(with = "Option<output::Hex>")]
    pub address: Option<VirtAddr>,
    /// How many of the newest were asked for, if no address was.
    pub quantity: Option<u64>,
    /// Records that were looked at.
    pub parsed: u64,
    /// Records among them that could not be read.
    pub unreadable: u64,
    /// What was found.
    pub records: Vec<Trace>,
}

/// One record.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Trace {
    /// Its place in the log's array.
    pub slot: u64,
    /// Where it is.
    #[serde(serialize_with = "output::address")]
    #[schemars(with = "output::Hex")]
    pub record: VirtAddr,
    /// What it says, in the order of the text.
    #[serde(flatten)]
    pub fields: TraceFields,
    /// Return addresses, the innermost first.
    pub stack: Vec<Frame>,
    /// The end of the stack could not be read.
    pub stack_cut: bool,
    /// It has no thread, or no stack where others have one: a processor may have been stopped while it wrote it.
    pub torn: bool,
}

/// Names and values of a record's fields.
#[derive(Clone, Debug)]
pub struct TraceFields(Vec<(&'static FieldKind, u64)>);

impl TraceFields {
    /// Label and value of each.
    pub(super) fn labelled(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(kind, value)| (kind.label, *value))
    }

    fn addresses(&self) -> impl Iterator<Item = VirtAddr> {
        self.0.iter().filter(|(kind, _)| kind.is_address).map(|(_, value)| VirtAddr(*value))
    }
}

/// A map: addresses as texts, numbers as numbers.
impl Serialize for TraceFields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(kind, value)| {
            let value = match kind.is_address {
                true => serde_json::Value::from(format!("{value:#x}")),
                false => serde_json::Value::from(*value),
            };
            (kind.name, value)
        }))
    }
}

impl schemars::JsonSchema for TraceFields {
    fn schema_name() -> Cow<'static, str> {
        "TraceFields".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let mut properties = serde_json::Map::new();
        for field in TRACES.iter().flat_map(|kind| kind.fields) {
            let schema = match field.is_address {
                true => generator.subschema_for::<output::Hex>(),
                false => generator.subschema_for::<u64>(),
            };
            properties.insert(field.name.to_owned(), schema.into());
        }
        schemars::json_schema!({ "type": "object", "properties": properties })
    }
}

fn name_of_kind<S: Serializer>(kind: &&TraceKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.name)
}

impl Query for TraceQuery {
    type Facts = TraceLog;

    fn run(&self, target: &Target<'_>) -> Result<TraceLog, QueryError> {
        let kind = self.kind;
        let layout = target.layout(kind.record).map_err(|error| match error {
            TargetError::NoType { .. } => QueryError::NoData {
                command: NAME,
                reason: format!(
                    "{error}; without its record a log cannot be read (Windows 7's public symbols lack that of the IRP log)"
                ),
            },
            error => failed(error),
        })?;
        let record = RecordLayout::of(kind, &layout).map_err(failed)?;
        let mut log = TraceLog {
            kind,
            era: Era::of(target),
            start: VirtAddr(0),
            length: 0,
            index: 0,
            depth: record.depth,
            address: None,
            quantity: None,
            parsed: 0,
            unreadable: 0,
            records: Vec::new(),
        };
        let Some(ring) = Ring::read(target, &kind.variables, record.size, record.pointer_size)? else {
            // A kernel that injects no faults makes no log of them: a complete answer.
            if kind.flag == FAULTS {
                return Ok(log);
            }
            let why = format!("it is made when Driver Verifier is on with {}.", kind.turned_on_by);
            return Err(ring::no_log(&kind.variables, &why));
        };
        let filter = ring.filter(target, self.wanted, kind.usual)?;
        (log.start, log.length, log.index) = (ring.start, ring.length, ring.index);
        (log.address, log.quantity) = filter.parts();
        let why = scan(target, &ring, &record, filter, &mut log);
        mark_torn(&ring, target, &mut log);
        if log.unreadable > 0 {
            target.note(Note::partial(
                NoteCode::Unreadable,
                format!("{:#x} records of the {} cannot be read: {why}", log.unreadable, kind.called),
            ));
        }
        if let (true, Some(address)) = (log.records.is_empty(), log.address) {
            let text = format!("No record of the {} is about {}.", kind.called, target.shown(address));
            target.note(Note::failed(NoteCode::NoEntry, text));
        }
        let mut names = Names::new(target);
        names.name_all(log.records.iter_mut().flat_map(|record| &mut record.stack));
        names.tell();
        Ok(log)
    }
}

/// Where a record's fields are in this build.
struct RecordLayout {
    size: u64,
    pointer_size: usize,
    fields: Vec<(&'static FieldKind, Place)>,
    stack: usize,
    depth: u64,
}

impl RecordLayout {
    fn of(kind: &'static TraceKind, layout: &Layout) -> Result<Self, TargetError> {
        let there = kind.fields.iter().filter(|field| layout.has(field.path));
        let place = |field: &'static FieldKind| layout.place(field.path).map(|place| (field, place));
        let fields = there.map(place).collect::<Result<_, _>>()?;
        let stack = layout.offset("StackTrace")?;
        let (size, pointer_size) = (layout.size() as u64, layout.pointer_size());
        let depth = size.saturating_sub(stack) / pointer_size as u64;
        Ok(Self { size, pointer_size, fields, stack: stack as usize, depth })
    }

    /// The fields, if all can be read.
    fn fields(&self, bytes: &[u8]) -> Option<TraceFields> {
        let read = |(kind, place): &(&'static FieldKind, Place)| Some((*kind, place.uint(bytes)?));
        self.fields.iter().map(read).collect::<Option<_>>().map(TraceFields)
    }
}

/// Reads from the newest record down and once around, until the filter has enough.
fn scan(
    target: &Target<'_>,
    ring: &Ring,
    layout: &RecordLayout,
    filter: Filter,
    log: &mut TraceLog,
) -> ReadCause {
    let mut scan = Scan::new(ring, target, filter);
    let end = scan.run(&mut |slot, bytes| {
        let Some(fields) = layout.fields(bytes) else { return Seen::Unreadable };
        let stack = frames::stack(bytes.get(layout.stack..).unwrap_or_default(), layout.pointer_size);
        if stack.is_empty() && fields.0.iter().all(|(_, value)| *value == 0) {
            return Seen::Unused;
        }
        if matches!(filter, Filter::Address(wanted) if fields.addresses().all(|it| it != wanted)) {
            return Seen::Other;
        }
        let stack_cut = (bytes.len() as u64) < ring.size;
        log.records.push(Trace { slot, record: ring.at(slot), fields, stack, stack_cut, torn: false });
        let kept = log.records.len();
        if matches!(filter, Filter::Newest(quantity) if kept as u64 == quantity) {
            return Seen::Last;
        }
        if kept == MAX_RECORDS {
            target.note(scan::only_the_newest(kept, "records"));
            return Seen::Last;
        }
        Seen::Kept
    });
    end.note(target);
    (log.parsed, log.unreadable) = (scan.parsed, scan.unreadable);
    scan.why_unreadable()
}

/// Marks those of the newest records that lack what is written last.
fn mark_torn(ring: &Ring, target: &Target<'_>, log: &mut TraceLog) {
    let have_stacks =
        log.records.iter().filter(|record| !record.stack.is_empty()).count() * 2 > log.records.len();
    let lacks = |record: &Trace| {
        let is_threadless = record.fields.0.iter().any(|(kind, value)| kind.path == "Thread" && *value == 0);
        is_threadless || record.stack.is_empty() && have_stacks && !record.stack_cut
    };
    let is_young = |record: &Trace| ring.age(record.slot) < ring::MAX_UNSETTLED;
    if !log.records.iter().any(|record| is_young(record) && lacks(record)) {
        return;
    }
    let unsettled = ring::unsettled(target).unwrap_or(ring::USUAL_UNSETTLED);
    for record in log.records.iter_mut().filter(|record| ring.age(record.slot) < unsettled) {
        record.torn = lacks(record);
        if record.torn {
            target.note(Note::remark(NoteCode::UnderWay, format!(
                "The record in slot {:#x} may be torn: it has no thread or no stack. A processor may have been stopped \
                 while it wrote the record.",
                record.slot
            )));
        }
    }
}

impl TraceLog {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("trace_log");
}
