//! `!poolhit`: who allocates and frees blocks with a tag, while it happens. No tracker and no verifier is needed for it.
//!
//! ```text
//!  nt!PoolHitTag = TAG --> g --> a processor stands at an int 3 in the pool's code --> its stack, size, thread --> g --> ..
//!                                                                                          `--> account --> report
//! ```
//! The debugger carries it out: this room says what a hit is, reads one, and sums them up. Source: docs/hits.md.

mod account;
mod hit;
mod options;
mod report;
mod text;

pub use account::{HitAccount, MOST_GROUPS};
pub use hit::{Hit, HitKind, HitStack, VARIABLE, is_break_in, is_pool_hit, kind_at, left_behind, read};
pub use options::HitOptions;
pub use report::{HitEnd, HitGroup, HitReport, StoodStill};

pub(in crate::commands) use options::COMMAND;
