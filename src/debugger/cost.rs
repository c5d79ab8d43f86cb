//! What commands cost: requests, datagrams, bytes, and time that the target stood still.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::commands::{Context, Facts, Schema};
use crate::memory::{CachedMemory, Need};
use crate::source::{Source, SourceMemory};

/// What crossed the link, and how long the target stood still for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Stats {
    /// Manipulate requests.
    pub requests: u64,
    /// Reads and searches that needed none, because this stop's bytes were known.
    pub cache_hits: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Authentic datagrams received.
    pub datagrams_received: u64,
    /// UDP payload bytes sent.
    pub bytes_sent: u64,
    /// UDP payload bytes received.
    pub bytes_received: u64,
    /// Data packets that had to be sent again.
    pub retransmissions: u64,
    /// Microseconds that the target stood still.
    pub frozen_us: u64,
}

impl Stats {
    /// The totals since the session began.
    pub(super) fn of(source: &dyn Source, memory: &CachedMemory<Arc<dyn SourceMemory>>) -> Self {
        let link = source.counters();
        Self {
            requests: link.requests,
            cache_hits: memory.hits(),
            datagrams_sent: link.datagrams_sent,
            datagrams_received: link.datagrams_received,
            bytes_sent: link.bytes_sent,
            bytes_received: link.bytes_received,
            retransmissions: link.retransmissions,
            frozen_us: u64::try_from(source.frozen().as_micros()).unwrap_or(u64::MAX),
        }
    }

    /// What has come since `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            requests: self.requests - earlier.requests,
            cache_hits: self.cache_hits - earlier.cache_hits,
            datagrams_sent: self.datagrams_sent - earlier.datagrams_sent,
            datagrams_received: self.datagrams_received - earlier.datagrams_received,
            bytes_sent: self.bytes_sent - earlier.bytes_sent,
            bytes_received: self.bytes_received - earlier.bytes_received,
            retransmissions: self.retransmissions - earlier.retransmissions,
            frozen_us: self.frozen_us.saturating_sub(earlier.frozen_us),
        }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, cache_hits, datagrams_sent, datagrams_received, .. } = self;
        write!(
            f,
            "{requests} requests, {cache_hits} from the cache; datagrams {datagrams_sent} out {datagrams_received} in; "
        )?;
        write!(
            f,
            "bytes {} out {} in; {} sent again; ",
            self.bytes_sent, self.bytes_received, self.retransmissions
        )?;
        write!(f, "target frozen {}.{:03} s", self.frozen_us / 1_000_000, self.frozen_us / 1000 % 1000)
    }
}

/// Commands whose cost is kept.
const KEPT: usize = 100;

/// What the last commands cost, oldest first.
#[derive(Clone, Debug, Default, Serialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct Costs(VecDeque<CommandStats>);

impl Costs {
    /// Keeps what `command` cost, what it needed, and what it remarked: how it chose to get its answer, and why.
    pub fn add(&mut self, command: &str, stats: Stats, need: Need, remarks: Vec<String>) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(CommandStats { command: command.to_owned(), stats, need, remarks });
    }

    /// `.kdstats`: these, and the session's totals.
    #[must_use]
    pub fn with_totals(&self, session: Stats) -> SessionStats {
        SessionStats { session, commands: self.clone() }
    }
}

/// `.kdstats`: the session's totals, and those of each command so far.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct SessionStats {
    /// From attach on.
    session: Stats,
    commands: Costs,
}

/// What one command cost.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
struct CommandStats {
    command: String,
    #[serde(flatten)]
    stats: Stats,
    need: Need,
    remarks: Vec<String>,
}

impl SessionStats {
    /// The form of its JSON.
    pub const SCHEMA: Schema = Schema::of::<Self>("costs");
}

impl Facts for SessionStats {
    fn schema(&self) -> Schema {
        Self::SCHEMA
    }

    fn write_text(&self, _: &Context, out: &mut dyn fmt::Write) -> fmt::Result {
        for CommandStats { command, stats, need, remarks } in &self.commands.0 {
            writeln!(out, "{command}\n    {stats}")?;
            let Need { requests, bytes, places, searches } = need;
            if *requests > 0 {
                writeln!(
                    out,
                    "    needed: {requests} requests at the least, for {bytes} bytes in {places} places and {searches} searches"
                )?;
            }
            for remark in remarks {
                writeln!(out, "    {remark}")?;
            }
        }
        writeln!(out, "session\n    {}", self.session)
    }
}
