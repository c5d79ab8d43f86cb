//! A bridge from a serial target to KDNET debuggers, behind a real line and a real socket.
//!
//! ```text
//!   KDNET debugger <-- UDP --> Bridge (a thread) <-- line --> serial target
//! ```

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kd_protocol::kdnet::Key;
use kd_protocol::link::{self, BridgeEvent, Patience, TargetConfig};
use tokio::net::UdpSocket;
use tokio::sync::oneshot;

use super::connection::{ComLine, Connection};
use super::entropy::OsEntropy;
use super::error::OpenError;
use super::line::{Line, LineEvent};
use super::{rescue, signals};

/// The newest KDNET version that was seen. Source: PROTOCOL.md 3.
const KDNET_VERSION: u8 = 5;
/// The most that UDP carries.
const MAX_DATAGRAM: usize = 65_536;

/// How a bridge is run.
#[derive(Clone, Debug)]
pub struct BridgeConfig {
    /// The serial target's line.
    pub from: ComLine,
    /// Where the KDNET debugger listens.
    pub to: SocketAddr,
    /// The key that the debugger is given too.
    pub key: Key,
    /// What a prompt is answered while no debugger is connected.
    pub prompt_answer: Bytes,
    /// Ctrl+C and SIGTERM end this bridge.
    pub handle_signals: bool,
}

/// Something that whoever runs a bridge may want to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BridgeNews {
    /// It makes offers from this address.
    Offers(SocketAddr),
    /// The line is not there yet, for this reason; it is tried again. Told once.
    LineNotThere(String),
    /// The line is there.
    LineThere,
    /// Something happened on either side.
    Event(BridgeEvent),
    /// The line was taken and ended at once, without a byte, for this reason; it is tried again, less and less often. Told once.
    LineEndsAtOnce(String),
    /// It ends because its line has ended, for this reason.
    LineLost(String),
    /// It ends because it was told to.
    Ended,
}

/// A bridge on a thread of its own. Dropping it ends it and lets a stopped target run.
#[derive(Debug)]
pub struct Bridge {
    news: mpsc::Receiver<BridgeNews>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Bridge {
    /// Starts to open the line, and to make offers.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn start(config: BridgeConfig) -> Result<Self, OpenError> {
        let any_port: SocketAddr = match config.to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = std::net::UdpSocket::bind(any_port)
            .map_err(|source| OpenError::Bind { address: any_port, source })?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let (watcher, news) = mpsc::channel();
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("bridge".into()).spawn(move || {
            let line = config.from.clone();
            let left_stopped = runtime.block_on(async {
                let socket = UdpSocket::from_std(socket).ok()?;
                Some(Span::new(&config, address, watcher).run(socket, config, ended).await)
            });
            drop(runtime);
            if left_stopped == Some(true) {
                rescue::let_go(&Connection::Com(ComLine { reconnect: false, ..line }), None, Vec::new());
            }
        })?;
        Ok(Self { news, end: Some(end), thread: Some(thread) })
    }

    /// Waits for the next news; `None` when the bridge has ended or `timeout` passes.
    pub fn next_news(&self, timeout: Option<Duration>) -> Option<BridgeNews> {
        match timeout {
            Some(timeout) => self.news.recv_timeout(timeout).ok(),
            None => self.news.recv().ok(),
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // The thread may have ended by itself.
        let _ = self.end.take().map(|end| end.send(()));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Span {
    bridge: link::Bridge,
    watcher: mpsc::Sender<BridgeNews>,
    was_told_not_there: bool,
    /// Streams in a row that ended at once: their comings and goings are no news.
    in_vain: u32,
}

impl Span {
    fn new(config: &BridgeConfig, address: SocketAddr, watcher: mpsc::Sender<BridgeNews>) -> Self {
        let above =
            TargetConfig { key: config.key.clone(), version: KDNET_VERSION, address, host: config.to };
        let answer = config.prompt_answer.clone();
        let bridge =
            link::Bridge::new(Instant::now(), Patience::default(), above, Box::new(OsEntropy), answer);
        let span = Self { bridge, watcher, was_told_not_there: false, in_vain: 0 };
        span.tell(BridgeNews::Offers(address));
        span
    }

    /// Carries packets until it is told to end, or the line ends for good. True if the target is left stopped.
    async fn run(
        mut self,
        socket: UdpSocket,
        config: BridgeConfig,
        mut ended: oneshot::Receiver<()>,
    ) -> bool {
        let mut line = Line::new(config.from);
        let mut datagram = vec![0; MAX_DATAGRAM];
        let signals = signals::end_signal(config.handle_signals);
        tokio::pin!(signals);
        loop {
            self.transmit(&socket, &line).await;
            let wake_at = self.bridge.poll_timeout();
            tokio::select! {
                biased;
                event = line.next_event() => {
                    if let Some(why) = self.line_event(event, &line) {
                        self.tell(BridgeNews::LineLost(why));
                        return false;
                    }
                }
                // Errors here are of earlier sends to a port where nobody listens yet.
                Ok((len, from)) = socket.recv_from(&mut datagram) => {
                    // Whatever is wrong with a datagram, it is dropped.
                    let _ = self.bridge.handle_datagram(Instant::now(), from, &datagram[..len]);
                }
                () = super::driver::sleep_until(wake_at) => self.bridge.handle_timeout(Instant::now()),
                _ = &mut ended => break,
                () = &mut signals => break,
            }
        }
        self.transmit(&socket, &line).await;
        self.tell(BridgeNews::Ended);
        line.finish().await;
        self.bridge.is_stopped()
    }

    fn line_event(&mut self, event: LineEvent, line: &Line) -> Option<String> {
        let now = Instant::now();
        match event {
            LineEvent::Opened => {
                self.bridge.handle_stream_opened(now);
                self.was_told_not_there = false;
                if self.in_vain == 0 {
                    self.tell(BridgeNews::LineThere);
                }
            }
            LineEvent::NotThere(error) => {
                if !std::mem::replace(&mut self.was_told_not_there, true) {
                    self.tell(BridgeNews::LineNotThere(error.to_string()));
                }
            }
            LineEvent::Bytes(bytes) => {
                if std::mem::take(&mut self.in_vain) > 0 {
                    self.tell(BridgeNews::LineThere);
                }
                self.bridge.handle_stream(now, &bytes);
            }
            LineEvent::Closed(why) => {
                self.bridge.handle_stream_closed(now);
                self.in_vain = line.in_vain();
                if self.in_vain == 1 && line.reconnects() {
                    self.tell(BridgeNews::LineEndsAtOnce(why.clone()));
                }
                if !line.reconnects() {
                    return Some(why);
                }
            }
        }
        None
    }

    async fn transmit(&mut self, socket: &UdpSocket, line: &Line) {
        let mut bytes = BytesMut::new();
        while let Some(to) = self.bridge.poll_transmit(&mut bytes) {
            // Where nobody listens, an offer is lost; the next one follows.
            let _ = socket.send_to(&bytes, to).await;
        }
        bytes.clear();
        if self.bridge.poll_transmit_stream(&mut bytes) {
            line.send(bytes.freeze());
        }
        while let Some(event) = self.bridge.poll_event() {
            if self.in_vain == 0 || !matches!(event, BridgeEvent::LineEnded | BridgeEvent::LineBack) {
                self.tell(BridgeNews::Event(event));
            }
        }
    }

    fn tell(&self, news: BridgeNews) {
        // Whoever watches may have gone away.
        let _ = self.watcher.send(news);
    }
}
