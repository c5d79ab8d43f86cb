//! `verikd -k net:...`, `verikd -k com:...`: attach, run commands or prompt, leave the target running. `verikd -z FILE`: the
//! same with a file, which nothing lets run. `verikd --vm PLACE`: with a virtual machine.

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use kd_protocol::link::Peer;
use verikd::check::Occasion;
use verikd::commands::pool::hits::HitOptions;
use verikd::commands::{Style, VerifierFormat, text_of};
use verikd::debugger::{DebugError, Debugger, ShortStops};
use verikd::dump::{self, DumpError, Opened};
use verikd::key::KeyText;
use verikd::output::{may_write, reads_file};
use verikd::session::{
    AttachError, Connection, ConnectionError, OpenTap, Prompts, Quit, Session, SessionConfig, Signal, Watcher,
};
use verikd::shell::check::{Check, check};
use verikd::shell::interactive::prompt;
use verikd::shell::pool::PoolWatch;
use verikd::shell::script::{Script, run_script};
use verikd::shell::watch::Watch;
use verikd::shell::{
    Codes, Drained, Format, Report, Shell, ShellError, TerminalWatch, Worst, Writer, exit_code_of, keep,
};
use verikd::source::{BreakInError, Source};
use verikd::symbols::store::{Limits, SymbolPath, SymbolSource, default_store};
use verikd::trace::{TraceConfig, TraceNews};
use verikd::vm::{Attention, VmConfig, VmError, VmPlace, VmSource};

use super::exit::{FAILED, USAGE, fail};
use super::prompt_answer::PromptAnswer;
use super::visible_key::warn_of_visible_key;

/// A script's target connects within this, unless told otherwise: its next offer is three seconds away at most, a
/// restart of the machine a minute or so.
const SCRIPT_CONNECT_TIMEOUT: Duration = Duration::from_secs(120);
/// Whoever ends the program waits this long for what is still to be written.
const LAST_WORDS: Duration = Duration::from_millis(150);
/// SIGPIPE's, as shells tell it.
const READER_GONE: u8 = 128 + 13;
/// While a target is waited for, what happens is told within this.
const NEWS_LOOK: Duration = Duration::from_millis(250);
/// Who looks further into a target that does not come.
const DOCTOR: &str = "`verikd doctor` with the same -k looks further into it";
/// Without a target for this long, a person is told what is missing.
const HINT_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Where the target is, as WinDbg writes it: net:port=50000,key=1.2.3.4[,target=IP[:PORT]][,hostip=IP],
    /// com:pipe,port=PATH[,reconnect], com:ipport=5003,port=HOST or com:port=DEVICE,baud=115200. The key may be key=@FILE,
    /// or be left to VERIKD_KEY
    #[arg(short = 'k', value_name = "CONNECTION", required_unless_present_any = ["dump", "vm"])]
    connection: Option<KeyText>,
    /// Open a file instead: a crash dump, a core of a virtual machine (ELF), a LiME image; told by its content
    #[arg(short = 'z', value_name = "FILE", conflicts_with_all = ["connection", "trace", "reattach"])]
    dump: Option<PathBuf>,
    /// Read a virtual machine that was never booted for debugging, through QEMU's monitor: qmp:PATH, unix:PATH or
    /// tcp:HOST:PORT, as its -qmp has it. It stands still only while it is read. raw:FILE opens an image of its
    /// memory, elf:FILE a core of it, as -z does
    #[arg(long, value_name = "PLACE", conflicts_with_all = ["connection", "dump", "trace", "reattach"])]
    vm: Option<String>,
    /// The physical address of the kernel's page tables, for a file or a virtual machine that does not say it
    #[arg(long, value_name = "HEX", conflicts_with = "connection", value_parser = hexadecimal)]
    dtb: Option<u64>,
    /// Where symbols are, as WinDbg writes it; otherwise _NT_ALT_SYMBOL_PATH and _NT_SYMBOL_PATH
    #[arg(short = 'y', value_name = "SYMPATH")]
    symbol_path: Option<String>,
    /// Break in as soon as the target connects
    #[arg(short = 'b')]
    break_in: bool,
    /// Run these commands, separated by semicolons, and end with the target running
    #[arg(short = 'c', value_name = "COMMANDS", conflicts_with = "command_file")]
    commands: Option<String>,
    /// The same with the commands in a file (also -cf)
    #[arg(long, value_name = "FILE")]
    command_file: Option<PathBuf>,
    /// Run nothing behind a command that fails; otherwise the lines behind it are run
    #[arg(long)]
    stop_on_error: bool,
    /// Stay at the prompt after the commands of -c or -cf
    #[arg(long)]
    stay: bool,
    /// Print each answer as one JSON object
    #[arg(long)]
    json: bool,
    /// How !verifier prints: auto, as the debugger of the target's own time; old, as in Windows 7's time; new, as today
    #[arg(long, value_name = "FORMAT", default_value_t)]
    verifier_format: VerifierFormat,
    /// Show what each command cost: requests, datagrams, bytes, time that the target stood still
    #[arg(long)]
    stats: bool,
    /// Let the target run when a stop has taken this long, and say what was left undone
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    freeze_budget: Option<Duration>,
    /// Let no stop of a long question take longer than this: the target runs in between, and what !leaks and !verifier 3
    /// list is of one moment all the same
    #[arg(long, value_name = "TIME", value_parser = some_time)]
    max_stop: Option<Duration>,
    /// How long the target runs between two such stops; 200ms
    #[arg(long, value_name = "TIME", requires = "max_stop", value_parser = humantime::parse_duration)]
    breathe: Option<Duration>,
    /// What a script answers when the target prompts, as a failed assertion does: i ignores, b breaks
    #[arg(long, value_name = "ANSWER", value_enum, default_value_t)]
    prompt_answer: PromptAnswer,
    /// A script goes on with a target that has restarted: it is stopped again and asked the rest
    #[arg(long)]
    reattach: bool,
    /// Let commands change the target's memory and registers: eb, ew, ed, eq, ea, r REGISTER=VALUE
    #[arg(long, conflicts_with_all = ["dump", "vm"])]
    write: bool,
    /// Write what is sent and received to a pcapng file, with the plaintext: it holds memory of the target, but no key
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    #[command(flatten)]
    deadlines: Deadlines,
}

