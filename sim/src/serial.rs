//! A simulated target behind a serial line, as a virtual machine has one: a socket that waits for the debugger.
//!
//! ```text
//!   Unix or TCP listener <-- one debugger at a time -- bytes <--> TargetLink <--> Debuggee
//! ```
//! What the machine sends while nobody is there is lost, as with QEMU's `server,nowait`.

use std::io;
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::PathBuf;
use std::time::Instant;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc::UnboundedReceiver;

use super::event::SimulatorEvent;
use super::network::{Faults, Noise};
use super::order::{Order, Ordered};
use super::serial_port::SerialPort;
use super::target::Target;

/// Bytes taken from the line at a time.
const PIECE: usize = 16 << 10;

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// The socket that waits for debuggers.
pub(super) enum Listener {
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixListener, PathBuf),
    Tcp(std::net::TcpListener),
}

impl Listener {
    pub(super) fn bind(port: &SerialPort) -> io::Result<Self> {
        Ok(match port {
            #[cfg(unix)]
            SerialPort::Unix(path) => {
                let listener = bind_unix(path)?;
                listener.set_nonblocking(true)?;
                Self::Unix(listener, path.clone())
            }
            #[cfg(not(unix))]
            SerialPort::Unix(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "this system has no Unix sockets here",
                ));
            }
            SerialPort::Tcp(address) => {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Self::Tcp(listener)
            }
        })
    }

    /// Where it listens, in words.
    pub(super) fn place(&self) -> String {
        match self {
            #[cfg(unix)]
            Self::Unix(_, path) => path.display().to_string(),
            Self::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| "TCP".to_owned(), |at| format!("TCP {at}"))
            }
        }
    }

    /// The TCP address, if it is one.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            #[cfg(unix)]
            Self::Unix(..) => None,
            Self::Tcp(listener) => listener.local_addr().ok(),
        }
    }

    fn into_async(self) -> io::Result<AsyncListener> {
        Ok(match self {
            #[cfg(unix)]
            Self::Unix(listener, path) => {
                AsyncListener::Unix(tokio::net::UnixListener::from_std(listener)?, SocketFile(path))
            }
            Self::Tcp(listener) => AsyncListener::Tcp(tokio::net::TcpListener::from_std(listener)?),
        })
    }
}

/// A socket that a simulator left behind is no obstacle; one at which somebody listens is.
#[cfg(unix)]
fn bind_unix(path: &PathBuf) -> io::Result<std::os::unix::net::UnixListener> {
    use std::os::unix::net::{UnixListener, UnixStream};
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => match UnixStream::connect(path) {
            Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)?;
                UnixListener::bind(path)
            }
            _ => Err(error),
        },
        result => result,
    }
}

enum AsyncListener {
    #[cfg(unix)]
    Unix(
        tokio::net::UnixListener,
        #[expect(dead_code, reason = "removes the socket when it is dropped")] SocketFile,
    ),
    Tcp(tokio::net::TcpListener),
}

impl AsyncListener {
    async fn accept(&self) -> io::Result<Box<dyn Duplex>> {
        Ok(match self {
            #[cfg(unix)]
            Self::Unix(listener, _) => Box::new(listener.accept().await?.0),
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        })
    }
}

/// A socket's name, which goes with the socket.
#[cfg(unix)]
struct SocketFile(PathBuf);

#[cfg(unix)]
impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have removed it.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Runs the machine until it is unplugged.
pub(super) async fn run(
    mut target: Target,
    listener: Listener,
    to_host: Faults,
    to_target: Faults,
    mut orders: UnboundedReceiver<Ordered>,
) {
    let Ok(listener) = listener.into_async() else { return };
    let (mut to_host, mut to_target) = (Noise::new(to_host, 0), Noise::new(to_target, 1));
    let mut debugger: Option<Debugger> = None;
    let mut piece = vec![0; PIECE];
    let mut outbox = BytesMut::new();
    // Bytes that the line has not taken yet: the machine stands still meanwhile, as one with a full UART does.
    let mut unsent = Vec::new();
    let mut obeyed = None;
    loop {
        target.settle(Instant::now());
        if unsent.is_empty() {
            target.poll_transmit_stream(&mut outbox);
            unsent.extend_from_slice(&outbox.split());
            to_host.pass(&mut unsent);
        }
        if debugger.is_none() {
            unsent.clear();
        }
        // Whoever gave the order sees what it did.
        drop(obeyed.take());
        if unsent.is_empty() && target.execute(Instant::now()) {
            continue;
        }
        let wake_at = target.wake_at().filter(|_| unsent.is_empty());
        let reads = target.reads_its_line();
        tokio::select! {
            biased;
            Some((order, done)) = orders.recv() => {
                match order {
                    Order::SetFaults { to_host: one, to_target: other } => {
                        (to_host, to_target) = (Noise::new(one, 0), Noise::new(other, 1));
                    }
                    order => target.obey(Instant::now(), order),
                }
                obeyed = Some(done);
            }
            moved = exchange(&mut debugger, &unsent, &mut piece, reads) => match moved {
                Ok(Moved::Out(len)) => drop(unsent.drain(..len)),
                Ok(Moved::In(len)) => {
                    let mut bytes = piece[..len].to_vec();
                    to_target.pass(&mut bytes);
                    target.stream(Instant::now(), &bytes);
                }
                Err(_) => debugger = None,
            },
            Ok(stream) = listener.accept(), if debugger.is_none() => {
                debugger = Some(tokio::io::split(stream));
                target.watch(SimulatorEvent::Connected("the other end of the line".into()));
            }
            () = super::sleep_until(wake_at) => {}
        }
        target.due(Instant::now());
    }
}

/// Both halves of a debugger's stream.
type Debugger = (ReadHalf<Box<dyn Duplex>>, WriteHalf<Box<dyn Duplex>>);

/// So many bytes went one way.
enum Moved {
    Out(usize),
    In(usize),
}

/// Writes some of `unsent`, or reads into `piece` if the machine does. An error, or the stream's end, is the debugger's going.
async fn exchange(
    debugger: &mut Option<Debugger>,
    unsent: &[u8],
    piece: &mut [u8],
    reads: bool,
) -> io::Result<Moved> {
    let Some((from, to)) = debugger else { return std::future::pending().await };
    let (len, moved) = tokio::select! {
        biased;
        wrote = to.write(unsent), if !unsent.is_empty() => {
            let len = wrote?;
            (len, Moved::Out(len))
        }
        read = from.read(piece), if reads => {
            let len = read?;
            (len, Moved::In(len))
        }
        else => std::future::pending().await,
    };
    if len > 0 { Ok(moved) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
