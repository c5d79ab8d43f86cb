//! Pool by tag on every build, held against what the simulation itself knows of its pool.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use verikd::commands::NoteKind;
use verikd::memory::{CachedMemory, CountingMemory};
use verikd::target::Target;
use verikd_sim::windows::{BUILDS, Build, Growth, Machine, Pool, PoolBlock, PoolUse, Scenario};

use super::scenarios::json;
use super::stopped;
use crate::support::reviewed::assert_reviewed;
use crate::support::text::{notes, run, text};

/// Outstanding and bytes, nonpaged and paged, by the tag as it prints.
type Held = BTreeMap<String, [i64; 4]>;

fn shown(answer: &Value) -> Held {
    let of = |row: &Value, kind: &str, what: &str| row[kind][what].as_i64().unwrap();
    let row = |row: &Value| {
        let counts = [
            ("nonpaged", "outstanding"),
            ("nonpaged", "bytes"),
            ("paged", "outstanding"),
            ("paged", "bytes"),
        ];
        (row["tag"].as_str().unwrap().to_owned(), counts.map(|(kind, what)| of(row, kind, what)))
    };
    answer["rows"].as_array().unwrap().iter().map(row).collect()
}

fn held(machine: &Machine) -> Held {
    let signed = |used: &PoolUse| [(used.allocs - used.frees) as i64, used.bytes as i64];
    let dotted = |tag: &[u8; 4]| tag.map(|byte| if byte < b' ' { '.' } else { byte.into() }).iter().collect();
    let sides = |(tag, used): (&[u8; 4], &verikd_sim::windows::TagUse)| {
        let [[a, b], [c, d]] = [signed(&used.nonpaged), signed(&used.paged)];
        (dotted(tag), [a, b, c, d])
    };
    machine.pool_use().iter().map(sides).collect()
}

fn machine(build: &'static Build, scenario: Scenario, processors: u8) -> Machine {
    Machine::grown(build, scenario, 0, 0, Growth { processors, busy: 20, ..Growth::default() })
}

/// With counters that have wrapped, bytes below nothing in most tables, and allocations that go on from stop to stop.
#[test]
fn sums_are_exactly_what_was_allocated_on_1_4_and_64_processors() {
    for build in BUILDS {
        // One build of each layout on the largest machine, which takes a while to make.
        let largest = ["7sp1", "10-22h2", "11-25h2"].contains(&build.name);
        let machines = [(Scenario::Myfault, 1), (Scenario::Many, 4), (Scenario::VerifierOff, 64)];
        for (scenario, processors) in
            machines.into_iter().filter(|(_, processors)| *processors < 64 || largest)
        {
            let mut machine = machine(build, scenario, processors);
            machine.break_in();
            machine.run_for(Duration::from_secs(9));
            let (machine, kernel) = stopped(build, machine);
            let answer = json(&Target::new(&machine, &kernel), "!poolused 1");
            assert_eq!(shown(&answer), held(&machine), "{} {scenario} {processors}", build.name);
            assert_eq!(answer["tables_read"], processors, "{} {scenario}", build.name);
            assert_eq!(answer["notes"], json!([]), "{} {scenario}", build.name);
        }
    }
}

#[test]
fn one_tag_says_what_all_tags_say() {
    for build in BUILDS {
        let (machine, kernel) = stopped(build, machine(build, Scenario::Many, 4));
        let target = Target::new(&machine, &kernel);
        for tag in ["Leak", "Irp ", "SeqG", "Ntcl", "Cctx", "Lat2", "Pool", "CM31"] {
            let answer = json(&target, &format!("!poolused 0 \"{tag}\""));
            assert_eq!(shown(&answer)[tag], held(&machine)[tag], "{} {tag}", build.name);
        }
    }
}

