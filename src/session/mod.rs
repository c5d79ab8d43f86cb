//! A debug session: the only room with a socket, a clock and tasks.
//!
//! ```text
//!  shell thread (may block)                      driver thread (tokio, one task)
//!    Session, LiveMemory -- orders ------------>  HostLink <--> UDP socket or serial line, timers, signals
//!                        <-- Monitor (condvar) -  events, replies, run state
//! ```
//! Async below, plain blocking calls above: KD keeps one request in flight, so asynchronous queries would overlap
//! nothing. A whole range crosses between the threads once, however many requests it takes.

mod breakpoint;
mod bridge;
mod connection;
mod context;
mod driver;
mod entropy;
mod error;
mod line;
mod live_memory;
mod monitor;
mod order;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kd_protocol::kd::{ApiNumber, Arm, DebugIo, GetVersion64, Manipulate, NtStatus, StateChange};
use kd_protocol::kdnet::Key;
use kd_protocol::link::{Event, HostLink, LinkConfig, LinkCounters, Patience, Peer, RequestError, RunState};
use tokio::sync::mpsc;

pub use bridge::{Bridge, BridgeConfig, BridgeNews};
pub use connection::{ComLine, ComPort, Connection, ConnectionError, TargetPlace};
pub use entropy::OsEntropy;
pub use error::{AttachError, BreakInError, OpenError};
pub use live_memory::LiveMemory;
pub use monitor::{Traffic, Wait};

use driver::Carrier;
use monitor::Monitor;
use order::{Order, OrderKind, Outcome};

/// A stopped target that is told to run is waited for this long; it acknowledges within milliseconds.
const RESUME_PATIENCE: Duration = Duration::from_secs(16);

/// A target that obeys a break-in late does so within this: a lost state change is repeated after half a second.
const LATE_STOP: Duration = Duration::from_millis(1200);

/// How a session is opened.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Where the target is.
    pub connection: Connection,
    /// A request without an answer fails after this long.
    pub request_timeout: Duration,
    /// Ctrl+C and SIGTERM belong to this session.
    pub handle_signals: bool,
}

impl SessionConfig {
    /// Listens at `listen` with the link's own patience.
    #[must_use]
    pub fn new(listen: SocketAddr, key: Key) -> Self {
        Self::over(Connection::Net { listen, key, target: None })
    }

    /// Talks over `connection` with the link's own patience.
    #[must_use]
    pub fn over(connection: Connection) -> Self {
        let request_timeout = Patience::default().request_timeout;
        Self { connection, request_timeout, handle_signals: false }
    }
}

/// A debug session with one target. Dropping it lets a stopped target run.
#[derive(Debug)]
pub struct Session {
    monitor: Arc<Monitor>,
    orders: mpsc::UnboundedSender<Order>,
    driver: Option<JoinHandle<()>>,
    place: Place,
    opened_at: Instant,
}

/// Where the target is to be met.
#[derive(Clone, Debug)]
enum Place {
    Socket(SocketAddr),
    Line(ComPort),
}

