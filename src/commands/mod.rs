//! Commands: what a user types, what is asked of the target for it, and what is answered.
//!
//! ```text
//!  "!verifier 3 myfault.sys" --find--> CommandSpec --run--> Query --Target--> Answer (plain data)
//!                                                                               |-> text, as WinDbg prints it
//!                                                                               `-> JSON, with the same facts and more
//! ```
//! A query reads and formats nothing; an answer formats and reads nothing. No query has a session, so none can let the
//! target run: commands that can are [`ControlCommand`]s, which the shell carries out.

mod arguments;
mod bugcheck;
mod dt;
mod echo;
mod evaluate;
mod examine;
mod expression;
mod help;
mod known;
pub mod line;
mod memory;
mod modules;
mod pattern;
mod registers;
mod reload;
mod symbol_path;
pub mod verifier;
mod version;

use std::fmt;

use serde::Serialize;

pub use arguments::number;
pub use bugcheck::{BugCheck, BugCheckQuery};
pub use expression::{Expression, ExpressionCause, ExpressionError};
pub use help::Help;
pub use modules::{ModuleTable, Modules};
pub use reload::Reloaded;
pub use symbol_path::{Noise, SearchPath};
pub use verifier::VerifierFormat;
pub use version::{TargetVersion, Version};

use crate::output::{Screen, screened};
use crate::target::{ReadCause, SymbolSource, Target, TargetError};

/// A question to the stopped target.
pub trait Query {
    /// What it is answered with.
    type Answer: Answer;

    /// Reads what is needed, and no more.
    ///
    /// # Errors
    /// [`QueryError`] if there is no answer at all; an answer with gaps says so in its [`notes`](Answer::notes).
    fn run(&self, target: &Target<'_>) -> Result<Self::Answer, QueryError>;
}

/// What a command found: plain data.
pub trait Answer: Serialize {
    /// Writes it as WinDbg would, without the notes.
    ///
    /// # Errors
    /// The writer's.
    fn write_text(&self, out: &mut dyn fmt::Write) -> fmt::Result;

    /// Writes it in a style that the reader chose; most answers have one only.
    ///
    /// # Errors
    /// The writer's.
    fn write_styled(&self, _style: &Style, out: &mut dyn fmt::Write) -> fmt::Result {
        self.write_text(out)
    }

    /// What the reader must know beside it: what is missing, and why.
    fn notes(&self) -> &[Note] {
        &[]
    }
}

/// What a reader has chosen about the text of answers. No fact in an answer depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// How `!verifier` prints.
    pub verifier: VerifierFormat,
}

/// Something said beside an answer; text shows it after the answer, JSON in `notes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// How much it takes from the answer.
    pub kind: NoteKind,
    /// One or more sentences.
    pub text: String,
}

impl Note {
    /// Worth knowing; the answer is whole.
    pub fn remark(text: impl AsRef<str>) -> Self {
        Self::new(NoteKind::Remark, text.as_ref())
    }

    /// Something is missing in the answer.
    pub fn partial(text: impl AsRef<str>) -> Self {
        Self::new(NoteKind::Partial, text.as_ref())
    }

    /// What was asked for is not there.
    pub fn failed(text: impl AsRef<str>) -> Self {
        Self::new(NoteKind::Failed, text.as_ref())
    }

    /// Notes are sentences for people, also in JSON.
    fn new(kind: NoteKind, text: &str) -> Self {
        Self { kind, text: screened(text) }
    }
}

/// How much a [`Note`] takes from its answer; a script's exit code follows the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NoteKind {
    /// Nothing.
    Remark,
    /// A part of it.
    Partial,
    /// What was asked for.
    Failed,
}

/// An [`Answer`] whose type is not known: what the shell gets of any command. It may be printed by another thread.
pub trait AnyAnswer: Send {
    /// Writes it as WinDbg would, without the notes.
    ///
    /// # Errors
    /// The writer's.
    fn write_text(&self, out: &mut dyn fmt::Write) -> fmt::Result;

