//! What fingers that know WinDbg type: every line gets an answer, or a sentence that says what to use instead. None is met by
//! "unknown command" alone, and none does something else than was meant.

use serde_json::Value;

use crate::program::{Setup, run};

/// What a line is to get.
enum Gets {
    /// An answer; its JSON has this in it.
    Answer(&'static str),
    /// No answer, but a sentence with this in it.
    Sentence(&'static str),
}

use Gets::{Answer, Sentence};

/// Lines and what they get, on the simulated machine. What a line begins is not run in part if it is refused.
const LINES: &[(&str, Gets)] = &[
    // Which program, which machine; help in all its spellings.
    ("version", Answer("verikd")),
    ("vercommand", Answer("verikd")),
    ("help", Answer("!verifier")),
    ("/help", Answer("!verifier")),
    ("?", Answer("!verifier")),
    (".hh lm", Answer("lm[v]")),
    ("!help", Answer("!verifier")),
    ("!help verifier", Answer("!verifier")),
    // What an engine that runs the machine step by step would do.
    ("k", Answer("KeUpdateRunTime")),
    ("kn", Answer("KeUpdateRunTime")),
    ("kv", Answer("KeUpdateRunTime")),
    ("kb", Answer("args")),
    ("kc", Answer("KeUpdateRunTime")),
    ("kL", Answer("KeUpdateRunTime")),
    ("u", Answer("int     3")),
    ("ub nt!DbgBreakPointWithStatus+2", Answer("ret")),
    ("uf nt!DbgBreakPointWithStatus", Answer("ret")),
    ("up 1000", Sentence("`u ADDRESS`")),
    ("~", Sentence("~1s; r")),
    ("~0", Answer("processor")),
    ("~1s", Answer("processor")),
    ("~0s", Answer("processor")),
    ("~*k", Sentence("processor")),
    ("bp nt!ExAllocatePoolWithTag", Answer("")),
    ("bu myfault!x", Answer("myfault!x")),
    ("ba w4 nt", Answer("")),
    ("bl", Answer("nt!ExAllocatePoolWithTag")),
    ("bc *", Answer("")),
    ("bd 0", Sentence("no breakpoint with such a number")),
    ("be 0", Sentence("no breakpoint with such a number")),
    ("g nosuch!x", Sentence("no module called nosuch")),
    ("ed nt 0", Sentence("start it with --write")),
    ("eb nt 0", Sentence("start it with --write")),
    ("ew nt 0", Sentence("start it with --write")),
    ("eq nt 0", Sentence("start it with --write")),
    ("ep nt 0", Sentence("start it with --write")),
    ("ea nt \"x\"", Sentence("start it with --write")),
    ("f nt L10 0", Sentence("value by value")),
    ("r rax=1", Sentence("start it with --write")),
    ("r $ip", Answer("0xfffff800014846a0")),
    ("r @$t0=5", Sentence("start it with --write")),
    ("1k", Sentence("`~1s` chooses processor 1")),
    ("0r", Sentence("`~1s` chooses processor 1")),
    (".writemem /nowhere/at/all.bin nt L10", Answer("0xfffff8000141b000")),
    // Pool.
    ("!poolused 2", Answer("nonpaged")),
    ("!poolfind Leak", Answer("blocks")),
    ("!pool fffffa8005400000", Answer("Leak")),
    ("!vm", Answer("")),
    ("!poolval fffffa8005400000", Sentence("`!pool ADDRESS`")),
    // The session.
    (".dump", Sentence("usage: .dump")),
    (".logfile", Answer("none")),
    (".time", Answer("uptime_ms")),
    (".lastevent", Answer("Break instruction exception")),
    ("!running", Answer("processors")),
    ("$<nosuch.txt", Sentence("cannot read commands from nosuch.txt")),
    ("$><nosuch.txt", Sentence("cannot read commands from nosuch.txt")),
    ("$$>< nosuch.txt", Sentence("cannot read commands from nosuch.txt")),
    ("$$>a< nosuch.txt 1", Sentence("$$< FILE runs one as it is")),
    // Control flow: refused, with all that stands on its line.
    (".if (1) { .reboot } .else { g }", Sentence("Nothing of this line was run")),
    (".else { g }", Sentence("Nothing of this line was run")),
    (".for (r $t0=0; @$t0<1; r $t0=1) { .reboot }", Sentence("Nothing of this line was run")),
    (".while (1) { g }", Sentence("Nothing of this line was run")),
    (".foreach (x {lm}) { .reboot }", Sentence("Nothing of this line was run")),
    (".block { .reboot }", Sentence("Nothing of this line was run")),
    (".do { g } (1)", Sentence("Nothing of this line was run")),
    (".catch { .reboot }", Sentence("Nothing of this line was run")),
    ("j (1) '.reboot'; 'g'", Sentence("Nothing of this line was run")),
    ("z (1)", Sentence("Nothing of this line was run")),
    // Extensions, and what comes nearest.
    ("!process 0 0", Sentence("nt!_EPROCESS")),
    ("!thread", Sentence("processes and threads")),
    ("!irp fffffa8005400000", Sentence("`dt nt!_TYPE ADDRESS`")),
    ("!drvobj myfault", Sentence("`dt nt!_TYPE ADDRESS`")),
    ("!devobj fffffa8005400000", Sentence("`dt nt!_TYPE ADDRESS`")),
    ("!object \\Driver", Sentence("`dt nt!_TYPE ADDRESS`")),
    ("!handle 0 0", Sentence("`dt nt!_TYPE ADDRESS`")),
    ("!locks", Sentence("`dt nt!_TYPE ADDRESS`")),
    ("!stacks", Sentence("other threads")),
    ("!pcr", Sentence("_KPRCB")),
    ("!prcb", Sentence("_KPRCB")),
    ("!idt", Sentence("_KPRCB")),
    ("!pte fffffa8005400000", Sentence("not shown here")),
    ("!address fffffa8005400000", Sentence("not shown here")),
    ("!analyze -v", Sentence("`.bugcheck`")),
    ("dx @$cursession", Sentence("`dt`")),
    ("dv", Sentence("`dt`")),
    ("?? sizeof(int)", Sentence("`?`")),
    (".process", Sentence("processes and threads")),
    (".thread", Sentence("processes and threads")),
    (".effmach", Sentence("not shown here")),
    // Modules and symbols.
    ("lmf", Answer("ntoskrnl.exe")),
    ("lmu", Answer("modules")),
    ("lmi", Answer("modules")),
    ("lmk", Answer("modules")),
    ("!lmi nt", Sentence("`lmv m NAME`")),
    (".reload/f", Answer("modules")),
    (".reload /i", Sentence("symbols of another build")),
    (".reload /v", Answer("")),
    (".reload /n", Answer("")),
    // Memory.
    ("dpp @rsp L2", Answer("pointers")),
    ("dpu poi(nt!PsLoadedModuleList)+58 L2", Answer("ntoskrnl.exe")),
    ("dpa nt L1", Answer("pointers")),
    ("ds poi(nt!PsLoadedModuleList)+58", Answer("text")),
    ("dS poi(nt!PsLoadedModuleList)+58", Answer(".exe")),
    ("dl nt!PsLoadedModuleList 2", Answer("entries")),
    ("dD nt L1", Sentence("the other `d` commands")),
    ("df nt L1", Sentence("the other `d` commands")),
    ("dd /c1 nt L2", Answer("elements")),
    ("dt -l Flink nt!_LIST_ENTRY poi(nt!PsLoadedModuleList)", Sentence("-l")),
    ("dt nt!_LDR_DATA_TABLE_ENTRY InLoadOrderLinks.Flink->Blink", Answer("Blink")),
    ("!list -t nt!_LIST_ENTRY.Flink nt!PsLoadedModuleList", Sentence("`dl ADDRESS` shows the entries")),
    (".printf \"%p\\n\", nt", Sentence("`? EXPRESSION`")),
    ("s -a nt Lf000 7601", Answer("matches")),
    ("s-d nt L100 00905a4d", Answer("matches")),
    ("? 'dcba'", Answer("64636261")),
    ("x /t nt!VfPoolTraces", Answer("VfPoolTraces")),
    ("x /v nt!VfPoolTraces", Answer("VfPoolTraces")),
    // Registers that the debugger makes up.
    ("? @$ip", Answer("value")),
    ("? @$thread", Sentence("$ip, $csp")),
    (".formats @$t0", Answer("value")),
    ("? $p", Answer("value")),
    // Slips.
    ("!verifer", Sentence("is !verifier meant?")),
    ("!verifier3", Sentence("is !verifier meant?")),
    (".bugchek", Sentence("is .bugcheck meant?")),
    // What does nothing here.
    (".cls", Sentence("does nothing here")),
    (".beep", Sentence("does nothing here")),
    (".echotime", Answer("debugger_time")),
    // Words too many.
    (".reboot now", Sentence("usage: .reboot")),
    ("q q", Sentence("usage: q")),
    ("vertarget x", Sentence("usage: vertarget")),
    (".bugcheck 1", Sentence("usage: .bugcheck")),
    // As posts and word processors have it.
    ("0: kd> lm", Answer("modules")),
    ("!verifier\u{a0}3 \u{201c}myfault.sys\u{201d}", Answer("myfault.sys")),
];

#[test]
fn every_line_that_windbg_users_type_gets_something_useful() {
    let setup = Setup::new();
    let script = setup.folder.path().join("script");
    let lines: Vec<&str> = LINES.iter().map(|(line, _)| *line).collect();
    std::fs::write(&script, lines.join("\n")).unwrap();
    let _target = setup.target(&[]);
    let finished = setup.debug(&["-b", "--json", "-cf", script.to_str().unwrap()]);
    let objects: Vec<Value> =
        finished.out.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(objects.len(), LINES.len(), "one object a line:\n{}", finished.err);
    let mut wrong = Vec::new();
    for ((line, gets), object) in LINES.iter().zip(&objects) {
        let error = object["errors"][0]["text"].as_str().unwrap_or_default();
        let is_right = match gets {
            Answer(wanted) => !object["answer"].is_null() && object["answer"].to_string().contains(wanted),
            Sentence(wanted) => {
                error.contains(wanted) && (!error.contains("unknown command") || error.contains("meant?"))
            }
        };
        if !is_right {
            wrong.push(format!("{line}\n    {error}{}", object["answer"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_session_is_ended_by_every_name_for_it() {
    for line in ["exit", "quit", "qq", ".detach", "qd", "q"] {
        let setup = Setup::new();
        let _target = setup.target(&[]);
        let finished = setup.debug(&["-b", "-c", &format!("{line}; .echo more")]);
        assert_eq!((finished.code, finished.out.as_str()), (0, ""), "{line}: {}", finished.err);
    }
}

#[test]
fn a_dump_is_opened_as_kd_opens_it() {
    let finished = run(&["-z", "/no/such/file.dmp", "-c", "lm"]);
    assert_eq!(finished.code, 1);
    assert!(finished.err.contains("/no/such/file.dmp: "), "{}", finished.err);
}
