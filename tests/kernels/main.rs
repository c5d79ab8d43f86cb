//! Kernels of many Windows builds: real ones by their symbol tables, simulated ones, and those that published answers are of.

mod builds;
#[cfg(unix)]
mod pool_layouts;
mod published;
mod real;
#[path = "../support/mod.rs"]
mod support;
