//! The engine without a terminal: any source, several at once, on whatever thread, before whoever looks on.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::machine::{stopped, store, version_of};
use crate::support::text::assert_same_text;
use bytes::Bytes;
use kd_protocol::kd::{DebugIo, NewState, StateChange};
use kd_protocol::kdnet::Key;
use verikd::commands::{NoteKind, Run, Style, find};
use verikd::debugger::{AskError, Debugger, Notice, Observer};
use verikd::memory::StoppedCpu;
use verikd::session::{News, Prompts, Session, SessionConfig, Watcher};
use verikd::shell::script::{Script, run_script};
use verikd::shell::{Format, Report, Shell, Transcript, Worst, Writer};
use verikd::source::{ImageSource, Resumed};
use verikd::symbols::store::SymbolPath;
use verikd::target::Progress;
use verikd_sim::windows::{Build, WINDOWS_7_SP1};
use verikd_sim::{MachineState, Simulator, SimulatorConfig, export_symbols};

const PATIENCE: Duration = Duration::from_secs(120);
const LEAK: &str = "!verifier 3 myfault.sys";
const GOLDEN: &str = include_str!("../golden/verifier-3-myfault.txt");

/// A front end that is no terminal: remembers what it is told.
#[derive(Default)]
struct Recorder {
    notices: Vec<String>,
    answer: &'static str,
    prompts: Vec<Bytes>,
}

impl Observer for Recorder {
    fn notice(&mut self, notice: &Notice<'_>) {
        self.notices.push(match notice {
            Notice::Target { version, .. } => format!("build {}", version.build),
            other => format!("{other:?}"),
        });
    }

    fn prompt(&mut self, prompt: &DebugIo) -> Bytes {
        self.prompts.push(prompt.text.clone());
        Bytes::from_static(self.answer.as_bytes())
    }
}

struct NoProgress;

impl Progress for NoProgress {
    fn advance(&self, _: &'static str, _: u64, _: u64) {}
}

fn ask(debugger: &Debugger, line: &str, progress: &dyn Progress) -> Result<String, AskError> {
    let (spec, arguments) = find(line).unwrap();
    let Run::Query(run) = spec.run else { panic!("{line} asks no target") };
    let answer = debugger.ask(run, arguments, progress)?;
    let mut text = String::new();
    answer.write_text(Style::default(), &mut text).unwrap();
    Ok(text)
}

/// A machine, and a debugger before it.
fn meet(build: &'static Build, symbols: SymbolPath, prompts: Prompts) -> (Debugger, Watcher, Simulator) {
    let key: Key = "1.2.3.4".parse().unwrap();
    let config = SessionConfig {
        prompts,
        ..SessionConfig::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), key.clone())
    };
    let session = Arc::new(Session::open(&config).unwrap());
    let listens_at = session.listens_at().unwrap();
    let target =
        Simulator::start(SimulatorConfig { build, ..SimulatorConfig::new(listens_at, key) }).unwrap();
    session.wait_for_target(Some(PATIENCE)).unwrap();
    let watcher = session.watcher();
    (Debugger::new(session, symbols, PATIENCE), watcher, target)
}

fn symbols_of(build: &Build, name: &str) -> SymbolPath {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("engine").join(name);
    std::fs::create_dir_all(&folder).unwrap();
    export_symbols(build, &folder).unwrap();
    SymbolPath::parse(&folder.display().to_string())
}

fn runs(target: &Simulator) -> bool {
    target.wait_for(MachineState::Running, PATIENCE)
}

/// The simulated machine's memory as an image, stopped at a breakpoint.
fn image(name: &str) -> Arc<ImageSource> {
    let (machine, _) = stopped(name);
    let version = version_of(&machine);
    let context = machine.context().unwrap();
    let mut stop = vec![0; StateChange::LEN];
    stop[..4].copy_from_slice(&NewState::EXCEPTION.0.to_le_bytes());
    // ProgramCounter: CONTEXT.Rip.
    stop[24..32].copy_from_slice(&context[0xf8..0x100]);
    stop[32..36].copy_from_slice(&0x8000_0003_u32.to_le_bytes());
    // FirstChance, behind the exception record.
    stop[32 + 152] = 1;
    let stop = StateChange::decode(&stop.into()).unwrap();
    Arc::new(ImageSource::new("kept memory", machine, version, stop, Some(context)))
}

#[test]
fn an_image_is_asked_as_a_live_target_is() {
    let symbols = SymbolPath::parse(&store("engine_image").display().to_string());
    let mut debugger = Debugger::new(image("engine_image"), symbols, PATIENCE);
    let mut front = Recorder::default();
    let stop = debugger.break_in(&mut front).unwrap();
    assert_eq!(stop.symbol.to_string(), "nt!DbgBreakPointWithStatus");
    assert_eq!(front.notices, ["build 7601"]);
    assert_same_text(&ask(&debugger, LEAK, &NoProgress).unwrap(), GOLDEN);
    let rip = ask(&debugger, "r rip", &NoProgress).unwrap();
    assert!(rip.starts_with("rip=fffff80"), "{rip}");
    assert_eq!((debugger.go(), debugger.leave()), (Resumed::NeverRuns, Resumed::NeverRuns));
    assert_same_text(&ask(&debugger, LEAK, &NoProgress).unwrap(), GOLDEN);
    assert_eq!(debugger.stats().requests, 0);
}

