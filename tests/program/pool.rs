//! `verikd pool`, and the way from "is pool growing" to the stack that allocates, as a person goes it.

use serde_json::Value;
use verikd::shell::pool::{PoolLook, PoolWatchEnd};
use verikd::shell::schema_of_line;

use crate::committed::assert_committed;
use crate::program::{Finished, Setup, verikd};
use crate::reviewed::assert_reviewed;

fn pool(setup: &Setup, options: &[&str]) -> Finished {
    let (connection, symbols) = (setup.connection("1.2.3.4"), setup.symbols());
    let first = ["pool", "-k", &connection, "-y", symbols.to_str().unwrap()];
    verikd(&[&first[..], options].concat())
}

#[test]
fn a_watch_names_the_tag_that_only_grows_its_driver_and_what_to_type_next() {
    let setup = Setup::new();
    let mut target = setup.target(&["--scenario", "verifier-off", "--leak-every", "20ms"]);
    let ended = pool(&setup, &["--watch", "300ms", "--count", "4", "--top", "3"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let looks = ended.out.lines().filter(|line| line.contains("bytes by tag; stood still for")).count();
    assert_eq!(looks, 4, "{}", ended.out);
    assert!(ended.out.contains("\n'Leak' only grows: +"), "{}", ended.out);
    let advice =
        "  myfault.sys allocates with it; on the target: verifier /flags 8 /driver myfault.sys, restart it";
    assert!(ended.out.contains(advice), "{}", ended.out);
    // What is taken and given back is in the table and no suspect.
    assert!(!ended.out.contains("'Irp ' only grows"), "{}", ended.out);
    for _ in 0..5 {
        target.wait_for("Runs on");
    }
}

#[test]
fn programs_get_a_line_a_look_and_one_of_the_suspects() {
    let setup = Setup::new();
    let mut target = setup.target(&["--leak-every", "20ms", "--processors", "4"]);
    let ended = pool(&setup, &["--watch", "300ms", "--count", "3", "--json", "--top", "2"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let lines: Vec<Value> = ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, looks) = lines.split_last().unwrap();
    assert!(looks.len() == 3 && looks.iter().all(|look| look["tags"].as_array().unwrap().len() == 2));
    assert_committed("lines/pool_look", &schema_of_line::<PoolLook<'_>>(), &looks[0]);
    assert_committed("lines/pool_end", &schema_of_line::<PoolWatchEnd<'_>>(), last);
    let suspect = &last["suspects"][0];
    assert_eq!(
        (&suspect["tag"], &suspect["drivers"][0], &suspect["next"]),
        (&"Leak".into(), &"myfault.sys".into(), &"!leaks myfault.sys".into()),
        "{last:#}"
    );
    // Driver Verifier tracks it here, and says so.
    assert_eq!(suspect["owner"]["verified"][0]["caller"], "myfault!MyfaultDeviceControl+0x358");
    assert!(suspect["since_first"].as_i64().unwrap() > 0);
    target.wait_for("Runs on");
}

#[test]
fn a_look_at_a_dump_is_of_its_time_and_nothing_stood_still_for_it() {
    let setup = Setup::new();
    let (dump, symbols) = (setup.dump(), setup.symbols().display().to_string());
    let of = |options: &[&str]| {
        let ended = verikd(&[&["pool", "-z", &dump, "-y", &symbols], options].concat());
        assert_eq!(ended.code, 0, "{}", ended.err);
        ended.out
    };
    let shown = of(&[]);
    let told = verikd(&["-z", &dump, "-y", &symbols, "-c", "vertarget"]).out;
    // `Tue Nov 25 ...`, the day of the dump, which is not today's.
    let day = shown.lines().next().unwrap().split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    assert!(told.contains(&day), "{day}\n{told}");
    assert!(!shown.contains("The machine stood still"), "{shown}");
    let lines = of(&["--json"]);
    let look: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let days_ago = (std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()
        as u64
        - look["unix_ms"].as_u64().unwrap())
        / 86_400_000;
    assert!(days_ago > 300, "{look:#}");
}

#[test]
fn one_look_shows_what_holds_most_and_what_cannot_be_is_refused() {
    let setup = Setup::new();
    let mut target = setup.target(&[]);
    let ended = pool(&setup, &["--top", "1"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.out.contains("\n  Leak  nonpaged  10      10,280,960  0           0\n"), "{}", ended.out);
    assert!(ended.out.contains("in 1 stop.\n") && !ended.out.contains("suspect"), "{}", ended.out);
    target.wait_for("Runs on");
    for (options, said) in [
        (&["--watch", "1ms"][..], "--watch: 100ms at the least"),
        (&["-c", "lm"], "no -c and no -cf"),
        (&["--count", "3"], "--watch"),
    ] {
        let refused = pool(&setup, options);
        assert!(refused.code == 2 && refused.err.contains(said), "{options:?}: {}", refused.err);
    }
}

#[test]
fn what_tags_held_is_kept_in_a_file_of_its_committed_schema_and_compared_later() {
    let setup = Setup::new();
    let mut target = setup.target(&["--leak-every", "20ms"]);
    let path = setup.folder.path().join("tags.json");
    let kept = setup.debug(&["-b", "-c", &format!("!poolused -save {} 2", path.display())]);
    assert!(kept.code == 0 && kept.out.contains(" Leak "), "{}{}", kept.out, kept.err);
    target.wait_for("Runs on");
    let snapshot: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let generated =
        serde_json::to_value(schemars::schema_for!(verikd::commands::pool::used::PoolSnapshot)).unwrap();
    assert_committed("files/pool_snapshot", &generated, &snapshot);
    // A file is there for whatever is typed behind.
    let again = setup.folder.path().join("again.json").display().to_string();
    let both = setup.debug(&["-b", "-c", &format!("!poolused -save {again} 2; !poolused -d {again} 2")]);
    assert_eq!(both.code, 0, "{}", both.err);
    // In another session, while the machine has leaked on.
    let later = setup.debug(&["-b", "--json", "-c", &format!("!poolused -d {} 2", path.display())]);
    assert_eq!(later.code, 0, "{}", later.err);
    let later: Value = serde_json::from_str(later.out.trim()).unwrap();
    let rows = later["answer"]["rows"].as_array().unwrap();
    let leak = rows.iter().find(|row| row["tag"] == "Leak").unwrap();
    assert!(leak["nonpaged"]["outstanding"].as_i64().unwrap() > 0, "{leak}");
    assert_eq!(later["answer"]["since"]["is_same_boot"], true);
    // What cannot be written is said, and fails.
    let refused = setup.debug(&["-b", "-c", "!poolused -save /no/such/folder/tags.json 2"]);
    assert!(
        refused.code == 1 && refused.err.contains("/no/such/folder/tags.json"),
        "{}{}",
        refused.out,
        refused.err
    );
    target.wait_for("Runs on");
}

/// Parts 1 to 6 of the way: is pool growing, which tag, whose, which blocks; then, with Driver Verifier on, from where.
#[test]
fn the_way_from_growing_pool_to_the_stack_is_reviewed() {
    // The machine as people have it: it leaks, and nobody knows who does.
    let setup = Setup::new();
    let mut leaking = setup.target(&["--scenario", "verifier-off", "--leak-every", "20ms"]);
    let growing = pool(&setup, &["--watch", "300ms", "--count", "3", "--top", "1"]);
    assert_eq!(growing.code, 0, "{}", growing.err);
    let next = "on the target: verifier /flags 8 /driver myfault.sys";
    assert!(growing.out.contains("'Leak' only grows: +") && growing.out.contains(next), "{}", growing.out);
    for _ in 0..4 {
        leaking.wait_for("Runs on");
    }
    drop(leaking);
    let asked = |options: &[&str], line: &str| {
        let setup = Setup::new();
        let mut target = setup.target(options);
        let ended = setup.debug(&["-b", "-c", line]);
        assert_eq!(ended.code, 0, "{}", ended.err);
        target.wait_for("Runs on");
        ended.out
    };
    // The same at the prompt, on one that stands still between two looks.
    let production = asked(
        &["--scenario", "verifier-off"],
        "!vm 1; !poolused /t 5 2; !poolused 0 Leak; !pooltag Leak; !poolfind Leak; !pool fffffa8005400000",
    );
    assert!(production.contains("myfault.sys") && !production.contains("log entries ago"), "{production}");
    // After `verifier /flags 8 /driver myfault.sys` and a restart.
    let verified = asked(
        &[],
        "!verifier 3 myfault.sys; !pool -k fffffa8005400000; !verifier 80 fffffa8005400000; !leaks myfault.sys",
    );
    // The tracker has where the driver called from; log, `-k` and `!leaks` say who called the driver.
    assert_eq!(verified.matches("fffff8800447d727 myfault!MyfaultDispatch+0xb7\n").count(), 3, "{verified}");
    let text = format!(
        "=== the machine as it is: verikd -k ... -b\n{production}\n=== after `verifier /flags 8 /driver myfault.sys` and a restart\n{verified}"
    );
    assert_reviewed("pool", "the_way", &text);
}
