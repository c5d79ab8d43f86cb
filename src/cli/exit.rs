//! Exit codes, and what is said with them.

use std::io::{self, Write};

/// Something failed.
pub(super) const FAILED: u8 = 1;
/// The command line was not understood; clap's own code too.
pub(super) const USAGE: u8 = 2;
/// An answer has gaps.
pub(super) const GAPS: u8 = 3;

/// Says what failed; the exit code for it.
pub(super) fn fail(error: &dyn std::fmt::Display) -> u8 {
    // Where even standard error is closed, the exit code still tells.
    let _ = writeln!(io::stderr(), "verikd: {error}");
    FAILED
}
