//! Where a serial line is.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Where a simulated target's serial line is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SerialPort {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP port.
    Tcp(SocketAddr),
}