/// How long each wait may take.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Deadlines")]
struct Deadlines {
    /// Give up when no target connects within this; scripts: 120s, the prompt waits until Ctrl+C
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    connect_timeout: Option<Duration>,
    /// Give up when the target does not stop within this
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = humantime::parse_duration)]
    break_timeout: Duration,
    /// Give up a request that the target does not answer within this
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    request_timeout: Duration,
    /// The same for a search, during which a target says nothing
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    search_timeout: Duration,
    /// A script that waits for the target to stop by itself gives up within this; otherwise it waits until Ctrl+C
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    stop_timeout: Option<Duration>,
    /// Warn that the target may stand still when it has not said within this that it runs
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = humantime::parse_duration)]
    leave_timeout: Duration,
    /// End the whole run after this long, with the target running
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    deadline: Option<Duration>,
}

impl Options {
    /// True if commands are given.
    pub(super) const fn has_script(&self) -> bool {
        self.commands.is_some() || self.command_file.is_some()
    }

    /// What the target is met by, without the key: `port 50000`, an address, a line, a file. Nothing if that is not understood, which
    /// is told when it is used.
    pub(super) fn place(&self) -> Option<String> {
        if let Some(file) = &self.dump {
            return Some(file.display().to_string());
        }
        if let Some(place) = &self.vm {
            return Some(place.clone());
        }
        let (connection, _) = Connection::parse(self.connection.as_ref()?.as_str()).ok()?;
        Some(match connection {
            Connection::Net { target: Some(target), .. } => target.ip.to_string(),
            Connection::Net { listen, .. } => format!("port {}", listen.port()),
            Connection::Com(line) => line.port.to_string(),
        })
    }

    /// The same for a script of one line, at once.
    pub(super) fn with_commands(self, line: String) -> Self {
        Self { commands: Some(line), break_in: true, ..self }
    }
}

