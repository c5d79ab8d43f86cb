//! The code follows the drawing on the library's first page: [`ROOMS`] and [`PROTOCOL_ROOMS`] are that drawing as
//! tables. And the README's table of commands is the one that the program has.
//!
//! Sources are read as tokens, not compiled: comments and texts don't count, whatever stands in a macro does.

use std::fmt;

use verikd::commands::COMMANDS;

mod citations;
mod files;
mod source;

use source::{Source, sources};

/// Who may import whom. A room imports only what its row names, and what it names stands below it: no cycles.
///
/// `sim` is the simulated target's crate: nobody but the program knows it. `protocol` is what the crate has at its top, the addresses; `protocol::wire` is that module; `protocol::*` all.
const ROOMS: &[(&str, &[&str])] = &[
    (
        "main",
        &[
            "shell",
            "plan",
            "check",
            "debugger",
            "doctor",
            "dump",
            "vm",
            "trace",
            "metrics",
            "capture",
            "sim",
            "session",
            "source",
            "commands",
            "leaks",
            "target",
            "symbols",
            "output",
            "memory",
            "key",
            "protocol::*",
        ],
    ),
    (
        "shell",
        &[
            "plan",
            "check",
            "debugger",
            "commands",
            "leaks",
            "session",
            "source",
            "target",
            "symbols",
            "output",
            "memory",
            "protocol::*",
        ],
    ),
    // What is to be asked of which targets when: a text, read and checked.
    ("plan", &["session", "commands"]),
    // The engine: no writer, no terminal, no session: any source.
    ("debugger", &["commands", "source", "target", "symbols", "memory", "protocol::*"]),
    ("doctor", &["session", "source", "protocol::*"]),
    // The same with a virtual machine, whose monitor is asked.
    ("vm", &["physical", "source", "output", "memory", "protocol", "protocol::kd", "protocol::link"]),
    // A crate of its own.
    ("sim", &["protocol::*"]),
    // A session's traffic as a file, which capture reads.
    ("trace", &["session", "capture", "protocol::*"]),
    ("session", &["source", "memory", "key", "protocol::*"]),
    ("capture", &["key", "protocol::*"]),
    // Not session: commands that let the target run are values, which the shell carries out. No query can.
    // `.dump` writes what dump reads.
    ("commands", &["leaks", "dump", "target", "symbols", "output", "memory", "protocol"]),
    // A watch's figures: what they are of is given to it.
    ("metrics", &["leaks", "output"]),
    // Limits for what snapshots say; knows no target.
    ("check", &["leaks", "output"]),
    // Snapshots and pictures: files of any source, told without a target.
    ("leaks", &["output"]),
    // A CONTEXT, where registers come from, is laid out by KD. Errors name what the target calls itself: escaped.
    (
        "target",
        &["unwind", "symbols", "output", "source", "memory", "protocol", "protocol::kd", "protocol::wire"],
    ),
    // A step up a stack: registers and bytes, whosever they are.
    ("unwind", &[]),
    ("symbols", &["output", "protocol", "protocol::wire"]),
    // An address is part of what is printed; memory gives it its name outside of protocol.
    ("output", &["memory", "protocol"]),
    // A file as a target: it makes a source of it, and knows no symbols.
    ("dump", &["physical", "source", "memory", "protocol", "protocol::kd"]),
    // RAM in files, and the kernel in it.
    ("physical", &["source", "memory", "protocol", "protocol::kd"]),
    // What a target is to its readers, wherever it is: bytes, a boot, perhaps a way to make it run.
    ("source", &["memory", "protocol", "protocol::kd", "protocol::link"]),
    ("memory", &["protocol"]),
    ("key", &["protocol", "protocol::kdnet"]),
];

/// The same inside `protocol`.
const PROTOCOL_ROOMS: &[(&str, &[&str])] = &[
    ("link", &["kd", "kdnet", "kdcom", "wire", "address"]),
    ("kdcom", &["kd"]),
    ("kd", &["wire", "address"]),
    ("kdnet", &["wire", "address"]),
    ("wire", &["address"]),
    ("address", &[]),
    ("machine", &[]),
];

