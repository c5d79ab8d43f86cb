//! `!poolused` on kernels written down here.

use serde_json::{Value, json};
use verikd::commands::{Moment, NoteKind, completions_of_target};
use verikd::memory::{CachedMemory, ReadCause};
use verikd::target::Target;

use crate::support::pool::*;
use crate::support::text::WithNotes as _;
use crate::support::text::{notes, run, text};
use crate::support::{Booted, World};

fn answer(booted: &Booted, line: &str) -> Value {
    run(&booted.target(), line).unwrap_or_else(|error| panic!("{line}: {error}")).with_notes()
}

/// Outstanding and bytes of nonpaged and paged pool of each row.
fn rows(answer: &Value) -> Vec<(String, [i64; 4])> {
    let side = |row: &Value, kind: &str, what: &str| row[kind][what].as_i64().unwrap();
    let row = |row: &Value| {
        let counts = [
            ("nonpaged", "outstanding"),
            ("nonpaged", "bytes"),
            ("paged", "outstanding"),
            ("paged", "bytes"),
        ];
        (row["tag"].as_str().unwrap().to_owned(), counts.map(|(kind, what)| side(row, kind, what)))
    };
    answer["rows"].as_array().unwrap().iter().map(row).collect()
}

/// Three processors, on which a tag's parts make sense only together.
fn busy(kernel: fn(u64) -> World) -> World {
    let mut world = kernel(3);
    let minus = |bytes: u64| bytes.wrapping_neg();
    put_tag(&mut world, 0, "Leak", [900, 100, 0x5000], [0; 3]);
    put_tag(&mut world, 1, "Leak", [20, 400, minus(0x1000)], [0; 3]);
    put_tag(&mut world, 2, "Leak", [0, 410, minus(0x3000)], [0; 3]);
    put_tag(&mut world, 0, "File", [7, 0, 0x700], [3, 1, 0x80]);
    put_tag(&mut world, 2, "MmSt", [0; 3], [50, 8, 0x2_0000]);
    put_tag(&mut world, 1, "Gone", [5, 5, 0], [0; 3]);
    world
}

#[test]
fn sums_are_those_of_all_processors_in_each_order() {
    for kernel in [windows_7, windows_11] {
        let booted = busy(kernel).boot();
        let leak = ("Leak".to_owned(), [10, 0x1000, 0, 0]);
        let file = ("File".to_owned(), [7, 0x700, 2, 0x80]);
        let mmst = ("MmSt".to_owned(), [0, 0, 42, 0x2_0000]);
        assert_eq!(rows(&answer(&booted, "!poolused")), [file.clone(), leak.clone(), mmst.clone()]);
        assert_eq!(rows(&answer(&booted, "!poolused 2")), [leak.clone(), file.clone(), mmst.clone()]);
        assert_eq!(rows(&answer(&booted, "!poolused 4")), [mmst.clone(), file.clone(), leak.clone()]);
        assert_eq!(rows(&answer(&booted, "!poolused /t 1 2")), std::slice::from_ref(&leak));
        assert_eq!(rows(&answer(&booted, "!poolused /t1 4")), std::slice::from_ref(&mmst));
        assert_eq!(rows(&answer(&booted, "!poolused 0 *eak")), std::slice::from_ref(&leak));
        assert_eq!(rows(&answer(&booted, "!poolused 0 ?i*")), std::slice::from_ref(&file));
        assert_eq!(rows(&answer(&booted, "!poolused 0 Leak")), [leak]);
        let all = answer(&booted, "!poolused 1");
        assert_eq!(rows(&all).len(), 4, "with what is freed");
        assert_eq!(
            all["total"]["nonpaged"],
            json!({ "allocs": 932, "frees": 915, "outstanding": 17, "bytes": 0x1700 })
        );
        assert_eq!(
            (&all["tables_expected"], &all["tables_read"], &all["notes"]),
            (&json!(3), &json!(3), &json!([]))
        );
    }
}

