//! Why a simulated target cannot start.

use std::io;
use std::net::SocketAddr;

use super::serial_port::SerialPort;
use super::windows::NotOnBuild;

/// Why a simulated target cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimulatorError {
    /// Its own address is not to be had.
    #[error("cannot send from UDP {address}: {source}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Its serial line cannot be had.
    #[error("cannot listen on {port:?} for a debugger: {source}")]
    Listen {
        /// Which.
        port: SerialPort,
        /// Why not.
        source: io::Error,
    },
    /// Its scenario cannot be on its Windows.
    #[error(transparent)]
    Scenario(#[from] NotOnBuild),
    /// No thread, no runtime, or the socket failed.
    #[error("the simulated target cannot run: {0}")]
    Io(#[from] io::Error),
}
