//! How a simulated target is run, and how its debugger reaches it.

use std::net::SocketAddr;
use std::time::Duration;

use kd_protocol::kdnet::Key;

use super::network::Faults;
use super::quirks::Quirks;
use super::serial_port::SerialPort;
use super::windows::{Build, Growth, Scenario, WINDOWS_7_SP1};

/// Data that one reply carries over KDNET: `KdTransportMaxPacketSize` 1152 of Windows 10 1903 and later, less the header.
pub(super) const KDNET_REPLY_DATA: usize = 1096;

/// The same over a serial line: 4,000 bytes less the header.
pub(super) const SERIAL_REPLY_DATA: usize = 3944;

/// How its debugger reaches a simulated target.
#[derive(Clone, Debug)]
pub enum SimulatorLink {
    /// Over the network, by the target's own offers.
    Kdnet {
        /// Where the debugger listens.
        connect: SocketAddr,
        /// Where the target sends from; any free port if `None`.
        source: Option<SocketAddr>,
        /// The key that the debugger is given too.
        key: Key,
    },
    /// Over a serial line that the debugger connects to.
    Serial(SerialPort),
}

/// How a simulated target is run.
#[derive(Clone, Debug)]
pub struct SimulatorConfig {
    /// How its debugger reaches it.
    pub link: SimulatorLink,
    /// What the network does to datagrams, or the line to bytes: both ways, or towards the debugger only.
    pub faults: Faults,
    /// What it does to those on their way to the target, if that is something else.
    pub faults_to_target: Option<Faults>,
    /// Which Windows it has.
    pub build: &'static Build,
    /// What has happened on it. What a scenario leaves to chance is chosen by the seed of `faults`.
    pub scenario: Scenario,
    /// What it does unlike Windows.
    pub quirks: Quirks,
    /// How much larger than usual it is.
    pub growth: Growth,
    /// How often the driver leaks once the machine has been stopped; zero for never.
    pub leak_every: Option<Duration>,
}

impl SimulatorConfig {
    /// A target with Windows 7 SP1 on a perfect network.
    #[must_use]
    pub fn new(connect: SocketAddr, key: Key) -> Self {
        Self::with_link(SimulatorLink::Kdnet { connect, source: None, key })
    }

    /// A target with Windows 7 SP1 behind a serial line.
    #[must_use]
    pub fn serial(port: SerialPort) -> Self {
        Self::with_link(SimulatorLink::Serial(port))
    }

    fn with_link(link: SimulatorLink) -> Self {
        Self {
            link,
            faults: Faults::default(),
            faults_to_target: None,
            build: &WINDOWS_7_SP1,
            scenario: Scenario::default(),
            quirks: Quirks::default(),
            growth: Growth::default(),
            leak_every: None,
        }
    }
}
