//! `verikd watch`: short stops at an interval, how what drivers hold grows, and at the end what leaks.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use verikd::commands::verifier::leaks::LeakQuery;
use verikd::shell::watch::Watch;

use super::debug::{self, Work};
use super::exit::USAGE;

/// Below `--help`.
const EXIT_CODES: &str = "\
Exit codes:
  0    the watch is over: after --for or --count, or with Ctrl+C, wherever that meets it
  1    a look failed, the session broke off, or a file was not written
  2    the command line was not understood
  3    a look has gaps
  4    the target may still be stopped
  130  Ctrl+C before a target has connected
  143  SIGTERM; 129 SIGHUP
Whatever ends it, the target is let run, and the verdict on what was seen until then is given.";

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
    /// From one look to the next
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    every: Duration,
    /// End after this long; otherwise with Ctrl+C
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    length: Option<Duration>,
    /// End after so many looks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Only blocks with this tag; * and ? stand for any characters
    #[arg(long)]
    tag: Option<String>,
    /// A wrapper of the driver's own, myfault!MyAllocate*, belongs to the allocator; may be repeated
    #[arg(long, value_name = "NAME")]
    skip: Vec<String>,
    /// Look up the stack of every block, whatever it costs
    #[arg(long)]
    all: bool,
    /// Write a page with the growth of each call path at the end, which needs no network
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// The shortest interval: below it the machine would be stopped more often than it runs.
const SHORTEST: Duration = Duration::from_millis(100);

pub(super) fn run(options: Options) -> u8 {
    if options.debug.has_script() {
        let _ = writeln!(io::stderr(), "verikd: `verikd watch` runs !leaks alone: no -c and no -cf");
        return USAGE;
    }
    if options.every < SHORTEST {
        let _ = writeln!(
            io::stderr(),
            "verikd: --every: {SHORTEST:?} at the least, so that the target has time to run"
        );
        return USAGE;
    }
    let query = LeakQuery {
        drivers: options.drivers,
        tag: options.tag,
        skip: options.skip,
        all: options.all,
        keep_blocks: true,
        ..LeakQuery::default()
    };
    let watch = Watch {
        query,
        every: options.every,
        length: options.length,
        looks: options.count,
        in_place: io::stdout().is_terminal(),
        page: options.html,
        onlooker: None,
    };
    debug::work(&options.debug, &Work::Watch(watch))
}
