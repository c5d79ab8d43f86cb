//! Breakpoints that stop the machine's own work, what a stop takes of them, and one instruction at a time.

use kd_protocol::VirtAddr;
use kd_protocol::kd::{ApiNumber, Arm, Continue2, RestoreBreakPoint, WriteBreakPoint64};

use super::world::{Carrier, World, code, is_first_chance};
use super::*;
use crate::windows::WINDOWS_7_SP1;

const MINUTE: Duration = Duration::from_secs(60);
const INT3: u8 = 0xcc;

fn leaking(carrier: Carrier) -> World {
    let mut world = World::with(carrier, |config| SimulatorConfig {
        leak_every: Some(Duration::from_millis(300)),
        ..config
    });
    world.break_in();
    world
}

fn symbol(world: &mut World, image: usize, name: &str) -> VirtAddr {
    let layout = WINDOWS_7_SP1.images[image].layout().unwrap();
    let base = if image == 0 { world.version().kern_base.0 } else { layout.base };
    VirtAddr(base + u64::from(layout.symbol(name).unwrap()))
}

/// The handle, if it was taken.
fn set(world: &mut World, at: VirtAddr) -> Option<u32> {
    let arm = WriteBreakPoint64 { break_point_address: at, break_point_handle: 0 };
    let request = Manipulate::new(ApiNumber::WRITE_BREAK_POINT, Arm::WriteBreakPoint(arm));
    let reply = world.ask(request).unwrap();
    let Arm::WriteBreakPoint(arm) = reply.arm else { panic!("{reply:?}") };
    (reply.return_status == NtStatus::SUCCESS).then_some(arm.break_point_handle)
}

fn clear(world: &mut World, handle: u32) -> NtStatus {
    let arm = RestoreBreakPoint { break_point_handle: handle };
    let request = Manipulate::new(ApiNumber::RESTORE_BREAK_POINT, Arm::RestoreBreakPoint(arm));
    world.ask(request).unwrap().return_status
}

fn trace(world: &mut World) -> StateChange {
    let mut request = Manipulate::continue2(NtStatus::DBG_CONTINUE);
    let Arm::Continue2(arm) = request.arm else { panic!("a continue") };
    request.arm = Arm::Continue2(Continue2 { trace_flag: 1, ..arm });
    world.host.resume_with(world.now, &request);
    world.wait_for_stop()
}

#[test]
fn a_breakpoint_stops_whoever_comes_by_and_the_stop_takes_it_away() {
    for carrier in Carrier::BOTH {
        let mut world = leaking(carrier);
        let at = symbol(&mut world, 0, "ExAllocatePoolWithTag");
        let before = world.read(at, 16);
        assert_eq!(set(&mut world, at), Some(1));
        assert_eq!(set(&mut world, at), None, "there is one");
        assert_eq!(world.read(at, 1)[..], [INT3], "as everybody reads it");
        assert_eq!(world.snapshot().breakpoints, 1);
        world.step_over(1);
        let stop = world.wait_for_stop();
        assert_eq!((code(&stop), is_first_chance(&stop)), (NtStatus::BREAKPOINT, true));
        assert_eq!(stop.program_counter, at);
        assert_eq!(stop.control_report.instruction_stream[..], before[..], "the code without it");
        assert_eq!((world.snapshot().breakpoints, world.read(at, 16)), (0, before.clone()));
        assert_eq!(clear(&mut world, 1), NtStatus::UNSUCCESSFUL, "it is gone");
        // Set again before the processor has moved, it stops there again; stepped first, the next one who comes by stops.
        assert_eq!(set(&mut world, at), Some(1));
        world.resume(NtStatus::DBG_CONTINUE);
        assert_eq!(world.wait_for_stop().program_counter, at);
        let stepped = trace(&mut world);
        assert_eq!(code(&stepped), NtStatus::SINGLE_STEP);
        assert!((1..16).contains(&stepped.program_counter.since(at)));
        assert_eq!(set(&mut world, at), Some(1));
        world.resume(NtStatus::DBG_CONTINUE);
        assert_eq!(world.wait_for_stop().program_counter, at, "{carrier:?}");
        world.resume(NtStatus::DBG_CONTINUE);
        let stops = world.snapshot().stops;
        world.run_for(MINUTE);
        assert_eq!((world.state(), world.snapshot().stops), (MachineState::Running, stops));
    }
}

#[test]
fn what_a_routine_is_entered_with_is_what_it_returns_to() {
    let mut world = leaking(Carrier::Kdnet);
    let entry = symbol(&mut world, 3, "MyfaultDeviceControl");
    set(&mut world, entry).unwrap();
    world.step_over(1);
    let stop = world.wait_for_stop();
    assert_eq!(stop.program_counter, entry);
    let rsp = |world: &mut World, processor| {
        let context = world.ask(Manipulate::get_context(processor)).unwrap().data;
        u64::from_le_bytes(context[0x98..0xa0].try_into().unwrap())
    };
    let entered = rsp(&mut world, stop.processor);
    let back = u64::from_le_bytes(world.read(VirtAddr(entered), 8)[..].try_into().unwrap());
    let dispatch = symbol(&mut world, 3, "MyfaultDispatch");
    assert_eq!(VirtAddr(back), dispatch.offset(0xb7));
    // Step by step through its prolog, which makes room on the stack.
    let mut at = entry;
    while rsp(&mut world, stop.processor) == entered {
        let next = trace(&mut world).program_counter;
        assert!(next > at);
        at = next;
    }
    assert!(rsp(&mut world, stop.processor) < entered);
    set(&mut world, VirtAddr(back)).unwrap();
    world.resume(NtStatus::DBG_CONTINUE);
    let returned = world.wait_for_stop();
    assert_eq!((returned.program_counter, returned.processor), (VirtAddr(back), stop.processor));
    assert_eq!(rsp(&mut world, stop.processor), entered + 8, "the call is over");
}

#[test]
fn there_are_32_and_a_new_boot_has_none() {
    let mut world = leaking(Carrier::Kdnet);
    let at = symbol(&mut world, 0, "KeBugCheckEx");
    let handles: Vec<_> = (0..33).map(|number| set(&mut world, at.offset(number))).collect();
    assert_eq!(handles[..32], (1..=32).map(Some).collect::<Vec<_>>());
    assert_eq!((handles[32], world.snapshot().breakpoints), (None, 32));
    assert_eq!(clear(&mut world, 7), NtStatus::SUCCESS);
    assert_eq!(set(&mut world, at.offset(40)), Some(7), "the first that is free");
    world.order(Order::Reboot(AtBoot::Runs, None));
    assert_eq!((world.snapshot().breakpoints, world.state()), (0, MachineState::Running));
    world.run_for(MINUTE);
    assert_eq!(world.state(), MachineState::Running);
}

#[test]
fn a_machine_whose_debugger_is_gone_stands_still_at_its_breakpoint() {
    let mut world = leaking(Carrier::Kdnet);
    let at = symbol(&mut world, 0, "ExAllocatePoolWithTag");
    set(&mut world, at).unwrap();
    world.step_over(1);
    world.is_plugged = false;
    world.run_for(10 * MINUTE);
    assert_eq!(world.state(), MachineState::Stopped);
}
