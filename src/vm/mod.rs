//! Virtual machines as targets, without a debug boot: QEMU's monitor stops one and says what its processors hold, its RAM is
//! read from outside.
//!
//! ```text
//!  a question begins --> stop, if it runs --> its RAM: a shared file | the process's memory | the monitor, page by page
//!                                               |
//!                    page tables of a processor, the kernel behind them, checked (physical)
//!  a question ends ----> cont, if we stopped it
//! ```
//! A machine stands still only while it is read. One that somebody else has paused stays paused. Whoever ends, fails or is
//! told to end lets it run first; only a kill of this program (SIGKILL) leaves it stopped, and `cont` in its monitor helps.
//!
//! Source: docs/vm.md.

mod config;
mod error;
mod layout;
mod monitor;
mod place;
mod qmp;
mod ram;
mod registers;
mod source;
mod standing;
mod stream;
mod watched;

pub use config::{Attention, VmConfig};
pub use error::VmError;
pub use place::VmPlace;
pub use source::VmSource;
