//! How patient a program is with symbol servers.

use std::time::Duration;

/// How long and how often a server is tried.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Until a connection stands.
    pub connect: Duration,
    /// Between two bytes: a server that is silent for longer has stalled.
    pub silence: Duration,
    /// For a whole file.
    pub whole: Duration,
    /// Requests made for one file, the first included.
    pub tries: u32,
    /// Wait before the second request; twice as long before the third.
    pub pause: Duration,
    /// Largest file taken.
    pub max_bytes: u64,
}

/// For a person who waits: Microsoft's server answers within a second, and gives a kernel's PDB in a few.
impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            silence: Duration::from_secs(15),
            whole: Duration::from_secs(30 * 60),
            tries: 3,
            pause: Duration::from_millis(500),
            max_bytes: 2 << 30,
        }
    }
}
