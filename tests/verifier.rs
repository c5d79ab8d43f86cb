//! `!verifier` on kernels written down here: the published transcripts, and every way in which a kernel can disappoint.

mod support;

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use support::blind::UNKNOWN_API;
use support::text::assert_same_text;
use support::verifier::*;
use support::{Booted, PAGE, World};
use verikd::commands::{AnyAnswer, Note, NoteKind, QueryError, Run, find};
use verikd::memory::{Address, Memory, PhysAddr, ReadCause, ReadError, StopId, VirtAddr};
use verikd::target::Target;

const DRIVER: &str = "_VF_TARGET_VERIFIED_DRIVER_DATA";

#[test]
fn the_published_leak_prints_as_published() {
    for build in [Build::Windows7, Build::Windows11] {
        let booted = leak(build).boot();
        // An entry's address depends on the build's node; the transcript is Windows 7's.
        assert_same_text(
            &text(&booted, "!verifier 3 myfault.sys"),
            include_str!("golden/verifier-3-myfault.txt"),
        );
        assert_same_text(
            &text(&booted, "!verifier 80 fffffa8005400000"),
            include_str!("golden/verifier-80.txt"),
        );
    }
}

#[test]
fn a_driver_may_be_named_without_extension_and_in_any_case() {
    let booted = leak(Build::Windows7).boot();
    let expected = text(&booted, "!verifier 3 myfault.sys");
    for line in ["!verifier 3 MYFAULT.SYS", "!verifier 0x3 myfault", "!VERIFIER 0n3 MyFault", "!verifier 3"] {
        assert_eq!(text(&booted, line), expected, "{line}");
    }
}

#[test]
fn flags_decide_how_much_is_shown() {
    let booted = leak(Build::Windows7).boot();
    let settings = text(&booted, "!verifier");
    assert!(settings.contains("\tAll pool allocations checked on unload\n") && !settings.contains("Entry"));
    assert_eq!(text(&booted, "!verifier 0"), settings);
    assert_eq!(text(&booted, "!verifier 2"), settings, "2 needs 1");
    let rows = text(&booted, "!verifier 1");
    assert!(rows.starts_with(&settings) && rows.ends_with("00000000    myfault.sys\n"), "{rows}");
}

#[test]
fn a_query_costs_few_requests() {
    let booted = leak(Build::Windows7).boot();
    booted.memory.reset();
    text(&booted, "!verifier 3 myfault.sys");
    // Settings 2, tree 2, tables 1, driver 3, page of trackers 1.
    assert_eq!(booted.memory.reads(), 9);
    // A reply of a live target carries 1096 bytes.
    assert!(booted.memory.bytes() < 12 * 1096, "{:#x} bytes", booted.memory.bytes());
    booted.memory.reset();
    text(&booted, "!verifier 80 fffffa8005400000");
    // Variables 1, modules 3, the entry 1; one search that finds it, one that finds no other.
    assert_eq!((booted.memory.reads(), booted.memory.searches()), (1 + 3 + 1, 2));
    let blind = leak(Build::Windows7).boot_blind(UNKNOWN_API);
    text(&blind, "!verifier 80 fffffa8005400000");
    // The log in pieces of 64 KiB, cut at the newest entry.
    assert_eq!(blind.memory.reads(), 1 + 3 + 8 * 1024 / 64 + 1);
}

#[test]
fn json_has_the_facts_of_the_text_with_addresses_as_strings() {
    let booted = leak(Build::Windows7).boot();
    let report = run(&booted, "!verifier 3 myfault").unwrap().to_json().unwrap();
    assert_eq!(report["settings"]["level"], 8);
    assert_eq!(report["settings"]["statistics"]["allocations_attempted"], 0xb);
    let driver = &report["drivers"][0];
    assert_eq!(driver["entry"], "0xfffffa80031b5830");
    assert_eq!((&driver["name"], &driver["loads"]), (&json!("myfault.sys"), &json!(1)));
    assert_eq!(driver["allocations"]["pages_end"], "null");
    let block = json!({
        "address": "0xfffffa8005400000", "size": 0xf_b000, "tag": "Leak", "caller": "0xfffff8800447d634",
        "caller_symbol": "myfault!MyfaultDeviceControl+0x358", "tracker": "0xfffffa8003220ec0", "odd_size": false,
    });
    assert_eq!(driver["allocations"]["blocks"][0], block);

    let log = run(&booted, "!verifier 80 fffffa80`05400000").unwrap().to_json().unwrap();
    assert_eq!(
        (&log["length"], &log["parsed"], &log["method"]),
        (&json!(0x1_0000), &json!(0x1_0000), &json!("search"))
    );
    assert_eq!(log["notes"][0]["kind"], "remark");
    let entry = &log["entries"][0];
    assert_eq!((&entry["slot"], &entry["size"]), (&json!(0x1230), &json!(0xf_a000)));
    assert_eq!(
        entry["stack"][2],
        json!({"address": "0xfffff8800447d634", "symbol": "myfault!MyfaultDeviceControl+0x358"})
    );
}

