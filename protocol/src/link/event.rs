//! What a host link tells its owner.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::kd::{DebugIo, Manipulate, NtStatus, StateChange};
use crate::kdnet::Endpoint;

/// Names one request; replies and failures quote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub u64);

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A target on the network.
    Kdnet(KdnetPeer),
    /// Whoever is at the other end of the stream.
    Kdcom,
}

/// A target on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KdnetPeer {
    /// Where its datagrams come from.
    pub address: SocketAddr,
    /// Its KDNET version.
    pub version: u8,
}

/// Something happened on the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A target proved that it has the key, or sent its first packet. Whether it runs or is stopped is not known yet.
    Connected(Peer),
    /// The target started anew: what was known of it is void, and pending requests have failed.
    ///
    /// Over a stream: it began to count its packets anew, as a booting target does, and one that has not heard of its
    /// debugger for long.
    Restarted(Peer),
    /// The stream has ended; pending requests have failed.
    Disconnected,
    /// The stream is there again. Whether the same target is behind it is not known yet.
    Reconnected,
    /// The target says that it is about to restart.
    Rebooting,
    /// The target stopped and waits for requests.
    Stopped(Box<StateChange>),
    /// The target was let run and left its stop: it acknowledged the continue, or sent what only a target that has left it
    /// sends.
    ///
    /// [`Self::Stopped`] may follow at once. A `Stopped` that comes *instead*, while the owner waits for this, is a stop that
    /// the link has caused in order to learn whether the target runs: it is to be left like the last one.
    Resumed,
    /// Nothing proves that the target runs, though it was told to again and again: the link has given up, and
    /// [`HostLink::state`](super::HostLink::state) is [`RunState::Unknown`](super::RunState::Unknown). Should proof come
    /// late, [`Self::Resumed`] follows.
    ResumeUnproven {
        /// How long it was tried: [`Patience::resume_timeout`](super::Patience::resume_timeout).
        after: Duration,
        /// How often the continue was sent.
        tries: u32,
    },
    /// A module was loaded or unloaded; the link has let the target go on.
    ModuleEvent(Box<StateChange>),
    /// A request's reply.
    Replied(RequestId, Box<Manipulate>),
    /// A request that has no reply was accepted: a reboot, a switch to another CPU.
    Acknowledged(RequestId),
    /// A request that gets no reply although it should.
    Failed(RequestId, RequestError),
    /// A line that the target prints.
    DebugPrint(Bytes),
    /// A prompt: the target waits until [`HostLink::answer_prompt`](super::HostLink::answer_prompt).
    Prompt(DebugIo),
    /// The target has taken the answer to its prompt, and goes on.
    PromptAnswered,
    /// The target asked for a file; the link has refused it.
    FileRefused(String),
    /// A second machine with the same key offers itself from behind the target's address, at this one: a cloned virtual
    /// machine, say. It is not answered while the first is there. Told once for each address.
    SecondTarget {
        /// Where its datagrams come from.
        address: SocketAddr,
    },
    /// The target's offers have a length that this crate has no description of. They are answered as far as anybody can: if
    /// nothing comes of it, the target speaks another dialect of KDNET. Told once for each version and length.
    ForeignOffer {
        /// Where they come from.
        address: SocketAddr,
        /// The KDNET version that they name.
        version: u8,
        /// Bytes of their body.
        len: usize,
    },
    /// The target's offers name another debugger as the connected one.
    TakenOver(Endpoint),
}

/// Why a request gets no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// A running target loses every request, so none was sent.
    #[error("the target is running; break in first")]
    TargetRunning,
    /// Whether the target runs is not known: it has not said so, and takes no request before it stops.
    #[error("whether the target runs is not known; break in first")]
    NotKnown,
    /// The stream to the target ended while the request was pending, and is not there again.
    #[error("the connection to the target has ended")]
    Disconnected,
    /// No target has connected yet.
    #[error("no target is connected")]
    NotConnected,
    /// The target started anew while the request was pending.
    #[error("the target restarted")]
    TargetRestarted,
    /// The target answered that it does not do this.
    #[error("the target refused it with status {:08X}", status.0)]
    Refused {
        /// What it answered.
        status: NtStatus,
    },
    /// The target fell silent.
    #[error("no answer within {} s, after {tries} transmission{}", after.as_secs(), if *tries == 1 { "" } else { "s" })]
    NoAnswer {
        /// How long it was waited for.
        after: Duration,
        /// How often the request was sent.
        tries: u32,
    },
}
