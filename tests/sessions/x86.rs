//! The 32-bit machine, a Windows XP without symbols: everything in eight digits, what is not known of such targets named.

use verikd_sim::windows::{Scenario, WINDOWS_XP_X86};
use verikd_sim::{Quirk, SerialPort, Simulator, SimulatorConfig};

use crate::field::{Debugger, debugger_command_at, runs};
use crate::play::{AGAIN, Answer, Carrier, FIRST, Played, SEARCH, each, play};

const VERSION: &str = "\
Windows Kernel Version 2600 UP Free x86 compatible
Built by: 2600.xpsp_simulated.080413-2111
Kernel base = 0x804d8000 PsLoadedModuleList = 0x80554fc0
Debug session time: ..
System Uptime: ..
";
/// The same where nothing leads to it.
const VERSION_WITHOUT_LAB: &str = "\
Windows Kernel Version 2600 UP Free x86 compatible
Kernel base = 0x804d8000 PsLoadedModuleList = 0x80554fc0
Debug session time: ..
System Uptime: ..
";
const NO_LAB: &str = "Who built the kernel is not known: no debugger data block leads to nt!NtBuildLab";
const MODULES: &str = "\
start    end        module name
804d8000 806d1000   nt         (no symbols)
806d1000 806f2000   hal        (deferred)
f8a8e000 f8a96000   myfault    (deferred)
";
/// Lines and columns are WinDbg's for x86. Source: published transcripts of x86 kernels.
const REGISTERS: &str = "\
eax=00000000 ebx=00000000 ecx=00000001 edx=00000000 esi=00000000 edi=00000000
eip=80527bdc esp=8054d5d4 ebp=00000000 iopl=0         nv up ei pl zr na pe nc
cs=0008  ss=0010  ds=0023  es=0023  fs=0030  gs=0000             efl=00000246
nt+0x4fbdc:
80527bdc cc              int     3
";
const FOUND: &str = "\
804d8080  50 45 00 00 4c 01 01 00-6a 51 02 48 00 00 00 00  PE..L...jQ.H....
";
const NOT_KNOWN: &str = "not supported on x86 targets: level and counters without the kernel's symbols";

/// What each command prints, or says that it cannot.
fn right(command: &str) -> (&'static str, Option<&'static str>) {
    match command {
        "vertarget" => (VERSION, None),
        "lm" => (MODULES, None),
        "r" => (REGISTERS, None),
        SEARCH => (FOUND, None),
        "!verifier" | "!verifier 3 myfault.sys" => ("", Some(NOT_KNOWN)),
        "!verifier 80 8" => ("", Some("nt has no symbols: no symbols for ntkrpamp.pdb")),
        ".bugcheck" => ("No bug check has happened\n", None),
        other => panic!("{other}"),
    }
}

#[test]
fn a_session_with_it_is_in_eight_digits_whatever_else_its_kernel_does() {
    // One case again: VERIKD_CASE=stops-again
    let wanted = std::env::var("VERIKD_CASE").ok();
    let quiet = [Carrier::Kdnet, Carrier::UnixSocket, Carrier::Tcp].map(|carrier| (None, carrier));
    let quirks = Quirk::ALL.iter().map(|quirk| (Some(*quirk), Carrier::UnixSocket));
    let is_wanted = |(quirk, _): &(Option<Quirk>, Carrier)| {
        wanted.as_ref().is_none_or(|name| quirk.is_some_and(|quirk| quirk.name() == name))
    };
    let cases: Vec<_> = quiet.into_iter().chain(quirks).filter(is_wanted).collect();
    each(&cases, |(quirk, carrier)| {
        let short: &[&str] = match quirk {
            Some(Quirk::SilentAfterBreak) => &["--request-timeout", "4s", "--leave-timeout", "4s"],
            _ => &[],
        };
        let played = play(carrier, short, |config| SimulatorConfig {
            build: &WINDOWS_XP_X86,
            scenario: Scenario::VerifierOff,
            quirks: quirk.into_iter().collect(),
            ..config
        });
        wrong(quirk, &played)
    });
}

fn wrong(quirk: Option<Quirk>, played: &Played) -> Vec<String> {
    let mut wrong = wide(played);
    let mut complain_unless = |is_right: bool, what: String| {
        if !is_right {
            wrong.push(what);
        }
    };
    let (ends, code) = match quirk {
        Some(Quirk::NoVersion) => {
            (Some("does not say who it is: the target refused it with status C0000001"), 1)
        }
        Some(Quirk::SilentAfterBreak) => (Some("the target is lost: no answer within"), 4),
        _ => (None, 1),
    };
    for answer in &played.first {
        let (text, gap) = match (quirk, answer.command) {
            (Some(Quirk::NoDebuggerData), "vertarget") => (VERSION_WITHOUT_LAB, Some(NO_LAB)),
            (Some(Quirk::NoDebuggerData), ".bugcheck") => ("", Some("the kernel gave no list of them")),
            (_, command) => right(command),
        };
        let is_lost = ends.is_some() && answer.text.is_empty();
        // Without a debug directory nothing says which symbols it would need.
        let gap = gap.map(|gap| if quirk == Some(Quirk::NoDebugDirectory) { "debug directory" } else { gap });
        let says_it = |gap: &str| answer.said.iter().any(|line| line.contains(gap)) && answer.names_a_gap();
        let is_right = answer.text == text && gap.map_or_else(|| !answer.names_a_gap(), says_it);
        complain_unless(is_lost || is_right, format!("{answer:#?} should be {text} {gap:?}"));
    }
    let is_whole = (played.first.len(), played.again.len()) == (FIRST.len(), AGAIN.len());
    complain_unless(is_whole == ends.is_none(), "not all was asked".into());
    complain_unless(ends.is_none_or(|sentence| played.says(sentence)), "it does not say why it ends".into());
    complain_unless(played.code == code, format!("exit code {}, not {code}", played.code));
    let is_named = played.says("Connected to Windows build 2600 x86 target at ");
    complain_unless(is_named == (quirk != Some(Quirk::NoVersion)), "a banner that does not fit".into());
    let is_free = played.runs && played.stops == played.resumes;
    complain_unless(is_free == (code != 4), "left stopped".into());
    complain_unless(
        played.says("may still stand still") == (code == 4),
        "stands still without a word".into(),
    );
    if !wrong.is_empty() {
        wrong.push(format!("{} to {} stops; it was told: {:#?}", played.resumes, played.stops, played.told));
    }
    wrong
}

