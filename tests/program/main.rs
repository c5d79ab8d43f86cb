//! The program as a process, and what it is made of, before simulated targets over real sockets.

mod capture;
mod check;
mod committed;
mod completions;
mod doctor;
mod end_to_end;
mod exit_codes;
mod hits;
#[path = "../support/junk.rs"]
mod junk;
mod keys;
mod leaks;
mod metrics;
mod picture;
mod pool;
#[path = "../support/ports.rs"]
mod ports;
#[path = "../support/program.rs"]
mod program;
mod reflexes;
#[path = "../support/reviewed.rs"]
mod reviewed;
mod run;
mod schemas;
mod scripts;
mod serial;
mod short_stops;
mod simulator;
mod trace;
mod transcripts;
mod writing;
