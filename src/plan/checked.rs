//! A plan that was checked.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use regex::bytes::Regex;
use toml::Spanned;

use super::document::{Document, OnTable, TargetTable};
use super::error::PlanError;
use super::place::Place;
use crate::commands::line::{Line, lines};
use crate::commands::{effect_of, find, named_file};
use crate::session::Connection;

/// Below this a machine would be stopped more often than it runs.
const SHORTEST: Duration = Duration::from_millis(100);
/// A target connects within this: its next offer is three seconds away at most, a restart of the machine a minute or so.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(120);
const BREAK_TIMEOUT: Duration = Duration::from_secs(15);
/// More are no plan.
const MOST_TARGETS: usize = 64;

/// Which targets are stopped when, and what they are asked.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where files are written, a folder for each target.
    pub out: PathBuf,
    /// It ends after this long.
    pub length: Option<Duration>,
    /// It ends for a target after so many events.
    pub count: Option<u64>,
    /// How long a stop may take.
    pub freeze_budget: Option<Duration>,
    /// How long all stops of a target may take.
    pub total_freeze_budget: Option<Duration>,
    /// A target that has not come by then is not waited for any longer.
    pub connect_timeout: Duration,
    /// The same for one that is to stop.
    pub break_timeout: Duration,
    /// The targets, which are debugged side by side.
    pub targets: Vec<PlannedTarget>,
}

/// One target of a plan.
#[derive(Clone, Debug)]
pub struct PlannedTarget {
    /// What it is called: a folder's name.
    pub name: String,
    /// Where it is.
    pub connection: Connection,
    /// Its symbol path; the environment's if it has none.
    pub symbols: Option<String>,
    /// What is done when.
    pub on: Vec<Planned>,
}

/// What is done when something happens.
#[derive(Clone, Debug)]
pub struct Planned {
    /// What has to happen.
    pub happening: Happening,
    /// What is asked. `{event}` stands for the event's files, without their extension.
    pub commands: Vec<String>,
    /// A dump is written too.
    pub dump: Option<Dump>,
    /// What becomes of the machine.
    pub then: Then,
}

/// What has to happen.
#[derive(Clone, Debug)]
pub enum Happening {
    /// So much time passes.
    Every(Duration),
    /// The target prints a line that fits.
    Print(Regex),
    /// A driver is loaded; the machine is stopped right after it.
    Load(String),
    /// A driver is unloaded; the machine is stopped right after it.
    Unload(String),
    /// The machine bug-checks.
    BugCheck,
    /// An assertion fails.
    Assertion,
    /// The machine stops by itself for another reason.
    Stop,
}

impl Happening {
    /// What it is called in names of files.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Every(_) => "every",
            Self::Print(_) => "print",
            Self::Load(_) => "load",
            Self::Unload(_) => "unload",
            Self::BugCheck => "bug-check",
            Self::Assertion => "assertion",
            Self::Stop => "stop",
        }
    }
}

/// Which pages a dump has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dump {
    /// All of RAM.
    Full,
    /// What the kernel has mapped.
    Kernel,
    /// What was read.
    Used,
}

impl Dump {
    /// As it is written in a plan.
    ///
    /// # Errors
    /// What can be written.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "full" => Ok(Self::Full),
            "kernel" => Ok(Self::Kernel),
            "used" => Ok(Self::Used),
            other => Err(format!("`{other}` is no kind of dump: full, kernel, used")),
        }
    }

    /// The option of `.dump`.
    #[must_use]
    pub const fn option(self) -> &'static str {
        match self {
            Self::Full => "/f",
            Self::Kernel => "/ka",
            Self::Used => "/used",
        }
    }
}

/// What becomes of the machine after an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Then {
    /// It runs on.
    #[default]
    Run,
    /// It restarts.
    Reboot,
    /// It is left stopped, and the plan ends for it.
    Stop,
}