#[test]
fn a_driver_that_is_not_verified_is_explained() {
    let mut world = leak(Build::Windows7);
    add_suspect(&mut world, SUSPECT.offset(0x400), "later.sys", 0, 0);
    add_suspect(&mut world, SUSPECT.offset(0x500), "gone.sys", 2, 2);
    let booted = world.boot();
    let failed = |line: &str| match &notes(&booted, line)[..] {
        [Note { kind: NoteKind::Failed, text }] => text.clone(),
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(failed("!verifier 3 tcpip.sys"), "tcpip.sys is not verified. Verified drivers: myfault.sys.");
    assert_eq!(
        failed("!verifier 3 later"),
        "later.sys is chosen for verification but has not been loaded yet. Verified drivers: myfault.sys."
    );
    assert!(
        failed("!verifier 3 GONE.SYS")
            .starts_with("gone.sys is chosen for verification and was unloaded (loaded 2")
    );
    assert!(text(&booted, "!verifier 3 tcpip.sys").ends_with("PagedPool   Module\n"), "a header and no row");
}

#[test]
fn verifier_off_and_tracking_off_are_told_apart() {
    let booted = kernel(Build::Windows7).boot();
    let [note] = &notes(&booted, "!verifier 3 myfault.sys")[..] else { panic!("one note") };
    assert!(note.text.starts_with("Driver Verifier is off (Level 0)") && note.kind == NoteKind::Failed);
    assert_eq!(notes(&booted, "!verifier")[0].kind, NoteKind::Remark);
    let error = run(&booted, "!verifier 80").err().unwrap();
    assert!(
        error.to_string().starts_with(
            "!verifier: this kernel keeps no such log (nt!VfPoolTraces is 0): Driver Verifier is off."
        ),
        "{error}"
    );

    let mut world = leak(Build::Windows7);
    let settings = world.global("MmVerifierData");
    world.put("_MM_DRIVER_VERIFIER_DATA", settings, "Level", 0x10);
    assert!(notes(&world.boot(), "!verifier 3 myfault")[0].text.starts_with("Pool tracking is off"));
}

#[test]
fn blocks_of_advanced_pool_tracking_belong_to_the_innermost_verified_driver() {
    let mut world = leak(Build::Windows11);
    let flags = world.global("VfOptionFlags");
    world.write(flags, &0x1000_u32.to_le_bytes());
    set_trackers(&mut world, DATA, &[]);
    let noted = notes(&world.boot(), "!verifier 3 myfault");
    assert!(noted[0].text.contains("none was allocated yet") && noted.len() == 2, "{noted:?}");

    let other = (NODE.offset(0x1000), DATA.offset(0x1000), SUSPECT.offset(0x1000));
    add_driver(&mut world, other.0, other.1, other.2, "other.sys");
    world.put("_VF_TARGET_DRIVER", entry_of(other.0), "TreeNode.Base.p", 0xffff_f880_0500_0000);
    world.put("_RTL_BALANCED_LINKS", NODE, "RightChild", other.0.0);
    let allocate = NT.0 + 0x52_7cc6;
    // The first driver calls the other, which allocates; then it allocates itself.
    add_tracked(
        &mut world,
        &[
            (0xffff_fa80_0a00_0010, 0x31, &[allocate, 0xffff_f880_0500_1234, CALLER]),
            (0xffff_fa80_0a00_1000, 0x40, &[allocate, CALLER]),
            (0xffff_fa80_0a00_2000, 0x50, &[allocate, NT.0 + 0x3a_7a97]),
            (0x1234, 0x50, &[CALLER]),
        ],
    );
    let report = json(&world, "!verifier 3");
    let blocks =
        |driver: usize| report["drivers"][driver]["allocations"]["blocks"].as_array().unwrap().clone();
    let [mine, others] = [blocks(0), blocks(1)];
    assert_eq!(
        (mine.len(), &mine[0]["address"], &mine[0]["size"]),
        (1, &json!("0xfffffa800a001000"), &json!(0x40))
    );
    assert_eq!((&mine[0]["tag"], &mine[0]["caller"]), (&json!("Leak"), &json!("0xfffff8800447d634")));
    assert_eq!(mine[0]["stack"][1]["symbol"], "myfault!MyfaultDeviceControl+0x358");
    assert_eq!((others.len(), &others[0]["caller"]), (1, &json!("0xfffff88005001234")));
    let noted = report["notes"].to_string();
    assert!(noted.contains("1 tracked blocks have no kernel address"), "{noted}");
    assert!(!noted.contains("current allocations"), "{noted}");
}

#[test]
fn nothing_is_listed_before_the_tree_is_set_up() {
    let mut world = leak(Build::Windows7);
    let initialized = world.global("ViTargetInitialized");
    world.write(initialized, &[0; 4]);
    assert!(notes(&world.boot(), "!verifier 1")[0].text.contains("none of those chosen was loaded yet"));

    let mut world = leak(Build::Windows7);
    let tree = world.global("ViTargetDriversAvl");
    world.put("_VF_AVL_TREE", tree, "TablesNo", 0);
    assert!(notes(&world.boot(), "!verifier 1")[0].text.contains("none of those chosen was loaded yet"));
    world.put("_VF_AVL_TREE", tree, "TablesNo", 0xffff_ffff);
    let error = run(&world.boot(), "!verifier 1").err().unwrap().to_string();
    assert!(error.contains("0xffffffff tables, more than any kernel makes"), "{error}");
}

#[test]
fn every_bucket_of_the_tree_is_walked_and_thunk_nodes_are_skipped() {
    let mut world = leak(Build::Windows11);
    let tree = world.global("ViTargetDriversAvl");
    world.put("_VF_AVL_TREE", tree, "TablesNo", 16);
    let stride = world.size("_VF_AVL_TABLE");
    let (node, data, suspect) = (NODE.offset(0x1000), DATA.offset(0x1000), SUSPECT.offset(0x1000));
    add_driver(&mut world, node, data, suspect, "other.sys");
    world.put("_VF_AVL_TABLE", TABLES.offset(11 * stride), "RtlTable.BalancedRoot.RightChild", node.0);
    let thunks = NODE.offset(0x2000);
    world.put("_VF_TARGET_DRIVER", entry_of(thunks), "VerifiedData", 0);
    world.put("_RTL_BALANCED_LINKS", node, "LeftChild", thunks.0);
    let report = json(&world, "!verifier 1");
    let names: Vec<_> = report["drivers"].as_array().unwrap().iter().map(|driver| &driver["name"]).collect();
    assert_eq!(names, [&json!("myfault.sys"), &json!("other.sys")]);
    assert_eq!(report["notes"], json!([]));
}

#[test]
fn a_block_of_odd_size_in_use_is_listed() {
    let mut world = leak(Build::Windows7);
    let blocks = [
        Slot { address: 0xffff_fa80_0600_0fc4, size: 0x3b },
        Slot { address: 0xffff_fa80_0601_0fc0, size: 0x40 },
    ];
    set_trackers(&mut world, DATA, &[(TRACKERS.offset(PAGE), &blocks)]);
    world.put(DRIVER, DATA, "CurrentNonPagedPoolAllocations", 2);
    let report = json(&world, "!verifier 3 myfault");
    let blocks = &report["drivers"][0]["allocations"]["blocks"];
    assert_eq!((&blocks[0]["size"], &blocks[0]["odd_size"]), (&json!(0x3b), &json!(true)));
    assert_eq!((blocks.as_array().unwrap().len(), &report["notes"]), (2, &json!([])));
}

#[test]
fn pages_are_listed_newest_first_and_each_is_read_once() {
    let mut world = leak(Build::Windows7);
    let slots = |base: u64| -> Vec<Slot> {
        (0..127).map(|index| Slot { address: base + index * 0x100, size: 0x90 }).collect()
    };
    let pages: Vec<_> = (0..40)
        .map(|page| (TRACKERS.offset(page * 2 * PAGE), slots(0xffff_fa80_1000_0000 + page * 0x1_0000)))
        .collect();
    let shown: Vec<_> = pages.iter().map(|(at, slots)| (*at, &slots[..])).collect();
    set_trackers(&mut world, DATA, &shown);
    world.put(DRIVER, DATA, "CurrentNonPagedPoolAllocations", 40 * 127);
    let booted = world.boot();
    booted.memory.reset();
    let report = run(&booted, "!verifier 3 myfault").unwrap().to_json().unwrap();
    assert_eq!(booted.memory.reads(), 8 + 40);
    let blocks = report["drivers"][0]["allocations"]["blocks"].as_array().unwrap();
    assert_eq!(blocks.len(), 40 * 127);
    assert_eq!(blocks[0]["address"], "0xfffffa8010000000");
    assert_eq!(blocks[127]["address"], "0xfffffa8010010000");
    assert_eq!(report["notes"], json!([]));
}

#[test]
fn a_broken_list_of_pages_keeps_what_came_before() {
    let second = TRACKERS.offset(PAGE);
    let blocks = [Slot { address: 0xffff_fa80_0600_0000, size: 0x100 }];
    let two_pages = || {
        let mut world = leak(Build::Windows7);
        set_trackers(&mut world, DATA, &[(TRACKERS.offset(2 * PAGE), &blocks), (second, &blocks)]);
        world
    };
    let broken = |spoil: &dyn Fn(&mut World), why: &str, left: usize| {
        let mut world = two_pages();
        spoil(&mut world);
        let report = json(&world, "!verifier 3 myfault");
        let listed = report["drivers"][0]["allocations"]["blocks"].as_array().unwrap().len();
        let notes = report["notes"].to_string();
        assert!(
            listed == left
                && notes.contains(why)
                && notes.contains(&format!("current allocations 10, listed {left}: ")),
            "{why}: {notes}"
        );
    };
    broken(
        &|world| world.put("_VI_POOL_PAGE_HEADER", second, "Signature", 0xbad),
        "its signature is 0xbad",
        1,
    );
    broken(
        &|world| world.put("_VI_POOL_PAGE_HEADER", second, "VerifierEntry", 0x1230),
        "it belongs to 00000000`00001230",
        1,
    );
    broken(
        &|world| world.unmap(second),
        "breaks off after 1 of 2: its element at fffffa80`03221000 cannot be used",
        1,
    );
    let first = TRACKERS.offset(2 * PAGE);
    broken(
        &|world| world.put("_VI_POOL_PAGE_HEADER", first, "NextPage", first.0),
        "it comes back to fffffa80`03222000; 1 more were found through the list of free trackers",
        2,
    );
    broken(
        &|world| world.put("_VI_POOL_PAGE_HEADER", first, "NextPage", 0x4141_4141_4141_4141),
        "no element has such an address",
        2,
    );
    broken(
        &|world| world.put("_VI_POOL_PAGE_HEADER", first, "NextPage", 0),
        "the list of tracker pages has 1, its header says 2; 1 more were found",
        2,
    );
    let mut world = two_pages();
    world.unmap(second);
    let noted = json(&world, "!verifier 3 myfault")["notes"].to_string();
    assert!(noted.contains("myfault.sys: current allocations 10, listed 1: 1 page unreadable, "), "{noted}");
}

#[test]
fn a_broken_free_list_falls_back_to_the_low_bit_and_says_so() {
    let mut world = leak(Build::Windows7);
    let free = TRACKERS.offset(0x40);
    world.put("_VI_POOL_ENTRY", free, "NextFree", free.0);
    let report = json(&world, "!verifier 3 myfault");
    let allocations = &report["drivers"][0]["allocations"];
    assert_eq!(
        (allocations["blocks"].as_array().unwrap().len(), &allocations["free_end"]),
        (10, &json!("cycle"))
    );
    assert!(report["notes"].to_string().contains("blocks of odd size in special pool are not listed"));
}

#[test]
fn a_tracker_taken_for_an_unfinished_allocation_is_left_out() {
    let mut world = leak(Build::Windows7);
    // Popped from the free list, not filled: it still holds the old link.
    let taken = TRACKERS.offset(0x20);
    let next = world.read(taken, 8);
    set_head(&mut world, DATA, "PoolTrackers", VirtAddr(u64::from_le_bytes(next.try_into().unwrap())), 116);
    let report = json(&world, "!verifier 3 myfault");
    assert_eq!(report["drivers"][0]["allocations"]["blocks"].as_array().unwrap().len(), 10);
    assert!(report["notes"].to_string().contains("1 trackers hold no kernel address"), "{}", report["notes"]);
}

#[test]
fn what_cannot_be_read_of_a_driver_spoils_only_itself() {
    let spoilt = |spoil: &dyn Fn(&mut World)| {
        let mut world = leak(Build::Windows7);
        spoil(&mut world);
        let booted = world.boot();
        (text(&booted, "!verifier 3"), notes(&booted, "!verifier 3"))
    };
    let (shown, notes) =
        spoilt(&|world| world.put(DRIVER, DATA, "SuspectDriverEntry", 0xffff_dead_0000_0000));
    assert!(
        shown.contains("fffffa80031b5830 Unknown          009ce000       00000000    (name unreadable)"),
        "{shown}"
    );
    assert!(shown.contains("     Leak      ") && notes[0].text.contains("cannot be read"), "{notes:?}");

    let (shown, notes) = spoilt(&|world| world.put(DRIVER, DATA, "Signature", 1));
    assert!(shown.contains("     Leak      ") && notes[0].text.contains("signature 0x1"), "{notes:?}");

    let (shown, notes) = spoilt(&|world| world.unmap(DATA));
    assert!(
        !shown.contains("myfault") && notes[0].text.contains("fffffa80`031b5830 cannot be read"),
        "{notes:?}"
    );

    // A name that is torn: absurd length, then nonsense.
    let name = SUSPECT.offset(0x18);
    let (shown, _) = spoilt(&|world| world.write(name, &0xffff_u16.to_le_bytes()));
    assert!(shown.contains("(name unreadable)") || shown.contains("myfault.sys"), "{shown}");
    let (shown, _) = spoilt(&|world| world.write(SUSPECT.offset(0x28), &[0x1b, 0, 0, 0xd8, b'x', 0]));
    assert!(!shown.contains('\u{1b}'), "{shown}");
}

#[test]
fn the_tree_in_knots_still_gives_the_drivers_it_has() {
    let mut world = leak(Build::Windows7);
    world.put("_RTL_BALANCED_LINKS", NODE, "LeftChild", NODE.0);
    world.put("_RTL_BALANCED_LINKS", NODE, "RightChild", 0x1234_5678);
    let booted = world.boot();
    assert!(text(&booted, "!verifier 1").contains("myfault.sys"));
    assert!(notes(&booted, "!verifier 1")[0].text.contains("it comes back to fffffa80`031b5810"));
}

#[test]
fn an_address_inside_a_block_finds_it_and_the_newest_comes_first() {
    let mut world = leak(Build::Windows7);
    log_entry(&mut world, 0x1234, 0xffff_fa80_0540_0000, 0xf_b000, &[CALLER]);
    // Older than slot 0x1235 is only what the ring's other end holds.
    log_entry(&mut world, 0xffff, 0xffff_fa80_0540_0000, 0x10, &[CALLER]);
    let booted = world.boot();
    let slots = |line: &str| -> Vec<Value> {
        let log = run(&booted, line).unwrap().to_json().unwrap();
        log["entries"].as_array().unwrap().iter().map(|entry| entry["slot"].clone()).collect()
    };
    assert_eq!(slots("!verifier 80 fffffa80`05400000"), [json!(0x1234), json!(0x1230), json!(0xffff)]);
    assert_eq!(slots("!verifier 80 0xfffffa80054f9fff"), [json!(0x1234), json!(0x1230)]);
    assert_eq!(slots("!verifier 80 fffffa80054fa000"), [json!(0x1234)], "the free's size is rounded up");
    assert_eq!(slots("!verifier 80 2"), [json!(0x1234), json!(0x1230)]);
}

#[test]
fn without_an_address_the_newest_entries_are_shown() {
    let mut world = kernel(Build::Windows7);
    add_log(&mut world, 0x1000, 0x1_2010);
    for slot in 0..0x1000 {
        log_entry(&mut world, slot, 0xffff_fa80_0000_0000 + slot * 0x100, 0x80, &[]);
    }
    let booted = world.boot();
    let slots = |line: &str| {
        let log = run(&booted, line).unwrap().to_json().unwrap();
        let entries = log["entries"].as_array().unwrap();
        (
            entries.len(),
            entries[0]["slot"].as_u64().unwrap(),
            entries.last().unwrap()["slot"].as_u64().unwrap(),
        )
    };
    assert_eq!(slots("!verifier 80 10"), (0x10, 0x10, 1));
    assert_eq!(slots("!verifier 80 20"), (0x20, 0x10, 0xff1), "around the end of the ring");
    assert_eq!(slots("!verifier 80"), (0x40, 0x10, 0xfd1));
    assert_eq!(slots("!verifier 80 0n4096"), (0x1000, 0x10, 0x11));
    let shown = text(&booted, "!verifier 80 1");
    assert!(shown.contains("Displaying most recent 0x0000000000000001 entries"), "{shown}");
    booted.memory.reset();
    text(&booted, "!verifier 80 10");
    assert_eq!(booted.memory.reads(), 2, "no more of the log than is shown");
}

#[test]
fn an_address_that_is_not_in_the_log_is_said_so() {
    let booted = leak(Build::Windows7).boot();
    let shown = text(&booted, "!verifier 80 fffffa8000000000");
    let lines: Vec<_> = shown.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 5, "header and the final two lines: {shown}");
    let noted = notes(&booted, "!verifier 80 fffffa8000000000");
    let [note] = &noted.iter().filter(|it| it.kind != NoteKind::Remark).collect::<Vec<_>>()[..] else {
        panic!("one note: {noted:?}")
    };
    assert!(note.kind == NoteKind::Failed && note.text.starts_with("No entry of the log is about a block"));
    let error = run(&booted, "!verifier 80 7fff0000").err().unwrap();
    assert!(error.is_usage() && error.to_string().contains("0x7fff0000 is no kernel address"), "{error}");
}

