//! Monitors that do not do what QEMU's does: a server of the test's own, for errors only.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::program::{Finished, run};

/// A server that greets with `greeting` and answers by `answer`; what it was told comes back.
fn against(
    greeting: &'static str,
    answer: impl Fn(&str) -> Option<Value> + Send + 'static,
) -> (Finished, Vec<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = format!("tcp:{}", listener.local_addr().unwrap());
    let told = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&told);
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let (mut out, lines) = (stream.try_clone().unwrap(), BufReader::new(stream).lines());
        if out.write_all(greeting.as_bytes()).is_err() {
            return;
        }
        for line in lines.map_while(Result::ok) {
            let request: Value = serde_json::from_str(&line).unwrap();
            let command = request["execute"].as_str().unwrap().to_owned();
            let human = request["arguments"]["command-line"].as_str().map(str::to_owned);
            let command = human.unwrap_or(command);
            kept.lock().unwrap().push(command.clone());
            let Some(mut answer) = answer(&command) else { return };
            answer["id"] = request["id"].clone();
            // Events come whenever they like.
            let line = format!("{}\r\n{answer}\r\n", json!({ "event": "RTC_CHANGE", "data": {} }));
            if out.write_all(line.as_bytes()).is_err() {
                return;
            }
        }
    });
    let ended = run(&["--vm", &place, "-c", "lm", "--request-timeout", "1s"]);
    server.join().unwrap();
    let told = told.lock().unwrap().clone();
    (ended, told)
}

const GREETING: &str = "{\"QMP\":{\"version\":{\"qemu\":{\"major\":9,\"minor\":1,\"micro\":2}}}}\r\n";
const REGISTERS: &str = "\nCPU#0\nEAX=0 EBX=0 ECX=0 EDX=0\nESI=0 EDI=0 EBP=0 ESP=0\nEIP=fff0 EFL=2 [-] CPL=0\n\
    ES =0 0 0 0\nCS =0 0 0 0\nSS =0 0 0 0\nDS =0 0 0 0\nFS =0 0 0 0\nGS =0 0 0 0\nIDT=     0 0\nCR0=0 CR2=0 CR3=0 CR4=0\n";
const TREE: &str =
    "FlatView #0\n AS \"memory\", root: system\n  0000000000000000-0000000000000fff (prio 0, ram): ram\n";

/// A machine of a page of zeros.
fn usual(command: &str) -> Value {
    match command {
        "query-status" => json!({ "return": { "running": true, "status": "running" } }),
        "info registers -a" => json!({ "return": REGISTERS }),
        "info mtree -f" => json!({ "return": TREE }),
        "qom-get" => json!({ "error": { "class": "GenericError", "desc": "no such property" } }),
        xp if xp.starts_with("xp ") => {
            let line = format!("0: {}\r\n", ["0x0"; 512].join(" "));
            json!({ "return": line })
        }
        _ => json!({ "return": {} }),
    }
}

#[test]
fn what_is_no_monitor_is_told_as_that() {
    let (ended, _) = against("SSH-2.0-x\r\n", |_| None);
    assert!(ended.err.contains("is no monitor of QEMU (QMP): it says SSH-2.0-x"), "{}", ended.err);
    let (ended, _) = against("(qemu) ", |_| None);
    assert!(ended.err.contains("A human monitor (-monitor) is another thing"), "{}", ended.err);
    let ended = run(&["--vm", "qmp:/nowhere/at/all", "-c", "lm"]);
    assert!(ended.err.contains("Is QEMU started with -qmp unix:PATH,server=on,wait=off?"), "{}", ended.err);
    let ended = run(&["--vm", "/nowhere", "-c", "lm"]);
    assert_eq!(ended.code, 2, "{}", ended.err);
}

#[test]
fn a_machine_without_windows_is_told_as_that_and_let_run() {
    let (ended, told) = against(GREETING, |command| Some(usual(command)));
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("no Windows kernel is found in the virtual machine"), "{}", ended.err);
    let count = |command: &str| told.iter().filter(|it| *it == command).count();
    assert_eq!((count("stop"), count("cont")), (1, 1), "{told:?}");
}

#[test]
fn processors_of_another_kind_are_told_before_anything_is_stopped() {
    let (ended, told) = against(GREETING, |command| {
        Some(if command.starts_with("info reg") {
            json!({ "return": "CPU#0\n PC=0 X00=0" })
        } else {
            usual(command)
        })
    });
    assert!(ended.err.contains("the virtual machine's processors are not x86"), "{}", ended.err);
    assert!(!told.contains(&"stop".to_owned()), "{told:?}");
}

/// One that stops a machine and then goes silent: it is told to let it run all the same.
#[test]
fn a_monitor_that_goes_silent_is_told_to_let_it_run() {
    let (ended, told) = against(GREETING, |command| {
        Some(if command == "stop" { json!({ "event": "NOTHING" }) } else { usual(command) })
    });
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert!(ended.err.contains("no answer from the target within 1 s"), "{}", ended.err);
    assert_eq!(told.last().map(String::as_str), Some("cont"), "{told:?}");
}

#[test]
fn answers_that_are_none_end_with_a_word() {
    for nonsense in [json!({ "return": 7 }), json!({ "return": { "status": 3 } }), json!({ "return": null })]
    {
        let answer = nonsense.clone();
        let (ended, _) = against(GREETING, move |command| {
            Some(if command == "qmp_capabilities" { usual(command) } else { answer.clone() })
        });
        assert_eq!(ended.code, 1, "{nonsense}");
        assert!(ended.err.contains("an answer that is not understood"), "{nonsense}: {}", ended.err);
    }
}
