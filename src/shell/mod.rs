//! Lines in, answers out.
//!
//! ```text
//!   -c, -cf --> script ----.
//!                           >-- Shell::run(command) --> Debugger --> answer --> Writer --> stdout (text or JSON)
//!   prompt --> interactive-'          |                    |
//!      ^                              |                    `--> news --> Teller --> stderr, as it happens
//!   Typist (a thread)                 `--> status, errors --> Writer --> stderr
//! ```
//! Standard output holds answers and nothing else, so that a script can keep it. Nothing here waits for a reader or for a
//! key while it could let a machine run.

mod after;
mod agenda;
pub mod check;
mod doubt;
mod error;
mod format;
mod history;
pub mod hits;
mod in_doubt;
pub mod interactive;
mod keeper;
mod line;
mod live_prompt;
mod log;
mod own_line;
pub mod pool;
mod progress;
mod report;
mod rest;
pub mod run;
pub mod script;
mod stops;
mod teller;
mod terminal;
mod told;
mod typist;
pub mod watch;
mod worst;
mod writer;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kd_protocol::kd::DebugIo;
use kd_protocol::link::RunState;

use crate::commands::line::Line;
use crate::commands::verifier::{self, FormatInForce};
use crate::commands::{
    self, ControlCommand, Effect, Facts, FileRead, LastEvent, LetGo, LogFile, LogState, MaxStop, More, Note,
    NoteCode, NoteKind, OwnTime, QueryError, Restarting, Run, SessionEnds, StopsInForce, Style,
    WritesAllowed, named_file, text_of,
};
use crate::debugger::{Answered, AskError, DebugError, Debugger, Notice, Observer, ShortStops, Stats};
use crate::memory::StopId;
use crate::session::{Quit, Watcher};
use crate::source::{BootId, BreakInError, Control, IGNORE, Resumed, Source};

pub use after::After;
use agenda::Agenda;
pub use error::ShellError;
pub use format::Format;
pub use keeper::{keep, keep_each};
pub use line::{schema_of, schema_of_beside, schema_of_failure};
pub use own_line::{OwnLine, own_line, own_value, schema_of_line};
use progress::ReadProgress;
pub use progress::TerminalWatch;
pub use report::Report;
use rest::Rest;
use teller::Teller;
pub use worst::{Codes, Worst, exit_code_of};
pub use writer::{Drained, Transcript, Writer};

/// A log file that has no name.
const LOG: &str = "verikd.log";
/// A step that takes longer is told to be waited for.
const STEP: Duration = Duration::from_millis(500);

/// A debugger with a person or a script before it.
pub struct Shell {
    debugger: Debugger,
    /// What the person or the system wants of the program.
    watcher: Watcher,
    report: Report,
    teller: Arc<Teller>,
    style: Style,
    worst: Worst,
    /// How the last command went.
    last: Worst,
    /// A person types, who has seen that a line was not understood: it does not decide how the session went.
    forgives_typos: bool,
    /// What is left of an answer that was too long for the screen.
    rest: Rest,
    /// What was paid beside commands and is not shown yet.
    paid_beside: Vec<(&'static str, Stats)>,
    /// What ended the script before its time.
    ended_by: Option<Quit>,
    /// The last stop that was announced, in words.
    last_event: Option<LastEvent>,
    /// The stop that was announced last, and its boot.
    announced: Option<(BootId, StopId)>,
    /// How often Ctrl+C had been pressed when the target was let run last.
    interrupts_at_go: u64,
    /// Ctrl+C was pressed at the prompt since then.
    is_stop_wanted: bool,
    /// Steps were not made for that reason.
    is_cut_short: bool,
    /// The stop, and its boot, of which it was said when the target was left that it may still stand.
    warned_at: Option<(BootId, StopId)>,
    /// What the breakpoint that the target stopped at is to have run.
    commands: Option<String>,
    /// What was said of modules without symbols since these were last looked for.
    told_of_symbols: BTreeSet<String>,
    /// Files that answers have, and that may not be written yet.
    unwritten: Vec<PathBuf>,
}

impl Shell {
    /// A shell for `debugger`, which shows everything by `report`, and heeds what `watcher` sees: its session's, or one of
    /// [none](Watcher::alone).
    #[must_use]
    pub fn new(debugger: Debugger, watcher: Watcher, report: Report) -> Self {
        let teller = Teller::start(watcher.clone(), report.clone());
        Self {
            debugger,
            watcher,
            report,
            teller,
            style: Style::default(),
            worst: Worst::Fine,
            last: Worst::Fine,
            forgives_typos: false,
            rest: Rest::default(),
            paid_beside: Vec::new(),
            ended_by: None,
            last_event: None,
            announced: None,
            interrupts_at_go: 0,
            is_stop_wanted: false,
            is_cut_short: false,
            warned_at: None,
            commands: None,
            told_of_symbols: BTreeSet::new(),
            unwritten: Vec::new(),
        }
    }

