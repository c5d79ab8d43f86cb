//! `verikd run`: breaks and dumps by a plan, of several targets side by side.
//!
//! Exit codes: those of a run, of the target that came off worst.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use verikd::debugger::Debugger;
use verikd::key::KeyText;
use verikd::plan::{Dump, Happening, Plan, Planned, PlannedTarget, Then, check_commands, interval, is_name};
use verikd::session::{AttachError, Connection, Prompts, Quit, Session, SessionConfig, Signal, Watcher};
use verikd::shell::run::{RunSummary, TargetRun, TargetSummary, run as run_target};
use verikd::shell::{
    Codes, Drained, Format, Report, Shell, Worst, Writer, exit_code_of, keep_each, own_line, own_value,
};
use verikd::source::Source;
use verikd::symbols::store::{Limits, SymbolPath, SymbolSource};

use super::debug::news_of_waiting;
use super::exit::{FAILED, USAGE, fail};
use super::visible_key::warn_of_visible_key;

/// What is asked where nobody says otherwise.
const COMMANDS: &str = "!leaks";
/// Whoever ends the program waits this long for what is still to be written.
const LAST_WORDS: Duration = Duration::from_millis(150);

/// Below `--help`.
const EXIT_CODES: &str = "\
Exit codes, that of the target that came off worst:
  0    all answered
  1    something failed, or a file was not written
  2    the plan or the command line was not understood; nothing was done
  3    an answer has gaps, which are said
  5    a target did not connect in time
  6    a target was lost, or may still be stopped
  130  Ctrl+C; 143 SIGTERM, 129 SIGHUP
