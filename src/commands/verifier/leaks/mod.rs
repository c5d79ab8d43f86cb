//! `!leaks`: what drivers hold, by the call paths that allocated it. What `!verifier 3` lists, each block joined with the
//! entry of the pool log that made it, as `!verifier 80` finds it.
//!
//! ```text
//!  drivers --trackers--> blocks --the log's newest entry for each--> stacks --by path, caller, tag, thread, size--> groups
//!                           `--(advanced pool tracking: the stack is in the tracker)----^
//! ```
//! ```text
//! 0: kd> !leaks myfault.sys
//!
//! Outstanding pool of myfault.sys by call path: 10 blocks, 0x9ce000 bytes (9.80 MiB), 1 group
//!
//! 1. 10 blocks, 0x9ce000 bytes (9.80 MiB), 100.0 %, myfault.sys
//!    each 0xfb000 bytes; tag Leak; allocated 284 to 7889 log entries ago
//!    call path, behind nt!VeAllocatePoolWithTagPriority+0x2b6, nt!VerifierExAllocatePoolEx+0x1d:
//!      fffff8800447d634 myfault!MyfaultDeviceControl+0x358
//!      ...
//! ```
//! What is said of a block was read of it: a block whose allocation the log holds no more keeps the caller that its tracker
//! has, and is counted as such. Where not every stack is asked for, a group says of how many blocks its stack is.
//!
//! A target whose stops are to be short is let run in between: what is listed is of one moment all the same, and stacks are
//! looked up in the log behind it.
//!
//! Source: verifier.md 3.2, 4.

mod group;
mod options;
mod report;
mod snapshot;
mod stacks;
mod text;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

pub use self::options::{By, LeakQuery};
pub use self::report::{DriverTotal, Group, LeakReport, LeakedBlock, LogUse, Stacks};
pub(in crate::commands) use self::report::{boot_of, kept_at};
use self::stacks::{Held, Known, Lookup};
use super::report::{VerifierQuery, VerifierReport};
use super::settings::OPTION_ADVANCED_POOL_TRACKING;
use crate::commands::answer::{Found, Query, answer};
use crate::commands::arguments::Arguments;
use crate::commands::error::QueryError;
use crate::commands::spec::{Category, CommandSpec, Glued, Run, Takes};
use crate::commands::write_file::are_different;
use crate::leaks::{FileKind, Weight};
use crate::target::{Note, NoteCode, Target};

const USAGE: &str = "!leaks [DRIVER ...] [-by path|caller|tag|thread|size] [-tag TAG] [-min BYTES] [-top N] [-depth N] \
                     [-skip NAME] [-all] [-v] [-tree] \
                     [-save FILE] [-folded FILE] [-svg FILE] [-html FILE] [-blocks]";

pub(in crate::commands) static COMMAND: CommandSpec = CommandSpec {
    names: &["!leaks"],
    usage: USAGE,
    summary: "show what verified drivers hold, grouped by the call paths that allocated it",
    takes: Takes::Arguments(Glued::Dash),
    category: Category::Verifier,
    details: DETAILS,
    answers: &[LeakReport::SCHEMA],
    run: Run::Query(run),
};

const DETAILS: &[(&str, &str)] = &[
    ("!leaks", "the outstanding blocks of all verified drivers, by call path"),
    ("!leaks DRIVER ...", "of these"),
    ("-by path|caller|tag|thread|size", "what makes a group: path unless told otherwise"),
    ("-tag TAG", "only blocks with this tag; * and ? stand for any characters"),
    (
        "-min BYTES",
        "leave out groups of fewer bytes: an expression, hexadecimal as in every command; 0n1000 is decimal",
    ),
    ("-top N", "show only the N (decimal) groups that hold the most"),
    ("-depth N", "look at only N (decimal) frames of a call path"),
    (
        "-skip NAME",
        "a wrapper of the driver's own, myfault!MyAllocate*, belongs to the allocator; may be repeated",
    ),
    ("-all", "look up the stack of every block, whatever it costs"),
    ("-v", "list the blocks of each group"),
    ("-tree", "show a tree with bars, as wide as the terminal: each driver, who allocated, and who called"),
    (
        "-save FILE",
        "write a snapshot with every block, for `verikd diff`; compressed if its name ends in .gz or .zst",
    ),
    ("-folded FILE", "write one line a stack and how much it holds, as flame graph tools read them"),
    ("-svg FILE", "write a flame graph"),
    ("-html FILE", "write a page with groups, blocks and a flame graph, which needs no network"),
    ("-blocks", "pictures measure blocks instead of bytes"),
];

fn run(text: &str, target: &Target<'_>) -> Found {
    answer(&parse(text, target)?, target)
}

