//! A live simulated target, and what is asked of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use verikd::debugger::Debugger;
use verikd::memory::{Memory, VirtAddr};
use verikd::session::{ComLine, ComPort, Connection, Session, SessionConfig};
use verikd::shell::{Format, Report, Shell, Transcript, Writer};
use verikd::source::Source;
use verikd::symbols::store::SymbolPath;
use verikd::target::{Kernel, KernelVersion, Target};
use verikd_sim::windows::{Build, Growth, Scenario, WINDOWS_7_SP1};
use verikd_sim::{SerialPort, Simulator, SimulatorConfig, export_symbols};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// A simulated machine and a session with it.
pub(crate) struct Live {
    pub(crate) session: Arc<Session>,
    target: Simulator,
    symbols: tempfile::TempDir,
}

impl Live {
    pub(crate) fn start() -> Self {
        Self::of(&WINDOWS_7_SP1, Scenario::Myfault)
    }

    /// What a command costs in a stop of its own, and what it prints.
    pub(crate) fn cost_of(&self, command: &str) -> (u64, String) {
        let (mut shell, out) = self.shell();
        shell.break_in().unwrap();
        let before = self.session.counters().requests;
        shell.run(command);
        let requests = self.session.counters().requests - before;
        (requests, out())
    }

    /// A shell, and what it has answered so far.
    pub(crate) fn shell(&self) -> (Shell, impl Fn() -> String) {
        let out = Transcript::default();
        let writer = Writer::new(out.clone(), Transcript::default());
        let debugger = self.debugger();
        let watcher = self.session.watcher();
        let shell = Shell::new(debugger, watcher, Report::new(Format::Text, writer.clone()));
        let answered = move || {
            let _ = writer.drain(|| true);
            out.text()
        };
        (shell, answered)
    }

    pub(crate) fn debugger(&self) -> Debugger {
        Debugger::new(Arc::clone(&self.session), self.symbol_path(), PATIENCE)
    }

    /// Breakpoints that are in the machine's code.
    pub(crate) fn breakpoints(&self) -> usize {
        self.target.breakpoints()
    }

    /// Debug registers of its that watch.
    pub(crate) fn debug_registers(&self) -> usize {
        self.target.debug_registers()
    }

    pub(crate) fn over_serial_line(build: &'static Build, scenario: Scenario) -> Self {
        let symbols = tempfile::tempdir().unwrap();
        export_symbols(build, symbols.path()).unwrap();
        let port = SerialPort::Tcp((Ipv4Addr::LOCALHOST, 0).into());
        let config = SimulatorConfig { build, scenario, ..SimulatorConfig::serial(port) };
        let target = Simulator::start(config).unwrap();
        let address = target.address().expect("a TCP port");
        let port = ComPort::Tcp { host: address.ip().to_string(), port: address.port() };
        let line = Connection::Com(ComLine { port, reconnect: false });
        let session = Arc::new(Session::open(&SessionConfig::over(line)).unwrap());
        session.wait_for_target(Some(PATIENCE)).unwrap();
        Self { session, target, symbols }
    }

    pub(crate) fn of(build: &'static Build, scenario: Scenario) -> Self {
        Self::grown(build, scenario, Growth::default())
    }

    /// A machine that is as large as `growth` says.
    pub(crate) fn grown(build: &'static Build, scenario: Scenario, growth: Growth) -> Self {
        Self::started(build, scenario, growth, None)
    }

    /// One whose driver leaks a block each `every`, while it runs.
    pub(crate) fn leaking(growth: Growth, every: Duration) -> Self {
        Self::started(&WINDOWS_7_SP1, Scenario::Myfault, growth, Some(every))
    }

    fn started(
        build: &'static Build,
        scenario: Scenario,
        growth: Growth,
        leak_every: Option<Duration>,
    ) -> Self {
        let symbols = tempfile::tempdir().unwrap();
        export_symbols(build, symbols.path()).unwrap();
        let key: kd_protocol::kdnet::Key = "1.2.3.4".parse().unwrap();
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let session = Arc::new(Session::open(&SessionConfig::new(listen, key.clone())).unwrap());
        let port = SimulatorConfig::new(session.listens_at().unwrap(), key);
        let config = SimulatorConfig { build, scenario, growth, leak_every, ..port };
        let target = Simulator::start(config).unwrap();
        session.wait_for_target(Some(PATIENCE)).unwrap();
        Self { session, target, symbols }
    }

    /// Where the stopped machine keeps its pool log.
    pub(crate) fn pool_log(&self) -> VirtAddr {
        let version = self.session.get_version().unwrap();
        let version = KernelVersion { base: version.kern_base, ..KernelVersion::default() };
        let kernel = Kernel::new(version, self.symbol_path());
        let memory = self.session.memory();
        let pointer = Target::new(&memory, &kernel).address_of("nt!VfPoolTraces").unwrap();
        let mut word = [0; 8];
        memory.read_virtual(pointer, &mut word).unwrap();
        VirtAddr(u64::from_le_bytes(word))
    }

    fn symbol_path(&self) -> SymbolPath {
        SymbolPath::parse(&self.symbols.path().to_string_lossy())
    }
}
