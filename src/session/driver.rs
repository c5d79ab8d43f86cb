//! The driver: one task that owns the socket or the line, the clock and the link.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::BytesMut;
use kd_protocol::kd::{Arm, Manipulate, NtStatus};
use kd_protocol::kdnet::DatagramError;
use kd_protocol::link::{Event, HostLink, RequestId};
use kd_protocol::{PhysAddr, VirtAddr};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::connection::ComLine;
use super::line::{Line, LineEvent};
use super::monitor::{Monitor, State};
use super::order::{Order, OrderKind, Outcome, Space, Ticket, cause_of};
use crate::memory::{ReadCause, StopId};

/// The most that UDP carries.
const MAX_DATAGRAM: usize = 65_536;
/// What the first large read asks for; the reply shows how much one packet of this target carries.
const FIRST_READ_LEN: usize = 2048;
/// The same over a serial line, whose packets carry 4,000 bytes. Source: kd-serial.md, "size".
const FIRST_READ_LEN_OF_LINE: usize = 3900;
/// A target that returns less than this a reply is not worth following.
const MIN_READ_LEN: usize = 64;
/// Progress through a read is checked against this: a target cannot make it grow.
const MAX_READ: usize = 1 << 30;

/// Something that a reply goes to.
#[derive(Debug)]
enum Job {
    Request(Ticket),
    Read(ReadJob),
}

/// A range on its way: as many requests as it takes, one after another.
#[derive(Debug)]
struct ReadJob {
    ticket: Ticket,
    space: Space,
    address: u64,
    wanted: usize,
    asked: usize,
    bytes: Vec<u8>,
}

struct Driver {
    link: HostLink,
    monitor: Arc<Monitor>,
    jobs: HashMap<RequestId, Job>,
    read_len: usize,
    first_read_len: usize,
}

/// What a driver is given to talk over.
#[derive(Debug)]
pub(super) enum Carrier {
    Socket(std::net::UdpSocket),
    Line(ComLine),
}