/// Things of the outside world, and the rooms that may touch them.
const OUTSIDE: &[(&[&str], &[&str])] = &[
    (&["tokio"], &["session", "metrics", "main"]),
    (&["UdpSocket"], &["session", "doctor", "trace", "main"]),
    (&["TcpStream"], &["session", "vm", "metrics", "main"]),
    (&["UnixStream"], &["session", "vm", "main"]),
    (&["serial2_tokio"], &["session"]),
    (&["TcpListener"], &["session", "metrics", "main"]),
    (&["ToSocketAddrs"], &["session", "vm", "metrics", "main"]),
    // Symbols wait between two tries of a server; a shell reads keys and writes answers on threads of their own, so that
    // neither keeps a machine standing still; a trace is written, and figures are served, by threads for the same reason.
    (&["thread", "::"], &["session", "shell", "symbols", "trace", "metrics", "main"]),
    (&["ureq"], &["symbols"]),
    (&["hyper"], &["metrics"]),
    (&["prometheus_client"], &["metrics"]),
    (&["clap"], &["main"]),
    (&["clap_complete"], &["main"]),
    (&["clap_mangen"], &["main"]),
    (&["humantime"], &["plan", "main"]),
    (&["rustyline"], &["shell"]),
    (&["indicatif"], &["shell"]),
    (&["quick_xml"], &["check"]),
    (&["toml"], &["plan"]),
    (&["regex"], &["plan"]),
    (&["pcap_parser"], &["capture"]),
    (&["etherparse"], &["capture"]),
    (&["Instant", "::", "now"], &["session", "doctor", "shell", "vm", "main"]),
    (&["SystemTime"], &["debugger", "trace", "main"]),
    (&["getrandom"], &["session", "main"]),
    (&["fastrand"], &["main"]),
];

#[test]
fn imports_follow_the_drawing() {
    let files = sources("src");
    assert!(files.len() > 30, "only {} files were found", files.len());
    report(files.iter().flat_map(|file| import_violations(file, ROOMS)));
}

#[test]
fn imports_inside_protocol_follow_the_drawing() {
    let files = sources("protocol/src");
    assert!(files.len() > 15, "only {} files were found", files.len());
    report(files.iter().flat_map(|file| import_violations(file, PROTOCOL_ROOMS)));
}

#[test]
fn the_simulated_target_knows_nothing_of_the_client() {
    let files = sources("sim/src");
    assert!(files.len() > 30, "only {} files were found", files.len());
    let knows = |file: &&Source| file.tokens.iter().any(|token| token.text == "verikd");
    let knowing: Vec<&str> = files.iter().filter(knows).map(|file| file.path.as_str()).collect();
    assert!(knowing.is_empty(), "the client is named in {knowing:?}");
}

#[test]
fn sockets_clocks_threads_and_chance_are_where_the_drawing_has_them() {
    report(sources("src").iter().flat_map(outside_violations));
}

#[test]
fn protocol_has_no_socket_clock_thread_or_chance_at_all() {
    let files = sources("protocol/src");
    report(files.iter().flat_map(outside_violations));
}

#[test]
fn the_drawing_has_no_cycle() {
    for table in [ROOMS, PROTOCOL_ROOMS] {
        for (row, (room, imports)) in table.iter().enumerate() {
            for import in imports.iter().filter(|import| !import.starts_with("protocol")) {
                let is_below = table[row + 1..].iter().any(|(below, _)| below == import);
                assert!(is_below, "{room} may import {import}, which does not stand below it");
            }
        }
    }
}

#[test]
fn the_readmes_table_of_commands_is_current() {
    let rows = COMMANDS
        .iter()
        .map(|command| format!("| `{}` | {} |", command.usage.replace('|', "\\|"), command.summary));
    let expected =
        format!("| command | what it does |\n|---|---|\n{}\n\n", rows.collect::<Vec<_>>().join("\n"));
    let readme = include_str!("../../README.md");
    assert!(readme.contains(&expected), "README.md should have this table of commands:\n\n{expected}");
}

