//! The driver: one task that owns the socket or the line, the clock and the link.

mod reads;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kd_protocol::kd::{ApiNumber, Arm, DebugIo, Manipulate, NtStatus, StateChange};
use kd_protocol::kdnet::DatagramError;
use kd_protocol::link::{Event, HostLink, RequestError, RequestId, RunState};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use self::reads::{Pieces, ReadJob};
use super::connection::{ComLine, Connection, TargetPlace};
use super::line::{Line, LineEvent};
use super::monitor::{Monitor, News, Quit, State};
use super::order::{Left, Order, Read, Replied, Reply, cause_of};
use super::prompts::Prompts;
use super::tap::Tap;
use crate::memory::{ReadCause, StopId};
use crate::source::{Armed, Planted, debug_control};

/// The most that UDP carries.
const MAX_DATAGRAM: usize = 65_536;
/// It is looked this often whether a target has fallen silent.
const SILENCE_LOOK: Duration = Duration::from_secs(1);
/// A target that is known by its address is asked for an offer this often, as often as targets make them by themselves.
const ASK_INTERVAL: Duration = Duration::from_secs(3);
/// The newest KDNET version that was seen. Targets are not known to look at it. Source: PROTOCOL.md 3 and 4.
const KDNET_VERSION: u8 = 5;

/// Something that a reply goes to.
#[derive(Debug)]
enum Job {
    Request(Reply<Replied>),
    /// A request that takes the target long: one that does not answer it may still answer others.
    Search(Reply<Replied>),
    Read(ReadJob),
    /// Acknowledged, never replied to.
    Reboot(Reply<Result<(), RequestError>>),
}

impl Job {
    fn is_awaited(&self) -> bool {
        match self {
            Self::Request(reply) | Self::Search(reply) => reply.is_awaited(),
            Self::Reboot(reply) => reply.is_awaited(),
            Self::Read(job) => job.reply.is_awaited(),
        }
    }
}

struct Driver {
    link: HostLink,
    /// Is told of all that crosses the link.
    tap: Option<Box<dyn Tap>>,
    monitor: Arc<Monitor>,
    prompts: Prompts,
    jobs: HashMap<RequestId, Job>,
    /// Somebody waits for the target to run.
    resume: Option<Reply<Left>>,
    stop: StopId,
    /// The newest stop before the present boot, and what ended that.
    before_boot: (StopId, RequestError),
    /// Streams in a row that ended at once: their comings and goings are no news.
    in_vain: u32,
    /// The line has ended for good, which was told.
    is_line_lost: bool,
    pieces: Pieces,
    silence_at: Option<Instant>,
    /// Who is asked for an offer until a target connects, and when next.
    asks: Option<(SocketAddr, Instant)>,
}

/// What a driver is given to talk over.
#[derive(Debug)]
pub(super) enum Carrier {
    /// The socket, and the only target that is heard there, if there is only one.
    Socket(std::net::UdpSocket, Option<TargetPlace>),
    Line(ComLine),
}

/// How a driver is run.
#[derive(Debug)]
pub(super) struct DriverConfig {
    pub(super) connection: Connection,
    pub(super) prompts: Prompts,
    /// Everything ends after this long.
    pub(super) deadline: Option<Duration>,
    /// Lets the target run where the driver itself cannot any more.
    pub(super) let_go: LetGo,
}

/// Lets the target at the other end of a connection run, and takes back what this side has in it. True if it said that it runs.
pub(super) type LetGo = fn(&Connection, Option<Planted>, Vec<Armed>) -> bool;

