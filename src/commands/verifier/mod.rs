//! `!verifier`: what Driver Verifier knows: its level and counters, the drivers it verifies, their outstanding pool
//! allocations, and the log of recent allocations and frees.
//!
//! ```text
//!  !verifier                      level and counters
//!  !verifier 1 [DRIVER]           and one row per verified driver
//!  !verifier 3 [DRIVER]           and each driver's counters and outstanding allocations
//!  !verifier 80 [ADDRESS]         the log's entries for the block that ADDRESS lies in, newest first
//!  !verifier 80 [QUANTITY]        the log's newest entries
//! ```
//! An address is any expression: `!verifier 80 poi(nt!PoolHitTag+8)+10`.
//!
//! `DRIVER` is `myfault.sys` or `myfault`, in any case: what bug check 0xC4/0x62 tells a driver's author to type works
//! as it stands.
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
//! `.verifierformat` chooses another; see [`format`].
//!
//! Every layout comes from the kernel's symbols; where a build has no such field, its line is left out.

pub mod allocations;
pub mod drivers;
pub mod format;
pub mod frames;
pub mod options;
pub mod pool_log;
mod report;
pub mod requirements;
pub mod settings;
mod text;

pub use self::format::{FormatInForce, VerifierFormat};
use self::pool_log::{PoolLogQuery, Wanted};
pub use self::report::{DriverReport, VerifierQuery, VerifierReport};
use super::arguments::Arguments;
use super::{Answered, CommandSpec, Needs, QueryError, Run, answer, number};
use crate::target::{Target, TargetError};

pub(super) static COMMAND: CommandSpec = CommandSpec {
    names: &["!verifier"],
    usage: "!verifier [0|1|3 [DRIVER] | 80 [ADDRESS|QUANTITY]]",
    summary: "show Driver Verifier's settings, verified drivers, their pool allocations, its pool log",
    needs: Needs::Stopped,
    run: Run::Query(run),
};

const NAME: &str = "!verifier";

/// List the drivers.
const FLAG_DRIVERS: u64 = 1;
/// List their allocations too; needs `FLAG_DRIVERS`.
const FLAG_ALLOCATIONS: u64 = 2;
/// Show the pool log; stands alone.
const FLAG_POOL_LOG: u64 = 0x80;

/// Reads the arguments and runs the query they ask for.
fn run(text: &str, target: &Target<'_>) -> Answered {
    let mut arguments = Arguments::new(&COMMAND, text);
    let Some(first) = arguments.word() else {
        return answer(&VerifierQuery::default(), target);
    };
    let flags =
        number(first).ok_or_else(|| usage(format!("`{first}` is no hexadecimal number for flags")))?;
    match flags {
        FLAG_POOL_LOG => {
            let wanted = if arguments.is_empty() {
                Wanted::Newest(None)
            } else {
                Wanted::Number(arguments.expression(target)?)
            };
            arguments.end()?;
            answer(&PoolLogQuery { wanted }, target)
        }
        0 | FLAG_DRIVERS | FLAG_ALLOCATIONS | 3 => {
            let driver = arguments.word().map(str::to_owned);
            arguments.end()?;
            answer(&VerifierQuery { flags, driver }, target)
        }
        _ => Err(usage(format!("{} not among what this version shows", describe_flags(flags)))),
    }
}

/// Names what other flags of WinDbg's would show.
fn describe_flags(flags: u64) -> String {
    let name = match flags {
        0x4 => "the log of injected faults is",
        0x8 => "the log of IRQL changes is",
        0x20 => "Driver Hang Verification (Windows XP) is",
        0x40 => "the log of forced-pending requests is",
        0x100 => "the log of I/O requests is",
        0x200 => "the log of critical regions is",
        0x400 => "the list of cancelled requests is",
        _ => "these flags are",
    };
    format!("{flags:#x}: {name}")
}

fn usage(problem: String) -> QueryError {
    QueryError::Usage { command: NAME, problem, usage: COMMAND.usage }
}

fn failed(source: TargetError) -> QueryError {
    QueryError::Target { command: NAME, source }
}
