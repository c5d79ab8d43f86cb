//! verikd: an open kernel-debug client for Windows targets.

pub mod memory;
pub mod session;
