//! The command line.
//!
//! Exit codes: 0 all well; 1 something failed; 2 the command line, or a command, was not understood; 3 an answer has gaps.

mod bridge;
mod debug;
mod demo;
mod simulate;
mod symbols;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use verikd::capture::{self, CaptureError};

/// Something failed.
const FAILED: u8 = 1;
/// The command line was not understood; clap's own code too.
const USAGE: u8 = 2;
/// An answer has gaps.
const GAPS: u8 = 3;

/// What a script answers the target's prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum PromptAnswer {
    /// Ignore what is asked about.
    #[default]
    I,
    /// Break into the debugger.
    B,
}

impl PromptAnswer {
    const fn text(self) -> &'static str {
        match self {
            Self::I => "i",
            Self::B => "b",
        }
    }
}

/// An open kernel-debug client for Windows targets: which driver leaks kernel pool, and from where.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, arg_required_else_help = true)]
struct Arguments {
    #[command(flatten)]
    debug: debug::Options,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Debug a simulated target in this process: what verikd does, without a Windows machine
    Demo(demo::Options),
    /// Be a simulated target that any KDNET debugger can attach to
    Sim(simulate::Options),
    /// Show a target with a serial line to KDNET debuggers, over the network
    Bridge(bridge::Options),
    /// Look into symbol files
    Symbols(symbols::Options),
    /// Show what a debugger and a target said to each other, from a packet capture
    Capture(capture::Options),
}

/// Runs the program.
pub(crate) fn run() -> ExitCode {
    let arguments = match Arguments::try_parse_from(std::env::args_os().map(windbg_spelling)) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    let code = match arguments.command {
        None => debug::run(&arguments.debug),
        Some(Command::Demo(options)) => demo::run(&options),
        Some(Command::Sim(options)) => simulate::run(&options),
        Some(Command::Bridge(options)) => bridge::run(&options),
        Some(Command::Symbols(options)) => symbols::run(&options),
        Some(Command::Capture(options)) => run_capture(&options),
    };
    ExitCode::from(code)
}

/// WinDbg's two-letter `-cf`, which the argument parser would read as `-c f`.
fn windbg_spelling(argument: OsString) -> OsString {
    if argument == "-cf" { "--command-file".into() } else { argument }
}

fn run_capture(options: &capture::Options) -> u8 {
    match capture::run(options, &mut io::stdout().lock()) {
        Ok(_) => 0,
        Err(CaptureError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => fail(&error),
    }
}

/// Says what failed; the exit code for it.
fn fail(error: &dyn std::error::Error) -> u8 {
    // Where even standard error is closed, the exit code still tells.
    let _ = writeln!(io::stderr(), "verikd: {error}");
    FAILED
}
