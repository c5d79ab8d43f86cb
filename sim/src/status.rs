//! What a simulated machine's owner can ask at any time, from any thread.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::windows::PoolHit;

/// What a simulated machine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MachineState {
    /// Its processors run.
    Running,
    /// They stand still until its debugger has acknowledged what it prints, or has not for too long.
    Printing,
    /// It is stopped: it waits for its debugger's requests, whether or not there is one.
    Stopped,
    /// It waits for the answer to a prompt.
    WaitingAtPrompt,
    /// Its virtual machine is paused.
    Suspended,
    /// It is switched off.
    Off,
}

/// Counters and state at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) state: MachineState,
    pub(super) boot: u64,
    pub(super) stops: u64,
    pub(super) resumes: u64,
    pub(super) requests: u64,
    pub(super) written: u64,
    pub(super) answers: Vec<String>,
    /// Stops at blocks of a tag.
    pub(super) pool_hits: Vec<PoolHit>,
    /// The tag whose blocks it stops at.
    pub(super) pool_hit_tag: Option<[u8; 4]>,
    /// Breakpoints of its debugger's.
    pub(super) breakpoints: usize,
    /// Debug registers that watch.
    pub(super) debug_registers: usize,
    /// Since when it has been stopped.
    pub(super) stopped_at: Option<Instant>,
    /// How long it stood still in the longest stop that is over.
    pub(super) longest_stop: Duration,
}

impl Snapshot {
    /// It stops for its debugger.
    pub(super) fn stop(&mut self, now: Instant) {
        self.stops += 1;
        self.stopped_at.get_or_insert(now);
    }

    /// Such a stop ends.
    pub(super) fn resume(&mut self, now: Instant) {
        self.resumes += 1;
        if let Some(at) = self.stopped_at.take() {
            self.longest_stop = self.longest_stop.max(now.saturating_duration_since(at));
        }
    }
}

/// The first boot, of which nothing is known yet.
impl Default for Snapshot {
    fn default() -> Self {
        Self {
            state: MachineState::Running,
            boot: 1,
            stops: 0,
            resumes: 0,
            requests: 0,
            written: 0,
            answers: Vec::new(),
            pool_hits: Vec::new(),
            pool_hit_tag: None,
            breakpoints: 0,
            debug_registers: 0,
            stopped_at: None,
            longest_stop: Duration::ZERO,
        }
    }
}

/// The machine's thread writes it, everybody else reads it or waits for it.
#[derive(Debug, Default)]
pub(super) struct Status {
    snapshot: Mutex<Snapshot>,
    changed: Condvar,
}

impl Status {
    pub(super) fn publish(&self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&Snapshot) -> T) -> T {
        read(&self.lock())
    }

    /// Waits until it is as `wanted` says; false if it is not within `timeout`.
    pub(super) fn wait(&self, timeout: Duration, wanted: impl Fn(&Snapshot) -> bool) -> bool {
        let until = Instant::now() + timeout;
        let mut snapshot = self.lock();
        loop {
            if wanted(&snapshot) {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(snapshot, left);
            snapshot = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A panic of the machine's thread does not make what it has published wrong.
    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