/// Reads what was typed behind the name.
fn parse(text: &str, target: &Target<'_>) -> Result<LeakQuery, QueryError> {
    let mut arguments = Arguments::with_options(&COMMAND, text);
    let mut query = LeakQuery::default();
    while let Some(word) = arguments.peek() {
        if !word.starts_with(['-', '/']) {
            let name = arguments.name().unwrap_or_default();
            if !name.is_empty() {
                query.drivers.push(name.to_owned());
            }
            continue;
        }
        arguments.word();
        let option = word[1..].to_ascii_lowercase();
        let missing = |what: &str| format!("{word} needs {what}");
        match option.as_str() {
            "by" => {
                let by = arguments.word().ok_or_else(|| arguments.usage(missing("what to group by")))?;
                query.by = By::parse(by).map_err(|problem| arguments.usage(problem))?;
            }
            "tag" => {
                let tag = arguments.name().ok_or_else(|| arguments.usage(missing("a tag")))?;
                query.tag = Some(tag.to_owned());
            }
            "skip" => {
                let name = arguments.name().ok_or_else(|| arguments.usage(missing("a routine's name")))?;
                query.skip.push(name.to_owned());
            }
            "min" if arguments.is_empty() || arguments.rest().starts_with('-') => {
                return Err(arguments.usage(missing("a number of bytes")));
            }
            "min" => query.min = arguments.expression(target)?,
            "top" => query.top = Some(arguments.count("groups")?),
            "depth" => query.depth = Some(arguments.count("frames")?.max(1)),
            "all" => query.all = true,
            "v" => query.verbose = true,
            "tree" => query.tree = true,
            "blocks" => query.weight = Weight::Blocks,
            "save" | "folded" | "svg" | "html" => {
                let file = arguments.name().ok_or_else(|| arguments.usage(missing("a file's name")))?;
                let kind = match option.as_str() {
                    "folded" => FileKind::Folded,
                    "svg" => FileKind::Svg,
                    "html" => FileKind::Html,
                    _ => FileKind::Snapshot,
                };
                query.files.push((kind, file.into()));
            }
            _ => return Err(arguments.usage(format!("`{word}` is none of the options"))),
        }
    }
    are_different(COMMAND.names[0], query.files.iter().map(|(_, path)| &**path))?;
    let has_picture = query.tree || !query.files.is_empty();
    if has_picture && (query.by != By::Path || query.depth.is_some()) {
        return Err(
            arguments.usage("snapshots and pictures have whole call paths: no -by and no -depth with them")
        );
    }
    Ok(query)
}

impl Query for LeakQuery {
    type Facts = LeakReport;

    fn run(&self, target: &Target<'_>) -> Result<LeakReport, QueryError> {
        let (mut held, mut drivers) = (Vec::new(), Vec::new());
        let (mut moment, mut logged) = (None, HashMap::new());
        for report in self.reports(target)? {
            moment = moment.or(report.moment);
            logged.extend(report.logged);
            let is_advanced =
                report.settings.option_flags.is_some_and(|flags| flags & OPTION_ADVANCED_POOL_TRACKING != 0);
            for driver in report.drivers.into_iter().flatten() {
                let blocks = driver.allocations.map(|it| it.blocks).unwrap_or_default();
                let total = DriverTotal::of(&driver.driver, &blocks);
                if !is_advanced {
                    total.note_difference(target);
                }
                let name = Arc::from(driver.driver.shown_name());
                held.extend(blocks.into_iter().map(|block| Held { driver: Arc::clone(&name), block }));
                drivers.push(total);
            }
        }
        let cut_by = target.over().cloned();
        if let Some(cause) = cut_by.as_ref().filter(|_| held.is_empty()) {
            return Err(QueryError::Lost(cause.clone()));
        }
        self.keep_tag(&mut held, target);
        let known = Known { event: moment.as_ref().and_then(|moment| moment.event), logged };
        let lookup = Lookup::of(target, &held, self.needs_stacks(), self.all, &known)?;
        let is_saved = self.keep_blocks || !self.files.is_empty();
        let boot = boot_of(target, is_saved);
        let kept_unix_ms = is_saved.then(|| kept_at(target)).flatten();
        Ok(LeakReport {
            moment,
            kept_unix_ms,
            is_cut: cut_by.is_some(),
            ..group::report(self, boot, drivers, &held, lookup)
        })
    }
}

impl LeakQuery {
    /// What `!verifier 3` says of each driver that is asked about.
    fn reports(&self, target: &Target<'_>) -> Result<Vec<VerifierReport>, QueryError> {
        let about = |driver| VerifierQuery { flags: 3, driver }.run(target);
        // What several drivers hold at one moment is read together.
        if self.drivers.is_empty() || target.breathes() {
            return Ok(vec![VerifierQuery { flags: 3, driver: None }.read_of(target, &self.drivers)?]);
        }
        let mut reports = Vec::new();
        let mut known = BTreeSet::new();
        for name in &self.drivers {
            let mut report = about(Some(name.clone()))?;
            // One driver may be named twice, with its extension and without.
            if let Some(drivers) = &mut report.drivers {
                drivers.retain(|it| known.insert(it.driver.entry));
            }
            reports.push(report);
        }
        Ok(reports)
    }

    fn keep_tag(&self, held: &mut Vec<Held>, target: &Target<'_>) {
        let Some(tag) = &self.tag else { return };
        let before = held.len();
        held.retain(|it| options::fits_tag(tag, &it.block.tag));
        if held.is_empty() && before > 0 {
            let text = format!("None of the {before} outstanding blocks has the tag {tag}.");
            target.note(Note::failed(NoteCode::NotFound, text));
        }
    }
}