#[test]
fn counters_that_have_wrapped_give_the_right_difference() {
    let mut world = windows_7(2);
    put_tag(&mut world, 0, "Irp ", [0xffff_fff0, 0x10, 0x100], [0; 3]);
    put_tag(&mut world, 1, "Irp ", [0x30, 0xffff_fff0, 0x40], [0; 3]);
    let booted = world.boot();
    let expected = [("Irp ".to_owned(), [0x20, 0x140, 0, 0])];
    assert_eq!(rows(&answer(&booted, "!poolused 0 \"Irp \"")), expected);
    assert_eq!(rows(&answer(&booted, "!poolused")), expected);
    // A total below nothing is told as it is.
    let mut world = windows_11(1);
    put_tag(&mut world, 0, "Less", [1, 3, 0x100_u64.wrapping_neg()], [0; 3]);
    let expected = [("Less".to_owned(), [-2, -0x100, 0, 0])];
    assert_eq!(rows(&answer(&world.boot(), "!poolused")), expected);
}

#[test]
fn one_tag_costs_a_read_for_each_table() {
    let booted = busy(windows_11).boot();
    booted.memory.reset();
    answer(&booted, "!poolused 0 Leak");
    // Variables and slots, how many processors there are, the tag's place; its entry in three tables.
    assert_eq!((booted.memory.reads(), booted.memory.searches()), (3 + 3, 0));
    booted.memory.reset();
    let never = answer(&booted, "!poolused 0 Nope");
    assert_eq!((booted.memory.reads(), booted.memory.searches()), (3, 1));
    assert_eq!(rows(&never), []);
    assert_eq!(never["notes"][0]["kind"], "remark");
    let text = never["notes"][0]["text"].as_str().unwrap();
    assert!(text.starts_with("tag 'Nope' is in no tracker table: nothing with this tag was ever"), "{text}");
    let freed = &answer(&booted, "!poolused 0 Gone")["notes"][0]["text"];
    assert!(freed.as_str().unwrap().contains("holds nothing"), "{freed}");
}

#[test]
fn a_tag_is_found_where_others_have_pushed_it_around_the_tables_end() {
    let mut world = windows_7(2);
    let at_the_end = (0..).map(|number| format!("E{number:03}")).filter(|tag| index_of(tag) == MASK);
    let tags: Vec<_> = at_the_end.take(3).collect();
    for (index, tag) in [MASK, 0, 1].into_iter().zip(&tags) {
        put_at(&mut world, 1, index, tag, [index + 5, 0, 0x10], [0; 3]);
    }
    let booted = world.boot();
    for (index, tag) in [MASK, 0, 1].into_iter().zip(&tags) {
        assert_eq!(
            rows(&answer(&booted, &format!("!poolused 0 {tag}"))),
            [(tag.clone(), [index as i64 + 5, 0x10, 0, 0])]
        );
        assert_eq!(booted.memory.searches(), 0);
    }
}

#[test]
fn an_unknown_hash_costs_a_search() {
    let mut world = windows_11(2);
    let index = (index_of("Leak") + 9) & MASK;
    // The same four bytes are in a counter before it.
    put_at(&mut world, 0, (index + MASK - 5) & MASK, "Fals", [number("Leak").into(), 0, 0], [0; 3]);
    put_at(&mut world, 1, index, "Leak", [3, 1, 0x20], [0; 3]);
    let booted = world.boot();
    assert_eq!(rows(&answer(&booted, "!poolused 0 Leak")), [("Leak".to_owned(), [2, 0x20, 0, 0])]);
    assert!(booted.memory.searches() >= 1);
}

#[test]
fn a_table_that_cannot_be_read_leaves_no_sum() {
    let mut world = busy(windows_7);
    world.drop_pages(table(2));
    let booted = world.boot();
    let all = answer(&booted, "!poolused 2");
    assert_eq!((rows(&all), &all["total"]), (vec![], &Value::Null));
    assert_eq!(all["unknown"], json!(["File", "Gone", "Leak", "MmSt"]));
    assert_eq!((&all["tables_expected"], &all["tables_read"]), (&json!(3), &json!(2)));
    let [note] = all["notes"].as_array().unwrap().as_slice() else { panic!("{all:#}") };
    assert_eq!(note["kind"], "partial");
    let text = note["text"].as_str().unwrap();
    assert!(text.starts_with("the table of CPU 2 at fffffa80`06200000 could not be read"), "{text}");
    let one = answer(&booted, "!poolused 0 Leak");
    assert_eq!(
        (rows(&one), &one["unknown"], &one["notes"][0]["kind"]),
        (vec![], &json!(["Leak"]), &json!("partial"))
    );
}

