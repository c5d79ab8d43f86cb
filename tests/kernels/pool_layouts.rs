//! Pool by tag on the layouts of real kernels: each kernel's counters, laid out in memory by its own structure and its own addresses, are
//! added up by nothing but its symbols.
//!
//! The layouts are those of `../shared/data/pool-layouts.json`; without `../shared` (a user's clone) this says so and passes.

use std::sync::Arc;

use serde_json::Value;
use verikd::symbols::table::TableSymbols;
use verikd::symbols::{Guid, PdbIdentity};

use crate::support::World;
use crate::support::heap::*;
use crate::support::kernels::shared;
use crate::support::pool::{NT, NT_SIZE, put_counts, put_tables, put_tag};
use crate::support::text::run;

#[test]
fn the_counters_of_every_known_kernel_are_added_up() {
    let Some(shared) = shared() else { return };
    let known: Value =
        serde_json::from_slice(&std::fs::read(shared.join("data/pool-layouts.json")).unwrap()).unwrap();
    let layouts = known["structs"]["_POOL_TRACKER_TABLE"].as_array().unwrap();
    // Builds of another source are told in words there.
    let layouts: Vec<_> = layouts.iter().filter(|layout| layout["builds"].is_array()).collect();
    let mut kernels = 0;
    for layout in &layouts {
        let types = types(layout);
        for build in layout["builds"].as_array().unwrap() {
            let build = build.as_str().unwrap();
            check(&known, build, &types);
            kernels += 1;
        }
    }
    assert_eq!(kernels, known["builds"].as_object().unwrap().len(), "each kernel has one of the layouts");
    println!("{kernels} kernels, {} layouts", layouts.len());
}

fn check(known: &Value, build: &str, types: &str) {
    let version = known["builds"][build]["version"].as_str().unwrap();
    let nt = TableSymbols::new(PdbIdentity::new("ntkrnlmp.pdb", Guid([7; 16]), 1));
    let addresses = known["rva"][build].as_object().unwrap();
    let nt = addresses
        .iter()
        .filter_map(|(name, rva)| Some((name, u32::try_from(rva.as_u64()?).ok()?)))
        .fold(nt, |nt, (name, rva)| nt.symbol(name, rva));
    let mut world = World::new(NT, NT_SIZE, Arc::new(nt.types(types)));
    world.version.build = version.split('.').nth(2).unwrap().parse().unwrap();
    for name in ["PoolTrackTable", "PoolTrackTableSize", "PoolTrackTableMask"] {
        world.map(world.global(name), 8);
    }
    let mut world = put_tables(world, 3);
    let minus = |bytes: u64| bytes.wrapping_neg();
    put_tag(&mut world, 0, "Leak", [0xffff_fff0, 3, 0x9000], [7, 5, 0x70]);
    put_tag(&mut world, 1, "Leak", [0x20, 0xffff_fff9, minus(0x1000)], [1, 0, minus(0x10)]);
    put_tag(&mut world, 2, "Leak", [0, 0, 0x40], [0; 3]);
    put_tag(&mut world, 2, "MmSt", [0; 3], [50, 8, 0x2_0000]);
    let overflow = crate::support::pool::entry(&world, 1, crate::support::pool::ENTRIES - 1);
    put_counts(&mut world, overflow, "\0\0\0\0", [9, 2, 0x300], [0; 3]);
    let booted = world.boot();
    let line =
        |line: &str| run(&booted.target(), line).unwrap_or_else(|error| panic!("{version}: {line}: {error}"));
    for asked in ["!poolused 3", "!poolused 1 Leak"] {
        let answer = line(asked);
        assert_eq!(answer.notes, [], "{version}: {asked}");
        let json = answer.to_json().unwrap();
        let row = json["rows"].as_array().unwrap().iter().find(|row| row["tag"] == "Leak").unwrap();
        let side = |kind: &str| ["outstanding", "bytes"].map(|what| row[kind][what].as_i64().unwrap());
        // Of 32-bit counters only the difference is right, since each may have wrapped.
        assert_eq!(side("nonpaged")[0] & 0xffff_ffff, 0x14, "{version}: {asked}");
        assert_eq!((side("nonpaged")[1], side("paged")), (0x8040, [3, 0x60]), "{version}: {asked}");
    }
    let all = line("!poolused").to_json().unwrap();
    assert_eq!(all["rows"].as_array().unwrap().len(), 2, "{version}");
    assert_eq!(
        (&all["tables_read"], &all["overflow"]["nonpaged"]["outstanding"]),
        (&3.into(), &7.into()),
        "{version}"
    );
}

/// What small and large blocks are found by.
const BLOCKS: &[&str] = &[
    "_POOL_TRACKER_BIG_PAGES",
    "_POOL_HEADER",
    "_RTLP_HP_HEAP_GLOBALS",
    "_EX_POOL_HEAP_MANAGER_STATE",
    "_EX_HEAP_POOL_NODE",
    "_SEGMENT_HEAP",
    "_HEAP_SEG_CONTEXT",
    "_HEAP_PAGE_SEGMENT",
    "_HEAP_PAGE_RANGE_DESCRIPTOR",
    "_HEAP_VS_SUBSEGMENT",
    "_HEAP_VS_CHUNK_HEADER",
    "_HEAP_LFH_SUBSEGMENT",
];