#[test]
fn a_hole_in_the_log_costs_its_own_entries() {
    let mut world = leak(Build::Windows7);
    world.unmap(LOG.offset(0x1100 * 0x80));
    let booted = world.boot_blind(UNKNOWN_API);
    let log = run(&booted, "!verifier 80 fffffa8005400000").unwrap().to_json().unwrap();
    assert_eq!((&log["unreadable"], &log["parsed"]), (&json!(0x20), &json!(0x1_0000)));
    assert_eq!(log["entries"].as_array().unwrap().len(), 1);
    assert!(log["notes"][0]["text"].as_str().unwrap().contains("so the log was read"));
    assert_eq!(
        log["notes"][1]["text"],
        "0x20 entries of the log cannot be read (slots 0x1100 to 0x111f: not mapped)"
    );
}

#[test]
fn a_search_that_is_not_answered_in_time_is_made_up_for_by_reading() {
    let booted = leak(Build::Windows7).boot_blind(ReadCause::NoAnswer { seconds: 60 });
    let log = run(&booted, "!verifier 80 fffffa8005400000").unwrap().to_json().unwrap();
    assert_eq!((&log["method"], log["entries"].as_array().unwrap().len()), (&json!("read"), 1));
    let note = log["notes"][0]["text"].as_str().unwrap();
    assert!(
        note.contains("no answer from the target within 60 s") && note.contains("so the log was read"),
        "{note}"
    );
}

