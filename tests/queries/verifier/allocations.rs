//! A driver's trackers, whole and broken.

use verikd::commands::NoteKind;
use verikd::memory::VirtAddr;

use super::{DRIVER, json, notes, run};
use crate::support::text::WithNotes as _;
use crate::support::verifier::*;
use crate::support::{PAGE, World};

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
    let report = run(&booted, "!verifier 3 myfault").unwrap().with_notes();
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

/// What a counter says and a list cannot: one page of it is not there.
#[test]
fn a_full_page_that_cannot_be_read_is_the_difference_to_what_is_counted() {
    let mut world = leak(Build::Windows7);
    let slots = |count: u64, base: u64| -> Vec<Slot> {
        (0..count).map(|index| Slot { address: base + index * 0x100, size: 0x90 }).collect()
    };
    let full = TRACKERS.offset(PAGE);
    let (newest, older) = (slots(9, 0xffff_fa80_0600_0000), slots(127, 0xffff_fa80_0700_0000));
    set_trackers(&mut world, DATA, &[(TRACKERS, &newest), (full, &older)]);
    world.put(DRIVER, DATA, "CurrentNonPagedPoolAllocations", 9 + 127);
    assert_eq!(json(&world, "!verifier 3 myfault")["notes"], json!([]));
    world.unmap(full);
    let noted = notes(&world.boot(), "!verifier 3 myfault");
    let texts: Vec<_> = noted.iter().map(|note| (note.kind, note.text.as_str())).collect();
    assert_eq!(
        texts,
        [
            (
                NoteKind::Partial,
                "myfault.sys: the list of tracker pages breaks off after 1 of 2: its element at fffffa80`03221000 cannot be \
                 used: _VI_POOL_PAGE_HEADER.Signature: read 0x0 of 0x8 bytes at fffffa80`03221010: not mapped"
            ),
            (NoteKind::Partial, "myfault.sys: current allocations 136, listed 9: 1 page unreadable"),
        ]
    );
}

/// Windows 7 on a CPU without cmpxchg16b.
#[test]
fn list_headers_of_eight_bytes_lead_to_the_same_blocks() {
    let mut world = leak(Build::Windows7);
    let expected = json(&world, "!verifier 3 myfault")["drivers"].clone();
    for list in ["PoolPageHeaders", "PoolTrackers"] {
        let head = DATA.offset(world.offset(DRIVER, list));
        let bytes = world.read(head, 16);
        let (first, depth) = (u64::from_le_bytes(bytes[8..].try_into().unwrap()) & !0xf, u64::from(bytes[0]));
        world.write(head, &[0; 16]);
        world.put(DRIVER, DATA, &format!("{list}.Header8.Depth"), depth);
        world.put(DRIVER, DATA, &format!("{list}.Header8.NextEntry"), (first & 0x7ff_ffff_ffff) >> 4);
        // The upper bits that entries and header share.
        world.put(DRIVER, DATA, &format!("{list}.Header8.Region"), 0x7);
    }
    let report = json(&world, "!verifier 3 myfault");
    assert_eq!((&report["drivers"], &report["notes"]), (&expected, &json!([])));
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
