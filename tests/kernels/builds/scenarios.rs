//! Every scenario on every build, as the queries see it.

use std::time::Duration;

use serde_json::{Value, json};
use verikd::commands::{Note, NoteKind, VerifierFormat};
use verikd::target::Target;
use verikd_sim::windows::{BUILDS, Build, Machine, Scenario};

use super::stopped;
use crate::support::text::WithNotes as _;
use crate::support::text::{notes, run, text, text_in};

#[test]
fn no_scenario_makes_any_build_or_query_fall_over() {
    for build in BUILDS {
        for scenario in Scenario::ALL.into_iter().filter(|scenario| scenario.check(build).is_ok()) {
            let mut machine = Machine::with_scenario(build, scenario, 1);
            machine.break_in();
            assert!(!machine.run_for(Duration::from_secs(5)).is_empty());
            let (machine, kernel) = stopped(build, machine);
            let target = Target::new(&machine, &kernel);
            for line in
                ["lm", "vertarget", "!verifier", "!verifier 3", "!verifier 3 myfault", "!verifier 80 20"]
            {
                let shown = text(&target, line);
                assert!(!shown.is_empty(), "{} {scenario}: {line}", build.name);
            }
        }
    }
}

#[test]
fn many_has_20_000_blocks_of_three_drivers() {
    on_every_build(Scenario::Many, |target| {
        let report = json(target, "!verifier 3");
        let drivers = report["drivers"].as_array().unwrap();
        let blocks: Vec<_> = drivers.iter().map(|driver| blocks_of(driver).len()).collect();
        assert_eq!((blocks.len(), blocks.iter().sum::<usize>()), (3, 20_000));
        assert_eq!(report["notes"], json!([]), "counters and lists agree");
        for driver in drivers {
            let newest = blocks_of(driver)[0]["address"].as_str().unwrap();
            let log = json(target, &format!("!verifier 80 {newest}"));
            let entry = &log["entries"][0];
            let module = driver["name"].as_str().unwrap().trim_end_matches(".sys");
            let frames = entry["stack"].as_array().unwrap();
            assert!(
                frames.iter().any(|frame| frame["symbol"].as_str().unwrap().starts_with(module)),
                "{newest}: {entry}"
            );
        }
    });
}

#[test]
fn special_pool_lists_blocks_of_odd_size() {
    on_every_build(Scenario::SpecialPool, |target| {
        let report = json(target, "!verifier 3 myfault.sys");
        assert_eq!(report["settings"]["level"].as_u64().unwrap() & 0x9bb, 0x9bb);
        let statistics = &report["settings"]["statistics"];
        let (all, special) =
            (&statistics["allocations_succeeded"], &statistics["allocations_succeeded_special_pool"]);
        assert_eq!((all, special), (&json!(0x3b), &json!(0x3a)), "all but the small one when it was loaded");
        let odd = |block: &&Value| block["odd_size"] == true;
        let blocks = blocks_of(&report["drivers"][0]);
        assert_eq!((blocks.len(), blocks.iter().filter(odd).count()), (0x3a, 24));
        assert_eq!(report["notes"], json!([]));
    });
}

#[test]
fn unloaded_drivers_are_explained_and_their_frees_are_in_the_log() {
    on_every_build(Scenario::Unloaded, |target| {
        let [note] = &notes(target, "!verifier 3 myfault.sys")[..] else { panic!("one note") };
        assert!(
            note.text.starts_with("myfault.sys is chosen for verification and was unloaded"),
            "{}",
            note.text
        );
        let [note] = &notes(target, "!verifier 3 storfilt")[..] else { panic!("one note") };
        assert!(note.text.contains("has not been loaded yet"), "{}", note.text);
        let shown = text_in(VerifierFormat::Old, target, "!verifier 1");
        assert!(shown.contains("fffffa80031b7830 Loaded and Unloaded 000017b0"), "{shown}");
        assert_unloaded(target);
        let log = json(target, "!verifier 80 fffffa8005400000");
        let sizes: Vec<_> = log["entries"].as_array().unwrap().iter().map(|entry| &entry["size"]).collect();
        assert_eq!(sizes, [&json!(0xf_b000), &json!(0xf_a000)], "the free, then the older allocation");
    });
}

