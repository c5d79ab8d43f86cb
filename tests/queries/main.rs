//! What commands answer, asked in this process: of kernels that are written down here, and of simulated machines; the engine that
//! asks them, and the symbols that it fetches for it.

mod broken_link;
mod commands;
mod edges;
mod engine;
mod exports;
mod hostile_text;
mod instructions;
mod memory;
mod old_kernel;
mod options;
mod pool;
mod simulated;
#[path = "../support/mod.rs"]
mod support;
mod symbol_check;
mod symbol_server;
mod target;
mod verifier;
mod writing;
