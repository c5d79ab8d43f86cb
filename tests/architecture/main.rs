//! The code follows the drawing on the library's first page: [`ROOMS`] and [`PROTOCOL_ROOMS`] are that drawing as
//! tables. And the README's table of commands is the one that the program has.
//!
//! Sources are read as tokens, not compiled: comments and texts don't count, whatever stands in a macro does.

use std::fmt;
use std::path::{Path, PathBuf};

use verikd::commands::COMMANDS;

#[path = "architecture/citations.rs"]
mod citations;

/// Who may import whom. A room imports only what its row names, and what it names stands below it: no cycles.
///
/// `sim` is the simulated target's crate: nobody but the program knows it. `protocol` is what the crate has at its top, the addresses; `protocol::wire` is that module; `protocol::*` all.
const ROOMS: &[(&str, &[&str])] = &[
    (
        "main",
        &[
            "shell",
            "debugger",
            "doctor",
            "trace",
            "capture",
            "sim",
            "session",
            "source",
            "commands",
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
            "debugger",
            "commands",
            "session",
            "source",
            "target",
            "symbols",
            "output",
            "memory",
            "protocol::*",
        ],
    ),
    // The engine: no writer, no terminal, no session: any source.
    ("debugger", &["commands", "source", "target", "symbols", "memory", "protocol::*"]),
    ("doctor", &["session", "source", "protocol::*"]),
    // A crate of its own.
    ("sim", &["protocol::*"]),
    // A session's traffic as a file, which capture reads.
    ("trace", &["session", "capture", "protocol::*"]),
    ("session", &["source", "memory", "key", "protocol::*"]),
    ("capture", &["key", "protocol::*"]),
    // Not session: commands that let the target run are values, which the shell carries out. No query can.
    ("commands", &["target", "symbols", "output", "memory", "protocol"]),
    // A CONTEXT, where registers come from, is laid out by KD. Errors name what the target calls itself: escaped.
    ("target", &["symbols", "output", "source", "memory", "protocol", "protocol::kd", "protocol::wire"]),
    ("symbols", &["output", "protocol", "protocol::wire"]),
    // An address is part of what is printed; memory gives it its name outside of protocol.
    ("output", &["memory", "protocol"]),
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
];

/// Things of the outside world, and the rooms that may touch them.
const OUTSIDE: &[(&[&str], &[&str])] = &[
    (&["tokio"], &["session", "main"]),
    (&["UdpSocket"], &["session", "doctor", "trace", "main"]),
    (&["TcpStream"], &["session", "main"]),
    (&["UnixStream"], &["session", "main"]),
    (&["serial2_tokio"], &["session"]),
    (&["TcpListener"], &["session", "main"]),
    (&["ToSocketAddrs"], &["session", "main"]),
    // Symbols wait between two tries of a server; a shell reads keys and writes answers on threads of their own, so that
    // neither keeps a machine standing still; a trace is written by a thread for the same reason.
    (&["thread", "::"], &["session", "shell", "symbols", "trace", "main"]),
    (&["ureq"], &["symbols"]),
    (&["clap"], &["main"]),
    (&["humantime"], &["main"]),
    (&["rustyline"], &["shell"]),
    (&["indicatif"], &["shell"]),
    (&["pcap_parser"], &["capture"]),
    (&["etherparse"], &["capture"]),
    (&["Instant", "::", "now"], &["session", "doctor", "shell", "main"]),
    (&["SystemTime"], &["trace", "main"]),
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
    let readme = include_str!("../README.md");
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
        "src/target/mod.rs:1 uses Instant::now, but only these may: session, doctor, shell, main"
    );
}

/// A source file as tokens, without comments and texts.
struct Source {
    path: String,
    tokens: Vec<Token>,
}

struct Token {
    text: String,
    line: usize,
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
                write!(f, "{path} belongs to {room}, which has no row in the tables of tests/architecture.rs")
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

impl Source {
    fn new(path: String, text: &str) -> Self {
        Self { path, tokens: tokens(text) }
    }

    /// The module path of the file: `src/symbols/pdb/mod.rs` is `symbols`, `pdb`.
    fn modules(&self) -> Vec<&str> {
        let (_, inside) = self.path.split_once("src/").expect("a source file lies in src");
        let mut modules: Vec<&str> = inside.trim_end_matches(".rs").split('/').collect();
        modules.pop_if(|last| ["mod", "lib", "main"].contains(last));
        modules
    }

    /// The top-level module that the file belongs to; the program's own are `main`. None for `lib.rs`.
    fn room(&self) -> Option<&str> {
        match self.modules().first() {
            None if self.path.ends_with("lib.rs") => None,
            None | Some(&"cli") => Some("main"),
            Some(room) => Some(room),
        }
    }