#[test]
fn an_entry_across_the_edge_of_a_hole_keeps_what_can_be_read() {
    let mut world = leak(Build::Windows11);
    let slot = 9;
    assert!(slot * 0x1a8 % PAGE < PAGE && (slot + 1) * 0x1a8 > PAGE, "slot 9 crosses the first page's end");
    log_entry(&mut world, slot, 0xffff_fa80_0700_0000, 0x20, &[CALLER; 50]);
    world.unmap(LOG.offset(PAGE));
    let log = json(&world, "!verifier 80 fffffa8007000010");
    let entry = &log["entries"][0];
    assert_eq!((&entry["slot"], &entry["stack_cut"]), (&json!(9), &json!(true)));
    assert_eq!(entry["stack"].as_array().unwrap().len() as u64, (PAGE - slot * 0x1a8 - 0x18) / 8);
}

#[test]
fn a_wild_or_absurd_log_is_given_up_soon() {
    let mut world = leak(Build::Windows7);
    let (pointer, length) = (world.global("VfPoolTraces"), world.global("VfPoolTracesLength"));
    world.write(pointer, &0xffff_8123_0000_0000_u64.to_le_bytes());
    let booted = world.boot();
    let noted = notes(&booted, "!verifier 80 fffffa8005400000");
    assert!(noted.iter().any(|it| it.text.contains("given up after")), "{noted:?}");
    assert!(booted.memory.reads() < 0x200, "{}", booted.memory.reads());
    for absurd in [0_u32, 3, 0xffff_ffff, 0x8000_0000] {
        world.write(length, &absurd.to_le_bytes());
        let error = run(&world.boot(), "!verifier 80").err().unwrap().to_string();
        assert!(error.contains("every kernel's log has a power of two"), "{error}");
    }
}

