//! `verikd check`: stop, count, let run, and an exit code that says whether drivers hold more than they may.

use std::io::{self, Write};
use std::path::PathBuf;

use verikd::check::Limits;
use verikd::commands::verifier::leaks::LeakQuery;
use verikd::leaks::{self, Snapshot};
use verikd::output::reads_file;
use verikd::shell::check::Check;

use super::debug::{self, Work};
use super::exit::USAGE;

/// Below `--help`.
const EXIT_CODES: &str = "\
Exit codes:
  0    passed: each driver holds no more than it may
  1    a file was not written, or something else failed
  2    the command line was not understood, or the baseline does not compare
  3    not known: a count was not read, or a driver that was named is not verified
  4    a driver holds more than it may
  5    no target connected in time
  6    the target was lost, or may still be stopped
  130  Ctrl+C; 143 SIGTERM, 129 SIGHUP
Whatever ends it, the target is let run.";

#[derive(Debug, clap::Args)]
// clap calls a group after its structure, and the flattened one has that name.
#[group(skip)]
#[command(after_help = EXIT_CODES)]
pub(super) struct Options {
    #[command(flatten)]
    debug: debug::Options,
    /// Only these drivers, each with a --driver; otherwise all that are verified
    #[arg(long = "driver", value_name = "DRIVER")]
    drivers: Vec<String>,
    /// Blocks that each driver may hold; 0 if neither this nor --max-bytes is given
    #[arg(long, value_name = "N")]
    max_outstanding: Option<u64>,
    /// Bytes that each driver may hold
    #[arg(long, value_name = "N")]
    max_bytes: Option<u64>,
    /// Only blocks with this tag; * and ? stand for any characters
    #[arg(long)]
    tag: Option<String>,
    /// Count only what is more than in this snapshot of `leaks --save`, function by function of the driver
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Write the result as JUnit's XML, a case for each driver, also when nothing could be checked
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

pub(super) fn run(options: Options) -> u8 {
    if options.debug.has_script() {
        return refused("`verikd check` runs !leaks alone: no -c and no -cf");
    }
    options.baseline.iter().for_each(|file| reads_file(file));
    let baseline = match options.baseline.as_ref().map(|file| (file, leaks::read(file))) {
        None => None,
        Some((_, Ok(baseline))) => Some(baseline),
        Some((file, Err(error))) => return refused(&format!("--baseline {}: {error}", file.display())),
    };
    if let Some(Snapshot { tag, .. }) = &baseline
        && *tag != options.tag
    {
        let named = |tag: &Option<String>| tag.clone().unwrap_or_else(|| "every tag".to_owned());
        let (saved, asked) = (named(tag), named(&options.tag));
        return refused(&format!(
            "--baseline is a snapshot of {saved}, --tag asks for {asked}: they do not compare"
        ));
    }
    let outstanding = match (options.max_outstanding, options.max_bytes) {
        (None, None) => Some(0),
        (given, _) => given,
    };
    let query = LeakQuery {
        drivers: options.drivers,
        tag: options.tag,
        // With others, call paths would begin elsewhere than in the baseline.
        skip: baseline.as_ref().map(|it| it.skip.clone()).unwrap_or_default(),
        ..LeakQuery::default()
    };
    let limits = Limits { outstanding, bytes: options.max_bytes };
    let check = Check { query, limits, baseline, junit: options.junit };
    debug::work(&options.debug, &Work::Check(Box::new(check)))
}

fn refused(why: &str) -> u8 {
    let _ = writeln!(io::stderr(), "verikd: {why}");
    USAGE
}
