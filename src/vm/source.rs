//! A virtual machine as a source, and as the control over it.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kd_protocol::kd::{DebugIo, StateChange};
use kd_protocol::link::{LinkCounters, RequestError, RunState};

use super::config::VmConfig;
use super::error::VmError;
use super::place::VmPlace;
use super::ram::Road;
use super::standing::Machine;
use crate::memory::{
    Address, Memory, PageTables, PhysAddr, ReadCause, ReadError, StopId, StoppedCpu, VirtAddr,
};
use crate::source::{
    BootId, BreakInError, Control, Halt, KernelVersion, Resumed, Source, SourceMemory, Step, Wait,
};

/// How often a machine that runs is looked at, whether it has stopped.
const LOOK: Duration = Duration::from_millis(100);
/// Bytes of a page.
const PAGE: usize = 0x1000;

/// A virtual machine that is paused while it is read.
///
/// To whoever asks it is stopped from a break-in to the next `g`; its processors run between the questions. Each question
/// reads one pause; what two questions read may be of two moments.
pub struct VmSource {
    memory: Arc<VmMemory>,
    step: Mutex<Step>,
    /// What was opened, for a person.
    what: String,
}

/// Its memory.
struct VmMemory {
    machine: Machine,
    /// Why the machine could not be asked, since the last look.
    failure: Mutex<Option<ReadCause>>,
}

impl VmSource {
    /// What lets a machine run whose monitor has not confirmed that it does.
    pub const LAST_RESORT: &'static str = "tell its monitor cont (virsh resume, or cont at QEMU's own prompt); a machine that is off needs nothing";

    /// Connects to the monitor at `place`, pauses the machine, finds its kernel, and lets it run on.
    ///
    /// # Errors
    /// [`VmError`].
    pub fn open(place: VmPlace, config: VmConfig) -> Result<Self, VmError> {
        let machine = Machine::open(place, config)?;
        let (is_running, status) =
            machine.monitor().is_running().map_err(super::monitor::of("query-status"))?;
        let found = machine.find();
        let described = found.and_then(|kernel| Ok((kernel, machine.describe().map_err(VmError::Read)?)));
        machine.rest();
        let (kernel, change) = described.map_err(|error| match machine.let_go() {
            None => error,
            Some(why) => VmError::MayBeStopped { error: error.into(), why },
        })?;
        let state = if is_running {
            "it runs, and is paused only while it is read".into()
        } else {
            format!("it does not run ({status}), and is left so")
        };
        let count = change.number_processors;
        let what = format!(
            "virtual machine of QEMU {}, {count} processor{}, its RAM read from {}; {state}",
            machine.monitor().qmp.version(),
            if count == 1 { "" } else { "s" },
            kernel.road
        );
        let memory = Arc::new(VmMemory { machine, failure: Mutex::new(None) });
        Ok(Self { memory, step: Mutex::new(Step::Idle), what })
    }

    /// What was opened, in words.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    fn machine(&self) -> &Machine {
        &self.memory.machine
    }
}

impl fmt::Debug for VmSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VmSource").field("place", &self.machine().place).finish_non_exhaustive()
    }
}

impl Source for VmSource {
    fn place(&self) -> String {
        self.machine().place.to_string()
    }

    fn boot(&self) -> BootId {
        BootId(self.machine().boot())
    }

    fn version(&self) -> Result<KernelVersion, RequestError> {
        let found = self.machine().find();
        // A machine that is starting has no kernel yet.
        found.map(|kernel| kernel.found.version).map_err(|_| RequestError::NotConnected)
    }

    fn memory(&self) -> Arc<dyn SourceMemory> {
        Arc::clone(&self.memory) as Arc<dyn SourceMemory>
    }

    fn run_state(&self) -> RunState {
        if self.machine().is_let_go() { RunState::Running } else { RunState::Stopped }
    }

    /// Of a break-in: the pauses of its questions are [`Memory::stop`]'s.
    fn stop(&self) -> StopId {
        StopId(1)
    }

    fn stopped(&self) -> Option<Box<StateChange>> {
        if self.machine().is_let_go() { None } else { self.machine().change() }
    }

    fn control(&self) -> Option<&dyn Control> {
        Some(self)
    }

    fn rest(&self) {
        self.machine().rest();
    }

    fn counters(&self) -> LinkCounters {
        let counters = self.machine().monitor().qmp.counters();
        LinkCounters {
            requests: counters.commands,
            bytes_sent: counters.sent,
            bytes_received: counters.received,
            ..LinkCounters::default()
        }
    }

    fn stopped_for(&self) -> Duration {
        self.machine().held_for()
    }

    fn frozen(&self) -> Duration {
        self.machine().frozen()
    }
}

impl Control for VmSource {
    fn request_break_in(&self) {
        self.machine().want_stopped();
    }

    fn cancel_break_in(&self) {
        self.machine().let_go();
    }

    fn is_break_in(&self) -> bool {
        self.machine().is_held_by_us()
    }

    fn gave_up_break_in(&self, wait: Wait<()>, after: Duration) -> BreakInError {
        self.cancel_break_in();
        match wait {
            Wait::Ended(why) => BreakInError::Ended(why),
            Wait::TimedOut => {
                BreakInError::NoReaction { place: self.place(), after, last_heard: self.last_heard() }
            }
            Wait::Done(()) | Wait::Interrupted => BreakInError::Interrupted,
        }
    }

