//! A simulated target behind a serial line, as a virtual machine has one: a socket that waits for the debugger.
//!
//! ```text
//!   Unix or TCP listener <-- one debugger at a time -- bytes <--> TargetLink <--> Debuggee
//! ```
//! What the machine sends while nobody is there is lost, as with QEMU's `server,nowait`.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::server::SimulatorEvent;
use super::target::Target;

/// Bytes taken from the line at a time.
const PIECE: usize = 16 << 10;

/// Where a simulated target's serial line is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SerialPort {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP port.
    Tcp(SocketAddr),
}

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
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have removed it.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Runs the machine until it is unplugged.
pub(super) async fn run(mut target: Target, listener: Listener) {
    let Ok(listener) = listener.into_async() else { return };
    let mut debugger: Option<Box<dyn Duplex>> = None;
    let mut piece = vec![0; PIECE];
    let mut outbox = BytesMut::new();
    loop {
        target.settle();
        target.link.poll_transmit_stream(&mut outbox);
        let bytes = outbox.split();
        if let Some(stream) = &mut debugger
            && !bytes.is_empty()
            && stream.write_all(&bytes).await.is_err()
        {
            debugger = None;
        }
        if target.execute() {
            continue;
        }
        let wake_at = target.wake_at();
        tokio::select! {
            biased;
            read = receive(&mut debugger, &mut piece) => match read {
                Ok(len) if len > 0 => target.link.handle_stream(Instant::now(), &piece[..len]),
                _ => debugger = None,
            },
            Ok(stream) = listener.accept(), if debugger.is_none() => {
                debugger = Some(stream);
                target.watch(SimulatorEvent::Connected("the other end of the line".into()));
            }
            () = sleep_until(wake_at) => {}
        }
        target.due(Instant::now());
    }
}

async fn receive(debugger: &mut Option<Box<dyn Duplex>>, piece: &mut [u8]) -> io::Result<usize> {
    match debugger {
        Some(stream) => stream.read(piece).await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
