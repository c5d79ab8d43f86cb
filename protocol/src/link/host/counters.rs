//! What crossed a link.

/// What crossed the link so far. Over a stream a packet counts as a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Manipulate requests submitted.
    pub requests: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Authentic datagrams received.
    pub datagrams_received: u64,
    /// UDP payload bytes sent, or bytes of the stream.
    pub bytes_sent: u64,
    /// UDP payload bytes received, authentic ones, or bytes of the stream.
    pub bytes_received: u64,
    /// Data packets sent more than once.
    pub retransmissions: u64,
    /// Datagrams dropped because they do not authenticate.
    pub not_authentic: u64,
    /// Datagrams dropped for another reason: replays, damage, strangers.
    pub dropped: u64,
}
