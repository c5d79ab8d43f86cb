//! A simulated target: what a machine being debugged holds, without the machine.
//!
//! ```text
//!  windows/   a build's layout files --> images, kernel structures, processors; a scenario: what
//!             drivers did, and Driver Verifier's records of it                                    (what is there)
//!  paging     real x64 page tables                                                                (where it is)
//!  physical   sparse RAM                                                                          (what it is kept in)
//!  kernel     manipulate requests --> answers                                                     (who is asked)
//!  network    loss, duplication, delay, damage, silence, seeded                                   (what lies between)
//!  target     machine, answers and link, with a clock: what is due when
//!  quirks     what others do unlike this Windows, one by one
//!  config     how it is to be run; order: what its owner can do to it; status: what its owner can ask; event: what it tells
//!  udp        all of it behind a UDP socket
//!  serial     all of it behind a serial line
//!  dump       its memory as a file: crash dumps, a core, an image
//!  server     one of the two on a thread of its own
//! ```
//! The simulator shares nothing with the client but the crate of the wire protocol: it lays structures out from its own
//! layout files, writes real page tables, and answers reads of bytes. Whatever the client learns, it has to read. But for
//! the last four, nothing here does I/O or has a clock or randomness: a machine's state is a function of what was done to it.

mod clock;
mod config;
mod dump;
mod error;
mod event;
mod export;
mod isf;
mod kernel;
mod network;
mod order;
mod paging;
mod physical;
mod quirks;
mod serial;
mod serial_port;
mod server;
mod status;
mod target;
mod udp;
pub mod windows;

pub use config::{SimulatorConfig, SimulatorLink};
pub use dump::{DumpKind, write_dump};
pub use error::SimulatorError;
pub use event::SimulatorEvent;
pub use export::{ExportError, export_isf, export_symbols};
pub use kernel::{Answer, Debuggee, Resumed};
pub use network::Faults;
pub use order::AtBoot;
pub use quirks::{NoQuirk, Quirk, Quirks};
pub use serial_port::SerialPort;
pub use server::Simulator;
pub use status::MachineState;

/// Waits until then; for ever if it never comes.
async fn sleep_until(at: Option<std::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
