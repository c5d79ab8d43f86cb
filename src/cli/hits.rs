//! `verikd hits`: who allocates and frees blocks of a pool tag, as it happens.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use verikd::commands::pool::PoolTag;
use verikd::commands::pool::hits::HitOptions;
use verikd::leaks::FileKind;

use super::debug::{self, Work};
use super::exit::USAGE;

/// Below `--help`.
const EXIT_CODES: &str = "\
Exit codes:
  0    answered: after --count or --for, or with Ctrl+C
  1    the target was not met, was lost, --deadline was over, or a file was not written
  2    the command line was not understood
  3    the machine restarted, or stopped for something else, or verikd was suspended, before that
  4    the target may still be stopped, or the tag is still set: how to clear it is said
  130  Ctrl+C before the tag was set
  143  SIGTERM; 129 SIGHUP
Whatever ends it, the tag is taken back and the target is let run.";

#[derive(Debug, clap::Args)]
// clap calls a group after its structure, and the flattened one has that name.
#[group(skip)]
#[command(after_help = EXIT_CODES)]
pub(super) struct Options {
    #[command(flatten)]
    debug: debug::Options,
    /// The pool tag, as !poolused shows it; case matters
    #[arg(long)]
    tag: String,
    /// End after so many hits; otherwise with Ctrl+C
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this long
    #[arg(long = "for", value_name = "TIME", value_parser = debug::some_time)]
    length: Option<Duration>,
    /// Count frees as hits, and take their stacks too
    #[arg(long)]
    free: bool,
    /// Take the stack of every Nth hit; the others are counted, and stop the target for less time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
    /// Write one line a stack of the allocations, as flame graph tools read them
    #[arg(long, value_name = "FILE")]
    folded: Option<PathBuf>,
    /// Write a flame graph of them
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write a page with them, which needs no network
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub(super) fn run(options: Options) -> u8 {
    if options.debug.has_script() {
        let _ = writeln!(
            io::stderr(),
            "verikd: `verikd hits` runs !poolhit alone: no -c and no -cf; without `hits`, -c takes \"!poolhit TAG; ..\""
        );
        return USAGE;
    }
    let tag = match PoolTag::named(&options.tag) {
        Ok(tag) => tag,
        Err(problem) => {
            let _ = writeln!(io::stderr(), "verikd: --tag: {problem}");
            return USAGE;
        }
    };
    let pictures =
        [(FileKind::Folded, options.folded), (FileKind::Svg, options.svg), (FileKind::Html, options.html)];
    let files = pictures.into_iter().filter_map(|(kind, path)| Some((kind, path?))).collect();
    let wanted = HitOptions {
        count: options.count,
        length: options.length,
        frees: options.free,
        every: options.every,
        files,
        ..HitOptions::of(tag)
    };
    debug::work(&options.debug, &Work::Hits(wanted))
}
