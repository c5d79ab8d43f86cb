//! Simulated targets on threads of their own, behind a UDP socket or a serial line.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kd_protocol::link::{Entropy, TargetConfig, TargetLink};
use tokio::sync::{mpsc as orders, oneshot};

use super::config::{KDNET_REPLY_DATA, SERIAL_REPLY_DATA, SimulatorConfig, SimulatorLink};
use super::error::SimulatorError;
use super::event::SimulatorEvent;
use super::network::Faults;
use super::order::{AtBoot, Happening, Order, Ordered};
use super::serial::{self, Listener};
use super::status::{MachineState, Status};
use super::target::Target;
use super::udp;
use super::windows::{Build, NotOnBuild, Outstanding, PoolHit, Scenario, Stop};

/// KDNET version byte of Windows 10 2004.
const KDNET_VERSION: u8 = 5;

/// A simulated target on a thread of its own. Dropping it unplugs the machine.
///
/// Every method may be called from any thread. Those that do something to the machine return when it is done, or, where it
/// needs a running machine, when it is noted.
#[derive(Debug)]
pub struct Simulator {
    status: Arc<Status>,
    events: Mutex<mpsc::Receiver<SimulatorEvent>>,
    orders: orders::UnboundedSender<Ordered>,
    unplug: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    address: Option<SocketAddr>,
    scenario: Scenario,
}

