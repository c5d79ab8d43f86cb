//! The simulated target behind a real UDP socket.
//!
//! ```text
//!   socket <--> Network (faults) <--> TargetLink <--> Debuggee (machine, debug engine)
//! ```

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kd_protocol::kd::Manipulate;
use kd_protocol::kdnet::Key;
use kd_protocol::link::{Entropy, TargetConfig, TargetEvent, TargetLink};
use tokio::net::UdpSocket;
use tokio::sync::oneshot;

use super::kernel::{Answer, Debuggee};
use super::network::{Faults, Network};
use super::windows::{Build, Machine, Scenario, WINDOWS_7_SP1};

/// KDNET version byte of Windows 10 2004.
const KDNET_VERSION: u8 = 5;
/// A running machine's time advances in steps of this.
const TICK: Duration = Duration::from_millis(50);
/// Shorter waits for a datagram on its way than this are too fine for the runtime's timers.
const FINE_WAIT: Duration = Duration::from_millis(3);
/// The most that UDP carries.
const MAX_DATAGRAM: usize = 65_536;

/// How a simulated target is run.
#[derive(Clone, Debug)]
pub struct SimulatorConfig {
    /// Where the debugger listens.
    pub connect: SocketAddr,
    /// Where the target sends from; any free port if `None`.
    pub source: Option<SocketAddr>,
    /// The key that the debugger is given too.
    pub key: Key,
    /// What the network does to datagrams, both ways.
    pub faults: Faults,
    /// Which Windows it has.
    pub build: &'static Build,
    /// What has happened on it. What a scenario leaves to chance is chosen by the seed of `faults`.
    pub scenario: Scenario,
    /// How often the driver leaks once the machine has been stopped; zero for never.
    pub leak_every: Option<Duration>,
}

impl SimulatorConfig {
    /// A target with Windows 7 SP1 on a perfect network.
    #[must_use]
    pub fn new(connect: SocketAddr, key: Key) -> Self {
        Self {
            connect,
            source: None,
            key,
            faults: Faults::default(),
            build: &WINDOWS_7_SP1,
            scenario: Scenario::default(),
            leak_every: None,
        }
    }
}

/// Why a simulated target cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimulatorError {
    /// Its own address is not to be had.
    #[error("cannot send from UDP {address}: {source}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// No thread, no runtime, or the socket failed.
    #[error("the simulated target cannot run: {0}")]
    Io(#[from] io::Error),
}

/// Something a watcher may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SimulatorEvent {
    /// It sends offers from here.
    Started(SocketAddr),
    /// A debugger answered.
    Connected(SocketAddr),
    /// A debugger stopped it.
    Stopped,
    /// It runs again.
    Resumed,
    /// It started anew.
    Rebooted,
    /// It printed this line to its debugger, connected or not.
    Printed(String),
    /// Its debugger does not acknowledge any more.
    DebuggerAbsent,
}

/// A simulated target on a thread of its own. Dropping it unplugs the machine.
#[derive(Debug)]
pub struct Simulator {
    status: Arc<Status>,
    events: mpsc::Receiver<SimulatorEvent>,
    unplug: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    address: SocketAddr,
}

#[derive(Debug, Default)]
struct Status {
    is_running: AtomicBool,
    requests: AtomicU64,
}

impl Simulator {
    /// Starts a target that offers itself to `config.connect`.
    ///
    /// # Errors
    /// [`SimulatorError`].
    pub fn start(config: SimulatorConfig) -> Result<Self, SimulatorError> {
        let source = config.source.unwrap_or_else(|| match config.connect {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        });
        let socket = std::net::UdpSocket::bind(source)
            .map_err(|error| SimulatorError::Bind { address: source, source: error })?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let status = Arc::new(Status::default());
        let (unplug, unplugged) = oneshot::channel();
        let (watcher, events) = mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::clone(&status);
        let thread = std::thread::Builder::new().name("target".into()).spawn(move || {
            runtime.block_on(async {
                let Ok(socket) = UdpSocket::from_std(socket) else { return };
                let server = Server::new(config, address, shared, watcher);
                tokio::select! {
                    () = server.run(socket) => {}
                    _ = unplugged => {}
                }
            });
        })?;
        Ok(Self { status, events, unplug: Some(unplug), thread: Some(thread), address })
    }

