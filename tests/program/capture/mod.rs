//! `verikd capture`, on captures made of real datagrams, and on a real capture where it is at hand.

mod cut;
mod damage;
mod files;
mod generator;
mod serial;
mod windbg;

use std::io::Cursor;
use std::path::{Path, PathBuf};

use verikd::capture::{Capture, CaptureError, CapturedDatagram, Options, Summary, run};
use verikd::key::KeyText;

/// Keys of the vectors' sessions.
const KEY_A: &str = "8.8.8.8";
const KEY_B: &str = "1.1.1.1";

/// What is in a capture, all at once.
struct Read {
    datagrams: Vec<CapturedDatagram>,
    summary: Summary,
    error: Option<CaptureError>,
}

fn read(capture: &[u8], key: &str) -> Read {
    let input = Cursor::new(capture.to_vec());
    let key = key.parse().unwrap();
    let mut capture = match Capture::from_reader(Path::new("test"), input, key) {
        Ok(capture) => capture,
        Err(error) => return Read { datagrams: Vec::new(), summary: Summary::default(), error: Some(error) },
    };
    let mut datagrams = Vec::new();
    let error = loop {
        match capture.next() {
            Ok(Some(datagram)) => datagrams.push(datagram),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    Read { datagrams, summary: capture.summary().clone(), error }
}

/// What the command prints, and how it ends.
fn printed(file: &Path, key: &str, json: bool, all: bool) -> (String, Result<Summary, CaptureError>) {
    let options =
        Options { file: file.to_path_buf(), key: Some(KeyText::new(key)), json, all, serial: false };
    let mut out = Vec::new();
    let result = run(&options, &mut out);
    (String::from_utf8(out).unwrap(), result)
}

/// The same for a capture that is not in a file yet.
fn printed_of(capture: &[u8], key: &str) -> (String, Result<Summary, CaptureError>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), capture).unwrap();
    printed(file.path(), key, false, false)
}

fn committed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/program/capture/files").join(name)
}