#[test]
fn a_page_that_cannot_be_read_spoils_the_tags_that_lie_there_and_no_others() {
    let mut world = World::new(NT, NT_SIZE, windows_11(1).nt);
    world.version.build = 22621;
    let mut world = put_tables(world, 2);
    // Tables that begin near a page's end.
    let size = world.size(ENTRY);
    let shift = 0x1000 - 10 * size;
    for processor in 0..2 {
        let bytes = world.read(table(processor), size * ENTRIES);
        world.write(table(processor).offset(shift), &bytes);
    }
    put_global(&mut world, "PoolTrackTable", table(0).0 + shift);
    let slots = world.global("ExPoolTagTables");
    world.put_pointers(slots, &[table(0).0 + shift, table(1).0 + shift]);
    for index in [4, 20] {
        for processor in 0..2 {
            let at = entry(&world, processor, index).offset(shift);
            put_counts(
                &mut world,
                at,
                if index == 4 { "Whol" } else { "Torn" },
                [processor + 1, 0, 0x10],
                [0; 3],
            );
        }
    }
    world.unmap(table(1).offset(0x1000));
    let all = answer(&world.boot(), "!poolused");
    assert_eq!(rows(&all), [("Whol".to_owned(), [3, 0x20, 0, 0])]);
    assert_eq!((&all["unknown"], &all["total"]), (&json!(["Torn"]), &Value::Null));
    assert!(all["notes"][0]["text"].as_str().unwrap().contains("could be read in part only"), "{all}");
}

#[test]
fn tags_that_found_no_room_are_in_the_expansion_table() {
    let mut world = busy(windows_7);
    world.map(EXPANSION, 0x1000);
    let size = world.size(ENTRY);
    put_counts(&mut world, EXPANSION, "Late", [4, 1, 0x90], [0; 3]);
    // Behind the first empty entry is nothing, whatever it looks like.
    put_counts(&mut world, EXPANSION.offset(2 * size), "Junk", [4, 1, 0x90], [0; 3]);
    put_global(&mut world, "PoolTrackTableExpansion", EXPANSION.0);
    put_global(&mut world, "PoolTrackTableExpansionSize", 0x40);
    let booted = world.boot();
    let all = answer(&booted, "!poolused");
    assert_eq!((rows(&all).len(), &all["expansion"]), (4, &json!(true)));
    let late = [("Late".to_owned(), [3, 0x90, 0, 0])];
    assert_eq!(rows(&answer(&booted, "!poolused 0 Late")), late);
    // Its size is a newer one's: what is behind the end of it cannot be read.
    for index in 0..0x1000 / size {
        put_counts(&mut world, EXPANSION.offset(index * size), "Late", [1, 0, 0x10], [0; 3]);
    }
    put_global(&mut world, "PoolTrackTableExpansionSize", 0x400);
    let torn = answer(&world.boot(), "!poolused");
    assert_eq!((&torn["total"], &torn["notes"][0]["code"]), (&Value::Null, &json!("under_way")));
    assert!(
        torn["notes"][0]["text"]
            .as_str()
            .unwrap()
            .starts_with("the tracker table was being expanded when the target stopped")
    );
    for (at, entries) in [(EXPANSION.0, 0), (EXPANSION.0, u64::MAX), (0x41, 5)] {
        put_global(&mut world, "PoolTrackTableExpansion", at);
        put_global(&mut world, "PoolTrackTableExpansionSize", entries);
        let torn = answer(&world.boot(), "!poolused 2");
        assert_eq!((rows(&torn).len(), &torn["total"]), (3, &Value::Null), "{at:#x} {entries:#x}");
        assert!(
            torn["notes"][0]["text"].as_str().unwrap().contains("the expansion table is left out"),
            "{torn}"
        );
    }
}