    fn wait_for_halt(&self, boot: Option<BootId>, deadline: Option<Instant>) -> Wait<Halt> {
        let stops = self.machine().monitor().qmp.stops();
        loop {
            if boot.is_some_and(|boot| boot != self.boot()) {
                return Wait::Done(Halt::Restarted);
            }
            if !self.machine().is_let_go() {
                return match self.machine().describe() {
                    Ok(change) => Wait::Done(Halt::Stopped(change)),
                    // Its kernel is found anew by whoever asks which it is.
                    Err(ReadCause::TargetRestarted) => match self.machine().describe() {
                        Ok(change) => Wait::Done(Halt::Stopped(change)),
                        Err(cause) => ended(&cause),
                    },
                    Err(cause) => ended(&cause),
                };
            }
            if self.machine().config.attention.take_interrupt() {
                return Wait::Interrupted;
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Wait::TimedOut;
            }
            let mut monitor = self.machine().monitor();
            if let Err(error) = monitor.qmp.listen(LOOK) {
                return Wait::Ended(error.to_string());
            }
            // Somebody else, or its own end, has stopped it: that is worth a look.
            let has_stopped = monitor.qmp.stops() != stops;
            drop(monitor);
            if has_stopped {
                self.machine().want_stopped();
            }
        }
    }

    fn deadline_after(&self, time: Duration) -> Instant {
        Instant::now() + time
    }

    fn begin(&self, step: Step) {
        *self.step.lock().unwrap_or_else(PoisonError::into_inner) = step;
    }

    fn step(&self) -> Step {
        self.step.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn prompt(&self) -> Option<DebugIo> {
        None
    }

    fn waits_at_prompt(&self) -> bool {
        false
    }

    fn answer_prompt(&self, _: DebugIo, _: Bytes) {}

    fn go(&self) -> Resumed {
        match self.machine().let_go() {
            None => Resumed::Running,
            Some(why) => Resumed::MayBeStopped(why),
        }
    }

    fn leave(&self) -> Resumed {
        self.go()
    }

    /// Whoever attaches to a machine that is paused leaves it so.
    fn last_resort(&self) -> &'static str {
        Self::LAST_RESORT
    }

    fn hurry(&self) {}

    fn reboot(&self) -> Result<(), RequestError> {
        // STATUS_NOT_SUPPORTED: Windows was not booted for it, and a reset from outside is its monitor's.
        Err(RequestError::Refused { status: kd_protocol::kd::NtStatus(0xc000_00bb) })
    }

    fn lost(&self) -> Option<RequestError> {
        None
    }

    fn try_again(&self) {}

    fn last_heard(&self) -> String {
        "not known: its monitor is asked, it says nothing by itself".into()
    }

    fn line_is_gone(&self) -> Option<String> {
        self.machine().monitor().qmp.gone()
    }
}

fn ended<T>(cause: &ReadCause) -> Wait<T> {
    match cause {
        // Whoever waits is told by it.
        ReadCause::Interrupted => Wait::Interrupted,
        other => Wait::Ended(other.to_string()),
    }
}

impl VmMemory {
    fn failed(&self, cause: ReadCause) -> ReadCause {
        if cause.is_of_link() {
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| cause.clone());
        }
        cause
    }

    /// Reads of one pause.
    fn read<T>(
        &self,
        address: Address,
        wanted: usize,
        read: impl FnOnce(&dyn Memory) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let result = self.machine.read(|kernel| read(&kernel.found.memory));
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(ReadError { cause: self.failed(error.cause), ..error }),
            Err(cause) => Err(ReadError { address, wanted, got: 0, cause: self.failed(cause) }),
        }
    }
}

impl SourceMemory for VmMemory {
    fn take_failure(&self) -> Option<ReadCause> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure.or_else(|| self.machine.has_stood_still().err())
    }
}

impl Memory for VmMemory {
    fn read_virtual(&self, address: VirtAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        self.read(Address::Virtual(address), buf.len(), |memory| memory.read_virtual(address, buf))
    }

    fn read_physical(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        self.read(Address::Physical(address), buf.len(), |memory| memory.read_physical(address, buf))
    }

    fn search_virtual(&self, range: Range<VirtAddr>, pattern: &[u8]) -> Result<Option<VirtAddr>, ReadError> {
        let start = range.start;
        self.read(Address::Virtual(start), pattern.len(), |memory| memory.search_virtual(range, pattern))
    }

    fn page_tables(&self) -> Result<PageTables, ReadCause> {
        self.machine.read(|kernel| kernel.found.memory.page_tables())?
    }

    fn ram(&self) -> Option<Vec<Range<u64>>> {
        Some(self.machine.ram())
    }

    /// What costs a command costs it for a page.
    fn request_len(&self) -> usize {
        match self.machine.road() {
            Some(Road::Monitor) => PAGE,
            _ => 0,
        }
    }

    fn stop(&self) -> StopId {
        StopId(self.machine.questions())
    }
}

impl StoppedCpu for VmMemory {
    fn context(&self) -> Result<Vec<u8>, ReadCause> {
        self.context_of(0)
    }

    fn context_of(&self, processor: u16) -> Result<Vec<u8>, ReadCause> {
        let cpu = self.machine.processor(processor.into()).map_err(|cause| self.failed(cause))?;
        let machine = self.machine.read(|kernel| kernel.found.version.machine);
        let machine = machine.map_err(|cause| self.failed(cause))?;
        cpu.map(|cpu| cpu.context(machine)).ok_or(ReadCause::Unsupported("a processor of that number"))
    }
}

impl fmt::Debug for VmMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VmMemory").field("place", &self.machine.place).finish_non_exhaustive()
    }
}
