//! `!poolfind -k` and `!pool -k`: blocks joined with the pool log of the published leak.

use serde_json::{Value, json};
use verikd::memory::ReadCause;

use crate::support::heap::{put_big, put_big_table};
use crate::support::pool::with_old_blocks;
use crate::support::text::WithNotes as _;
use crate::support::text::{run, text};
use crate::support::verifier::{CALLER, LOG, leak_with, log_entry};
use crate::support::{Booted, World};

const AREA: u64 = 0xffff_fa80_0000_0000;
/// Blocks of the leak; the log has the golden stack of the first.
const BLOCKS: [u64; 5] =
    [AREA | 0x0540_0000, AREA | 0x052f_b000, AREA | 0x0520_0000, AREA | 0x050f_b000, AREA | 0x0500_0000];
const ALLOCATES: u64 = 0xffff_f800_0192_7cc6;
const FREES: u64 = 0xffff_f800_0158_0039;

fn world(blocks: &[u64]) -> World {
    let mut world = leak_with(with_old_blocks);
    put_big_table(&mut world);
    for (index, address) in (3..).zip(blocks) {
        put_big(&mut world, index, *address, "Leak", false, 0xf_b000);
    }
    world
}

fn answer(booted: &Booted, line: &str) -> Value {
    run(&booted.target(), line).unwrap_or_else(|error| panic!("{line}: {error}")).with_notes()
}

/// What is said of each block: its address, whether the log says anything, and how old and deep that is.
fn outcomes(answer: &Value) -> Vec<(u64, String, Value, usize)> {
    let blocks = answer["tags"][0]["searches"][0]["blocks"].as_array().unwrap();
    let of = |block: &Value| {
        let trace = &block["allocation"];
        let address = u64::from_str_radix(&block["address"].as_str().unwrap()[2..], 16).unwrap();
        let outcome = trace["outcome"].as_str().unwrap().to_owned();
        (address, outcome, trace["age"].clone(), trace["stack"].as_array().unwrap().len())
    };
    blocks.iter().map(of).collect()
}

#[test]
fn a_block_has_the_stack_that_allocated_it_below_it() {
    let world = world(&BLOCKS[..1]);
    let stack = |indent: &str| {
        [
            "allocated 4 log entries ago, 0xfa000 bytes, thread fffffa80044ceb60",
            "  fffff80001927cc6 nt!VeAllocatePoolWithTagPriority+0x2b6",
            "  fffff80001927d3d nt!VerifierExAllocatePoolEx+0x1d",
            "  fffff8800447d634 myfault!MyfaultDeviceControl+0x358",
            "  fffff8800447d727 myfault!MyfaultDispatch+0xb7",
            "  fffff80001932750 nt!IovCallDriver+0xa0",
            "  fffff800017a7a97 nt!IopXxxControlFile+0x607",
            "  fffff800017a82f6 nt!NtDeviceIoControlFile+0x56",
            "  fffff8000148bed3 nt!KiSystemServiceCopyEnd+0x13\n",
        ]
        .map(|line| format!("{indent}{line}"))
        .join("\n")
    };
    let shown = text(&world.boot().target(), "!poolfind -k Leak");
    let row = "fffffa8005400000 : tag Leak, size   0xfb000, Nonpaged pool\n";
    assert!(shown.ends_with(&format!("{row}{}", stack("        "))), "{shown}");
    let shown = text(&world.boot().target(), "!pool -k fffffa8005400000");
    assert!(shown.ends_with(&stack("\t\t")), "{shown}");
    assert!(!text(&world.boot().target(), "!pool fffffa8005400000").contains("log entries"));
}

#[test]
fn the_newest_entry_decides_and_what_it_does_not_say_is_noted() {
    let mut world = world(&BLOCKS);
    // Freed, and given to somebody else since; allocated a second time; before the ring's end, which is older; never.
    log_entry(&mut world, 0x1000, BLOCKS[1], 0xf_a000, &[ALLOCATES, CALLER]);
    log_entry(&mut world, 0x1001, BLOCKS[1], 0xf_b000, &[FREES, CALLER]);
    log_entry(&mut world, 0xfff0, BLOCKS[2], 0xf_a000, &[ALLOCATES, CALLER, CALLER]);
    log_entry(&mut world, 0x20, BLOCKS[2], 0xf_a000, &[FREES, CALLER]);
    log_entry(&mut world, 0x21, BLOCKS[2], 0xf_a000, &[ALLOCATES, CALLER]);
    log_entry(&mut world, 0xfff1, BLOCKS[3], 0xf_a000, &[ALLOCATES, CALLER, CALLER]);
    let found = answer(&world.boot(), "!poolfind -k Leak");
    let logged = |at: usize, age: u64, depth| (BLOCKS[at], "logged".to_owned(), json!(age), depth);
    let expected = [
        logged(0, 4, 8),
        (BLOCKS[1], "other_event".to_owned(), Value::Null, 0),
        logged(2, 0x1213, 2),
        logged(3, 0x1243, 3),
        (BLOCKS[4], "not_in_log".to_owned(), Value::Null, 0),
    ];
    assert_eq!(outcomes(&found), expected);
    let notes = found["notes"].as_array().unwrap();
    let has = |kind: &str, part: &str| {
        let fits =
            |note: &&Value| note["kind"] == kind && note["text"].as_str().is_some_and(|it| it.contains(part));
        assert!(notes.iter().any(|note| fits(&note)), "{part}: {notes:#?}");
    };
    has(
        "remark",
        "1 of 5 blocks: the log no longer holds the allocation: it is older than the oldest of 65,536",
    );
    has("remark", "1 of 5 blocks: the log's newest entry about the address is not of its allocation");
    // Where the target does not search, the log says the same.
    let read = answer(&world.boot_blind(ReadCause::Unsupported("search")), "!poolfind -k Leak");
    assert_eq!(outcomes(&read), expected);
}

#[test]
fn an_entry_that_cannot_be_of_the_block_says_nothing_of_it() {
    let mut world = world(&BLOCKS[..1]);
    // Larger than the block is.
    log_entry(&mut world, 0x1233, BLOCKS[0], 0xf_c000, &[ALLOCATES, CALLER]);
    assert_eq!(outcomes(&answer(&world.boot(), "!poolfind -k Leak"))[0].1, "other_event");
    // Half written: an allocation's beginning, a free's end.
    log_entry(&mut world, 0x1234, BLOCKS[0], 0xf_a000, &[ALLOCATES, FREES, CALLER]);
    assert_eq!(outcomes(&answer(&world.boot(), "!poolfind -k Leak"))[0].1, "other_event");
    let shown = text(&world.boot().target(), "!pool -k fffffa8005400000");
    assert!(shown.contains("\t\tthe pool log's newest entry about it is not of its allocation\n"), "{shown}");
}

#[test]
fn a_log_that_is_not_there_or_not_readable_takes_no_block_away() {
    let mut none = world(&BLOCKS[..2]);
    let pointer = none.global("VfPoolTraces");
    none.put_pointers(pointer, &[0]);
    let found = answer(&none.boot(), "!poolfind -k Leak");
    assert_eq!(outcomes(&found).len(), 2);
    let notes = found["notes"].to_string();
    assert!(notes.contains("No stack is known: ") && notes.contains("VfPoolTraces is 0"), "{notes}");
    let mut torn = world(&BLOCKS[..2]);
    torn.unmap(LOG);
    let found = answer(&torn.boot(), "!poolfind -k Leak");
    let outcomes: Vec<_> = outcomes(&found).into_iter().map(|block| block.1).collect();
    assert_eq!(outcomes, ["logged", "unreadable"]);
}