    /// The same in a style that the reader chose.
    ///
    /// # Errors
    /// The writer's.
    fn write_styled(&self, style: &Style, out: &mut dyn fmt::Write) -> fmt::Result;

    /// What the reader must know beside it.
    fn notes(&self) -> &[Note];

    /// The worst of its notes; nothing if it has none.
    fn worst(&self) -> Option<NoteKind> {
        self.notes().iter().map(|note| note.kind).max()
    }

    /// All its facts, notes included.
    ///
    /// # Errors
    /// None for the answers of this program.
    fn to_json(&self) -> serde_json::Result<serde_json::Value>;
}

impl<A: Answer + Send> AnyAnswer for A {
    // Whatever an answer prints reaches its reader through a screen: here, so that no command can forget it.
    fn write_text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        Answer::write_text(self, &mut Screen(out))
    }

    fn write_styled(&self, style: &Style, out: &mut dyn fmt::Write) -> fmt::Result {
        Answer::write_styled(self, style, &mut Screen(out))
    }

    fn notes(&self) -> &[Note] {
        Answer::notes(self)
    }

    fn to_json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }
}

/// Runs a query, and sees to what every answer owes its reader: see [`told`].
///
/// # Errors
/// The query's; [`QueryError::Lost`].
pub fn ask(run: fn(&str, &Target<'_>) -> Answered, arguments: &str, target: &Target<'_>) -> Answered {
    told(run(arguments, target), target)
}

/// An answer with what has to be said of how it came about: that reading was broken off, that the list of modules is not
/// whole, which built-in layouts it rests on. On a 32-bit target its notes and errors have addresses of eight digits.
///
/// # Errors
/// The query's. [`QueryError::Lost`] if reading was broken off and the answer would tell something as not there: what was
/// not read is not known.
pub fn told(answered: Answered, target: &Target<'_>) -> Answered {
    let is_narrow = target.pointer_size() == 4;
    let over = target.over();
    let answer = match (answered, over) {
        (Ok(answer), Some(cause)) if !bears(&*answer, cause) => return Err(QueryError::Lost(cause.clone())),
        (Ok(answer), _) => answer,
        (Err(error), Some(cause)) if !names(&error.to_string(), cause) => {
            return Err(QueryError::Lost(cause.clone()));
        }
        (Err(error), _) if is_narrow => return Err(QueryError::Narrow(Box::new(error))),
        (Err(error), _) => return Err(error),
    };
    let mut added = Vec::new();
    let is_said = |what: &str| answer.notes().iter().any(|note| note.text.contains(what));
    if let Some(cause) = over.filter(|cause| !is_said_of(&*answer, cause)) {
        added.push(Note::partial(format!(
            "Reading was broken off: {cause}. What is missing here is not known."
        )));
    } else if let Some(trouble) = target.missed_names().filter(|trouble| !is_said(trouble)) {
        added.push(Note::partial(format!(
            "Some addresses have no name, because the list of modules is not whole: {trouble}"
        )));
    }
    added.extend(target.built_in_note().map(Note::remark));
    if added.is_empty() && !is_narrow {
        return Ok(answer);
    }
    let mut notes = answer.notes().to_vec();
    notes.extend(added);
    if is_narrow {
        notes.iter_mut().for_each(|note| note.text = narrow(&note.text));
    }
    Ok(Box::new(Announced { answer, notes }))
}

/// True if an answer stays true although reading was broken off for `cause`: nothing in it is told as not there, and it
/// is not of two boots.
fn bears(answer: &dyn AnyAnswer, cause: &ReadCause) -> bool {
    let is_claim = |note: &Note| note.kind == NoteKind::Failed && !names(&note.text, cause);
    *cause != ReadCause::TargetRestarted && !answer.notes().iter().any(is_claim)
}

/// True if a note says that something is missing for `cause`.
fn is_said_of(answer: &dyn AnyAnswer, cause: &ReadCause) -> bool {
    answer.notes().iter().any(|note| note.kind > NoteKind::Remark && names(&note.text, cause))
}

fn names(text: &str, cause: &ReadCause) -> bool {
    text.contains(&cause.to_string())
}

/// Addresses as wide as a 32-bit target's: none of them has an upper half, so these digits say nothing.
fn narrow(text: &str) -> String {
    text.replace("00000000`", "")
}

/// An answer, and what has to be said of it besides.
struct Announced {
    answer: Box<dyn AnyAnswer>,
    /// The answer's, and more.
    notes: Vec<Note>,
}

impl AnyAnswer for Announced {
    fn write_text(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        self.answer.write_text(out)
    }

    fn write_styled(&self, style: &Style, out: &mut dyn fmt::Write) -> fmt::Result {
        self.answer.write_styled(style, out)
    }

    fn notes(&self) -> &[Note] {
        &self.notes
    }

    fn to_json(&self) -> serde_json::Result<serde_json::Value> {
        let mut json = self.answer.to_json()?;
        if let Some(facts) = json.as_object_mut() {
            facts.insert("notes".to_owned(), serde_json::to_value(&self.notes)?);
        }
        Ok(json)
    }
}

/// What running a command gives.
pub type Answered = Result<Box<dyn AnyAnswer>, QueryError>;

/// Why a command has no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// No command has this name.
    #[error("unknown command {name}{}; .help lists the commands", meant(.nearest))]
    Unknown {
        /// What was typed.
        name: String,
        /// Commands whose names are near.
        nearest: Vec<&'static str>,
    },
    /// WinDbg has this command, this program has not.
    #[error("{name}: {sentence}")]
    NotHere {
        /// What was typed.
        name: String,
        /// What it would need, and what comes nearest.
        sentence: &'static str,
    },
    /// Reading was broken off, so there is no answer that would not tell what is not known.
    #[error("reading was broken off: {0}; nothing was found out")]
    Lost(ReadCause),
    /// An error of a 32-bit target, whose addresses have eight digits.
    #[error("{}", narrow(&.0.to_string()))]
    Narrow(Box<Self>),
    /// A line cannot be carried out as it is meant.
    #[error("{reason}")]
    Line {
        /// Why, and what to do.
        reason: String,
    },
    /// An argument is not of a form that the command takes.
    #[error("{command}: {problem}\nusage: {usage}")]
    Usage {
        /// The command.
        command: &'static str,
        /// What is wrong.
        problem: String,
        /// What it takes.
        usage: &'static str,
    },
    /// The target did not give what the command needs.
    #[error("{command}: {source}")]
    Target {
        /// The command.
        command: &'static str,
        /// Why.
        source: TargetError,
    },
    /// An argument is an expression without a value.
    #[error("{command}: {source}")]
    Expression {
        /// The command.
        command: &'static str,
        /// Where and why.
        source: ExpressionError,
    },
    /// The kernel keeps no such log.
    #[error("{command}: {reason}")]
    NoData {
        /// The command.
        command: &'static str,
        /// Why, and what to do.
        reason: String,
    },
}

