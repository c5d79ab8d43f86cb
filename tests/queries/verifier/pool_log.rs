//! The log of pool allocations and frees.

use serde_json::Value;
use verikd::commands::NoteKind;
use verikd::memory::ReadCause;

use super::{json, notes, run, text};
use crate::support::PAGE;
use crate::support::blind::UNKNOWN_API;
use crate::support::text::WithNotes as _;
use crate::support::verifier::*;

#[test]
fn an_address_inside_a_block_finds_it_and_the_newest_comes_first() {
    let mut world = leak(Build::Windows7);
    log_entry(&mut world, 0x1234, 0xffff_fa80_0540_0000, 0xf_b000, &[CALLER]);
    // Older than slot 0x1235 is only what the ring's other end holds.
    log_entry(&mut world, 0xffff, 0xffff_fa80_0540_0000, 0x10, &[CALLER]);
    let booted = world.boot();
    let slots = |line: &str| -> Vec<Value> {
        let log = run(&booted, line).unwrap().with_notes();
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
        let log = run(&booted, line).unwrap().with_notes();
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
fn hits_in_vain_of_a_search_that_is_given_up_are_not_counted_twice() {
    let mut world = kernel(Build::Windows7);
    add_log(&mut world, 0x1000, 0xfff);
    // Within 64 KiB below the address, but not around it; then so many further below that reading is cheaper.
    let near = (0..100).map(|slot| (slot, 0xffff_fa80_0900_0000 + slot * 0x10));
    let below = (100..400).map(|slot| (slot, 0xffff_fa80_08fe_0000 + slot * 0x10));
    for (slot, address) in near.chain(below) {
        log_entry(&mut world, slot, address, 0x10, &[CALLER]);
    }
    let log = json(&world, "!verifier 80 fffffa800900f000");
    assert_eq!(
        (&log["method"], &log["parsed"], &log["unreadable"]),
        (&json!("read"), &json!(0x1000), &json!(0))
    );
    assert!(log["notes"].to_string().contains("No entry of the log is about a block"), "{}", log["notes"]);
}

#[test]
fn a_hole_in_the_log_costs_its_own_entries() {
    let mut world = leak(Build::Windows7);
    world.unmap(LOG.offset(0x1100 * 0x80));
    let booted = world.boot_blind(UNKNOWN_API);
    let log = run(&booted, "!verifier 80 fffffa8005400000").unwrap().with_notes();
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
    let log = run(&booted, "!verifier 80 fffffa8005400000").unwrap().with_notes();
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
fn entries_are_told_apart_by_their_stacks() {
    let mut world = leak(Build::Windows7);
    let free = NT.0 + 0x18_0000 + 0x22c;
    log_entry(&mut world, 0x1232, 0xffff_fa80_0540_0000, 0xf_b000, &[free, CALLER]);
    log_entry(&mut world, 0x1234, 0xffff_fa80_0540_0000, 0, &[]);
    let booted = world.boot();
    let log = run(&booted, "!verifier 80 fffffa8005400000").unwrap().with_notes();
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

struct Told(std::cell::RefCell<Vec<(u64, u64)>>);

impl verikd::target::Progress for Told {
    fn advance(&self, what: &'static str, done: u64, total: u64) {
        assert_eq!(what, "log entries");
        self.0.borrow_mut().push((done, total));
    }
}

/// The time that is left is that of what was asked for, not of the whole log.
#[test]
fn a_read_of_some_entries_tells_how_far_it_has_come_with_them() {
    let mut world = kernel(Build::Windows7);
    add_log(&mut world, 0x1_0000, 0x2000);
    for slot in 0..=0x2000 {
        log_entry(&mut world, slot, 0xffff_fa80_0000_0000 + slot * 0x100, 0x80, &[]);
    }
    let booted = world.boot();
    let told = Told(std::cell::RefCell::default());
    let target = booted.target().with_progress(&told);
    crate::support::text::run(&target, "!verifier 80 0n800").unwrap();
    let told = told.0.into_inner();
    assert!(!told.is_empty() && told.iter().all(|(done, total)| done <= total), "{told:?}");
    assert!(told.iter().all(|(_, total)| *total < 0x1_0000), "{told:?}");
}

#[test]
fn a_long_read_tells_how_far_it_has_come() {
    let booted = leak(Build::Windows7).boot_blind(ReadCause::Unsupported("search"));
    let told = Told(std::cell::RefCell::default());
    let target = booted.target().with_progress(&told);
    crate::support::text::run(&target, "!verifier 80 fffffa8005400000").unwrap();
    let told = told.0.into_inner();
    assert_eq!((told.len(), told.last()), (8 * 1024 / 64 + 1, Some(&(0x1_0000, 0x1_0000))));
    assert!(told.is_sorted());
}