    /// The same with texts in this style.
    #[must_use]
    pub fn with_style(self, style: Style) -> Self {
        Self { style, ..self }
    }

    /// What makes its target stop and run, unless it never runs.
    #[must_use]
    pub fn control(&self) -> Option<&dyn Control> {
        self.debugger.control()
    }

    /// What it heeds.
    #[must_use]
    pub const fn watcher(&self) -> &Watcher {
        &self.watcher
    }

    fn source(&self) -> &dyn Source {
        &**self.debugger.source()
    }

    /// How the worst command so far went.
    #[must_use]
    pub const fn worst(&self) -> Worst {
        self.worst
    }

    /// What ended the script before its time, if something did.
    #[must_use]
    pub const fn ended_by(&self) -> Option<Quit> {
        self.ended_by
    }

    /// Whoever presses Ctrl+C while the target is being attached to, stopped and asked who it is wants nothing done with it.
    fn unless_interrupted(&self) -> Result<(), ShellError> {
        match self.watcher.was_interrupted() {
            false => Ok(()),
            true => Err(DebugError::BreakIn(BreakInError::Interrupted).into()),
        }
    }

    /// Shows the prompt and a command as if it had been typed, and runs it.
    pub fn run_echoed(&mut self, command: &str) -> After {
        let prompt = self.prompt_text();
        self.report.echo(&prompt, command);
        self.run(command)
    }

    /// True if a line may be run; one that is refused is told.
    fn takes(&mut self, line: &Line) -> bool {
        if let Line::Refused { text, why, .. } = line {
            let worst = std::mem::take(&mut self.worst);
            self.refuse(text, &AskError::Query(why.clone()), Stats::default());
            self.worst = self.counted().max(worst);
        }
        matches!(line, Line::Commands(_))
    }

    /// True if `command` must not be run, because it changes the machine and one before it on its line failed: then what stands
    /// behind it there is not run either.
    fn holds_back(&self, command: &str, is_whole: bool, agenda: &mut Agenda) -> bool {
        let holds_back = !is_whole && commands::effect_of(command).changes_machine();
        if holds_back {
            for command in std::iter::once(command.to_owned()).chain(agenda.drop_line()) {
                self.not_run(&command, "a command before it on its line failed");
            }
        }
        holds_back
    }

    /// True if the last command was answered, perhaps with gaps.
    const fn went_well(&self) -> bool {
        matches!(self.last, Worst::Fine | Worst::Partial)
    }

    /// Runs one command and shows its answer, or why it has none.
    pub fn run(&mut self, command: &str) -> After {
        self.teller.tell();
        let before = self.debugger.stats();
        let worst = std::mem::take(&mut self.worst);
        let (answered, after) = match self.carry_out(command, before) {
            Ok((answered, after)) => (Ok(answered), after),
            Err(error) => (Err(error), After::Next),
        };
        let stats = self.debugger.stats().since(before);
        let remarks = match answered {
            Ok(answered) => self.answer(command, answered),
            Err(error) => {
                self.refuse(command, &error, stats);
                Vec::new()
            }
        };
        self.last = self.worst;
        self.worst = self.counted().max(worst);
        self.report.cost(stats);
        let need = self.debugger.take_need();
        self.debugger.costs_mut().add(command, stats, need, remarks);
        after
    }

    /// How the last command counts for the session.
    const fn counted(&self) -> Worst {
        match self.worst {
            Worst::Usage if self.forgives_typos => Worst::Fine,
            worst => worst,
        }
    }

