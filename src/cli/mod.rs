//! The command line.
//!
//! Exit codes: [`exit::CODES`].

mod bridge;
mod capture;
mod check;
mod completions;
mod debug;
mod demo;
mod diff;
mod doctor;
mod exit;
mod hits;
mod leaks;
mod pool;
mod prompt_answer;
mod run;
mod simulate;
mod spelling;
mod symbols;
mod visible_key;
mod watch;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser};

use exit::USAGE;

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
    /// Show which call paths hold how much pool: attach, !leaks, leave the target running
    Leaks(Box<leaks::Options>),
    /// Look at what drivers hold at an interval, and tell at the end what leaks
    Watch(Box<watch::Options>),
    /// Show which pool tags hold most, watch which of them grow, and tell whose they are
    Pool(Box<pool::Options>),
    /// Take the stack of whoever allocates and frees blocks of a pool tag, as it happens
    Hits(Box<hits::Options>),
    /// Hold what drivers hold against limits, and fail if it is more: a gate for continuous integration
    Check(Box<check::Options>),
    /// Break in by a plan, at intervals and when something happens, ask, write files, let run: several targets side by side
    Run(Box<run::Options>),
    /// Show what has become of each call path between snapshots of `leaks --save`
    Diff(diff::Options),
    /// Debug a simulated target in this process: what verikd does, without a Windows machine
    Demo(demo::Options),
    /// Be a simulated target that any KDNET debugger can attach to
    Sim(Box<simulate::Options>),
    /// Show a target with a serial line to KDNET debuggers, over the network
    Bridge(bridge::Options),
    /// Tell why no target connects, and what to do
    Doctor(doctor::Options),
    /// Look into symbol files
    Symbols(symbols::Options),
    /// Show what a debugger and a target said to each other, from a packet capture
    Capture(capture::Options),
    /// Print what makes a shell complete verikd's arguments: verikd completions bash > /etc/bash_completion.d/verikd
    Completions(completions::Options),
    /// Print the manual page: verikd man | man -l -
    Man,
}

/// Runs the program.
pub(crate) fn run() -> ExitCode {
    let spelling::Spelled { arguments, notes } = match spelling::translate(std::env::args_os()) {
        Ok(spelled) => spelled,
        Err(error) => {
            let _ = writeln!(io::stderr(), "verikd: {error}");
            return ExitCode::from(USAGE);
        }
    };
    for note in notes {
        let _ = writeln!(io::stderr(), "note: {note}");
    }
    // They are a debugger's, and these have their own.
    let hide = |command: clap::Command| {
        leaks::HIDDEN
            .iter()
            .fold(command, |command, name| command.mut_arg(name, |argument| argument.hide(true)))
    };
    let command = Arguments::command()
        .after_help(exit::help())
        .mut_subcommand("leaks", hide)
        .mut_subcommand("watch", hide)
        .mut_subcommand("pool", hide)
        .mut_subcommand("hits", hide)
        .mut_subcommand("check", hide);
    let parsed = command.clone().try_get_matches_from(arguments);
    let arguments = match parsed.and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    let code = match arguments.command {
        None => debug::run(&arguments.debug),
        Some(Command::Leaks(options)) => leaks::run(*options),
        Some(Command::Watch(options)) => watch::run(*options),
        Some(Command::Pool(options)) => pool::run(*options),
        Some(Command::Hits(options)) => hits::run(*options),
        Some(Command::Check(options)) => check::run(*options),
        Some(Command::Run(options)) => run::run(&options),
        Some(Command::Diff(options)) => diff::run(&options),
        Some(Command::Demo(options)) => demo::run(&options),
        Some(Command::Sim(options)) => simulate::run(&options),
        Some(Command::Bridge(options)) => bridge::run(&options),
        Some(Command::Doctor(options)) => doctor::run(&options),
        Some(Command::Symbols(options)) => symbols::run(&options),
        Some(Command::Capture(options)) => capture::run(&options),
        Some(Command::Completions(options)) => completions::completions(&options, command),
        Some(Command::Man) => completions::man(command),
    };
    ExitCode::from(code)
}

/// Prints what the argument parser has to say, a help text or an error. It quotes what it does not understand, so that
/// what could be a key is taken out.
fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        error.exit();
    }
    let mut text = error.render().to_string();
    for argument in std::env::args().skip(1) {
        if let Some(key) = key_within(&argument) {
            text = text.replace(key, "...");
        }
    }
    let _ = write!(io::stderr(), "{text}");
    ExitCode::from(USAGE)
}

/// The part of an argument that may be a key: what follows `key=`, or whatever has a key's dots.
fn key_within(argument: &str) -> Option<&str> {
    let written = argument.to_ascii_lowercase().find("key=").map(|at| &argument[at + 4..]);
    let dotted = || (argument.matches('.').count() == 3 && !argument.contains('/')).then_some(argument);
    written.or_else(dotted).filter(|it| !it.is_empty() && !it.starts_with('@'))
}
