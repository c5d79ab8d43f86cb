//! Pauses: a machine stands still while a question reads it, and runs in between.
//!
//! ```text
//!   rests --- first read of a question: status, stop if it runs ---> held --- rest, leave, budget, an end ---> rests
//!                                                                    `-- cont, if we stopped it
//! ```

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kd_protocol::kd::StateChange;

use super::config::VmConfig;
use super::error::{QmpError, VmError};
use super::layout::RamRange;
use super::monitor::{Monitor, of};
use super::place::VmPlace;
use super::ram::{self, Road};
use super::watched::{Deadline, Watched};
use crate::memory::{Memory, PhysAddr, PhysicalMemory, ReadCause, VirtAddr};
use crate::physical::{self, Found, Processor};

/// A stop that nobody but us wants.
const BREAKPOINT: u32 = 0x8000_0003;

/// A virtual machine, and what is known of it.
pub(super) struct Machine {
    pub(super) place: VmPlace,
    pub(super) config: VmConfig,
    pub(super) monitor: Arc<Mutex<Monitor>>,
    ranges: Vec<RamRange>,
    deadline: Deadline,
    state: Mutex<State>,
}

/// The machine stands still.
struct Held {
    since: Instant,
    /// We stopped it, so that we let it run.
    is_ours: bool,
    /// How often it had been let run when the pause began.
    resumes: u64,
    processors: Vec<Processor>,
}

/// A kernel that was found, and how it is read.
pub(super) struct Kernel {
    pub(super) found: Found,
    pub(super) road: Road,
}

struct State {
    held: Option<Held>,
    /// How often the machine has rested: what was read in one question is nothing in another.
    questions: u64,
    /// Nobody wants it stopped: reads wait for a break-in.
    is_let_go: bool,
    /// The budget of this question is spent.
    is_spent: bool,
    /// Starts at 1.
    boot: u64,
    /// Resets that are accounted for.
    resets: u64,
    kernel: Option<Arc<Kernel>>,
    change: Option<Box<StateChange>>,
    frozen: Duration,
    /// Why it may stand still although nobody wants it to.
    doubt: Option<String>,
}

