//! The debugger: one source, its symbols, what is known of the present boot; a stop, a question, a going. An engine
//! without a terminal: front ends hold one, show what it says, and decide nothing.
//!
//! ```text
//!   break_in, identify --> the stop is described --> ask --> an answer, or why there is none
//!                                |                    |
//!                a boot's facts, read anew in a new boot: nothing of an old one is told as the new one's
//!                                |
//!   go, leave <------------------'    the target runs, or it is said that nobody knows
//! ```
//! Every question is pinned to the stop that it was asked in, or, where stops are to be short ([`ShortStops`]), to each of
//! its stops in turn. A target that restarts, or is let run by anybody else, in the middle of it answers it no more,
//! whoever stops it next.

mod answered;
mod breakpoints;
mod breathing;
mod changing;
mod cost;
mod error;
mod hits;
mod running;
mod step_off;
mod stop;
mod waiting;

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kd_protocol::kd::{DebugIo, StateChange};
use kd_protocol::link::{RequestError, RunState};

use crate::commands::pool::PoolTag;
use crate::commands::verifier::verified_images;
use crate::commands::{
    Answer, BugCheckQuery, Facts, Found, NoteKind, Query, QueryError, SymbolCommand, told,
};
use crate::memory::{CachedMemory, Changeable, Memory, Need, ReadCause, VirtAddr};
use crate::source::{
    BootId, BreakInError, Control, Halt, KernelVersion, PlantError, Resumed, Source, SourceMemory, Wait,
};
use crate::symbols::PdbIdentity;
use crate::symbols::store::SymbolSource;
use crate::target::{Image, Kernel, Note, NoteCode, Notes, Progress, Target, TargetError};

pub use answered::{Answered, Stamp};
pub use breakpoints::{BreakpointNews, StopCause};
pub use breathing::{ShortStops, StopsOver};
pub use cost::{Costs, SessionStats, Stats};
pub use error::{AskError, DebugError, ErrorCode, HitsError};
pub use hits::{HitObserver, Hits};
pub use stop::Stop;

use breathing::Stops;
use changing::Changes;

/// Drivers whose symbols are fetched before the first command; who verifies all drivers has a hundred and more.
const MAX_FETCHED: usize = 16;
/// Boots that one attempt to stop a target follows: each begins as a new target.
const MAX_BOOTS: usize = 4;

/// Why a machine is not let run in the middle of a question, although stops are to be short.
const STOPPED_BY_ITSELF: &str = "The target stopped by itself, so that it is not let run in the middle of a question: this \
                                 stop takes as long as the question";