#[test]
fn what_is_counted_without_a_tag_is_told() {
    let mut world = busy(windows_11);
    let at = entry(&world, 1, ENTRIES - 1);
    put_counts(&mut world, at, "\0\0\0\0", [9, 2, 0x300], [0; 3]);
    let booted = world.boot();
    assert_eq!(answer(&booted, "!poolused")["overflow"]["nonpaged"]["outstanding"], 7);
    let shown = text(&booted.target(), "!poolused");
    assert!(shown.contains(" Ovfl         7          768          0            0\t"), "{shown}");
}

#[test]
fn variables_that_cannot_be_believed_are_said_so() {
    let with = |name: &str, value: u64| {
        let mut world = busy(windows_7);
        put_global(&mut world, name, value);
        let booted = world.boot();
        run(&booted.target(), "!poolused").map(|_| ()).unwrap_err().to_string()
    };
    assert_eq!(
        with("PoolTrackTable", 0),
        "!poolused: the kernel has no pool tracker table yet: PoolTrackTable is 0 (the target stopped too early in boot)"
    );
    for size in [0, 1, 0x4000_0000, u64::MAX] {
        let error = with("PoolTrackTableSize", size);
        assert!(error.contains("which is no size of a tracker table"), "{error}");
    }
    let mut world = busy(windows_7);
    world.unmap(world.global("ExPoolTagTables"));
    let error = run(&world.boot().target(), "!poolused").map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("not mapped"), "{error}");
}

/// The kernel was stopped between writing the size of a table and the mask of its hash.
#[test]
fn a_table_that_was_being_resized_is_noticed() {
    for (name, value) in [("PoolTrackTableSize", 2 * MASK + 3), ("PoolTrackTableMask", 2 * MASK + 1)] {
        let mut world = busy(windows_7);
        put_global(&mut world, name, value);
        let booted = world.boot();
        let all = answer(&booted, "!poolused");
        assert_eq!(rows(&all).len(), 3);
        let note = &all["notes"][0];
        assert_eq!((&note["kind"], &note["code"]), (&json!("partial"), &json!("under_way")));
        assert!(
            note["text"].as_str().unwrap().contains("it was being resized when the target stopped"),
            "{note}"
        );
        assert_eq!(rows(&answer(&booted, "!poolused 0 Leak")), [("Leak".to_owned(), [10, 0x1000, 0, 0])]);
    }
}

#[test]
fn empty_slots_shared_tables_and_wild_pointers() {
    let mut world = busy(windows_7);
    let slots = world.global("ExPoolTagTables");
    // A processor that never started; two that share; tables behind a gap.
    world.put_pointers(slots, &[table(1).0, 0, table(2).0, table(2).0, 0, table(0).0]);
    let at = world.global("KeNumberProcessors");
    world.write(at, &6_u32.to_le_bytes());
    let all = answer(&world.boot(), "!poolused 0 Leak");
    assert_eq!(
        (rows(&all), &all["tables_expected"]),
        (vec![("Leak".to_owned(), [10, 0x1000, 0, 0])], &json!(3))
    );
    // A slot behind the processors that the kernel says it has is a table all the same.
    world.write(at, &1_u32.to_le_bytes());
    assert_eq!(rows(&answer(&world.boot(), "!poolused 0 Leak")), [("Leak".to_owned(), [10, 0x1000, 0, 0])]);
    for wild in [0x4141_4141_4141_4141, 3, table(1).0 + 1] {
        let mut world = busy(windows_7);
        world.put_pointers(slots.offset(8), &[wild]);
        let all = answer(&world.boot(), "!poolused");
        assert_eq!((rows(&all).len(), &all["total"]), (0, &Value::Null), "{wild:#x}");
        assert!(all["notes"][0]["text"].as_str().unwrap().contains("the table of CPU 1"), "{all}");
    }
}

#[test]
fn tables_that_disagree_are_added_up_by_their_own_keys() {
    let mut world = busy(windows_7);
    let at = entry(&world, 1, index_of("Leak"));
    put_counts(&mut world, at, "Else", [2, 0, 0x20], [0; 3]);
    let one = answer(&world.boot(), "!poolused 0 Leak");
    assert_eq!(rows(&one), [("Leak".to_owned(), [390, 0x2000, 0, 0])]);
    assert!(
        one["notes"][0]["text"].as_str().unwrap().contains("has another tag where 'Leak' belongs"),
        "{one}"
    );
}

