//! `verikd demo`: simulator and debugger in one process, talking through two UDP sockets on loopback.

use std::io::{self, IsTerminal, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use kd_protocol::kdnet::Key;
use verikd::session::{Session, SessionConfig};
use verikd::shell::{Format, Report, Shell, ShellError, prompt, run_script};
use verikd::sim::windows::WINDOWS_7_SP1;
use verikd::sim::{Simulator, SimulatorConfig, export_symbols};
use verikd::symbols::store::SymbolPath;

use super::fail;

/// What a driver developer does with a machine that leaks.
const COMMANDS: &str = "!verifier 3 myfault.sys; !verifier 80 fffffa8005400000";
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
    let session =
        Session::open(&SessionConfig { handle_signals: true, ..SessionConfig::new(listen, key.clone()) })?;
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
    let (mut out, mut aside) = (io::stdout(), io::stderr());
    let report = Report::new(Format::Text, &mut out, &mut aside);
    let symbol_path = SymbolPath::parse(&symbols.path().to_string_lossy());
    let mut shell = Shell::new(&session, symbol_path, report, PATIENCE);
    shell.break_in()?;
    let result = if options.batch || !io::stdin().is_terminal() {
        run_script(&mut shell, &session, COMMANDS)
    } else {
        for command in COMMANDS.split(';') {
            shell.run_echoed(command.trim())?;
        }
        prompt(&mut shell, &session)
    };
    match result {
        Err(ShellError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        result => result.map(|()| shell.worst().exit_code()).map_err(Into::into),
    }
}