/// `, which may be !verifier`.
fn meant(nearest: &[&str]) -> String {
    if nearest.is_empty() { String::new() } else { format!(" (is {} meant?)", nearest.join(" or ")) }
}

impl QueryError {
    /// The error for a name that no command has.
    pub(crate) fn unknown(name: &str) -> Self {
        match known::sentence(name) {
            Some(sentence) => Self::NotHere { name: name.to_owned(), sentence },
            None => Self::Unknown { name: name.to_owned(), nearest: known::nearest(name) },
        }
    }

    /// True if the user's line is wrong, not the target: exit code 2.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Unknown { .. } | Self::NotHere { .. } | Self::Line { .. } | Self::Usage { .. } => true,
            Self::Expression { source, .. } => matches!(source.cause(), ExpressionCause::Syntax(_)),
            Self::Narrow(error) => error.is_usage(),
            _ => false,
        }
    }
}

/// One command of the prompt.
#[derive(Debug)]
pub struct CommandSpec {
    /// Its name, then other names for it.
    pub names: &'static [&'static str],
    /// How it is typed.
    pub usage: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// What it needs.
    pub needs: Needs,
    /// How it is run.
    pub run: Run,
}

impl CommandSpec {
    /// True if something may follow the name.
    #[must_use]
    pub fn takes_arguments(&self) -> bool {
        self.usage != self.names[0]
    }