/// What the leak holds by its tag is what Driver Verifier has of the driver that leaks.
#[test]
fn the_leak_grows_by_its_blocks_from_stop_to_stop() {
    for build in BUILDS {
        let (machine, kernel) = stopped(build, Machine::new(build));
        let target = Target::new(&machine, &kernel);
        let shown = text(&target, "!poolused 0 Leak");
        let expected = if build.release().unwrap().number < 9600 {
            " Leak       10 10280960         0        0UNKNOWN pooltag 'Leak', please update pooltag.txt\n"
        } else {
            " Leak        10     10280960          0            0\tUNKNOWN pooltag 'Leak', please update pooltag.txt\n"
        };
        assert!(shown.contains(expected), "{}: {shown}", build.name);
        text(&target, "!poolused");
        assert_eq!(json(&target, "!verifier 3 myfault")["drivers"][0]["pool"]["nonpaged_bytes"], 10_280_960);
        let mut later = machine.0.clone();
        later.run_for(Duration::from_secs(5));
        later.break_in();
        let later = crate::support::machine::Still(later);
        let grown = json(&Target::new(&later, &kernel), "!poolused -d 2");
        let changed = [2, 2 * 0xf_b000, 0, 0];
        assert_eq!(
            self::shown(&grown),
            [("Leak".to_owned(), changed)].into(),
            "{}: all else comes and goes",
            build.name
        );
        let one = json(&Target::new(&later, &kernel), "!poolused 0 Leak");
        assert_eq!(one["rows"][0]["nonpaged"]["outstanding"], 12, "{}", build.name);
    }
}

#[test]
fn tables_that_were_being_resized_are_noticed_and_give_no_total() {
    for build in BUILDS {
        for seed in 0..2 {
            let (machine, kernel) = stopped(build, Machine::with_scenario(build, Scenario::PoolTorn, seed));
            let target = Target::new(&machine, &kernel);
            let noted = notes(&target, "!poolused 2");
            let is_said = noted.iter().any(|note| {
                note.kind == NoteKind::Partial
                    && note.text.contains("when the target stopped")
                    && note.text.contains("g, break in")
            });
            assert!(is_said, "{} {seed}: {noted:?}", build.name);
            let answer = json(&target, "!poolused 1");
            let whole = held(&machine);
            for (tag, counts) in shown(&answer) {
                assert_eq!(counts, whole[&tag], "{} {seed}: no row is a part of a sum", build.name);
            }
            assert_eq!(answer["total"].is_null(), seed == 0, "{} {seed}", build.name);
        }
    }
}

#[test]
fn a_full_table_costs_its_replies_and_no_more() {
    for build in BUILDS {
        let (machine, kernel) = stopped(build, machine(build, Scenario::Myfault, 4));
        let cached = CachedMemory::new(CountingMemory::new(machine));
        let target = Target::new(&cached, &kernel);
        run(&target, "!poolused 0 Leak").unwrap();
        // The kernel's headers are read for its symbols, in two reads.
        let reads = cached.inner().reads();
        assert!(reads <= 3 + 4 + 2 + 2, "{}: {reads}", build.name);
    }
}

/// Read by hand: no query looks there yet.
#[test]
fn the_table_of_large_blocks_has_those_that_are_held_and_what_was_freed_is_marked() {
    for build in BUILDS {
        let mut machine = Machine::new(build);
        machine.break_in();
        machine.run_for(Duration::from_secs(5));
        let (machine, kernel) = stopped(build, machine);
        let target = Target::new(&machine, &kernel);
        let layout = target.layout("nt!_POOL_TRACKER_BIG_PAGES").unwrap();
        let variable = |name: &str| {
            let at = target.address_of(name).unwrap();
            let (bytes, _) = target.read_some(at, 8);
            u64::from_le_bytes(bytes.try_into().unwrap())
        };
        let (table, count) = (variable("nt!PoolBigPageTable"), variable("nt!PoolBigPageTableSize"));
        let entries = target.records(&layout, verikd::memory::VirtAddr(table), count as usize);
        let of = |entry: &verikd::target::Record<'_>, field: &str| entry.uint(field).unwrap();
        let used: Vec<_> = entries.iter().filter(|entry| of(entry, "Key") != 0).collect();
        let (free, held): (Vec<_>, Vec<_>) = used.into_iter().partition(|entry| of(entry, "Va") & 1 != 0);
        let leak = u64::from(u32::from_le_bytes(*b"Leak"));
        let leaked = held.iter().filter(|entry| of(entry, "Key") == leak);
        let mut blocks: Vec<_> = leaked.map(|entry| (of(entry, "Va"), of(entry, "NumberOfBytes"))).collect();
        blocks.sort_unstable();
        let expected: Vec<_> =
            machine.outstanding().iter().map(|block| (block.address.0, block.size)).collect();
        assert_eq!(blocks, expected, "{}", build.name);
        assert!(expected.len() == 12 && !free.is_empty(), "{}", build.name);
    }
}

