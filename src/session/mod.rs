//! A debug session: the only room with a socket, a clock and tasks.
//!
//! ```text
//!  shell thread (may block)                      driver thread (tokio, one task)
//!    Session, LiveMemory -- orders ------------>  HostLink <--> UDP socket or serial line, timers, signals
//!                        <-- Monitor (condvar) -  events, replies, run state
//! ```
//! Async below, plain blocking calls above: KD keeps one request in flight, so asynchronous queries would overlap
//! nothing. A whole range crosses between the threads once, however many requests it takes.

mod bridge;
mod connection;
mod context;
mod driver;
mod entropy;
mod error;
mod leaving;
mod leaving_stop;
mod line;
mod live_memory;
mod monitor;
mod order;
mod raw_line;
mod rescue;
mod signals;
mod tap;
mod version;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kd_protocol::kd::{ApiNumber, Arm, DebugIo, GetVersion64, Manipulate, StateChange};
use kd_protocol::kdnet::Key;
use kd_protocol::link::{HostLink, LinkConfig, LinkCounters, Patience, Peer, RequestError, RunState};
use tokio::sync::mpsc;

use crate::memory::StopId;

pub use bridge::{Bridge, BridgeConfig, BridgeNews};
pub use connection::{ComLine, ComPort, Connection, ConnectionError, TargetPlace};
pub use entropy::OsEntropy;
pub use error::{AttachError, BreakInError, OpenError};
pub use leaving::Resumed;
pub use live_memory::LiveMemory;
pub use monitor::{BootId, News, Quit, Standing, Step, Traffic, Wait};
pub use raw_line::RawLine;
pub use signals::Signal;
pub use tap::{OpenTap, Tap};

use driver::{Carrier, DriverConfig};
use monitor::Monitor;
use order::{Order, Outcome};

/// What the target's prompts, as a failed assertion shows one, are answered. The target stands still until then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompts {
    /// This, at once, whatever goes on.
    Answer(Bytes),
    /// What somebody says, by [`Session::answer_prompt`].
    Ask,
}

impl Prompts {
    /// Goes on without what failed.
    #[must_use]
    pub const fn ignoring() -> Self {
        Self::Answer(Bytes::from_static(b"i"))
    }
}

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

/// A target that stands still, and wants something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt {
    /// It takes requests.
    Stopped(Box<StateChange>),
    /// It waits for an answer, and takes nothing else. Only where prompts are [asked](Prompts::Ask) about.
    Prompt(DebugIo),
    /// It is not the boot that was waited for.
    Restarted,
}

