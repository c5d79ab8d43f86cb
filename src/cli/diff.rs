//! `verikd diff`: what has become of each call path between snapshots.

use std::io::{self, Write};
use std::path::PathBuf;

use verikd::leaks::{self, Snapshot, write_comparison};
use verikd::output::{may_write, reads_file};
use verikd::shell::own_line;

use super::exit::fail;

/// Below `--help`.
const EXIT_CODES: &str = "\
Exit codes:
  0  compared, whatever has grown; what a snapshot lacks is said
  1  a file cannot be read or written, is damaged or of a newer version, or the snapshots are not of the same thing
  2  the command line was not understood";

#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(super) struct Options {
    /// Snapshots of `!leaks -save`, the oldest first
    #[arg(value_name = "FILE", num_args = 2.., required = true)]
    files: Vec<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Write a page with the growth of each call path, which needs no network
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Show only the call paths that grew the most
    #[arg(long, value_name = "N")]
    top: Option<usize>,
}

pub(super) fn run(options: &Options) -> u8 {
    options.files.iter().for_each(|file| reads_file(file));
    if let Some(Err(why)) = options.html.as_deref().map(may_write) {
        return fail(&format!("the page cannot be written: {why}"));
    }
    let mut snapshots: Vec<Snapshot> = Vec::new();
    for file in &options.files {
        match leaks::read(file) {
            Ok(snapshot) => snapshots.push(snapshot),
            Err(error) => return fail(&format!("{}: {error}", file.display())),
        }
    }
    if !snapshots.is_sorted_by_key(|snapshot| snapshot.unix_ms) {
        let _ = writeln!(io::stderr(), "note: the snapshots are taken in the order of their times");
        snapshots.sort_by_key(|snapshot| snapshot.unix_ms);
    }
    let compared = match leaks::compare(&snapshots) {
        Ok(compared) => compared,
        Err(error) => return fail(&format!("the snapshots cannot be compared: {error}")),
    };
    for note in snapshots.iter().flat_map(|snapshot| &snapshot.notes) {
        let _ = writeln!(io::stderr(), "incomplete: {}", verikd::output::screened(note));
    }
    if let Some(path) = &options.html {
        match leaks::write_page(&snapshots, path) {
            Ok(()) => {
                let _ = writeln!(io::stderr(), "Wrote {}", path.display());
            }
            Err(error) => return fail(&format!("{} was not written: {error}", path.display())),
        }
    }
    let mut text = String::new();
    if options.json {
        text = own_line(&compared);
    } else {
        write_comparison(&compared, options.top.unwrap_or(usize::MAX), &mut text)
            .expect("a String takes any text");
        text = verikd::output::screened(&text);
    }
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => 0,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => fail(&format!("the comparison cannot be written to standard output: {error}")),
    }
}