/// Blocks of a tag that are held in one pool, as the simulation knows them: address and bytes.
fn blocks_of(machine: &Machine, tag: [u8; 4], pool: Pool) -> Vec<(u64, u64)> {
    let is_meant = |block: &&PoolBlock| block.tag == tag && block.pool == pool && block.is_allocated;
    let mut blocks: Vec<_> =
        machine.pool_blocks().iter().filter(is_meant).map(|block| (block.address.0, block.bytes)).collect();
    blocks.sort_unstable();
    blocks
}

fn found_blocks(answer: &Value) -> Vec<(u64, u64)> {
    let searches = answer["tags"][0]["searches"].as_array().unwrap();
    let blocks = searches.iter().flat_map(|search| search["blocks"].as_array().unwrap());
    let hex = |text: &Value| u64::from_str_radix(&text.as_str().unwrap()[2..], 16).unwrap();
    let mut blocks: Vec<_> =
        blocks.map(|block| (hex(&block["address"]), block["bytes"].as_u64().unwrap())).collect();
    blocks.sort_unstable();
    blocks
}

const POOL_SCENARIOS: [Scenario; 3] = [Scenario::PoolSmall, Scenario::PoolBig, Scenario::PoolHeap];

#[test]
fn every_block_that_is_held_is_found_by_its_tag_and_no_other() {
    for build in BUILDS {
        for scenario in POOL_SCENARIOS.into_iter().filter(|scenario| scenario.check(build).is_ok()) {
            let (machine, kernel) = stopped(build, Machine::with_scenario(build, scenario, 0));
            let target = Target::new(&machine, &kernel);
            let (tag, which) =
                if scenario == Scenario::PoolBig { ("Big ", "-large") } else { ("Smal", "-small") };
            for (pool, option) in [(Pool::NonPaged, "-nonpaged"), (Pool::Paged, "-paged")] {
                let line = format!("!poolfind {which} {option} \"{tag}\"");
                let expected = blocks_of(&machine, tag.as_bytes().try_into().unwrap(), pool);
                let answer = json(&target, &line);
                assert!(!expected.is_empty());
                assert_eq!(found_blocks(&answer), expected, "{} {scenario} {line}: {answer:#}", build.name);
            }
        }
    }
}

#[test]
fn every_address_leads_to_its_block_and_a_free_one_is_told_from_one_in_use() {
    for build in BUILDS {
        for scenario in POOL_SCENARIOS.into_iter().filter(|scenario| scenario.check(build).is_ok()) {
            let (machine, kernel) = stopped(build, Machine::with_scenario(build, scenario, 0));
            let target = Target::new(&machine, &kernel);
            for block in machine.pool_blocks() {
                let line = format!(
                    "!pool {:x}",
                    block.address.0 + (block.bytes / 2).min(0x100).min(block.bytes - 0x11)
                );
                let answer = json(&target, &line);
                let asked =
                    answer["blocks"].as_array().unwrap().iter().find(|block| block["is_asked"] == true);
                let asked = asked.unwrap_or_else(|| panic!("{} {scenario} {line}: {answer:#}", build.name));
                let tag = String::from_utf8_lossy(&block.tag).into_owned();
                let pool = if block.pool == Pool::Paged { "paged" } else { "nonpaged" };
                assert_eq!(
                    (&asked["tag"], &asked["is_allocated"], &answer["pool"], &asked["body"]),
                    (
                        &json!(tag),
                        &json!(block.is_allocated),
                        &json!(pool),
                        &json!(format!("{:#x}", block.address.0))
                    ),
                    "{} {scenario} {line}: {answer:#}",
                    build.name
                );
            }
        }
    }
}