impl Then {
    /// As it is written in a plan.
    ///
    /// # Errors
    /// What can be written.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "run" => Ok(Self::Run),
            "reboot" => Ok(Self::Reboot),
            "stop" => Ok(Self::Stop),
            other => Err(format!("`{other}` is nothing that can become of a machine: run, reboot, stop")),
        }
    }
}

impl Plan {
    /// A plan for one target, which is stopped at an interval.
    #[must_use]
    pub fn simple(target: PlannedTarget, out: PathBuf) -> Self {
        Self {
            out,
            length: None,
            count: None,
            freeze_budget: None,
            total_freeze_budget: None,
            connect_timeout: CONNECT_TIMEOUT,
            break_timeout: BREAK_TIMEOUT,
            targets: vec![target],
        }
    }

    /// Reads and checks a plan.
    ///
    /// # Errors
    /// [`PlanError`]: the first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let document: Document = toml::from_str(text).map_err(|error| {
            PlanError::new(error.span().map(|span| Place::of(text, &span)), error.message())
        })?;
        Reader { text }.plan(document)
    }
}

/// True if a target may be called so: it names a folder, on every system.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.is_empty() && name.len() <= 64 && !name.starts_with('.') && name.chars().all(is_plain)
}

/// The commands of a text of a plan.
///
/// # Errors
/// Why one of them cannot.
pub fn check_commands(text: &str) -> Result<Vec<String>, String> {
    let mut commands = Vec::new();
    for line in lines(text) {
        if let Line::Refused { why, .. } = &line {
            return Err(why.to_string());
        }
        for command in line.commands() {
            find(command).map_err(|error| error.to_string())?;
            if named_file(command).is_some() {
                return Err(format!("`{command}`: a plan is one file; put the commands into it"));
            }
            if effect_of(command).changes_machine() {
                return Err(format!(
                    "`{command}`: the plan lets the machine run by itself; `then` says what becomes of it"
                ));
            }
            commands.push(command.clone());
        }
    }
    Ok(commands)
}

/// A time as it is written: `60s`, `1h 30m`.
///
/// # Errors
/// What would be one.
pub fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("`{text}` is no time like 90s or 1h 30m: {error}"))
}

/// An interval: long enough that the machine runs in between.
///
/// # Errors
/// That it is too short.
pub fn interval(text: &str) -> Result<Duration, String> {
    let every = time(text)?;
    if every < SHORTEST {
        return Err(format!("`{text}`: {SHORTEST:?} at the least, so that the target has time to run"));
    }
    Ok(every)
}

struct Reader<'a> {
    text: &'a str,
}

