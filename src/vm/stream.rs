//! The socket of a monitor: a Unix socket or a TCP connection, read with a timeout.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::place::VmPlace;

/// A host that does not take a connection within this is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An open connection to a monitor.
#[derive(Debug)]
pub(super) enum Stream {
    #[cfg(unix)]
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    /// Connects. A Unix socket whose queue is full is [`io::ErrorKind::WouldBlock`]: nobody waits in it.
    pub(super) fn connect(place: &VmPlace) -> io::Result<Self> {
        match place {
            #[cfg(unix)]
            VmPlace::Unix(path) => {
                use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};
                let address = SocketAddrUnix::new(path)?;
                let stream = UnixStream::from(socket(AddressFamily::UNIX, SocketType::STREAM, None)?);
                rustix::io::fcntl_setfd(&stream, rustix::io::FdFlags::CLOEXEC)?;
                stream.set_nonblocking(true)?;
                connect(&stream, &address)?;
                stream.set_nonblocking(false)?;
                Ok(Self::Unix(stream))
            }
            #[cfg(not(unix))]
            VmPlace::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
            VmPlace::Tcp(host, port) => {
                let mut failure = io::Error::from(io::ErrorKind::NotFound);
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                        Ok(stream) => {
                            stream.set_nodelay(true)?;
                            return Ok(Self::Tcp(stream));
                        }
                        Err(error) => failure = error,
                    }
                }
                Err(failure)
            }
        }
    }

    /// The process at the other end, if it is on this machine and the system tells.
    pub(super) fn peer(&self) -> Option<u32> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Unix(stream) => {
                let pid = rustix::net::sockopt::socket_peercred(stream).ok()?.pid;
                u32::try_from(pid.as_raw_nonzero().get()).ok()
            }
            _ => None,
        }
    }

    /// A read or a write takes this long at the most.
    pub(super) fn set_timeouts(&self, read: Duration, write: Duration) -> io::Result<()> {
        match self {
            #[cfg(unix)]
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(read))?;
                stream.set_write_timeout(Some(write))
            }
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(read))?;
                stream.set_write_timeout(Some(write))
            }
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            #[cfg(unix)]
            Self::Unix(stream) => stream.read(buf),
            Self::Tcp(stream) => stream.read(buf),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            #[cfg(unix)]
            Self::Unix(stream) => stream.write(buf),
            Self::Tcp(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
