//! A simulated target: what a machine being debugged holds, without the machine.
//!
//! ```text
//!  windows/   layout files --> images, kernel structures, processors, Driver Verifier's records   (what is there)
//!  paging     real x64 page tables                                                                (where it is)
//!  physical   sparse RAM                                                                          (what it is kept in)
//! ```
//! The simulator shares no shortcut with the client: it lays structures out from its own layout files, writes real page
//! tables, and answers reads of bytes. Whatever the client learns, it has to read. It does no I/O and has no clock and no
//! randomness: a machine's state is a function of what was done to it.

mod paging;
mod physical;
pub mod windows;
