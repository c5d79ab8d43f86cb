//! WinDbg's connection strings: `net:port=50000,key=1.2.3.4`, `com:pipe,port=vm.sock,reconnect`.

mod advice;
mod error;
mod parse;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use kd_protocol::kdnet::Key;

pub use error::ConnectionError;

/// What `-k` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// A target that comes to this machine over the network.
    Net {
        /// Where to listen for it.
        listen: SocketAddr,
        /// The key that it was given too.
        key: Key,
        /// Where it is, if only that one is to be heard.
        target: Option<TargetPlace>,
    },
    /// A target at the other end of a serial line.
    Com(ComLine),
}

/// Where the only target that is to be heard is: `target=IP`, `target=IP:PORT`.
///
/// A sender's address can be forged: this keeps strangers' datagrams from costing anything, and the key decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetPlace {
    /// Its address.
    pub ip: IpAddr,
    /// The port that it sends from, where that is given.
    pub port: Option<u16>,
}

/// A serial line, or what stands for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComLine {
    /// Where it is.
    pub port: ComPort,
    /// When it ends, wait until it is there again; otherwise the session ends.
    pub reconnect: bool,
}

/// Where a serial line is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ComPort {
    /// A virtual machine's: a named pipe on Windows; elsewhere a socket, or the FIFOs `PATH.in` and `PATH.out`.
    Pipe(String),
    /// A TCP port behind which a serial line is.
    Tcp {
        /// Name or address.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// A device of this machine.
    Device {
        /// Its name.
        path: String,
        /// Bits a second.
        baud: u32,
    },
}

impl Connection {
    /// Whether others on the network could send to it.
    #[must_use]
    pub const fn is_loopback(&self) -> bool {
        matches!(self, Self::Net { listen, .. } if listen.ip().is_loopback())
    }
}

impl TargetPlace {
    /// True if a datagram from there may be the target's.
    #[must_use]
    pub fn hears(&self, from: SocketAddr) -> bool {
        self.ip.to_canonical() == from.ip().to_canonical() && self.port.is_none_or(|it| it == from.port())
    }

    /// Where the target takes datagrams. Unless its port is given, it is the one that the host listens at, since a target
    /// sends from the port of that number. Source: PROTOCOL.md 1.
    #[must_use]
    pub fn address(&self, listen: SocketAddr) -> SocketAddr {
        SocketAddr::new(self.ip, self.port.unwrap_or_else(|| listen.port()))
    }
}

impl fmt::Display for TargetPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => self.ip.fmt(f),
        }
    }
}

impl fmt::Display for ComPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pipe(path) => write!(f, "{path}"),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "TCP [{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "TCP {host}:{port}"),
            Self::Device { path, baud } => write!(f, "{path} ({baud} baud)"),
        }
    }
}
