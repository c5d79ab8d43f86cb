//! `!verifier`: what Driver Verifier knows: its level and counters, the drivers it verifies, their outstanding pool
//! allocations, and the log of recent allocations and frees.
//!
//! ```text
//!  !verifier                      level and counters
//!  !verifier 1 [DRIVER]           and one row per verified driver
//!  !verifier 3 [DRIVER]           and each driver's counters and outstanding allocations
//!  !verifier 4 [QUANTITY]         the newest faults that were injected; 4 unless told otherwise
//!  !verifier 8 [QUANTITY]         the newest changes of IRQL; 4 unless told otherwise
//!  !verifier 40 [QUANTITY]        the newest requests that were forced to be pending
//!  !verifier 80 [ADDRESS]         the pool log's entries for the block that ADDRESS lies in, newest first
//!  !verifier 80 [QUANTITY]        the pool log's newest entries
//!  !verifier 100 [ADDRESS]        the log of I/O requests: all, or those of an IRP or a thread
//!  !verifier 200 [ADDRESS]        the log of critical regions: all, or those of a thread
//!  !verifier 400 [ADDRESS]        cancelled requests that are watched until they are completed
//!  !verifier -?                   these forms
//! ```
//! One flag of a log shows that log. Flags together show level and counters first: `f` is 1, 2, 4 and 8. `-v` before 80
//! says of each entry whether it is an allocation or a free, and whether it may be half written, which WinDbg doesn't.
//!
//! An address or a quantity is any expression: `!verifier 80 poi(nt!PoolHitTag+8)+10`.
//!
//! `DRIVER` is `myfault.sys` or `myfault`, in any case, in quotes or not, or a path that ends so: what bug check 0xC4/0x62
//! tells a driver's author to type works as it stands.
//!
//! ```text
//! 0: kd> !verifier 3 myfault.sys
//!
//! Verify Level 8 ... enabled options are:
//!     All pool allocations checked on unload
//! ...
//! Entry     State           NonPagedPool   PagedPool   Module
//!
//! fffffa80031b5830 Loaded           009ce000       00000000    myfault.sys
//! ...
//! PoolAddress  SizeInBytes    Tag       CallersAddress
//! fffffa8005400000     0x000fb000     Leak      fffff8800447d634
//! ```
//! A target of Windows 8.1 or later is answered in the format that WinDbg has had since:
//!
//! ```text
//! nt!_VF_TARGET_DRIVER 0xffffcb8438730e10: ebpfcore.sys (Loaded and Unloaded)
//! ...
//!       Address             Length      Tag   Caller Address
//!       ------------------  ----------  ----  ------------------
//!       0xffffcb843b87aff0  0x00000004  ebpf  0xfffff803569c53e1  ebpfcore!ebpf_allocate+0x21
//! ```
//! `.verifierformat` chooses another; see [`mod@format`].
//!
//! Every layout comes from the kernel's symbols; where a build has no such field, its line is left out.

mod advanced;
pub mod allocations;
mod common;
pub mod drivers;
pub mod format;
pub mod frames;
pub mod leaks;
pub mod options;
pub mod pool_log;
mod report;
pub mod requirements;
mod ring;
mod run_ahead;
mod scan;
pub mod settings;
mod stops;
mod text;
pub mod traces;
pub mod watched;

use std::fmt;

use serde::Serialize;

use self::common::{FLAG_POOL_LOG, FLAG_WATCHED, USAGE, usage};
pub use self::drivers::verified_images;
pub use self::format::{FormatInForce, chosen};
use self::pool_log::{PoolLog, PoolLogQuery, Wanted};
pub use self::report::{DriverReport, Log, VerifierQuery, VerifierReport};
pub use self::stops::{OneMoment, Undecided, Why};
use self::traces::{TRACES, TraceLog, TraceQuery};
use self::watched::{WatchedQuery, WatchedRequests};
use super::answer::{Facts, Found, answer};
use super::arguments::Arguments;
use super::arguments::number;
use super::context::Context;
use super::schema::Schema;
use super::spec::{Category, CommandSpec, Glued, Run, Takes};
use crate::output::write_columns;
use crate::target::Target;

