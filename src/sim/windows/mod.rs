//! Simulated Windows: a machine that stands still or runs as its owner says, with a kernel a debugger can look into.
//!
//! ```text
//!  7sp1/types.toml ----.
//!  7sp1/nt.toml, ...  --+--> package `verikd-images` --> 7sp1/images/ntoskrnl.exe + ntkrnlmp.pdb, ...
//!                       |                                  |
//!                       `--> kernel (structures by name) <-'
//!                              ^
//!   modules, processors, processes, globals, debugger_data, verifier, pool_log, leak: one subject each
//!                              ^
//!                           Machine
//! ```
//! Each Windows build is one directory of layout files. The images made from them are committed beside them and are part
//! of the program, so nothing has to be built or fetched to run the simulation.

mod debugger_data;
mod globals;
mod images;
mod kernel;
pub mod layout;
mod leak;
mod machine;
mod modules;
mod pool_log;
mod processes;
mod processors;
mod verifier;

pub use debugger_data::Version;
pub use images::{Build, Image, WINDOWS_7_SP1};
pub use machine::Machine;
pub use processors::Processor;