    /// What it does to the machine and the session.
    #[must_use]
    pub const fn effect(&self) -> Effect {
        match self.run {
            Run::Query(_) => Effect::Reads,
            Run::Symbols(_) => Effect::Symbols,
            Run::Local(_) | Run::Control(ControlCommand::Statistics | ControlCommand::VerifierFormat) => {
                Effect::Nothing
            }
            Run::Control(ControlCommand::Go) => Effect::Runs,
            Run::Control(ControlCommand::Reboot) => Effect::Reboots,
            Run::Control(ControlCommand::Quit | ControlCommand::QuitDetach) => Effect::Ends,
        }
    }
}

/// What a command does to the machine and the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// Reads the stopped target.
    Reads,
    /// Changes where symbols come from, or which are loaded.
    Symbols,
    /// Lets the target run.
    Runs,
    /// Restarts the machine.
    Reboots,
    /// Lets the target run and ends the session.
    Ends,
}

impl Effect {
    /// That of a command as it is typed; nothing if there is no such command.
    #[must_use]
    pub fn of(command: &str) -> Self {
        find(command).map_or(Self::Nothing, |(spec, _)| spec.effect())
    }

    /// True if it must not follow a command of the same line that failed: whoever typed them meant both or none.
    #[must_use]
    pub const fn changes_machine(self) -> bool {
        matches!(self, Self::Runs | Self::Reboots | Self::Ends)
    }
}

/// What a command needs of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing, not even a target.
    Nothing,
    /// A target, running or stopped.
    Target,
    /// A stopped target.
    Stopped,
}

