//! `!poolfind` on kernels written down here.

use serde_json::{Value, json};
use verikd::memory::{CachedMemory, ReadCause, VirtAddr};
use verikd::target::Target;

use crate::support::heap::*;
use crate::support::pool::*;
use crate::support::text::WithNotes as _;
use crate::support::text::{run, text};
use crate::support::{Booted, World};

fn answer(booted: &Booted, line: &str) -> Value {
    run(&booted.target(), line).unwrap_or_else(|error| panic!("{line}: {error}")).with_notes()
}

/// Address and bytes of every block that was found.
fn blocks(answer: &Value) -> Vec<(u64, u64)> {
    let searches =
        answer["tags"].as_array().unwrap().iter().flat_map(|tag| tag["searches"].as_array().unwrap());
    let blocks = searches.flat_map(|search| search["blocks"].as_array().unwrap());
    let hex = |text: &Value| u64::from_str_radix(&text.as_str().unwrap()[2..], 16).unwrap();
    blocks.map(|block| (hex(&block["address"]), block["bytes"].as_u64().unwrap())).collect()
}

fn with_big(kernel: fn(u64) -> World) -> World {
    let mut world = kernel(1);
    put_big_table(&mut world);
    world
}

const AREA: u64 = 0xffff_fa80_0a00_0000;

#[test]
fn ten_large_blocks_cost_two_requests_each_and_a_few() {
    for kernel in [windows_7, windows_11] {
        let mut world = with_big(kernel);
        let expected: Vec<(u64, u64)> = (0..10).map(|number| (AREA + number * 0x10_0000, 0xf_b000)).collect();
        for ((address, bytes), number) in expected.iter().zip(0..) {
            put_big(&mut world, 7 + 97 * number, *address, "Leak", false, *bytes);
        }
        put_big(&mut world, 50, AREA - 0x1000, "Else", false, 0x1000);
        let Booted { memory, kernel } = world.boot();
        let cached = CachedMemory::new(memory);
        let found = run(&Target::new(&cached, &kernel), "!poolfind Leak").unwrap().with_notes();
        assert_eq!(blocks(&found), expected);
        let cost = cached.inner().reads() + cached.inner().searches();
        assert!(cost <= 24, "{cost} requests");
        assert_eq!(found["tags"][0]["searches"][0]["is_whole"], true);
        let note = found["notes"][0]["text"].as_str().unwrap();
        assert!(note.starts_with("Small blocks of 'Leak' were not searched for"), "{note}");
    }
}

#[test]
fn the_text_is_windbgs() {
    let mut world = with_big(windows_11);
    put_big(&mut world, 3, AREA, "Proc", false, 0xe70);
    put_big(&mut world, 90, AREA + 0x1000, "Proc", true, 0x12_3456);
    put_big(&mut world, 91, AREA + 0x2000, "Proc", false, 0);
    let shown = text(&world.boot().target(), "!poolfind Proc");
    let end = BIG.offset(0x20 * BIG_ENTRIES).0;
    assert_eq!(
        shown,
        format!(
            "\nScanning large pool allocation table for tag 0x636f7250 (Proc) ({:x} : {end:x})\n\n\
             fffffa800a000000 : tag Proc, size     0xe70, Nonpaged pool\n\
             fffffa800a001000 : tag Proc, size  0x123456, Paged pool\n\
             fffffa800a002000 : tag Proc, size         0, Nonpaged pool\n",
            BIG.0
        )
    );
}

