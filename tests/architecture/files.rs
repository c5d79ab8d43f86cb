//! Files of a crate stand in an order, too: whoever is imported, by however many steps, does not import back.
//!
//! A `mod.rs` is a file like any other. What its children share is a file of its own, which they name: a child that takes
//! something from its parent, and a parent that takes something from that child, are a circle. To declare a module is not to
//! import it; to re-export something of it is. Tests are left out, since they look at everything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::source::{Source, sources};

#[test]
fn no_files_import_each_other() {
    let mut found = String::new();
    for folder in ["src", "protocol/src", "sim/src", "images/src"] {
        let files = sources(folder);
        let imports = imports_of(&files);
        assert!(imports.len() >= files.len() / 2, "only {} imports in {folder}", imports.len());
        for circle in circles(&imports) {
            let lines: String = circle.iter().map(|import| format!("\n  {import}")).collect();
            found.push_str(&format!("\na circle of files in {folder}:{lines}"));
        }
    }
    assert!(found.is_empty(), "{found}");
}

#[test]
fn circles_are_found_however_long_they_are_and_named_line_by_line() {
    let found = |files: &[(&str, &str)]| -> Vec<String> {
        let files: Vec<Source> = files.iter().map(|(path, text)| Source::new((*path).into(), text)).collect();
        circles(&imports_of(&files)).iter().flatten().map(|import| import.to_string()).collect()
    };
    let parent_and_child =
        [("src/a/mod.rs", "mod b;\npub use b::B;\npub struct A;"), ("src/a/b.rs", "use super::A;")];
    assert_eq!(
        found(&parent_and_child),
        ["src/a/mod.rs:2 imports src/a/b.rs", "src/a/b.rs:1 imports src/a/mod.rs"]
    );
    let three = [
        ("src/a.rs", "fn f() { crate::b::g() }"),
        ("src/b.rs", "use crate::{x::Y, c::{self, D}};"),
        ("src/c.rs", "use super::a::f;"),
        ("src/x.rs", "use crate::c::D;"),
    ];
    assert_eq!(found(&three).len(), 5);
    let none = [
        ("src/lib.rs", "mod a; mod b;"),
        ("src/a.rs", "use crate::b::B; pub(in crate::b) fn f() {} use other::a; fn g() { b::h() }"),
        ("src/b.rs", "#[cfg(test)]\nmod tests { use crate::a; use super::*; } use kd_protocol::a::A;"),
        ("src/b/tests.rs", "use super::*;"),
    ];
    assert_eq!(found(&none), [""; 0]);
}

/// A file that names something of another file, and where.
struct Import<'a> {
    from: &'a str,
    line: usize,
    to: &'a str,
}

impl fmt::Display for Import<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} imports {}", self.from, self.line, self.to)
    }
}

/// The first import of each file by each other one of the crate.
fn imports_of(files: &[Source]) -> Vec<Import<'_>> {
    let by_module: BTreeMap<Vec<&str>, &str> =
        files.iter().map(|file| (file.modules(), file.path.as_str())).collect();
    let mut imports = Vec::new();
    for file in files.iter().filter(|file| !file.is_test()) {
        let mut seen = BTreeSet::new();
        for (path, line) in file.paths() {
            // What follows the longest path that is a file's is something in it.
            let to = (1..=path.len()).rev().find_map(|len| by_module.get(&path[..len]));
            let Some(to) = to.filter(|to| **to != file.path) else { continue };
            if seen.insert(*to) {
                imports.push(Import { from: &file.path, line, to });
            }
        }
    }
    imports
}

/// The imports between files from each of which the other can be reached, circle by circle.
fn circles<'a>(imports: &'a [Import<'a>]) -> Vec<Vec<&'a Import<'a>>> {
    let mut reached: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for from in imports.iter().map(|import| import.from) {
        let mut found = BTreeSet::new();
        let mut ahead = vec![from];
        while let Some(at) = ahead.pop() {
            let next = imports.iter().filter(|import| import.from == at).map(|import| import.to);
            ahead.extend(next.filter(|to| found.insert(*to)));
        }
        reached.insert(from, found);
    }
    let reaches = |from: &str, to: &str| reached.get(from).is_some_and(|found| found.contains(to));
    let mut circles: BTreeMap<Vec<&str>, Vec<&Import<'_>>> = BTreeMap::new();
    for import in imports.iter().filter(|import| reaches(import.to, import.from)) {
        let members = reached[import.from].iter().filter(|to| reaches(to, import.from));
        circles.entry(members.copied().collect()).or_default().push(import);
    }
    circles.into_values().collect()
}