/// What shows an address with more digits than the machine has.
fn wide(played: &Played) -> Vec<String> {
    let texts = played.first.iter().chain(&played.again).map(|Answer { text, .. }| text);
    let is_wide =
        |text: &&String| text.contains("ffffffff") || text.contains("00000000`") || text.contains('`');
    texts.chain(&played.told).filter(is_wide).map(|text| format!("too wide: {text}")).collect()
}

#[test]
fn its_bug_check_is_told_in_eight_digits() {
    for carrier in [Carrier::Kdnet, Carrier::UnixSocket] {
        let played = play(carrier, &[], |config| SimulatorConfig {
            build: &WINDOWS_XP_X86,
            scenario: Scenario::Bugcheck7e,
            ..config
        });
        let told = || format!("{:#?}", played.told);
        assert_eq!(wide(&played), [""; 0], "{}", told());
        let answer = played.first.iter().find(|answer| answer.command == ".bugcheck").unwrap();
        assert_eq!(answer.text, "Bugcheck code 0000007E\nArguments c0000005 f8a8f480 8054ce00 8054ce50\n");
        assert!(played.says("(0xC0000005,0xF8A8F480,0x8054CE00,0x8054CE50)"), "{}", told());
        assert!(played.boot > 1 && played.says("may still stand still"), "{}", told());
        assert_eq!(played.code, 4, "{}", told());
    }
}

#[test]
fn its_json_is_in_eight_digits_and_its_numbers_have_windbgs_sign() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("vm.sock");
    let machine = Simulator::start(SimulatorConfig {
        build: &WINDOWS_XP_X86,
        scenario: Scenario::VerifierOff,
        ..SimulatorConfig::serial(SerialPort::Unix(socket.clone()))
    })
    .unwrap();
    let script =
        ["vertarget", "lm", "r", SEARCH, "? @eip", "? -1", "? poi(nt)", "dps @$csp L2", "ln @eip"].join("\n");
    let connection = format!("com:pipe,port={}", socket.display());
    let command = debugger_command_at(&connection, &["-b", "--json", "-c", &script]);
    let ended = Debugger::start_heard(command).finish();
    assert!(!ended.out.contains("ffffffff") || ended.out.matches("ffffffff").count() == 1, "{}", ended.out);
    let answers: Vec<serde_json::Value> =
        ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |command: &str| {
        let found = answers.iter().find(|answer| answer["command"] == command);
        &found.unwrap_or_else(|| panic!("no {command}: {}", ended.out))["answer"]
    };
    assert_eq!(of("vertarget")["kernel_base"], "0x804d8000");
    assert_eq!(of("r")["registers"][0], serde_json::json!({ "name": "eax", "value": "0x0", "bits": 32 }));
    assert_eq!(
        (&of("? @eip")["value"], &of("? @eip")["decimal"]),
        (&"0x80527bdc".into(), &(-2_142_077_988_i64).into())
    );
    assert_eq!((&of("? -1")["value"], &of("? -1")["decimal"]), (&"0xffffffff".into(), &(-1).into()));
    assert!(runs(&machine), "{ended:#?}");
}

/// A step at the break-in's `int 3` goes behind it, the next one back to its caller; a breakpoint's address has eight digits.
#[test]
fn steps_of_it_are_in_eight_digits() {
    let port = crate::field::free_port();
    let mut debugger = Debugger::start(port, &["-b", "-c", "t; r eip; t; r esp; bp 80530000; bl; .echo END"]);
    debugger.wait_for("Waiting for a target");
    let connect = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let config = SimulatorConfig::new(connect, crate::field::key());
    let config = SimulatorConfig { build: &WINDOWS_XP_X86, scenario: Scenario::VerifierOff, ..config };
    let target = Simulator::start(config).unwrap();
    let ended = debugger.finish();
    assert_eq!(ended.code, 0, "{ended:#?}");
    assert!(ended.err.contains("nt+0x4fbdd:\n80527bdd c20400          ret     4\n"), "{ended:#?}");
    assert!(ended.out.contains("eip=80527bdd\n") && ended.out.contains("esp=8054d5dc\n"), "{ended:#?}");
    assert!(ended.out.contains(" 0 e Disable Clear  80530000"), "{ended:#?}");
    assert!(runs(&target), "{ended:#?}");
}
