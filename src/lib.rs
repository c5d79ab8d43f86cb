//! verikd: an open kernel-debug client for Windows targets. This page is the architecture.
//!
//! A UDP datagram, or a piece of a serial line's bytes, climbs the `kd-protocol` crate (datagram or frame, KD packet, link
//! event), is handed up by [`session`] (the only owner of the debugger's socket, line, clock and tasks) as bytes of remote [`memory`], gets names and types from [`symbols`],
//! becomes a kernel structure in [`target`], an answer (plain data) in [`commands`], asked by the [`debugger`], which knows
//! whose stop and whose boot it is of, and text or JSON in [`shell`]. Each layer is entered once on the way down and once on
//! the way up. Whatever a target is reached by is a [`source`]: a session is one, a memory image another; neither the debugger
//! nor a query can tell the difference.
//!
//! ```text
//! main (cli) --> shell --> debugger --> commands --> target --> memory   (leaf)
//!   |    |         |          |            |            |-----> unwind   (leaf: from a frame's registers to its caller's)
//!   |    |         |          |            |            |-----> symbols --> output
//!   |    |         |          |            `------------`-----> output   (leaf: how text of the target's is shown; whole files)
//!   |    |         |          `--> source --> memory
//!   |    |         |--> plan --> session, commands (what is to happen when: read and checked; the shell carries it out)
//!   |    |         |--> check --> leaks (is what drivers hold more than they may? a gate)
//!   |    |         `--> session --> source (implements Source, Control), memory (implements Memory)
//!   |    |                 `----> kd-protocol (leaf crate; VirtAddr, PhysAddr come from it)
//!   |    |----> doctor --> session
//!   |    |----> dump --> physical --> source, memory (a file as a target: its pages, the kernel in them; written by a command)
//!   |    |----> vm --> physical, source, memory (a virtual machine as a target)
//!   |    |----> sim (crate) --> kd-protocol
//!   |    |----> metrics --> leaks (a watch's figures, served to Prometheus)
//!   |    `----> trace --> session (is tapped), capture (the file)
//!   `---------> capture --> kd-protocol
//! session, capture --> key (leaf: where a KDNET key comes from)
//!
//! inside kd-protocol:   link --> kd --> wire <-- kdnet <-- link
//!                       link --> kdcom --> kd
//! beside it:            images --> sim; makes the simulated images and PDBs that are committed
//! ```
//! The simulated target is the crate `verikd-sim`: whatever the client learns of it goes over the wire.
//!
//! Words are WinDbg's and KD's: **target** = the machine being debugged; **host** = the machine running the debugger;
//! **offer / response / ping / rekey** = the KDNET control exchange; **break in, stop, resume**; **manipulate request** =
//! `DBGKD_MANIPULATE_STATE64`.
//!
//! What the seams keep:
//! - Status 0 with a short reply is the transport's limit: ask for the rest. `C0000001` is a hole, perhaps after some good
//!   bytes: those are [`ReadError::got`](memory::ReadError::got).
//! - Nothing but a break-in is sent to a running target: it would be lost. The link enforces it.
//! - A retransmission keeps its KD packet id and takes a new KDNET sequence.
//! - One unreadable field spoils that field, not the answer. Every walk is bounded and says how it ended.
//! - `has("field")` decides between layouts, never a version number.
//! - A request is of one stop of one boot: it never gets a reply from another, whoever stops the target next.
//! - Whoever stops a machine lets it run again, on every way out; silence is no proof that it runs, and where there is none,
//!   that is said. Nothing that a machine could be let run for waits for a key, a reader or a server.
//! - Queries are blocking loops, since KD keeps one request in flight; they hand whole ranges down.

#[cfg(feature = "capture")]
pub mod capture;
#[cfg(feature = "shell")]
pub mod check;
pub mod commands;
pub mod debugger;
pub mod doctor;
pub mod dump;
pub mod key;
pub mod leaks;
pub mod memory;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod output;
mod physical;
#[cfg(feature = "shell")]
pub mod plan;
pub mod session;
#[cfg(feature = "shell")]
pub mod shell;
pub mod source;
pub mod symbols;
pub mod target;
#[cfg(feature = "capture")]
pub mod trace;
pub mod unwind;
pub mod vm;
