#![allow(unreachable_pub, reason = "a test program exports nothing")]
//! One session: a machine, a debugger before it as a process, a script, and what each command of it printed and said.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use verikd::commands::NoteKind;
use verikd::symbols::store::SymbolPath;
use verikd::target::{Kernel, Target};
use verikd_sim::windows::{Build, Machine, Scenario, WINDOWS_7_SP1};
use verikd_sim::{SerialPort, Simulator, SimulatorConfig, export_symbols};

use crate::field::{Debugger, debugger_command_at, free_port, key, runs, symbols};
use crate::support::machine::{Still, version_of};
use crate::support::text::run;

/// What is asked at the first stop.
pub const FIRST: [&str; 8] =
    ["vertarget", "lm", "r", SEARCH, "!verifier", "!verifier 3 myfault.sys", "!verifier 80 8", ".bugcheck"];
/// The kernel's headers have it.
pub const SEARCH: &str = "s -b nt L1000 50 45 00 00";
/// What is asked after the machine ran.
pub const AGAIN: [&str; 2] = ["lm", "r"];
/// Stands between two answers.
const MARK: &str = "==";

/// A symbol file of each kernel that is used here.
static SYMBOLS: LazyLock<String> = LazyLock::new(|| {
    let folder = symbols();
    export_symbols(Build::find("2022").unwrap(), &folder).unwrap();
    folder.display().to_string()
});

/// What lies between a machine and its debugger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    Kdnet,
    UnixSocket,
    Tcp,
}

/// What one command printed, and what was said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub command: &'static str,
    pub text: String,
    pub said: Vec<String>,
}

impl Answer {
    /// True if it says that it is not all, and what is missing.
    pub fn names_a_gap(&self) -> bool {
        self.said.iter().any(|line| line.starts_with("error: ") || line.starts_with("incomplete: "))
    }
}

/// How a session went.
#[derive(Debug)]
pub struct Played {
    pub code: i32,
    pub first: Vec<Answer>,
    pub again: Vec<Answer>,
    /// All of it, in order.
    pub told: Vec<String>,
    pub runs: bool,
    pub stops: u64,
    pub resumes: u64,
    pub boot: u64,
}

impl Played {
    pub fn says(&self, sentence: &str) -> bool {
        self.told.iter().any(|line| line.contains(sentence))
    }
}

/// Plays a session with a machine of its own. `options` come behind deadlines that a busy machine keeps.
pub fn play(
    carrier: Carrier,
    options: &[&str],
    configure: impl FnOnce(SimulatorConfig) -> SimulatorConfig,
) -> Played {
    LazyLock::force(&SYMBOLS);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("vm.sock");
    let line = |port| SimulatorConfig::serial(port);
    let port = free_port();
    let config = match carrier {
        Carrier::Kdnet => SimulatorConfig::new(([127, 0, 0, 1], port).into(), key()),
        Carrier::UnixSocket => line(SerialPort::Unix(socket.clone())),
        Carrier::Tcp => line(SerialPort::Tcp(([127, 0, 0, 1], 0).into())),
    };
    let config = configure(config);
    // Over a network a debugger that is there first hears the first offer.
    let (mut debugger, machine) = match carrier {
        Carrier::Kdnet => {
            let mut debugger = debug(&format!("net:port={port},key=1.2.3.4"), options);
            debugger.wait_for("Waiting for a target");
            (debugger, Simulator::start(config).unwrap())
        }
        Carrier::UnixSocket => {
            let machine = Simulator::start(config).unwrap();
            (debug(&format!("com:pipe,port={}", socket.display()), options), machine)
        }
        Carrier::Tcp => {
            let machine = Simulator::start(config).unwrap();
            let port = machine.address().unwrap().port();
            (debug(&format!("com:ipport={port},port=127.0.0.1"), options), machine)
        }
    };
    if debugger.says("Waiting for the target to stop by itself") {
        // One that stops by itself again does so before it has run for a moment, and leads to the next prompt.
        while !debugger.says_within(Duration::from_millis(20), ": kd> ") {
            if machine.is_running() {
                debugger.signal("INT");
                break;
            }
        }
    }
    let ended = debugger.finish();
    let told: Vec<String> = ended.err.lines().map(str::to_owned).collect();
    let (first, again) = answers(&ended.out, &told);
    Played {
        code: ended.code,
        first,
        again,
        told,
        runs: runs(&machine),
        stops: machine.stops(),
        resumes: machine.resumes(),
        boot: machine.boot(),
    }
}