    fn carry_out(&mut self, command: &str, before: Stats) -> Result<(Answered, After), AskError> {
        let (spec, arguments) = commands::find(command)?;
        self.write_what_is_named(command);
        if spec.effect().needs_live_target() && self.control().is_none() {
            return Err(self.never_runs(command));
        }
        let answered = match spec.run {
            Run::Control(control) => return self.carry_out_control(command, control, arguments, before),
            Run::Local(run) => self.debugger.answer_alone(run(arguments, commands::COMMANDS)?, before),
            Run::Symbols(run) => {
                self.told_of_symbols.clear();
                self.debugger.ask_symbols(run, arguments)?
            }
            Run::Change(run) => {
                let progress = ReadProgress::new(&self.report);
                self.debugger.change(spec.names[0], run, arguments, &progress)?
            }
            Run::Query(run) => {
                let asked = self.debugger.ask(run, arguments, &ReadProgress::new(&self.report));
                self.see_last_stop();
                asked?
            }
        };
        Ok((answered, After::Next))
    }

    /// A file of an earlier answer that this command names is written before the command is run: it may be there to be read.
    fn write_what_is_named(&mut self, command: &str) {
        if self.unwritten.iter().any(|file| command.contains(&*file.to_string_lossy())) {
            self.unwritten.clear();
            let watcher = &self.watcher;
            let _ = self.report.writer().drain(|| !watcher.is_interrupted() && !watcher.is_budget_spent());
        }
    }

    /// Shows an answer; returns what it remarks.
    fn answer(&mut self, command: &str, answered: Answered) -> Vec<String> {
        self.worst = self.worst.max(answered.worst().map_or(Worst::Fine, Worst::of));
        let remarks = answered.notes.iter().filter(|note| note.kind == NoteKind::Remark);
        let remarks = remarks.map(|note| note.text.clone()).collect();
        self.unwritten.extend(answered.facts.files().iter().map(|it| it.path.to_owned()));
        let room = self.report.writer().room();
        let style = Style { columns: Some(room.columns), ..self.style };
        // What a person wants to look at must not scroll away; `.more` shows what it was asked for.
        let is_cut =
            self.forgives_typos && self.report.writer().is_terminal() && !command.starts_with(".more");
        let cut = is_cut.then(|| (self.rest.clone(), room));
        let notes = self.new_notes(&answered);
        self.report.answer(command, answered, &notes, style, cut);
        remarks
    }

    /// The notes that go with an answer's text. Why a module has no symbols is the same with each answer until they are looked for
    /// anew.
    fn new_notes(&mut self, answered: &Answered) -> Vec<String> {
        let is_of_symbols = |note: &Note| {
            note.kind == NoteKind::Remark
                && matches!(note.code, NoteCode::ExportSymbols | NoteCode::NoSymbols)
        };
        let told = &mut self.told_of_symbols;
        let is_new = |note: &&Note| !is_of_symbols(note) || told.insert(note.text.clone());
        answered.notes.iter().filter(is_new).map(Note::to_string).collect()
    }

    fn refuse(&mut self, command: &str, error: &AskError, stats: Stats) {
        self.worst = self.worst.max(if error.is_usage() { Worst::Usage } else { Worst::Failed });
        self.report.error(command, error, self.debugger.stamp(), stats);
    }

    /// Says that a command could not be carried out to its end, and why.
    fn cannot(&mut self, command: &str, why: String) {
        self.worst = self.worst.max(Worst::Failed);
        self.last = Worst::Failed;
        self.not_run(command, &why);
    }

    /// Says why none of `commands` was tried; false if nobody misses any. In JSON each has its line; in text they share one, and whoever
    /// wanted the session to end has that.
    fn none_run(&self, commands: &[String], why: &str) -> bool {
        if self.report.format() == Format::Json {
            commands.iter().for_each(|command| self.not_run(command, why));
            return !commands.is_empty();
        }
        let mut missed = commands.iter().filter(|it| commands::effect_of(it) != Effect::Ends);
        let Some(first) = missed.next() else { return false };
        let named = match missed.count() {
            0 => first.clone(),
            1 => format!("{first} and the command behind it"),
            behind => format!("{first} and the {behind} commands behind it"),
        };
        self.not_run(&named, why);
        true
    }

    /// Says that a command was not tried, and why.
    fn not_run(&self, command: &str, why: &str) {
        let error = AskError::NotRun(why.to_owned());
        self.report.error(command, &error, self.debugger.stamp(), Stats::default());
    }