impl Session {
    /// Starts to listen, or to open the serial line. Over a network nothing is sent before a target makes an offer. A line
    /// says nothing by itself, so that a break-in goes out as soon as it is there.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(config: &SessionConfig) -> Result<Self, OpenError> {
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
            _ => AttachError::SilentLine { line, after },
        }
    }

    /// Stops the target, unless it is stopped, and waits until it has. A prompt is answered by nobody here: a session that
    /// [asks](Prompts::Ask) calls [`request_break_in`](Self::request_break_in) and [`wait_for_halt`](Self::wait_for_halt).
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

    /// The moment that is this far from now.
    #[must_use]
    pub fn deadline_after(&self, time: Duration) -> Instant {
        Instant::now() + time
    }

    /// Starts to stop the target; [`wait_for_halt`](Self::wait_for_halt) tells when it has.
    pub fn request_break_in(&self) {
        self.begin(Step::BreakIn);
        self.order(Order::BreakIn);
    }

    /// Waits until the target stands still: it is stopped, or it waits at a prompt.
    pub fn wait_for_halt(&self, deadline: Option<Instant>) -> Wait<Halt> {
        self.monitor.wait(deadline, |state| {
            let prompt = state.prompt.clone().map(Halt::Prompt);
            prompt.or_else(|| state.stopped.clone().map(Halt::Stopped))
        })
    }

    /// The same, or until a boot other than `boot` has begun.
    pub fn wait_for_halt_or_boot(&self, boot: BootId, deadline: Option<Instant>) -> Wait<Halt> {
        self.monitor.wait(deadline, |state| {
            if state.boot != boot {
                return Some(Halt::Restarted);
            }
            let prompt = state.prompt.clone().map(Halt::Prompt);
            prompt.or_else(|| state.stopped.clone().map(Halt::Stopped))
        })
    }

    /// The prompt that the target waits at, if nobody has answered it.
    #[must_use]
    pub fn prompt(&self) -> Option<DebugIo> {
        self.monitor.get(|state| state.prompt.clone())
    }

    /// True while the target waits at a prompt: nobody has answered it, or the answer has not been taken.
    #[must_use]
    pub fn waits_at_prompt(&self) -> bool {
        self.monitor.get(|state| state.waits_at_prompt)
    }

    /// Gives up a break-in that has not stopped the target: why, for whoever wanted it.
    pub fn gave_up_break_in(&self, wait: Wait<()>, after: Duration) -> BreakInError {
        match wait {
            Wait::Ended(why) => return BreakInError::Ended(why),
            Wait::Done(()) | Wait::Interrupted | Wait::TimedOut => self.cancel_break_in(),
        }
        match wait {
            Wait::TimedOut => {
                BreakInError::NoReaction { place: self.place(), after, last_heard: self.monitor.last_heard() }
            }
            _ => BreakInError::Interrupted,
        }
    }

    /// Sends one request to the stopped target and waits for its reply, whether or not the user presses Ctrl+C: the
    /// link bounds how long that takes, and the program's end ends it.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn request(&self, request: Manipulate) -> Result<Manipulate, RequestError> {
        match self.carry_out(request) {
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
        match self.carry_out(Manipulate::new(ApiNumber::REBOOT, Arm::None)) {
            Outcome::Accepted => Ok(()),
            Outcome::Failed(error) => Err(error),
            _ => Err(RequestError::NotConnected),
        }
    }

    fn carry_out(&self, request: Manipulate) -> Outcome {
        let step = Step::Reply(request.api_number.to_string());
        let stop = self.stop();
        let order = |ticket| Order::Request(ticket, stop, Box::new(request));
        self.monitor.carry_out_within(&self.orders, step, order, None, |deadline, find| {
            self.monitor.wait_through_interrupts(deadline, find)
        })
    }

    /// Asks the stopped target who it is, once a boot.
    ///
    /// # Errors
    /// [`RequestError`]; [`RequestError::NotConnected`] also if it answers with something else.
    pub fn version(&self) -> Result<GetVersion64, RequestError> {
        let known = self.monitor.get(|state| state.version);
        known.map_or_else(|| version::ask(&self.monitor, |it| self.request(it)), Ok)
    }

    /// Answers a prompt of the target.
    pub fn answer_prompt(&self, prompt: DebugIo, answer: Bytes) {
        // It is answered once, whoever looks before the driver has seen to it.
        self.monitor.note(|state| state.prompt = None);
        self.order(Order::AnswerPrompt(prompt, answer));
    }

    /// How things stand.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.monitor.standing()
    }

    /// Waits until things stand otherwise than `before`, or somebody [wakes](Watcher::wake) this.
    pub fn changed(&self, before: Standing, deadline: Option<Instant>) -> Wait<Standing> {
        self.monitor.changed(before, deadline)
    }

    /// The memory of the stopped target: of whichever stop is the present one, unless it is
    /// [pinned](LiveMemory::pin) to one.
    #[must_use]
    pub fn memory(&self) -> LiveMemory {
        LiveMemory::new(Arc::clone(&self.monitor), self.orders.clone())
    }

    /// Whether the target takes requests.
    #[must_use]
    pub fn state(&self) -> RunState {
        self.monitor.get(|state| state.run_state)
    }

    /// The present boot of the target.
    #[must_use]
    pub fn boot(&self) -> BootId {
        self.monitor.get(|state| state.boot)
    }

    /// The newest stop.
    #[must_use]
    pub fn stop(&self) -> StopId {
        self.monitor.get(|state| state.stop)
    }

    /// The present stop.
    #[must_use]
    pub fn stopped(&self) -> Option<Box<StateChange>> {
        self.monitor.get(|state| state.stopped.clone())
    }

    /// The request that the target has left unanswered: what is asked after it fails at once, until the target stops anew
    /// or [`try_again`](Self::try_again).
    #[must_use]
    pub fn lost(&self) -> Option<RequestError> {
        self.monitor.get(|state| state.lost)
    }

    /// Asks a target again that has left a request unanswered.
    pub fn try_again(&self) {
        self.monitor.note(|state| state.lost = None);
    }

    /// The target, once one has connected.
    #[must_use]
    pub fn peer(&self) -> Option<Peer> {
        self.monitor.get(|state| state.peer)
    }

    /// When the target was last heard, in words: `3 s ago`, `never`.
    #[must_use]
    pub fn last_heard(&self) -> String {
        self.monitor.last_heard()
    }

    /// What is waited for, or was given up last.
    #[must_use]
    pub fn step(&self) -> Step {
        self.monitor.get(|state| state.step.clone())
    }

    /// The CPU that reported the present stop.
    #[must_use]
    pub fn stopped_processor(&self) -> Option<u16> {
        self.monitor.get(|state| state.stopped.as_ref().map(|change| change.processor))
    }

    /// What crossed the link so far.
    #[must_use]
    pub fn counters(&self) -> LinkCounters {
        self.monitor.get(|state| state.counters)
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

    /// How long a stop may take.
    #[must_use]
    pub fn freeze_budget(&self) -> Option<Duration> {
        self.monitor.get(|state| state.freeze_budget)
    }

    /// How often the program was suspended.
    #[must_use]
    pub fn suspensions(&self) -> u64 {
        self.monitor.get(|state| state.suspensions)
    }

    /// Waits until a suspension that has begun is over.
    pub fn wait_out_suspension(&self) {
        self.monitor.wait_out_suspension();
    }

    /// The target is let run as fast as that goes from now on: somebody waits for the program to end.
    pub fn hurry(&self) {
        self.monitor.note(|state| state.is_hurried = true);
    }

    /// How often Ctrl+C was pressed.
    #[must_use]
    pub fn interrupts(&self) -> u64 {
        self.monitor.get(|state| state.interrupts)
    }

    /// When the present stop has taken as long as it may.
    #[must_use]
    pub fn freeze_deadline(&self) -> Option<Instant> {
        self.monitor.freeze_deadline()
    }

    /// True if the present stop has taken as long as it may.
    #[must_use]
    pub fn is_budget_spent(&self) -> bool {
        self.monitor.is_budget_spent()
    }

    /// Why the program is to end, if it is.
    #[must_use]
    pub fn quit(&self) -> Option<Quit> {
        self.monitor.quit_reason()
    }

    /// An eye on the session that does not keep it alive.
    #[must_use]
    pub fn watcher(&self) -> Watcher {
        Watcher(Arc::clone(&self.monitor))
    }

    /// True if Ctrl+C was pressed; it is forgotten thereby.
    pub fn take_interrupt(&self) -> bool {
        self.monitor.take_interrupt()
    }

    /// What is waited for from now on.
    pub fn begin(&self, step: Step) {
        self.monitor.note(|state| state.step = step);
    }

    fn order(&self, order: Order) {
        // A driver that has ended says so through the monitor, where every wait looks.
        let _ = self.orders.send(order);
    }
}