/// What a front end is told while the debugger works, and what it is asked.
pub trait Observer {
    /// Something to show.
    fn notice(&mut self, notice: &Notice<'_>);

    /// What a prompt of the target is answered; it stands still until then. Only where the session
    /// [asks](crate::session::Prompts::Ask).
    fn prompt(&mut self, prompt: &DebugIo) -> bytes::Bytes;
}

/// Something that a debugger says while it works.
#[derive(Debug)]
pub enum Notice<'a> {
    /// A target says who it is, the first time in its boot.
    Target {
        /// Where it is met.
        place: String,
        /// What it says.
        version: &'a KernelVersion,
        /// It can be made to run and stop; else it is memory that was kept.
        is_live: bool,
    },
    /// The kernel's symbols are not to be had.
    MissingSymbols(&'a TargetError),
    /// Symbols are fetched; the target runs meanwhile, if it can run.
    Fetching {
        /// Whose.
        what: &'a str,
        /// It runs meanwhile.
        is_running: bool,
    },
    /// It restarted while it was being stopped; it is stopped again.
    RestartedMeanwhile,
    /// Breakpoints.
    Breakpoint(BreakpointNews<'a>),
    /// A tag stands in `nt!PoolHitTag` that nobody here has written.
    TagLeft {
        /// Which.
        tag: PoolTag,
        /// Whether it was taken away.
        cleared: &'a Result<(), PlantError>,
    },
}

/// One target and what is known of it.
#[derive(Debug)]
pub struct Debugger {
    source: Arc<dyn Source>,
    memory: CachedMemory<Arc<dyn SourceMemory>>,
    symbols: Arc<SymbolSource>,
    known: Option<Known>,
    break_in_timeout: Duration,
    short_stops: Option<ShortStops>,
    may_change: bool,
    /// The boot in which a command was last told to change the target.
    changed_in: Cell<Option<BootId>>,
    stops_over: Cell<StopsOver>,
    breakpoints: breakpoints::Table,
    costs: Costs,
}

/// What is known of one boot.
#[derive(Debug)]
struct Known {
    boot: BootId,
    kernel: Kernel,
}

impl Debugger {
    /// A debugger of `source`'s target. `symbols` may be a symbol path.
    #[must_use]
    pub fn new(
        source: Arc<impl Source + 'static>,
        symbols: impl Into<Arc<SymbolSource>>,
        break_in_timeout: Duration,
    ) -> Self {
        let memory = CachedMemory::new(source.memory());
        Self {
            source,
            memory,
            symbols: symbols.into(),
            known: None,
            break_in_timeout,
            short_stops: None,
            may_change: false,
            changed_in: Cell::default(),
            stops_over: Cell::default(),
            breakpoints: breakpoints::Table::default(),
            costs: Costs::default(),
        }
    }

    /// Where the target's bytes come from.
    #[must_use]
    pub const fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// What makes the target stop and run, unless it never runs.
    #[must_use]
    pub fn control(&self) -> Option<&dyn Control> {
        self.source.control()
    }

    /// How long one stop of a question may take, if it may not take as long as it needs.
    #[must_use]
    pub const fn short_stops(&self) -> Option<ShortStops> {
        self.short_stops
    }

    /// Lets questions that take long let the target run in between, as far as they can bear it, or lets each have one stop
    /// until its end.
    pub const fn set_short_stops(&mut self, short_stops: Option<ShortStops>) {
        self.short_stops = short_stops;
    }

    /// True if commands may change the target's memory and registers.
    #[must_use]
    pub const fn may_change(&self) -> bool {
        self.may_change
    }

    /// Lets commands change the target, or lets them no more, as at first.
    pub const fn allow_changes(&mut self, allowed: bool) {
        self.may_change = allowed;
    }

    /// The stops of the last question that were over before it was answered, or could not be.
    #[must_use]
    pub const fn stops_over(&self) -> StopsOver {
        self.stops_over.get()
    }

    /// Where symbols are looked for.
    #[must_use]
    pub const fn symbols(&self) -> &Arc<SymbolSource> {
        &self.symbols
    }

    /// Stops the target, and says where. Before the first stop of a boot that is kept, the symbols are fetched that
    /// questions will need, while the target runs.
    ///
    /// # Errors
    /// [`DebugError`].
    pub fn break_in(&mut self, observer: &mut dyn Observer) -> Result<Stop, DebugError> {
        self.in_one_boot(observer, |debugger, observer| {
            let change = debugger.stop_with_symbols(observer);
            let described = change.and_then(|change| {
                let cause = debugger.meet(&change, observer)?;
                debugger.describe(&change, cause.unwrap_or_default(), observer)
            });
            debugger.source.rest();
            described
        })
    }

    /// Stops the target for as long as it takes to say who it is, and lets it run.
    ///
    /// # Errors
    /// [`DebugError`]; [`DebugError::NotResumed`] if nobody knows whether it runs.
    pub fn identify(&mut self, observer: &mut dyn Observer) -> Result<(), DebugError> {
        self.in_one_boot(observer, |debugger, observer| {
            debugger.stop_with_symbols(observer).and_then(|_| debugger.know_boot(observer))
        })?;
        match self.go() {
            Resumed::Running | Resumed::NeverRuns => Ok(()),
            Resumed::MayBeStopped(why) => Err(DebugError::NotResumed(why)),
        }
    }

    /// What `stop_and_look` comes to; again for a target that restarts or runs on in the middle of it.
    fn in_one_boot<T>(
        &mut self,
        observer: &mut dyn Observer,
        stop_and_look: fn(&mut Self, &mut dyn Observer) -> Result<T, DebugError>,
    ) -> Result<T, DebugError> {
        for _ in 0..MAX_BOOTS {
            match stop_and_look(self, observer) {
                Err(DebugError::Version(RequestError::TargetRestarted | RequestError::TargetRunning)) => {
                    observer.notice(&Notice::RestartedMeanwhile);
                }
                result => return result,
            }
        }
        Err(DebugError::RestartsAgain)
    }

    /// Stops the target, answering its prompts: one that waits for an answer cannot be stopped.
    fn stop(&self, observer: &mut dyn Observer) -> Result<Box<StateChange>, BreakInError> {
        let Some(control) = self.control() else {
            return self.source.stopped().ok_or_else(|| BreakInError::NoControl(self.source.place()));
        };
        control.request_break_in();
        let deadline = control.deadline_after(self.break_in_timeout);
        loop {
            match control.wait_for_halt(None, Some(deadline)) {
                Wait::Done(Halt::Stopped(change)) => return Ok(change),
                Wait::Done(Halt::Prompt(prompt)) => {
                    let answer = observer.prompt(&prompt);
                    control.answer_prompt(prompt, answer);
                }
                wait => return Err(control.gave_up_break_in(wait.map(drop), self.break_in_timeout)),
            }
        }
    }

    fn stop_with_symbols(&mut self, observer: &mut dyn Observer) -> Result<Box<StateChange>, DebugError> {
        let has_isf = self.known().is_none() && self.symbols.has_isf();
        let mut change = self.stop(observer)?;
        if self.known().is_some() || !self.symbols.asks_servers() && !has_isf {
            return Ok(change);
        }
        let base = self.source.version()?.base;
        if self.fetch_while_running("the kernel's symbols", &[base], observer)? {
            change = self.stop(observer)?;
        }
        if !self.symbols.asks_servers() {
            return Ok(change);
        }
        self.know_boot(observer)?;
        let mut drivers = self.target().map(|target| verified_images(&target)).unwrap_or_default();
        drivers.truncate(MAX_FETCHED);
        if self.fetch_while_running("symbols of verified drivers", &drivers, observer)? {
            change = self.stop(observer)?;
        }
        Ok(change)
    }

    /// Lets the target run while the symbols of the images at `bases` are fetched from a server or read from ISF files, as
    /// far as they have to be: a machine must not stand still for a download, nor for JSON. True if it runs afterwards.
    fn fetch_while_running(
        &self,
        what: &str,
        bases: &[VirtAddr],
        observer: &mut dyn Observer,
    ) -> Result<bool, DebugError> {
        self.memory.inner().pin(self.source.stop());
        // What cannot be read here is told when the symbols are needed.
        let wanted = bases.iter().filter_map(|base| Some(Image::read(&self.memory, *base).ok()?.pdb));
        let has_to = |pdb: &PdbIdentity| self.symbols.has_to_parse(pdb) || self.symbols.has_to_fetch(pdb);
        let wanted: Vec<_> = wanted.filter(has_to).collect();
        if wanted.is_empty() {
            return Ok(false);
        }
        observer.notice(&Notice::Fetching { what, is_running: self.control().is_some() });
        if let Resumed::MayBeStopped(why) = self.go() {
            return Err(DebugError::NotResumed(why));
        }
        for pdb in &wanted {
            // A failure is remembered by the source, and told where the symbols are needed.
            let failed = self.symbols.load(pdb).err();
            if failed.is_some_and(|missing| missing.is_interrupted()) {
                break;
            }
        }
        Ok(true)
    }

    /// The stop that the target is in, described; nothing if it is not stopped. One that is a pass of a breakpoint, or of another
    /// thread where one is waited for, is gone on from if `may_pass`, and nothing too.
    ///
    /// # Errors
    /// [`DebugError::Version`] if the target does not say who it is; [`DebugError::NotResumed`].
    pub fn present_stop(
        &mut self,
        may_pass: bool,
        observer: &mut dyn Observer,
    ) -> Result<Option<Stop>, DebugError> {
        let Some(change) = self.source.stopped() else { return Ok(None) };
        let described = match self.meet(&change, observer)? {
            None if may_pass => match self.go_on(observer) {
                Resumed::MayBeStopped(why) => Err(DebugError::NotResumed(why)),
                Resumed::Running | Resumed::NeverRuns => Ok(None),
            },
            cause => self.describe(&change, cause.unwrap_or_default(), observer).map(Some),
        };
        self.source.rest();
        described
    }

    fn describe(
        &self,
        change: &StateChange,
        cause: StopCause,
        observer: &mut dyn Observer,
    ) -> Result<Stop, DebugError> {
        // What a person has written by hand is theirs until the session ends.
        if self.changed_in.get() != Some(self.source.boot()) {
            self.take_tag_away_at(change, observer);
        }
        let Some(target) = self.target() else { return Err(RequestError::TargetRunning.into()) };
        let stop = Stop { cause, ..Stop::describe(change, &target) };
        if let (Some(_), Some(control)) = (&stop.bug_check, self.control()) {
            // A bug check stops twice, and then the machine restarts.
            control.stopped_by_itself();
        }
        Ok(stop)
    }

    /// Asks who the target is, once a boot, and says it.
    fn know_boot(&mut self, observer: &mut dyn Observer) -> Result<(), DebugError> {
        if self.known().is_some() {
            return Ok(());
        }
        let boot = self.source.boot();
        self.memory.inner().pin(self.source.stop());
        let version = self.with_lists(self.source.version()?);
        let kernel = Kernel::new(version, Arc::clone(&self.symbols));
        let is_live = self.control().is_some();
        observer.notice(&Notice::Target { place: self.source.place(), version: &version, is_live });
        let missing = Target::new(&self.memory, &kernel).module_symbols("nt").err();
        if self.source.boot() != boot {
            return Err(RequestError::TargetRestarted.into());
        }
        self.known = Some(Known { boot, kernel });
        if let Some(missing) = missing {
            observer.notice(&Notice::MissingSymbols(&missing));
        }
        Ok(())
    }

    /// The same with the lists that a source did not know: a kernel's symbols say where they are.
    fn with_lists(&self, version: KernelVersion) -> KernelVersion {
        if !version.module_list.is_null() {
            return version;
        }
        let kernel = Kernel::new(version, Arc::clone(&self.symbols));
        let target = Target::new(&self.memory, &kernel);
        let of_symbol = |name| target.address_of(name).unwrap_or_default();
        KernelVersion {
            module_list: of_symbol("nt!PsLoadedModuleList"),
            debugger_data_list: of_symbol("nt!KdpDebuggerDataListHead"),
            ..version
        }
    }

    fn known(&self) -> Option<&Kernel> {
        let boot = self.source.boot();
        self.known.as_ref().filter(|known| known.boot == boot).map(|known| &known.kernel)
    }

    /// The target of the present stop, if it is stopped and has said who it is.
    #[must_use]
    pub fn target(&self) -> Option<Target<'_>> {
        let stop = self.source.stop();
        let kernel = self.known().filter(|_| self.source.run_state() == RunState::Stopped)?;
        // A stop or a boot that begins behind this line answers nothing that is asked of this target.
        self.memory.inner().pin(stop);
        Some(Target::new(&self.memory as &dyn Memory, kernel).with_cpu(&**self.memory.inner()))
    }

    /// Asks the stopped target. An answer that rests on what could not be read because the target is lost, was let run or
    /// restarted is none.
    ///
    /// # Errors
    /// [`AskError`].
    pub fn ask(
        &self,
        run: fn(&str, &Target<'_>) -> Found,
        arguments: &str,
        progress: &dyn Progress,
    ) -> Result<Answered, AskError> {
        let answer = self.ask_of_a_pause(run, arguments, progress);
        self.source.rest();
        answer
    }

    fn ask_of_a_pause(
        &self,
        run: fn(&str, &Target<'_>) -> Found,
        arguments: &str,
        progress: &dyn Progress,
    ) -> Result<Answered, AskError> {
        self.asked(|target| run(arguments, target), None, progress)
    }

    /// Has `run` change the stopped target: only where that is [allowed](Self::allow_changes).
    ///
    /// # Errors
    /// [`AskError`].
    pub fn change(
        &self,
        command: &'static str,
        run: fn(&str, &Target<'_>) -> Found,
        arguments: &str,
        progress: &dyn Progress,
    ) -> Result<Answered, AskError> {
        let memory = &self.memory;
        let Some(source) = memory.inner().changeable() else {
            return Err(AskError::NotChangeable { command, place: self.source.place() });
        };
        if !self.may_change {
            return Err(AskError::NotAllowed { command });
        }
        self.changed_in.set(Some(self.source.boot()));
        let changes = Changes { memory, source, written: Mutex::default() };
        let answer = self.asked(|target| run(arguments, target), Some(&changes), progress);
        let written = changes.written.into_inner().unwrap_or_else(PoisonError::into_inner);
        hits::answer_for_written(self, &written);
        answer
    }

    /// The same for a query, whose facts keep their type.
    ///
    /// # Errors
    /// [`AskError`].
    pub fn ask_for<Q: Query>(
        &self,
        query: &Q,
        progress: &dyn Progress,
    ) -> Result<Answered<Q::Facts>, AskError> {
        self.asked(|target| query.run(target), None, progress)
    }

    fn asked<F>(
        &self,
        question: impl FnOnce(&Target<'_>) -> Result<F, QueryError>,
        changes: Option<&dyn Changeable>,
        progress: &dyn Progress,
    ) -> Result<Answered<F>, AskError> {
        let before = self.stats();
        let boot = self.source.boot();
        self.stops_over.take();
        let Some(target) = self.target() else { return Err(self.why_not_stopped()) };
        self.memory.inner().take_failure();
        let look = || Some(BugCheckQuery.run(&self.target()?).is_ok_and(|it| it.happened()));
        // What is changed is changed in this stop.
        let short_stops = self.short_stops.filter(|_| changes.is_none());
        let stops = short_stops.zip(self.control()).map(|(limits, control)| {
            Stops::new(&*self.source, control, limits, self.break_in_timeout, &look)
        });
        let mut target = target.with_progress(progress);
        if let Some(changes) = changes {
            target = target.with_changes(changes);
        }
        match &stops {
            Some(stops) if stops.may_let_run() => target = target.with_breathing(stops),
            Some(_) => target.note(Note::remark(NoteCode::ShortStops, STOPPED_BY_ITSELF)),
            None => {}
        }
        let found = question(&target);
        if let Some(stops) = &stops {
            stops.note(&target);
            self.stops_over.set(stops.over());
        }
        let answer = told(found, &target);
        let Some(cause) = self.memory.inner().take_failure() else {
            return Ok(self.answered(answer?, before));
        };
        // A restart is heard of in several ways, and which comes first is chance.
        let cause = if self.source.boot() == boot { cause } else { ReadCause::TargetRestarted };
        match answer {
            // What could be read before Ctrl+C, or within the freeze budget, is worth something where the answer itself
            // says that it is not all.
            Ok(answer) if AskError::leaves_parts(&cause) && answer.worst() >= Some(NoteKind::Partial) => {
                Ok(self.answered(answer, before))
            }
            Err(error) if error.is_usage() => Err(error.into()),
            _ => Err(AskError::NotRead(cause)),
        }
    }

    /// Why there is no stopped target to ask.
    fn why_not_stopped(&self) -> AskError {
        match self.source.run_state() {
            RunState::Running => AskError::Running,
            RunState::Stopped => AskError::NotIdentified,
            RunState::Unknown => match self.control().and_then(Control::line_is_gone) {
                Some(why) => AskError::LineGone { why },
                None => AskError::Unknown {
                    last_heard: self.control().map_or_else(|| "never".into(), Control::last_heard),
                },
            },
        }
    }

    /// Runs a command that changes where symbols come from.
    ///
    /// # Errors
    /// The command's.
    pub fn ask_symbols(&self, run: SymbolCommand, arguments: &str) -> Result<Answered, QueryError> {
        let before = self.stats();
        let answer = match self.target() {
            Some(target) => told(run(arguments, &self.symbols, Some(&target), target.notes()), &target),
            None => {
                let notes = Notes::new();
                run(arguments, &self.symbols, None, &notes)
                    .map(|facts| Answer { notes: notes.take(), ..Answer::of_no_target(facts) })
            }
        };
        self.source.rest();
        Ok(self.answered(answer?, before))
    }

    /// Facts that nobody was asked for, with what came about since `before`.
    #[must_use]
    pub fn answer_alone(&self, facts: Box<dyn Facts>, before: Stats) -> Answered {
        self.answered(Answer::of_no_target(facts), before)
    }

    fn answered<F>(&self, answer: Answer<F>, before: Stats) -> Answered<F> {
        Answered::new(answer, self.stamp(), self.stats().since(before))
    }

    /// The present moment of the target, as far as it is known.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        let Some(kernel) = self.known() else { return Stamp::now() };
        let is_stopped = self.source.run_state() == RunState::Stopped;
        Stamp {
            boot: Some(self.source.boot().0),
            stop: is_stopped.then(|| self.source.stop().0),
            build: Some(kernel.version().build),
            pointer_size: Some(Target::new(&self.memory, kernel).pointer_size()),
            ..Stamp::now()
        }
    }

    /// The processor whose registers are asked for: the one that stopped, or was chosen since.
    #[must_use]
    pub fn processor(&self) -> u16 {
        let chosen = self.known().and_then(Kernel::chosen_processor);
        chosen.unwrap_or_else(|| self.source.stopped().map_or(0, |change| change.processor))
    }

    /// Lets the target run, if it is stopped.
    pub fn go(&self) -> Resumed {
        self.choose_none();
        self.control().map_or(Resumed::NeverRuns, Control::go)
    }

    /// Lets the target run for good.
    pub fn leave(&self) -> Resumed {
        self.choose_none();
        self.control().map_or(Resumed::NeverRuns, Control::leave)
    }

    /// The next stop is another processor's, perhaps.
    fn choose_none(&self) {
        if let Some(known) = &self.known {
            known.kernel.choose_processor(None);
        }
    }

    /// What had to be read since the last call.
    #[must_use]
    pub fn take_need(&self) -> Need {
        self.memory.take_need()
    }

    /// What everything has cost so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::of(&*self.source, &self.memory)
    }

    /// What each command has cost.
    #[must_use]
    pub const fn costs(&self) -> &Costs {
        &self.costs
    }

    /// The same, to be added to.
    pub const fn costs_mut(&mut self) -> &mut Costs {
        &mut self.costs
    }
}
