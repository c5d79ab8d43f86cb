//! Lines in, answers out.
//!
//! ```text
//!   -c, -cf --> script ----.
//!                           >-- Shell::run(command) --> answer --> stdout (text or JSON)
//!   prompt --> interactive-'          |
//!                                     `--> status, the target's own lines, errors --> stderr
//! ```
//! Standard output holds answers and nothing else, so that a script can keep it.

mod interactive;
mod progress;
mod report;
mod script;
mod stats;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use kd_protocol::kd::{DebugIo, GetVersion64, NtStatus, StateChange};
use kd_protocol::link::{Event, RequestError, RunState};

use crate::commands::line::Line;
use crate::commands::verifier::{FormatInForce, VerifierFormat, verified_images};
use crate::commands::{
    self, AnyAnswer, BugCheckQuery, ControlCommand, Effect, NoteKind, Query, QueryError, Run,
};
use crate::memory::{CachedMemory, Memory, VirtAddr};
use crate::session::{BreakInError, LiveMemory, Session, Wait};
use crate::symbols::store::SymbolSource;
use crate::target::{Image, Kernel, KernelVersion, Target};

pub use interactive::prompt;
use progress::ReadProgress;
pub use progress::TerminalWatch;
pub use report::Report;
use report::printable;
pub use script::run_script;
pub use stats::Stats;

use stats::{CommandStats, SessionStats};

/// What a target that asks about a failed assertion is answered if nobody says otherwise: go on.
const IGNORE: &str = "i";

/// Commands whose cost is kept for `.kdstats`.
const KEPT_COSTS: usize = 100;

/// Drivers whose symbols are fetched before the first command; who verifies all drivers has a hundred and more.
const MAX_FETCHED: usize = 16;

/// How the worst command of a session went; the exit code of a script.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Worst {
    /// Everything was answered whole: 0.
    #[default]
    Fine,
    /// An answer has gaps: 3.
    Partial,
    /// Something was not answered: 1.
    Failed,
    /// A line was not understood: 2.
    Usage,
}

impl Worst {
    /// The process's exit code.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Partial => 3,
            Self::Failed => 1,
            Self::Usage => 2,
        }
    }
}

/// How answers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As WinDbg prints.
    Text,
    /// One JSON object a command.
    Json,
}

/// What a command leaves the shell to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The next command.
    Next,
    /// The target runs; wait until it stops.
    Running,
    /// End, with the target running.
    Quit,
}

