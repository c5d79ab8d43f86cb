//! Simulated Windows: a machine that stands still or runs as its owner says, with a kernel a debugger can look into.
//!
//! ```text
//!  11-24h2/types.toml, nt.toml  <- common/, 7sp1/
//!     |--> package `verikd-images` --> 11-24h2/images/ntoskrnl.exe + ntkrnlmp.pdb
//!     `--> kernel (structures by name) <--'      ^ 11-24h2/release.toml
//!            ^
//!   modules, processors, processes, globals, debugger_data, verifier, pool, pool_log: one subject each
//!            ^
//!   leak, flood, special_pool, traces, damage: what drivers did with it
//!            ^
//!   furnish --> machine <-- stops: where and why it stops by itself --> calls: what is on a stack then
//!      ^           `--> system: a machine of either width <-- x86: Windows XP with PAE
//!   scenario, growth, verified: what is to be on it; known to all of these
//! ```
//! Each Windows build is one directory of layout files; what builds have in common they share. The images made from them
//! are committed beside them and are part of the program, so nothing has to be built or fetched to run the simulation.
//!
//! Nothing here asks for a build's number to decide what to write: it asks the layouts whether a structure, a field or a
//! symbol is there.

mod breathing;
mod calls;
mod damage;
mod debug_registers;
mod debugger_data;
mod flood;
mod furnish;
mod further;
mod globals;
mod growth;
mod headers;
mod images;
mod kernel;
pub mod layout;
mod leak;
mod ledger;
mod machine;
mod modules;
mod passing;
mod place;
mod pool;
mod pool_account;
mod pool_log;
mod processes;
mod processors;
mod scenario;
mod segments;
mod special_pool;
mod stepping;
mod stops;
mod system;
mod time;
mod traces;
mod verified;
mod verifier;
mod x86;

pub use debugger_data::Version;
pub use growth::Growth;
pub use images::{BUILDS, Build, FILTER_DRIVERS, Image, WINDOWS_7_SP1, WINDOWS_XP_X86};
pub use ledger::Outstanding;
pub use machine::{Machine, Met};
pub use place::CallFrame;
pub use pool::hit::PoolHit;
pub use pool_account::{Pool, PoolBlock, PoolUse, TagUse};
pub use processors::Processor;
pub use scenario::{NoScenario, NotOnBuild, Scenario};
pub use stops::{Chance, Stop};
pub use system::System;
pub use x86::X86Machine;
