//! `verikd check` as a CI server runs it: each exit code, the JUnit file, the snippets of the README.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use quick_xml::Reader;
use quick_xml::events::Event;
use serde_json::Value;
use verikd::shell::schema_of_line;

use crate::committed::assert_committed;
use crate::program::{Finished, Setup, verikd};

/// A schema of JUnit's form that is as strict as the strictest one that servers use.
const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/program/junit.xsd");

fn check(setup: &Setup, options: &[&str]) -> Finished {
    let (connection, symbols) = (setup.connection("1.2.3.4"), setup.symbols());
    let first = ["check", "-k", &connection, "-y", symbols.to_str().unwrap()];
    verikd(&[&first[..], options].concat())
}

#[test]
fn a_driver_within_its_limits_passes_and_one_that_is_over_fails_with_its_call_paths() {
    let setup = Setup::new();
    let mut target = setup.target(&["--leak-every", "0s"]);
    let junit = setup.folder.path().join("result.xml").display().to_string();
    let passed =
        check(&setup, &["--driver", "myfault.sys", "--max-outstanding", "10", "--max-bytes", "10280960"]);
    assert_eq!(passed.code, 0, "{}{}", passed.out, passed.err);
    assert!(passed.out.contains("check: passed"), "{}", passed.out);
    target.wait_for("Runs on");

    for limit in [&[][..], &["--max-outstanding", "9"], &["--max-bytes", "10280959"]] {
        let over = check(&setup, &[&["--driver", "MYFAULT", "--junit", &junit], limit].concat());
        assert_eq!(over.code, 4, "{}{}", over.out, over.err);
        assert!(over.out.contains("myfault.sys: over: 10 blocks, 0x9ce000 bytes (9.80 MiB)"), "{}", over.out);
        assert!(over.out.contains("       myfault!MyfaultDeviceControl+0x358\n"), "{}", over.out);
        assert!(over.out.ends_with("check: failed\n"), "{}", over.out);
        target.wait_for("Runs on");
    }
    let result = Junit::read(Path::new(&junit));
    assert_eq!(result.suite["failures"], "1");
    assert!(result.text.contains("myfault!MyfaultDeviceControl+0x358"), "{}", result.text);

    let json = check(&setup, &["--driver", "myfault.sys", "--json"]);
    let json: Value = serde_json::from_str(json.out.trim()).unwrap();
    assert_eq!((&json["verdict"], &json["drivers"][0]["held"]["blocks"]), (&"over".into(), &10.into()));
    assert_eq!(json["drivers"][0]["offenders"][0]["path"][0], "myfault!MyfaultDeviceControl+0x358");
}

#[test]
fn blocks_of_another_tag_are_not_counted() {
    let setup = Setup::new();
    let _target = setup.target(&["--leak-every", "0s"]);
    let of_tag = |tag| check(&setup, &["--driver", "myfault.sys", "--tag", tag]).code;
    assert_eq!((of_tag("Leak"), of_tag("Le*"), of_tag("None")), (4, 4, 0));
}

#[test]
fn only_what_is_more_than_in_the_baseline_counts() {
    let setup = Setup::new();
    let baseline = setup.folder.path().join("baseline.json.zst").display().to_string();
    {
        let mut target = setup.target(&["--leak-every", "50ms"]);
        let (connection, symbols) = (setup.connection("1.2.3.4"), setup.symbols());
        let save = ["leaks", "-k", &connection, "-y", symbols.to_str().unwrap(), "--save", &baseline];
        assert_eq!(verikd(&save).code, 0);
        for _ in 0..3 {
            target.wait_for("leaked");
        }
        let grown = check(&setup, &["--driver", "myfault.sys", "--baseline", &baseline]);
        assert_eq!(grown.code, 4, "{}{}", grown.out, grown.err);
        assert!(grown.out.contains("more than in the baseline; allowed 0 blocks"), "{}", grown.out);
    }
    let _target = setup.target(&["--leak-every", "0s"]);
    let same = check(&setup, &["--driver", "myfault.sys", "--baseline", &baseline]);
    assert_eq!(same.code, 0, "another boot with the same leak: {}{}", same.out, same.err);
    let other = check(&setup, &["--driver", "myfault.sys", "--baseline", &baseline, "--tag", "Leak"]);
    assert_eq!(other.code, 2, "{}", other.err);
    let absent = check(&setup, &["--driver", "myfault.sys", "--baseline", "/nowhere/at/all"]);
    assert_eq!(absent.code, 2, "{}", absent.err);
}

