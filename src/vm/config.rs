//! What bounds the reading of a machine.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Whether somebody wants what goes on to end: Ctrl+C, the program's end.
pub trait Attention: Send + Sync {
    /// True once somebody wants it.
    fn is_interrupted(&self) -> bool;

    /// The same, and a Ctrl+C is forgotten thereby: it has ended something.
    fn take_interrupt(&self) -> bool;
}

/// What bounds the reading of a machine.
#[derive(Clone)]
pub struct VmConfig {
    /// An answer of the monitor is waited for this long.
    pub command_timeout: Duration,
    /// One question may keep the machine standing still for this long; reads fail afterwards, and it runs.
    pub freeze_budget: Option<Duration>,
    /// The root of the kernel's page tables, if no processor says it.
    pub dtb: Option<u64>,
    /// Who is heeded.
    pub attention: Arc<dyn Attention>,
}

impl fmt::Debug for VmConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VmConfig")
            .field("command_timeout", &self.command_timeout)
            .field("freeze_budget", &self.freeze_budget)
            .field("dtb", &self.dtb)
            .finish_non_exhaustive()
    }
}