    fn carry_out_control(
        &mut self,
        command: &str,
        control: ControlCommand,
        arguments: &str,
        before: Stats,
    ) -> Result<(Answered, After), AskError> {
        let (facts, after): (Box<dyn Facts>, _) = match control {
            ControlCommand::VerifierFormat => {
                self.style.verifier = verifier::chosen(arguments)?.unwrap_or(self.style.verifier);
                (Box::new(FormatInForce { format: self.style.verifier }), After::Next)
            }
            ControlCommand::ShortStops => {
                match MaxStop::parse(arguments)? {
                    MaxStop::Show => {}
                    MaxStop::Off => self.debugger.set_short_stops(None),
                    MaxStop::Within(longest, breath) => {
                        let breath = breath.unwrap_or(ShortStops::BREATH);
                        self.debugger.set_short_stops(Some(ShortStops { longest, breath }));
                    }
                }
                let in_force = self.debugger.short_stops().map(|it| (it.longest, it.breath));
                (Box::new(StopsInForce::new(in_force)), After::Next)
            }
            ControlCommand::AllowWrite => {
                let allows = WritesAllowed::parse(arguments)?;
                // A script is allowed to by whoever starts it.
                if allows.allowed && !self.forgives_typos && !self.debugger.may_change() {
                    return Err(AskError::NotAllowed { command: ".allow_write" });
                }
                self.debugger.allow_changes(allows.allowed);
                (Box::new(allows), After::Next)
            }
            ControlCommand::Statistics => {
                (Box::new(self.debugger.costs().with_totals(self.debugger.stats())), After::Next)
            }
            ControlCommand::LastEvent => {
                let last = self.last_event.clone();
                let none = || {
                    AskError::NotRun(match self.control() {
                        Some(_) => "the target has not been stopped in this session".into(),
                        None => {
                            format!("{} does not say where, or why, the machine stood", self.source().place())
                        }
                    })
                };
                (Box::new(last.ok_or_else(none)?), After::Next)
            }
            ControlCommand::More => (Box::new(self.more(arguments)?), After::Next),
            ControlCommand::EchoTime => {
                (Box::new(OwnTime::of_unix_ms(self.debugger.stamp().unix_ms)), After::Next)
            }
            ControlCommand::LogOpen | ControlCommand::LogAppend => {
                let appends = control == ControlCommand::LogAppend;
                (Box::new(self.open_log(arguments, appends)?), After::Next)
            }
            ControlCommand::LogClose | ControlCommand::LogFile => {
                let writer = self.report.writer();
                let (file, state) = if control == ControlCommand::LogClose {
                    (writer.close_log(), LogState::Closed)
                } else {
                    (writer.log_file(), LogState::Open)
                };
                let state = if file.is_some() { state } else { LogState::None };
                (Box::new(LogFile { file, state }), After::Next)
            }
            ControlCommand::File => return self.read_file(command, before),
            ControlCommand::Reboot => {
                let control = self.control().ok_or_else(|| self.never_runs(command))?;
                control.reboot().map_err(AskError::NotRestarted)?;
                (Box::new(Restarting::ACKNOWLEDGED), After::Running)
            }
            ControlCommand::Restart => {
                let control = self.control().ok_or_else(|| self.never_runs(command))?;
                control.reboot().map_err(AskError::NotRestarted)?;
                (Box::new(Restarting::ACKNOWLEDGED), After::Restarting)
            }
            ControlCommand::PoolHit => (Box::new(self.pool_hits(arguments)?), After::Next),
            ControlCommand::SetBreakpoint | ControlCommand::SetBreakpointOnAccess => {
                if self.control().is_none() {
                    return Err(self.never_runs(command));
                }
                let (set, redefined) = self.debugger.set_breakpoint(control, arguments)?;
                redefined.into_iter().for_each(|it| self.report.status(&it));
                (Box::new(set), After::Next)
            }
            ControlCommand::ListBreakpoints => (Box::new(self.debugger.breakpoints()), After::Next),
            ControlCommand::ClearBreakpoints
            | ControlCommand::DisableBreakpoints
            | ControlCommand::EnableBreakpoints => {
                (Box::new(self.debugger.change_breakpoints(control, arguments)?), After::Next)
            }
            ControlCommand::Go
            | ControlCommand::Trace
            | ControlCommand::StepOver
            | ControlCommand::StepOut => match self.go_on(control, arguments)? {
                Resumed::Running => (Box::new(LetGo::Running), After::Running),
                Resumed::MayBeStopped(why) => (Box::new(LetGo::MayBeStopped { why }), After::Running),
                Resumed::NeverRuns => return Err(self.never_runs(command)),
            },
            // It is let run by whoever ends the session, who can take the time that it needs.
            ControlCommand::Quit | ControlCommand::QuitDetach => (Box::new(SessionEnds::NOW), After::Quit),
        };
        Ok((self.debugger.answer_alone(facts, before), after))
    }

