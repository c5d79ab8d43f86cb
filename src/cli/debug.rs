//! `verikd -k net:...`, `verikd -k com:...`: attach, run commands or prompt, leave the target running.

use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kd_protocol::link::Peer;
use verikd::commands::{Style, VerifierFormat};
use verikd::session::{AttachError, Connection, Session, SessionConfig};
use verikd::shell::{Format, Report, Shell, ShellError, TerminalWatch, prompt, run_script};
use verikd::symbols::store::{Limits, SymbolPath, SymbolSource};

use super::{PromptAnswer, USAGE, fail, warn_of_visible_key};

/// A script's target connects within this, unless told otherwise: its next offer is three seconds away at most, a
/// restart of the machine a minute or so.
const SCRIPT_CONNECT_TIMEOUT: Duration = Duration::from_secs(120);
/// Without a target for this long, a person is told what is missing.
const HINT_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Where the target is, as WinDbg writes it: net:port=50000,key=1.2.3.4[,target=IP[:PORT]][,hostip=IP],
    /// com:pipe,port=PATH[,reconnect], com:ipport=5003,port=HOST or com:port=DEVICE,baud=115200. The key may be key=@FILE,
    /// or be left to VERIKD_KEY
    #[arg(short = 'k', value_name = "CONNECTION", required = true)]
    connection: Option<String>,
    /// Where symbols are, as WinDbg writes it; otherwise _NT_SYMBOL_PATH
    #[arg(short = 'y', value_name = "SYMPATH")]
    symbol_path: Option<String>,
    /// Break in as soon as the target connects
    #[arg(short = 'b')]
    break_in: bool,
    /// Run these commands, separated by semicolons, and end with the target running
    #[arg(short = 'c', value_name = "COMMANDS", conflicts_with = "command_file")]
    commands: Option<String>,
    /// The same with the commands in a file (also -cf)
    #[arg(long, value_name = "FILE")]
    command_file: Option<PathBuf>,
    /// Print each answer as one JSON object
    #[arg(long)]
    json: bool,
    /// How !verifier prints: auto, as the debugger of the target's own time; old, as in Windows 7's time; new, as today
    #[arg(long, value_name = "FORMAT", default_value_t)]
    verifier_format: VerifierFormat,
    /// Show what each command cost: requests, datagrams, bytes, time that the target stood still
    #[arg(long)]
    stats: bool,
    /// Let the target run when a stop of a script has taken this long, and say what was left undone
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    freeze_budget: Option<Duration>,
    /// What a script answers when the target prompts, as a failed assertion does: i ignores, b breaks
    #[arg(long, value_name = "ANSWER", value_enum, default_value_t)]
    prompt_answer: PromptAnswer,
    /// Give up when no target connects within this; scripts: 120s, the prompt waits until Ctrl+C
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    connect_timeout: Option<Duration>,
    /// Give up a request that the target does not answer within this
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    request_timeout: Duration,
    /// Give up when the target does not stop within this
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = humantime::parse_duration)]
    break_timeout: Duration,
}

pub(super) fn run(options: &Options) -> u8 {
    let connection = match Connection::parse(options.connection.as_deref().unwrap_or_default()) {
        Ok((connection, key_origin)) => {
            warn_of_visible_key(key_origin, connection.is_loopback(), "key=@FILE");
            connection
        }
        Err(error) => {
            fail(&error);
            return USAGE;
        }
    };
    let script = match script_of(options) {
        Ok(script) => script,
        Err(error) => {
            let file = options
                .command_file
                .as_ref()
                .map_or_else(|| "standard input".into(), |it| it.display().to_string());
            let _ = writeln!(io::stderr(), "verikd: cannot read commands from {file}: {error}");
            return USAGE;
        }
    };
    let config = SessionConfig {
        request_timeout: options.request_timeout,
        handle_signals: true,
        ..SessionConfig::over(connection)
    };
    let session = match Session::open(&config) {
        Ok(session) => session,
        Err(error) => return fail(&error),
    };
    let timeout = options.connect_timeout.or_else(|| script.as_ref().map(|_| SCRIPT_CONNECT_TIMEOUT));
    say(&format!("Waiting for a target on {}", session.place()));
    if let Err(error) = wait_for_target(&session, timeout) {
        return fail(&error);
    }
    let (mut out, mut aside) = (io::stdout(), io::stderr());
    let format = if options.json { Format::Json } else { Format::Text };
    let style = Style { verifier: options.verifier_format };
    let report = Report::new(format, &mut out, &mut aside).with_costs(options.stats).with_style(style);
    session.set_freeze_budget(options.freeze_budget.filter(|_| script.is_some()));
    let watch = Box::new(TerminalWatch::new(session.interrupts()));
    let symbols = Arc::new(SymbolSource::watched(symbol_path(options), Limits::default(), watch));
    let mut shell = Shell::new(&session, symbols, report, options.break_timeout)
        .with_prompt_answer(options.prompt_answer.text());
    match debug(&mut shell, &session, options.break_in, script.as_deref()) {
        Ok(()) => shell.worst().exit_code(),
        Err(ShellError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => fail(&error),
    }
}

fn debug(
    shell: &mut Shell<'_>,
    session: &Session,
    break_in: bool,
    script: Option<&str>,
) -> Result<(), ShellError> {
    if break_in {
        shell.break_in()?;
    } else {
        shell.identify()?;
    }
    match script {
        Some(script) => run_script(shell, session, script),
        None => prompt(shell, session),
    }
}

/// The commands of `-c`, `-cf` or a standard input that is no terminal.
fn script_of(options: &Options) -> io::Result<Option<String>> {
    if let Some(commands) = &options.commands {
        return Ok(Some(commands.clone()));
    }
    if let Some(file) = &options.command_file {
        return std::fs::read_to_string(file).map(Some);
    }
    if io::stdin().is_terminal() {
        return Ok(None);
    }
    let mut commands = String::new();
    io::stdin().read_to_string(&mut commands)?;
    Ok(Some(commands))
}

fn symbol_path(options: &Options) -> SymbolPath {
    let from_environment = || std::env::var("_NT_SYMBOL_PATH").unwrap_or_default();
    SymbolPath::parse(&options.symbol_path.clone().unwrap_or_else(from_environment))
}

/// Waits as WinDbg does, and says what is missing when it takes long.
fn wait_for_target(session: &Session, timeout: Option<Duration>) -> Result<Peer, AttachError> {
    let start = Instant::now();
    let mut has_hinted = false;
    loop {
        let left = timeout.map(|it| it.saturating_sub(start.elapsed()));
        let slice = if has_hinted { left } else { Some(left.map_or(HINT_AFTER, |it| it.min(HINT_AFTER))) };
        match session.wait_for_target(slice) {
            Err(
                hint @ (AttachError::Silence { .. }
                | AttachError::WrongKey { .. }
                | AttachError::NotKdnet { .. }
                | AttachError::NoLine { .. }
                | AttachError::SilentLine { .. }
                | AttachError::NotKd { .. }),
            ) if timeout.is_none_or(|it| start.elapsed() < it) => {
                say(&format!("{hint}\nStill waiting; Ctrl+C ends"));
                has_hinted = true;
            }
            result => return result,
        }
    }
}

fn say(text: &str) {
    // Status is not worth dying for.
    let _ = writeln!(io::stderr(), "{text}");
}
