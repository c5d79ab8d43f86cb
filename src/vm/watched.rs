//! Reads that end when the machine has stood still for as long as it may, or when somebody wants it.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::config::Attention;
use crate::memory::{PhysAddr, PhysicalMemory, ReadCause};

/// When the present pause has to end, if it has to.
pub(super) type Deadline = Arc<Mutex<Option<Instant>>>;

/// RAM that is read only as long as that is wanted: a walk or a search may be long.
pub(super) struct Watched {
    pub(super) physical: Arc<dyn PhysicalMemory>,
    pub(super) deadline: Deadline,
    pub(super) attention: Arc<dyn Attention>,
}

impl PhysicalMemory for Watched {
    fn read(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), (usize, ReadCause)> {
        if self.attention.is_interrupted() {
            return Err((0, ReadCause::Interrupted));
        }
        let deadline = *self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err((0, ReadCause::FreezeBudget));
        }
        self.physical.read(address, buf)
    }

    fn ranges(&self) -> Vec<Range<u64>> {
        self.physical.ranges()
    }

    fn next_written(&self, address: PhysAddr) -> PhysAddr {
        self.physical.next_written(address)
    }

    fn end(&self) -> PhysAddr {
        self.physical.end()
    }
}