/// What is done with a target.
#[derive(Debug)]
pub(super) enum Work {
    /// A person asks, after these commands.
    Prompt(String),
    /// A script does.
    Script(Script),
    /// What drivers hold is looked at again and again.
    Watch(Watch),
    /// What pool tags hold is looked at once, or again and again.
    Pool(PoolWatch),
    /// Uses of a pool tag are waited for.
    Hits(HitOptions),
    /// What drivers hold is held against limits.
    Check(Box<Check>),
}

impl Work {
    /// True if nobody is there to answer the target, or to wait for it without end.
    const fn is_unattended(&self) -> bool {
        !matches!(self, Self::Prompt(_))
    }

    const fn codes(&self) -> Codes {
        match self {
            Self::Prompt(_) | Self::Script(_) | Self::Watch(_) | Self::Pool(_) | Self::Hits(_) => {
                Codes::Debugger
            }
            Self::Check(_) => Codes::Run,
        }
    }

    /// Files that are written at its end.
    fn files(&self) -> Vec<&Path> {
        match self {
            Self::Prompt(_) | Self::Script(_) | Self::Pool(_) => Vec::new(),
            Self::Watch(watch) => watch.page.iter().map(PathBuf::as_path).collect(),
            Self::Hits(hits) => hits.files.iter().map(|(_, path)| &**path).collect(),
            Self::Check(check) => check.junit.iter().map(PathBuf::as_path).collect(),
        }
    }

    /// Nothing was asked, for this reason.
    fn cannot(&self, place: &str, why: &dyn std::fmt::Display, report: &Report) {
        report.status(&format!("verikd: {why}"));
        if let Self::Check(check) = self {
            let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let occasion = Occasion {
                place: place.to_owned(),
                unix_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
                took: Duration::ZERO,
                frozen: Duration::ZERO,
            };
            check.write_error(&why.to_string(), &occasion, report);
        }
    }
}

fn hexadecimal(text: &str) -> Result<u64, std::num::ParseIntError> {
    u64::from_str_radix(text.trim_start_matches("0x"), 16)
}

pub(super) fn run(options: &Options) -> u8 {
    // What is wrong with the connection is told before a script is read from standard input.
    let connection = match connection_of(options) {
        Ok(connection) => connection,
        Err(error) => return refused(&error),
    };
    if options.stay && !io::stdin().is_terminal() {
        let _ = writeln!(io::stderr(), "verikd: --stay: standard input is no terminal to prompt at");
        return USAGE;
    }
    let script = match script_of(options) {
        Ok(script) => script,
        Err(error) => {
            let file = options
                .command_file
                .as_ref()
                .map_or_else(|| "standard input".into(), |it| it.display().to_string());
            let _ = writeln!(io::stderr(), "verikd: cannot read commands from {file}: {error}");
            return USAGE;
        }
    };
    if script.as_ref().is_some_and(|script| verikd::commands::line::lines(&script.text).is_empty()) {
        let _ = writeln!(
            io::stderr(),
            "verikd: there are no commands in the script, and standard input is no terminal to prompt at: nothing to do. \
             Give commands with -c \"COMMANDS\" or -cf FILE"
        );
        return USAGE;
    }
    let work = match script {
        Some(script) if options.stay => Work::Prompt(script.text),
        Some(script) => Work::Script(script),
        None => Work::Prompt(String::new()),
    };
    with_target(options, connection, &work)
}

/// Does what is to be done with the target that the options name.
pub(super) fn work(options: &Options, work: &Work) -> u8 {
    match connection_of(options) {
        Ok(connection) => with_target(options, connection, work),
        Err(error) => refused(&error),
    }
}

fn refused(error: &ConnectionError) -> u8 {
    fail(&error.of_option("-k"));
    USAGE
}

