//! How a target is set up.

use std::net::SocketAddr;

use crate::kdnet::Key;

/// How a [`TargetLink`](super::TargetLink) over KDNET behaves.
#[derive(Clone, Debug)]
pub struct TargetConfig {
    /// The key that the host was given too.
    pub key: Key,
    /// KDNET version byte: 2 for Windows 8.1, 5 for Windows 10 2004.
    pub version: u8,
    /// The target's own address, as its offers name it.
    pub address: SocketAddr,
    /// Where offers go: the debugger that the boot settings name.
    pub host: SocketAddr,
}