impl Machine {
    pub(super) fn open(place: VmPlace, config: VmConfig) -> Result<Self, VmError> {
        let mut monitor = Monitor::connect(&place, &config)?;
        // Of a machine of another kind nothing is stopped.
        monitor.processors()?;
        let ranges = monitor.ram()?;
        let state = State {
            held: None,
            questions: 1,
            is_let_go: false,
            is_spent: false,
            boot: 1,
            resets: monitor.qmp.resets(),
            kernel: None,
            change: None,
            frozen: Duration::ZERO,
            doubt: None,
        };
        let monitor = Arc::new(Mutex::new(monitor));
        Ok(Self { place, config, monitor, ranges, deadline: Deadline::default(), state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn monitor(&self) -> MutexGuard<'_, Monitor> {
        self.monitor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine stands still from here on, until it rests.
    fn hold<'a>(&self, state: &'a mut State) -> Result<&'a mut Held, ReadCause> {
        if state.is_let_go {
            return Err(ReadCause::TargetRunning);
        }
        if self.config.attention.is_interrupted() {
            return Err(ReadCause::Interrupted);
        }
        let budget = self.config.freeze_budget;
        if let Some(held) = &state.held
            && held.is_ours
            && budget.is_some_and(|budget| held.since.elapsed() >= budget)
        {
            self.release(state);
            state.is_spent = true;
        }
        if state.is_spent {
            return Err(ReadCause::FreezeBudget);
        }
        if state.held.is_none() {
            self.stop(state)?;
        }
        Ok(state.held.as_mut().expect("it was stopped, or stood still"))
    }

    fn stop(&self, state: &mut State) -> Result<(), ReadCause> {
        let mut monitor = self.monitor();
        let (is_running, _) = monitor.is_running()?;
        if is_running && let Err(error) = monitor.stop() {
            // It may be stopped, or will be: commands are carried out one after another.
            if let Err(cont) = monitor.cont() {
                state.doubt = Some(doubt(&cont));
            }
            return Err(error.into());
        }
        let since = Instant::now();
        let deadline = self.config.freeze_budget.filter(|_| is_running).map(|budget| since + budget);
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
        let (resets, resumes) = (monitor.qmp.resets(), monitor.qmp.resumes());
        state.held = Some(Held { since, is_ours: is_running, resumes, processors: Vec::new() });
        drop(monitor);
        let is_reset = resets != std::mem::replace(&mut state.resets, resets);
        let is_another = match &state.kernel {
            None => false,
            Some(kernel) => is_reset || !kernel.is_still_there()?,
        };
        if is_another {
            // What has gone away has no image there either.
            self.monitor().is_running()?;
            state.kernel = None;
            state.boot += 1;
            return Err(ReadCause::TargetRestarted);
        }
        Ok(())
    }

    /// Lets the machine run, if we stopped it.
    fn release(&self, state: &mut State) {
        let Some(held) = state.held.take() else { return };
        if held.is_ours {
            let cont = self.monitor().cont();
            state.frozen += held.since.elapsed();
            state.doubt = cont.err().map(|error| doubt(&error));
        }
    }

    /// The question is over.
    pub(super) fn rest(&self) {
        let mut state = self.state();
        self.release(&mut state);
        state.questions += 1;
        state.is_spent = false;
    }

    /// Fails if somebody else has let it run since this pause began: what was read then is of no one moment. Whether it
    /// stands still is somebody else's from then on.
    pub(super) fn has_stood_still(&self) -> Result<(), ReadCause> {
        let mut state = self.state();
        let Some(held) = &state.held else { return Ok(()) };
        let resumes = held.resumes;
        let mut monitor = self.monitor();
        // Events come before the answer that follows them.
        let (is_running, _) = monitor.is_running()?;
        let has_run = is_running || monitor.qmp.resumes() != resumes;
        drop(monitor);
        if !has_run {
            return Ok(());
        }
        if let Some(held) = state.held.take().filter(|held| held.is_ours) {
            state.frozen += held.since.elapsed();
        }
        state.questions += 1;
        Err(ReadCause::TargetRunning)
    }

    /// Nobody wants it stopped any more. Why it may stand still all the same, if it may.
    pub(super) fn let_go(&self) -> Option<String> {
        let mut state = self.state();
        self.release(&mut state);
        state.questions += 1;
        state.is_spent = false;
        state.is_let_go = true;
        // What was said once is tried once more: the monitor may answer again.
        if state.doubt.is_some() {
            let cont = self.monitor().cont();
            state.doubt = cont.err().map(|error| doubt(&error));
        }
        state.doubt.clone()
    }

    /// Somebody wants it stopped.
    pub(super) fn want_stopped(&self) {
        self.state().is_let_go = false;
    }

    pub(super) fn is_let_go(&self) -> bool {
        self.state().is_let_go
    }

    pub(super) fn questions(&self) -> u64 {
        self.state().questions
    }

    pub(super) fn boot(&self) -> u64 {
        self.state().boot
    }

    /// How long the present pause has taken so far.
    pub(super) fn held_for(&self) -> Duration {
        let state = self.state();
        state.held.as_ref().filter(|held| held.is_ours).map_or(Duration::ZERO, |held| held.since.elapsed())
    }

    /// False for a machine that somebody else has paused: it does not run when it is let go.
    pub(super) fn is_held_by_us(&self) -> bool {
        self.state().held.as_ref().is_none_or(|held| held.is_ours)
    }

    /// How long it has stood still for us.
    pub(super) fn frozen(&self) -> Duration {
        let state = self.state();
        let held = state.held.as_ref().filter(|held| held.is_ours);
        state.frozen + held.map_or(Duration::ZERO, |held| held.since.elapsed())
    }

    /// Where its RAM is.
    pub(super) fn ram(&self) -> Vec<Range<u64>> {
        self.ranges.iter().map(|range| range.at.clone()).collect()
    }

    /// How its RAM is read.
    pub(super) fn road(&self) -> Option<Road> {
        self.state().kernel.as_ref().map(|kernel| kernel.road.clone())
    }

    /// Where it was stopped last.
    pub(super) fn change(&self) -> Option<Box<StateChange>> {
        self.state().change.clone()
    }

    /// Reads with the machine standing still, and is of no use if it ran on meanwhile.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Kernel) -> T) -> Result<T, ReadCause> {
        let mut state = self.state();
        self.hold(&mut state)?;
        let (questions, kernel) = (state.questions, self.kernel(&mut state)?);
        drop(state);
        let result = read(&kernel);
        let state = self.state();
        if state.questions == questions && state.held.is_some() {
            Ok(result)
        } else {
            Err(ReadCause::TargetRunning)
        }
    }

