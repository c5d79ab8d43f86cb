//! `verikd leaks` and `verikd diff`, as a person runs them.

use serde_json::Value;
use verikd::shell::schema_of_line;
use verikd_sim::windows::WINDOWS_7_SP1;
use verikd_sim::{AtBoot, Simulator, SimulatorConfig, export_symbols};

use crate::committed::assert_committed;
use crate::program::{Finished, Setup, verikd};

fn leaks(setup: &Setup, options: &[&str]) -> Finished {
    let (connection, symbols) = (setup.connection("1.2.3.4"), setup.symbols());
    let first = ["leaks", "-k", &connection, "-y", symbols.to_str().unwrap()];
    verikd(&[&first[..], options].concat())
}

#[test]
fn one_command_tells_who_leaks_and_two_snapshots_how_fast() {
    let setup = Setup::new();
    let mut target = setup.target(&["--leak-every", "50ms"]);
    let file = |name: &str| setup.folder.path().join(name).display().to_string();
    let (old, new) = (file("old.json.zst"), file("new.json"));
    let (folded, svg, html) = (file("stacks.folded"), file("graph.svg"), file("page.html"));
    let first =
        leaks(&setup, &["myfault.sys", "--save", &old, "--folded", &folded, "--svg", &svg, "--html", &html]);
    assert_eq!(first.code, 0, "{}", first.err);
    assert!(
        first.out.contains("1. 10 blocks, 0x9ce000 bytes (9.80 MiB), 100.0 %, myfault.sys"),
        "{}",
        first.out
    );
    assert!(first.out.contains("fffff8800447d634 myfault!MyfaultDeviceControl+0x358"), "{}", first.out);
    assert!(
        [&old, &folded, &svg, &html].iter().all(|it| first.err.contains(&format!("Wrote {it}"))),
        "{}",
        first.err
    );
    let folded = std::fs::read_to_string(folded).unwrap();
    assert!(folded.contains(";myfault!MyfaultDeviceControl+0x358 10280960\n"), "{folded}");
    assert!(std::fs::read_to_string(svg).unwrap().contains("MyfaultDeviceControl"));
    for _ in 0..3 {
        target.wait_for("leaked");
    }
    let options = ["--min", "1", "--top", "5", "--all", "-v", "--blocks"];
    let second = leaks(&setup, &[&["myfault.sys", "--save", &new, "--json"], &options[..]].concat());
    let line: Value = serde_json::from_str(second.out.trim()).unwrap();
    let blocks = line["answer"]["blocks"].as_u64().unwrap();
    assert!(blocks > 10, "{blocks}");
    target.wait_for("Runs on");

    let compared = verikd(&["diff", &old, &new]);
    assert_eq!(compared.code, 0, "{}", compared.err);
    let appeared = format!("{} appeared, 0 went, 10 stayed", blocks - 10);
    assert!(compared.out.contains(&appeared) && compared.out.contains("in one boot"), "{}", compared.out);
    assert!(compared.out.contains("     myfault!MyfaultDeviceControl+0x358\n"), "{}", compared.out);
    let page = file("growth.html");
    let json = verikd(&["diff", "--json", "--html", &page, &old, &new]);
    assert!(std::fs::read_to_string(page).unwrap().contains("MyfaultDeviceControl"), "{}", json.err);
    let json: Value = serde_json::from_str(json.out.trim()).unwrap();
    assert_committed("lines/diff", &schema_of_line::<verikd::leaks::Comparison>(), &json);
    assert_eq!(json["groups"][0]["difference"]["stayed"]["blocks"], 10);
    assert!(json["groups"][0]["bytes_per_hour"].as_f64().unwrap() > 0.0);
}

/// Stacks of some of its blocks, or of all: the machine has not changed meanwhile.
#[test]
fn more_that_is_known_of_blocks_is_no_growth() {
    let setup = Setup::new();
    let _target = setup.target(&["--scenario", "many", "--leak-every", "1h"]);
    let file = |name: &str| setup.folder.path().join(name).display().to_string();
    let (sampled, all) = (file("sampled.json"), file("all.json"));
    assert_eq!(leaks(&setup, &["--save", &sampled]).code, 0);
    assert_eq!(leaks(&setup, &["--all", "--save", &all]).code, 0);
    for pair in [[&sampled, &all], [&all, &sampled]] {
        let compared = verikd(&["diff", pair[0], pair[1]]);
        let compared = compared.out + &compared.err;
        let (first, rest) = compared.split_once('\n').unwrap();
        assert!(first.starts_with("20,000 blocks (19.64 MiB) to 20,000 blocks (19.64 MiB)"), "{compared}");
        assert!(first.ends_with("in one boot") && rest.contains("Without a change: "), "{compared}");
        assert!(!rest.contains("appeared"), "{compared}");
    }
}

