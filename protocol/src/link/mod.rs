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
mod config;
mod content;
mod damage;
mod dialect;
mod entropy;
mod event;
mod host;
mod in_flight;
mod keying;
mod reliable;
mod round_trip;
mod stream_reader;
mod target;

pub use bridge::{Bridge, BridgeEvent, KDNET_REPLY_DATA};
pub use config::{LinkConfig, Patience};
pub use content::Content;
pub use entropy::Entropy;
pub use event::{Event, KdnetPeer, Peer, RequestError, RequestId};
pub use host::{HostLink, LinkCounters, RunState};
pub use target::{OfferForm, TargetConfig, TargetEvent, TargetLink};