#[test]
fn what_only_looks_like_a_tag_is_left_out() {
    let mut world = with_big(windows_7);
    let leak = u64::from(number("Leak"));
    // Freed, and with its tag still there; a size that reads so; an address that is none.
    put_big(&mut world, 4, AREA | 1, "Leak", false, 0x1000);
    put_big(&mut world, 20, AREA + 0x2000, "Else", false, leak);
    put_big(&mut world, 21, 0x41, "Leak", false, 0x1000);
    put_big(&mut world, 40, AREA + 0x4000, "Leak", false, 0x3000);
    assert_eq!(blocks(&answer(&world.boot(), "!poolfind Leak -large")), [(AREA + 0x4000, 0x3000)]);
    // Of Windows 7 a tag may say that its blocks are freed with it only.
    put_big(&mut world, 60, AREA + 0x8000, "Leak", false, 0x1000);
    let size = world.size(BIG_ENTRY);
    world.write(BIG.offset(60 * size + 8), &(number("Leak") | 0x8000_0000).to_le_bytes());
    let shown = text(&world.boot().target(), "!poolfind Leak -large");
    assert!(
        shown.contains("fffffa800a008000 : tag Leak (Protected), size    0x1000, Nonpaged pool"),
        "{shown}"
    );
}

#[test]
fn a_table_full_of_the_tag_where_no_tag_is_costs_no_more_than_reading_it() {
    let mut world = with_big(windows_7);
    for index in 0..BIG_ENTRIES {
        put_big(&mut world, index, AREA + index * 0x1000, "Else", false, u64::from(number("Leak")));
    }
    put_big(&mut world, BIG_ENTRIES - 1, AREA, "Leak", false, 0x1000);
    let booted = world.boot();
    booted.memory.reset();
    assert_eq!(blocks(&answer(&booted, "!poolfind Leak -large")), [(AREA, 0x1000)]);
    let cost = booted.memory.reads() + booted.memory.searches();
    assert!(cost < 200, "{cost}");
}

#[test]
fn a_table_that_cannot_be_believed_or_read_is_said_so() {
    for (name, value) in [
        ("PoolBigPageTable", 0),
        ("PoolBigPageTable", 0x41),
        ("PoolBigPageTableSize", 0),
        ("PoolBigPageTableSize", u64::MAX),
    ] {
        let mut world = with_big(windows_7);
        put_global(&mut world, name, value);
        let booted = world.boot();
        let error = run(&booted.target(), "!poolfind Leak").map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with("!poolfind: ") && error.contains("PoolBigPageTable"), "{error}");
    }
    // A page of it is not there.
    let mut world = with_big(windows_7);
    for index in [3, 400, 900] {
        put_big(&mut world, index, AREA + index * 0x1000, "Leak", false, 0x1000);
    }
    world.unmap(BIG.offset(400 * 0x18));
    let booted = world.boot_blind(ReadCause::Unsupported("search"));
    let found = answer(&booted, "!poolfind Leak -large");
    assert_eq!(blocks(&found).len(), 2);
}

#[test]
fn small_blocks_of_the_old_pool_are_found_where_headers_hang_together() {
    let mut world = with_big(windows_7);
    let start = VirtAddr(0xffff_fa80_0300_0000);
    for (name, value) in [
        ("MmNonPagedPoolStart", start.0),
        ("MiNonPagedPoolEnd", start.0 + 0x10_0000),
        ("MmAllocatedNonPagedPool", 0x20),
    ] {
        put_global(&mut world, name, value);
    }
    let headers = put_page(
        &mut world,
        start.offset(0x5000),
        &[("File", 0x90, 1), ("Smal", 0x170, 1), ("Smal", 0x40, 0), ("Smal", 0xdc0, 1)],
    );
    // The tag in data, and where a header could be but for what is behind it.
    world.write(start.offset(0x5000 + 0x20), b"Smal");
    world.write(start.offset(0x5000 + 0x54), b"Smal");
    let found = answer(&world.boot(), "!poolfind Smal 0");
    let expected = [(headers[1].0 + 0x10, 0x170), (headers[3].0 + 0x10, 0xdc0)];
    assert_eq!(blocks(&found), expected, "{found:#}");
    let note = found["notes"][0]["text"].as_str().unwrap();
    assert!(
        note.contains("1 more matches of 'Smal' are of blocks that are free, and 2 are no block's tag"),
        "{note}"
    );
    let shown = text(&world.boot().target(), "!poolfind Smal -nonpaged -small");
    assert!(
        shown.contains(
            "\nSearching nonpaged pool (fffffa8003000000 : fffffa8003100000) for tag 0x6c616d53 (Smal)\n\n"
        ),
        "{shown}"
    );
}

