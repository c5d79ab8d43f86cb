//! `!pool` on kernels written down here.

use serde_json::{Value, json};
use verikd::memory::{CachedMemory, VirtAddr};
use verikd::target::Target;

use crate::support::heap::*;
use crate::support::pool::*;
use crate::support::text::WithNotes as _;
use crate::support::text::{run, text};
use crate::support::{Booted, World};

fn answer(booted: &Booted, line: &str) -> Value {
    run(&booted.target(), line).unwrap_or_else(|error| panic!("{line}: {error}")).with_notes()
}

/// The answer, and what it costs behind a cache.
fn costed(world: &World, line: &str) -> (Value, u64) {
    let Booted { memory, kernel } = world.boot();
    let cached = CachedMemory::new(memory);
    let answer = run(&Target::new(&cached, &kernel), line).unwrap_or_else(|error| panic!("{line}: {error}"));
    (answer.with_notes(), cached.inner().reads() + cached.inner().searches())
}

fn asked(answer: &Value) -> &Value {
    answer["blocks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|block| block["is_asked"] == true)
        .unwrap_or(&Value::Null)
}

const PAGE: VirtAddr = VirtAddr(0xffff_fa80_0300_5000);

fn old() -> World {
    let mut world = windows_7(1);
    put_big_table(&mut world);
    put_page(
        &mut world,
        PAGE,
        &[("File", 0x90, 1), ("Irp ", 0x170, 1), ("Free", 0x40, 0), ("CM25", 0xdc0, 1)],
    );
    world
}

fn new() -> World {
    let mut world = windows_11(1);
    put_big_table(&mut world);
    put_heaps(&mut world);
    world
}

#[test]
fn a_page_of_the_old_pool_is_printed_as_windbg_does() {
    let world = old();
    let shown = text(&world.boot().target(), "!pool fffffa80030050a0");
    assert_eq!(
        shown,
        "Pool page fffffa80030050a0 region is Nonpaged pool\n \
         fffffa8003005000 size:   90 previous size:    0  (Allocated)  File\n\
         *fffffa8003005090 size:  170 previous size:   90  (Allocated) *Irp \n\
         \t\tOwning component : Unknown (update pooltag.txt)\n \
         fffffa8003005200 size:   40 previous size:  170  (Free)       Free\n \
         fffffa8003005240 size:  dc0 previous size:   40  (Allocated)  CM25\n"
    );
    let alone = text(&world.boot().target(), "!pool fffffa80030050a0 80000002");
    assert_eq!(alone.lines().count(), 2, "{alone}");
    let contents = text(&world.boot().target(), "!pool fffffa80030050a0 3");
    assert!(
        contents.contains("\n        fffffa80`030050a0  00000000 00000000 00000000 00000000\n"),
        "{contents}"
    );
    let (found, cost) = costed(&world, "!pool fffffa80030050a0");
    assert_eq!((&found["place"], &found["pool"]), (&json!("page"), &json!("nonpaged")));
    assert!(cost <= 10, "{cost}");
}

#[test]
fn a_protected_tag_and_the_process_that_is_charged_are_told() {
    let mut world = old();
    let header = PAGE.offset(0x90);
    world.put("_POOL_HEADER", header, "PoolTag", (number("Irp ") | 0x8000_0000).into());
    world.put("_POOL_HEADER", header, "PoolType", 9);
    world.put("_POOL_HEADER", header, "ProcessBilled", 0xffff_fa80_0123_4560);
    let shown = text(&world.boot().target(), "!pool fffffa80030050a0 2");
    assert!(shown.contains("(Allocated) *Irp  (Protected) Process: fffffa8001234560\n"), "{shown}");
}

#[test]
fn large_blocks_are_found_by_their_start_and_from_inside() {
    for world in [old, new] {
        let mut world = world();
        put_big(&mut world, 700, 0xffff_fa80_0a00_0000, "Proc", false, 0x9_1000);
        let (found, cost) = costed(&world, "!pool fffffa800a000000");
        assert_eq!((asked(&found)["size"].as_u64(), &found["place"]), (Some(0x9_1000), &json!("large")));
        assert!(cost <= 10, "{cost}");
        let shown = text(&world.boot().target(), "!pool fffffa800a000000");
        assert!(
            shown.contains("*fffffa800a000000 : large page allocation, tag is Proc, size is 0x91000 bytes\n\t\tOwning component"),
            "{shown}"
        );
        for inside in ["fffffa800a000010", "fffffa800a023400", "fffffa800a090fff"] {
            assert_eq!(asked(&answer(&world.boot(), &format!("!pool {inside}")))["tag"], "Proc", "{inside}");
        }
        let outside = answer(&world.boot(), "!pool fffffa800a091000");
        let last = outside["notes"].as_array().unwrap().last().unwrap();
        assert_eq!((&outside["place"], &last["kind"]), (&Value::Null, &json!("failed")));
        assert!(last["text"].as_str().unwrap().contains("reads all of PoolBigPageTable"), "{outside}");
    }
}

#[test]
fn a_block_that_begins_far_away_costs_the_table_and_only_if_it_may() {
    let mut world = old();
    put_big(&mut world, 700, 0xffff_fa80_0a00_0000, "Huge", false, 0x4000_0000);
    let found = answer(&world.boot(), "!pool fffffa8020000020");
    let last = |found: &Value| {
        found["notes"].as_array().unwrap().last().unwrap()["text"].as_str().unwrap().to_owned()
    };
    assert!(last(&found).contains("`!pool -f fffffa8020000020`"), "{found}");
    assert_eq!(asked(&answer(&world.boot(), "!pool -f fffffa8020000020"))["tag"], "Huge");
    let nowhere = answer(&world.boot(), "!pool -f fffffa80f0000020");
    let note = last(&nowhere);
    assert!(note.contains("is not pool: PoolBigPageTable has no block there"), "{note}");
}

#[test]
fn blocks_of_segment_heaps_are_found_in_ten_requests() {
    let mut world = new();
    let vs = put_vs(
        &mut world,
        SEGMENTS[0],
        4,
        &[
            ("File", 0x640, true),
            ("Smal", 0x90, true),
            ("Gone", 0x200, false),
            ("Next", 0xb00, true),
            ("Last", 0x40, true),
        ],
    );
    let lfh = put_lfh(&mut world, SEGMENTS[1], 3, 0x280, &[("Aaaa", true); 16]);
    for (header, tag, size, is_allocated, pool, place) in [
        (vs[0], "File", 0x640, true, "nonpaged", "heap_vs"),
        (vs[1], "Smal", 0x90, true, "nonpaged", "heap_vs"),
        (vs[2], "Gone", 0x200, false, "nonpaged", "heap_vs"),
        (vs[3], "Next", 0xb00, true, "nonpaged", "heap_vs"),
        (vs[4], "Last", 0x40, true, "nonpaged", "heap_vs"),
        (lfh[0], "Aaaa", 0x280, true, "paged", "heap_lfh"),
        (lfh[15], "Aaaa", 0x280, true, "paged", "heap_lfh"),
    ] {
        for offset in [0x10, 0x20, 0x3f] {
            let (found, cost) = costed(&world, &format!("!pool {:x}", header.0 + offset));
            let block = asked(&found);
            assert_eq!(
                (&block["tag"], &block["address"]),
                (&json!(tag), &json!(format!("{:#x}", header.0))),
                "{found:#}"
            );
            assert_eq!(
                (&block["is_allocated"], &found["pool"]),
                (&json!(is_allocated), &json!(pool)),
                "{tag}"
            );
            assert_eq!(found["place"], place);
            assert!(block["size"].as_u64().unwrap() >= size, "{block}");
            assert!(cost <= 10, "{tag} +{offset:#x}: {cost} requests");
        }
    }
    let shown = text(&world.boot().target(), &format!("!pool {:x}", vs[1].0 + 0x10));
    assert!(
        shown.starts_with(&format!("Pool page {:x} region is Nonpaged pool\n", vs[1].0 + 0x10)),
        "{shown}"
    );
    assert!(
        shown.contains(&format!("*{:x} size:   90 previous size:    0  (Allocated) *Smal\n", vs[1].0)),
        "{shown}"
    );
    assert!(
        shown.contains(&format!(" {:x} size:  640 previous size:    0  (Allocated)  File\n", vs[0].0)),
        "{shown}"
    );
    assert!(shown.contains("(Free)       Gone\n"), "{shown}");
}

#[test]
fn pages_of_a_segment_are_a_large_block_or_free() {
    let mut world = new();
    let plain = put_range(&mut world, SEGMENTS[0], PLAIN_UNIT, 4, 3);
    put_big(&mut world, 9, plain.0, "Big ", false, 0x4000);
    let found = answer(&world.boot(), &format!("!pool {:x}", plain.0 + 0x2468));
    assert_eq!((&asked(&found)["tag"], &found["place"]), (&json!("Big "), &json!("large")));
    let free = answer(&world.boot(), &format!("!pool {:x}", SEGMENTS[0].0 + (0x50 << 12) + 0x10));
    assert_eq!((&free["place"], &free["blocks"]), (&json!("heap_free"), &json!([])));
    assert!(free["notes"][0]["text"].as_str().unwrap().contains("has free"), "{free}");
}

#[test]
fn a_chunk_larger_than_its_page_is_reached_from_the_start_of_its_range() {
    let mut world = new();
    let vs = put_vs(
        &mut world,
        SEGMENTS[0],
        0x10,
        &[("Here", 0x640, true), ("Wide", 0x5000, true), ("Tail", 0x40, true)],
    );
    // Sizes of more than a page are not in a block's own header; the chunk says them.
    let found = answer(&world.boot(), &format!("!pool {:x}", vs[1].0 + 0x2400));
    assert_eq!(asked(&found)["address"], json!(format!("{:#x}", vs[1].0)), "{found:#}");
}

#[test]
fn structures_that_do_not_decode_are_named() {
    type Spoil = fn(&mut World);
    let cases: [(&str, Spoil); 4] = [
        ("does not decode", |world| {
            let start = SEGMENTS[0].offset(VS_UNIT << 12);
            world.write(start.offset(0x30), &[0xff; 0xfd0]);
        }),
        ("the descriptors of its pages do not fit", |world| {
            let at = SEGMENTS[0].offset(VS_UNIT * 0x20);
            world.put("_HEAP_PAGE_RANGE_DESCRIPTOR", at, "RangeFlags", 0xd);
            world.put("_HEAP_PAGE_RANGE_DESCRIPTOR", at, "UnitSize", 2);
        }),
        ("are of a kind that is not known", |world| {
            let at = SEGMENTS[0].offset(VS_UNIT * 0x20);
            world.put("_HEAP_PAGE_RANGE_DESCRIPTOR", at, "RangeFlags", 7);
        }),
        ("is not pool", |world| {
            world.write(SEGMENTS[0].offset(0x10), &[0x41; 8]);
        }),
    ];
    for (said, spoil) in cases {
        let mut world = new();
        let vs = put_vs(&mut world, SEGMENTS[0], 1, &[("File", 0x640, true)]);
        spoil(&mut world);
        let found = answer(&world.boot(), &format!("!pool {:x}", vs[0].0 + 0x20));
        let notes: Vec<_> =
            found["notes"].as_array().unwrap().iter().map(|note| note["text"].as_str().unwrap()).collect();
        assert!(notes.iter().any(|note| note.contains(said)), "{said}: {notes:?}");
        assert_eq!(asked(&found), &Value::Null);
    }
}

#[test]
fn special_pool_and_tracked_blocks_lead_to_verifiers_tracker() {
    let mut world = old();
    let tracker = VirtAddr(0xffff_fa80_0b00_0040);
    let page = VirtAddr(0xffff_f980_0100_0000);
    let block = page.offset(0xfc0);
    let put_tracker = |world: &mut World, address: VirtAddr, bytes: u64, tag: &str| {
        let words = [address.0, NT.0 + 0x1234, bytes, number(tag).into()];
        world.put_pointers(tracker, &words);
    };
    world.map(page, 0x1000);
    put_tracker(&mut world, block, 0x3c, "MyfC");
    world.put_pointers(page.offset(0x10), &[tracker.0]);
    let found = answer(&world.boot(), "!pool fffff98001000fd0");
    assert_eq!((&asked(&found)["tag"], &found["place"]), (&json!("MyfC"), &json!("special")));
    assert_eq!(found["tracker"]["size"], 0x3c);
    let shown = text(&world.boot().target(), "!pool fffff98001000fd0");
    assert!(shown.starts_with("Pool page fffff98001000fd0 region is Special pool\n"), "{shown}");
    // A small block's last quadword leads there too; one that is of another block does not count.
    let mut world = old();
    put_tracker(&mut world, PAGE.offset(0xa0), 0x160, "Irp ");
    world.put_pointers(PAGE.offset(0x200 - 8), &[tracker.0]);
    assert_eq!(answer(&world.boot(), "!pool fffffa80030050a0")["tracker"]["size"], 0x160);
    put_tracker(&mut world, PAGE.offset(0x20), 0x160, "Irp ");
    assert_eq!(answer(&world.boot(), "!pool fffffa80030050a0")["tracker"], Value::Null);
}

#[test]
fn what_is_no_pool_is_said_so() {
    let booted = old().boot();
    let target = booted.target();
    for line in ["!pool", "!pool 0", "!pool -1"] {
        let error = run(&target, line).map(|_| ()).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("give an address"), "{line}: {error}");
    }
    for (line, said) in [
        ("!pool 41414141", "no kernel address"),
        ("!pool fffff8a000001010", "could not be read. It may be a freed, invalid or paged out page"),
    ] {
        let found = answer(&booted, line);
        assert!(found["notes"][0]["text"].as_str().unwrap().contains(said), "{found}");
    }
    assert!(text(&target, "!pool 41414141").starts_with("Pool page 0000000041414141 region is Unknown\n"));
}