pub(super) static COMMAND: CommandSpec = CommandSpec {
    names: &["!verifier"],
    usage: USAGE,
    summary: "show Driver Verifier's settings, verified drivers, their pool allocations, its logs",
    takes: Takes::Arguments(Glued::Dash),
    category: Category::Verifier,
    details: FORMS,
    answers: &[
        VerifierReport::SCHEMA,
        PoolLog::SCHEMA,
        TraceLog::SCHEMA,
        WatchedRequests::SCHEMA,
        Manual::SCHEMA,
    ],
    run: Run::Query(run),
};

/// All flags that are understood.
const SHOWN: u64 = 0x7cf;
/// Other flags of WinDbg's.
const NOT_SHOWN: [(u64, &str); 2] = [
    (0x20, "Driver Hang Verification is of Windows XP and Server 2003 only"),
    (0x800, "how VerifierExt keeps the log of systematic low resources simulation is not known"),
];

const FORMS: &[(&str, &str)] = &[
    ("!verifier", "level and counters"),
    ("!verifier 1 [DRIVER]", "and one entry per verified driver"),
    ("!verifier 3 [DRIVER]", "and each driver's counters and outstanding allocations"),
    ("!verifier 4 [QUANTITY]", "log of injected faults"),
    ("!verifier 8 [QUANTITY]", "log of IRQL changes"),
    ("!verifier 40 [QUANTITY]", "log of requests that were forced to be pending"),
    ("!verifier [-v] 80 [ADDRESS|QUANTITY]", "log of pool allocations and frees; -v says which is which"),
    ("!verifier 100 [ADDRESS|QUANTITY]", "log of I/O requests; the address is an IRP's or a thread's"),
    ("!verifier 200 [ADDRESS|QUANTITY]", "log of critical regions; the address is a thread's"),
    ("!verifier 400 [ADDRESS]", "cancelled I/O requests that are watched; the address is an IRP's"),
];

/// Reads the arguments and runs the query they ask for.
fn run(text: &str, target: &Target<'_>) -> Found {
    let mut arguments = Arguments::new(&COMMAND, text);
    let verbose = arguments.peek() == Some("-v");
    if verbose {
        arguments.word();
    }
    let Some(first) = arguments.word() else {
        return answer(&VerifierQuery::default(), target);
    };
    match first {
        "-?" | "?" | "/?" | "-h" | "/h" | "-help" | "/help" => return Ok(Box::new(Manual::new())),
        "-disable" => {
            return Err(usage("-disable would write to the target's memory, which verikd doesn't".into()));
        }
        _ => {}
    }
    let flags =
        number(first).ok_or_else(|| usage(format!("`{first}` is no hexadecimal number for flags")))?;
    if let Some((_, why)) = NOT_SHOWN.iter().find(|(flag, _)| flags & flag != 0) {
        return Err(usage(format!("{flags:#x}: {why}")));
    }
    if flags & !SHOWN != 0 {
        return Err(usage(format!("{:#x} is none of the flags", flags & !SHOWN)));
    }
    let traces = TRACES.iter().find(|kind| kind.flag == flags);
    if traces.is_none() && !matches!(flags, FLAG_POOL_LOG | FLAG_WATCHED) {
        let driver = arguments.name().filter(|name| !name.is_empty()).map(str::to_owned);
        arguments.end()?;
        return answer(&VerifierQuery { flags, driver }, target);
    }
    let typed = if arguments.is_empty() { None } else { Some(arguments.expression(target)?) };
    arguments.end()?;
    let wanted = typed.map_or(Wanted::Newest(None), Wanted::Number);
    match traces {
        Some(kind) => answer(&TraceQuery { kind, wanted }, target),
        None if flags == FLAG_POOL_LOG => answer(&PoolLogQuery { wanted, verbose }, target),
        None => answer(&WatchedQuery { irp: typed.map(|number| target.address(number)) }, target),
    }
}

/// `!verifier -?`: what can be typed.
#[derive(Debug, Serialize, schemars::JsonSchema)]
struct Manual {
    usage: &'static str,
    forms: &'static [(&'static str, &'static str)],
}

impl Manual {
    const fn new() -> Self {
        Self { usage: USAGE, forms: FORMS }
    }
}

impl Manual {
    /// The form of its JSON.
    pub(in crate::commands) const SCHEMA: Schema = Schema::of::<Self>("manual");
}

impl Facts for Manual {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, _: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        let rows: Vec<_> = self.forms.iter().map(|(form, what)| [*form, *what]).collect();
        write_columns(out, &rows)
    }
}