#[test]
fn what_ends_one_read_for_good_ends_the_query_with_what_it_has() {
    let mut world = leak(Build::Windows7);
    for index in 1..9 {
        let at = |base: VirtAddr| base.offset(index * 0x1000);
        add_driver(&mut world, at(NODE), at(DATA), at(SUSPECT), &format!("driver{index}.sys"));
        world.put(
            "_RTL_BALANCED_LINKS",
            NODE.offset((index - 1) * 0x1000),
            "RightChild",
            NODE.offset(index * 0x1000).0,
        );
    }
    let booted = world.boot();
    for allowed in 0..170 {
        let memory = Interrupted { inner: &booted.memory, left: allowed.into(), refused: 0.into() };
        let target = Target::new(&memory, &booted.kernel);
        for line in ["!verifier 3", "!verifier 80 fffffa8005400000"] {
            let Ok(answer) = support::text::run(&target, line) else { continue };
            let refused = memory.refused.load(Ordering::Relaxed);
            assert!(answer.worst() >= Some(NoteKind::Partial) || refused == 0, "{line}, {allowed} reads");
        }
        assert!(
            memory.refused.load(Ordering::Relaxed) <= 1,
            "after {allowed} reads the user pressed Ctrl+C once"
        );
    }
}

#[test]
fn the_log_of_irqls_prints_as_published() {
    let mut world = leak(Build::Windows7);
    let at = RING;
    add_ring(&mut world, RINGS[1].0, at, 0x100, 2);
    for slot in 1..3 {
        let at = at.offset(slot * world.size("_VI_TRACK_IRQL"));
        for (field, value) in
            [("Thread", 0xffff_f800_02bf_8c40), ("OldIrql", 2), ("NewIrql", slot), ("TickCount", 0x495e)]
        {
            world.put("_VI_TRACK_IRQL", at, field, value);
        }
        world.put("_VI_TRACK_IRQL", at, "StackTrace", CALLER);
    }
    let booted = world.boot();
    let entry = |new: u64| {
        format!(
            "\nThread:             fffff80002bf8c40\nOld irql:           0000000000000002\n\
             New irql:           {new:016x}\nProcessor:          0000000000000000\n\
             Time stamp:         000000000000495e\n\n    fffff8800447d634 myfault!MyfaultDeviceControl+0x358\n"
        )
    };
    let head = "\n----------------------------------------------- \n\
                Track irql trace log                            \n\
                ----------------------------------------------- \n\n\
                Displaying most recent 0x0000000000000004 entries from the IRQL transition log.\n\
                There are up to 0x100 entries in the log.\n";
    assert_eq!(text(&booted, "!verifier 8"), format!("{head}{}{}", entry(2), entry(1)));
    assert!(text(&booted, "!verifier 8 1").ends_with(&format!("in the log.\n{}", entry(2))));
    let both = text(&booted, "!verifier f");
    assert!(both.starts_with(&text(&booted, "!verifier 3")), "{both}");
    assert!(
        both.contains("Driver Verifier didn't inject any faults.\n\n---") && both.ends_with(&entry(1)),
        "{both}"
    );
    let log = run(&booted, "!verifier 8").unwrap().to_json().unwrap();
    assert_eq!((&log["log"], &log["depth"]), (&json!("irql"), &json!(5)));
    let record = &log["records"][0];
    assert_eq!((&record["thread"], &record["new_irql"]), (&json!("0xfffff80002bf8c40"), &json!(2)));
}

