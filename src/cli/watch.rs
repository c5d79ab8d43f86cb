//! `verikd watch`: short stops at an interval, how what drivers hold grows, and at the end what leaks.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use verikd::commands::verifier::leaks::LeakQuery;
use verikd::leaks::{Look, StoodStill};
use verikd::metrics::{Endpoint, EndpointError, Figures, MOST_GROUPS};
use verikd::shell::watch::{Onlooker, Watch};

use super::debug::{self, Work};
use super::exit::{USAGE, fail};

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
    /// Serve the figures to Prometheus at http://ADDR:PORT/metrics until the watch ends: 127.0.0.1:9464 for this machine alone,
    /// [::]:9464 for whoever reaches it. A scrape gets the last look, and stops nothing
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<String>,
    /// What metrics call the target; otherwise where it is met, as -k, -z or --vm have it
    #[arg(long, value_name = "NAME", requires = "metrics")]
    metrics_name: Option<String>,
    /// Call paths with a series of their own in the metrics, those that hold the most; the rest is summed as `other`
    #[arg(long, value_name = "N", requires = "metrics", default_value_t = MOST_GROUPS)]
    metrics_groups: usize,
}

/// Figures, and where they are served.
#[derive(Debug)]
struct Served {
    figures: Mutex<Figures>,
    endpoint: Endpoint,
}

impl Served {
    fn at(place: &str, figures: Figures) -> Result<Self, EndpointError> {
        let endpoint = Endpoint::bind(place)?;
        endpoint.show(figures.text());
        let _ = writeln!(io::stderr(), "Metrics are served at {}", endpoint.url());
        Ok(Self { figures: Mutex::new(figures), endpoint })
    }
}

impl Onlooker for Served {
    fn looked(&self, look: Look<'_>, stood_still: StoodStill) {
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        figures.look(look, stood_still);
        self.endpoint.show(figures.text());
    }
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
    let place = options.metrics.as_deref().zip(options.debug.place());
    let served = place.map(|(address, target)| {
        let target = options.metrics_name.clone().unwrap_or(target);
        Served::at(address, Figures::new(&target, options.metrics_groups))
    });
    let onlooker = match served.transpose() {
        Ok(served) => served.map(|served| Box::new(served) as Box<dyn Onlooker>),
        Err(error) if error.is_usage() => {
            fail(&format!("--metrics: {error}"));
            return USAGE;
        }
        Err(error) => return fail(&format!("--metrics: {error}")),
    };
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
        onlooker,
    };
    debug::work(&options.debug, &Work::Watch(watch))
}