    /// Reads the file of commands that `command` names.
    fn read_file(&self, command: &str, before: Stats) -> Result<(Answered, After), AskError> {
        let file = named_file(command).expect("it was found by its form");
        if file.name.is_empty() {
            let problem = "the name of a file is missing".to_owned();
            return Err(QueryError::Usage { command: "$<", problem, usage: "$<FILE" }.into());
        }
        let text = std::fs::read(file.name).map_err(|error| error.to_string()).and_then(|it| text_of(&it));
        let mut text = text.map_err(|why| {
            let reason = format!("cannot read commands from {}: {why}", file.name);
            AskError::from(QueryError::File { command: "$<", reason })
        })?;
        let lines = text.lines().count();
        if file.is_one_line {
            text = text.lines().collect::<Vec<_>>().join(";");
        }
        let read = FileRead { file: file.name.to_owned(), lines };
        Ok((self.debugger.answer_alone(Box::new(read), before), After::Lines(text)))
    }

    /// Opens the log file that `arguments` names.
    fn open_log(&self, arguments: &str, appends: bool) -> Result<LogFile, AskError> {
        let command = if appends { ".logappend" } else { ".logopen" };
        let (mut rest, mut is_dated) = (arguments.trim(), false);
        // Text is UTF-8 everywhere, so `/u` changes nothing.
        while let Some(option) = rest.split_whitespace().next().filter(|it| matches!(*it, "/t" | "/u" | "/d"))
        {
            is_dated |= option != "/u";
            rest = rest[option.len()..].trim_start();
        }
        let name = rest.strip_prefix('"').and_then(|it| it.strip_suffix('"')).unwrap_or(rest);
        let name = if name.is_empty() { LOG } else { name };
        let file =
            if is_dated { log::dated(name, self.debugger.stamp().unix_ms) } else { PathBuf::from(name) };
        let open = log::open(&file, appends).map_err(|error| {
            AskError::from(QueryError::File { command, reason: format!("{}: {error}", file.display()) })
        })?;
        let file = file.display().to_string();
        self.report.writer().log_to(file.clone(), open);
        Ok(LogFile { file: Some(file), state: if appends { LogState::Appended } else { LogState::Opened } })
    }

    /// The next rows of the last long answer.
    fn more(&self, arguments: &str) -> Result<More, AskError> {
        let writer = self.report.writer();
        let room = match arguments {
            "" => Some(writer.room()),
            "all" => None,
            other => {
                let problem = format!("`{other}` is not all");
                return Err(QueryError::Usage { command: ".more", problem, usage: ".more [all]" }.into());
            }
        };
        // An answer is made when it is written.
        let watcher = &self.watcher;
        let _ = writer.drain(|| !watcher.is_interrupted() && !watcher.is_budget_spent());
        let rows = self.rest.next(room);
        Ok(More { rows, left: self.rest.len() })
    }

    fn never_runs(&self, command: &str) -> AskError {
        AskError::NeverRuns { command: command.to_owned(), place: self.source().place() }
    }

    /// What the stopped target was not asked because it does not answer.
    fn lost(&self) -> Option<String> {
        let control = self.control()?;
        let error = control.lost()?;
        let heard = control.last_heard();
        Some(format!("the target is lost: {error}; last sign of life: {heard}"))
    }

    /// Bytes of a pointer in the target.
    fn pointer_size(&self) -> usize {
        self.debugger.stamp().pointer_size.unwrap_or(size_of::<u64>())
    }

    fn prompt_text(&self) -> String {
        format!("{}: kd> ", self.debugger.processor())
    }

    /// True if the target is known to be stopped.
    fn is_stopped(&self) -> bool {
        self.source().run_state() == RunState::Stopped
    }
}

/// Shows what the debugger says. A target that asks while it is being stopped is told to go on: it cannot be stopped otherwise.
struct ShellObserver<'a> {
    report: &'a Report,
    teller: &'a Teller,
}

impl Observer for ShellObserver<'_> {
    fn notice(&mut self, notice: &Notice<'_>) {
        self.teller.tell();
        self.report.notice(notice);
    }

    fn prompt(&mut self, _: &DebugIo) -> Bytes {
        self.teller.tell();
        Bytes::from_static(IGNORE)
    }
}