#[test]
fn injected_faults_print_as_published() {
    let mut world = leak(Build::Windows7);
    assert!(text(&world.boot(), "!verifier 4").ends_with("Driver Verifier didn't inject any faults.\n"));
    add_ring(&mut world, RINGS[0].0, RING, 0x80, 0x75);
    let at = RING.offset(0x75 * world.size("_VI_FAULT_TRACE"));
    world.put("_VI_FAULT_TRACE", at, "Thread", 0xffff_fa80_044c_eb60);
    world.put("_VI_FAULT_TRACE", at, "StackTrace", CALLER);
    let shown = text(&world.boot(), "!verifier 4");
    assert!(
        shown.ends_with(
            "Resource fault injection history:\n\
             Tracker @ FFFFFA8006000000 (# entries: 75, size: 80, depth: 8)\n\n\
             Entry @ FFFFFA80060020E8 (index 75)\n\n    Thread: FFFFFA80044CEB60\n\n    \
             FFFFF8800447D634 myfault!MyfaultDeviceControl+0x358\n"
        ),
        "{shown}"
    );
}

#[test]
fn a_log_is_searched_for_a_thread_or_a_request() {
    let mut world = leak(Build::Windows7);
    let at = RING;
    add_ring(&mut world, RINGS[2].0, at, 0x100, 0x22);
    for slot in 0..0x20 {
        let at = at.offset((slot + 3) * world.size("_IOV_FORCED_PENDING_TRACE"));
        world.put("_IOV_FORCED_PENDING_TRACE", at, "Irp", 0xffff_fa80_0700_0000 + slot % 2 * 0x200);
        world.put("_IOV_FORCED_PENDING_TRACE", at, "Thread", 0xffff_fa80_0800_0000 + slot * 0x1000);
    }
    let booted = world.boot();
    let slots = |line: &str| {
        let log = run(&booted, line).unwrap().to_json().unwrap();
        let records = log["records"].as_array().unwrap().clone();
        (records.len(), records[0]["slot"].as_u64().unwrap())
    };
    assert_eq!(slots("!verifier 40"), (4, 0x22));
    assert_eq!(slots("!verifier 40 10"), (0x10, 0x22));
    assert_eq!(slots("!verifier 40 fffffa8007000000"), (0x10, 0x21));
    assert_eq!(slots("!verifier 40 fffffa80`08005000"), (1, 8));
    assert_eq!(notes(&booted, "!verifier 40 fffffa8009000000")[0].kind, NoteKind::Failed);
    let error = run(&booted, "!verifier 200").err().unwrap().to_string();
    assert!(error.contains("no such log (nt!VfKeCriticalRegionTraces is 0)"), "{error}");
    let error = run(&booted, "!verifier 100").err().unwrap().to_string();
    assert!(error.contains("type nt!_IOV_IRP_TRACE not found"), "{error}");
    let noted = notes(&booted, "!verifier 203");
    assert!(noted.iter().any(|note| note.kind == NoteKind::Partial && note.text.contains("nt!VfKeCritical")));
}

