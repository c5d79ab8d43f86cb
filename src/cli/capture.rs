//! `verikd capture`: what a debugger and a target said to each other, from a packet capture.

use std::io;
use std::path::PathBuf;

use verikd::capture::{self, CaptureError};
use verikd::key::KeyText;

use super::exit::{USAGE, fail};
use super::visible_key::warn_of_visible_key;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Capture file: pcap or pcapng, gzipped or not
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The target's KDNET key, as `bcdedit /dbgsettings` shows it, or @FILE; otherwise VERIKD_KEY
    #[arg(long, value_name = "W.X.Y.Z")]
    key: Option<KeyText>,
    /// Print JSON: one object per line and datagram, and at the end the summary
    #[arg(long)]
    json: bool,
    /// List the datagrams that no key opens, too
    #[arg(long)]
    all: bool,
    /// FILE holds what crossed a serial line: its raw bytes, or JSON lines of "t", "dir" (h2t, t2h) and "hex"
    #[arg(long, conflicts_with = "key")]
    serial: bool,
}

pub(super) fn run(options: &Options) -> u8 {
    let origin = options.key.as_ref().and_then(|it| it.read().ok()).map(|(_, origin)| origin);
    warn_of_visible_key(origin, false, "--key @FILE");
    let Options { file, key, json, all, serial } = options;
    let options =
        capture::Options { file: file.clone(), key: key.clone(), json: *json, all: *all, serial: *serial };
    match capture::run(&options, &mut io::stdout().lock()) {
        Ok(_) => 0,
        Err(CaptureError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error @ CaptureError::Key(_)) => {
            fail(&error);
            USAGE
        }
        Err(error) => fail(&error),
    }
}
