//! A machine as large as those in the field, read over the link.

use std::collections::BTreeSet;

use kd_protocol::VirtAddr;
use kd_protocol::kd::Arm;

use super::world::{Carrier, World};
use super::*;
use crate::windows::{BUILDS, Machine, WINDOWS_7_SP1};

const GROWN: Growth = Growth { modules: 200, drivers: 100, reuse: 1000, busy: 50, processors: 0, callers: 0 };

fn stopped() -> World {
    let mut world = World::with(Carrier::Serial, |config| SimulatorConfig { growth: GROWN, ..config });
    world.break_in();
    world
}

fn uint(world: &mut World, at: u64, size: u32) -> u64 {
    let mut bytes = [0; 8];
    bytes[..size as usize].copy_from_slice(&world.read(VirtAddr(at), size));
    u64::from_le_bytes(bytes)
}

fn symbol(world: &mut World, name: &str) -> u64 {
    let layout = WINDOWS_7_SP1.images[0].layout().unwrap();
    world.version().kern_base.0 + u64::from(layout.symbol(name).unwrap())
}

/// The links of a list behind its head.
fn list(world: &mut World, head: u64) -> Vec<u64> {
    let mut entries = Vec::new();
    let mut at = uint(world, head, 8);
    while at != head {
        entries.push(at);
        at = uint(world, at, 8);
    }
    entries
}

#[test]
fn two_hundred_modules_are_scattered_and_have_headers() {
    let mut world = stopped();
    let head = world.version().ps_loaded_module_list.0;
    let entries = list(&mut world, head);
    assert_eq!(entries.len(), 4 + 200);
    let further = &entries[4..];
    assert!(further.windows(2).all(|pair| pair[0].abs_diff(pair[1]) > 0x1_0000), "neighbours lie far apart");
    let mut names = BTreeSet::new();
    let mut bases = Vec::new();
    for entry in &entries {
        let bytes = world.read(VirtAddr(*entry), 0xa0);
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let name = world.read(VirtAddr(number(0x60)), number(0x58) as u32 & 0xffff);
        assert!(names.insert(name), "every name is another one");
        assert_eq!(&world.read(VirtAddr(number(0x30)), 2)[..], b"MZ");
        bases.push(number(0x30));
    }
    let table = symbol(&mut world, "PsInvertedFunctionTable");
    assert_eq!(uint(&mut world, table, 4), 204);
    let listed: Vec<_> = (0..204).map(|at| uint(&mut world, table + 0x18 + at * 0x18, 8)).collect();
    assert_eq!(listed[0], world.version().kern_base.0);
    assert!(listed[1..].is_sorted());
    bases.sort_unstable();
    assert_eq!(BTreeSet::from_iter(listed), BTreeSet::from_iter(bases));
    let unloaded = symbol(&mut world, "MmLastUnloadedDriver");
    assert_eq!(uint(&mut world, unloaded, 4), 40);
}

#[test]
fn a_hundred_drivers_are_verified_on_every_build_beside_the_one_that_leaks() {
    let mut world = stopped();
    let head = symbol(&mut world, "VfSuspectDriversList");
    assert_eq!(list(&mut world, head).len(), 101);
    for build in BUILDS {
        let machine = Machine::grown(build, Scenario::default(), 0, 0, GROWN);
        let layout = build.images[0].layout().unwrap();
        let at = machine.version().kern_base.offset(layout.symbol("MmVerifierData").unwrap().into());
        let types = build.types().unwrap();
        let place = |field| u64::from(types.locate("_MM_DRIVER_VERIFIER_DATA", field).unwrap().0);
        let read = |field| {
            let mut bytes = [0; 4];
            machine.read_virtual(at.offset(place(field)), &mut bytes);
            u32::from_le_bytes(bytes)
        };
        // Every third holds one block, every third two.
        let blocks = 10 + (0..100).map(|number| number % 3).sum::<u32>();
        assert_eq!((read("Loads"), read("CurrentNonPagedPoolAllocations")), (101, blocks), "{}", build.name);
    }
}

#[test]
fn a_worn_out_address_is_in_the_log_as_often_as_it_was_used() {
    let mut world = stopped();
    let ring = symbol(&mut world, "VfPoolTraces");
    let ring = uint(&mut world, ring, 8);
    let pattern = Bytes::copy_from_slice(&0xffff_fa80_0540_0000_u64.to_le_bytes());
    let (mut at, end, mut found) = (ring, ring + 0x1_0000 * 0x80, 0);
    loop {
        let search = Manipulate::search_memory(VirtAddr(at), end - at, pattern.clone());
        let reply = world.ask(search).unwrap();
        if reply.return_status != NtStatus::SUCCESS {
            break;
        }
        let Arm::SearchMemory(arm) = reply.arm else { unreachable!() };
        found += 1;
        at = arm.search_address.0 + 8;
    }
    // Allocated and freed each time, and leaked at last.
    assert!((2 * 1000 - 20..=2 * 1000 + 1).contains(&found), "{found}");
}

#[test]
fn a_busy_driver_allocates_and_frees_while_the_machine_runs() {
    let mut world = stopped();
    let index = symbol(&mut world, "VfPoolTracesIndex");
    let before = uint(&mut world, index, 4);
    let running = world.target.debuggee.machine.running();
    world.step_over(1);
    world.run_for(Duration::from_secs(5));
    world.break_in();
    let seconds = world.target.debuggee.machine.running().as_secs() - running.as_secs();
    let events = uint(&mut world, index, 4) - before;
    assert!(
        (seconds * 2 * 50 - 100..=(seconds + 1) * 2 * 50).contains(&events),
        "{events} events in {seconds} s"
    );
    assert!(seconds >= 4);
}
