//! Harm: whatever goes wrong, a machine that was stopped runs again, or the user is told loudly; and nothing that was not
//! read is told as a fact. Every test here ends by asking the machine.
#![cfg(unix)]

mod accesses;
mod breakpoints;
mod field;
mod golden;
mod hits;
mod matrix;
#[path = "../support/ports.rs"]
mod ports;
#[path = "../support/program.rs"]
mod program;
mod prompt;
mod soak;
mod stranger;
mod terminal;
mod ways_out;
