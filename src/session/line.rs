//! The stream to a serial target: opened when it is there, and again when it has ended.
//!
//! A virtual machine's line is there when the machine is, which may be later than the debugger and more than once.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::connection::{ComLine, ComPort};

/// A line that is not there is tried again after this long.
const RETRY: Duration = Duration::from_millis(250);
/// One that ends at once, without a byte, is tried again after twice as long each time, up to this.
const LONGEST_RETRY: Duration = Duration::from_secs(8);
/// A stream that ends within this has ended at once.
const AT_ONCE: Duration = Duration::from_secs(2);
/// A connection that takes longer is tried anew.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);
/// Bytes taken from the stream at a time.
const PIECE: usize = 16 << 10;

pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

pub(super) type Stream = Box<dyn Duplex>;

/// What happened on the line.
#[derive(Debug)]
pub(super) enum LineEvent {
    /// The stream is there.
    Opened,
    /// It is not there yet, for this reason; it is tried again.
    NotThere(io::Error),
    /// Bytes of the target.
    Bytes(Bytes),
    /// The stream has ended, for this reason; it is opened again if that is wanted.
    Closed(String),
}

/// A serial line.
#[derive(Debug)]
pub(super) struct Line {
    config: ComLine,
    state: State,
    opened_at: Instant,
    /// Something has come since then.
    has_spoken: bool,
    in_vain: u32,
}

#[derive(Debug)]
enum State {
    Opening(JoinHandle<io::Result<OpenLine>>),
    Open(OpenLine),
    Ended,
}

/// Reader and writer are tasks of their own: an end that does not read must not keep the driver from reading.
#[derive(Debug)]
struct OpenLine {
    received: mpsc::Receiver<io::Result<Bytes>>,
    to_send: mpsc::UnboundedSender<Bytes>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

impl Line {
    /// Begins to open the line. Must be called in a runtime.
    pub(super) fn new(config: ComLine) -> Self {
        let state = State::Opening(tokio::spawn(open_line(config.port.clone(), Duration::ZERO)));
        Self { config, state, opened_at: Instant::now(), has_spoken: false, in_vain: 0 }
    }

    /// Streams in a row that ended at once, without a byte: whoever takes the connection keeps it for nobody.
    pub(super) const fn in_vain(&self) -> u32 {
        self.in_vain
    }

    /// What happens next. Nothing is lost if the wait is given up.
    pub(super) async fn next_event(&mut self) -> LineEvent {
        match &mut self.state {
            State::Opening(task) => match task.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok(line) => {
                    self.state = State::Open(line);
                    self.opened_at = Instant::now();
                    self.has_spoken = false;
                    LineEvent::Opened
                }
                Err(error) => {
                    self.open_again();
                    LineEvent::NotThere(error)
                }
            },
            State::Open(line) => match line.received.recv().await {
                Some(Ok(bytes)) => {
                    self.has_spoken = true;
                    self.in_vain = 0;
                    LineEvent::Bytes(bytes)
                }
                ended => {
                    let why = match ended {
                        Some(Err(error)) => error.to_string(),
                        _ => "the other end closed it".into(),
                    };
                    self.close();
                    LineEvent::Closed(why)
                }
            },
            State::Ended => std::future::pending().await,
        }
    }

    /// True if the line is opened again when it ends.
    pub(super) const fn reconnects(&self) -> bool {
        self.config.reconnect
    }

    /// Sends bytes, if the line is there.
    pub(super) fn send(&self, bytes: Bytes) {
        if let State::Open(line) = &self.state {
            // A line that has ended says so when it is read.
            let _ = line.to_send.send(bytes);
        }
    }

    /// Waits until what was to be sent is sent, but not for long: the other end may not read.
    pub(super) async fn finish(self) {
        if let State::Open(line) = self.state {
            drop(line.to_send);
            line.reader.abort();
            let _ = tokio::time::timeout(RETRY, line.writer).await;
        }
    }