/// The shell runs scripts over it; what needs a machine that runs says why not.
#[test]
fn a_script_over_an_image_answers_and_refuses_to_let_it_run() {
    let symbols = SymbolPath::parse(&store("engine_script").display().to_string());
    let (out, aside) = (Transcript::default(), Transcript::default());
    let writer = Writer::new(out.clone(), aside.clone());
    let debugger = Debugger::new(image("engine_script"), symbols, PATIENCE);
    let report = Report::new(Format::Text, writer.clone());
    let mut shell = Shell::new(debugger, Watcher::alone(false).unwrap(), report);
    shell.break_in().unwrap();
    let script = Script { text: format!("g\n.reboot\n{LEAK}\n"), ..Script::default() };
    run_script(&mut shell, &script).unwrap();
    let _ = writer.drain(|| true);
    assert_eq!(shell.worst(), Worst::Failed);
    assert_same_text(&out.text(), GOLDEN);
    let aside = aside.text();
    for refused in ["g: kept memory is memory that was kept", ".reboot: kept memory is memory that was kept"]
    {
        assert!(aside.contains(refused), "{aside}");
    }
    assert!(aside.contains("Break instruction exception - code 80000003 (first chance)"), "{aside}");
    assert!(!aside.contains("may still stand still"), "{aside}");
}

/// Two machines of two builds, answering at the same time: neither debugger knows of the other.
#[test]
fn two_debuggers_in_one_process_answer_at_the_same_time() {
    let other = Build::find("10-22h2").unwrap();
    let both = std::sync::Barrier::new(2);
    let talk = |build: &'static Build, name: &'static str| {
        let (mut debugger, _watcher, target) = meet(build, symbols_of(build, name), Prompts::ignoring());
        let mut front = Recorder::default();
        debugger.break_in(&mut front).unwrap();
        let mut answers = Vec::new();
        for _ in 0..20 {
            // Both stand still here, and are asked from here on.
            both.wait();
            answers.push(ask(&debugger, LEAK, &NoProgress).unwrap());
            both.wait();
            assert_eq!(debugger.go(), Resumed::Running);
            debugger.break_in(&mut front).unwrap();
        }
        assert!(answers.iter().all(|it| *it == answers[0]), "{answers:?}");
        assert_eq!(debugger.leave(), Resumed::Running);
        assert!(runs(&target));
        (front.notices, answers.swap_remove(0))
    };
    let (seven, ten) = std::thread::scope(|scope| {
        let seven = scope.spawn(|| talk(&WINDOWS_7_SP1, "seven"));
        let ten = scope.spawn(|| talk(other, "ten"));
        (seven.join().unwrap(), ten.join().unwrap())
    });
    assert_eq!((seven.0, ten.0), (vec!["build 7601".to_owned()], vec!["build 19041".to_owned()]));
    assert_same_text(&seven.1, GOLDEN);
    assert_ne!(seven.1, ten.1);
}

#[test]
fn a_debugger_is_moved_between_threads() {
    let (mut debugger, _watcher, target) =
        meet(&WINDOWS_7_SP1, symbols_of(&WINDOWS_7_SP1, "moved"), Prompts::ignoring());
    debugger.break_in(&mut Recorder::default()).unwrap();
    let here = ask(&debugger, LEAK, &NoProgress).unwrap();
    let debugger = std::thread::spawn(move || {
        assert_eq!(ask(&debugger, LEAK, &NoProgress).unwrap(), here);
        debugger
    });
    assert_eq!(debugger.join().unwrap().leave(), Resumed::Running);
    assert!(runs(&target));
}

/// Events as they happen, a prompt of the target that it answers, how far a long read has come, and its end.
#[test]
fn a_front_end_without_a_terminal_hears_answers_watches_and_cancels() {
    let (mut debugger, watcher, target) =
        meet(&WINDOWS_7_SP1, symbols_of(&WINDOWS_7_SP1, "front"), Prompts::Ask);
    let mut front = Recorder { answer: "i", ..Recorder::default() };
    target.ask("Assertion failed (boipt)? ");
    while target.answers().is_empty() {
        debugger.break_in(&mut front).unwrap();
        assert_eq!(debugger.go(), Resumed::Running);
    }
    assert_eq!(target.answers(), ["i"]);
    assert!(front.prompts[0].starts_with(b"Assertion failed"), "{:?}", front.prompts);

    // The machine says every second how it is.
    let mut said = Vec::new();
    while !said.iter().any(|news| matches!(news, News::Event(kd_protocol::link::Event::DebugPrint(_)))) {
        assert!(watcher.wait_for_news(), "the session goes on");
        said.extend(watcher.take_news());
    }

    debugger.break_in(&mut front).unwrap();
    // Cancels at the first word of progress.
    struct Cancels<'a>(&'a Watcher, Cell<u64>, Mutex<Vec<&'static str>>);
    impl Progress for Cancels<'_> {
        fn advance(&self, what: &'static str, _: u64, _: u64) {
            self.2.lock().unwrap().push(what);
            self.1.set(self.1.get() + 1);
            self.0.interrupt();
        }
    }
    let cancels = Cancels(&watcher, Cell::new(0), Mutex::default());
    let (spec, arguments) = find("!verifier 80 0n4000").unwrap();
    let Run::Query(run) = spec.run else { panic!("!verifier asks the target") };
    match debugger.ask(run, arguments, &cancels) {
        Ok(answer) => assert!(answer.worst() >= Some(NoteKind::Partial), "{:?}", answer.notes),
        Err(error) => assert!(error.to_string().contains("interrupted"), "{error}"),
    }
    assert!(cancels.1.get() > 0, "no progress was told");
    watcher.take_interrupt();
    // The machine is still stopped, and answers what is asked next.
    assert_same_text(&ask(&debugger, LEAK, &NoProgress).unwrap(), GOLDEN);
    assert_eq!(debugger.leave(), Resumed::Running);
    assert!(runs(&target));
}