#[test]
fn blocks_of_every_known_kernel_are_found_by_tag_and_from_their_addresses() {
    let Some(shared) = shared() else { return };
    let known: Value =
        serde_json::from_slice(&std::fs::read(shared.join("data/pool-layouts.json")).unwrap()).unwrap();
    for build in known["builds"].as_object().unwrap().keys() {
        let of_build = |name: &&str| -> Option<String> {
            let layouts = known["structs"][*name].as_array().unwrap();
            let has = |layout: &&Value| {
                layout["builds"].as_array().is_some_and(|builds| builds.iter().any(|it| it == build.as_str()))
            };
            layouts.iter().find(has).map(|layout| blob_types(name, layout))
        };
        let types: String = BLOCKS.iter().filter_map(of_build).collect();
        check_blocks(&known, build, &types);
    }
}

fn check_blocks(known: &Value, build: &str, types: &str) {
    let version = known["builds"][build]["version"].as_str().unwrap();
    let nt = TableSymbols::new(PdbIdentity::new("ntkrnlmp.pdb", Guid([7; 16]), 1));
    let addresses = known["rva"][build].as_object().unwrap();
    let nt = addresses
        .iter()
        .filter_map(|(name, rva)| Some((name, u32::try_from(rva.as_u64()?).ok()?)))
        .fold(nt, |nt, (name, rva)| nt.symbol(name, rva));
    let mut world = World::new(NT, NT_SIZE, Arc::new(nt.types(types)));
    world.version.build = version.split('.').nth(2).unwrap().parse().unwrap();
    put_big_table(&mut world);
    let large = 0xffff_fa80_0a00_0000;
    put_big(&mut world, 77, large, "Big ", true, 0x4000);
    put_big(&mut world, 78, (large + 0x10_0000) | 1, "Big ", false, 0x4000);
    let mut blocks = vec![(large, "Big ", true)];
    let has_heaps = types.contains("_SEGMENT_HEAP");
    assert_eq!(has_heaps, world.version.build >= 17763, "{version}");
    if has_heaps {
        put_heaps(&mut world);
        let vs = [("File", 0x640, true), ("Smal", 0x90, true), ("Smal", 0x200, false), ("Smal", 0xb00, true)];
        let headers = put_vs(&mut world, SEGMENTS[0], 4, &vs);
        blocks.extend(headers.iter().zip(vs).map(|(at, (tag, _, held))| (at.0 + 0x10, tag, held)));
        let lfh = [("Smal", true), ("Smal", false), ("File", true)];
        let headers = put_lfh(&mut world, SEGMENTS[1], 1, 0x80, &lfh);
        blocks.extend(headers.iter().zip(lfh).map(|(at, (tag, held))| (at.0 + 0x10, tag, held)));
    } else {
        let page = [("File", 0x90, 1), ("Smal", 0x170, 1), ("Free", 0x40, 0), ("Smal", 0xdc0, 1)];
        let headers = put_page(&mut world, verikd::memory::VirtAddr(0xffff_fa80_0300_5000), &page);
        blocks.extend(headers.iter().zip(page).map(|(at, (tag, _, ty))| (at.0 + 0x10, tag, ty != 0)));
    }
    let booted = world.boot();
    let line = |line: &str| {
        let answer = run(&booted.target(), line).unwrap_or_else(|error| panic!("{version}: {line}: {error}"));
        answer.to_json().unwrap()
    };
    for (address, tag, is_held) in &blocks {
        let answer = line(&format!("!pool {address:x}"));
        let asked = answer["blocks"].as_array().unwrap().iter().find(|block| block["is_asked"] == true);
        let asked = asked.unwrap_or_else(|| panic!("{version} {tag}: {answer:#}"));
        assert_eq!(
            (&asked["tag"], &asked["is_allocated"]),
            (&(*tag).into(), &(*is_held).into()),
            "{version}"
        );
    }
    let found = |line: &Value| -> usize {
        let searches = line["tags"][0]["searches"].as_array().unwrap();
        searches.iter().map(|search| search["blocks"].as_array().unwrap().len()).sum()
    };
    assert_eq!(found(&line("!poolfind -large \"Big \"")), 1, "{version}");
    if has_heaps {
        assert_eq!(found(&line("!poolfind -small Smal")), 3, "{version}");
    }
}

/// The same with fields that are no numbers as bytes.
fn blob_types(name: &str, layout: &Value) -> String {
    let number = |value: &Value| value.as_u64();
    let mut text = format!("{name} {:x}\n", number(&layout["size"]).unwrap());
    for (field, at) in layout["fields"].as_object().unwrap().iter().filter(|(field, _)| !field.contains('.'))
    {
        let (offset, Some(size)) = (number(&at["offset"]).unwrap(), number(&at["size"])) else { continue };
        let ty = match (size, number(&at["bit_position"]), number(&at["bit_length"])) {
            (1 | 2 | 4 | 8, Some(bit), Some(bits)) => format!("u{}:{bit:x},{bits:x}", size * 8),
            (1 | 2 | 4 | 8, ..) => format!("u{}", size * 8),
            _ => format!("u8[{size:x}]"),
        };
        text += &format!("  {field} {offset:x} {ty}\n");
    }
    text
}

/// A layout in the language of `symbols::table`.
fn types(layout: &Value) -> String {
    let size = layout["size"].as_u64().unwrap();
    let mut text = format!("_POOL_TRACKER_TABLE {size:x}\n");
    for (name, field) in layout["fields"].as_object().unwrap() {
        let offset = field["offset"].as_u64().unwrap();
        let Some(size) = field["size"].as_u64() else { continue };
        if [1, 2, 4, 8].contains(&size) && !name.contains('.') {
            text += &format!("  {name} {offset:x} u{}\n", size * 8);
        }
    }
    text
}
