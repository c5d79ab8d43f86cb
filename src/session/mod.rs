//! A debug session: the only room with a socket, a clock and tasks.
//!
//! ```text
//!  shell thread (may block)                      driver thread (tokio, one task)
//!    Session, LiveMemory -- orders ------------>  HostLink <--> UDP socket or serial line, timers, signals
//!                        <-- Monitor (condvar) -  events, replies, run state
//! ```
//! Async below, plain blocking calls above: KD keeps one request in flight, so asynchronous queries would overlap
//! nothing. A whole range crosses between the threads once, however many requests it takes.

mod breakpoints;
pub mod bridge;
mod connection;
mod context;
mod control;
mod driver;
mod entropy;
mod error;
mod in_target;
mod leaving;
mod leaving_stop;
mod line;
mod live_memory;
mod monitor;
mod order;
mod planting;
mod prompts;
mod raw_line;
mod rescue;
mod signal;
mod signals;
mod tap;
mod version;
mod watcher;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kd_protocol::kd::{GetVersion64, Manipulate, StateChange};
use kd_protocol::kdnet::Key;
use kd_protocol::link::{HostLink, LinkConfig, Patience, Peer, RequestError};
use tokio::sync::mpsc;

use crate::source::{BreakInError, Control, Source, Step, Wait};

pub use connection::{ComLine, ComPort, Connection, ConnectionError, TargetPlace};
pub use entropy::OsEntropy;
pub use error::{AttachError, OpenError};
pub use live_memory::LiveMemory;
pub use monitor::{News, Quit, Standing, Traffic};
pub use prompts::Prompts;
pub use raw_line::RawLine;
pub use signal::Signal;
pub use tap::{OpenTap, Tap};
pub use watcher::Watcher;

use driver::{Carrier, DriverConfig, LetGo};
use monitor::Monitor;
use order::Order;

/// How a session is opened.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Where the target is.
    pub connection: Connection,
    /// A request without an answer fails after this long.
    pub request_timeout: Duration,
    /// The same for a search, during which a target says nothing.
    pub search_timeout: Duration,
    /// A target that is let run says so within this, or is told of as one that may still be stopped.
    pub leave_timeout: Duration,
    /// Everything ends after this long, the target running.
    pub deadline: Option<Duration>,
    /// What the target's prompts are answered.
    pub prompts: Prompts,
    /// Ctrl+C, SIGTERM and the like belong to this session.
    pub handle_signals: bool,
    /// Is told of what is sent and received.
    pub tap: Option<Arc<dyn OpenTap>>,
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
        let patience = Patience::default();
        Self {
            connection,
            request_timeout: patience.request_timeout,
            search_timeout: patience.slow_request_timeout,
            leave_timeout: patience.resume_timeout,
            deadline: None,
            prompts: Prompts::ignoring(),
            handle_signals: false,
            tap: None,
        }
    }

    const fn patience(&self) -> Patience {
        Patience {
            request_timeout: self.request_timeout,
            slow_request_timeout: self.search_timeout,
            resume_timeout: self.leave_timeout,
        }
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
    leave_timeout: Duration,
}

/// Where the target is to be met.
#[derive(Clone, Debug)]
enum Place {
    Socket(SocketAddr),
    Line(ComPort),
}