#[test]
fn watched_requests_are_listed() {
    let mut world = leak(Build::Windows7);
    let head = world.global("VfWdIrpListHead");
    world.write(head, &head.0.to_le_bytes());
    assert!(text(&world.boot(), "!verifier 400").ends_with("watches no cancelled request.\n"));
    let entry = VirtAddr(0xffff_fa80_0a00_0000);
    world.write(head, &entry.0.to_le_bytes());
    world.put("_VF_WATCHDOG_IRP", entry, "Irp", 0xffff_fa80_0700_0000);
    world.put("_VF_WATCHDOG_IRP", entry, "DueTickCount", 0x1234);
    world.write(entry, &head.0.to_le_bytes());
    let booted = world.boot();
    assert!(text(&booted, "!verifier 400").contains("Irp:                fffffa8007000000\n"));
    assert_eq!(notes(&booted, "!verifier 400"), []);
    assert_eq!(notes(&booted, "!verifier 400 fffffa8007000200")[0].kind, NoteKind::Failed);
    world.write(entry, &entry.0.to_le_bytes());
    assert!(notes(&world.boot(), "!verifier 400")[0].text.contains("it comes back to"));
}

#[test]
fn entries_are_told_apart_by_their_stacks() {
    let mut world = leak(Build::Windows7);
    let free = NT.0 + 0x18_0000 + 0x22c;
    log_entry(&mut world, 0x1232, 0xffff_fa80_0540_0000, 0xf_b000, &[free, CALLER]);
    log_entry(&mut world, 0x1234, 0xffff_fa80_0540_0000, 0, &[]);
    let booted = world.boot();
    let log = run(&booted, "!verifier 80 fffffa8005400000").unwrap().to_json().unwrap();
    let kinds: Vec<_> = (0..3).map(|at| (&log["entries"][at]["kind"], &log["entries"][at]["torn"])).collect();
    assert_eq!(
        kinds,
        [
            (&json!("unknown"), &json!("incomplete")),
            (&json!("free"), &json!(null)),
            (&json!("allocation"), &json!(null))
        ]
    );
    let noted = log["notes"].to_string();
    assert!(
        noted.contains("The newest entry of the log (slot 0x1234) may be torn: it has no size"),
        "{noted}"
    );
    let shown = text(&booted, "!verifier -v 80 fffffa8005400000");
    assert!(shown.contains("Thread fffffa80044ceb60, allocation\n") && shown.contains(", free\n"), "{shown}");
    assert!(!text(&booted, "!verifier 80 fffffa8005400000").contains("allocation\n"));
}

#[test]
fn a_newest_slot_that_is_taken_and_still_empty_is_said_so() {
    let mut world = leak(Build::Windows7);
    add_log(&mut world, 0x1_0000, 0x1231);
    let log = json(&world, "!verifier 80 4");
    assert_eq!((log["entries"].as_array().unwrap().len(), &log["entries"][0]["slot"]), (1, &json!(0x1230)));
    let note = log["notes"][0]["text"].as_str().unwrap();
    assert!(
        note.starts_with("The newest slot of the log (0x1231) is empty: a processor was stopped"),
        "{note}"
    );

    add_ring(&mut world, RINGS[1].0, RING, 0x100, 3);
    for (slot, thread, frame) in [(1, 0xffff_f800_02bf_8c40, CALLER), (2, 0, CALLER)] {
        let at = RING.offset(slot * world.size("_VI_TRACK_IRQL"));
        world.put("_VI_TRACK_IRQL", at, "Thread", thread);
        world.put("_VI_TRACK_IRQL", at, "StackTrace", frame);
    }
    let log = json(&world, "!verifier 8");
    assert_eq!((&log["records"][0]["torn"], &log["records"][1]["torn"]), (&json!(true), &json!(false)));
    let noted = log["notes"].to_string();
    assert!(noted.contains("The newest slot of the log (0x3) is empty"), "{noted}");
    assert!(noted.contains("The record in slot 0x2 may be torn: it has no thread or no stack"), "{noted}");
}

#[test]
fn a_long_read_tells_how_far_it_has_come() {
    struct Told(std::cell::RefCell<Vec<(u64, u64)>>);
    impl verikd::target::Progress for Told {
        fn advance(&self, what: &'static str, done: u64, total: u64) {
            assert_eq!(what, "log entries");
            self.0.borrow_mut().push((done, total));
        }
    }
    let booted = leak(Build::Windows7).boot_blind(ReadCause::Unsupported("search"));
    let told = Told(std::cell::RefCell::default());
    let target = booted.target().with_progress(&told);
    support::text::run(&target, "!verifier 80 fffffa8005400000").unwrap();
    let told = told.0.into_inner();
    assert_eq!((told.len(), told.last()), (8 * 1024 / 64 + 1, Some(&(0x1_0000, 0x1_0000))));
    assert!(told.is_sorted());
}

#[test]
fn the_forms_of_the_command_are_listed() {
    let booted = leak(Build::Windows7).boot();
    let manual = text(&booted, "!verifier -?");
    assert!(
        manual.contains("!verifier [-v] 80 [ADDRESS|QUANTITY]") && manual.lines().count() == 10,
        "{manual}"
    );
}

#[test]
fn a_line_that_cannot_be_read_says_what_is_taken() {
    let booted = leak(Build::Windows7).boot();
    for (line, problem) in [
        ("!verifier x", "`x` is no hexadecimal number for flags"),
        ("!verifier 3 a b", "`b` is one argument too many"),
        ("!verifier 80 1 2", "`2` is one argument too many"),
        ("!verifier 20", "0x20: Driver Hang Verification is of Windows XP"),
        ("!verifier 803", "0x803: how VerifierExt keeps the log"),
        ("!verifier 1003", "0x1000 is none of the flags"),
        ("!verifier -disable", "-disable would write to the target's memory"),
    ] {
        let error = run(&booted, line).err().unwrap();
        assert!(error.is_usage() && error.to_string().contains(problem), "{line}: {error}");
        assert!(error.to_string().contains("\nusage: !verifier [0|1|3 [DRIVER] | 4|8|40 [QUANTITY]"));
    }
}

