//! verikd: an open kernel-debug client for Windows targets.

pub mod capture;
pub mod commands;
pub mod memory;
pub mod output;
pub mod session;
pub mod shell;
pub mod sim;
pub mod symbols;
pub mod target;
