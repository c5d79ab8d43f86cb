//! Scripts: where their commands come from, what ends them, and how a program tells their answers apart.

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::Value;

use crate::program::{Setup, command};

/// Writes a script; its path as text.
fn script(setup: &Setup, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let file: PathBuf = setup.folder.path().join(name);
    std::fs::write(&file, bytes).unwrap();
    file.display().to_string()
}

/// What Windows' editors and shells write.
fn utf_16(text: &str) -> Vec<u8> {
    format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[test]
fn a_script_may_come_from_anywhere_and_look_as_it_was_pasted() {
    let setup = Setup::new();
    let _target = setup.target(&[]);
    let wanted = "one\ntwo\n";
    let lines = ".echo one\r\n* a comment; .echo not this\r\n.echo two $$ not this\r\n";
    for (name, bytes) in [
        ("plain", lines.as_bytes().to_vec()),
        ("bom", format!("\u{feff}{lines}").into_bytes()),
        ("utf-16", utf_16(lines)),
        ("pasted", b"0: kd> .echo one\n1: kd> 0: kd> .echo\xc2\xa0two\n".to_vec()),
    ] {
        let file = script(&setup, name, bytes);
        let finished = setup.debug(&["-b", "-cf", &file]);
        let out = finished.out.replace(" $$ not this", "");
        assert_eq!((finished.code, out.as_str()), (0, wanted), "{name}: {}", finished.err);
    }
    let nested = script(&setup, "nested", format!("$<{}\n.echo two\n", script(&setup, "inner", ".echo one")));
    let finished = setup.debug(&["-b", "-c", &format!("$$< {nested}; .echo three")]);
    assert_eq!((finished.code, finished.out.as_str()), (0, "one\ntwo\nthree\n"), "{}", finished.err);
    // Standard input that is no terminal is one too.
    let symbols = setup.symbols().display().to_string();
    let mut child = command(&["-k", &setup.connection("1.2.3.4"), "-y", &symbols, "-b"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b".echo one\n.echo two\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stdout).unwrap().as_str()), (Some(0), wanted));
}

#[test]
fn files_that_name_each_other_end_and_no_text_is_no_script() {
    let setup = Setup::new();
    let _target = setup.target(&[]);
    let circle = setup.folder.path().join("circle").display().to_string();
    script(&setup, "circle", format!(".echo round\n$<{circle}\n"));
    let finished = setup.debug(&["-b", "-c", &format!("$<{circle}")]);
    assert_eq!(finished.code, 1, "{}", finished.err);
    assert!(finished.err.contains("files of commands name each other"), "{}", finished.err);
    assert!(finished.out.lines().count() <= 16, "{}", finished.out);
    let binary = script(&setup, "binary", [0xff_u8, 0, 0x80, 0x99]);
    let finished = setup.debug(&["-b", "-cf", &binary]);
    assert_eq!(finished.code, 2);
    assert!(finished.err.contains("it is no text in UTF-8 or UTF-16"), "{}", finished.err);
}

#[test]
fn a_script_goes_on_behind_an_error_unless_it_is_told_not_to() {
    let setup = Setup::new();
    let _target = setup.target(&[]);
    let lines = ".echo one\nnosuch\n.echo two\n.if (1) { g }\n.echo three";
    let file = script(&setup, "script", lines);
    let finished = setup.debug(&["-b", "-cf", &file]);
    assert_eq!((finished.code, finished.out.as_str()), (2, "one\ntwo\nthree\n"), "{}", finished.err);
    let finished = setup.debug(&["-b", "-cf", &file, "--stop-on-error"]);
    assert_eq!((finished.code, finished.out.as_str()), (2, "one\n"), "{}", finished.err);
    let why =
        "error: .echo two and the command behind it: not run: a command before it failed (--stop-on-error)";
    assert!(finished.err.contains(why), "{}", finished.err);
    let finished = setup.debug(&["-b", "--json", "-cf", &file, "--stop-on-error"]);
    let lines: Vec<Value> = finished.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let codes: Vec<&Value> = lines.iter().map(|line| &line["errors"][0]["code"]).collect();
    assert_eq!(
        codes,
        ["null", "\"unknown_command\"", "\"not_run\"", "\"not_run\""]
            .map(|it| it.parse::<Value>().unwrap())
            .iter()
            .collect::<Vec<_>>()
    );
}

#[test]
fn of_a_machine_without_stacks_or_symbols_it_is_said_what_there_is_instead() {
    let setup = Setup::new();
    let _target = setup.target(&["--windows", "xp-x86"]);
    let finished = setup.debug(&["-b", "-c", "k\ngu\nbp nt!KeBugCheckEx\nbl\ndps @esp L1\nq"]);
    assert_eq!(finished.code, 1, "{}", finished.err);
    for command in ["k", "gu"] {
        let why = format!(
            "error: {command}: not supported on x86 targets: stacks are not walked; dps @esp L40 shows "
        );
        assert!(finished.err.contains(&why), "{}", finished.err);
    }
    let deferred = "Bp expression 'nt!KeBugCheckEx' could not be resolved, adding deferred bp\n  nt has no symbols: no symbols for \
                    ntkrpamp.pdb";
    assert!(finished.out.starts_with(deferred), "{}", finished.out);
    assert_eq!(finished.out.matches("has no symbols").count(), 1, "{}", finished.out);
    assert!(finished.out.ends_with("00000000\n"), "{}", finished.out);
}

#[test]
fn whatever_is_not_run_is_named_with_its_reason() {
    let setup = Setup::new();
    let _target = setup.target(&[]);
    let not_run = |commands: &str, options: &[&str]| {
        let finished = setup.debug(&[&["-b", "-c", commands], options].concat());
        let lines: Vec<String> =
            finished.err.lines().filter(|line| line.contains("not run: ")).map(str::to_owned).collect();
        (finished, lines)
    };
    // What changes the machine is held back behind a failure, and what stands behind that on its line.
    let (finished, lines) = not_run("nosuch; .echo on; g; lm; .echo off\n.echo last", &[]);
    assert_eq!((finished.code, finished.out.as_str()), (2, "on\nlast\n"), "{}", finished.err);
    let why = "not run: a command before it on its line failed";
    assert_eq!(lines, ["g", "lm", ".echo off"].map(|it| format!("error: {it}: {why}")));
    let (finished, _) = not_run("nosuch; t; lm", &["--json"]);
    let named = finished.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let named: Vec<_> = named.map(|it| format!("{} {}", it["command"], it["errors"][0]["code"])).collect();
    assert_eq!(
        named,
        [r#""nosuch" "unknown_command""#, r#""t" "not_run""#, r#""lm" "not_run""#],
        "{}",
        finished.err
    );
    // One sentence for all that a wait in vain leaves, and nobody misses the end of a session; in JSON each has its line.
    let wait = ["--stop-timeout", "1s"];
    let (finished, lines) = not_run("g; k; lm\nr\nq", &wait);
    assert_eq!((finished.code, lines.len()), (1, 1), "{}", finished.err);
    let named = "error: k and the 2 commands behind it: not run: the target did not stop by itself within 1s";
    assert!(lines[0].starts_with(named), "{lines:?}");
    let (finished, lines) = not_run("g; q", &wait);
    assert_eq!((finished.code, lines), (1, Vec::new()), "{}", finished.err);
    assert!(finished.err.contains("error: the target did not stop by itself within 1s"), "{}", finished.err);
    let (finished, _) = not_run("g; k; q", &["--json", "--stop-timeout", "1s"]);
    assert_eq!(finished.out.matches("\"not_run\"").count(), 2, "{}", finished.out);
    // Nothing is behind the last wait: its end has a reason all the same.
    let timeout = ["--stop-timeout", "1s"];
    let finished = setup.debug(&[&["-b", "-c", "bp nt!KeBugCheckEx; g"], &timeout[..]].concat());
    assert_eq!(finished.code, 1, "{}", finished.err);
    assert!(finished.err.contains("error: the target did not stop by itself within 1s"), "{}", finished.err);
}

/// A run of a file has its end too, and whatever it could not write for want of a reader is told.
#[cfg(unix)]
#[test]
fn a_deadline_ends_a_run_of_a_file() {
    let setup = Setup::new();
    let (dump, symbols) = (setup.dump(), setup.symbols().display().to_string());
    let pipe = setup.folder.path().join("pipe").display().to_string();
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let options = ["-z", &dump, "-y", &symbols, "--deadline", "700ms"];
    let ended = crate::program::verikd(&[&["leaks"], &options[..], &["--folded", &pipe]].concat());
    assert_eq!(ended.code, 1, "{}", ended.err);
    let told = "the deadline of 700ms ended it; not all was written, since nobody reads it";
    assert!(ended.err.contains(told), "{}", ended.err);
}

/// The new boot may be there before anybody waits for it, and the old stop may be over a moment later than it is told.
#[test]
fn a_restarted_target_is_stopped_every_time() {
    let setup = Setup::new();
    let _target = setup.target(&[]);
    let commands = (0..20).map(|it| format!(".restart; .echo {it}; r rip")).collect::<Vec<_>>().join("; ");
    let finished = setup.debug(&["-b", "-c", &commands, "--stop-timeout", "20s"]);
    assert_eq!(finished.code, 0, "{}", finished.err);
    assert_eq!(finished.out.matches("rip=").count(), 20, "{}", finished.err);
}

/// Each command stands before its answer, behind a prompt, where both streams go to one place.
#[test]
fn a_program_can_tell_the_answers_of_a_script_apart() {
    let setup = Setup::new();
    let _target = setup.target(&[]);
    let both = setup.folder.path().join("both");
    let file = std::fs::File::create(&both).unwrap();
    let symbols = setup.symbols().display().to_string();
    let commands = "r rip; !verifier 3 myfault.sys; .echo end";
    let status = command(&["-k", &setup.connection("1.2.3.4"), "-y", &symbols, "-b", "-c", commands])
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .status()
        .unwrap();
    assert!(status.success());
    let text = std::fs::read_to_string(&both).unwrap();
    let mut parts = text.split("\n0: kd> ").skip(1);
    let part = |parts: &mut dyn Iterator<Item = &str>| {
        parts
            .next()
            .unwrap()
            .split_once('\n')
            .map(|(command, answer)| (command.to_owned(), answer.to_owned()))
            .unwrap()
    };
    let (command, answer) = part(&mut parts);
    assert!(command == "r rip" && answer.starts_with("rip="), "{text}");
    let (command, answer) = part(&mut parts);
    assert!(command == "!verifier 3 myfault.sys" && answer.contains("fffffa8005400000"), "{text}");
    assert_eq!(part(&mut parts).0, ".echo end");
}

/// Every code that a script ends with, as README.md has them.
#[test]
fn a_script_s_exit_codes_are_those_of_the_readme() {
    let setup = Setup::new();
    let target = setup.target(&[]);
    for (commands, code) in [
        ("lm", 0),
        ("!verifier 3 nosuch.sys", 1),
        ("dt nt!_NOSUCH", 1),
        ("nosuch", 2),
        ("vertarget x", 2),
        ("db nt!VfPoolTraces L8; db 0 L8", 1),
        ("db nt-8 L10", 3),
    ] {
        let finished = setup.debug(&["-b", "-c", commands]);
        assert_eq!(finished.code, code, "{commands}: {}", finished.err);
    }
    drop(target);
    let finished = setup.debug(&["-b", "-c", "lm", "--connect-timeout", "1s"]);
    assert_eq!(finished.code, 1, "no target: {}", finished.err);
    let finished = setup.debug(&["-b"]);
    assert_eq!(finished.code, 2, "nothing to do: {}", finished.err);
}

#[cfg(unix)]
#[test]
fn a_script_that_ctrl_c_ends_says_so_and_is_130() {
    let setup = Setup::new();
    let mut debugger =
        crate::program::Running::start(&["-k", &setup.connection("1.2.3.4"), "-b", "-c", "lm"]);
    debugger.wait_for("Waiting for a target");
    debugger.signal("INT");
    debugger.wait_for("interrupted while waiting for a target");
    assert_eq!(debugger.finish().code, 130);
}

/// A mistyped device is told at once, not when the wait for a target is over.
#[cfg(unix)]
#[test]
fn a_line_that_is_not_there_is_told_at_once() {
    let mut debugger = crate::program::Running::start(&[
        "-k",
        "com:port=/dev/nosuch,baud=115200",
        "-c",
        "lm",
        "--connect-timeout",
        "3s",
    ]);
    let before = debugger.seen_before("/dev/nosuch (115200 baud) is not there: ");
    assert_eq!(before, ["Waiting for a target on /dev/nosuch (115200 baud)"]);
    debugger.wait_for("shows the serial ports");
    debugger.wait_for("Waiting for it");
    debugger.wait_for("verikd: no target within 3 s");
    assert_eq!(debugger.finish().code, 1);
}
