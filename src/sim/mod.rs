//! A simulated target: what a machine being debugged holds, without the machine.
//!
//! ```text
//!  windows/   a build's layout files --> images, kernel structures, processors; a scenario: what
//!             drivers did, and Driver Verifier's records of it                                    (what is there)
//!  paging     real x64 page tables                                                                (where it is)
//!  physical   sparse RAM                                                                          (what it is kept in)
//!  kernel     manipulate requests --> answers                                                     (who is asked)
//!  network    loss, duplication, delay, damage, seeded                                            (what lies between)
//!  server     all of it behind a UDP socket, with a clock
//! ```
//! The simulator shares no shortcut with the client: it lays structures out from its own layout files, writes real page
//! tables, and answers reads of bytes. Whatever the client learns, it has to read. But for
//! `server`, nothing here does I/O or has a clock or randomness: a machine's state is a function of what was done to it.

mod export;
mod isf;
mod kernel;
mod network;
mod paging;
mod physical;
mod server;
pub mod windows;

pub use export::{ExportError, export_isf, export_symbols};
pub use kernel::{Answer, Debuggee};
pub use network::Faults;
pub use server::{Simulator, SimulatorConfig, SimulatorError, SimulatorEvent};