/// How a command is run. Arguments are the rest of the line after the name, trimmed.
#[derive(Clone, Copy, Debug)]
pub enum Run {
    /// Asks the stopped target. Gets no session, so it cannot let the target run.
    Query(fn(arguments: &str, target: &Target<'_>) -> Answered),
    /// Answers without a target.
    Local(fn(arguments: &str) -> Answered),
    /// Changes where symbols come from, or which are loaded; the target is there if it is stopped.
    Symbols(fn(arguments: &str, source: &SymbolSource, target: Option<&Target<'_>>) -> Answered),
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
}

/// Every command, in the order in which `.help` lists them.
pub static COMMANDS: &[&CommandSpec] = &[
    &verifier::COMMAND,
    &verifier::format::COMMAND,
    &modules::COMMAND,
    &examine::EXAMINE,
    &examine::LIST_NEAREST,
    &dt::COMMAND,
    &memory::D,
    &memory::DA,
    &memory::DB,
    &memory::DC,
    &memory::DD,
    &memory::DDS,
    &memory::DP,
    &memory::DPS,
    &memory::DQ,
    &memory::DQS,
    &memory::DS_ANSI,
    &memory::DS_UNICODE,
    &memory::DU,
    &memory::DW,
    &memory::S,
    &registers::COMMAND,
    &evaluate::EVALUATE,
    &evaluate::FORMATS,
    &echo::COMMAND,
    &version::COMMAND,
    &version::VERSION,
    &bugcheck::COMMAND,
    &symbol_path::SYMFIX,
    &symbol_path::SYMPATH,
    &symbol_path::SYMPATH_APPEND,
    &reload::COMMAND,
    &symbol_path::SYM,
    &help::COMMAND,
    &STATISTICS,
    &GO,
    &REBOOT,
    &QUIT,
    &QUIT_DETACH,
];

static GO: CommandSpec = CommandSpec {
    names: &["g"],
    usage: "g",
    summary: "let the target run",
    needs: Needs::Stopped,
    run: Run::Control(ControlCommand::Go),
};

static REBOOT: CommandSpec = CommandSpec {
    names: &[".reboot"],
    usage: ".reboot",
    summary: "restart the target machine",
    needs: Needs::Stopped,
    run: Run::Control(ControlCommand::Reboot),
};

static STATISTICS: CommandSpec = CommandSpec {
    names: &[".kdstats"],
    usage: ".kdstats",
    summary: "show what each command cost: requests, datagrams, time the target stood still",
    needs: Needs::Nothing,
    run: Run::Control(ControlCommand::Statistics),
};

static QUIT: CommandSpec = CommandSpec {
    names: &["q", "quit", "exit", "qq"],
    usage: "q",
    summary: "let the target run and end the session",
    needs: Needs::Nothing,
    run: Run::Control(ControlCommand::Quit),
};

static QUIT_DETACH: CommandSpec = CommandSpec {
    names: &["qd", ".detach"],
    usage: "qd",
    summary: "let the target run and end the session",
    needs: Needs::Nothing,
    run: Run::Control(ControlCommand::QuitDetach),
};

/// Commands whose arguments may follow without a space, and what glues them: `?1+2`, `lmvm`, `s-d`. Options with a slash
/// may follow any.
const GLUED: [(&str, &str); 5] = [("?", ""), ("lm", ""), ("s", "-"), ("dt", "-"), ("!verifier", "-")];
/// The extensions whose commands are built in: `!kdexts.verifier`.
const EXTENSIONS: [&str; 4] = ["!kdexts.", "!kext.", "!ext.", "!ntsdexts."];

/// The command that a line of the prompt names, and its arguments.
///
/// # Errors
/// [`QueryError::Unknown`] or [`QueryError::NotHere`]; [`QueryError::Usage`] if something follows a command that takes
/// nothing. An empty line names no command: the caller leaves those out.
pub fn find(line: &str) -> Result<(&'static CommandSpec, &str), QueryError> {
    let line = line.trim();
    let (name, arguments) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    // `?` alone asks for help, with an expression for its value.
    let name = if line == "?" { help::COMMAND.names[0] } else { name };
    let extension = EXTENSIONS.iter().find(|extension| {
        name.get(..extension.len()).is_some_and(|start| start.eq_ignore_ascii_case(extension))
    });
    let own;
    let name = match extension {
        Some(extension) => {
            own = format!("!{}", &name[extension.len()..]);
            own.as_str()
        }
        None => name,
    };
    // `ds` and `dS` are two commands, `dd` and WinDbg's `dD` too; elsewhere case says nothing.
    let exact = |spec: &&&CommandSpec| spec.names.contains(&name);
    let named = |spec: &&&CommandSpec| spec.names.iter().any(|known| known.eq_ignore_ascii_case(name));
    if known::is_exact(name) {
        return Err(QueryError::unknown(name));
    }
    if let Some(spec) = COMMANDS.iter().find(exact).or_else(|| COMMANDS.iter().find(named)) {
        return checked(spec, arguments.trim());
    }
    // WinDbg's users type `?1+2`, `lmvm nt` and `.reload/f`.
    let glued = |spec: &&&CommandSpec| {
        let glue = GLUED.iter().find(|(known, _)| *known == spec.names[0]).map_or("/", |(_, glue)| glue);
        let rest = name.strip_prefix(spec.names[0]).filter(|rest| !rest.is_empty());
        rest.is_some_and(|rest| rest.starts_with(glue) || rest.starts_with('/'))
    };
    match COMMANDS
        .iter()
        .find(glued)
        .filter(|_| extension.is_none())
        .filter(|_| known::sentence(name).is_none())
    {
        Some(spec) => checked(spec, line[spec.names[0].len()..].trim()),
        None => Err(QueryError::unknown(name)),
    }
}

/// The command, if it takes what was typed behind its name.
fn checked<'a>(
    spec: &'static CommandSpec,
    arguments: &'a str,
) -> Result<(&'static CommandSpec, &'a str), QueryError> {
    if arguments.is_empty() || spec.takes_arguments() {
        return Ok((spec, arguments));
    }
    let problem = match spec.effect() {
        Effect::Runs => format!("`{arguments}`: there are no breakpoints here yet, so it takes no address"),
        _ => format!("it takes nothing, so `{arguments}` is too much"),
    };
    Err(QueryError::Usage { command: spec.names[0], problem, usage: spec.usage })
}

/// Runs a query and forgets the type of its answer.
fn answer<Q: Query>(query: &Q, target: &Target<'_>) -> Answered
where
    Q::Answer: Send + 'static,
{
    Ok(Box::new(query.run(target)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_its_command_and_arguments() {
        let (spec, arguments) = find("  !Verifier \t 3  myfault.sys ").unwrap();
        assert_eq!((spec.names[0], arguments), ("!verifier", "3  myfault.sys"));
        assert_eq!(find("g").unwrap().1, "");
        for (line, name, rest) in
            [("?1+2", "?", "1+2"), ("lmvm nt", "lm", "vm nt"), ("lm vm nt", "lm", "vm nt")]
        {
            let (spec, arguments) = find(line).unwrap();
            assert_eq!((spec.names[0], arguments), (name, rest));
        }
        for (line, name, rest) in [
            ("!kdexts.verifier 3 x", "!verifier", "3 x"),
            ("s-d nt L4 1", "s", "-d nt L4 1"),
            ("!verifier/?", "!verifier", "/?"),
            ("dS nt", "dS", "nt"),
            ("ds nt", "ds", "nt"),
            ("DD nt", "dd", "nt"),
        ] {
            let (spec, arguments) = find(line).unwrap();
            assert_eq!((spec.names[0], arguments), (name, rest), "{line}");
        }
        assert!(find("dD nt").is_err() && find("!kdexts.process").is_err());
        for (line, name, rest) in
            [("?", ".help", ""), (".reload/f", ".reload", "/f"), ("help lm", ".help", "lm")]
        {
            let (spec, arguments) = find(line).unwrap();
            assert_eq!((spec.names[0], arguments), (name, rest));
        }
        let error = |line| find(line).unwrap_err().to_string();
        assert_eq!(error("!verfy"), "unknown command !verfy; .help lists the commands");
        assert_eq!(
            error("!verifer 3"),
            "unknown command !verifer (is !verifier meant?); .help lists the commands"
        );
        assert!(error("?? 1").starts_with("??: C++ expressions"));
        assert!(error("kb").contains("no stack walk here yet; `dps @rsp L40`"));
    }

    #[test]
    fn what_follows_a_command_that_takes_nothing_is_an_error_of_usage() {
        for line in
            [".reboot now please", "g 1234", "q q", "qd x", "vertarget x", ".bugcheck 1", ".kdstats x"]
        {
            let error = find(line).unwrap_err();
            assert!(error.is_usage() && error.to_string().contains("usage: "), "{line}: {error}");
            assert_eq!(Effect::of(line), Effect::Nothing, "{line}");
        }
        assert!(find("g 1234").unwrap_err().to_string().contains("no breakpoints"));
        for (line, effect) in [
            ("g", Effect::Runs),
            (".reboot", Effect::Reboots),
            ("exit", Effect::Ends),
            (".detach", Effect::Ends),
            ("lm", Effect::Reads),
            (".sympath /x", Effect::Symbols),
        ] {
            assert_eq!(Effect::of(line), effect, "{line}");
        }
        let changing: Vec<_> = COMMANDS
            .iter()
            .filter(|spec| spec.effect().changes_machine())
            .map(|spec| spec.names[0])
            .collect();
        assert_eq!(changing, ["g", ".reboot", "q", "qd"]);
    }

    #[test]
    fn no_two_commands_share_a_name_and_each_usage_begins_with_its_own() {
        let mut names: Vec<_> = COMMANDS.iter().flat_map(|spec| spec.names).collect();
        names.sort();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        for spec in COMMANDS {
            assert!(spec.usage.starts_with(spec.names[0]), "{spec:?}");
        }
    }
}
