//! Exit codes in one table, as README.md and `--help` have them: how a run goes, and the number that tells a script of it.

#[cfg(unix)]
use crate::program::Running;
use crate::program::{Finished, Setup, verikd};

/// A run: what is typed, and how the simulated machine behind the line behaves.
struct Row {
    code: i32,
    /// Options of the machine; nothing if there is none.
    machine: Option<&'static [&'static str]>,
    line: &'static [&'static str],
    /// What must be read on standard error.
    says: &'static str,
}

const fn row(
    code: i32,
    machine: Option<&'static [&'static str]>,
    line: &'static [&'static str],
    says: &'static str,
) -> Row {
    Row { code, machine, line, says }
}

const SOUND: Option<&[&str]> = Some(&[]);
const FALLS_SILENT: Option<&[&str]> = Some(&["--quirks", "silent-after-break"]);
/// It was stopped while it made its tables of tags larger.
const RESIZING: Option<&[&str]> = Some(&["--scenario", "pool-torn"]);
/// A run does not wait for what does not come for longer than this.
const SHORT: [&str; 4] = ["--request-timeout", "1s", "--leave-timeout", "1s"];

const ROWS: &[Row] = &[
    row(0, SOUND, &["debug", "-b", "-c", "lm"], ""),
    row(0, SOUND, &["check", "--driver", "myfault.sys", "--max-outstanding", "10"], ""),
    row(1, SOUND, &["debug", "-b", "-c", "dt nt!_NOSUCH"], "_NOSUCH"),
    row(1, None, &["debug", "-b", "-c", "lm", "--connect-timeout", "1s"], "no target"),
    row(2, SOUND, &["debug", "-b", "-c", "nosuch"], "nosuch"),
    row(2, None, &["debug", "--nosuch"], "--nosuch"),
    row(2, None, &["check", "--max-bytes", "many"], "many"),
    row(3, RESIZING, &["debug", "-b", "-c", "!poolused 2"], "when the target stopped"),
    row(3, SOUND, &["check", "--driver", "none.sys"], ""),
    row(4, SOUND, &["check", "--driver", "myfault.sys"], ""),
    row(4, FALLS_SILENT, &["debug", "-b", "-c", "lm"], "may still"),
    row(5, None, &["check", "--driver", "myfault.sys", "--connect-timeout", "1s"], "no target"),
    row(6, FALLS_SILENT, &["check", "--driver", "myfault.sys"], ""),
];

fn run(setup: &Setup, row: &Row) -> Finished {
    let (connection, symbols) = (setup.connection("1.2.3.4"), setup.symbols().display().to_string());
    let (first, rest) = row.line.split_first().unwrap();
    let command: &[&str] = if *first == "debug" { &[] } else { std::slice::from_ref(first) };
    let line = [command, &["-k", &connection, "-y", &symbols], &SHORT, rest].concat();
    verikd(&line)
}

#[test]
fn every_exit_code_tells_what_the_readme_says_it_does() {
    for row in ROWS {
        let setup = Setup::new();
        let target = row.machine.map(|options| setup.target(options));
        let ended = run(&setup, row);
        assert_eq!(ended.code, row.code, "{:?}: {}{}", row.line, ended.out, ended.err);
        assert!(ended.err.contains(row.says), "{:?}: {}", row.line, ended.err);
        // Whoever was let go says so; one that fell silent says nothing.
        if let (Some(mut target), true) = (target, row.machine != FALLS_SILENT) {
            target.wait_for("Runs on");
        }
    }
}

#[cfg(unix)]
#[test]
fn a_signal_that_ends_a_run_is_128_and_its_number() {
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        for (command, options) in
            [(None, &["-b", "-c", "lm"][..]), (Some("check"), &["--driver", "myfault.sys"])]
        {
            let setup = Setup::new();
            let connection = setup.connection("1.2.3.4");
            let command: Vec<&str> = command.into_iter().collect();
            let mut debugger = Running::start(&[&command[..], &["-k", &connection], options].concat());
            debugger.wait_for("Waiting for a target");
            debugger.signal(signal);
            assert_eq!(debugger.finish().code, code, "{signal} {command:?}");
        }
    }
}