impl<T> Wait<T> {
    /// The same with what was waited for changed.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Wait<U> {
        match self {
            Self::Done(it) => Wait::Done(change(it)),
            Self::TimedOut => Wait::TimedOut,
            Self::Interrupted => Wait::Interrupted,
            Self::Ended(why) => Wait::Ended(why),
        }
    }
}

/// What others than the session's owner may know of it: what happens, and whether what goes on is to end.
#[derive(Clone, Debug)]
pub struct Watcher(Arc<Monitor>);

impl Watcher {
    /// Waits for news, and leaves them there. False when there will be none any more.
    #[must_use]
    pub fn wait_for_news(&self) -> bool {
        self.0.wait_for_news()
    }

    /// The news so far, each once.
    #[must_use]
    pub fn take_news(&self) -> Vec<News> {
        self.0.take_news()
    }

    /// Makes the owner look up from [`Session::changed`].
    pub fn wake(&self) {
        self.0.wake();
    }

    /// Waits, for as long as the program lives, until it is to be suspended; or returns why it is to end.
    #[must_use]
    pub fn wait_for_suspension(&self) -> Option<Quit> {
        self.0.wait_for_suspension()
    }

    /// The program goes on after a suspension.
    pub fn end_suspension(&self) {
        self.0.end_suspension();
    }

    /// How often the program went on after a suspension.
    #[must_use]
    pub fn continuations(&self) -> u64 {
        self.0.get(|state| state.continuations)
    }

    /// Waits until it has gone on more often than `before`, or is to end.
    pub fn wait_for_continuation(&self, before: u64) {
        self.0.wait_for_continuation(before);
    }

    /// Suspends the program and all that was started with it, as Ctrl+Z does; returns when it goes on. Nothing is done where
    /// the system has no such thing.
    pub fn suspend(&self) {
        let before = self.0.get(|state| state.suspensions);
        if signals::suspend() {
            self.0.wait_out_suspension_after(before);
        }
    }

    /// True after Ctrl+C, until it is forgotten or has ended something, and once the program is to end.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.0.is_interrupted()
    }

    /// True while the target stands still.
    #[must_use]
    pub fn is_target_stopped(&self) -> bool {
        self.0.get(|state| state.run_state) == RunState::Stopped
    }

    /// True if the present stop has taken as long as it may.
    #[must_use]
    pub fn is_budget_spent(&self) -> bool {
        self.0.is_budget_spent()
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
