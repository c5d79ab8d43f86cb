//! What commands answer, asked in this process: of kernels that are written down here, and of simulated machines.

mod broken_link;
mod commands;
mod exports;
mod hostile_text;
mod memory;
mod old_kernel;
mod simulated;
#[path = "../support/mod.rs"]
mod support;
mod symbol_check;
mod target;
mod verifier;
