//! Pool by tag on the layouts of real kernels: each kernel's counters, laid out in memory by its own structure and its own addresses, are
//! added up by nothing but its symbols.
//!
//! The layouts are those of `../shared/data/pool-layouts.json`; without `../shared` (a user's clone) this says so and passes.

use std::sync::Arc;

use serde_json::Value;
use verikd::symbols::table::TableSymbols;
use verikd::symbols::{Guid, PdbIdentity};

use crate::support::World;
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
