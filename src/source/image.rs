//! A memory image with a made boot: what tests are asked of, and what files will be.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use kd_protocol::kd::StateChange;
use kd_protocol::link::{RequestError, RunState};

use super::boot::{BootId, KernelVersion};
use super::seam::{Source, SourceMemory};
use crate::memory::{Memory, PageTables, PhysAddr, ReadCause, ReadError, StopId, StoppedCpu, VirtAddr};

/// Memory that stands still for ever, with the boot and the stop that it was made with.
#[derive(Debug)]
pub struct ImageSource {
    name: String,
    memory: Arc<StandingStill>,
    version: KernelVersion,
    stop: Box<StateChange>,
}

/// An image's bytes, and the registers that were kept with it.
struct StandingStill {
    memory: Box<dyn Memory>,
    context: Option<Vec<u8>>,
}

impl ImageSource {
    /// A source called `name`, of whose kernel `version` is known, and which was stopped as `stop` says. `context` is the
    /// `CONTEXT` of the CPU that stopped, as its kernel lays it out, if there is one.
    pub fn new(
        name: impl Into<String>,
        memory: impl Memory + 'static,
        version: KernelVersion,
        stop: StateChange,
        context: Option<Vec<u8>>,
    ) -> Self {
        let memory = Arc::new(StandingStill { memory: Box::new(memory), context });
        Self { name: name.into(), memory, version, stop: Box::new(stop) }
    }
}

impl Source for ImageSource {
    fn place(&self) -> String {
        self.name.clone()
    }

    fn boot(&self) -> BootId {
        BootId(1)
    }

    fn version(&self) -> Result<KernelVersion, RequestError> {
        Ok(self.version)
    }

    fn memory(&self) -> Arc<dyn SourceMemory> {
        Arc::clone(&self.memory) as Arc<dyn SourceMemory>
    }

    fn run_state(&self) -> RunState {
        RunState::Stopped
    }

    fn stop(&self) -> StopId {
        self.memory.stop()
    }

    fn stopped(&self) -> Option<Box<StateChange>> {
        Some(self.stop.clone())
    }
}

impl SourceMemory for StandingStill {}

impl Memory for StandingStill {
    fn read_virtual(&self, address: VirtAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        self.memory.read_virtual(address, buf)
    }

    fn read_physical(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        self.memory.read_physical(address, buf)
    }

    fn search_virtual(&self, range: Range<VirtAddr>, pattern: &[u8]) -> Result<Option<VirtAddr>, ReadError> {
        self.memory.search_virtual(range, pattern)
    }

    fn page_tables(&self) -> Result<PageTables, ReadCause> {
        self.memory.page_tables()
    }

    fn ram(&self) -> Option<Vec<Range<u64>>> {
        self.memory.ram()
    }

    fn request_len(&self) -> usize {
        self.memory.request_len()
    }

    fn stop(&self) -> StopId {
        self.memory.stop()
    }
}

impl StoppedCpu for StandingStill {
    fn context(&self) -> Result<Vec<u8>, ReadCause> {
        self.context.clone().ok_or(ReadCause::Unsupported("the CPU's context"))
    }
}

impl fmt::Debug for StandingStill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StandingStill").finish_non_exhaustive()
    }
}