impl Session {
    /// Starts to listen, or to open the serial line. Over a network nothing is sent before a target makes an offer. A line
    /// says nothing by itself, so that a break-in goes out as soon as it is there.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(config: &SessionConfig) -> Result<Self, OpenError> {
        let patience = Patience { request_timeout: config.request_timeout, ..Patience::default() };
        let (place, carrier, link) = match &config.connection {
            Connection::Net { listen, key, .. } => {
                let socket = listen_at(*listen)?;
                let link_config = LinkConfig { key: key.clone(), patience };
                let link = HostLink::new(link_config, Box::new(OsEntropy));
                (Place::Socket(socket.local_addr()?), Carrier::Socket(socket), link)
            }
            Connection::Com(line) => {
                let link = HostLink::over_stream(patience);
                (Place::Line(line.port.clone()), Carrier::Line(line.clone()), link)
            }
        };
        let monitor = Arc::new(Monitor::default());
        let (orders, order_queue) = mpsc::unbounded_channel();
        let driver = driver::spawn(carrier, link, order_queue, Arc::clone(&monitor), config.handle_signals)?;
        let session = Self { monitor, orders, driver: Some(driver), place, opened_at: Instant::now() };
        if matches!(session.place, Place::Line(_)) {
            session.request_break_in();
        }
        Ok(session)
    }

    /// Where it listens: the port that was given, or the one that the system chose for port 0. Nothing over a serial
    /// line.
    #[must_use]
    pub const fn listens_at(&self) -> Option<SocketAddr> {
        match self.place {
            Place::Socket(address) => Some(address),
            Place::Line(_) => None,
        }
    }

    /// Where the target is met, as a person calls it: its address, the port that it is waited for at, a line's name.
    #[must_use]
    pub fn place(&self) -> String {
        match (self.peer(), &self.place) {
            (Some(Peer::Kdnet(peer)), _) => peer.address.to_string(),
            (_, Place::Socket(address)) => format!("UDP port {}", address.port()),
            (_, Place::Line(port)) => port.to_string(),
        }
    }

    /// Waits until a target has proven that it has the key, or has sent a packet; `None` waits until Ctrl+C.
    ///
    /// # Errors
    /// [`AttachError`], which tells no target from one with another key.
    pub fn wait_for_target(&self, timeout: Option<Duration>) -> Result<Peer, AttachError> {
        let wait = self.monitor.wait(timeout.map(|it| Instant::now() + it), |state| state.peer);
        match wait {
            Wait::Done(peer) => Ok(peer),
            Wait::Interrupted => Err(AttachError::Interrupted),
            Wait::Ended(why) => Err(AttachError::Ended(why)),
            Wait::TimedOut => Err(self.why_no_target()),
        }
    }

    fn why_no_target(&self) -> AttachError {
        let after = Duration::from_secs(self.opened_at.elapsed().as_secs_f64().round() as u64);
        match &self.place {
            Place::Socket(address) => self.why_no_datagrams(address.port(), after),
            Place::Line(port) => self.why_no_packets(port, after),
        }
    }

    fn why_no_datagrams(&self, port: u16, after: Duration) -> AttachError {
        let traffic = self.monitor.traffic();
        let Some(from) = traffic.last_from else {
            return AttachError::Silence { after, port };
        };
        if traffic.authentic > 0 {
            AttachError::NoReaction { from }
        } else if traffic.not_authentic > 0 {
            AttachError::WrongKey { from, count: traffic.not_authentic, after }
        } else {
            AttachError::NotKdnet { from, count: traffic.datagrams, after }
        }
    }

    fn why_no_packets(&self, port: &ComPort, after: Duration) -> AttachError {
        let line = port.to_string();
        let traffic = self.monitor.line();
        match traffic.not_there {
            Some(why) if !traffic.was_open => AttachError::NoLine { line, why, advice: port.advice(), after },
            _ if traffic.bytes > 0 => AttachError::NotKd {
                line,
                count: traffic.bytes,
                tail: String::from_utf8_lossy(traffic.tail.as_slices().0).escape_default().to_string(),
                after,
            },
            _ => AttachError::SilentLine { line, after },
        }
    }

    /// Stops the target, unless it is stopped, and waits until it has.
    ///
    /// # Errors
    /// [`BreakInError`]; the target is not tried to be stopped any longer then.
    pub fn break_in(&self, timeout: Duration) -> Result<Box<StateChange>, BreakInError> {
        self.order(OrderKind::BreakIn);
        let wait = self.monitor.wait(Some(Instant::now() + timeout), |state| state.stopped.clone());
        if !matches!(wait, Wait::Done(_)) {
            self.cancel_break_in();
        }
        match wait {
            Wait::Done(change) => {
                self.monitor.forget_stop_event();
                Ok(change)
            }
            Wait::Interrupted => Err(BreakInError::Interrupted),
            Wait::Ended(why) => Err(BreakInError::Ended(why)),
            Wait::TimedOut => {
                let last_heard = self.monitor.last_heard();
                Err(BreakInError::NoReaction { place: self.place(), after: timeout, last_heard })
            }
        }
    }

    /// Starts to stop the target; [`Event::Stopped`] follows.
    pub fn request_break_in(&self) {
        self.order(OrderKind::BreakIn);
    }

    /// Gives up stopping the target. A break-in that is on its way may stop it all the same, for nobody; so this waits a
    /// moment for that, and lets it run.
    pub fn cancel_break_in(&self) {
        self.order(OrderKind::CancelBreakIn);
        let deadline = Instant::now() + LATE_STOP;
        if self.monitor.wait_uninterrupted(deadline, |state| state.stopped.is_some().then_some(())) {
            self.resume(NtStatus::DBG_CONTINUE);
            self.monitor.forget_stop_event();
        }
    }

    /// Lets the stopped target run and waits until it does. False if it does not acknowledge in time, so that
    /// nobody knows.
    pub fn resume(&self, continue_status: NtStatus) -> bool {
        let stop = self.monitor.stopped();
        let runs = self.resume_once(stop.as_deref(), continue_status);
        if runs && self.monitor.may_stop_again() && self.stops_again(stop.as_deref()) {
            return self.resume_once(self.monitor.stopped().as_deref(), continue_status);
        }
        runs
    }

    fn resume_once(&self, stop: Option<&StateChange>, continue_status: NtStatus) -> bool {
        if self.state() != RunState::Stopped {
            return true;
        }
        if let Some(change) = stop {
            // What fails here fails for a target that does not answer, and the next order finds that out too.
            let _ = breakpoint::step_over(self, change);
        }
        let id = self.monitor.stop();
        self.order(OrderKind::Resume(continue_status));
        let deadline = Instant::now() + RESUME_PATIENCE;
        self.monitor.wait_uninterrupted(deadline, |state| {
            (state.run_state != RunState::Stopped || state.stop != id).then_some(())
        });
        if self.state() == RunState::Stopped && self.monitor.stop() != id {
            // The link has stopped it to learn whether it runs.
            self.monitor.forget_stop_event();
            return self.resume_once(self.monitor.stopped().as_deref(), continue_status);
        }
        self.state() == RunState::Running
    }

    /// Waits a moment for the stop that a break-in too many leads to: at the same instruction as the last one.
    fn stops_again(&self, last: Option<&StateChange>) -> bool {
        let deadline = Instant::now() + LATE_STOP;
        let at = last.map(|it| it.program_counter);
        let stops = self.monitor.wait_uninterrupted(deadline, |state| {
            state.stopped.as_ref().is_some_and(|it| Some(it.program_counter) == at).then_some(())
        });
        if stops {
            self.monitor.forget_stop_event();
        }
        stops
    }

    /// Sends one request to the stopped target and waits for its reply, whether or not the user presses Ctrl+C: the
    /// link bounds how long that takes.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn request(&self, request: Manipulate) -> Result<Manipulate, RequestError> {
        let order = |ticket| OrderKind::Request(ticket, Box::new(request));
        match self.monitor.carry_out_uninterrupted(&self.orders, order) {
            Outcome::Reply(reply) => Ok(*reply),
            Outcome::Failed(error) => Err(error),
            _ => Err(RequestError::NotConnected),
        }
    }

    /// Restarts the stopped machine. It connects again by itself when it is back.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn reboot(&self) -> Result<(), RequestError> {
        let request = Manipulate::new(ApiNumber::REBOOT, Arm::None);
        let order = |ticket| OrderKind::Request(ticket, Box::new(request));
        match self.monitor.carry_out_uninterrupted(&self.orders, order) {
            Outcome::Accepted => Ok(()),
            Outcome::Failed(error) => Err(error),
            _ => Err(RequestError::NotConnected),
        }
    }

    /// Asks the stopped target who it is.
    ///
    /// # Errors
    /// [`RequestError`]; [`RequestError::NotConnected`] also if it answers with something else.
    pub fn version(&self) -> Result<GetVersion64, RequestError> {
        match self.request(Manipulate::get_version())?.arm {
            Arm::GetVersion(version) => Ok(version),
            _ => Err(RequestError::NotConnected),
        }
    }

    /// Answers a prompt of the target.
    pub fn answer_prompt(&self, prompt: DebugIo, answer: Bytes) {
        self.order(OrderKind::AnswerPrompt(prompt, answer));
    }

    /// The next event, or why there is none: each event is returned once.
    pub fn next_event(&self, timeout: Option<Duration>) -> Wait<Event> {
        self.monitor.wait(timeout.map(|it| Instant::now() + it), |state| state.events.pop_front())
    }

    /// The stopped target's memory.
    #[must_use]
    pub fn memory(&self) -> LiveMemory {
        LiveMemory::new(Arc::clone(&self.monitor), self.orders.clone())
    }

    /// Whether the target takes requests.
    #[must_use]
    pub fn state(&self) -> RunState {
        self.monitor.run_state()
    }

    /// The target, once one has connected.
    #[must_use]
    pub fn peer(&self) -> Option<Peer> {
        self.monitor.peer()
    }

    /// The CPU that reported the present stop.
    #[must_use]
    pub fn stopped_processor(&self) -> Option<u16> {
        self.monitor.stopped_processor()
    }

    /// What crossed the link so far.
    #[must_use]
    pub fn counters(&self) -> LinkCounters {
        self.monitor.counters()
    }

    /// How long the target has stood still since it connected, over all stops.
    #[must_use]
    pub fn frozen(&self) -> Duration {
        self.monitor.frozen()
    }

    /// Lets reads fail once a stop has taken `budget`.
    pub fn set_freeze_budget(&self, budget: Option<Duration>) {
        self.monitor.set_freeze_budget(budget);
    }

    /// True if the present stop has taken as long as it may.
    #[must_use]
    pub fn is_budget_spent(&self) -> bool {
        self.monitor.is_budget_spent()
    }

    /// True if the user or the system asked the program to end (SIGTERM).
    #[must_use]
    pub fn is_terminating(&self) -> bool {
        self.monitor.is_terminating()
    }

    /// Tells whether the user has pressed Ctrl+C, also while nobody waits for the target.
    #[must_use]
    pub fn interrupts(&self) -> Interrupts {
        Interrupts(Arc::clone(&self.monitor))
    }

    /// Forgets a Ctrl+C that came while nobody waited.
    pub fn clear_interrupt(&self) {
        self.monitor.clear_interrupt();
    }

    fn order(&self, kind: OrderKind) {
        // A driver that has ended says so through the monitor, where every wait looks.
        let _ = self.orders.send(Order(kind));
    }
}

/// Whether the user wants what goes on to end.
#[derive(Clone, Debug)]
pub struct Interrupts(Arc<Monitor>);

impl Interrupts {
    /// True after Ctrl+C, until it is forgotten or has ended something, and once the program is to end.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.0.is_interrupted()
    }

    /// True while the target stands still.
    #[must_use]
    pub fn is_target_stopped(&self) -> bool {
        self.0.run_state() == RunState::Stopped
    }

    /// True if the present stop has taken as long as it may.
    #[must_use]
    pub fn is_budget_spent(&self) -> bool {
        self.0.is_budget_spent()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.state() == RunState::Stopped {
            self.resume(NtStatus::DBG_CONTINUE);
        }
        self.order(OrderKind::End);
        if let Some(driver) = self.driver.take() {
            let _ = driver.join();
        }
    }
}

fn listen_at(address: SocketAddr) -> Result<UdpSocket, OpenError> {
    UdpSocket::bind(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => OpenError::PortInUse(address),
        _ => OpenError::Bind { address, source },
    })
}