Whatever ends it, each target is let run, unless the plan says that it is to be left stopped.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(super) struct Options {
    /// A plan: TOML with [[target]] and [[on]]; docs/plans.md describes it. Without one, -k and --every say it all
    #[arg(value_name = "PLAN", required_unless_present = "connection")]
    plan: Option<PathBuf>,
    /// Only look whether the plan is right
    #[arg(long, requires = "plan")]
    check: bool,
    /// Where the target is, as at the prompt
    #[arg(short = 'k', value_name = "CONNECTION", conflicts_with = "plan", requires = "every")]
    connection: Option<KeyText>,
    /// Where symbols are, as WinDbg writes it
    #[arg(short = 'y', value_name = "SYMPATH", requires = "connection")]
    symbol_path: Option<String>,
    /// Break in at this interval
    #[arg(long, value_name = "TIME", requires = "connection", value_parser = interval)]
    every: Option<Duration>,
    /// What is asked each time, separated by semicolons; {event} stands for the event's files, without their extension
    #[arg(short = 'c', value_name = "COMMANDS", requires = "connection", default_value = COMMANDS)]
    commands: String,
    /// Write a dump each time: full, kernel or used
    #[arg(long, value_name = "KIND", requires = "connection", value_parser = Dump::parse)]
    dump: Option<Dump>,
    /// End after so many events of a target
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this long
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    length: Option<Duration>,
    /// Where files are written, a folder for each target
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Let the target run when a stop has taken this long
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    freeze_budget: Option<Duration>,
    /// Stop no more when all stops of a target have taken this long
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    total_freeze_budget: Option<Duration>,
    /// Give a target up that does not connect within this; 120s unless the plan says otherwise
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    connect_timeout: Option<Duration>,
    /// Give a target up that does not stop within this; 15s unless the plan says otherwise
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    break_timeout: Option<Duration>,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> u8 {
    let plan = match plan_of(options) {
        Ok(plan) => plan,
        Err(problem) => {
            say(&format!("verikd: {problem}"));
            return USAGE;
        }
    };
    if options.check {
        say(&format!("The plan is right: {} targets", plan.targets.len()));
        return 0;
    }
    match carry_out(&Arc::new(plan), options.json) {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

fn plan_of(options: &Options) -> Result<Plan, String> {
    let mut plan = match (&options.plan, &options.connection) {
        (Some(file), _) => {
            let text =
                std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
            Plan::parse(&text).map_err(|error| format!("{}:{error}", file.display()))?
        }
        (None, Some(connection)) => {
            let parsed = Connection::parse(connection.as_str());
            let (connection, origin) = parsed.map_err(|error| error.of_option("-k").to_string())?;
            warn_of_visible_key(origin, connection.is_loopback(), "key=@FILE");
            let every = options.every.ok_or("--every is missing")?;
            let commands = check_commands(&options.commands).map_err(|problem| format!("-c: {problem}"))?;
            let happening = Happening::Every(every);
            let planned = Planned { happening, commands, dump: options.dump, then: Then::Run };
            let name = "target".to_owned();
            let symbols = options.symbol_path.clone();
            let target = PlannedTarget { name, connection, symbols, on: vec![planned] };
            Plan::simple(target, PathBuf::from("verikd-run"))
        }
        (None, None) => return Err("give a plan, or -k and --every".to_owned()),
    };
    debug_assert!(plan.targets.iter().all(|target| is_name(&target.name)));
    // What is said on the command line counts.
    plan.out = options.out.clone().unwrap_or(plan.out);
    plan.count = options.count.or(plan.count);
    plan.length = options.length.or(plan.length);
    plan.freeze_budget = options.freeze_budget.or(plan.freeze_budget);
    plan.total_freeze_budget = options.total_freeze_budget.or(plan.total_freeze_budget);
    plan.connect_timeout = options.connect_timeout.unwrap_or(plan.connect_timeout);
    plan.break_timeout = options.break_timeout.unwrap_or(plan.break_timeout);
    Ok(plan)
}

/// A target with its session.
struct Opened {
    target: PlannedTarget,
    session: Arc<Session>,
    report: Report,
}

fn carry_out(plan: &Arc<Plan>, as_json: bool) -> io::Result<u8> {
    let start = Instant::now();
    // Before anything is stopped for files that could not be kept.
    std::fs::create_dir_all(&plan.out).map_err(|why| {
        io::Error::new(why.kind(), format!("the folder {} cannot be made: {why}", plan.out.display()))
    })?;
    let lines = Lines::default();
    let (mut opened, mut runs) = (Vec::new(), Vec::new());
    let longest = plan.targets.iter().map(|target| target.name.len()).max().unwrap_or(0);
    for target in &plan.targets {
        let name = if plan.targets.len() > 1 { format!("{:longest$}  ", target.name) } else { String::new() };
        let writer = Writer::new(io::sink(), lines.of(name));
        let report = Report::new(Format::Text, writer);
        match Session::open(&config(target)) {
            Ok(session) => opened.push(Opened { target: target.clone(), session: Arc::new(session), report }),
            // The others go on without it.
            Err(error) => {
                report.status(&format!("verikd: {error}"));
                runs.push(not_run(target, Worst::Failed, None, error.to_string()));
            }
        }
    }
    if !opened.is_empty() {
        let sources = opened.iter().map(|it| {
            let source = Arc::downgrade(&it.session) as Weak<dyn Source>;
            (source, it.session.watcher(), it.report.clone())
        });
        keep_each(sources.collect(), Codes::Run)?;
    }
    let watchers: Vec<Watcher> = opened.iter().map(|it| it.session.watcher()).collect();
    let threads: Vec<_> = opened
        .into_iter()
        .map(|it| {
            let (plan, target, report) = (Arc::clone(plan), it.target.clone(), it.report.clone());
            let thread = std::thread::Builder::new().name(target.name.clone());
            thread.spawn(move || debug(it, &plan)).map(|thread| (target, report, thread))
        })
        .collect::<Result<_, _>>()?;
    for (target, report, thread) in threads {
        // A panic is a bug of this program's; the session let the machine run while it was unwound.
        let ended = thread.join();
        runs.push(ended.unwrap_or_else(|_| {
            not_run(&target, Worst::Failed, None, "a bug of verikd's ended it".to_owned())
        }));
        let since = Instant::now();
        let _: Drained = report.writer().drain(|| since.elapsed() < LAST_WORDS * 4);
    }
    runs.sort_by_key(|run| plan.targets.iter().position(|target| target.name == run.name));
    let code = code_of(&runs, watchers.iter().find_map(Watcher::quit));
    let summary = summary(&runs, start.elapsed(), code);
    let written = write_report(&plan.out, &summary);
    let text = if as_json { own_line(&summary) } else { text(&runs, code) };
    let printed = io::stdout().write_all(text.as_bytes());
    match (written, printed) {
        (Err(error), _) => {
            say(&format!("verikd: the report was not written: {error}"));
            Ok(if code == 0 { FAILED } else { code })
        }
        (Ok(()), Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
            Ok(if code == 0 { FAILED } else { code })
        }
        _ => Ok(code),
    }
}

fn config(target: &PlannedTarget) -> SessionConfig {
    // A question of the target is its way to tell of a failed assertion: who waits for one is to see the machine stop.
    let waits = |it: &Planned| matches!(it.happening, Happening::Assertion);
    let answer = if target.on.iter().any(waits) { &b"b"[..] } else { &b"i"[..] };
    SessionConfig {
        prompts: Prompts::Answer(Bytes::from_static(answer)),
        handle_signals: true,
        ..SessionConfig::over(target.connection.clone())
    }
}

/// Waits for a target and carries out the plan for it.
fn debug(opened: Opened, plan: &Plan) -> TargetRun {
    let Opened { target, session, report } = opened;
    let watcher = session.watcher();
    report.status(&format!("Waiting for a target on {}", session.place()));
    if let Err(error) = news_of_waiting(&session, &report, Some(plan.connect_timeout)) {
        report.status(&format!("verikd: {error}"));
        let worst = if error.is_passing() { Worst::NoTarget } else { Worst::Failed };
        let interrupt = Quit::Signal(Signal::Interrupt);
        let ended_by = (error == AttachError::Interrupted).then(|| watcher.quit().unwrap_or(interrupt));
        return not_run(&target, worst, ended_by, error.to_string());
    }
    let path = match &target.symbols {
        Some(path) => SymbolPath::parse(path),
        None => SymbolPath::of_environment(|name| std::env::var(name).ok()),
    };
    let watch = Box::new(verikd::shell::TerminalWatch::new(watcher.clone()));
    let symbols = Arc::new(SymbolSource::watched(path, Limits::default(), watch));
    let debugger = Debugger::new(session, symbols, plan.break_timeout);
    let mut shell = Shell::new(debugger, watcher, report);
    run_target(&mut shell, plan, &target)
}

fn not_run(target: &PlannedTarget, worst: Worst, ended_by: Option<Quit>, why: String) -> TargetRun {
    TargetRun {
        name: target.name.clone(),
        place: String::new(),
        worst,
        ended_by,
        events: 0,
        frozen: Duration::ZERO,
        why,
    }
}

/// That of the target that came off worst.
fn code_of(runs: &[TargetRun], quit: Option<Quit>) -> u8 {
    let worst = runs.iter().map(|run| run.worst).max().unwrap_or_default();
    let ended_by = quit.or_else(|| runs.iter().find_map(|run| run.ended_by));
    match ended_by {
        Some(quit) if worst != Worst::MayBeStopped => exit_code_of(quit),
        _ => worst.exit_code(Codes::Run),
    }
}

fn summary(runs: &[TargetRun], took: Duration, code: u8) -> RunSummary<'_> {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let targets = runs.iter().map(|run| TargetSummary {
        target: &run.name,
        place: &run.place,
        exit_code: code_of(std::slice::from_ref(run), None),
        events: run.events,
        frozen_us: micros(run.frozen),
        why: &run.why,
    });
    RunSummary {
        exit_code: code,
        took_us: micros(took),
        frozen_us: micros(runs.iter().map(|run| run.frozen).sum()),
        targets: targets.collect(),
    }
}

