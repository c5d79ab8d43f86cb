//! The leak report on every build and in every scenario, held against what the simulation itself knows of its drivers.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use verikd::commands::verifier::leaks::LeakQuery;
use verikd::commands::{Moment, Query};
use verikd::leaks::{Snapshot, judge};
use verikd::target::Target;
use verikd_sim::windows::{BUILDS, Build, Growth, Machine, Scenario};

use super::scenarios::json;
use super::stopped;
use crate::support::text::{run, text};

fn on(build: &'static Build, scenario: Scenario, check: impl FnOnce(&Target<'_>, &Machine)) {
    println!("{} {scenario}", build.name);
    let (machine, kernel) = stopped(build, Machine::with_scenario(build, scenario, 0));
    check(&Target::new(&machine, &kernel), &machine.0);
}

fn groups(report: &Value) -> &[Value] {
    report["groups"].as_array().unwrap()
}

/// Blocks and bytes of each caller, as the report has them.
fn reported(report: &Value) -> BTreeMap<u64, (u64, u64)> {
    let mut sums = BTreeMap::new();
    for group in groups(report) {
        let caller = group["caller"]["address"].as_str().unwrap();
        let caller = u64::from_str_radix(&caller[2..], 16).unwrap();
        let sum: &mut (u64, u64) = sums.entry(caller).or_default();
        sum.0 += group["blocks"].as_u64().unwrap();
        sum.1 += group["bytes"].as_u64().unwrap();
    }
    sums
}

/// The same as the simulation knows them.
fn held(machine: &Machine) -> BTreeMap<u64, (u64, u64)> {
    let mut sums = BTreeMap::new();
    for block in machine.outstanding() {
        let sum: &mut (u64, u64) = sums.entry(block.caller.0).or_default();
        *sum = (sum.0 + 1, sum.1 + block.size);
    }
    sums
}

#[test]
fn the_published_leak_is_one_group_with_the_published_stack() {
    for build in BUILDS {
        on(build, Scenario::Myfault, |target, machine| {
            let report = json(target, "!leaks myfault.sys");
            let [group] = groups(&report) else { panic!("{report:#}") };
            assert_eq!((&group["blocks"], &group["bytes"]), (&json!(10), &json!(0x9c_e000)));
            assert_eq!((&report["blocks"], &report["bytes"]), (&json!(10), &json!(0x9c_e000)));
            assert_eq!(group["stacks"]["found"], 10);
            let driver = &report["drivers"][0];
            assert_eq!(
                (&driver["counted_nonpaged_blocks"], &driver["counted_nonpaged_bytes"]),
                (&json!(10), &json!(0x9c_e000))
            );
            assert_eq!(reported(&report), held(machine));
            let log = json(target, "!verifier 80 fffffa8005400000");
            let stack: Vec<_> = ["allocator", "path"]
                .iter()
                .flat_map(|part| group[part].as_array().unwrap())
                .cloned()
                .collect();
            assert_eq!(
                json!(stack),
                log["entries"][0]["stack"],
                "the allocator's frames and the path are the stack"
            );
            assert_eq!(group["path"][0]["symbol"], "myfault!MyfaultDeviceControl+0x358");
            assert_eq!(
                (&group["newest_age"], &group["oldest_age"]),
                (&json!(0x11c), &json!(0x11c + 9 * 0x34d))
            );
            let golden = include_str!("../../golden/verifier-80.txt");
            let shown = text(target, "!leaks myfault.sys");
            for frame in golden.lines().filter(|line| line.contains('!')) {
                assert!(shown.contains(&format!("     {frame}\n")), "{frame} in {shown}");
            }
        });
    }
}

#[test]
fn every_block_of_twenty_thousand_is_in_the_right_group() {
    for build in BUILDS {
        on(build, Scenario::Many, |target, machine| {
            // Without a wire reading costs nothing, so that every stack is looked up.
            let report = json(target, "!leaks -v");
            assert_eq!(reported(&report), held(machine));
            assert_eq!(report["blocks"], 20_000);
            let mut seen = 0;
            for group in groups(&report) {
                let stacks = &group["stacks"];
                let (known, gone) =
                    (stacks["found"].as_u64().unwrap(), stacks["not_in_log"].as_u64().unwrap());
                assert_eq!(known + gone, group["blocks"].as_u64().unwrap(), "{stacks}");
                assert!(
                    known == 0 || gone == 0,
                    "what the log holds no more has groups of its own: {stacks}"
                );
                assert_eq!(group["path"].as_array().unwrap().is_empty(), known == 0);
                assert_eq!(group["list"].as_array().unwrap().len() as u64, known + gone);
                seen += known;
            }
            assert_eq!(seen, 1510, "so many are in the log");
            let notes = report["notes"].as_array().unwrap();
            assert!(notes.iter().all(|note| note["kind"] == "remark"), "sums equal the counters: {notes:#?}");
        });
    }
}