#[test]
fn small_blocks_of_segment_heaps_are_told_allocated_from_free() {
    let mut world = with_big(windows_11);
    put_heaps(&mut world);
    let vs = put_vs(
        &mut world,
        SEGMENTS[0],
        4,
        &[("File", 0x640, true), ("Smal", 0x90, true), ("Smal", 0x200, false), ("Smal", 0xb00, true)],
    );
    let lfh = put_lfh(
        &mut world,
        SEGMENTS[0],
        2,
        0x80,
        &[("Smal", true), ("Smal", false), ("File", true), ("Smal", true)],
    );
    let paged = put_vs(&mut world, SEGMENTS[1], 2, &[("Smal", 0x50, true)]);
    // In the body of a block, where nothing is.
    world.write(vs[0].offset(0x104), b"Smal");
    world.write(lfh[2].offset(0x34), b"Smal");
    let found = answer(&world.boot(), "!poolfind Smal");
    let body = |header: VirtAddr| header.0 + 0x10;
    let expected = [
        (body(vs[1]), 0x90),
        (body(vs[3]), 0xb00),
        (body(lfh[0]), 0x80),
        (body(lfh[3]), 0x80),
        (body(paged[0]), 0x50),
    ];
    assert_eq!(blocks(&found), expected, "{found:#}");
    let searches = found["tags"][0]["searches"].as_array().unwrap();
    let pools: Vec<_> = searches.iter().map(|search| search["pool"].clone()).collect();
    assert_eq!(pools, [Value::Null, json!("nonpaged"), json!("paged")]);
    assert!(vs[3].0.is_multiple_of(0x1000), "a block that would cross a page begins at the next");
}

#[test]
fn a_heap_whose_key_does_not_fit_is_named_and_the_others_are_searched() {
    let mut world = with_big(windows_11);
    put_heaps(&mut world);
    put_vs(&mut world, SEGMENTS[0], 2, &[("Smal", 0x50, true)]);
    let paged = put_vs(&mut world, SEGMENTS[1], 2, &[("Smal", 0x50, true)]);
    let signature = world.offset("_HEAP_PAGE_SEGMENT", "Signature");
    world.write(SEGMENTS[0].offset(signature), &0x1234_5678_u64.to_le_bytes());
    let found = answer(&world.boot(), "!poolfind Smal -small");
    assert_eq!(blocks(&found), [(paged[0].0 + 0x10, 0x50)]);
    let note = &found["notes"][0];
    assert_eq!(note["kind"], "partial");
    assert!(note["text"].as_str().unwrap().contains("the heap's key does not fit it"), "{note}");
}

#[test]
fn arguments_are_windbgs() {
    let booted = with_big(windows_11).boot();
    let target = booted.target();
    for (line, part) in [
        ("!poolfind", "which tag?"),
        ("!poolfind Leaks", "`Leaks` is no tag"),
        ("!poolfind Le*", "`!poolused 0 Le*` lists those that fit"),
        ("!poolfind Leak 9", "`9` is no pool type"),
        ("!poolfind Leak 4", "session pool is not searched"),
        ("!poolfind Leak 0 1", "`1` is one argument too many"),
        ("!poolfind -session Leak", "-session is not supported"),
        ("!poolfind -nope Leak", "`-nope` is none of the options"),
        ("!poolfind 0x0", "is no number of a tag"),
    ] {
        let error = run(&target, line).map(|_| ()).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains(part), "{line}: {error}");
    }
    for (line, tags) in [
        ("!poolfind -large 0x6b61654c", &["Leak"][..]),
        ("!poolfind -large -nonpaged -tag \"Leak Proc\"", &["Leak", "Proc"]),
        ("!poolfind -large \"Mm\"", &["Mm  "]),
    ] {
        let found = answer(&booted, line);
        let asked: Vec<_> = found["tags"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tag| tag["tag"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(asked, tags, "{line}");
    }
}