/// Why a session cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShellError {
    /// The target did not stop.
    #[error(transparent)]
    BreakIn(#[from] BreakInError),
    /// The target does not say who it is.
    #[error("the target stopped, but does not say who it is: {0}")]
    Version(#[from] RequestError),
    /// Answers cannot be written.
    #[error("cannot write the answer: {0}")]
    Output(#[from] std::io::Error),
}

/// One target and what is known of it, between a line and its answer.
pub struct Shell<'a> {
    session: &'a Session,
    memory: CachedMemory<LiveMemory>,
    symbols: Arc<SymbolSource>,
    kernel: Option<Kernel>,
    report: Report<'a>,
    break_in_timeout: Duration,
    /// What the target's prompts are answered when there is nobody to ask.
    prompt_answer: String,
    worst: Worst,
    /// How the last command went.
    last: Worst,
    costs: VecDeque<CommandStats>,
    /// Of the command that is running.
    remarks: Vec<String>,
}

impl<'a> Shell<'a> {
    /// A shell for `session`, whose answers go to `report`. `symbols` may be a symbol path.
    #[must_use]
    pub fn new(
        session: &'a Session,
        symbols: impl Into<Arc<SymbolSource>>,
        report: Report<'a>,
        break_in_timeout: Duration,
    ) -> Self {
        let memory = CachedMemory::new(session.memory());
        let costs = VecDeque::new();
        Self {
            session,
            memory,
            symbols: symbols.into(),
            kernel: None,
            report,
            break_in_timeout,
            prompt_answer: IGNORE.to_owned(),
            worst: Worst::Fine,
            last: Worst::Fine,
            costs,
            remarks: Vec::new(),
        }
    }

    /// The same, answering the target's prompts with this where there is nobody to ask.
    #[must_use]
    pub fn with_prompt_answer(self, answer: &str) -> Self {
        Self { prompt_answer: answer.to_owned(), ..self }
    }

    /// Stops the target and says where.
    ///
    /// # Errors
    /// [`ShellError`].
    pub fn break_in(&mut self) -> Result<(), ShellError> {
        let change = self.stop_with_symbols()?;
        self.stopped(&change)
    }

    /// Stops the target.
    fn stop(&mut self) -> Result<Box<StateChange>, ShellError> {
        let stopped = self.session.break_in(self.break_in_timeout);
        if stopped.is_err() {
            // What the target said meanwhile tells why, or that it lives.
            self.show_events();
        }
        Ok(stopped?)
    }

    /// Stops the target, and before the first stop that is kept has the symbols fetched that queries will need: the
    /// kernel's and those of the verified drivers.
    fn stop_with_symbols(&mut self) -> Result<Box<StateChange>, ShellError> {
        let mut change = self.stop()?;
        if self.kernel.is_some() || !self.symbols.asks_servers() {
            return Ok(change);
        }
        let base = self.session.version()?.kern_base;
        if self.fetch_while_running("the kernel's symbols", &[base]) {
            change = self.stop()?;
        }
        self.know_kernel()?;
        let mut drivers = self.target().map(|target| verified_images(&target)).unwrap_or_default();
        drivers.truncate(MAX_FETCHED);
        if self.fetch_while_running("symbols of verified drivers", &drivers) {
            change = self.stop()?;
        }
        Ok(change)
    }

    /// Lets the target run while the symbols of the images at `bases` are fetched from a server, as far as they have to
    /// be: a machine must not stand still for a download. True if it runs afterwards.
    fn fetch_while_running(&mut self, what: &str, bases: &[VirtAddr]) -> bool {
        // What cannot be read here is told when the symbols are needed.
        let wanted = bases.iter().filter_map(|base| Some(Image::read(&self.memory, *base).ok()?.pdb));
        let wanted: Vec<_> = wanted.filter(|pdb| self.symbols.has_to_fetch(pdb)).collect();
        if wanted.is_empty() {
            return false;
        }
        self.report.status(&format!("Fetching {what}; the target runs meanwhile"));
        self.go();
        for pdb in &wanted {
            // A failure is remembered by the source, and told where the symbols are needed.
            let failed = self.symbols.load(pdb).err();
            if failed.is_some_and(|missing| missing.is_interrupted()) {
                break;
            }
        }
        true
    }

    /// Stops the target for as long as it takes to say who it is, and lets it run.
    ///
    /// # Errors
    /// [`ShellError`].
    pub fn identify(&mut self) -> Result<(), ShellError> {
        self.stop_with_symbols()?;
        self.know_kernel()?;
        self.go();
        Ok(())
    }

    /// How the worst command so far went.
    #[must_use]
    pub const fn worst(&self) -> Worst {
        self.worst
    }

    /// Shows the prompt and a command as if it had been typed, and runs it.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_echoed(&mut self, command: &str) -> Result<After, ShellError> {
        let prompt = self.prompt_text();
        self.report.echo(&prompt, command);
        self.run(command)
    }

    /// True if a line may be run; one that is refused is told.
    fn takes(&mut self, line: &Line) -> Result<bool, ShellError> {
        if let Line::Refused { text, why } = line {
            self.refuse(text, why)?;
        }
        Ok(matches!(line, Line::Commands(_)))
    }

    /// True if `command` must not be run, because it changes the machine and one before it on its line failed.
    fn holds_back(&mut self, command: &str, is_whole: bool) -> Result<bool, ShellError> {
        let holds_back = !is_whole && Effect::of(command).changes_machine();
        if holds_back {
            self.report.error(command, "not run, because a command before it on its line failed")?;
        }
        Ok(holds_back)
    }

    /// True if the last command was answered, perhaps with gaps.
    const fn went_well(&self) -> bool {
        matches!(self.last, Worst::Fine | Worst::Partial)
    }

    /// Runs one command and writes its answer.
    ///
    /// # Errors
    /// [`ShellError::Output`]: whatever else goes wrong is an answer too.
    pub fn run(&mut self, command: &str) -> Result<After, ShellError> {
        let before = Stats::of(self.session, &self.memory);
        let worst = std::mem::take(&mut self.worst);
        let after = self.carry_out(command);
        self.last = self.worst;
        self.worst = self.worst.max(worst);
        let after = after?;
        let stats = Stats::of(self.session, &self.memory).since(before);
        self.report.cost(stats);
        if self.costs.len() == KEPT_COSTS {
            self.costs.pop_front();
        }
        let remarks = std::mem::take(&mut self.remarks);
        self.costs.push_back(CommandStats { command: command.to_owned(), stats, remarks });
        Ok(after)
    }

    fn carry_out(&mut self, command: &str) -> Result<After, ShellError> {
        let (spec, arguments) = match commands::find(command) {
            Ok(found) => found,
            Err(error) => return self.refuse(command, &error),
        };
        let answer = match spec.run {
            Run::Control(control) => return self.control(command, control, arguments),
            Run::Local(run) => run(arguments),
            Run::Symbols(run) => run(arguments, &self.symbols, self.target().as_ref()),
            Run::Query(run) => match self.target() {
                Some(target) => {
                    let progress = ReadProgress::default();
                    commands::ask(run, arguments, &target.with_progress(&progress))
                }
                None => {
                    self.report.error(command, "the target is running; break in first (Ctrl+C)")?;
                    self.worst = self.worst.max(Worst::Failed);
                    return Ok(After::Next);
                }
            },
        };
        match answer {
            Ok(answer) => self.answer(command, &*answer)?,
            Err(error) => return self.refuse(command, &error),
        }
        Ok(After::Next)
    }

    /// The target, if it is stopped.
    fn target(&self) -> Option<Target<'_>> {
        let kernel = self.kernel.as_ref().filter(|_| self.session.state() == RunState::Stopped)?;
        Some(Target::new(&self.memory as &dyn Memory, kernel).with_cpu(self.memory.inner()))
    }

    fn answer(&mut self, command: &str, answer: &dyn AnyAnswer) -> Result<(), ShellError> {
        let worst = match answer.worst() {
            None | Some(NoteKind::Remark) => Worst::Fine,
            Some(NoteKind::Partial) => Worst::Partial,
            Some(NoteKind::Failed) => Worst::Failed,
        };
        self.worst = self.worst.max(worst);
        let remarks = answer.notes().iter().filter(|note| note.kind == NoteKind::Remark);
        self.remarks.extend(remarks.map(|note| note.text.clone()));
        self.report.answer(command, answer)
    }

    fn refuse(&mut self, command: &str, error: &QueryError) -> Result<After, ShellError> {
        self.worst = self.worst.max(if error.is_usage() { Worst::Usage } else { Worst::Failed });
        self.report.error(command, &error.to_string())?;
        Ok(After::Next)
    }

    fn control(
        &mut self,
        command: &str,
        control: ControlCommand,
        arguments: &str,
    ) -> Result<After, ShellError> {
        Ok(match control {
            ControlCommand::VerifierFormat => {
                match VerifierFormat::of_arguments(arguments) {
                    Ok(Some(format)) => self.report.style.verifier = format,
                    Ok(None) => {}
                    Err(error) => return self.refuse(command, &error),
                }
                self.answer(command, &FormatInForce { format: self.report.style.verifier })?;
                After::Next
            }
            ControlCommand::Statistics => {
                let session = Stats::of(self.session, &self.memory);
                let costs = SessionStats { session, commands: self.costs.iter().cloned().collect() };
                self.answer(command, &costs)?;
                After::Next
            }
            ControlCommand::Reboot => match self.session.reboot() {
                Ok(()) => After::Running,
                Err(error) => {
                    self.report.status(&format!("error: .reboot: {error}"));
                    self.worst = self.worst.max(Worst::Failed);
                    After::Next
                }
            },
            ControlCommand::Go => {
                self.go();
                After::Running
            }
            ControlCommand::Quit | ControlCommand::QuitDetach => {
                self.go();
                After::Quit
            }
        })
    }

    /// Lets the target run because its stop has taken as long as it may, and says what was not done.
    ///
    /// # Errors
    /// [`ShellError::Output`].
    fn give_up(&mut self, commands: &[&str]) -> Result<(), ShellError> {
        self.go();
        self.worst = self.worst.max(Worst::Partial);
        self.report.status("The freeze budget is spent; the target runs on");
        for command in commands {
            self.report.error(command, "not run: the freeze budget is spent")?;
        }
        Ok(())
    }

    /// Lets the target run, if it is stopped.
    pub fn go(&mut self) {
        if self.session.state() == RunState::Stopped && !self.session.resume(NtStatus::DBG_CONTINUE) {
            self.report.status("the target does not acknowledge that it runs on; it may still be stopped");
            self.worst = self.worst.max(Worst::Failed);
        }
    }

    /// Waits until the target stops, showing what it prints. Ctrl+C breaks in. False if the session is over.
    ///
    /// # Errors
    /// [`ShellError`].
    pub fn wait_for_stop(&mut self) -> Result<bool, ShellError> {
        let answer = self.prompt_answer.clone();
        self.wait_for_stop_asking(&mut |_| answer.clone())
    }

    /// The same, with `ask` being shown each prompt of the target and returning its answer.
    ///
    /// # Errors
    /// [`ShellError`].
    pub(super) fn wait_for_stop_asking(
        &mut self,
        ask: &mut dyn FnMut(&str) -> String,
    ) -> Result<bool, ShellError> {
        let mut is_breaking_in = false;
        loop {
            match self.session.next_event(None) {
                Wait::Done(Event::Stopped(change)) => {
                    self.stopped(&change)?;
                    return Ok(true);
                }
                Wait::Done(Event::Prompt(prompt)) => {
                    let answer = ask(&printable(&prompt.text));
                    self.answer_prompt(prompt, &answer);
                }
                Wait::Done(event) => self.event(&event),
                Wait::Interrupted if self.session.is_terminating() || is_breaking_in => {
                    self.session.cancel_break_in();
                    return Ok(false);
                }
                Wait::Interrupted => {
                    self.report
                        .status("breaking in; Ctrl+C again ends verikd and leaves the target as it is");
                    self.session.request_break_in();
                    is_breaking_in = true;
                }
                Wait::Ended(why) => {
                    self.report.status(&format!("the session has ended: {why}"));
                    return Ok(false);
                }
                Wait::TimedOut => {}
            }
        }
    }

    /// Shows what has happened meanwhile.
    pub fn show_events(&mut self) {
        while let Wait::Done(event) = self.session.next_event(Some(Duration::ZERO)) {
            self.event(&event);
        }
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Restarted(_) => self.kernel = None,
            // Nobody can be asked here; a target that waits for an answer stands still.
            Event::Prompt(prompt) => {
                let answer = self.prompt_answer.clone();
                return self.answer_prompt(prompt.clone(), &answer);
            }
            _ => {}
        }
        self.report.event(event);
    }

    fn answer_prompt(&mut self, prompt: DebugIo, answer: &str) {
        self.report.prompt_answered(&prompt, answer);
        self.session.answer_prompt(prompt, bytes::Bytes::copy_from_slice(answer.as_bytes()));
    }

    fn stopped(&mut self, change: &StateChange) -> Result<(), ShellError> {
        self.show_events();
        self.know_kernel()?;
        let kernel = self.kernel.as_ref().expect("the line above has seen to it");
        let target = Target::new(&self.memory, kernel);
        // A machine that does not say is taken to be well.
        if let Ok(bug_check) = BugCheckQuery.run(&target)
            && bug_check.happened()
        {
            self.report.status(&bug_check.announcement());
        }
        self.report.stop(change, &target.symbol_at(change.program_counter).to_string());
        Ok(())
    }

    /// Asks who the target is, once a boot, and says it.
    fn know_kernel(&mut self) -> Result<(), ShellError> {
        if self.kernel.is_some() {
            return Ok(());
        }
        let version = self.session.version()?;
        let kernel = Kernel::new(kernel_version(&version), Arc::clone(&self.symbols));
        self.report.banner(&self.session.place(), &version);
        if let Err(missing) = Target::new(&self.memory, &kernel).module_symbols("nt") {
            self.report.status(&missing.to_string());
        }
        self.kernel = Some(kernel);
        Ok(())
    }

    fn prompt_text(&self) -> String {
        let processor = self.session.stopped_processor().unwrap_or_default();
        format!("{processor}: kd> ")
    }
}

const fn kernel_version(version: &GetVersion64) -> KernelVersion {
    KernelVersion {
        major: version.major_version,
        build: version.minor_version,
        flags: version.flags.bits(),
        machine: version.machine_type,
        base: version.kern_base,
        module_list: version.ps_loaded_module_list,
        debugger_data_list: version.debugger_data_list,
    }
}