    /// The rooms that the file names by a path, and where.
    fn imports(&self) -> Vec<(String, usize)> {
        let mut imports = Vec::new();
        let mut depth = self.modules().len();
        // For each open brace, whether a module's.
        let mut braces = Vec::new();
        let text = |at: usize| self.tokens.get(at).map_or("", |token| token.text.as_str());
        let mut at = 0;
        while at < self.tokens.len() {
            let starts_path = at == 0 || text(at - 1) != "::";
            match text(at) {
                "{" => {
                    let is_module = at >= 2 && text(at - 2) == "mod";
                    depth += usize::from(is_module);
                    braces.push(is_module);
                }
                "}" => depth -= usize::from(braces.pop().unwrap_or(false)),
                "crate" | "verikd" if starts_path && text(at + 1) == "::" => {
                    imports.extend(self.first_names(at + 2).map(|(name, line)| (name.to_owned(), line)));
                }
                "verikd_sim" if starts_path => imports.push(("sim".into(), self.tokens[at].line)),
                "kd_protocol" if starts_path => {
                    imports.extend(self.first_names(at + 2).map(|(name, line)| {
                        let is_module = name.starts_with(|c: char| c.is_ascii_lowercase());
                        let name = if is_module { format!("protocol::{name}") } else { "protocol".into() };
                        (name, line)
                    }));
                }
                "super" if starts_path && text(at + 1) == "::" => {
                    let levels = (0..).take_while(|level| text(at + 2 * level) == "super").count();
                    if levels == depth {
                        let names = self.first_names(at + 2 * levels);
                        imports.extend(names.map(|(name, line)| (name.to_owned(), line)));
                    }
                }
                _ => {}
            }
            at += 1;
        }
        // There, `crate` is the program and not the library.
        let is_program = self.room() == Some("main");
        let mut imports: Vec<_> = imports
            .into_iter()
            .filter(|(name, _)| name.starts_with(|c: char| c.is_ascii_lowercase()))
            .filter(|(name, _)| !(is_program && name == "cli"))
            .collect();
        imports.dedup_by(|(a, _), (b, _)| a == b);
        imports
    }

    /// The names that follow a path's root at `at`: one, or those of a group at its top level.
    fn first_names(&self, at: usize) -> impl Iterator<Item = (&str, usize)> {
        let is_group = self.tokens.get(at).is_some_and(|token| token.text == "{");
        let mut depth = 0;
        let mut names = Vec::new();
        let mut expects_name = true;
        for token in &self.tokens[at.min(self.tokens.len())..] {
            match token.text.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                "," if depth == 1 => expects_name = true,
                name if expects_name && depth == usize::from(is_group) => {
                    names.push((name, token.line));
                    expects_name = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        names.into_iter()
    }
}

/// Words, `::` and single signs of `text`, without comments, strings and characters.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment_len(rest)
        } else if let Some(len) = raw_string_len(rest) {
            len
        } else if first == '"' || rest.starts_with("b\"") || rest.starts_with("c\"") {
            let open = rest.find('"').expect("it is there") + 1;
            open + quoted_len(&rest[open..], '"')
        } else if let Some(len) = character_len(rest) {
            len
        } else {
            let len = match word {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                word => word,
            };
            if !first.is_whitespace() {
                tokens.push(Token { text: rest[..len].into(), line });
            }
            len
        };
        line += rest[..len].matches('\n').count();
        rest = &rest[len..];
    }
    tokens
}

fn block_comment_len(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    loop {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += 1;
        }
        if depth == 0 || at >= text.len() {
            return at.min(text.len());
        }
    }
}

fn raw_string_len(text: &str) -> Option<usize> {
    let inside = ["r", "br", "cr"].iter().find_map(|prefix| text.strip_prefix(prefix))?;
    let hashes = inside.len() - inside.trim_start_matches('#').len();
    let content = inside[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let close = content.find(&end).map_or(content.len(), |at| at + end.len());
    Some(text.len() - content.len() + close)
}

/// Bytes up to and with the closing `quote` of what was opened.
fn quoted_len(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices() {
        if is_escaped {
            is_escaped = false;
        } else if c == '\\' {
            is_escaped = true;
        } else if c == quote {
            return at + 1;
        }
    }
    text.len()
}

/// A character or byte, which a lifetime is not.
fn character_len(text: &str) -> Option<usize> {
    let content = text.strip_prefix("b'").or_else(|| text.strip_prefix('\''))?;
    let open = text.len() - content.len();
    let mut chars = content.chars();
    let first = chars.next()?;
    let is_character = first == '\\' || chars.next() == Some('\'');
    is_character.then(|| open + quoted_len(content, '\''))
}

/// Every Rust file below `folder` of this package.
fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of sources can be read") {
            let path = entry.expect("an entry of it too").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("sources are UTF-8");
                let inside = path.strip_prefix(root).expect("it lies in the package");
                let inside: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
                files.push(Source::new(inside.join("/"), &text));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}
