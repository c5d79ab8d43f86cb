//! What is known of a command before it is run: its names, what it does to the machine, how it is run.

use serde::Serialize;

use super::answer::Found;
use super::schema::Schema;
use crate::target::{Notes, SymbolSource, Target};

/// One command of the prompt.
#[derive(Debug)]
pub struct CommandSpec {
    /// Its name, then other names for it.
    pub names: &'static [&'static str],
    /// How it is typed: capitals are to be filled in, everything else stands for itself.
    pub usage: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// What may follow its name.
    pub takes: Takes,
    /// Which commands it is of a kind with.
    pub category: Category,
    /// Its forms and options, and what each is for: for `.help NAME`.
    pub details: &'static [(&'static str, &'static str)],
    /// The forms of what it is answered with; `.kdstats` is answered by the debugger.
    pub answers: &'static [Schema],
    /// How it is run.
    pub run: Run,
}

impl CommandSpec {
    /// What it does to the machine and the session.
    #[must_use]
    pub const fn effect(&self) -> Effect {
        match self.run {
            Run::Query(_) => Effect::Reads,
            Run::Change(_) => Effect::Writes,
            Run::Symbols(_) => Effect::Symbols,
            Run::Local(_)
            | Run::Control(
                ControlCommand::Statistics
                | ControlCommand::VerifierFormat
                | ControlCommand::ShortStops
                | ControlCommand::File
                | ControlCommand::LastEvent
                | ControlCommand::EchoTime
                | ControlCommand::More
                | ControlCommand::LogOpen
                | ControlCommand::LogAppend
                | ControlCommand::LogClose
                | ControlCommand::LogFile
                | ControlCommand::AllowWrite
                | ControlCommand::SetBreakpoint
                | ControlCommand::SetBreakpointOnAccess
                | ControlCommand::ListBreakpoints
                | ControlCommand::ClearBreakpoints
                | ControlCommand::DisableBreakpoints
                | ControlCommand::EnableBreakpoints,
            ) => Effect::Nothing,
            Run::Control(
                ControlCommand::Go
                | ControlCommand::PoolHit
                | ControlCommand::Trace
                | ControlCommand::StepOver
                | ControlCommand::StepOut,
            ) => Effect::Runs,
            Run::Control(ControlCommand::Reboot | ControlCommand::Restart) => Effect::Reboots,
            Run::Control(ControlCommand::Quit | ControlCommand::QuitDetach) => Effect::Ends,
        }
    }
}

/// What may follow a command's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Nothing.
    Nothing,
    /// Words and expressions, up to the next `;`; some may follow without a space.
    Arguments(Glued),
    /// The name of a command.
    Command,
    /// A symbol path up to the end of the line, `;` included, unless it stands in quotes.
    Path,
}

/// What may follow a command's name without a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glued {
    /// Options with a slash, as they may follow any: `.reload/f`.
    Slash,
    /// Those with a dash too: `s-d`.
    Dash,
    /// A number or an equals sign: `k5`, `k=`.
    Number,
    /// Anything: `?1+2`, `lmvm`.
    Anything,
}

impl Takes {
    /// True if `rest` may follow the name without a space.
    pub(super) fn glues(self, rest: &str) -> bool {
        match self {
            Self::Arguments(Glued::Anything) => true,
            Self::Arguments(Glued::Dash) => rest.starts_with(['-', '/']),
            Self::Arguments(Glued::Number) => rest.starts_with(|c: char| c == '=' || c.is_ascii_digit()),
            Self::Arguments(Glued::Slash) | Self::Command | Self::Path | Self::Nothing => {
                rest.starts_with('/')
            }
        }
    }
}

/// Commands of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// Driver Verifier.
    Verifier,
    /// Kernel pool.
    Pool,
    /// Modules, symbols and where they come from.
    Symbols,
    /// Memory, structures, registers, expressions.
    Memory,
    /// The machine as a whole.
    Target,
    /// The session with it.
    Session,
}

impl Category {
    /// Above the list of its commands.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Verifier => "Driver Verifier",
            Self::Pool => "Pool",
            Self::Symbols => "Modules and symbols",
            Self::Memory => "Memory, structures, expressions",
            Self::Target => "The machine",
            Self::Session => "The session",
        }
    }
}

/// What a command does to the machine and the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// Reads the stopped target.
    Reads,
    /// Changes where symbols come from, or which are loaded.
    Symbols,
    /// Changes the stopped target's memory or registers.
    Writes,
    /// Lets the target run.
    Runs,
    /// Restarts the machine.
    Reboots,
    /// Lets the target run and ends the session.
    Ends,
}

impl Effect {
    /// True if only a target that can run can be asked for it.
    #[must_use]
    pub const fn needs_live_target(self) -> bool {
        matches!(self, Self::Runs | Self::Reboots)
    }

    /// True if it must not follow a command of the same line that failed: whoever typed them meant both or none.
    #[must_use]
    pub const fn changes_machine(self) -> bool {
        matches!(self, Self::Writes | Self::Runs | Self::Reboots | Self::Ends)
    }
}

/// A command about symbols. What is to be said beside its answer is added to `notes`.
pub type SymbolCommand =
    fn(arguments: &str, source: &SymbolSource, target: Option<&Target<'_>>, notes: &Notes) -> Found;

/// How a command is run. Arguments are the rest of the line after the name, trimmed.
#[derive(Clone, Copy, Debug)]
pub enum Run {
    /// Asks the stopped target. Gets no session, so it cannot let the target run.
    Query(fn(arguments: &str, target: &Target<'_>) -> Found),
    /// The same, and changes the target, which it can: only where that is allowed.
    Change(fn(arguments: &str, target: &Target<'_>) -> Found),
    /// Answers without a target; `commands` are all there are.
    Local(fn(arguments: &str, commands: &'static [&'static CommandSpec]) -> Found),
    /// Changes where symbols come from, or which are loaded; the target is there if it is stopped.
    Symbols(SymbolCommand),
    /// The shell carries it out.
    Control(ControlCommand),
}

/// A command that changes the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlCommand {
    /// Lets the target run.
    Go,
    /// Ends the session.
    Quit,
    /// Lets the target run and ends the session.
    QuitDetach,
    /// Restarts the machine.
    Reboot,
    /// Shows what the commands so far cost.
    Statistics,
    /// Shows or chooses how `!verifier` prints.
    VerifierFormat,
    /// Runs the commands of a file.
    File,
    /// Restarts the machine and stops it.
    Restart,
    /// Shows why the target stopped the last time.
    LastEvent,
    /// Shows this machine's time.
    EchoTime,
    /// Shows the next rows of a long answer.
    More,
    /// Begins a log file.
    LogOpen,
    /// Goes on with one.
    LogAppend,
    /// Ends it.
    LogClose,
    /// Shows whether there is one.
    LogFile,
    /// Lets commands change the target, or lets them no more.
    AllowWrite,
    /// Shows or chooses how long one stop of a question may take.
    ShortStops,
    /// Lets the target run, and takes the stack of whoever uses a tag.
    PoolHit,
    /// Lets the processor carry out one instruction.
    Trace,
    /// The same, a call to its end.
    StepOver,
    /// Lets the target run until the function returns.
    StepOut,
    /// Makes the target stop at an address.
    SetBreakpoint,
    /// The same for an access to it.
    SetBreakpointOnAccess,
    /// Shows where.
    ListBreakpoints,
    /// Makes it stop there no more.
    ClearBreakpoints,
    /// The same for a while.
    DisableBreakpoints,
    /// Ends that.
    EnableBreakpoints,
}