#[test]
fn what_was_not_read_is_no_pass() {
    for (scenario, driver, why) in [
        ("myfault", "other.sys", "it is not among the drivers that are verified"),
        ("verifier-off", "myfault.sys", "Driver Verifier is off"),
        ("corrupt", "myfault.sys", "not known: "),
    ] {
        let setup = Setup::new();
        let mut target = setup.target(&["--leak-every", "0s", "--scenario", scenario]);
        let junit = setup.folder.path().join("result.xml");
        let options = ["--driver", driver, "--max-outstanding", "100000", "--junit", junit.to_str().unwrap()];
        let unknown = check(&setup, &options);
        assert_eq!(unknown.code, 3, "{scenario}: {}{}", unknown.out, unknown.err);
        assert!(unknown.out.contains(why), "{scenario}: {}", unknown.out);
        assert_ne!(Junit::read(&junit).suite["errors"], "0", "{scenario}");
        target.wait_for("Runs on");
    }
}

#[test]
fn a_target_that_does_not_come_or_goes_has_codes_of_its_own_and_a_junit_file() {
    let setup = Setup::new();
    let junit = setup.folder.path().join("result.xml");
    let options = ["--driver", "myfault.sys", "--junit", junit.to_str().unwrap()];
    let nobody = check(&setup, &[&options[..], &["--connect-timeout", "1s"]].concat());
    assert_eq!(nobody.code, 5, "{}", nobody.err);
    let result = Junit::read(&junit);
    assert_eq!((result.suite["tests"].as_str(), result.suite["errors"].as_str()), ("1", "1"));
    std::fs::remove_file(&junit).unwrap();

    let _target = setup.target(&["--quirks", "silent-after-break"]);
    let lost = check(&setup, &[&options[..], &["--request-timeout", "1s", "--leave-timeout", "1s"]].concat());
    assert_eq!(lost.code, 6, "{}", lost.err);
    assert_eq!(Junit::read(&junit).suite["errors"], "1");
    assert_eq!(check(&setup, &["--max-bytes", "many"]).code, 2);
    assert_eq!(check(&setup, &["-c", "lm"]).code, 2);
}

#[test]
fn a_dump_is_judged_like_the_machine() {
    let setup = Setup::new();
    let (dump, symbols) = (setup.dump(), setup.symbols().display().to_string());
    let of = |options: &[&str]| verikd(&[&["check", "-z", &dump, "-y", &symbols], options].concat());
    let over = of(&["--driver", "myfault.sys"]);
    assert_eq!(over.code, 4, "{}{}", over.out, over.err);
    assert_eq!(of(&["--driver", "myfault.sys", "--max-outstanding", "10"]).code, 0);
    assert_eq!(of(&["--driver", "none.sys"]).code, 3);
}

#[test]
fn the_result_is_of_its_committed_schema() {
    let setup = Setup::new();
    let _target = setup.target(&[]);
    let over = check(&setup, &["--json"]);
    let gate: Value = serde_json::from_str(over.out.trim()).unwrap();
    assert_committed("lines/check", &schema_of_line::<verikd::check::Gate>(), &gate);
}

/// What the README tells people to put into their CI's files does what it says, run by a shell as the servers do.
#[cfg(unix)]
#[test]
fn the_snippets_of_the_readme_run() {
    let readme = include_str!("../../README.md");
    let scripts = [script_of(readme, "run: |"), script_of(readme, "script:")];
    for script in scripts {
        assert!(script.contains("verikd check"), "{script}");
        let setup = Setup::new();
        let _target = setup.target(&["--leak-every", "0s"]);
        let script = script.replace("port=50000", &format!("port={}", setup.port));
        let program = Path::new(env!("CARGO_BIN_EXE_verikd")).parent().unwrap();
        let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap_or_default());
        let ended = Command::new("sh")
            .args(["-e", "-c", &script])
            .current_dir(setup.folder.path())
            .envs([("PATH", path), ("VERIKD_KEY", "1.2.3.4".to_owned())])
            .env("SYMBOLS", setup.symbols())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let err = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(4), "{script}\n{err}");
        let result = Junit::read(&setup.folder.path().join("leaks.xml"));
        assert_eq!(result.suite["failures"], "1");
    }
}

/// The lines of the README's block under `key`, without their indent and a list's dashes.
#[cfg(unix)]
fn script_of(readme: &str, key: &str) -> String {
    let mut lines = readme.lines().skip_while(|line| line.trim() != key);
    let indent = |line: &str| line.len() - line.trim_start().len();
    let own = indent(lines.next().expect("the README has such a block"));
    let block = lines.take_while(|line| line.trim().is_empty() || indent(line) > own);
    let lines: Vec<_> = block.map(|line| line.trim().trim_start_matches("- ")).collect();
    lines.join("\n")
}