fn with_target(options: &Options, connection: Option<Connection>, work: &Work) -> u8 {
    let of_vm = options.vm.as_deref().and_then(|place| place.split_once(':'));
    let of_vm = of_vm.filter(|(kind, _)| ["raw", "elf"].contains(kind)).map(|(_, file)| Path::new(file));
    for file in options.dump.as_deref().into_iter().chain(of_vm) {
        reads_file(file);
        // The two of VMware's.
        ["vmem", "vmss", "vmsn"].iter().for_each(|beside| reads_file(&file.with_extension(beside)));
    }
    let files = work.files();
    for (number, file) in files.iter().enumerate() {
        if let Err(why) = may_write(file) {
            return fail(&format!("{} cannot be written: {why}", file.display()));
        }
        if files[..number].contains(file) {
            return fail(&format!("{} is named twice: one would be written over the other", file.display()));
        }
    }
    match (connection, &options.dump, &options.vm) {
        (Some(connection), _, _) => run_live(options, connection, work),
        (None, Some(file), _) => run_file(options, file, dump::open(file, options.dtb), work),
        (None, None, Some(place)) => match place.split_once(':') {
            Some(("raw", file)) => {
                let file = Path::new(file);
                run_file(options, file, dump::open_raw(file, options.dtb), work)
            }
            Some(("elf", file)) => {
                let file = Path::new(file);
                run_file(options, file, dump::open(file, options.dtb), work)
            }
            _ => run_vm(options, place, work),
        },
        (None, None, None) => unreachable!("the argument parser asks for -k, -z or --vm"),
    }
}

/// Where the live target is; nothing for a file or a virtual machine.
fn connection_of(options: &Options) -> Result<Option<Connection>, ConnectionError> {
    if options.dump.is_some() || options.vm.is_some() {
        return Ok(None);
    }
    let text = options.connection.as_ref().map_or("", KeyText::as_str);
    let (connection, key_origin) = Connection::parse(text)?;
    warn_of_visible_key(key_origin, connection.is_loopback(), "key=@FILE");
    Ok(Some(connection))
}

/// What the person and the system want of a run without a session.
fn watcher_alone(options: &Options) -> io::Result<Watcher> {
    let watcher = Watcher::alone(true)?;
    options.deadlines.deadline.map_or(Ok(()), |deadline| watcher.end_after(deadline))?;
    Ok(watcher)
}

/// A file's memory: nothing is let run, and nothing waits.
fn run_file(options: &Options, file: &Path, opened: Result<Opened, DumpError>, work: &Work) -> u8 {
    let watcher = match watcher_alone(options) {
        Ok(watcher) => watcher,
        Err(error) => return fail(&error),
    };
    let format = if options.json { Format::Json } else { Format::Text };
    let report = Report::new(format, Writer::standard()).with_costs(options.stats);
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let place = file.display().to_string();
            work.cannot(&place, &format!("{place}: {error}"), &report);
            return ended(&watcher, &report, Worst::Failed, None, work.codes());
        }
    };
    report.status(&format!("{}: {}", file.display(), opened.what));
    opened.warnings.iter().for_each(|warning| report.status(warning));
    let source = Arc::new(opened.source);
    if let Err(error) = keep(&source, watcher.clone(), report.clone(), work.codes()) {
        return fail(&error);
    }
    let (worst, ended_by) = debug(options, source, &watcher, &report, work);
    ended(&watcher, &report, worst, ended_by, work.codes())
}

/// What the person or the system wants, for whoever reads a virtual machine.
struct Wishes(Watcher);

impl Attention for Wishes {
    fn is_interrupted(&self) -> bool {
        self.0.is_interrupted()
    }

    fn take_interrupt(&self) -> bool {
        let is_interrupted = self.0.is_interrupted();
        self.0.take_interrupt();
        is_interrupted
    }
}

