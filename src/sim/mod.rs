//! A simulated target: what a machine being debugged holds, without the machine.
//!
//! The simulator shares no shortcut with the client: it lays structures out from its own layout files, writes real page
//! tables, and answers reads of bytes. Whatever the client learns, it has to read.

pub mod windows;