#[test]
fn two_thousand_slots_cost_no_more_than_they_need() {
    let mut world = windows_7(3);
    put_tag(&mut world, 2, "Leak", [5, 0, 0x50], [0; 3]);
    let at = world.global("KeNumberProcessors");
    world.write(at, &200_u32.to_le_bytes());
    let booted = world.boot();
    assert_eq!(rows(&answer(&booted, "!poolused 0 Leak")), [("Leak".to_owned(), [5, 0x50, 0, 0])]);
    assert_eq!(answer(&booted, "!poolused 0 Leak")["tables_expected"], 3);
}

#[test]
fn differences_are_to_the_last_time_of_the_same_boot() {
    let mut world = busy(windows_7);
    let before = world.boot();
    let error = run(&before.target(), "!poolused -d").map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("there is no earlier answer of this boot to compare with"), "{error}");
    answer(&before, "!poolused 2");
    put_tag(&mut world, 1, "Leak", [24, 400, 0x200_u64.wrapping_sub(0x1000)], [0; 3]);
    put_tag(&mut world, 2, "News", [2, 0, 0x40], [0; 3]);
    let later = Booted { kernel: before.kernel, ..world.boot() };
    let changed = answer(&later, "!poolused -d 2");
    assert_eq!(rows(&changed), [("Leak".to_owned(), [4, 0x200, 0, 0]), ("News".to_owned(), [2, 0x40, 0, 0])]);
    assert!(
        text(&later.target(), "!poolused -d 2")
            .contains("Sorting by  NonPaged Pool Consumed, changes since the last time\n")
    );
    let same = answer(&later, "!poolused -d 0 Leak");
    assert_eq!(same["notes"][0]["text"], "nothing has changed since then");
}

/// Writes what `line` asks for to its file.
fn save(booted: &Booted, line: &str, unix_ms: u64) -> Result<(), String> {
    let answer = run(&booted.target(), line).unwrap();
    let files = answer.facts.files();
    let [file] = &files[..] else { panic!("one file") };
    (file.write)(&Moment { unix_ms, pointer_size: 8, notes: &[] })
}

/// A kernel that says when it began.
fn begun(mut world: World, at: u64) -> World {
    put_global(&mut world, "KeBootTime", at);
    world
}

#[test]
fn differences_are_to_a_snapshot_of_this_boot_or_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tags.json");
    let mut world = begun(busy(windows_7), 7);
    // Its counter is about to wrap.
    put_tag(&mut world, 0, "Wrap", [0xffff_fff0, 0xffff_ffe0, 0x400], [0; 3]);
    let before = world.boot();
    save(&before, &format!("!poolused -save {}", path.display()), 86_400_000).unwrap();
    put_tag(&mut world, 0, "Wrap", [5, 0xffff_fff0, 0x500], [0; 3]);
    put_tag(&mut world, 2, "News", [2, 0, 0x40], [0; 3]);
    let line = format!("!poolused -d {} 3", path.display());
    let changed = answer(&world.boot(), &line);
    assert_eq!(rows(&changed), [("Wrap".to_owned(), [5, 0x100, 0, 0]), ("News".to_owned(), [2, 0x40, 0, 0])]);
    assert_eq!(changed["rows"][0]["nonpaged"]["allocs"], 21);
    assert_eq!(changed["rows"][0]["nonpaged"]["frees"], 16);
    assert_eq!(changed["since"]["is_same_boot"], true);
    assert_eq!(changed["notes"], json!([]));
    let heading = "Consumed, changes since Fri Jan  2 00:00:00 1970 UTC\n";
    assert!(text(&world.boot().target(), &line).contains(heading));
    // One tag has the same answer for a few requests.
    let one = answer(&world.boot(), &format!("!poolused -d {} 0 News", path.display()));
    assert_eq!(rows(&one), [("News".to_owned(), [2, 0x40, 0, 0])]);
    let other = answer(&begun(busy(windows_11), 8).boot(), &line);
    assert_eq!(other["since"]["is_same_boot"], false);
    assert!(
        other["notes"][0]["text"].as_str().unwrap().contains("is of another boot: what is held compares"),
        "{other:#}"
    );
}