/// The driver that is gone is known by its file wherever an address leads there.
fn assert_unloaded(target: &Target<'_>) {
    let listed = text(target, "lm");
    let (loaded, unloaded) = listed.split_once("\nUnloaded modules:\n").unwrap();
    assert!(
        !loaded.contains("myfault")
            && unloaded.contains("fffff880`0447c000 fffff880`04484000   myfault.sys\n")
    );
    assert_eq!(text(target, "lm m myf*").matches("myfault.sys").count(), 1);
    assert!(text(target, "lma fffff8800447d634").ends_with("   myfault.sys\n"));
    assert!(!text(target, "lmo").contains("myfault") && !text(target, "lm m nt").contains("myfault"));
    assert_eq!(text(target, "ln fffff8800447d634"), "(fffff880`0447c000)   <Unloaded_myfault.sys>+0x1634\n");
    assert_eq!(json(target, "ln fffff8800447d634")["unloaded"], "myfault.sys");
    let log = text_in(VerifierFormat::Old, target, "!verifier 80 fffffa8004a66000");
    assert!(log.contains("fffff8800447d634 <Unloaded_myfault.sys>+0x1634\n"), "{log}");
}

#[test]
fn verifier_off_has_no_drivers_and_no_log() {
    on_every_build(Scenario::VerifierOff, |target| {
        let [note] = &notes(target, "!verifier 3 myfault.sys")[..] else { panic!("one note") };
        assert!(note.text.starts_with("Driver Verifier is off (Level 0)"), "{}", note.text);
        let error = run(target, "!verifier 80").err().unwrap().to_string();
        assert!(error.contains("nt!VfPoolTraces is 0"), "{error}");
    });
}

#[test]
fn not_tracked_tells_a_driver_that_is_not_verified_from_tracking_that_is_off() {
    on_every_build(Scenario::NotTracked, |target| {
        let [note] = &notes(target, "!verifier 3 myfault.sys")[..] else { panic!("one note") };
        assert_eq!(note.text, "myfault.sys is not verified. Verified drivers: netfilt.sys.");
        let [note] = &notes(target, "!verifier 3 netfilt")[..] else { panic!("one note") };
        assert!(note.text.starts_with("Pool tracking is off"), "{}", note.text);
        assert!(text(target, "lm").contains("myfault"));
    });
}

#[test]
fn torn_leaves_one_allocation_half_recorded() {
    on_every_build(Scenario::Torn, |target| {
        let report = json(target, "!verifier 3 myfault.sys");
        let blocks = blocks_of(&report["drivers"][0]);
        assert_eq!((blocks.len(), &blocks[0]["address"]), (10, &json!("0xfffffa8005400000")));
        assert!(
            report["notes"]
                .to_string()
                .contains("current allocations 11, listed 10: trackers without an address: 1")
        );
        let log = json(target, "!verifier 80 1");
        let entry = &log["entries"][0];
        assert_eq!((&entry["address"], &entry["size"]), (&json!("0xfffffa80054fb000"), &json!(0xf_a000)));
        let frames = entry["stack"].as_array().unwrap();
        let symbol = |number: usize| frames[number]["symbol"].as_str().unwrap();
        assert!(symbol(0).starts_with("nt!VeAllocatePool") && !symbol(1).contains("Verifier"), "{entry}");
        assert_eq!(
            (&entry["torn"], &log["unsettled"]),
            (&json!("mixed_stack"), &json!(2)),
            "one per processor"
        );
        let [note] = &notes(target, "!verifier 80 4")[..] else { panic!("one note") };
        assert!(
            note.kind == NoteKind::Remark
                && note.text.contains("The newest entry of the log (slot 0xd4c8) may be torn: its stack"),
            "{note:?}"
        );
        let shown = text(target, "!verifier -v 80 2");
        assert!(shown.contains(", allocation, may be torn\n") && shown.contains(", free\n"), "{shown}");
    });
}