#[test]
fn groups_are_made_by_whatever_is_asked_for() {
    on(BUILDS[0], Scenario::Many, |target, _| {
        let count = |line: &str| groups(&json(target, line)).len();
        assert_eq!(count("!leaks -by tag"), 3);
        assert_eq!(count("!leaks -by caller"), 4);
        assert_eq!(count("!leaks myfault.sys netfilt -by tag"), 2);
        assert_eq!(count("!leaks myfault myfault.sys -by tag"), 1);
        assert!(count("!leaks -by size") > 100);
        let by_thread = json(target, "!leaks netfilt -by thread");
        let threads: Vec<_> = groups(&by_thread).iter().map(|group| group.get("thread").is_some()).collect();
        assert_eq!(threads.iter().filter(|known| **known).count(), 1, "those that are in the log have one");
        let tagged = json(target, "!leaks -tag St*");
        assert!(groups(&tagged).iter().all(|group| group["tags"] == json!(["StNm"])));
        let top = json(target, "!leaks -top 1");
        assert_eq!((groups(&top).len(), &top["blocks"]), (1, &json!(20_000)));
        assert_eq!(
            top["left_out"]["blocks"].as_u64().unwrap() + top["groups"][0]["blocks"].as_u64().unwrap(),
            20_000
        );
        assert!(text(target, "!leaks -top 1").contains("\nNot shown: "));
        let shallow = json(target, "!leaks myfault -depth 1");
        assert!(groups(&shallow).iter().all(|group| group["path"].as_array().unwrap().len() <= 1));
        let skipped = json(target, "!leaks myfault.sys -skip myfault!MyfaultDevice*");
        assert!(
            groups(&skipped).iter().any(|group| group["caller"]["symbol"] == "myfault!MyfaultDispatch+0xb7"),
            "{skipped:#}"
        );
        // Two places of the wrapper are two ways to one caller; what they share is the dispatcher's alone.
        let ways = groups(&skipped).iter().find(|group| group["allocators"] == 2).expect("two ways");
        let allocator = ways["allocator"].as_array().unwrap();
        assert!(allocator.iter().all(|it| !it["symbol"].as_str().unwrap().contains("MyfaultDeviceControl")));
        assert!(
            text(target, "!leaks myfault.sys -skip myfault!MyfaultDevice*")
                .contains("allocator: 2 ways through it")
        );
        for (line, problem) in [
            ("!leaks -by", "-by needs what to group by"),
            ("!leaks -by stack", "`stack` is not path"),
            ("!leaks -nosuch", "`-nosuch` is none of the options"),
        ] {
            let error = run(target, line).err().unwrap();
            assert!(error.is_usage() && error.to_string().contains(problem), "{line}: {error}");
        }
    });
}

#[test]
fn a_tree_shows_who_holds_the_memory_and_fits_its_width() {
    on(BUILDS[0], Scenario::Many, |target, _| {
        let shown = text(target, "!leaks -tree");
        let tree: Vec<_> = shown.lines().filter(|line| line.contains(" %  ")).collect();
        assert!(tree[0].contains(".sys") && tree.iter().any(|line| line.contains("├ ")), "{shown}");
        assert!(shown.lines().skip(2).all(|line| line.chars().count() <= 80), "{shown}");
        assert!(!shown.contains("   call path:"), "{shown}");
        let top = text(target, "!leaks -tree -top 1");
        assert!(top.contains("\nNot shown: "));
        let first = text(target, "!leaks -top 1");
        let of_all = first.lines().find(|line| line.starts_with("1. ")).unwrap().split(", ").nth(2).unwrap();
        let driver = top.lines().find(|line| line.contains(" %  ")).unwrap();
        assert!(
            driver.contains(of_all) && of_all != "100.0 %",
            "its share is of all groups, {of_all}\n{top}"
        );
        let by_blocks = text(target, "!leaks -tree -blocks");
        assert!(!by_blocks.lines().skip(2).any(|line| line.contains("iB ")), "{by_blocks}");
        assert_eq!(json(target, "!leaks -tree"), json(target, "!leaks"), "the facts are the same");
        let error = run(target, "!leaks -tree -by tag").err().unwrap();
        assert!(error.is_usage() && error.to_string().contains("whole call paths"), "{error}");
    });
}