impl Reader<'_> {
    fn plan(&self, document: Document) -> Result<Plan, PlanError> {
        let own_commands = self.commands(&document.commands)?;
        let shared = self.planned(&document.on, &own_commands)?;
        if document.target.is_empty() {
            return Err(PlanError::new(None, "the plan has no [[target]]"));
        }
        if document.target.len() > MOST_TARGETS {
            return Err(PlanError::new(None, format!("{MOST_TARGETS} targets at the most")));
        }
        let mut targets: Vec<PlannedTarget> = Vec::new();
        for table in &document.target {
            let target = self.target(table, &shared, &own_commands)?;
            let at = || Some(Place::of(self.text, &table.get_ref().name.span()));
            if targets.iter().any(|other| other.name == target.name) {
                return Err(PlanError::new(at(), format!("two targets are called {}", target.name)));
            }
            let same = |other: &&PlannedTarget| is_same_place(&other.connection, &target.connection);
            if let Some(other) = targets.iter().find(same) {
                let at = Place::of(self.text, &table.get_ref().connection.span());
                let problem =
                    format!("{} is met at the same place: each target has a port of its own", other.name);
                return Err(PlanError::new(Some(at), problem));
            }
            targets.push(target);
        }
        let time_of = |text: &Option<Spanned<String>>| text.as_ref().map(|it| self.of(it, time)).transpose();
        if let Some(count) = document.count.as_ref().filter(|count| *count.get_ref() == 0) {
            return Err(self.at(count.span(), "0 events are none"));
        }
        Ok(Plan {
            out: document.out.unwrap_or_else(|| PathBuf::from("verikd-run")),
            length: time_of(&document.length)?,
            count: document.count.map(Spanned::into_inner),
            freeze_budget: time_of(&document.freeze_budget)?,
            total_freeze_budget: time_of(&document.total_freeze_budget)?,
            connect_timeout: time_of(&document.connect_timeout)?.unwrap_or(CONNECT_TIMEOUT),
            break_timeout: time_of(&document.break_timeout)?.unwrap_or(BREAK_TIMEOUT),
            targets,
        })
    }

    fn target(
        &self,
        table: &Spanned<TargetTable>,
        shared: &[Planned],
        own_commands: &[String],
    ) -> Result<PlannedTarget, PlanError> {
        let TargetTable { name, connection, symbols, on } = table.get_ref();
        let name = self.of(name, |name| {
            is_name(name).then(|| name.to_owned()).ok_or_else(|| {
                format!("`{name}` names a folder: letters, digits, - and _ only, 64 at the most")
            })
        })?;
        let connection =
            self.of(connection, |text| text.parse::<Connection>().map_err(|error| error.to_string()))?;
        let mut planned = self.planned(on, own_commands)?;
        planned.extend(shared.iter().cloned());
        if planned.is_empty() {
            return Err(self.at(table.span(), format!("nothing is to be done with {name}: it has no [[on]]")));
        }
        Ok(PlannedTarget { name, connection, symbols: symbols.clone(), on: planned })
    }

    fn planned(
        &self,
        tables: &[Spanned<OnTable>],
        own_commands: &[String],
    ) -> Result<Vec<Planned>, PlanError> {
        tables.iter().map(|table| self.one(table, own_commands)).collect()
    }

    fn one(&self, table: &Spanned<OnTable>, own_commands: &[String]) -> Result<Planned, PlanError> {
        let OnTable { every, print, load, unload, bug_check, assertion, stop, commands, dump, then } =
            table.get_ref();
        let is_on = |flag: &Option<Spanned<bool>>| flag.as_ref().is_some_and(|it| *it.get_ref());
        let mut happenings = Vec::new();
        if let Some(every) = every {
            happenings.push(Happening::Every(self.of(every, interval)?));
        }
        if let Some(print) = print {
            happenings.push(Happening::Print(
                self.of(print, |text| Regex::new(text).map_err(|it| it.to_string()))?,
            ));
        }
        for (driver, kind) in
            [(load, Happening::Load as fn(String) -> Happening), (unload, Happening::Unload)]
        {
            happenings.extend(driver.as_ref().map(|it| kind(it.get_ref().clone())));
        }
        for (flag, happening) in
            [(bug_check, Happening::BugCheck), (assertion, Happening::Assertion), (stop, Happening::Stop)]
        {
            happenings.extend(is_on(flag).then_some(happening));
        }
        let Ok([happening]) = <[Happening; 1]>::try_from(happenings) else {
            let problem = "an [[on]] has one of every, print, load, unload, bug_check, assertion, stop";
            return Err(self.at(table.span(), problem));
        };
        let commands = match commands {
            Some(commands) => self.commands(commands)?,
            None => own_commands.to_vec(),
        };
        let dump = dump.as_ref().map(|it| self.of(it, Dump::parse)).transpose()?;
        let then = then.as_ref().map(|it| self.of(it, Then::parse)).transpose()?.unwrap_or_default();
        if commands.is_empty()
            && dump.is_none()
            && then == Then::Run
            && !matches!(happening, Happening::BugCheck)
        {
            return Err(
                self.at(table.span(), "nothing is to be done: it has no commands, no dump and no then")
            );
        }
        Ok(Planned { happening, commands, dump, then })
    }

    fn commands(&self, texts: &[Spanned<String>]) -> Result<Vec<String>, PlanError> {
        let each = texts.iter().map(|text| self.of(text, check_commands));
        Ok(each.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// What a text means, or what is wrong with it, and where.
    fn of<T>(
        &self,
        text: &Spanned<String>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, PlanError> {
        read(text.get_ref()).map_err(|problem| self.at(text.span(), problem))
    }

    fn at(&self, span: Range<usize>, problem: impl Into<String>) -> PlanError {
        PlanError::new(Some(Place::of(self.text, &span)), problem)
    }
}

/// True if one place cannot be used for both.
fn is_same_place(one: &Connection, other: &Connection) -> bool {
    match (one, other) {
        (Connection::Net { listen, .. }, Connection::Net { listen: other, .. }) => {
            let is_same_ip =
                listen.ip() == other.ip() || listen.ip().is_unspecified() || other.ip().is_unspecified();
            listen.port() == other.port() && listen.port() != 0 && is_same_ip
        }
        (Connection::Com(line), Connection::Com(other)) => line.port.to_string() == other.port.to_string(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
out = "night"
for = "1h 30m"
count = 5
freeze_budget = "2s"
commands = ["!leaks myfault.sys; lm"]

[[target]]
name = "one"
connection = "net:port=50001,key=1.2.3.4"

[[target.on]]
print = "leak(ed)?"
commands = ["!verifier 3"]

[[target]]
name = "two"
connection = "net:port=50002,key=1.2.3.4"
symbols = "/tmp"

[[on]]
every = "60s"

[[on]]
bug_check = true
dump = "used"
then = "reboot"
"#;

    #[test]
    fn a_plan_is_what_its_text_says() {
        let plan = Plan::parse(GOOD).unwrap();
        assert_eq!((plan.length, plan.count), (Some(Duration::from_secs(5400)), Some(5)));
        let names =
            |target: &PlannedTarget| target.on.iter().map(|it| it.happening.name()).collect::<Vec<_>>();
        assert_eq!(names(&plan.targets[0]), ["print", "every", "bug-check"]);
        assert_eq!(names(&plan.targets[1]), ["every", "bug-check"]);
        assert_eq!(plan.targets[1].on[0].commands, ["!leaks myfault.sys", "lm"]);
        assert_eq!(plan.targets[1].on[1].then, Then::Reboot);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_column() {
        for (good, bad, wanted) in [
            ("count = 5", "count = 0", "4:9: 0 events"),
            ("count = 5", "count = ", "4:9: "),
            ("freeze_budget = \"2s\"", "freeze_budget = \"2 parsecs\"", "5:17: `2 parsecs` is no time"),
            ("lm\"]", "lmm; !verifer 3\"]", "6:13: "),
            ("lm\"]", ".reboot\"]", "6:13: `.reboot`: the plan lets the machine run"),
            ("lm\"]", ".if (1) { lm }\"]", "6:13: .if decides"),
            ("name = \"one\"", "name = \"../one\"", "9:8: `../one` names a folder"),
            ("name = \"two\"", "name = \"one\"", "17:8: two targets are called one"),
            ("port=50002", "port=50001", "18:14: one is met at the same place"),
            ("port=50002", "prot=50002", "18:14: "),
            ("symbols", "smybols", "19:1: unknown field `smybols`"),
            ("leak(ed)?", "leak(ed", "13:9: "),
            ("every = \"60s\"", "every = \"60s\"\nassertion = true", "21:1: an [[on]] has one of"),
            ("every = \"60s\"", "every = \"1ms\"", "22:9: `1ms`: 100ms at the least"),
            ("dump = \"used\"", "dump = \"small\"", "26:8: `small` is no kind of dump"),
            ("then = \"reboot\"", "then = \"explode\"", "27:8: `explode` is nothing"),
        ] {
            assert!(GOOD.contains(good), "{good}");
            let error = Plan::parse(&GOOD.replacen(good, bad, 1)).unwrap_err().to_string();
            assert!(error.starts_with(wanted), "{bad}: {error}");
        }
        assert!(Plan::parse("").unwrap_err().to_string().contains("no [[target]]"));
        let secret = GOOD.replace("port=50002,key=1.2.3.4", "prot=50002,key=5.6.7.8");
        assert!(!Plan::parse(&secret).unwrap_err().to_string().contains("5.6.7.8"));
    }
}
