//! Whole sessions of the real program, over KDNET and over serial lines, with every quirk and in every scenario of the simulated
//! machine, and with the 32-bit one: attach, look, let run, break in again, look, leave. Each command prints what a machine
//! without a wire in between prints, or says what could not be had; the exit code fits; and the machine, which is asked
//! itself, runs at the end.
#![cfg(unix)]

#[path = "../harm/field.rs"]
#[allow(dead_code, reason = "each test program has its own copy and uses a part of it")]
mod field;
mod play;
#[path = "../support/ports.rs"]
mod ports;
mod quirks;
mod scenarios;
#[path = "../support/mod.rs"]
mod support;
mod trials;
mod x86;