#[test]
fn stacks_that_trackers_keep_need_no_log() {
    for build in BUILDS.iter().filter(|build| Scenario::AdvancedTracking.check(build).is_ok()) {
        on(build, Scenario::AdvancedTracking, |target, _| {
            let report = json(target, "!leaks myfault.sys");
            assert_eq!(report["log"], Value::Null);
            let total: u64 =
                groups(&report).iter().map(|group| group["stacks"]["in_tracker"].as_u64().unwrap()).sum();
            assert_eq!(report["blocks"].as_u64().unwrap(), total);
            assert!(groups(&report).iter().all(|group| !group["path"].as_array().unwrap().is_empty()));
        });
    }
}

#[test]
fn what_is_not_there_is_said_and_nothing_falls_over() {
    for build in BUILDS {
        for scenario in Scenario::ALL.into_iter().filter(|scenario| scenario.check(build).is_ok()) {
            on(build, scenario, |target, _| {
                for line in ["!leaks -v -all -by thread", "!leaks nosuch.sys"] {
                    if let Ok(answer) = run(target, line) {
                        let json = answer.to_json().unwrap();
                        let groups = groups(&json);
                        let shown: u64 = groups.iter().map(|group| group["blocks"].as_u64().unwrap()).sum();
                        assert_eq!(json["blocks"], shown, "{line}");
                        for group in groups {
                            let stacks: u64 = group["stacks"]
                                .as_object()
                                .unwrap()
                                .values()
                                .map(|it| it.as_u64().unwrap())
                                .sum();
                            assert_eq!(group["blocks"], stacks, "each block is counted once");
                        }
                        if line.contains("nosuch") {
                            assert!(!answer.notes.is_empty());
                        }
                    }
                }
            });
        }
    }
}

/// Snapshots of a machine at an interval, as `verikd watch` takes them.
fn watched(seed: u64, leaks: bool, busy: u32, every: Duration, looks: usize) -> Vec<Snapshot> {
    let growth = Growth { busy, ..Growth::default() };
    let mut machine = Machine::grown(BUILDS[0], Scenario::Myfault, seed, 0, growth);
    machine.leak_every(if leaks { Duration::from_secs(1) } else { Duration::ZERO });
    machine.break_in();
    machine.run_for(Duration::from_secs(20));
    let query = LeakQuery { drivers: vec!["myfault.sys".into()], keep_blocks: true, ..LeakQuery::default() };
    let mut snapshots = Vec::new();
    for number in 0..looks as u64 {
        machine.break_in();
        let (still, kernel) = stopped(BUILDS[0], machine.clone());
        let target = Target::new(&still, &kernel);
        let facts = query.run(&target).unwrap();
        let notes = target.notes().take();
        let known =
            facts.groups.iter().map(|group| group.stacks.found + group.stacks.not_in_log).sum::<u64>();
        assert_eq!(known, facts.blocks, "each block was looked for");
        assert_eq!(facts.blocks, still.outstanding().len() as u64);
        let moment = Moment { unix_ms: number * every.as_millis() as u64, pointer_size: 8, notes: &notes };
        snapshots.push(facts.snapshot(&moment));
        machine.run_for(every);
    }
    snapshots
}

#[test]
fn a_leak_among_what_comes_and_goes_is_named_and_a_breath_is_not() {
    let seeds: u64 = std::env::var("VERIKD_SEEDS").map_or(1, |it| it.parse().unwrap());
    let next = AtomicU64::new(0);
    let judge_seeds = || {
        while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < seeds) {
            a_leak_is_named_and_a_breath_is_not(seed);
        }
    };
    let side_by_side = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| (0..side_by_side).for_each(|_| drop(scope.spawn(judge_seeds))));
}

fn a_leak_is_named_and_a_breath_is_not(seed: u64) {
    const EVERY: Duration = Duration::from_secs(10);
    let leaking = judge(&watched(seed, true, 300, EVERY, 6)).unwrap();
    let [leak] = &leaking.leaks[..] else { panic!("seed {seed}: {leaking:#?}") };
    assert_eq!(leak.path[0], "myfault!MyfaultDeviceControl+0x358");
    assert!((leak.blocks_per_minute - 60.0).abs() < 7.0, "{leak:#?}");
    let breathing = judge(&watched(seed, false, 300, EVERY, 6)).unwrap();
    assert!(breathing.leaks.is_empty(), "seed {seed}: {breathing:#?}");
}