/// Starts the driver on a thread of its own.
pub(super) fn spawn(
    carrier: Carrier,
    link: HostLink,
    orders: mpsc::UnboundedReceiver<Order>,
    monitor: Arc<Monitor>,
    handle_signals: bool,
) -> io::Result<JoinHandle<()>> {
    let first_read_len = match &carrier {
        Carrier::Socket(socket) => {
            socket.set_nonblocking(true)?;
            FIRST_READ_LEN
        }
        Carrier::Line(_) => FIRST_READ_LEN_OF_LINE,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let driver = Driver { link, monitor, jobs: HashMap::new(), read_len: first_read_len, first_read_len };
    std::thread::Builder::new().name("link".into()).spawn(move || {
        let monitor = Arc::clone(&driver.monitor);
        let result = runtime.block_on(async {
            if handle_signals {
                tokio::spawn(watch_signals(Arc::clone(&monitor)));
            }
            match carrier {
                Carrier::Socket(socket) => {
                    let ended = driver.run(UdpSocket::from_std(socket)?, orders).await;
                    ended.map(|()| "closed".to_owned())
                }
                Carrier::Line(line) => Ok(driver.run_line(Line::new(line), orders).await),
            }
        });
        monitor.end(result.unwrap_or_else(|error: io::Error| format!("the socket failed: {error}")));
    })
}

impl Driver {
    async fn run(mut self, socket: UdpSocket, mut orders: mpsc::UnboundedReceiver<Order>) -> io::Result<()> {
        let mut datagram = vec![0; MAX_DATAGRAM];
        loop {
            self.drain(&socket).await;
            let wake_at = self.link.poll_timeout();
            tokio::select! {
                biased;
                received = socket.recv_from(&mut datagram) => match received {
                    Ok((len, from)) => self.received(from, &datagram[..len]),
                    // On some systems an ICMP error of an earlier send is reported here; the timers see to it.
                    Err(error) if is_passing(&error) => {}
                    Err(error) => return Err(error),
                },
                order = orders.recv() => match order {
                    Some(Order(OrderKind::End)) | None => return Ok(()),
                    Some(Order(kind)) => self.obey(kind),
                },
                () = sleep_until(wake_at) => self.link.handle_timeout(Instant::now()),
            }
        }
    }

    /// The same over a serial line. Returns why it ended.
    async fn run_line(mut self, mut line: Line, mut orders: mpsc::UnboundedReceiver<Order>) -> String {
        let mut bytes = BytesMut::new();
        loop {
            self.drain_line(&line, &mut bytes);
            let wake_at = self.link.poll_timeout();
            tokio::select! {
                biased;
                event = line.next_event() => {
                    if let Some(why) = self.line_event(event, &line) {
                        self.drain_line(&line, &mut bytes);
                        return why;
                    }
                }
                order = orders.recv() => match order {
                    Some(Order(OrderKind::End)) | None => {
                        line.finish().await;
                        return "closed".into();
                    }
                    Some(Order(kind)) => self.obey(kind),
                },
                () = sleep_until(wake_at) => self.link.handle_timeout(Instant::now()),
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
                self.link.handle_stream(now, &bytes);
                self.monitor.note(|state| {
                    state.line.note(&bytes);
                    state.last_heard = Some(now);
                });
            }
            LineEvent::Closed(why) => {
                self.link.handle_stream_closed(now);
                self.monitor.note(|state| state.line.not_there = Some(why.clone()));
                if !line.reconnects() {
                    return Some(format!("the serial line has ended: {why}"));
                }
            }
        }
        None
    }

    fn received(&mut self, from: SocketAddr, datagram: &[u8]) {
        let now = Instant::now();
        let result = self.link.handle_datagram(now, from, datagram);
        self.monitor.note(|state| {
            state.traffic.datagrams += 1;
            state.traffic.last_from = Some(from);
            match result {
                Ok(()) => {
                    state.traffic.authentic += 1;
                    state.last_heard = Some(now);
                }
                Err(DatagramError::NotAuthentic | DatagramError::NoSession) => {
                    state.traffic.not_authentic += 1
                }
                Err(_) => {}
            }
        });
    }

    fn obey(&mut self, order: OrderKind) {
        let now = Instant::now();
        match order {
            OrderKind::Request(ticket, request) => {
                let id = self.link.request(now, *request);
                self.jobs.insert(id, Job::Request(ticket));
            }
            OrderKind::Read(ticket, space, address, wanted) => {
                let wanted = wanted.min(MAX_READ);
                self.ask(now, ReadJob { ticket, space, address, wanted, asked: 0, bytes: Vec::new() });
            }
            OrderKind::Cancel(ticket) => {
                self.jobs.retain(|_, job| match job {
                    Job::Request(it) | Job::Read(ReadJob { ticket: it, .. }) => *it != ticket,
                });
                self.monitor.update(|state| state.outcomes.remove(&ticket));
            }
            OrderKind::BreakIn => self.link.break_in(now),
            OrderKind::CancelBreakIn => self.link.cancel_break_in(),
            OrderKind::Resume(status) => self.link.resume(now, status),
            OrderKind::AnswerPrompt(prompt, answer) => self.link.answer_prompt(now, &prompt, answer),
            OrderKind::End => {}
        }
    }

    /// Sends what the link has to send, and passes on what it has to say. A reply leads to the next request of its
    /// range before anything else is waited for, so that acknowledgement and request leave back to back.
    async fn drain(&mut self, socket: &UdpSocket) {
        let mut datagram = BytesMut::new();
        loop {
            while let Some(to) = self.link.poll_transmit(&mut datagram) {
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
                line.send(bytes.split().freeze());
            }
            let Some(event) = self.link.poll_event() else { break };
            self.event(event);
        }
        self.publish();
    }

    fn publish(&self) {
        let (run_state, counters, peer) = (self.link.state(), self.link.counters(), self.link.peer());
        let (read_len, may_stop_again) = (self.read_len, self.link.may_stop_again());
        let is_news = |state: &State| state.run_state != run_state || state.peer != peer;
        self.monitor.update_if(is_news, |state| {
            state.set_run_state(run_state);
            state.counters = counters;
            state.peer = peer;
            state.read_len = read_len;
            state.may_stop_again = may_stop_again;
        });
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Replied(id, reply) => self.replied(id, reply),
            Event::Failed(id, error) => match self.jobs.remove(&id) {
                Some(Job::Request(ticket)) => self.settle(ticket, Outcome::Failed(error)),
                Some(Job::Read(job)) => self.settle_read(job, Some(cause_of(error))),
                None => {}
            },
            Event::Acknowledged(id) => {
                if let Some(Job::Request(ticket)) = self.jobs.remove(&id) {
                    self.settle(ticket, Outcome::Accepted);
                }
            }
            Event::Stopped(change) => {
                let run_state = self.link.state();
                self.monitor.update(|state| {
                    state.stop = StopId(state.stop.0 + 1);
                    state.set_run_state(run_state);
                    state.stopped = Some(change.clone());
                    state.push_event(Event::Stopped(change));
                });
            }
            Event::Connected(_) | Event::Restarted(_) => {
                self.read_len = self.first_read_len;
                self.monitor.update(|state| state.push_event(event));
            }
            _ => self.monitor.update(|state| state.push_event(event)),
        }
    }

    fn replied(&mut self, id: RequestId, reply: Box<Manipulate>) {
        match self.jobs.remove(&id) {
            Some(Job::Request(ticket)) => self.settle(ticket, Outcome::Reply(reply)),
            Some(Job::Read(job)) => self.read_replied(job, &reply),
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
            NtStatus::SUCCESS if job.bytes.len() == job.wanted => self.settle_read(job, None),
            NtStatus::SUCCESS if got > 0 => {
                if got < job.asked {
                    // Success with fewer bytes is the limit of the target's packets, not a hole.
                    self.read_len = got.max(MIN_READ_LEN);
                }
                self.ask(Instant::now(), job);
            }
            NtStatus::UNSUCCESSFUL => self.settle_read(job, Some(ReadCause::NotMapped)),
            status => self.settle_read(job, Some(ReadCause::Status(status.0))),
        }
    }

    fn ask(&mut self, now: Instant, mut job: ReadJob) {
        job.asked = (job.wanted - job.bytes.len()).min(self.read_len);
        let at = job.address.wrapping_add(job.bytes.len() as u64);
        let count = u32::try_from(job.asked).expect("bounded by the packet size");
        let request = match job.space {
            Space::Virtual => Manipulate::read_virtual(VirtAddr(at), count),
            Space::Physical => Manipulate::read_physical(PhysAddr(at), count),
        };
        let id = self.link.request(now, request);
        self.jobs.insert(id, Job::Read(job));
    }

    fn settle_read(&self, job: ReadJob, cause: Option<ReadCause>) {
        self.settle(job.ticket, Outcome::Bytes(job.bytes, cause));
    }

    fn settle(&self, ticket: Ticket, outcome: Outcome) {
        self.monitor.update(|state| state.outcomes.insert(ticket, outcome));
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

/// Ctrl+C interrupts whoever waits; SIGTERM ends the program, with the target running.
async fn watch_signals(monitor: Arc<Monitor>) {
    let Some(mut signals) = Signals::new() else { return };
    while let Some(signal) = signals.next().await {
        match signal {
            Signal::Interrupt => monitor.interrupt(),
            Signal::End => monitor.terminate(),
        }
    }
}

/// Waits for Ctrl+C, SIGTERM or a lost terminal; for ever unless `is_wanted`.
pub(super) async fn end_signal(is_wanted: bool) {
    if is_wanted
        && let Some(mut signals) = Signals::new()
        && signals.next().await.is_some()
    {
        return;
    }
    std::future::pending().await
}

enum Signal {
    /// Ctrl+C.
    Interrupt,
    /// The system asks the program to end: SIGTERM, a lost terminal.
    #[cfg_attr(
        not(unix),
        expect(dead_code, reason = "systems without these signals end a program otherwise")
    )]
    End,
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> Option<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Some(Self {
            interrupt: signal(SignalKind::interrupt()).ok()?,
            terminate: signal(SignalKind::terminate()).ok()?,
            hangup: signal(SignalKind::hangup()).ok()?,
        })
    }

    async fn next(&mut self) -> Option<Signal> {
        tokio::select! {
            it = self.interrupt.recv() => it.map(|()| Signal::Interrupt),
            it = self.terminate.recv() => it.map(|()| Signal::End),
            it = self.hangup.recv() => it.map(|()| Signal::End),
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    const fn new() -> Option<Self> {
        Some(Self)
    }

    async fn next(&mut self) -> Option<Signal> {
        tokio::signal::ctrl_c().await.ok().map(|()| Signal::Interrupt)
    }
}
