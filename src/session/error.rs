//! Why a session cannot begin, connect or stop its target: what was tried, what stopped it, what to do.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Why a session could not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum OpenError {
    /// Another program listens there.
    #[error(
        "UDP port {} is in use on this machine: another debugger may be listening on it. \
         End it, or give the target and -k another port", .0.port()
    )]
    PortInUse(SocketAddr),
    /// The port may not be opened.
    #[error("cannot listen on UDP {address}: {source}")]
    Bind { address: SocketAddr, source: io::Error },
    /// The trace's file cannot be made.
    #[error("cannot write a trace to {}: {source}", path.display())]
    Trace { path: PathBuf, source: io::Error },
    /// No thread, no runtime.
    #[error("cannot start the session: {0}")]
    Runtime(#[from] io::Error),
}

/// Why no target connected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum AttachError {
    /// Nothing arrived at all.
    #[error(
        "no target within {} s: no datagram arrived on UDP port {port}.\n\
         On the target, `bcdedit /dbgsettings` must name this machine's address and port {port}, and `bcdedit /debug on` \
         must have been followed by a restart; then check firewalls for UDP {port}", after.as_secs()
    )]
    Silence {
        /// How long it was waited for.
        after: Duration,
        port: u16,
    },
    /// Only others than the target that `target=` names sent anything.
    #[error(
        "no target within {} s: target= names another machine than the one that sends to UDP port {port}: {count} \
         datagrams came from others, the last from {from}, and were dropped.\n\
         Write target={}, or leave target= away, if that is the target", after.as_secs(), from.ip()
    )]
    Strangers {
        /// Where the last came from.
        from: SocketAddr,
        count: u64,
        /// How long it was waited for.
        after: Duration,
        port: u16,
    },
    /// A target is there, with another key.
    #[error(
        "a target at {from} sends KDNET datagrams ({count} in {} s), but none opens with this key: it was given another \
         key. `bcdedit /dbgsettings` on the target shows it", after.as_secs()
    )]
    WrongKey {
        /// Where they come from.
        from: SocketAddr,
        count: u64,
        /// How long it was waited for.
        after: Duration,
    },
    /// Something is there, but no KDNET target.
    #[error(
        "{count} datagrams arrived from {from} in {} s, but they are not KDNET: another program sends to this port",
        after.as_secs()
    )]
    NotKdnet {
        /// Where the last came from.
        from: SocketAddr,
        count: u64,
        /// How long it was waited for.
        after: Duration,
    },
    /// The serial line is not there.
    #[error(
        "no target within {} s: {line} is not there: {why}.\n{advice}", after.as_secs()
    )]
    NoLine {
        line: String,
        /// What the system says.
        why: String,
        /// What to try, for this kind of port.
        advice: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The serial line is there, and nothing comes.
    #[error(
        "no target within {} s: {line} is there, but nothing came from it.\n\
         On the target, `bcdedit /dbgsettings serial debugport:1 baudrate:115200` and `bcdedit /debug on` must have been \
         followed by a restart; a machine that is still booting answers later", after.as_secs()
    )]
    SilentLine {
        line: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The serial line is taken, and ends, and nothing comes.
    #[error(
        "no target within {} s: {line} took a connection {count} time{} and ended it, and nothing came from it ({why}).\n\
         Another debugger may hold the line; end it. Or what listens there has no machine behind it: start that", after.as_secs(),
        if *count == 1 { "" } else { "s" }
    )]
    LineEnds {
        line: String,
        count: u32,
        /// What the system says.
        why: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// Something comes from the serial line, but it is no KD.
    #[error(
        "no target within {} s: {count} bytes came from {line}, but no KD packet: another speed, or a console.\n\
         The last of them: \"{tail}\"", after.as_secs()
    )]
    NotKd {
        line: String,
        /// Bytes that came.
        count: u64,
        /// The last of them, escaped.
        tail: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// Offers open with the key, but are not of a form that is known, and nothing came of the answers.
    #[error(
        "the target at {from} speaks a dialect of KDNET that verikd does not know: version {version}, offers of {len} bytes. \
         It does not react to answers in the form that is known; a trace of this (--trace FILE) would help to learn it"
    )]
    Foreign {
        /// Where they come from.
        from: SocketAddr,
        version: u8,
        /// Bytes of their body.
        len: usize,
    },
    /// Offers open with the key, but the handshake does not complete.
    #[error(
        "the target at {from} makes offers, but does not react to answers: datagrams to it are lost on the way. \
         Check firewalls between this machine and the target"
    )]
    NoReaction {
        /// Where they come from.
        from: SocketAddr,
    },
    /// Ctrl+C, or a request to end.
    #[error("interrupted while waiting for a target")]
    Interrupted,
    /// The session is over.
    #[error("the session has ended: {0}")]
    Ended(String),
}

impl AttachError {
    /// True if waiting longer may help: what is missing now may come.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        !matches!(self, Self::Interrupted | Self::Ended(_))
    }
}
