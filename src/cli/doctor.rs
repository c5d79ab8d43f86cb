//! `verikd doctor -k CONNECTION`: why no target connects.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use verikd::doctor::{Diagnosis, Examination, Finding};
use verikd::key::KeyText;
use verikd::session::Connection;

use super::exit::{USAGE, fail};
use super::visible_key::warn_of_visible_key;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Where the target should be, as for a session: net:port=50000,key=1.2.3.4, com:pipe,port=PATH, ...
    #[arg(short = 'k', value_name = "CONNECTION")]
    connection: KeyText,
    /// How long to look; a target that connects ends it earlier. Its offers come every three seconds
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    time: Duration,
    /// Stop the machine for a moment too, let it run again, and check that it does
    #[arg(long)]
    break_in: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Object<'a> {
    #[serde(flatten)]
    finding: &'a Finding,
    exit_code: u8,
    text: String,
    what_to_do: &'static str,
    also: &'a [String],
    advice: &'a [String],
}

pub(super) fn run(options: &Options) -> u8 {
    let (connection, key_origin) = match Connection::parse(options.connection.as_str()) {
        Ok(parsed) => parsed,
        Err(error) => {
            fail(&error.of_option("-k"));
            return USAGE;
        }
    };
    warn_of_visible_key(key_origin, connection.is_loopback(), "key=@FILE");
    let time = humantime::format_duration(options.time);
    say(&match options.break_in {
        true => format!("Looking for a target, for {time} at the most; then stopping it for a moment"),
        false => format!("Looking for a target, for {time} at the most; no machine is stopped"),
    });
    let examination = Examination { connection, time: options.time, break_in: options.break_in };
    let diagnosis = examination.run();
    let code = diagnosis.finding.code();
    let mut out = io::stdout().lock();
    let written =
        if options.json { write_json(&mut out, &diagnosis) } else { write_text(&mut out, &diagnosis) };
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => fail(&error),
        _ => code.exit,
    }
}

fn write_text(out: &mut impl Write, diagnosis: &Diagnosis) -> io::Result<()> {
    let Diagnosis { finding, also, advice } = diagnosis;
    writeln!(out, "{finding}")?;
    for sentence in also {
        writeln!(out, "  {sentence}")?;
    }
    writeln!(out, "What to do: {}.", finding.code().what_to_do)?;
    for line in advice {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn write_json(out: &mut impl Write, diagnosis: &Diagnosis) -> io::Result<()> {
    let Diagnosis { finding, also, advice } = diagnosis;
    let code = finding.code();
    let object = Object {
        finding,
        exit_code: code.exit,
        text: finding.to_string(),
        what_to_do: code.what_to_do,
        also,
        advice,
    };
    serde_json::to_writer(&mut *out, &object)?;
    out.write_all(b"\n")
}

fn say(text: &str) {
    // Status is not worth dying for.
    let _ = writeln!(io::stderr(), "{text}");
}