#[test]
fn a_snapshot_is_of_every_tag_or_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tags.json");
    let mut world = busy(windows_7);
    world.unmap(table(1));
    let why = save(&world.boot(), &format!("!poolused -save {} 2", path.display()), 0).unwrap_err();
    assert!(why.contains("some tags have no sum"), "{why}");
    assert!(!path.exists());
    let booted = busy(windows_7).boot();
    let error = |line: &str| run(&booted.target(), line).map(|_| ()).unwrap_err().to_string();
    assert!(error("!poolused -save x 0 Leak").contains("-save keeps every tag: leave the tag out"));
    assert!(error("!poolused -save").contains("-save needs a file's name"));
    let none = error("!poolused -d /no/such/file 2");
    assert!(none.contains("cannot compare with /no/such/file: "), "{none}");
    std::fs::write(&path, "{\"format\":\"verikd pool tags\",\"version\":9,\"program\":\"verikd 9\"}")
        .unwrap();
    let newer = error(&format!("!poolused -d \"{}\"", path.display()));
    assert!(newer.contains("of version 9, written by verikd 9; this program reads up to 1"), "{newer}");
}

#[test]
fn arguments_are_windbgs() {
    let booted = busy(windows_7).boot();
    let target = booted.target();
    let error = |line: &str| run(&target, line).map(|_| ()).unwrap_err();
    for (line, part) in [
        ("!poolused 6", "2 and 4 cannot be used together"),
        ("!poolused 8", "this kernel has no session pool (Windows 11)"),
        ("!poolused 10", "0x10 is none of the flags"),
        ("!poolused x", "`x` is no hexadecimal number"),
        ("!poolused 0 Leaks", "`Leaks` is no tag"),
        ("!poolused 0 Leak more", "one argument too many"),
        ("!poolused -x", "`-x` is none of the options"),
        ("!poolused /t", "how many rows?"),
    ] {
        let error = error(line);
        assert!(error.is_usage() && error.to_string().contains(part), "{line}: {error}");
    }
    let [note, _] = &notes(&target, "!poolused 0 Mm")[..] else { panic!("and that it is in no table") };
    assert!(note.text.contains("'Mm' was taken as 'Mm  '") && note.kind == NoteKind::Remark, "{note:?}");
}

/// Keys of tags that no keyboard types.
#[test]
fn control_characters_of_tags_reach_no_terminal() {
    let mut world = windows_7(1);
    put_at(&mut world, 0, 3, "\x1b[2J", [1, 0, 0x10], [0; 3]);
    let booted = world.boot();
    let shown = text(&booted.target(), "!poolused");
    assert!(
        shown.contains(" .[2J        1       16         0        0UNKNOWN pooltag '.[2J', please"),
        "{shown}"
    );
    assert_eq!(answer(&booted, "!poolused")["rows"][0]["tag_hex"], "0x4a325b1b");
}

#[test]
fn a_target_that_does_not_search_is_read() {
    let mut world = windows_11(2);
    put_at(&mut world, 1, (index_of("Leak") + 9) & MASK, "Leak", [3, 1, 0x20], [0; 3]);
    let booted = world.boot_blind(ReadCause::Unsupported("search"));
    assert_eq!(rows(&answer(&booted, "!poolused 0 Leak")), [("Leak".to_owned(), [2, 0x20, 0, 0])]);
}

#[test]
fn what_was_read_in_a_stop_is_not_read_again() {
    let Booted { memory, kernel } = busy(windows_7).boot();
    let cached = CachedMemory::new(memory);
    for line in ["!poolused", "!poolused 2", "!poolused 0 Leak", "!poolused 4 *"] {
        run(&Target::new(&cached, &kernel), line).unwrap();
        if line == "!poolused" {
            cached.inner().reset();
        }
    }
    assert_eq!(cached.inner().reads(), 0);
}

