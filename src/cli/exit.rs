//! Exit codes, and what is said with them.

use std::io::{self, Write};

/// Something failed.
pub(super) const FAILED: u8 = 1;
/// The command line was not understood; clap's own code too.
pub(super) const USAGE: u8 = 2;
/// An answer has gaps.
pub(super) const GAPS: u8 = 3;

/// What each exit code means, as README.md has it.
///
/// A debugger's script told of a machine that may stand still by 4, and of one that did not come by 1, before there were gates:
/// those keep their numbers. `check` and `run`, whose result a program judges, have numbers for them that mean nothing else.
pub(super) const CODES: [(&str, &str); 9] = [
    ("0", "all answered; `check`: passed"),
    ("1", "something failed; a target that did not connect, or was lost, except for `check` and `run`"),
    ("2", "a command, the command line or a plan was not understood; at the prompt a typo does not count"),
    ("3", "an answer has gaps; `check`: a count was not read"),
    (
        "4",
        "the target was stopped and has not said that it runs: it may stand still; `check`: a driver holds more than it may",
    ),
    ("5", "`check`, `run`: no target connected in time"),
    ("6", "`check`, `run`: the target was lost, or may stand still"),
    ("10 to 29", "what `doctor` has found"),
    (
        "128 + n",
        "signal n ended it: 130 Ctrl+C, 143 SIGTERM, 129 SIGHUP; 141: whoever read the answers has gone away",
    ),
];

/// The same for `--help`.
pub(super) fn help() -> String {
    let rows = CODES.iter().map(|(code, meaning)| format!("  {code:<9} {}\n", meaning.replace('`', "")));
    format!("Exit codes:\n{}", rows.collect::<String>())
}

/// Says what failed; the exit code for it.
pub(super) fn fail(error: &dyn std::fmt::Display) -> u8 {
    // Where even standard error is closed, the exit code still tells.
    let _ = writeln!(io::stderr(), "verikd: {error}");
    FAILED
}