impl Session {
    /// Opens a session. `let_go` lets the target at the other end of a connection run if the session's own link cannot.
    fn open_with(config: &SessionConfig, let_go: LetGo) -> Result<Self, OpenError> {
        let (place, carrier, link) = match &config.connection {
            Connection::Net { listen, key, target } => {
                let socket = listen_at(*listen)?;
                let link_config = LinkConfig { key: key.clone(), patience: config.patience() };
                let link = HostLink::new(link_config, Box::new(OsEntropy));
                (Place::Socket(socket.local_addr()?), Carrier::Socket(socket, *target), link)
            }
            Connection::Com(line) => {
                let link = HostLink::over_stream(config.patience());
                (Place::Line(line.port.clone()), Carrier::Line(line.clone()), link)
            }
        };
        let ends = match (&config.connection, &place) {
            (Connection::Net { key, .. }, Place::Socket(address)) => (Some(key), Some(*address)),
            _ => (None, None),
        };
        let tap = config.tap.as_ref().map(|tap| tap.open(ends.0, ends.1)).transpose()?;
        let monitor = Arc::new(Monitor::default());
        if config.handle_signals {
            signals::watch(Arc::clone(&monitor))?;
        }
        let (orders, order_queue) = mpsc::unbounded_channel();
        let driver_config = DriverConfig {
            connection: config.connection.clone(),
            prompts: config.prompts.clone(),
            deadline: config.deadline,
            let_go,
        };
        let driver = driver::spawn(carrier, link, tap, order_queue, Arc::clone(&monitor), driver_config)?;
        let session = Self {
            monitor,
            orders,
            driver: Some(driver),
            place,
            opened_at: Instant::now(),
            leave_timeout: config.leave_timeout,
        };
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

    /// Waits until a target has proven that it has the key, or has sent a packet; `None` waits until Ctrl+C.
    ///
    /// # Errors
    /// [`AttachError`], which tells no target from one with another key.
    pub fn wait_for_target(&self, timeout: Option<Duration>) -> Result<Peer, AttachError> {
        self.begin(Step::Connect);
        let wait = self.monitor.wait(timeout.map(|it| Instant::now() + it), |state| state.peer);
        match wait {
            Wait::Done(peer) => {
                self.begin(Step::Idle);
                Ok(peer)
            }
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
        let traffic = self.monitor.get(|state| state.traffic);
        let Some(from) = traffic.last_from else {
            return match traffic.last_stranger {
                Some(from) => AttachError::Strangers { from, count: traffic.strangers, after, port },
                None => AttachError::Silence { after, port },
            };
        };
        let foreign_offer = self.monitor.get(|state| state.foreign_offer);
        if let Some((from, version, len)) = foreign_offer {
            return AttachError::Foreign { from, version, len };
        }
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
        let traffic = self.monitor.get(|state| state.line.clone());
        match traffic.not_there {
            Some(why) if !traffic.was_open => AttachError::NoLine { line, why, advice: port.advice(), after },
            _ if traffic.bytes > 0 => AttachError::NotKd {
                line,
                count: traffic.bytes,
                tail: String::from_utf8_lossy(traffic.tail.as_slices().0).escape_default().to_string(),
                after,
            },
            Some(why) if traffic.ends > 0 => AttachError::LineEnds { line, count: traffic.ends, why, after },
            _ => AttachError::SilentLine { line, after },
        }
    }

    /// Stops the target, unless it is stopped, and waits until it has. A prompt is answered by nobody here: a session that
    /// [asks](Prompts::Ask) is stopped through [`Control`].
    ///
    /// # Errors
    /// [`BreakInError`]; the target is not tried to be stopped any longer then.
    pub fn break_in(&self, timeout: Duration) -> Result<Box<StateChange>, BreakInError> {
        self.request_break_in();
        let wait = self.monitor.wait(Some(Instant::now() + timeout), |state| state.stopped.clone());
        if let Wait::Done(change) = wait {
            self.begin(Step::Idle);
            return Ok(change);
        }
        Err(self.gave_up_break_in(wait.map(drop), timeout))
    }

    /// Sends one request to the stopped target and waits for its reply, whether or not the user presses Ctrl+C: the
    /// link bounds how long that takes, and the program's end ends it.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn request(&self, request: Manipulate) -> Result<Manipulate, RequestError> {
        let step = Step::Reply(request.api_number.to_string());
        let stop = self.stop();
        let order = |reply| Order::Request(reply, stop, Box::new(request));
        let replied = self.monitor.carry_out_within(&self.orders, step, order, None, |deadline, find| {
            self.monitor.wait_through_interrupts(deadline, find)
        });
        replied.unwrap_or(Err(RequestError::NotConnected)).map(|reply| *reply)
    }

    /// Asks the stopped target who it is, once a boot.
    ///
    /// # Errors
    /// [`RequestError`]; [`RequestError::NotConnected`] also if it answers with something else.
    pub fn get_version(&self) -> Result<GetVersion64, RequestError> {
        let known = self.monitor.get(|state| state.version);
        known.map_or_else(|| version::ask(&self.monitor, |it| self.request(it)), Ok)
    }

    /// The target, once one has connected.
    #[must_use]
    pub fn peer(&self) -> Option<Peer> {
        self.monitor.get(|state| state.peer)
    }

    /// An eye on the session that does not keep it alive.
    #[must_use]
    pub fn watcher(&self) -> Watcher {
        Watcher(Arc::clone(&self.monitor))
    }

    fn order(&self, order: Order) {
        // A driver that has ended says so through the monitor, where every wait looks.
        let _ = self.orders.send(order);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Whoever cares how that went has left before; and what was tried is not tried again.
        if !self.monitor.get(|state| state.has_left) {
            self.leave();
        }
        self.order(Order::End);
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
