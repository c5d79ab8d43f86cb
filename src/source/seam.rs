//! What every source gives its readers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kd_protocol::kd::StateChange;
use kd_protocol::link::{LinkCounters, RequestError, RunState};

use super::boot::{BootId, KernelVersion};
use super::control::Control;
use crate::memory::{Changeable, Memory, ReadCause, StopId, StoppedCpu};

/// A target, wherever it is.
pub trait Source: fmt::Debug + Send + Sync {
    /// Where it is, as a person calls it: an address, a line's name, a file.
    fn place(&self) -> String;

    /// Its present boot: what was read in one is nothing in another.
    fn boot(&self) -> BootId;

    /// Who it is, in its present boot.
    ///
    /// # Errors
    /// [`RequestError`] of a live target that does not say. A file has said so when it was opened.
    fn version(&self) -> Result<KernelVersion, RequestError>;

    /// Its memory.
    fn memory(&self) -> Arc<dyn SourceMemory>;

    /// Whether it runs: what runs can't be read.
    fn run_state(&self) -> RunState;

    /// The newest stop.
    fn stop(&self) -> StopId;

    /// Where and why it is stopped, if it is.
    fn stopped(&self) -> Option<Box<StateChange>>;

    /// What it takes to make it run and stop; nothing for one that never runs.
    fn control(&self) -> Option<&dyn Control> {
        None
    }

    /// Nobody asks for a while: a machine that stands still only while it is read runs on.
    fn rest(&self) {}

    /// What crossed the link; nothing where there is none.
    fn counters(&self) -> LinkCounters {
        LinkCounters::default()
    }

    /// How long the present stop has taken so far; nothing while the machine runs, or where none stands still.
    fn stopped_for(&self) -> Duration {
        Duration::ZERO
    }

    /// How long a machine has stood still for this, over all stops.
    fn frozen(&self) -> Duration {
        Duration::ZERO
    }
}

/// The memory of a [`Source`], and the CPU that reported its stop.
pub trait SourceMemory: Memory + StoppedCpu + fmt::Debug {
    /// Reads nothing but this stop from now on: a read after it is over fails, also if the target is stopped again.
    fn pin(&self, _stop: StopId) {}

    /// Why the target could not be asked since the last call, if it could not: a link's failures, not memory that is not
    /// there.
    fn take_failure(&self) -> Option<ReadCause> {
        None
    }

    /// What changes it; nothing where nothing is changed: a file, a machine that is only looked at.
    fn changeable(&self) -> Option<&dyn Changeable> {
        None
    }
}
