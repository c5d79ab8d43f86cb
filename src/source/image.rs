//! A memory image with a made boot: what tests are asked of, and what files will be.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use kd_protocol::kd::StateChange;
use kd_protocol::link::{RequestError, RunState};

use super::boot::{BootId, KernelVersion};
use super::seam::{Source, SourceMemory};
use crate::memory::{
    Memory, Noted, PageTables, PhysAddr, ReadCause, ReadError, StopId, StoppedCpu, VirtAddr,
};

/// Memory that stands still for ever, with the boot and the stop that it was made with.
#[derive(Debug)]
pub struct ImageSource {
    name: String,
    memory: Arc<StandingStill>,
    version: KernelVersion,
    stop: Box<StateChange>,
}

/// An image's bytes, and what was kept with them.
struct StandingStill {
    memory: Box<dyn Memory>,
    /// The processor that stopped, and its `CONTEXT`.
    processor: u16,
    context: Option<Vec<u8>>,
    /// That of each by its number, where that is known.
    others: Vec<Vec<u8>>,
    noted: Noted,
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
        Self::with_noted(name, memory, version, stop, context, Noted::default())
    }

    /// The same with what was written down with the stop.
    pub fn with_noted(
        name: impl Into<String>,
        memory: impl Memory + 'static,
        version: KernelVersion,
        stop: StateChange,
        context: Option<Vec<u8>>,
        noted: Noted,
    ) -> Self {
        let memory = StandingStill {
            memory: Box::new(memory),
            processor: stop.processor,
            context,
            others: Vec::new(),
            noted,
        };
        Self { name: name.into(), memory: Arc::new(memory), version, stop: Box::new(stop) }
    }

    /// The same with the `CONTEXT` of every processor, by its number.
    #[must_use]
    pub fn with_contexts(mut self, contexts: Vec<Vec<u8>>) -> Self {
        if let Some(memory) = Arc::get_mut(&mut self.memory) {
            memory.others = contexts;
        }
        self
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

    fn context_of(&self, processor: u16) -> Result<Vec<u8>, ReadCause> {
        if processor == self.processor {
            return self.context();
        }
        let context = self.others.get(usize::from(processor)).cloned();
        context.ok_or(ReadCause::Unsupported("the context of another processor"))
    }

    fn is_kept(&self) -> bool {
        true
    }

    fn noted(&self) -> Noted {
        self.noted
    }
}

impl fmt::Debug for StandingStill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StandingStill").finish_non_exhaustive()
    }
}
