//! How a [`HostLink`](super::HostLink) is to behave.

use std::time::Duration;

use crate::kdnet::Key;

/// How a [`HostLink`](super::HostLink) over KDNET behaves.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// The key that the target was given too.
    pub key: Key,
    /// How long it waits for answers.
    pub patience: Patience,
}

/// How long a [`HostLink`](super::HostLink) waits for answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// A request without an answer fails after this long.
    pub request_timeout: Duration,
    /// The same for requests during which a target says nothing until it is done: searches and fills.
    pub slow_request_timeout: Duration,
    /// A continue is sent again and again for this long before nobody knows whether the target runs.
    pub resume_timeout: Duration,
}

impl Default for Patience {
    /// 10 s for a request, 60 s for a slow one, 15 s for a continue.
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(10),
            slow_request_timeout: Duration::from_secs(60),
            resume_timeout: Duration::from_secs(15),
        }
    }
}

impl LinkConfig {
    /// `key` and the default patience.
    #[must_use]
    pub fn new(key: Key) -> Self {
        Self { key, patience: Patience::default() }
    }
}