fn text(runs: &[TargetRun], code: u8) -> String {
    let mut text = String::new();
    for run in runs {
        let code = code_of(std::slice::from_ref(run), None);
        let verdict = if code == 0 { "done".to_owned() } else { format!("exit code {code}") };
        let events = if run.events == 1 { "1 event".to_owned() } else { format!("{} events", run.events) };
        let why = run.why.lines().next().unwrap_or_default();
        text += &format!("{}: {verdict}; {events}, stood still for {:.3?}; {why}\n", run.name, run.frozen);
    }
    let frozen: Duration = runs.iter().map(|run| run.frozen).sum();
    text + &format!("All targets stood still for {frozen:.3?}; exit code {code}\n")
}

fn write_report(out: &Path, summary: &RunSummary<'_>) -> io::Result<()> {
    std::fs::create_dir_all(out)?;
    std::fs::write(out.join("report.json"), format!("{:#}\n", own_value(summary)))
}

/// Standard error for several targets: whole lines, each with the name of its target in front.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<()>>);

impl Lines {
    fn of(&self, name: String) -> NamedLines {
        NamedLines { lines: self.clone(), name, begun: Vec::new() }
    }
}

struct NamedLines {
    lines: Lines,
    name: String,
    begun: Vec<u8>,
}

impl Write for NamedLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begun.extend_from_slice(bytes);
        while let Some(end) = self.begun.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.begun.drain(..=end).collect();
            let _one_at_a_time = self.lines.0.lock().unwrap_or_else(PoisonError::into_inner);
            io::stderr().write_all(&[self.name.as_bytes(), &line].concat())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn say(text: &str) {
    // Where even standard error is closed, the exit code still tells.
    let _ = writeln!(io::stderr(), "{text}");
}