/// A virtual machine, which is paused while it is read.
fn run_vm(options: &Options, place: &str, work: &Work) -> u8 {
    let place: VmPlace = match place.parse() {
        Ok(place) => place,
        Err(error) => {
            fail(&error);
            return USAGE;
        }
    };
    let watcher = match watcher_alone(options) {
        Ok(watcher) => watcher,
        Err(error) => return fail(&error),
    };
    let format = if options.json { Format::Json } else { Format::Text };
    let report = Report::new(format, Writer::standard()).with_costs(options.stats);
    let config = VmConfig {
        command_timeout: options.deadlines.request_timeout,
        freeze_budget: options.freeze_budget,
        dtb: options.dtb,
        attention: Arc::new(Wishes(watcher.clone())),
    };
    let source = match VmSource::open(place.clone(), config) {
        Ok(source) => Arc::new(source),
        Err(error) => {
            work.cannot(&place.to_string(), &format!("{place}: {error}"), &report);
            let mut worst = Worst::Failed;
            if let VmError::MayBeStopped { why, .. } = &error {
                report.may_be_stopped(&place.to_string(), Some(VmSource::LAST_RESORT), why);
                worst = Worst::MayBeStopped;
            }
            let interrupted = (watcher.interrupts() > 0).then_some(Quit::Signal(Signal::Interrupt));
            return ended(&watcher, &report, worst, watcher.quit().or(interrupted), work.codes());
        }
    };
    report.status(&format!("{place}: {}", source.what()));
    if let Err(error) = keep(&source, watcher.clone(), report.clone(), work.codes()) {
        return fail(&error);
    }
    let (worst, ended_by) = debug(options, source, &watcher, &report, work);
    ended(&watcher, &report, worst, ended_by, work.codes())
}

/// A live target.
fn run_live(options: &Options, connection: Connection, work: &Work) -> u8 {
    let deadlines = &options.deadlines;
    let answer = Bytes::from_static(options.prompt_answer.text().as_bytes());
    let config = SessionConfig {
        request_timeout: deadlines.request_timeout,
        search_timeout: deadlines.search_timeout,
        leave_timeout: deadlines.leave_timeout,
        deadline: deadlines.deadline,
        prompts: if work.is_unattended() { Prompts::Answer(answer) } else { Prompts::Ask },
        handle_signals: true,
        tap: options
            .trace
            .clone()
            .map(|path| -> Arc<dyn OpenTap> { Arc::new(TraceConfig::new(path, say_of_trace)) }),
        ..SessionConfig::over(connection)
    };
    let session = match Session::open(&config) {
        Ok(session) => Arc::new(session),
        Err(error) => return fail(&error),
    };
    let format = if options.json { Format::Json } else { Format::Text };
    let report = Report::new(format, Writer::standard()).with_costs(options.stats);
    let watcher = session.watcher();
    if let Err(error) = keep(&session, watcher.clone(), report.clone(), work.codes()) {
        return fail(&error);
    }
    let timeout =
        deadlines.connect_timeout.or_else(|| work.is_unattended().then_some(SCRIPT_CONNECT_TIMEOUT));
    report.status(&format!("Waiting for a target on {}", session.place()));
    if let Err(error) = news_of_waiting(&session, &report, timeout) {
        match watcher.quit() {
            Some(quit) if error == AttachError::Interrupted => {
                work.cannot(&session.place(), &format!("{quit} ended the wait for a target"), &report);
            }
            _ => work.cannot(&session.place(), &error, &report),
        }
        if error.is_passing() {
            report.status(DOCTOR);
        }
        let ended_by = (error == AttachError::Interrupted)
            .then_some(watcher.quit().unwrap_or(Quit::Signal(Signal::Interrupt)));
        let worst = if error.is_passing() { Worst::NoTarget } else { Worst::Failed };
        return ended(&watcher, &report, worst, ended_by, work.codes());
    }
    watcher.set_freeze_budget(options.freeze_budget);
    let (worst, ended_by) = debug(options, Arc::clone(&session), &watcher, &report, work);
    say_of_damage(&session, &report);
    ended(&watcher, &report, worst, ended_by, work.codes())
}

/// A time that is not nothing.
pub(super) fn some_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time.is_zero() { Err("nothing can be done in no time".to_owned()) } else { Ok(time) }
}