#[test]
fn an_address_may_be_any_expression() {
    let booted = leak(Build::Windows7).boot();
    let plain = text(&booted, "!verifier 80 fffffa8005400000");
    let log = run(&booted, "!verifier 80 fffffa8005400000").unwrap().to_json().unwrap();
    let entry = format!("poi(poi(nt!VfPoolTraces) + 0n128 * 0n{})", log["entries"][0]["slot"]);
    for address in ["fffffa80`053ff000 + 0n4096".to_owned(), entry] {
        assert_eq!(text(&booted, &format!("!verifier 80 {address}")), plain, "{address}");
    }
    let error = run(&booted, "!verifier 80 nt!x").err().unwrap();
    assert!(!error.is_usage());
    assert!(
        error.to_string().starts_with("!verifier: Couldn't resolve error at 'nt!x': nt!x not found in"),
        "{error}"
    );
    assert!(run(&booted, "!verifier 80 1+").err().unwrap().is_usage());
}

#[test]
fn without_the_kernels_symbols_the_error_names_the_file_to_get() {
    let mut world = leak(Build::Windows7);
    world.write(
        NT,
        &support::image::pe_image(NT_SIZE, &verikd::symbols::Symbols::identity(&*world.nt).clone()),
    );
    let booted = world.boot();
    let kernel = verikd::target::Kernel::new(world.version, verikd::symbols::store::SymbolPath::default());
    let target = Target::new(&booted.memory, &kernel);
    let Run::Query(run) = find("!verifier").unwrap().0.run else { panic!("a query") };
    let error = run("3", &target).err().unwrap();
    assert!(!error.is_usage());
    assert_eq!(
        error.to_string(),
        "!verifier: nt has no symbols: no symbols for ntkrnlmp.pdb (identity 070707070707070707070707070707071): the \
         symbol path is empty; give one with -y, _NT_SYMBOL_PATH or .sympath\n  Windows' own files are at \
         https://msdl.microsoft.com/download/symbols/ntkrnlmp.pdb/070707070707070707070707070707071/ntkrnlmp.pdb; \
         .symfix and .reload fetch them"
    );
}

#[test]
fn modules_and_version_are_shown_in_windbgs_columns() {
    let booted = leak(Build::Windows7).boot();
    assert_eq!(
        text(&booted, "lm"),
        "start             end                 module name\n\
         fffff800`01400000 fffff800`019ea000   nt         (table symbols)\n\
         fffff880`0447c000 fffff880`04485000   myfault    (table symbols)\n"
    );
    assert_eq!(text(&booted, "lm m my*").lines().count(), 2);
    assert_eq!(notes(&booted, "lm m x*")[0].kind, NoteKind::Failed);
    assert_eq!(
        text(&booted, "vertarget"),
        "Windows Kernel Version 7601 MP Free x64\n\
         Kernel base = 0xfffff800`01400000 PsLoadedModuleList = 0xfffff800`01639c90\n"
    );
}

#[test]
fn no_flipped_byte_of_the_verifiers_state_is_a_panic_or_an_endless_walk() {
    let mut world = leak(Build::Windows7);
    world.drop_pages(LOG);
    let mut random = 1_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let tree = world.global("ViTargetDriversAvl");
    let places =
        [(tree, 0x40), (TABLES, 0x70), (NODE, 0x50), (DATA, 0x100), (SUSPECT, 0x40), (TRACKERS, PAGE)];
    for _ in 0..400 {
        let before: Vec<_> = places.iter().map(|(at, len)| world.read(*at, *len)).collect();
        for _ in 0..=next(6) {
            let (at, len) = places[next(places.len() as u64) as usize];
            world.write(at.offset(next(len)), &[next(256) as u8]);
        }
        let booted = world.boot();
        if let Ok(answer) = run(&booted, "!verifier 3") {
            answer.write_text(&mut String::new()).unwrap();
        }
        assert!(booted.memory.reads() < 1_000);
        for ((at, _), bytes) in places.iter().zip(before) {
            world.write(*at, &bytes);
        }
    }
}

/// A memory whose user presses Ctrl+C after some reads.
struct Interrupted<'a> {
    inner: &'a dyn Memory,
    left: AtomicUsize,
    refused: AtomicUsize,
}

impl Memory for Interrupted<'_> {
    fn read_virtual(&self, address: VirtAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if left.is_ok() {
            return self.inner.read_virtual(address, buf);
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        let address = Address::Virtual(address);
        Err(ReadError { address, wanted: buf.len(), got: 0, cause: ReadCause::Interrupted })
    }

    fn read_physical(&self, address: PhysAddr, buf: &mut [u8]) -> Result<(), ReadError> {
        self.inner.read_physical(address, buf)
    }

    fn search_virtual(&self, range: Range<VirtAddr>, pattern: &[u8]) -> Result<Option<VirtAddr>, ReadError> {
        self.inner.search_virtual(range, pattern)
    }

    fn stop(&self) -> StopId {
        self.inner.stop()
    }
}

fn run(booted: &Booted, line: &str) -> Result<Box<dyn AnyAnswer>, QueryError> {
    support::text::run(&booted.target(), line)
}

fn text(booted: &Booted, line: &str) -> String {
    support::text::text(&booted.target(), line)
}

fn notes(booted: &Booted, line: &str) -> Vec<Note> {
    support::text::notes(&booted.target(), line)
}

fn json(world: &World, line: &str) -> Value {
    run(&world.boot(), line).unwrap_or_else(|error| panic!("{line}: {error}")).to_json().unwrap()
}