#[test]
fn an_import_is_found_however_it_is_written() {
    let imports = |path: &str, text: &str| -> Vec<String> {
        let file = Source::new(path.into(), text);
        import_violations(&file, &[("target", &[]), ("memory", &[])]).iter().map(|it| it.found()).collect()
    };
    let at = "src/target/walk.rs";
    assert_eq!(imports(at, "use crate::session;"), ["session"]);
    assert_eq!(imports(at, "use crate::{memory::{A, B}, session as s, target};"), ["memory", "session"]);
    assert_eq!(imports(at, "fn f(a: crate::shell::Shell) { vec![verikd::doctor::X] }"), ["shell", "doctor"]);
    assert_eq!(imports(at, "use verikd_sim::windows::Machine;"), ["sim"]);
    assert_eq!(imports(at, "mod tests { use verikd_sim::windows::Machine; }"), [""; 0]);
    assert_eq!(imports(at, "use super::super::session::Session;"), ["session"]);
    assert_eq!(imports(at, "use super::super::{memory, target};"), ["memory"]);
    assert_eq!(imports(at, "use kd_protocol::{VirtAddr, wire::Reader};"), ["protocol", "protocol::wire"]);
    assert_eq!(imports(at, "mod tests { use super::super::session; }"), [""; 0], "target::session");
    assert_eq!(imports(at, "use super::memory; use crate::target::Target;"), [""; 0], "target::memory");
    assert_eq!(imports(at, "// crate::session\n/* crate::shell /* */ crate::doctor */"), [""; 0]);
    assert_eq!(imports(at, r##"f("crate::doctor", r#"crate::"shell"#, '"', 'a', b'\'');"##), [""; 0]);
    assert_eq!(imports("src/target/mod.rs", "use super::session;"), ["session"]);
    assert_eq!(imports("src/attic.rs", "fn f() {}"), ["attic"], "a room that the drawing lacks");
}

#[test]
fn a_violation_says_file_import_and_rule() {
    let file = Source::new("src/memory/image.rs".into(), "\nuse crate::{target, symbols};\n");
    let violations = import_violations(&file, ROOMS);
    assert_eq!(
        violations[0].to_string(),
        "src/memory/image.rs:2 imports target, but memory may import only: protocol"
    );
    let file = Source::new("src/target/mod.rs".into(), "let now = std::time::Instant::now();");
    assert_eq!(
        outside_violations(&file)[0].to_string(),
        "src/target/mod.rs:1 uses Instant::now, but only these may: session, doctor, shell, vm, main"
    );
}

/// A rule that a file breaks.
enum Violation {
    Import { path: String, line: usize, import: String, room: String, allowed: String },
    UnknownRoom { path: String, room: String },
    Outside { path: String, line: usize, used: String, allowed: String },
}

impl Violation {
    fn found(&self) -> String {
        match self {
            Self::Import { import: found, .. }
            | Self::UnknownRoom { room: found, .. }
            | Self::Outside { used: found, .. } => found.clone(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Import { path, line, import, room, allowed } => {
                let allowed = if allowed.is_empty() { "nothing" } else { allowed };
                write!(f, "{path}:{line} imports {import}, but {room} may import only: {allowed}")
            }
            Self::UnknownRoom { path, room } => {
                write!(f, "{path} belongs to {room}, which has no row in the tables of tests/architecture/")
            }
            Self::Outside { path, line, used, allowed } => {
                write!(f, "{path}:{line} uses {used}, but only these may: {allowed}")
            }
        }
    }
}

fn report(violations: impl Iterator<Item = Violation>) {
    let lines: Vec<String> = violations.map(|it| it.to_string()).collect();
    assert!(lines.is_empty(), "the drawing is not followed:\n  {}", lines.join("\n  "));
}

fn import_violations(file: &Source, rooms: &[(&str, &[&str])]) -> Vec<Violation> {
    let Some(room) = file.room() else { return Vec::new() };
    let Some((_, allowed)) = rooms.iter().find(|(name, _)| *name == room) else {
        return vec![Violation::UnknownRoom { path: file.path.clone(), room: room.into() }];
    };
    let is_allowed = |import: &str| {
        let is_all_of_protocol = import.starts_with("protocol") && allowed.contains(&"protocol::*");
        import == room || allowed.contains(&import) || is_all_of_protocol
    };
    let forbidden = file.imports().into_iter().filter(|(import, _)| !is_allowed(import));
    forbidden
        .map(|(import, line)| Violation::Import {
            path: file.path.clone(),
            line,
            import,
            room: room.into(),
            allowed: allowed.join(", "),
        })
        .collect()
}

fn outside_violations(file: &Source) -> Vec<Violation> {
    let room = file.room().unwrap_or("lib");
    let is_protocol = file.path.starts_with("protocol/");
    let mut violations = Vec::new();
    for (thing, allowed) in OUTSIDE.iter().filter(|(_, allowed)| is_protocol || !allowed.contains(&room)) {
        for window in file.tokens.windows(thing.len()) {
            if window.iter().map(|token| token.text.as_str()).eq(thing.iter().copied()) {
                violations.push(Violation::Outside {
                    path: file.path.clone(),
                    line: window[0].line,
                    used: thing.concat(),
                    allowed: allowed.join(", "),
                });
            }
        }
    }
    violations
}