#[test]
fn the_machines_pool_is_what_its_tags_hold_and_a_little_more() {
    for build in BUILDS {
        let mut machine = machine(build, Scenario::Myfault, 2);
        let (_, kernel) = stopped(build, machine.clone());
        machine.break_in();
        let mut last = 0;
        for _ in 0..2 {
            machine.run_for(Duration::from_secs(5));
            machine.break_in();
            let still = crate::support::machine::Still(machine.clone());
            let answer = json(&Target::new(&still, &kernel), "!vm 1");
            let bytes: i64 = held(&machine).values().map(|counts| counts[1]).sum();
            let pages = answer["nonpaged_pool"].as_i64().unwrap();
            assert!(
                pages * 0x1000 >= bytes && pages * 0x1000 < bytes + 0x100_0000,
                "{}: {pages}",
                build.name
            );
            assert!(pages > last, "{}: the leak shows", build.name);
            last = pages;
            for counter in
                ["physical", "available", "paged_pool", "committed", "commit_limit", "paged_pool_maximum"]
            {
                assert!(answer[counter].as_u64().unwrap() > 0, "{} {counter}", build.name);
            }
        }
    }
}

/// Builds that print the same share a paragraph.
#[test]
fn what_is_printed_of_blocks_on_every_build_is_reviewed() {
    for scenario in POOL_SCENARIOS {
        let mut paragraphs: Vec<(Vec<&str>, String)> = Vec::new();
        for build in BUILDS.iter().filter(|build| scenario.check(build).is_ok()) {
            let (machine, kernel) = stopped(build, Machine::with_scenario(build, scenario, 0));
            let target = Target::new(&machine, &kernel);
            let tag = if scenario == Scenario::PoolBig { "\"Big \"" } else { "Smal" };
            let of = |is_meant: &dyn Fn(&PoolBlock) -> bool| {
                machine
                    .pool_blocks()
                    .iter()
                    .find(|block| is_meant(block))
                    .map(|block| format!("!pool {:x}", block.address.0 + 8))
            };
            let mut lines =
                vec!["!vm 1".to_owned(), format!("!poolused 1 {tag}"), format!("!poolfind {tag}")];
            lines.extend(of(&|block| block.is_allocated && block.pool == Pool::NonPaged));
            lines.extend(of(&|block| !block.is_allocated));
            lines.extend(machine.pool_blocks().last().map(|block| format!("!pool {:x} 3", block.address.0)));
            let mut shown = String::new();
            for line in &lines {
                shown += &format!("kd> {line}\n{}", text(&target, line));
                for note in notes(&target, line) {
                    shown += &format!("{:?}: {}\n", note.kind, note.text);
                }
            }
            match paragraphs.iter_mut().find(|(_, text)| *text == shown) {
                Some((builds, _)) => builds.push(build.name),
                None => paragraphs.push((vec![build.name], shown)),
            }
        }
        let text: String =
            paragraphs.iter().map(|(builds, text)| format!("=== {}\n{text}\n", builds.join(", "))).collect();
        assert_reviewed("pool", scenario.name(), &text);
    }
}

/// Builds that print the same share a paragraph.
#[test]
fn what_is_printed_on_every_build_is_reviewed() {
    let mut paragraphs: Vec<(Vec<&str>, String)> = Vec::new();
    for build in BUILDS {
        let mut shown = String::new();
        for scenario in [Scenario::Many, Scenario::PoolTorn] {
            let (machine, kernel) = stopped(build, Machine::with_scenario(build, scenario, 0));
            let target = Target::new(&machine, &kernel);
            for line in ["!poolused 2", "!poolused /t 0n12 5", "!poolused 0 CM*", "!poolused 0 Nope"] {
                shown += &format!("{scenario}: kd> {line}\n{}", text(&target, line));
                for note in notes(&target, line) {
                    shown += &format!("{:?}: {}\n", note.kind, note.text);
                }
            }
        }
        match paragraphs.iter_mut().find(|(_, text)| *text == shown) {
            Some((builds, _)) => builds.push(build.name),
            None => paragraphs.push((vec![build.name], shown)),
        }
    }
    let text: String =
        paragraphs.iter().map(|(builds, text)| format!("=== {}\n{text}\n", builds.join(", "))).collect();
    assert_reviewed("pool", "poolused", &text);
}