fn debug(connection: &str, options: &[&str]) -> Debugger {
    let marked =
        |commands: &[&str]| commands.iter().map(|it| format!("{it}\n.echo {MARK}\n")).collect::<String>();
    let script = format!("{}g\n{}q\n", marked(&FIRST), marked(&AGAIN));
    let fixed =
        ["-b", "-c", &script, "--break-timeout", "60s", "--stop-timeout", "60s", "--deadline", "110s"];
    Debugger::start_heard(debugger_command_at(connection, &[&fixed[..], options].concat()))
}

/// What each command printed and what was said while it ran, as far as the script came.
fn answers(out: &str, told: &[String]) -> (Vec<Answer>, Vec<Answer>) {
    let mut texts = out.split_inclusive('\n').fold(vec![String::new()], |mut texts, line| {
        match line.trim_end() {
            MARK => texts.push(String::new()),
            _ => texts.last_mut().expect("there is one from the start").push_str(line),
        }
        texts
    });
    texts.pop();
    let is_prompt = |line: &String| line.contains(": kd> ");
    let mut said = told.iter().enumerate().filter(|(_, line)| is_prompt(line) && !line.ends_with(MARK));
    let all = FIRST.iter().map(|it| (true, *it)).chain(AGAIN.iter().map(|it| (false, *it)));
    let (mut first, mut again) = (Vec::new(), Vec::new());
    for ((is_first, command), text) in all.zip(texts) {
        let place = said.find(|(_, line)| line.ends_with(&format!(": kd> {command}")));
        let after = place.map_or(told.len(), |(place, _)| place + 1);
        let said = told[after..].iter().take_while(|line| !is_prompt(line)).cloned().collect();
        let text = without_clocks(&text);
        if is_first { &mut first } else { &mut again }.push(Answer { command, text, said });
    }
    (first, again)
}

/// The same with clocks that stand: each session is at another time.
fn without_clocks(text: &str) -> String {
    let shown = |line: &str| match line.split_once(": ") {
        Some((clock @ ("Debug session time" | "System Uptime"), time)) if time != "not available\n" => {
            format!("{clock}: ..\n")
        }
        _ => line.to_owned(),
    };
    text.split_inclusive('\n').map(shown).collect()
}

/// What a debugger answers that reads the machine without a wire in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quiet {
    pub text: String,
    /// Why that is not all, or nothing, and the exit code for that.
    pub gap: Option<(String, i32)>,
}

/// The same commands on a machine that stands still at its first stop, `change`d before.
pub fn quiet(build: &Build, scenario: Scenario, change: impl FnOnce(&mut Machine)) -> Vec<Quiet> {
    let mut machine = Machine::with_scenario(build, scenario, 0);
    change(&mut machine);
    match machine.bug_check() {
        Some(stop) => machine.stop_by_itself(stop),
        None => machine.break_in(),
    }
    let kernel = Kernel::new(version_of(&machine), SymbolPath::parse(&SYMBOLS));
    let machine = Still(machine);
    // A debugger says where the machine stands before it is asked anything.
    let _ = Target::new(&machine, &kernel).module_symbols("nt");
    {
        let target = Target::new(&machine, &kernel).with_cpu(&machine);
        let _ = target.symbol_at(target.registers().unwrap().program_counter());
    }
    let ask = |command: &&str| {
        let target = Target::new(&machine, &kernel).with_cpu(&machine);
        match run(&target, command) {
            Ok(answer) => {
                let mut text = String::new();
                answer.write_text(verikd::commands::Style::default(), &mut text).unwrap();
                let worst = answer.notes.iter().max_by_key(|note| note.kind);
                let gap = worst.and_then(|note| match note.kind {
                    NoteKind::Remark => None,
                    NoteKind::Partial => Some((note.text.clone(), 3)),
                    NoteKind::Failed => Some((note.text.clone(), 1)),
                });
                Quiet { text: without_clocks(&text), gap }
            }
            Err(error) => Quiet { text: String::new(), gap: Some((error.to_string(), 1)) },
        }
    };
    FIRST.iter().map(ask).collect()
}

/// The machine that nothing is wrong with.
pub fn quiet_machine() -> &'static [Quiet] {
    static QUIET: LazyLock<Vec<Quiet>> = LazyLock::new(|| quiet(&WINDOWS_7_SP1, Scenario::default(), |_| {}));
    &QUIET
}

/// Plays every case, some at a time, and tells all that is wrong with any.
pub fn each<T: Copy + Sync + std::fmt::Debug>(cases: &[T], play: impl Fn(T) -> Vec<String> + Sync) {
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let complaints = play(*case).into_iter().map(|it| format!("{case:?}: {it}"));
                    wrong.lock().unwrap().extend(complaints);
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
