//! Layer 3: who sends what when. Two state machines, [`HostLink`] and [`TargetLink`], without socket, clock or
//! randomness: datagrams, the time and [`Entropy`] come in; datagrams and events go out.
//!
//! ```text
//!             handle_datagram          poll_event
//!   socket ------------------> link -----------------> session or simulated kernel
//!          <------------------      <-----------------
//!             poll_transmit           request, break_in
//! ```
//!
//! After every `&mut` call: drain `poll_transmit`, then `poll_event`, then read `poll_timeout`.
//!
//! Packets travel in KDNET datagrams, or in a stream of bytes as KDCOM writes them. The exchange is one state machine for
//! both; ids, patience and what a RESET means follow the carrier. A link over a stream takes and gives bytes instead of
//! datagrams:
//!
//! ```text
//!             handle_stream           poll_event
//!   stream ------------------> link ----------------->
//!          <------------------      <-----------------
//!           poll_transmit_stream
//! ```
//!
//! Both ends live here so that they can be joined under a virtual clock. What anyone can send is never an error
//! of ours: it is dropped with a typed reason, and counted.

mod agreement;
mod bridge;
mod channel;
mod content;
mod dialect;
mod event;
mod host;
mod in_flight;
mod keying;
mod reliable;
mod round_trip;
mod stream_reader;
mod target;

use std::time::Duration;

use crate::kdnet::Key;

pub use bridge::{Bridge, BridgeEvent};
pub use content::Content;
pub use event::{Event, KdnetPeer, Peer, RequestError, RequestId};
pub use host::{HostLink, LinkCounters, RunState};
pub use target::{OfferForm, TargetConfig, TargetEvent, TargetLink};

/// Where random bytes come from. Inject a real source in a program and a seeded one in a test.
pub trait Entropy: Send {
    /// Fills `buf` with bytes that nobody can predict.
    fn fill(&mut self, buf: &mut [u8]);
}

/// How a [`HostLink`] over KDNET behaves.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// The key that the target was given too.
    pub key: Key,
    /// How long it waits for answers.
    pub patience: Patience,
}

/// How long a [`HostLink`] waits for answers.
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
