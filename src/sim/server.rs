//! Simulated targets on threads of their own, behind a UDP socket or a serial line.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kd_protocol::kdnet::Key;
use kd_protocol::link::{Entropy, TargetConfig, TargetLink};
use tokio::sync::oneshot;

use super::network::Faults;
use super::serial::{self, Listener, SerialPort};
use super::target::Target;
use super::udp;
use super::windows::{Build, Scenario, WINDOWS_7_SP1};

/// KDNET version byte of Windows 10 2004.
const KDNET_VERSION: u8 = 5;
/// Data that one reply carries over KDNET: `KdTransportMaxPacketSize` 1152 of Windows 10 1903 and later, less the header.
const KDNET_REPLY_DATA: usize = 1096;
/// The same over a serial line: 4,000 bytes less the header.
const SERIAL_REPLY_DATA: usize = 3944;

/// How its debugger reaches a simulated target.
#[derive(Clone, Debug)]
pub enum SimulatorLink {
    /// Over the network, by the target's own offers.
    Kdnet {
        /// Where the debugger listens.
        connect: SocketAddr,
        /// Where the target sends from; any free port if `None`.
        source: Option<SocketAddr>,
        /// The key that the debugger is given too.
        key: Key,
    },
    /// Over a serial line that the debugger connects to.
    Serial(SerialPort),
}

/// How a simulated target is run.
#[derive(Clone, Debug)]
pub struct SimulatorConfig {
    /// How its debugger reaches it.
    pub link: SimulatorLink,
    /// What the network does to datagrams, both ways; a serial line is perfect.
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
        Self::with_link(SimulatorLink::Kdnet { connect, source: None, key })
    }

    /// A target with Windows 7 SP1 behind a serial line.
    #[must_use]
    pub fn serial(port: SerialPort) -> Self {
        Self::with_link(SimulatorLink::Serial(port))
    }

    fn with_link(link: SimulatorLink) -> Self {
        Self {
            link,
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
    /// Its serial line cannot be had.
    #[error("cannot listen on {port:?} for a debugger: {source}")]
    Listen {
        /// Which.
        port: SerialPort,
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
    /// It runs, and sends offers from here or waits for a debugger here.
    Started(String),
    /// A debugger answered from there.
    Connected(String),
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
    address: Option<SocketAddr>,
}

/// What a simulator's owner can ask at any time.
#[derive(Debug, Default)]
pub(super) struct Status {
    pub(super) is_running: AtomicBool,
    pub(super) requests: AtomicU64,
}

impl Simulator {
    /// Starts a target that offers itself to its debugger, or waits for one on its serial line.
    ///
    /// # Errors
    /// [`SimulatorError`].
    pub fn start(config: SimulatorConfig) -> Result<Self, SimulatorError> {
        let status = Arc::new(Status::default());
        let (watcher, events) = mpsc::channel();
        let (place, address, start) = match &config.link {
            SimulatorLink::Kdnet { connect, source, key } => {
                let socket = bind(*connect, *source)?;
                let address = socket.local_addr()?;
                let target =
                    TargetConfig { key: key.clone(), version: KDNET_VERSION, address, host: *connect };
                let seed = config.faults.seed ^ u64::from(address.port());
                let entropy = Box::new(SeededEntropy(fastrand::Rng::with_seed(seed)));
                let link = TargetLink::new(Instant::now(), target, entropy);
                (format!("UDP {address}"), Some(address), Start::Udp(socket, *connect, Box::new(link)))
            }
            SimulatorLink::Serial(port) => {
                let listener = Listener::bind(port)
                    .map_err(|source| SimulatorError::Listen { port: port.clone(), source })?;
                (listener.place(), listener.address(), Start::Serial(listener))
            }
        };
        // Whoever watches may have gone away.
        let _ = watcher.send(SimulatorEvent::Started(place));
        let (unplug, unplugged) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::clone(&status);
        let thread = std::thread::Builder::new().name("target".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = start.run(&config, shared, watcher) => {}
                    _ = unplugged => {}
                }
            });
        })?;
        Ok(Self { status, events, unplug: Some(unplug), thread: Some(thread), address })
    }

    /// Where it sends from, or the TCP address at which its serial line is; nothing for a Unix socket.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
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

/// What a target's thread begins with.
enum Start {
    Udp(UdpSocket, SocketAddr, Box<TargetLink>),
    Serial(Listener),
}

impl Start {
    async fn run(self, config: &SimulatorConfig, status: Arc<Status>, watcher: mpsc::Sender<SimulatorEvent>) {
        match self {
            Self::Udp(socket, connect, link) => {
                let Ok(socket) = tokio::net::UdpSocket::from_std(socket) else { return };
                let target = Target::new(config, *link, KDNET_REPLY_DATA, status, watcher);
                udp::Server::new(target, connect, config.faults).run(socket).await;
            }
            Self::Serial(listener) => {
                let link = TargetLink::over_stream();
                let target = Target::new(config, link, SERIAL_REPLY_DATA, status, watcher);
                serial::run(target, listener).await;
            }
        }
    }
}

fn bind(connect: SocketAddr, source: Option<SocketAddr>) -> Result<UdpSocket, SimulatorError> {
    let source = source.unwrap_or_else(|| match connect {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    });
    let socket =
        UdpSocket::bind(source).map_err(|error| SimulatorError::Bind { address: source, source: error })?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Reproducible randomness: this target's secrets protect nothing.
#[derive(Debug)]
struct SeededEntropy(fastrand::Rng);

impl Entropy for SeededEntropy {
    fn fill(&mut self, buf: &mut [u8]) {
        self.0.fill(buf);
    }
}