/// Asks `source` what the script says, or a person. How the worst command went, and what ended it before its time.
fn debug(
    options: &Options,
    source: Arc<impl Source + 'static>,
    watcher: &Watcher,
    report: &Report,
    work: &Work,
) -> (Worst, Option<Quit>) {
    let deadlines = &options.deadlines;
    let watch = Box::new(TerminalWatch::new(watcher.clone()));
    let symbols = Arc::new(SymbolSource::watched(symbol_path(options, report), Limits::default(), watch));
    let mut debugger = Debugger::new(source, symbols, deadlines.break_timeout);
    let breath = options.breathe.unwrap_or(ShortStops::BREATH);
    debugger.allow_changes(options.write);
    debugger.set_short_stops(options.max_stop.map(|longest| ShortStops { longest, breath }));
    let style = Style { verifier: options.verifier_format, ..Style::default() };
    let mut shell = Shell::new(debugger, watcher.clone(), report.clone()).with_style(style);
    // Neither a file nor a virtual machine is stopped for longer by a break-in.
    let breaks_in = options.break_in || options.dump.is_some() || options.vm.is_some();
    let result = attach_and_ask(&mut shell, breaks_in, work, deadlines.break_timeout);
    let is_interrupted =
        matches!(&result, Err(ShellError::Debug(DebugError::BreakIn(BreakInError::Interrupted))));
    let interrupted = Quit::Signal(Signal::Interrupt);
    let ended_by = shell.ended_by().or_else(|| is_interrupted.then_some(interrupted));
    let mut worst = shell.worst();
    if let Err(error) = result {
        worst = worst.max(Worst::Failed);
        report.status(&match watcher.quit() {
            Some(quit) if is_interrupted => format!("verikd: {quit} ended the wait for the target to stop"),
            _ => format!("verikd: {error}"),
        });
    }
    (worst, ended_by)
}

/// Waits until everything is written, unless somebody wants the program to end, and returns the exit code.
pub(super) fn ended(
    watcher: &Watcher,
    report: &Report,
    worst: Worst,
    ended_by: Option<Quit>,
    codes: Codes,
) -> u8 {
    let interrupts = watcher.interrupts();
    let since = Instant::now();
    let is_wanted = || {
        let has_to_end = ended_by.is_some() || watcher.quit().is_some() || watcher.interrupts() != interrupts;
        !has_to_end || since.elapsed() < LAST_WORDS
    };
    let drained = report.writer().drain(is_wanted);
    if worst == Worst::MayBeStopped {
        return worst.exit_code(codes);
    }
    let interrupted = Quit::Signal(Signal::Interrupt);
    if let Drained::GivenUp = drained {
        // Not by the writer, which is held up.
        let quit = watcher.quit().or(ended_by).unwrap_or(interrupted);
        let _ = writeln!(io::stderr(), "verikd: {quit} ended it; not all was written, since nobody reads it");
    }
    match (drained, watcher.quit().or(ended_by)) {
        (_, Some(quit)) => exit_code_of(quit),
        (Drained::GivenUp, None) => exit_code_of(interrupted),
        // A reader that has gone away, as head(1) does, ends what is written to it.
        (Drained::Failed(error), None) if error.kind() == io::ErrorKind::BrokenPipe => READER_GONE,
        (Drained::Failed(error), None) => {
            let _ = writeln!(io::stderr(), "verikd: cannot write the answer: {error}");
            FAILED
        }
        (Drained::All, None) if report.writer().is_unread() => READER_GONE,
        (Drained::All, None) if report.writer().is_file_missing() => {
            worst.max(Worst::Failed).exit_code(codes)
        }
        (Drained::All, None) => worst.exit_code(codes),
    }
}

fn attach_and_ask(
    shell: &mut Shell,
    break_in: bool,
    work: &Work,
    break_in_timeout: Duration,
) -> Result<(), ShellError> {
    match work {
        Work::Watch(watch) => return verikd::shell::watch::watch(shell, watch),
        Work::Pool(watch) => return verikd::shell::pool::watch_pool(shell, watch),
        Work::Hits(wanted) => return verikd::shell::hits::watch_hits(shell, wanted),
        Work::Check(it) => return check(shell, it),
        Work::Prompt(_) | Work::Script(_) => {}
    }
    let attached = if break_in { shell.break_in() } else { shell.identify() };
    if attached.is_err() {
        if let Some(control) = shell.control().filter(|_| is_interrupted(shell)) {
            control.hurry();
        }
        shell.leave();
    }
    attached?;
    match work {
        Work::Script(script) => run_script(shell, script),
        Work::Prompt(first) => prompt(shell, first, break_in_timeout),
        Work::Watch(_) | Work::Pool(_) | Work::Hits(_) | Work::Check(_) => {
            unreachable!("they were done above")
        }
    }
}

