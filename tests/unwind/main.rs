//! Stacks of x64 code: against the truth, against another unwinder, against nonsense.

mod image;
mod native;
mod nonsense;
mod oracle;
mod simulated;
#[path = "../support/mod.rs"]
mod support;