/// A result as a server reads it.
struct Junit {
    suite: BTreeMap<String, String>,
    text: String,
}

impl Junit {
    /// Reads a file and holds it to its form: what stands where, which attributes are there, counts that add up; and to the
    /// schema, where something that knows schemas is installed.
    fn read(path: &Path) -> Self {
        let xml = std::fs::read_to_string(path).unwrap();
        let mut reader = Reader::from_str(&xml);
        let (mut suite, mut text, mut order) = (BTreeMap::new(), String::new(), Vec::new());
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        loop {
            match reader.read_event().expect("it is XML") {
                Event::Start(element) | Event::Empty(element) => {
                    let name = String::from_utf8(element.name().as_ref().to_vec()).unwrap();
                    let attributes: BTreeMap<String, String> = element
                        .attributes()
                        .map(|it| it.expect("its attributes are"))
                        .map(|it| {
                            let name = String::from_utf8(it.key.as_ref().to_vec()).unwrap();
                            (name, String::from_utf8(it.value.to_vec()).unwrap())
                        })
                        .collect();
                    let wanted: &[&str] = match name.as_str() {
                        "testsuite" => &[
                            "name",
                            "package",
                            "id",
                            "timestamp",
                            "hostname",
                            "tests",
                            "failures",
                            "errors",
                            "time",
                        ],
                        "testcase" => &["classname", "name", "time"],
                        "failure" | "error" => &["type", "message"],
                        "property" => &["name", "value"],
                        _ => &[],
                    };
                    assert!(wanted.iter().all(|it| attributes.contains_key(*it)), "{name}: {attributes:?}");
                    assert_eq!(wanted.len(), attributes.len(), "{name}: {attributes:?}");
                    if name == "testsuite" {
                        suite = attributes;
                    }
                    *counts.entry(name.clone()).or_default() += 1;
                    order.push(name);
                }
                Event::Text(it) => text += &it.decode().unwrap(),
                Event::Eof => break,
                _ => {}
            }
        }
        for (attribute, element) in [("tests", "testcase"), ("failures", "failure"), ("errors", "error")] {
            let count = counts.get(element).copied().unwrap_or(0);
            assert_eq!(suite[attribute], count.to_string(), "{attribute}: {xml}");
        }
        order.retain(|it| !["property", "failure", "error"].contains(&it.as_str()));
        order.dedup();
        assert_eq!(order, ["testsuites", "testsuite", "properties", "testcase", "system-out", "system-err"]);
        is_valid(path);
        Self { suite, text }
    }
}

/// Holds the file to the schema by whatever is there that can: xmllint, or Python's xmlschema.
fn is_valid(path: &Path) {
    let path = path.to_str().unwrap();
    let validate = "import sys, xmlschema; xmlschema.validate(sys.argv[2], sys.argv[1])";
    let is_there = |program: &str, arguments: &[&str]| {
        let quiet =
            Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        quiet.is_ok_and(|it| it.success())
    };
    let validator = if is_there("xmllint", &["--version"]) {
        Command::new("xmllint").args(["--noout", "--schema", SCHEMA, path]).output()
    } else if is_there("python3", &["-c", "import xmlschema"]) {
        Command::new("python3").args(["-c", validate, SCHEMA, path]).output()
    } else {
        eprintln!("skipped: neither xmllint nor Python's xmlschema is there to hold {path} to the schema");
        return;
    };
    let validator = validator.unwrap();
    let said = [validator.stdout, validator.stderr].concat();
    assert!(validator.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// One table, wherever it is read.
#[test]
fn help_and_readme_tell_the_same_exit_codes() {
    let readme = include_str!("../../README.md");
    let table =
        readme.split("| exit code | what it means |\n|---:|---|\n").nth(1).expect("the README has the table");
    let rows: Vec<_> = table.lines().take_while(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), 9);
    let help = verikd(&["--help"]);
    let help: String = help.out.split_whitespace().collect::<Vec<_>>().join(" ");
    for row in rows {
        let [code, meaning] = row.trim_matches('|').split(" | ").collect::<Vec<_>>()[..] else {
            panic!("{row}")
        };
        let told = format!("{} {}", code.trim(), meaning.trim().replace('`', ""));
        assert!(help.contains(&told), "{told}\n{help}");
    }
}