impl Simulator {
    /// Starts a target that offers itself to its debugger, or waits for one on its serial line.
    ///
    /// # Errors
    /// [`SimulatorError`].
    pub fn start(config: SimulatorConfig) -> Result<Self, SimulatorError> {
        let status = Arc::new(Status::default());
        let scenario = config.scenario;
        scenario.check(config.build)?;
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
        let (orders, received) = orders::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::clone(&status);
        let thread = std::thread::Builder::new().name("target".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = start.run(&config, shared, watcher, received) => {}
                    _ = unplugged => {}
                }
            });
        })?;
        Ok(Self {
            status,
            events: Mutex::new(events),
            orders,
            unplug: Some(unplug),
            thread: Some(thread),
            address,
            scenario,
        })
    }

    /// Where it sends from, or the TCP address at which its serial line is; nothing for a Unix socket.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// What the machine is doing.
    #[must_use]
    pub fn state(&self) -> MachineState {
        self.status.read(|snapshot| snapshot.state)
    }

    /// True while its processors run: it is switched on, not stopped, not waiting at a prompt, and no line that it prints is
    /// waiting to be acknowledged.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state() == MachineState::Running
    }

    /// Waits until the machine is in this state; false if it is not within `timeout`.
    #[must_use]
    pub fn wait_for(&self, state: MachineState, timeout: Duration) -> bool {
        self.status.wait(timeout, |snapshot| snapshot.state == state)
    }

    /// Which boot this is, the first is 1.
    #[must_use]
    pub fn boot(&self) -> u64 {
        self.status.read(|snapshot| snapshot.boot)
    }

    /// How often it stopped for its debugger, whatever the reason.
    #[must_use]
    pub fn stops(&self) -> u64 {
        self.status.read(|snapshot| snapshot.stops)
    }

    /// How often such a stop ended: as many as [`Self::stops`], or one less while it is stopped.
    #[must_use]
    pub fn resumes(&self) -> u64 {
        self.status.read(|snapshot| snapshot.resumes)
    }

    /// How long it stood still in the longest stop that is over, from when it stopped to when it ran again.
    #[must_use]
    pub fn longest_stop(&self) -> Duration {
        self.status.read(|snapshot| snapshot.longest_stop)
    }

    /// Forgets the stops so far: what [`Self::longest_stop`] says then is of later ones.
    pub fn forget_longest_stop(&self) {
        self.status.publish(|snapshot| snapshot.longest_stop = Duration::ZERO);
    }

    /// What verified drivers held when the pool log's index was this, by address: the simulation's own account. Nothing if
    /// that is longer ago than it remembers, or the machine's thread has ended.
    #[must_use]
    pub fn outstanding_at(&self, event: u32) -> Option<Vec<Outstanding>> {
        let (to, from) = mpsc::channel();
        self.order(Order::Account(event, to));
        from.try_recv().ok().flatten()
    }

    /// Manipulate requests that it has carried out.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.status.read(|snapshot| snapshot.requests)
    }

    /// Bytes of its memory that debuggers have overwritten, breakpoints included.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.status.read(|snapshot| snapshot.written)
    }

    /// What debuggers answered to its prompts.
    #[must_use]
    pub fn answers(&self) -> Vec<String> {
        self.status.read(|snapshot| snapshot.answers.clone())
    }

    /// The stops at blocks of the tag in `nt!PoolHitTag` that it has reported, over all boots: the simulation's own account.
    #[must_use]
    pub fn pool_hits(&self) -> Vec<PoolHit> {
        self.status.read(|snapshot| snapshot.pool_hits.clone())
    }

    /// The tag that a debugger has written to `nt!PoolHitTag` and not taken away, in memory order.
    #[must_use]
    pub fn pool_hit_tag(&self) -> Option<[u8; 4]> {
        self.status.read(|snapshot| snapshot.pool_hit_tag)
    }

    /// Breakpoints that debuggers have set and nobody has taken away.
    #[must_use]
    pub fn breakpoints(&self) -> usize {
        self.status.read(|snapshot| snapshot.breakpoints)
    }

    /// Debug registers that watch since the last continue, of four.
    #[must_use]
    pub fn debug_registers(&self) -> usize {
        self.status.read(|snapshot| snapshot.debug_registers)
    }

    /// Starts the machine anew, without a word to its debugger. It is switched on then.
    pub fn reboot(&self, at_boot: AtBoot) {
        self.order(Order::Reboot(at_boot, None));
    }

    /// Starts the machine anew with another Windows, whose kernel is loaded where `seed` says; 0 is the usual place.
    ///
    /// # Errors
    /// [`NotOnBuild`] if the machine's scenario cannot be there.
    pub fn reboot_as(&self, build: &'static Build, seed: u64, at_boot: AtBoot) -> Result<(), NotOnBuild> {
        self.scenario.check(build)?;
        self.order(Order::Reboot(at_boot, Some((build, seed))));
        Ok(())
    }

    /// Switches it off: it hears nothing, and says nothing more. What is sent to it is lost.
    pub fn power_off(&self) {
        self.order(Order::PowerOff);
    }

    /// Switches it on again: it boots.
    pub fn power_on(&self) {
        self.order(Order::PowerOn);
    }

    /// Pauses it as one pauses a virtual machine: nothing is received or sent, its time stands still. Datagrams that arrive are
    /// lost, bytes wait on the line.
    pub fn suspend(&self) {
        self.order(Order::Suspend);
    }

    /// Ends the pause.
    pub fn wake(&self) {
        self.order(Order::Wake);
    }

    /// Stops the machine by itself: at once if it runs, else as soon as it does.
    pub fn stop_with(&self, stop: Stop) {
        self.order(Order::Happen(Happening::Stop(stop)));
    }

    /// Lets the machine ask its debugger and wait for the answer: at once if it runs, else as soon as it does. Where the prompt
    /// ends with letters, `(boipt)? `, it asks until the answer begins with one of them; `b` and `o` stop it.
    pub fn ask(&self, prompt: impl Into<String>) {
        self.order(Order::Happen(Happening::Ask(prompt.into())));
    }

    /// Prints a line, which brings its own end: at once if the machine runs, else as soon as it does.
    pub fn print(&self, line: impl Into<String>) {
        self.order(Order::Happen(Happening::Print(line.into())));
    }

    /// Lets the machine print this many lines a second while it runs; 0 ends that.
    pub fn flood(&self, lines_per_second: u32) {
        self.order(Order::Flood(lines_per_second));
    }

    /// Becomes another network or line, each direction on its own.
    pub fn set_faults(&self, to_host: Faults, to_target: Faults) {
        self.order(Order::SetFaults { to_host, to_target });
    }

    fn order(&self, order: Order) {
        let (done, is_done) = mpsc::channel();
        // A machine whose thread has ended obeys nobody; its state says the rest.
        if self.orders.send((order, done)).is_ok() {
            let _ = is_done.recv();
        }
    }

    /// Waits for the next event; `None` when the target has ended or `timeout` passes.
    pub fn next_event(&self, timeout: Option<Duration>) -> Option<SimulatorEvent> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        match timeout {
            Some(timeout) => events.recv_timeout(timeout).ok(),
            None => events.recv().ok(),
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
    async fn run(
        self,
        config: &SimulatorConfig,
        status: Arc<Status>,
        watcher: mpsc::Sender<SimulatorEvent>,
        orders: orders::UnboundedReceiver<Ordered>,
    ) {
        let now = Instant::now();
        let to_host = config.faults;
        let to_target = config.faults_to_target.unwrap_or(to_host);
        match self {
            Self::Udp(socket, connect, link) => {
                let Ok(socket) = tokio::net::UdpSocket::from_std(socket) else { return };
                let target = Target::new(config, *link, KDNET_REPLY_DATA, now, status, watcher);
                udp::Server::new(target, connect, to_host, to_target).run(socket, orders).await;
            }
            Self::Serial(listener) => {
                let link = TargetLink::over_stream();
                let target = Target::new(config, link, SERIAL_REPLY_DATA, now, status, watcher);
                serial::run(target, listener, to_host, to_target, orders).await;
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