/// What somebody has sent is there once.
#[test]
fn nothing_is_written_over_what_is_being_read_and_nowhere_is_told_first() {
    let setup = Setup::new();
    let dump = setup.dump();
    let (symbols, before) = (setup.symbols().display().to_string(), std::fs::read(&dump).unwrap());
    let file = |name: &str| setup.folder.path().join(name).display().to_string();
    let same = file("./memory.dmp");
    let (nowhere, saved) = (file("none/x.html"), file("saved.json"));
    let of_dump =
        |name: &str, options: &[&str]| verikd(&[&[name, "-z", &dump, "-y", &symbols], options].concat());
    for (name, options, why) in [
        ("leaks", vec!["--save", &dump], "is being read, and is not written over"),
        ("leaks", vec!["--folded", &same], "is being read, and is not written over"),
        ("leaks", vec!["--save", &saved, "--html", &saved], "is named twice"),
        ("watch", vec!["--html", &nowhere], "there is no folder "),
        ("check", vec!["--junit", &dump], "is being read, and is not written over"),
    ] {
        let ended = of_dump(name, &options);
        assert!(ended.code == 1 && ended.err.contains(why), "{name} {options:?}: {}", ended.err);
        // What takes long is not begun; what was read anyway is shown.
        assert_eq!(ended.out.is_empty(), name != "leaks" || why == "is named twice", "{name} {options:?}");
    }
    let commands = [
        format!(".dump /o /used {dump}"),
        format!(".writemem {dump} nt L10"),
        format!(".logopen {dump}"),
        format!("!poolused -save {dump}"),
    ];
    for command in commands {
        let ended = verikd(&["-z", &dump, "-y", &symbols, "-c", &command]);
        assert_eq!(ended.code, 1, "{command}: {}", ended.err);
        assert!(ended.err.contains("is being read, and is not written over"), "{command}: {}", ended.err);
    }
    assert!(std::fs::read(&dump).unwrap() == before, "the dump has changed");
    assert_eq!(of_dump("leaks", &["--save", &saved]).code, 0);
    let ended = verikd(&["diff", &saved, &saved, "--html", &saved]);
    assert!(ended.code == 1 && ended.err.contains("is being read"), "{}", ended.err);
    #[cfg(target_os = "linux")]
    {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let ended = super::program::command(&["diff", &saved, &saved])
            .stdout(full)
            .stderr(std::process::Stdio::piped())
            .output()
            .unwrap();
        let told = String::from_utf8(ended.stderr).unwrap();
        assert!(
            ended.status.code() == Some(1) && told.contains("cannot be written to standard output"),
            "{told}"
        );
    }
}

#[test]
fn a_snapshot_is_of_its_committed_schema() {
    let setup = Setup::new();
    let _target = setup.target(&[]);
    let path = setup.folder.path().join("snapshot.json");
    assert_eq!(leaks(&setup, &["--save", path.to_str().unwrap()]).code, 0);
    let snapshot: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let generated = serde_json::to_value(schemars::schema_for!(verikd::leaks::Snapshot)).unwrap();
    assert_committed("files/leak_snapshot", &generated, &snapshot);
}