/// Wherever the writer of the newest entry was stopped, what can be seen of it is marked, and nothing else ever is.
#[test]
fn an_entry_is_marked_as_torn_where_it_shows_and_nowhere_else() {
    for (seed, sign) in [(0, json!("mixed_stack")), (2, json!(null)), (3, json!("odd_free"))] {
        for build in BUILDS {
            let (machine, kernel) = stopped(build, Machine::with_scenario(build, Scenario::Torn, seed));
            let log = json(&Target::new(&machine, &kernel), "!verifier 80 400");
            let entries = log["entries"].as_array().unwrap();
            assert_eq!((entries.len(), &entries[0]["torn"]), (0x400, &sign), "{}, {seed}", build.name);
            assert!(entries[1..].iter().all(|entry| entry["torn"].is_null()), "{}, {seed}", build.name);
        }
    }
    for scenario in [Scenario::Myfault, Scenario::Many, Scenario::SpecialPool, Scenario::Unloaded] {
        on_every_build(scenario, |target| {
            let log = json(target, "!verifier 80 800");
            let torn =
                log["entries"].as_array().unwrap().iter().filter(|entry| !entry["torn"].is_null()).count();
            assert_eq!((torn, &log["unsettled"]), (0, &json!(null)), "whole entries show no sign");
        });
    }
}

/// Whatever is damaged, the rest is found: in nearly all seeds some blocks of each driver.
#[test]
fn corrupt_keeps_what_can_still_be_found() {
    let mut found = 0;
    for seed in 0..33 {
        let build = BUILDS[seed as usize % BUILDS.len()];
        let (machine, kernel) = stopped(build, Machine::with_scenario(build, Scenario::Corrupt, seed));
        let target = Target::new(&machine, &kernel);
        let answer = run(&target, "!verifier 3").unwrap();
        let noted: Vec<&Note> = answer.notes.iter().filter(|note| note.kind == NoteKind::Partial).collect();
        let report = answer.with_notes();
        let drivers = report["drivers"].as_array().unwrap();
        assert!(!drivers.is_empty() && drivers.len() <= 3, "seed {seed}");
        found += drivers.iter().filter(|driver| !blocks_of(driver).is_empty()).count();
        let damage_shows = !noted.is_empty() || !notes_of_log(&target).is_empty();
        assert!(damage_shows || drivers.len() == 3, "seed {seed}: what is missing is noted");
        for line in ["lm", "!verifier 80 fffffa8005400000", "!verifier 80 40"] {
            text(&target, line);
        }
    }
    assert!(found > 33 * 2, "{found} of 99 drivers with blocks");
}

#[test]
fn the_same_seed_damages_the_same() {
    let build = BUILDS[0];
    let shown = |seed| {
        let (machine, kernel) = stopped(build, Machine::with_scenario(build, Scenario::Corrupt, seed));
        text(&Target::new(&machine, &kernel), "!verifier 3")
    };
    assert_eq!(shown(7), shown(7));
    assert!((0..8).any(|seed| shown(seed) != shown(7)));
}

#[test]
fn a_big_log_has_0x100000_entries_that_nobody_keeps() {
    for name in ["7sp1", "11-24h2"] {
        let build = Build::find(name).unwrap();
        let (machine, kernel) = stopped(build, Machine::with_scenario(build, Scenario::BigLog, 0));
        let target = Target::new(&machine, &kernel);
        let log = json(&target, "!verifier 80 3");
        assert_eq!((&log["length"], log["entries"].as_array().unwrap().len()), (&json!(0x10_0000), 3));
        let log = json(&target, "!verifier 80 fffffa8005400000");
        assert_eq!(log["entries"][0]["size"], 0xf_a000, "{name}");
        assert!(machine.kept_bytes() < 16 << 20, "{name}: {:#x} bytes", machine.kept_bytes());
    }
}

pub(super) fn on_every_build(scenario: Scenario, check: impl Fn(&Target<'_>)) {
    for build in BUILDS.iter().filter(|build| scenario.check(build).is_ok()) {
        println!("{} {scenario}", build.name);
        let (machine, kernel) = stopped(build, Machine::with_scenario(build, scenario, 0));
        check(&Target::new(&machine, &kernel));
    }
}

pub(super) fn json(target: &Target<'_>, line: &str) -> Value {
    run(target, line).unwrap_or_else(|error| panic!("{line}: {error}")).with_notes()
}

pub(super) fn blocks_of(driver: &Value) -> &[Value] {
    driver["allocations"]["blocks"].as_array().unwrap()
}

fn notes_of_log(target: &Target<'_>) -> Vec<Note> {
    run(target, "!verifier 80 20").map(|answer| answer.notes).unwrap_or_default()
}