/// True if somebody pressed Ctrl+C, or wants the program to end.
fn is_interrupted(shell: &Shell) -> bool {
    shell.watcher().was_interrupted() || shell.watcher().quit().is_some()
}

/// The script of `-c`, `-cf` or a standard input that is no terminal.
fn script_of(options: &Options) -> Result<Option<Script>, String> {
    let text = if let Some(commands) = &options.commands {
        commands.clone()
    } else if options.command_file.is_none() && io::stdin().is_terminal() {
        return Ok(None);
    } else {
        let bytes = match &options.command_file {
            Some(file) => std::fs::read(file),
            None => read_whole(io::stdin()),
        };
        text_of(&bytes.map_err(|error| error.to_string())?)?
    };
    Ok(Some(Script {
        text,
        reattaches: options.reattach,
        stops_on_error: options.stop_on_error,
        stop_timeout: options.deadlines.stop_timeout,
        break_in_timeout: options.deadlines.break_timeout,
    }))
}

fn read_whole(mut input: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn symbol_path(options: &Options, report: &Report) -> SymbolPath {
    let path = match &options.symbol_path {
        Some(path) => SymbolPath::parse(path),
        None => SymbolPath::of_environment(|name| std::env::var(name).ok()),
    };
    for folder in path.foreign() {
        let instead = default_store();
        report.status(&format!("{folder} is a folder of Windows; symbols are kept in {}", instead.display()));
    }
    path
}

/// Waits as WinDbg does, and says what is missing when it takes long.
pub(super) fn news_of_waiting(
    session: &Session,
    report: &Report,
    timeout: Option<Duration>,
) -> Result<Peer, AttachError> {
    let start = Instant::now();
    let mut has_hinted = false;
    let mut has_told_absence = false;
    loop {
        let left = timeout.map(|it| it.saturating_sub(start.elapsed()));
        let to_hint = (!has_hinted).then(|| HINT_AFTER.saturating_sub(start.elapsed()));
        let slice = left.into_iter().chain(to_hint).fold(NEWS_LOOK, Duration::min);
        let result = session.wait_for_target(Some(slice));
        session.watcher().take_news_before_target().iter().for_each(|news| report.news(news));
        match result {
            Err(hint) if hint.is_passing() && timeout.is_none_or(|it| start.elapsed() < it) => {
                // Whoever has mistyped its name need not wait in order to be told.
                if let AttachError::NoLine { line, why, advice, .. } = &hint
                    && !has_told_absence
                {
                    report.status(&format!(
                        "{line} is not there: {why}.\n{advice}\nWaiting for it; Ctrl+C ends"
                    ));
                    has_told_absence = true;
                }
                if !has_hinted && !has_told_absence && start.elapsed() >= HINT_AFTER {
                    report.status(&format!("{hint}\nStill waiting; Ctrl+C ends. {DOCTOR}"));
                    has_hinted = true;
                }
            }
            result => return result,
        }
    }
}

/// What a noisy line means for the answers. KDNET's datagrams are authentic or dropped.
fn say_of_damage(session: &Session, report: &Report) {
    let damaged = session.counters().dropped;
    if session.peer() == Some(Peer::Kdcom) && damaged > 0 {
        report.status(&format!(
            "{damaged} of the line's packets came damaged and were asked for again. KD's sum of a packet's bytes misses damage that \
             leaves the sum as it was, so a wrong byte in an answer cannot be excluded: where one matters, ask again at another stop"
        ));
    }
}

fn say_of_trace(news: &TraceNews) {
    // Status is not worth dying for.
    let _ = writeln!(io::stderr(), "verikd: {news}");
}