/// Sizes that a damaged kernel may hold cost neither memory nor a request for every page of nothing.
#[test]
fn a_table_of_a_wild_size_is_bounded() {
    let mut world = busy(windows_11);
    put_global(&mut world, "PoolTrackTableSize", (1 << 24) - 1);
    put_global(&mut world, "PoolTrackTableMask", (1 << 24) - 3);
    let booted = world.boot();
    let all = answer(&booted, "!poolused");
    assert!(booted.memory.reads() < 3000, "{} reads", booted.memory.reads());
    assert_eq!(all["total"], Value::Null);
    assert_eq!(rows(&all).len(), 3, "what lies where every table can be read has its sum");
}

/// What the user's file says of tags.
#[test]
fn descriptions_come_from_the_users_pooltag_txt() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pooltag.txt"), "rem x\nLeak - myfault.sys - Notmyfault\nMmSt - nt!mm - Mm section object prototype ptes\nFile - <unknown> - File objects\n").unwrap();
    let booted = busy(windows_11).boot();
    booted
        .kernel
        .set_symbol_path(verikd::symbols::store::SymbolPath::parse(&folder.path().display().to_string()));
    let shown = text(&booted.target(), "!poolused 2");
    assert!(
        shown.contains("\tNotmyfault , Binary: myfault.sys\n") && shown.contains("\tFile objects \n"),
        "{shown}"
    );
    let all = answer(&booted, "!poolused 0 Leak");
    assert_eq!(
        (&all["rows"][0]["description"], &all["rows"][0]["binary"]),
        (&json!("Notmyfault"), &json!("myfault.sys"))
    );
}

#[test]
fn a_pooltag_txt_is_chosen_for_the_rest_of_the_boot() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    };
    write("triage/pooltag.txt", "Leak - old.sys - as the debugger has it\n");
    let own = write("own.txt", "rem mine\nLeak - myfault.sys - mine\nno entry\n");
    let none = write("none.txt", "<html>\n");
    let booted = busy(windows_11).boot();
    booted
        .kernel
        .set_symbol_path(verikd::symbols::store::SymbolPath::parse(&folder.path().display().to_string()));
    let found = answer(&booted, "!pooltag -q Leak");
    assert_eq!(found["description"], "as the debugger has it");
    let chosen = answer(&booted, &format!("!pooltag -q -t \"{}\" Leak", own.display()));
    assert_eq!((&chosen["description"], &chosen["binary"]), (&json!("mine"), &json!("myfault.sys")));
    assert_eq!(chosen["tag_file"], own.display().to_string());
    let note = chosen["notes"][0]["text"].as_str().unwrap();
    assert!(note.contains("1 lines are not of the form"), "{note}");
    assert!(text(&booted.target(), "!poolused 0 Leak").contains("\tmine , Binary: myfault.sys\n"));
    // One that is none changes nothing.
    for (file, why) in
        [(none.display().to_string(), "no line of the form"), ("/no/such".into(), "cannot read /no/such: ")]
    {
        let error = run(&booted.target(), &format!("!pooltag -t {file} Leak")).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    assert_eq!(answer(&booted, "!pooltag -q Leak")["description"], "mine");
}

#[test]
fn tags_are_completed_by_what_the_kernel_counts() {
    let mut world = busy(windows_7);
    put_at(&mut world, 0, 7, "Irp ", [1, 0, 16], [0; 3]);
    put_at(&mut world, 0, 8, "Le\u{1}k", [1, 0, 16], [0; 3]);
    let booted = world.boot();
    let completed = |line: &str| completions_of_target(line, &booted.target()).into_parts();
    for (line, at, words) in [
        ("!poolused 0 l", 12, vec!["Leak"]),
        ("!poolfind ", 10, vec!["File", "Gone", "Irp", "Leak", "MmSt"]),
        ("!pooltag Ir", 9, vec!["Irp"]),
        ("lm; !pooltag -q Mm", 16, vec!["MmSt"]),
        ("!poolused Le", 10, vec![]),
    ] {
        assert_eq!(completed(line), (at, words.into_iter().map(str::to_owned).collect()), "{line}");
    }
    // After an answer nothing more is asked.
    answer(&booted, "!poolused");
    booted.memory.reset();
    assert_eq!(completed("!poolfind Le").1, ["Leak"]);
    assert_eq!(booted.memory.reads(), 0);
}
