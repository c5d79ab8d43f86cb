//! `verikd demo`: simulator and debugger in one process, talking through two UDP sockets on loopback.

use std::io::{self, IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use kd_protocol::kdnet::Key;
use verikd::debugger::Debugger;
use verikd::session::{Prompts, Session, SessionConfig};
use verikd::shell::interactive::prompt;
use verikd::shell::script::{Script, run_script};
use verikd::shell::{Codes, Format, Report, Shell, Worst, Writer, keep};
use verikd::symbols::store::SymbolPath;
use verikd_sim::windows::WINDOWS_7_SP1;
use verikd_sim::{Simulator, SimulatorConfig, export_symbols};

use super::exit::fail;

/// What a driver developer does with a machine that leaks.
const COMMANDS: &str = "!verifier 3 myfault.sys; !verifier 80 fffffa8005400000";
/// What whoever has seen that may want to do.
const NEXT: &str = "\nThat is where the memory went: MyfaultDeviceControl allocates and never frees. What to try next:\n  \
    !leaks          which call path holds how much\n  \
    g               let the machine run and leak on; Ctrl+C stops it again\n  \
    .help           what else there is; Tab completes, .help COMMAND explains\n  \
    q               end";
/// Nothing on loopback takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// End after the commands, without a prompt
    #[arg(long)]
    batch: bool,
}

pub(super) fn run(options: &Options) -> u8 {
    match demo(options) {
        Ok(code) => code,
        Err(error) => fail(&*error),
    }
}

fn demo(options: &Options) -> Result<u8, Box<dyn std::error::Error>> {
    let symbols = tempfile::tempdir()?;
    export_symbols(&WINDOWS_7_SP1, symbols.path())?;
    let key: Key = "1.2.3.4".parse()?;
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let is_batch = options.batch || !io::stdin().is_terminal();
    let config = SessionConfig {
        handle_signals: true,
        prompts: if is_batch { Prompts::ignoring() } else { Prompts::Ask },
        ..SessionConfig::new(listen, key.clone())
    };
    let session = Arc::new(Session::open(&config)?);
    let listens_at = session.listens_at().expect("a KDNET session listens");
    let target = Simulator::start(SimulatorConfig::new(listens_at, key))?;
    writeln!(
        io::stderr(),
        "A simulated Windows 7 SP1 machine, whose driver myfault.sys leaks nonpaged pool, offers itself from {} \
         to this debugger at {}, over encrypted KDNET.",
        SocketAddr::from((Ipv4Addr::LOCALHOST, target.address().map_or(0, |at| at.port()))),
        listens_at
    )?;
    session.wait_for_target(Some(PATIENCE))?;
    let report = Report::new(Format::Text, Writer::standard());
    let watcher = session.watcher();
    keep(&session, watcher.clone(), report.clone(), Codes::Debugger)?;
    let symbol_path = SymbolPath::parse(&symbols.path().to_string_lossy());
    let debugger = Debugger::new(Arc::clone(&session), symbol_path, PATIENCE);
    let mut shell = Shell::new(debugger, watcher.clone(), report.clone());
    shell.break_in()?;
    let result = if is_batch {
        run_script(&mut shell, &Script { text: COMMANDS.into(), ..Script::default() })
    } else {
        for command in COMMANDS.split(';') {
            shell.run_echoed(command.trim());
        }
        report.status(NEXT);
        prompt(&mut shell, "", PATIENCE)
    };
    let ended_by = shell.ended_by();
    let mut worst = shell.worst();
    if let Err(error) = result {
        worst = worst.max(Worst::Failed);
        report.status(&format!("verikd: {error}"));
    }
    drop(shell);
    Ok(super::debug::ended(&watcher, &report, worst, ended_by, Codes::Debugger))
}
