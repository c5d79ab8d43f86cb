//! `verikd pool`: which pool tags hold most and which grow, by short stops, and whose they are.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use verikd::shell::pool::PoolWatch;

use super::debug::{self, Work};
use super::exit::USAGE;

/// Below `--help`.
const EXIT_CODES: &str = "\
Exit codes:
  0    answered: after --for or --count, or with Ctrl+C, wherever that meets it
  1    a look failed, or the session broke off
  2    the command line was not understood
  3    a look has gaps
  4    the target may still be stopped
  130  Ctrl+C before a target has connected
  143  SIGTERM; 129 SIGHUP
Whatever ends it, the target is let run.";

#[derive(Debug, clap::Args)]
// clap calls a group after its structure, and the flattened one has that name.
#[group(skip)]
#[command(after_help = EXIT_CODES)]
pub(super) struct Options {
    #[command(flatten)]
    debug: debug::Options,
    /// Look again after each such time, and name at the end the tags that have only grown, with the drivers that allocate them
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    watch: Option<Duration>,
    /// End after this long; otherwise with Ctrl+C
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration, requires = "watch")]
    length: Option<Duration>,
    /// End after so many looks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), requires = "watch")]
    count: Option<u64>,
    /// Show only so many tags
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
}

/// The shortest interval: below it the machine would be stopped more often than it runs.
const SHORTEST: Duration = Duration::from_millis(100);

pub(super) fn run(options: Options) -> u8 {
    if options.debug.has_script() {
        let _ = writeln!(io::stderr(), "verikd: `verikd pool` runs !poolused alone: no -c and no -cf");
        return USAGE;
    }
    if options.watch.is_some_and(|every| every < SHORTEST) {
        let _ = writeln!(
            io::stderr(),
            "verikd: --watch: {SHORTEST:?} at the least, so that the target has time to run"
        );
        return USAGE;
    }
    let watch = PoolWatch {
        every: options.watch,
        length: options.length,
        looks: options.count,
        top: options.top,
        in_place: io::stdout().is_terminal(),
    };
    debug::work(&options.debug, &Work::Pool(watch))
}