    fn close(&mut self) {
        if let State::Open(line) = std::mem::replace(&mut self.state, State::Ended) {
            line.reader.abort();
            line.writer.abort();
        }
        let is_in_vain = !self.has_spoken && self.opened_at.elapsed() < AT_ONCE;
        self.in_vain = if is_in_vain { self.in_vain.saturating_add(1) } else { 0 };
        if self.config.reconnect {
            self.open_again();
        }
    }

    fn open_again(&mut self) {
        let wait = RETRY.saturating_mul(1 << self.in_vain.min(8)).min(LONGEST_RETRY);
        self.state = State::Opening(tokio::spawn(open_line(self.config.port.clone(), wait)));
    }
}

async fn open_line(port: ComPort, wait: Duration) -> io::Result<OpenLine> {
    tokio::time::sleep(wait).await;
    let stream = match tokio::time::timeout(OPEN_PATIENCE, open(&port)).await {
        Ok(stream) => stream?,
        Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer")),
    };
    let (mut from, mut to) = tokio::io::split(stream);
    let (hand_up, received) = mpsc::channel(16);
    let (to_send, mut outbox) = mpsc::unbounded_channel::<Bytes>();
    let reader = tokio::spawn(async move {
        let mut piece = vec![0; PIECE];
        loop {
            let read = match from.read(&mut piece).await {
                Ok(0) => return,
                Ok(len) => Ok(Bytes::copy_from_slice(&piece[..len])),
                Err(error) => Err(error),
            };
            let is_end = read.is_err();
            if hand_up.send(read).await.is_err() || is_end {
                return;
            }
        }
    });
    let writer = tokio::spawn(async move {
        while let Some(bytes) = outbox.recv().await {
            // An end that is gone is noticed by the reader.
            if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
                return;
            }
        }
    });
    Ok(OpenLine { received, to_send, reader, writer })
}

pub(super) async fn open(port: &ComPort) -> io::Result<Stream> {
    Ok(match port {
        ComPort::Pipe(path) => open_pipe(path).await?,
        ComPort::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            // A request is a few dozen bytes, and the target waits for it.
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
        ComPort::Device { path, baud } => Box::new(serial2_tokio::SerialPort::open(path, *baud)?),
    })
}

#[cfg(unix)]
async fn open_pipe(path: &str) -> io::Result<Stream> {
    use tokio::net::UnixStream;
    use tokio::net::unix::pipe;

    let not_there = match UnixStream::connect(path).await {
        Ok(stream) => return Ok(Box::new(stream)),
        Err(error) => error,
    };
    let (to_target, from_target) = (format!("{path}.in"), format!("{path}.out"));
    let options = pipe::OpenOptions::new();
    // A FIFO can be written to once somebody reads it.
    match (options.open_receiver(&from_target), options.open_sender(&to_target)) {
        (Ok(from_target), Ok(to_target)) => Ok(Box::new(tokio::io::join(from_target, to_target))),
        _ => Err(not_there),
    }
}

#[cfg(windows)]
async fn open_pipe(path: &str) -> io::Result<Stream> {
    Ok(Box::new(tokio::net::windows::named_pipe::ClientOptions::new().open(path)?))
}

/// What has come and gone on a line, for whoever asks why there is no target.
#[derive(Clone, Debug, Default)]
pub(super) struct LineTraffic {
    /// Why it is not there.
    pub(super) not_there: Option<String>,
    /// It is there, or was.
    pub(super) was_open: bool,
    /// How often it ended.
    pub(super) ends: u32,
    /// Bytes that came.
    pub(super) bytes: u64,
    /// The last few of them, for a person to recognise a console by.
    pub(super) tail: VecDeque<u8>,
}

impl LineTraffic {
    const TAIL: usize = 48;

    pub(super) fn note(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.tail.extend(&bytes[bytes.len().saturating_sub(Self::TAIL)..]);
        while self.tail.len() > Self::TAIL {
            self.tail.pop_front();
        }
    }
}