/// Starts the driver on a thread of its own.
pub(super) fn spawn(
    carrier: Carrier,
    link: HostLink,
    tap: Option<Box<dyn Tap>>,
    orders: mpsc::UnboundedReceiver<Order>,
    monitor: Arc<Monitor>,
    config: DriverConfig,
) -> io::Result<JoinHandle<()>> {
    let pieces = match &carrier {
        Carrier::Socket(socket, _) => {
            socket.set_nonblocking(true)?;
            Pieces::of_socket()
        }
        Carrier::Line(_) => Pieces::of_line(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let driver = Driver {
        link,
        tap,
        monitor,
        prompts: config.prompts.clone(),
        jobs: HashMap::new(),
        resume: None,
        stop: StopId(0),
        before_boot: (StopId(0), RequestError::TargetRestarted),
        in_vain: 0,
        is_line_lost: false,
        pieces,
        silence_at: None,
        asks: None,
    };
    std::thread::Builder::new().name("link".into()).spawn(move || {
        let monitor = Arc::clone(&driver.monitor);
        let run = || {
            runtime.block_on(async {
                if let Some(deadline) = config.deadline {
                    let monitor = Arc::clone(&driver.monitor);
                    tokio::spawn(async move {
                        tokio::time::sleep(deadline).await;
                        monitor.quit(Quit::Deadline(deadline));
                    });
                }
                match carrier {
                    Carrier::Socket(socket, only_from) => {
                        let ended = driver.run(UdpSocket::from_std(socket)?, only_from, orders).await;
                        ended.map(|()| "closed".to_owned())
                    }
                    Carrier::Line(line) => Ok(driver.run_line(Line::new(line), orders).await),
                }
            })
        };
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
            Ok(ended) => {
                monitor.end(ended.unwrap_or_else(|error: io::Error| format!("the socket failed: {error}")));
            }
            Err(_) => {
                drop(runtime);
                // A bug of ours must not leave somebody's machine standing still.
                let freed = (config.let_go)(
                    &config.connection,
                    monitor.get(|state| state.planted.clone()).map(|it| it.planted),
                    monitor.get(|state| state.armed.clone()),
                );
                let what = if freed { "the target was let run" } else { "the target may be left stopped" };
                monitor.update(|state| {
                    state.set_run_state(if freed { RunState::Running } else { RunState::Unknown });
                });
                monitor.end(format!("a bug in verikd's link; {what}"));
            }
        }
    })
}

impl Driver {
    async fn run(
        mut self,
        socket: UdpSocket,
        only_from: Option<TargetPlace>,
        mut orders: mpsc::UnboundedReceiver<Order>,
    ) -> io::Result<()> {
        let mut datagram = vec![0; MAX_DATAGRAM];
        if let Some(place) = only_from {
            let address = place.address(socket.local_addr()?);
            self.asks = Some((address, Instant::now()));
            self.monitor.update(|state| state.push_news(News::Asks(address)));
            self.ask_for_offer(Instant::now());
        }
        loop {
            self.drain(&socket).await;
            let wake_at = self.wake_at();
            tokio::select! {
                biased;
                received = socket.recv_from(&mut datagram) => match received {
                    // Dropped before it costs a decryption.
                    Ok((_, from)) if only_from.is_some_and(|it| !it.hears(from)) => {
                        self.monitor.note(|state| state.traffic.note_stranger(from));
                    }
                    Ok((len, from)) => self.received(from, &datagram[..len]),
                    // On some systems an ICMP error of an earlier send is reported here; the timers see to it.
                    Err(error) if is_passing(&error) => {}
                    Err(error) => return Err(error),
                },
                order = orders.recv() => match order {
                    Some(Order::End) | None => return Ok(()),
                    Some(order) => self.obey(order),
                },
                () = sleep_until(wake_at) => self.due(),
            }
        }
    }

    /// The same over a serial line. Returns why it ended.
    async fn run_line(mut self, mut line: Line, mut orders: mpsc::UnboundedReceiver<Order>) -> String {
        let mut bytes = BytesMut::new();
        loop {
            self.drain_line(&line, &mut bytes);
            let wake_at = self.wake_at();
            tokio::select! {
                biased;
                event = line.next_event() => {
                    if let Some(why) = self.line_event(event, &line) {
                        self.drain_line(&line, &mut bytes);
                        return why;
                    }
                }
                order = orders.recv() => match order {
                    Some(Order::End) | None => {
                        line.finish().await;
                        return "closed".into();
                    }
                    Some(order) => self.obey(order),
                },
                () = sleep_until(wake_at) => self.due(),
            }
        }
    }

    /// Passes on what happened on the line. Returns why the session ends, if it does.
    fn line_event(&mut self, event: LineEvent, line: &Line) -> Option<String> {
        let now = Instant::now();
        match event {
            LineEvent::Opened => {
                self.link.handle_stream_opened(now);
                self.monitor.note(|state| {
                    state.line.was_open = true;
                    state.line.not_there = None;
                });
            }
            LineEvent::NotThere(error) => {
                self.monitor.note(|state| state.line.not_there = Some(error.to_string()));
            }
            LineEvent::Bytes(bytes) => {
                if let Some(tap) = &mut self.tap {
                    tap.received(None, &bytes);
                }
                if let in_vain @ 1.. = std::mem::take(&mut self.in_vain) {
                    self.monitor.update(|state| state.push_news(News::LineHolds { after: in_vain }));
                }
                self.link.handle_stream(now, &bytes);
                self.monitor.note(|state| {
                    state.line.note(&bytes);
                    state.heard(now);
                });
            }
            LineEvent::Closed(why) => {
                self.link.handle_stream_closed(now);
                self.monitor.note(|state| {
                    state.line.not_there = Some(why.clone());
                    state.line.ends += 1;
                });
                self.in_vain = line.in_vain();
                if self.in_vain == 1 && line.reconnects() {
                    self.monitor.update(|state| state.push_news(News::LineEndsAtOnce(why.clone())));
                }
                if !line.reconnects() {
                    self.is_line_lost = true;
                    self.monitor.update(|state| state.push_news(News::LineLost(why.clone())));
                    return Some(format!("the serial line has ended: {why}"));
                }
            }
        }
        None
    }

    fn received(&mut self, from: SocketAddr, datagram: &[u8]) {
        let now = Instant::now();
        if let Some(tap) = &mut self.tap {
            tap.received(Some(from), datagram);
        }
        let result = self.link.handle_datagram(now, from, datagram);
        self.monitor.note(|state| {
            state.traffic.datagrams += 1;
            state.traffic.last_from = Some(from);
            match result {
                Ok(()) => {
                    state.traffic.authentic += 1;
                    state.heard(now);
                }
                Err(DatagramError::NotAuthentic | DatagramError::NoSession) => {
                    state.traffic.not_authentic += 1
                }
                Err(_) => {}
            }
        });
    }

    /// When the link, or the look for silence, wants to be called.
    fn wake_at(&self) -> Option<Instant> {
        let ask_at = self.asks.map(|(_, at)| at);
        self.link.poll_timeout().into_iter().chain(self.silence_at).chain(ask_at).min()
    }

    /// Asks the target that is known by its address for an offer, until one connects.
    fn ask_for_offer(&mut self, now: Instant) {
        let Some((address, at)) = self.asks else { return };
        if self.link.peer().is_some() {
            self.asks = None;
        } else if at <= now {
            self.link.poke(address, KDNET_VERSION);
            self.asks = Some((address, now + ASK_INTERVAL));
        }
    }

    fn due(&mut self) {
        let now = Instant::now();
        self.link.handle_timeout(now);
        self.ask_for_offer(now);
        if self.silence_at.is_some_and(|at| at <= now) {
            self.silence_at = Some(now + SILENCE_LOOK);
            self.monitor.update(|state| state.note_silence(now));
        }
    }

    fn obey(&mut self, order: Order) {
        let now = Instant::now();
        match order {
            Order::Request(reply, stop, request) => {
                if let Some(error) = self.refusal(stop) {
                    return self.settle(&reply, Err(error));
                }
                let is_slow = request.api_number.is_slow();
                let id = self.link.request(now, *request);
                self.jobs.insert(id, if is_slow { Job::Search(reply) } else { Job::Request(reply) });
            }
            Order::Reboot(reply, stop) => {
                if let Some(error) = self.refusal(stop) {
                    return self.settle(&reply, Err(error));
                }
                let id = self.link.request(now, Manipulate::new(ApiNumber::REBOOT, Arm::None));
                self.jobs.insert(id, Job::Reboot(reply));
            }
            Order::Read(reply, stop, space, address, wanted) => {
                self.ask(now, ReadJob::new(reply, stop, space, address, wanted));
            }
            Order::Forget => {
                for (id, _) in self.jobs.extract_if(|_, job| !job.is_awaited()) {
                    self.link.abandon(now, id);
                }
                self.resume.take_if(|reply| !reply.is_awaited());
            }
            Order::BreakIn => {
                let is_there = self.link.peer().is_some();
                self.monitor.note(|state| {
                    state.wants_break_in = state.run_state != RunState::Stopped;
                    state.break_in_at = is_there.then_some(now);
                });
                self.link.break_in(now);
            }
            Order::CancelBreakIn => self.link.cancel_break_in(),
            Order::Resume(reply, status) => {
                if self.link.state() != RunState::Stopped {
                    return self.settle(&reply, Left::NotStopped);
                }
                self.resume = Some(reply);
                let dr7 = self.monitor.get(|state| debug_control(&state.armed));
                self.link.resume_with(now, &Manipulate::continue_with(status, dr7));
            }
            Order::Trace(reply, status) => {
                if self.link.state() != RunState::Stopped {
                    return self.settle(&reply, Left::NotStopped);
                }
                self.resume = Some(reply);
                self.link.resume_with(now, &Manipulate::trace(status));
            }
            Order::Stepped(reply, change) => {
                if self.link.state() != RunState::Stopped {
                    return self.settle(&reply, Left::NotStopped);
                }
                self.resume = Some(reply);
                self.stopped(change);
            }
            Order::AnswerPrompt(prompt, answer) => self.answer(prompt, answer),
            Order::End => {}
            #[cfg(test)]
            Order::Panic => panic!("a bug of ours, as a test wants it"),
        }
    }

    /// Why a request of this stop is not sent: it would be answered by another stop, or by another boot.
    fn refusal(&self, stop: StopId) -> Option<RequestError> {
        match () {
            () if stop == self.stop => self.monitor.get(|state| state.lost),
            () if stop <= self.before_boot.0 => Some(self.before_boot.1),
            () => Some(RequestError::TargetRunning),
        }
    }

    fn answer(&mut self, prompt: DebugIo, answer: Bytes) {
        self.link.answer_prompt(Instant::now(), &prompt, answer.clone());
        self.monitor.update(|state| {
            state.prompt = None;
            state.push_news(News::Answered(prompt, answer));
        });
    }

    /// Sends what the link has to send, and passes on what it has to say. A reply leads to the next request of its
    /// range before anything else is waited for, so that acknowledgement and request leave back to back.
    async fn drain(&mut self, socket: &UdpSocket) {
        let mut datagram = BytesMut::new();
        loop {
            while let Some(to) = self.link.poll_transmit(&mut datagram) {
                if let Some(tap) = &mut self.tap {
                    tap.sent(Some(to), &datagram);
                }
                // What cannot be sent is lost like any datagram: the link sends it again.
                let _ = socket.send_to(&datagram, to).await;
            }
            let Some(event) = self.link.poll_event() else { break };
            self.event(event);
        }
        self.publish();
    }

    /// The same over a serial line.
    fn drain_line(&mut self, line: &Line, bytes: &mut BytesMut) {
        loop {
            if self.link.poll_transmit_stream(bytes) {
                if let Some(tap) = &mut self.tap {
                    tap.sent(None, bytes);
                }
                line.send(bytes.split().freeze());
            }
            let Some(event) = self.link.poll_event() else { break };
            self.event(event);
        }
        self.publish();
    }

    fn publish(&self) {
        let (run_state, counters, peer) = (self.link.state(), self.link.counters(), self.link.peer());
        let (read_len, may_stop_again) = (self.pieces.len(), self.link.may_stop_again());
        let may_remember = self.link.may_remember_break_in();
        let is_news = |state: &State| state.run_state != run_state || state.peer != peer;
        self.monitor.update_if(is_news, |state| {
            state.set_run_state(run_state);
            state.counters = counters;
            state.peer = peer;
            state.read_len = read_len;
            state.may_stop_again = may_stop_again;
            state.may_remember_break_in = may_remember;
        });
    }

    fn event(&mut self, event: Event) {
        if matches!(event, Event::DebugPrint(_) | Event::Prompt(_)) {
            self.monitor.note(|state| state.last_said = Some(Instant::now()));
        }
        match event {
            Event::Replied(id, reply) => return self.replied(id, reply),
            Event::Failed(id, error) => return self.failed(id, error),
            Event::Acknowledged(id) => {
                // What has no reply ends the stop: the machine restarts. The stop is over before whoever waits for that hears of it.
                let run_state = self.link.state();
                if run_state != RunState::Stopped {
                    self.monitor.update(|state| {
                        state.set_run_state(run_state);
                        state.is_held = false;
                    });
                }
                match self.jobs.remove(&id) {
                    Some(Job::Reboot(reply)) => self.settle(&reply, Ok(())),
                    Some(other) => drop(self.jobs.insert(id, other)),
                    None => {}
                }
                return;
            }
            Event::Stopped(change) => return self.stopped(change),
            Event::Prompt(prompt) => {
                self.monitor.note(|state| {
                    state.waits_at_prompt = true;
                    state.has_left = false;
                });
                return match &self.prompts {
                    Prompts::Answer(answer) => {
                        let answer = answer.clone();
                        self.answer(prompt, answer);
                    }
                    Prompts::Ask => self.monitor.update(|state| state.prompt = Some(prompt)),
                };
            }
            Event::PromptAnswered => {
                // An acknowledgement that comes late is not of a prompt that came after it.
                return self.monitor.update(|state| state.waits_at_prompt = state.prompt.is_some());
            }
            Event::Resumed => self.resumed(RunState::Running, Left::Runs),
            Event::ResumeUnproven { .. } => self.resumed(RunState::Unknown, Left::Unproven),
            Event::Connected(_) | Event::Restarted(_) | Event::Rebooting | Event::Reconnected => {
                self.pieces.forget();
                self.silence_at = Some(Instant::now() + SILENCE_LOOK);
                // Behind a line that is there again the same machine may stand still as before.
                let what = match event {
                    Event::Reconnected => RequestError::Disconnected,
                    _ => RequestError::TargetRestarted,
                };
                self.before_boot = (self.stop, what);
                let is_held_still = matches!(event, Event::Reconnected | Event::Rebooting);
                self.monitor.update(|state| {
                    state.begin_boot(what == RequestError::Disconnected);
                    state.is_held &= is_held_still;
                });
            }
            Event::ForeignOffer { address, version, len } => {
                self.monitor.note(|state| state.foreign_offer = Some((address, version, len)));
            }
            _ => {}
        }
        let is_in_vain = self.in_vain > 0 || self.is_line_lost;
        self.monitor.update(|state| {
            match event {
                // These are about others.
                Event::SecondTarget { .. } | Event::ForeignOffer { .. } | Event::TakenOver(_) => {}
                // Behind a line that has ended the target may wait as before; nobody can answer it.
                Event::Disconnected => state.prompt = None,
                // What comes behind a prompt shows that the target does not wait at it any more.
                _ => state.forget_prompt(),
            }
            let is_told = is_in_vain && matches!(event, Event::Disconnected | Event::Reconnected);
            if !is_told {
                state.push_news(News::Event(event));
            }
        });
    }

    fn stopped(&mut self, change: Box<StateChange>) {
        self.stop = StopId(self.stop.0 + 1);
        let stop = self.stop;
        self.monitor.update(|state| {
            state.stop = stop;
            state.lost = None;
            state.forget_prompt();
            state.set_run_state(RunState::Stopped);
            state.stopped = Some(change);
            state.is_held = true;
            state.has_left = false;
            state.is_break_in = std::mem::take(&mut state.wants_break_in);
        });
        // The link stops a target again that it cannot prove to run otherwise; and one may stop again at once by itself.
        if let Some(reply) = self.resume.take() {
            self.settle(&reply, Left::StoppedAgain);
        }
    }

    fn resumed(&mut self, run_state: RunState, left: Left) {
        // The stop is over before whoever waits for that hears of it.
        self.monitor.update(|state| {
            state.set_run_state(run_state);
            state.is_held &= run_state != RunState::Running;
        });
        if let Some(reply) = self.resume.take() {
            self.settle(&reply, left);
        }
    }

    fn failed(&mut self, id: RequestId, error: RequestError) {
        let job = self.jobs.remove(&id);
        if let RequestError::NoAnswer { .. } = error
            && !matches!(job, Some(Job::Search(_)))
        {
            self.monitor.update(|state| state.lost = Some(error));
        }
        match job {
            Some(Job::Request(reply) | Job::Search(reply)) => self.settle(&reply, Err(error)),
            Some(Job::Reboot(reply)) => self.settle(&reply, Err(error)),
            Some(Job::Read(job)) => self.settle_read(job, Some(cause_of(error))),
            None => {}
        }
    }

    fn replied(&mut self, id: RequestId, replied: Box<Manipulate>) {
        match self.jobs.remove(&id) {
            Some(Job::Request(reply) | Job::Search(reply)) => self.settle(&reply, Ok(replied)),
            Some(Job::Reboot(reply)) => self.settle(&reply, Ok(())),
            Some(Job::Read(job)) => self.read_replied(job, &replied),
            None => {}
        }
    }

    fn read_replied(&mut self, mut job: ReadJob, reply: &Manipulate) {
        let Arm::ReadMemory(arm) = reply.arm else {
            return self.settle_read(job, Some(ReadCause::NotMapped));
        };
        let got = (arm.actual_bytes_read as usize).min(reply.data.len()).min(job.asked);
        job.bytes.extend_from_slice(&reply.data[..got]);
        match reply.return_status {
            NtStatus::SUCCESS if got > 0 => {
                self.pieces.follow(job.asked, got);
                match job.bytes.len() == job.wanted {
                    true => self.settle_read(job, None),
                    false => self.ask(Instant::now(), job),
                }
            }
            NtStatus::UNSUCCESSFUL => self.settle_read(job, Some(ReadCause::NotMapped)),
            status => self.settle_read(job, Some(ReadCause::Status(status.0))),
        }
    }

    fn ask(&mut self, now: Instant, mut job: ReadJob) {
        if let Some(error) = self.refusal(job.stop) {
            return self.settle_read(job, Some(cause_of(error)));
        }
        let request = job.next_request(self.pieces.len());
        let id = self.link.request(now, request);
        self.jobs.insert(id, Job::Read(job));
    }

    fn settle_read(&self, job: ReadJob, stopped_by: Option<ReadCause>) {
        self.settle(&job.reply, Read { bytes: job.bytes, stopped_by });
    }

    fn settle<T>(&self, reply: &Reply<T>, what: T) {
        reply.put(what);
        self.monitor.tell_all();
    }
}

pub(super) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

#[cfg(test)]
mod tests;