#[test]
fn two_boots_compare_by_symbol_wherever_the_kernel_was_loaded() {
    let setup = Setup::new();
    export_symbols(&WINDOWS_7_SP1, &setup.symbols()).unwrap();
    let config = SimulatorConfig::new(([127, 0, 0, 1], setup.port).into(), "1.2.3.4".parse().unwrap());
    let machine = Simulator::start(config).unwrap();
    let file = |name: &str| setup.folder.path().join(name).display().to_string();
    let (old, new) = (file("old.json.gz"), file("new.json"));
    let first = leaks(&setup, &["--save", &old]);
    assert_eq!(first.code, 0, "{}", first.err);
    machine.reboot_as(&WINDOWS_7_SP1, 7, AtBoot::Runs).unwrap();
    let second = leaks(&setup, &["--save", &new]);
    assert_eq!(second.code, 0, "{}", second.err);
    let read = |path: &str| verikd::leaks::read(std::path::Path::new(path)).unwrap();
    let (before, after) = (read(&old), read(&new));
    assert_ne!(
        before.boot.kernel_base, after.boot.kernel_base,
        "Windows loads its kernel elsewhere each time"
    );
    let outermost = |snapshot: &verikd::leaks::Snapshot| snapshot.groups[0].path.last().unwrap().clone();
    assert!(outermost(&before).symbol.is_some_and(|name| name.starts_with("nt!")));
    assert_eq!(outermost(&before).symbol, outermost(&after).symbol);
    assert_ne!(outermost(&before).address, outermost(&after).address);
    let compared = verikd(&["diff", &old, &new]);
    assert_eq!(compared.code, 0, "{}", compared.err);
    assert!(compared.out.contains("of different boots, by the names of call paths"), "{}", compared.out);
    let json: Value = serde_json::from_str(verikd(&["diff", "--json", &old, &new]).out.trim()).unwrap();
    let groups = json["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 1, "one path, though no address is the same: {json:#}");
    assert_eq!(groups[0]["path"][0], "myfault!MyfaultDeviceControl+0x358");
    assert_eq!(groups[0]["difference"], Value::Null, "no block of one boot is one of another's");
    let blocks = |snapshot: &verikd::leaks::Snapshot| Value::from(snapshot.held().blocks);
    assert_eq!(
        (&groups[0]["old"]["blocks"], &groups[0]["new"]["blocks"]),
        (&blocks(&before), &blocks(&after))
    );
}

#[test]
fn a_snapshot_of_a_dump_is_of_the_time_at_which_the_machine_stood_so() {
    let setup = Setup::new();
    let file = |name: &str| setup.folder.path().join(name).display().to_string();
    let symbols = setup.symbols().display().to_string();
    for kind in ["kernel", "elf"] {
        let dump = file(kind);
        let written =
            verikd(&["sim", "--export-symbols", &symbols, "--write-dump", &dump, "--dump-type", kind]);
        assert_eq!(written.code, 0, "{}", written.err);
        let time = |name: &str| {
            let saved = verikd(&["leaks", "-z", &dump, "-y", &symbols, "--save", &file(name)]);
            assert_eq!(saved.code, 0, "{}", saved.err);
            verikd::leaks::read(std::path::Path::new(&file(name))).unwrap().unix_ms
        };
        let (one, other) = (time("one.json"), time("other.json"));
        assert_eq!(one, other, "{kind}: whenever it is looked at");
        let compared = verikd(&["diff", "--json", &file("one.json"), &file("other.json")]);
        let compared: Value = serde_json::from_str(compared.out.trim()).unwrap();
        assert_eq!((&compared["elapsed_ms"], &compared["is_same_boot"]), (&0.into(), &true.into()));
        let told = verikd(&["-z", &dump, "-y", &symbols, "-c", "vertarget"]);
        let year = 1970 + one / 31_556_952_000;
        assert!(told.out.contains(&format!(" {year} (UTC")), "{kind}: {one}\n{}", told.out);
    }
}

#[test]
fn what_cannot_be_done_is_said_with_its_exit_code() {
    let setup = Setup::new();
    let file = |name: &str, text: &str| {
        let path = setup.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (other, newer) =
        (file("other", "{}"), file("newer", r#"{"format":"verikd leaks","version":9,"program":"verikd 7"}"#));
    let whole = setup.folder.path().join("whole.zst");
    let of = |driver: &str| verikd::leaks::Snapshot {
        drivers: vec![verikd::leaks::SavedDriver { name: driver.into(), held: Default::default() }],
        ..verikd::leaks::Snapshot::empty()
    };
    verikd::leaks::write(&of("myfault.sys"), &whole).unwrap();
    let bytes = std::fs::read(&whole).unwrap();
    let cut = setup.folder.path().join("cut.zst");
    std::fs::write(&cut, &bytes[..bytes.len() - 9]).unwrap();
    let foreign = setup.folder.path().join("foreign.json");
    verikd::leaks::write(&of("netfilt.sys"), &foreign).unwrap();
    let [whole, cut, foreign] = [whole, cut, foreign].map(|it| it.display().to_string());
    for (files, why) in [
        ([&other, &other], "this is no snapshot"),
        ([&newer, &newer], "version 9, written by verikd 7"),
        ([&"/nowhere/a".to_owned(), &other], "No such file"),
        ([&whole, &cut], "the snapshot is damaged, or cut off"),
        ([&whole, &foreign], "they are of different drivers: myfault.sys; netfilt.sys"),
    ] {
        let ended = verikd(&["diff", files[0], files[1]]);
        assert_eq!(ended.code, 1, "{}", ended.err);
        assert!(ended.err.contains(why), "{}", ended.err);
    }
    assert_eq!(verikd(&["diff", &other]).code, 2);
    for options in
        [&["-c", "lm"][..], &["--by", "stack"], &["--save", "a\"b"], &["--by", "tag", "--save", "x"]]
    {
        let _target = setup.target(&[]);
        let ended = leaks(&setup, options);
        assert_eq!(ended.code, 2, "{options:?}: {}", ended.err);
    }
    // A snapshot that cannot be written leaves the answer, and says so.
    let mut target = setup.target(&[]);
    let ended = leaks(&setup, &["--save", "/nowhere/at/all.json"]);
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert!(
        ended.out.contains("10 blocks") && ended.err.contains("/nowhere/at/all.json was not written"),
        "{}",
        ended.err
    );
    target.wait_for("Runs on");
}

#[test]
fn a_watch_names_what_leaks_and_lets_the_machine_run_between_its_looks() {
    let setup = Setup::new();
    let mut target = setup.target(&["--leak-every", "20ms"]);
    let (connection, symbols) = (setup.connection("1.2.3.4"), setup.symbols());
    let first = ["watch", "-k", &connection, "-y", symbols.to_str().unwrap(), "--driver", "myfault.sys"];
    let ended = verikd(&[&first[..], &["--every", "200ms", "--count", "3"]].concat());
    assert_eq!(ended.code, 0, "{}", ended.err);
    let looks = ended
        .out
        .lines()
        .filter(|line| line.contains(" blocks (") && line.contains("stood still for"))
        .count();
    assert_eq!(looks, 3, "{}", ended.out);
    assert!(ended.out.contains("+") && ended.out.contains("bytes since the last look"), "{}", ended.out);
    for _ in 0..looks {
        target.wait_for("Runs on");
    }
}

#[test]
fn what_a_watch_lacks_is_told_once() {
    let setup = Setup::new();
    let _target = setup.target(&[]);
    let (connection, symbols) = (setup.connection("1.2.3.4"), setup.symbols());
    let first = ["watch", "-k", &connection, "-y", symbols.to_str().unwrap(), "--driver", "nosuch.sys"];
    let ended = verikd(&[&first[..], &["--every", "200ms", "--count", "3"]].concat());
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert_eq!(ended.err.matches("nosuch.sys is not verified").count(), 1, "{}", ended.err);
}

#[cfg(unix)]
#[test]
fn a_watch_that_is_interrupted_gives_its_verdict() {
    let setup = Setup::new();
    let mut target = setup.target(&["--leak-every", "20ms"]);
    let (connection, symbols) = (setup.connection("1.2.3.4"), setup.symbols());
    let first = ["watch", "-k", &connection, "-y", symbols.to_str().unwrap(), "--driver", "myfault.sys"];
    let mut running = crate::program::Running::start(&[&first[..], &["--every", "300ms", "--json"]].concat());
    for _ in 0..5 {
        target.wait_for("Runs on");
    }
    running.wait_for("Connected to");
    running.signal("INT");
    let ended = running.finish();
    assert_eq!(ended.code, 0, "Ctrl+C is how a watch ends: {}", ended.err);
    let lines: Vec<Value> = ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, looks) = lines.split_last().unwrap();
    assert!(
        looks.len() >= 4 && looks.iter().all(|look| look["snapshot"]["groups"][0]["driver"] == "myfault.sys")
    );
    use verikd::shell::watch::{WatchEnd, WatchLook};
    assert_committed("lines/watch_look", &schema_of_line::<WatchLook<'_>>(), &looks[0]);
    assert_committed("lines/watch_end", &schema_of_line::<WatchEnd<'_>>(), last);
    let leaks = last["verdict"]["leaks"].as_array().unwrap();
    assert_eq!(leaks[0]["path"][0], "myfault!MyfaultDeviceControl+0x358", "{last:#}");
    target.wait_for("leaked");
}
