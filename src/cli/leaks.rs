//! `verikd leaks`: `!leaks` as one command: attach, ask, let the target run.

use std::io::{self, Write};

use super::debug;
use super::exit::USAGE;

/// Below `--help`.
const EXIT_CODES: &str = "\
Exit codes:
  0    answered
  1    the target was not met or did not answer, or a file was not written
  2    the command line was not understood
  3    the answer has gaps, which are said
  4    the target may still be stopped
  130  Ctrl+C; 143 SIGTERM, 129 SIGHUP
Whatever ends it, the target is let run.";

#[derive(Debug, clap::Args)]
// clap calls a group after its structure, and the flattened one has that name.
#[group(skip)]
#[command(after_help = EXIT_CODES)]
pub(super) struct Options {
    #[command(flatten)]
    debug: debug::Options,
    /// Only these drivers; otherwise all that are verified
    #[arg(value_name = "DRIVER")]
    drivers: Vec<String>,
    /// What makes a group: path, caller, tag, thread or size
    #[arg(long, value_name = "WHAT", default_value = "path")]
    by: String,
    /// Only blocks with this tag; * and ? stand for any characters
    #[arg(long)]
    tag: Option<String>,
    /// Leave out groups of fewer bytes
    #[arg(long, value_name = "BYTES")]
    min: Option<u64>,
    /// Show only the groups that hold the most
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// Look at only so many frames of a call path
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
    /// A wrapper of the driver's own, myfault!MyAllocate*, belongs to the allocator; may be repeated
    #[arg(long, value_name = "NAME")]
    skip: Vec<String>,
    /// Look up the stack of every block, whatever it costs
    #[arg(long)]
    all: bool,
    /// List the blocks of each group
    #[arg(short, long)]
    verbose: bool,
    /// Show a tree with bars, as wide as the terminal: each driver, who allocated, and who called
    #[arg(long)]
    tree: bool,
    /// Write a snapshot with every block, for `verikd diff`; compressed if its name ends in .gz or .zst
    #[arg(long, value_name = "FILE")]
    save: Option<String>,
    /// Write one line a stack, as flame graph tools read them
    #[arg(long, value_name = "FILE")]
    folded: Option<String>,
    /// Write a flame graph
    #[arg(long, value_name = "FILE")]
    svg: Option<String>,
    /// Write a page with groups, blocks and a flame graph, which needs no network
    #[arg(long, value_name = "FILE")]
    html: Option<String>,
    /// Pictures measure blocks instead of bytes
    #[arg(long)]
    blocks: bool,
}

/// What of a debugger's options has no meaning here.
pub(super) const HIDDEN: [&str; 4] = ["break_in", "commands", "command_file", "verifier_format"];

pub(super) fn run(options: Options) -> u8 {
    if options.debug.has_script() {
        let _ = writeln!(
            io::stderr(),
            "verikd: `verikd leaks` runs !leaks alone: no -c and no -cf; without `leaks`, -c takes \"!leaks; ..\""
        );
        return USAGE;
    }
    match command(&options) {
        Ok(line) => debug::run(&options.debug.with_commands(line)),
        Err(problem) => {
            let _ = writeln!(io::stderr(), "verikd: {problem}");
            USAGE
        }
    }
}

/// What is typed for it at a prompt.
fn command(options: &Options) -> Result<String, String> {
    let mut line = "!leaks".to_owned();
    let mut add = |option: &str, value: Option<&str>| {
        line += option;
        let Some(value) = value else { return Ok(()) };
        if value.contains('"') || value.contains('\n') {
            return Err(format!("`{value}`: a quote cannot be part of it"));
        }
        line += &format!(" \"{value}\"");
        Ok(())
    };
    let number = |number: u64| format!("0n{number}");
    for driver in &options.drivers {
        add("", Some(driver))?;
    }
    add(" -by", None)?;
    let by = options.by.trim();
    if by.contains(char::is_whitespace) || by.is_empty() {
        return Err(format!("--by: `{by}` is not path, caller, tag, thread or size"));
    }
    add(&format!(" {by}"), None)?;
    for (option, value) in [
        (" -tag", &options.tag),
        (" -save", &options.save),
        (" -folded", &options.folded),
        (" -svg", &options.svg),
        (" -html", &options.html),
    ] {
        if let Some(value) = value {
            add(option, Some(value))?;
        }
    }
    for skip in &options.skip {
        add(" -skip", Some(skip))?;
    }
    let counts = [
        ("-min", options.min),
        ("-top", options.top.map(|it| it as u64)),
        ("-depth", options.depth.map(|it| it as u64)),
    ];
    for (option, count) in counts {
        if let Some(count) = count {
            add(&format!(" {option} {}", number(count)), None)?;
        }
    }
    let switches = [
        (" -all", options.all),
        (" -blocks", options.blocks),
        (" -v", options.verbose),
        (" -tree", options.tree),
    ];
    for (option, is_on) in switches {
        if is_on {
            add(option, None)?;
        }
    }
    Ok(line)
}