    /// Where it sends from.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// True while the machine runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.status.is_running.load(Ordering::Acquire)
    }

    /// Manipulate requests that it has carried out.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.status.requests.load(Ordering::Acquire)
    }

    /// Waits for the next event; `None` when the target has ended or `timeout` passes.
    pub fn next_event(&self, timeout: Option<Duration>) -> Option<SimulatorEvent> {
        match timeout {
            Some(timeout) => self.events.recv_timeout(timeout).ok(),
            None => self.events.recv().ok(),
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        // The thread may have ended by itself.
        let _ = self.unplug.take().map(|unplug| unplug.send(()));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Server {
    debuggee: Debuggee,
    link: TargetLink,
    connect: SocketAddr,
    to_host: Network,
    to_target: Network,
    status: Arc<Status>,
    watcher: mpsc::Sender<SimulatorEvent>,
    /// Acknowledged, to be carried out.
    request: Option<Box<Manipulate>>,
    /// When the machine's time was last brought up to date.
    ticked_at: Instant,
}

impl Server {
    fn new(
        config: SimulatorConfig,
        address: SocketAddr,
        status: Arc<Status>,
        watcher: mpsc::Sender<SimulatorEvent>,
    ) -> Self {
        let now = Instant::now();
        let mut machine = Machine::with_scenario(config.build, config.scenario, config.faults.seed);
        if let Some(interval) = config.leak_every {
            machine.leak_every(interval);
        }
        let target = TargetConfig { key: config.key, version: KDNET_VERSION, address, host: config.connect };
        let entropy = SeededEntropy(fastrand::Rng::with_seed(config.faults.seed ^ u64::from(address.port())));
        // Whoever watches may have gone away.
        let _ = watcher.send(SimulatorEvent::Started(address));
        Self {
            debuggee: Debuggee::new(machine),
            link: TargetLink::new(now, target, Box::new(entropy)),
            connect: config.connect,
            to_host: Network::new(config.faults, 0),
            to_target: Network::new(config.faults, 1),
            status,
            watcher,
            request: None,
            ticked_at: now,
        }
    }

    async fn run(mut self, socket: UdpSocket) {
        let mut datagram = vec![0; MAX_DATAGRAM];
        loop {
            self.settle();
            self.transmit(&socket).await;
            // A kernel acknowledges a request before it carries it out, however long that takes.
            if self.execute() {
                continue;
            }
            if let Some((len, from)) = self.wait(&socket, &mut datagram).await {
                self.received(from, &datagram[..len]);
            }
            self.due();
        }
    }

    /// Waits for a datagram from the debugger, or until something is due.
    async fn wait(&self, socket: &UdpSocket, datagram: &mut [u8]) -> Option<(usize, SocketAddr)> {
        let wake_at = self.wake_at();
        // The runtime's timers count milliseconds; a round trip of 0.3 ms is waited for without them.
        while self.next_arrival().is_some() && wake_at.saturating_duration_since(Instant::now()) < FINE_WAIT {
            match socket.try_recv_from(datagram) {
                Ok(received) => return Some(received),
                Err(_) if wake_at <= Instant::now() => return None,
                Err(_) => tokio::task::yield_now().await,
            }
        }
        tokio::select! {
            biased;
            // Errors here are of earlier sends to a port where nobody listens yet.
            received = socket.recv_from(datagram) => received.ok(),
            () = tokio::time::sleep_until(wake_at.into()) => None,
        }
    }

    /// When the next datagram on its way arrives, in either direction.
    fn next_arrival(&self) -> Option<Instant> {
        [self.to_host.next_arrival(), self.to_target.next_arrival()].into_iter().flatten().min()
    }

    fn wake_at(&self) -> Instant {
        let tick = self.link.is_running().then_some(self.ticked_at + TICK);
        self.next_arrival()
            .into_iter()
            .chain(tick)
            .chain(self.link.poll_timeout())
            .min()
            .expect("offers never end")
    }

    fn received(&mut self, from: SocketAddr, datagram: &[u8]) {
        if from.ip() != self.connect.ip() && !self.connect.ip().is_unspecified() {
            return;
        }
        self.to_target.send(Instant::now(), datagram);
    }

    fn due(&mut self) {
        let now = Instant::now();
        while let Some(datagram) = self.to_target.receive(now) {
            // The link counts on no datagram, and neither does the target: whatever is wrong with one, it is dropped.
            let _ = self.link.handle_datagram(now, self.connect, &datagram);
            self.settle();
        }
        if self.link.poll_timeout().is_some_and(|at| at <= now) {
            self.link.handle_timeout(now);
        }
        if !self.link.is_running() {
            self.ticked_at = now;
        } else if now - self.ticked_at >= TICK {
            for line in self.debuggee.machine.run_for(now - self.ticked_at) {
                self.link.print(now, Bytes::from(line.clone()));
                self.watch(SimulatorEvent::Printed(line));
            }
            self.ticked_at = now;
        }
    }

    fn settle(&mut self) {
        let now = Instant::now();
        while let Some(event) = self.link.poll_event() {
            match event {
                TargetEvent::BreakIn => self.stop(now),
                TargetEvent::Request(request) => self.request = Some(request),
                TargetEvent::Connected(host) => self.watch(SimulatorEvent::Connected(host)),
                TargetEvent::DebuggerAbsent => self.watch(SimulatorEvent::DebuggerAbsent),
                TargetEvent::PromptAnswer(_) | TargetEvent::FileAnswer(_) => {}
            }
        }
        self.status.is_running.store(!self.link.is_stopped(), Ordering::Release);
    }

    /// Carries out the request that was acknowledged, if there is one.
    fn execute(&mut self) -> bool {
        let Some(request) = self.request.take() else { return false };
        self.status.requests.fetch_add(1, Ordering::AcqRel);
        let answer = self.debuggee.answer(&request);
        let now = Instant::now();
        match answer {
            Answer::Reply(reply) => self.link.reply(now, &reply),
            Answer::Silence => self.link.no_reply(now),
            Answer::Resume => self.resume(now),
            Answer::Report => {
                let change = self.debuggee.report();
                self.link.stop(now, change);
            }
            Answer::Reboot => {
                self.debuggee.machine.reboot();
                self.link.reboot(now);
                self.watch(SimulatorEvent::Rebooted);
            }
        }
        true
    }

    fn stop(&mut self, now: Instant) {
        let change = self.debuggee.break_in();
        self.link.stop(now, change);
        self.watch(SimulatorEvent::Stopped);
    }

    fn resume(&mut self, now: Instant) {
        if self.debuggee.stands_on_breakpoint() {
            let change = self.debuggee.report();
            self.link.stop(now, change);
            return;
        }
        self.ticked_at = now;
        self.watch(SimulatorEvent::Resumed);
    }

    async fn transmit(&mut self, socket: &UdpSocket) {
        let now = Instant::now();
        let mut datagram = BytesMut::new();
        while self.link.poll_transmit(&mut datagram).is_some() {
            self.to_host.send(now, &datagram);
        }
        while let Some(datagram) = self.to_host.receive(now) {
            // Where nobody listens, an offer is lost; the next one follows.
            let _ = socket.send_to(&datagram, self.connect).await;
        }
    }

    fn watch(&self, event: SimulatorEvent) {
        // Whoever watches may have gone away.
        let _ = self.watcher.send(event);
    }
}

/// Reproducible randomness: this target's secrets protect nothing.
#[derive(Debug)]
struct SeededEntropy(fastrand::Rng);

impl Entropy for SeededEntropy {
    fn fill(&mut self, buf: &mut [u8]) {
        self.0.fill(buf);
    }
}