    /// The registers of a processor, of this pause.
    pub(super) fn processor(&self, number: usize) -> Result<Option<Processor>, ReadCause> {
        let mut state = self.state();
        Ok(self.processors(&mut state)?.get(number).cloned())
    }

    fn processors<'a>(&self, state: &'a mut State) -> Result<&'a [Processor], ReadCause> {
        let held = self.hold(state)?;
        if held.processors.is_empty() {
            held.processors = self.monitor().processors().map_err(cause)?;
        }
        Ok(&held.processors)
    }

    /// Where it stands, as a live target would announce it.
    pub(super) fn describe(&self) -> Result<Box<StateChange>, ReadCause> {
        let mut state = self.state();
        let processors = self.processors(&mut state)?;
        let at = processors.first().map_or(0, |cpu| cpu.rip);
        let change = Box::new(physical::exception(BREAKPOINT, at, (0, processors.len() as u32)));
        state.change = Some(change.clone());
        Ok(change)
    }

    /// The kernel, looked for where none is known.
    pub(super) fn find(&self) -> Result<Arc<Kernel>, VmError> {
        let mut state = self.state();
        self.hold(&mut state).map_err(VmError::Read)?;
        if let Some(kernel) = &state.kernel {
            return Ok(Arc::clone(kernel));
        }
        let processors = self.processors(&mut state).map_err(VmError::Read)?.to_vec();
        let (roads, closed) =
            ram::roads(&self.monitor, &self.ranges).map_err(of("reading of where its RAM is"))?;
        let mut why = None;
        for ram in roads {
            let watched: Arc<dyn PhysicalMemory> = Arc::new(Watched {
                physical: Arc::clone(&ram.physical),
                deadline: Arc::clone(&self.deadline),
                attention: Arc::clone(&self.config.attention),
            });
            match physical::find(&watched, &processors, self.config.dtb) {
                Ok(found) if self.is_its_ram(&*watched, &found).map_err(of("xp"))? => {
                    let kernel = Arc::new(Kernel { found, road: ram.road });
                    state.kernel = Some(Arc::clone(&kernel));
                    return Ok(kernel);
                }
                // Another machine's file, or one that is not what the machine has.
                Ok(_) => {}
                Err(none) => {
                    let closed = if closed.is_empty() {
                        String::new()
                    } else {
                        format!(" (RAM: {})", closed.join("; "))
                    };
                    why = Some(format!("{none}{closed}"));
                }
            }
            if self.config.attention.is_interrupted() {
                return Err(VmError::Read(ReadCause::Interrupted));
            }
        }
        let Some(why) = why else { return Err(VmError::NoRam) };
        // Nothing is found in what has gone away.
        self.monitor().is_running().map_err(of("query-status"))?;
        Err(VmError::NoKernel(why))
    }

    fn kernel(&self, state: &mut State) -> Result<Arc<Kernel>, ReadCause> {
        // Found when the machine was opened, or by whoever asked which boot this is.
        state.kernel.clone().ok_or(ReadCause::TargetRestarted)
    }

    /// True if the monitor has the same in the page of the kernel's top table: what is read is what the machine has.
    fn is_its_ram(&self, physical: &dyn PhysicalMemory, found: &Found) -> Result<bool, QmpError> {
        let at = found.root & 0x000f_ffff_ffff_f000;
        let mut page = [0; super::monitor::PAGE];
        Ok(physical.read(PhysAddr(at), &mut page).is_ok() && self.monitor().page(at)? == page)
    }
}

impl Kernel {
    /// True if its image still begins where it did, through the same tables; not known if nothing can be read any more.
    fn is_still_there(&self) -> Result<bool, ReadCause> {
        self.found.memory.forget();
        match self.found.memory.read_virtual(self.base(), &mut [0; 2]) {
            Err(error) if error.cause.is_of_link() => Err(error.cause),
            _ => Ok(physical::is_image(&self.found.memory, self.base())),
        }
    }

    pub(super) const fn base(&self) -> VirtAddr {
        self.found.version.base
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.held.take().is_some_and(|held| held.is_ours) {
            let _ = self.monitor.lock().unwrap_or_else(PoisonError::into_inner).cont();
        }
    }
}

fn doubt(error: &QmpError) -> String {
    format!("its monitor did not confirm cont: {error}")
}

fn cause(error: VmError) -> ReadCause {
    match error {
        VmError::Command { source, .. } => source.into(),
        VmError::Read(cause) => cause,
        other => ReadCause::Monitor(other.to_string().into()),
    }
}
