//! A machine that stops where somebody allocates or frees a block with the tag in `nt!PoolHitTag`.

use std::collections::BTreeSet;

use kd_protocol::VirtAddr;
use kd_protocol::kd::NtStatus;

use super::world::{Carrier, World, code, is_first_chance};
use super::*;
use crate::windows::{BUILDS, Machine, Scenario, WINDOWS_7_SP1};

const MINUTE: Duration = Duration::from_secs(60);

fn leaking(carrier: Carrier) -> World {
    let mut world = World::with(carrier, |config| SimulatorConfig {
        growth: Growth { processors: 4, callers: 3, busy: 20, ..Growth::default() },
        leak_every: Some(Duration::from_millis(300)),
        ..config
    });
    world.break_in();
    world
}

fn variable(world: &mut World) -> VirtAddr {
    let layout = WINDOWS_7_SP1.images[0].layout().unwrap();
    VirtAddr(world.version().kern_base.0 + u64::from(layout.symbol("PoolHitTag").unwrap()))
}

/// Writes a tag, and returns what was there.
fn watch(world: &mut World, tag: &[u8; 4]) -> [u8; 4] {
    let at = variable(world);
    let before = world.read(at, 4)[..].try_into().unwrap();
    let reply = world.ask(Manipulate::write_virtual(at, Bytes::copy_from_slice(tag))).unwrap();
    assert_eq!(reply.return_status, NtStatus::SUCCESS);
    before
}

#[test]
fn every_use_of_the_tag_stops_the_processor_that_it_is_on() {
    for carrier in Carrier::BOTH {
        let mut world = leaking(carrier);
        let before = watch(&mut world, b"Leak");
        assert_eq!(world.snapshot().pool_hit_tag, Some(*b"Leak"));
        world.step_over(1);
        let (mut processors, mut stacks, mut threads) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for number in 1..=24 {
            let stop = world.wait_for_stop();
            assert_eq!((code(&stop), is_first_chance(&stop)), (NtStatus::BREAKPOINT, true));
            assert_eq!(stop.control_report.instruction_stream[0], 0xcc);
            let hits = world.snapshot().pool_hits;
            assert_eq!(hits.len(), number, "{carrier:?}");
            let hit = hits.last().unwrap();
            assert_eq!((hit.tag, hit.is_free), (*b"Leak", false));
            assert_eq!(usize::from(stop.processor), hit.processor);
            assert_eq!((stop.program_counter, stop.thread), (hit.frames[0], hit.thread));
            processors.insert(stop.processor);
            stacks.insert(hit.frames.clone());
            threads.insert(hit.thread);
            // Left where it is, it stops there again, and nobody has used the tag.
            world.resume(NtStatus::DBG_CONTINUE);
            let again = world.wait_for_stop();
            assert_eq!((again.program_counter, again.processor), (stop.program_counter, stop.processor));
            assert_eq!(world.snapshot().pool_hits.len(), number);
            if number == 24 {
                watch(&mut world, &before);
            }
            world.step_over_on(again.processor, 1);
        }
        assert_eq!((processors.len(), stacks.len()), (4, 3), "{carrier:?}");
        assert!(threads.len() > 2, "deferred calls run on the thread that they interrupt");
        assert_eq!(world.snapshot().pool_hit_tag, None);
        let stops = world.snapshot().stops;
        world.run_for(MINUTE);
        assert_eq!((world.state(), world.snapshot().stops), (MachineState::Running, stops));
    }
}

#[test]
fn frees_are_uses_too() {
    let mut world = leaking(Carrier::Kdnet);
    watch(&mut world, b"Busy");
    world.step_over(1);
    for _ in 0..30 {
        let stop = world.wait_for_stop();
        world.step_over_on(stop.processor, 1);
    }
    world.wait_for_stop();
    let hits = world.snapshot().pool_hits;
    let frees = hits.iter().filter(|hit| hit.is_free).count();
    assert!((1..hits.len()).contains(&frees), "{frees} of {}", hits.len());
    let entries: BTreeSet<_> = hits.iter().map(|hit| (hit.is_free, hit.frames[0])).collect();
    assert_eq!(entries.len(), 2, "one place allocates, another frees");
}

#[test]
fn another_tag_and_another_boot_stop_nobody() {
    let mut world = leaking(Carrier::Kdnet);
    watch(&mut world, b"None");
    world.step_over(1);
    world.run_for(MINUTE);
    assert_eq!(world.state(), MachineState::Running);
    world.break_in();
    watch(&mut world, b"Leak");
    assert_eq!(world.snapshot().pool_hit_tag, Some(*b"Leak"));
    world.order(Order::Reboot(AtBoot::Runs, None));
    assert_eq!((world.snapshot().pool_hit_tag, world.state()), (None, MachineState::Running));
    assert_eq!(world.snapshot().pool_hits, []);
}

#[test]
fn zero_is_no_tag() {
    let mut world = leaking(Carrier::Kdnet);
    watch(&mut world, b"Leak");
    world.step_over(1);
    let stop = world.wait_for_stop();
    watch(&mut world, &[0; 4]);
    assert_eq!(world.snapshot().pool_hit_tag, None);
    world.step_over_on(stop.processor, 1);
    world.run_for(MINUTE);
    assert_eq!((world.state(), world.snapshot().pool_hits.len()), (MachineState::Running, 1));
}

#[test]
fn a_machine_without_a_debugger_stands_still_at_the_next_use() {
    let mut world = leaking(Carrier::Kdnet);
    watch(&mut world, b"Leak");
    world.step_over(1);
    world.is_plugged = false;
    world.run_for(10 * MINUTE);
    assert_eq!(world.state(), MachineState::Stopped);
    assert_eq!(world.snapshot().pool_hits.len(), 1);
}

#[test]
fn every_kernel_stops_whether_or_not_the_driver_is_verified() {
    for build in BUILDS {
        for scenario in [Scenario::Myfault, Scenario::VerifierOff] {
            if scenario.check(build).is_err() {
                continue;
            }
            let mut machine = Machine::with_scenario(build, scenario, 0);
            machine.break_in();
            let layout = build.images[0].layout().unwrap();
            let at =
                VirtAddr(machine.version().kern_base.0).offset(layout.symbol("PoolHitTag").unwrap().into());
            machine.write_virtual(at, b"Leak");
            machine.run_for(Duration::from_secs(10));
            let what = format!("{} {scenario}", build.name);
            let hit = machine.stop_at_pool_hit().unwrap_or_else(|| panic!("{what} has no hit"));
            assert_eq!(machine.running(), Duration::from_secs(2), "{what}: it stops at the first");
            assert_eq!(machine.processors()[hit.processor].frames.len(), hit.frames.len());
            assert!(hit.frames.len() > 5, "{what}: {:?}", hit.frames);
        }
    }
}
