//! What a machine's owner can do to it, and what its debugger sees of that, over a network and over a line.

use kd_protocol::VirtAddr;
use kd_protocol::kd::{ApiNumber, Arm, StateDetail, WriteMemory64};
use kd_protocol::link::Event;

use super::world::{Carrier, World, code, is_first_chance};
use super::*;
use crate::windows::{BUILDS, Chance, Machine};

const SECOND: Duration = Duration::from_secs(1);
const ASSERTION_FAILURE: NtStatus = NtStatus(0xc000_0420);
const ACCESS_VIOLATION: NtStatus = NtStatus(0xc000_0005);
const ASSERTION: &str =
    "Assertion failure - code c0000420 Break, Ignore, Terminate Process or Terminate Thread (bipt)? ";

#[test]
fn a_machine_that_is_let_go_runs_and_its_stops_are_counted() {
    for carrier in Carrier::BOTH {
        let mut world = World::new(carrier);
        world.exchange();
        assert_eq!((world.state(), world.snapshot().boot), (MachineState::Running, 1));
        world.break_in();
        let counts = |world: &World| (world.snapshot().stops, world.snapshot().resumes);
        assert_eq!((world.state(), counts(&world)), (MachineState::Stopped, (1, 0)));
        // On the breakpoint instruction it stops again.
        world.resume(NtStatus::DBG_CONTINUE);
        world.wait_for_stop();
        assert_eq!((world.state(), counts(&world)), (MachineState::Stopped, (2, 1)));
        world.step_over(1);
        world.wait_for_state(MachineState::Running);
        assert_eq!(counts(&world), (2, 2));
    }
}

#[test]
fn no_time_passes_between_a_continue_that_is_heard_and_the_stop_that_it_leads_to() {
    for carrier in Carrier::BOTH {
        let mut world = World::stopped(carrier);
        world.now += 60 * SECOND;
        world.host.resume(world.now, NtStatus::DBG_CONTINUE);
        let mut sent = BytesMut::new();
        match carrier {
            Carrier::Kdnet => {
                world.host.poll_transmit(&mut sent).unwrap();
                world.target.datagram(world.now, "192.168.2.1:50000".parse().unwrap(), &sent);
            }
            Carrier::Serial => {
                world.host.poll_transmit_stream(&mut sent);
                world.target.stream(world.now, &sent);
            }
        }
        world.target.due(world.now);
        assert_eq!(world.state(), MachineState::Stopped);
        assert!(world.target.debuggee.machine.running() < SECOND);
        world.wait_for_stop();
    }
}

#[test]
fn a_restarted_machine_may_be_another_windows_elsewhere() {
    for carrier in Carrier::BOTH {
        let mut world = World::stopped(carrier);
        let before = world.version();
        world.order(Order::Reboot(AtBoot::Runs, Some((Build::find("11-24h2").unwrap(), 7))));
        assert_eq!((world.state(), world.snapshot().boot), (MachineState::Running, 2));
        world.wait_for("restart", |event| matches!(event, Event::Restarted(_)));
        world.break_in();
        let after = world.version();
        assert_eq!((before.minor_version, after.minor_version), (7601, 26100));
        assert_ne!(before.kern_base, after.kern_base);
        assert_eq!(&world.read(after.kern_base, 2)[..], b"MZ");
        world.order(Order::Reboot(AtBoot::Runs, None));
        world.wait_for("restart", |event| matches!(event, Event::Restarted(_)));
        world.break_in();
        assert_eq!(world.version(), after, "it comes back as it was");
    }
}

#[test]
fn a_restarted_machine_may_stop_by_itself_or_ask() {
    for carrier in Carrier::BOTH {
        let mut world = World::stopped(carrier);
        world.order(Order::Reboot(AtBoot::Stops(Stop::Breakpoint), None));
        assert_eq!(world.state(), MachineState::Stopped);
        let stop = world.wait_for_stop();
        assert_eq!(code(&stop), NtStatus::BREAKPOINT);
        world.order(Order::Reboot(AtBoot::Asks(ASSERTION.into()), None));
        assert_eq!(world.state(), MachineState::WaitingAtPrompt);
        world.wait_for("prompt", |event| matches!(event, Event::Prompt(_)));
        assert_eq!(world.snapshot().boot, 3);
    }
}

#[test]
fn a_machine_that_is_off_says_nothing_until_it_is_on_again() {
    for carrier in Carrier::BOTH {
        let mut world = World::stopped(carrier);
        world.order(Order::PowerOff);
        assert_eq!(world.state(), MachineState::Off);
        let sent = world.sent;
        world.host.request(world.now, Manipulate::read_virtual(VirtAddr(0), 8));
        world.run_for(60 * SECOND);
        assert_eq!((world.state(), world.sent), (MachineState::Off, sent));
        world.order(Order::PowerOn);
        assert_eq!((world.state(), world.snapshot().boot), (MachineState::Running, 2));
        world.change_debugger();
        world.break_in();
    }
}

#[test]
fn a_suspended_machine_hears_nothing_and_goes_on_where_it_was() {
    for carrier in Carrier::BOTH {
        let mut world = World::stopped(carrier);
        world.step_over(1);
        world.wait_for_state(MachineState::Running);
        let running = world.target.debuggee.machine.running();
        world.order(Order::Suspend);
        let sent = world.sent;
        world.host.break_in(world.now);
        world.run_for(100 * SECOND);
        assert_eq!((world.state(), world.sent), (MachineState::Suspended, sent));
        assert_eq!(world.target.debuggee.machine.running(), running, "its time stands still");
        if carrier == Carrier::Serial {
            // What came meanwhile waits on the line: nobody has to say it again.
            world.host.cancel_break_in();
        }
        world.order(Order::Wake);
        world.wait_for_stop();
        assert!(world.target.debuggee.machine.running() - running < SECOND);
    }
}

#[test]
fn an_assertion_stops_at_its_instruction_until_the_program_counter_is_behind_it() {
    for carrier in Carrier::BOTH {
        let mut world = World::stopped(carrier);
        world.step_over(1);
        world.stop_with(Stop::Assertion);
        for _ in 0..3 {
            let stop = world.wait_for_stop();
            assert_eq!((code(&stop), is_first_chance(&stop)), (ASSERTION_FAILURE, true));
            assert_eq!(&world.read(stop.program_counter, 2)[..], [0xcd, 0x2c]);
            world.resume(NtStatus::DBG_CONTINUE);
        }
        world.wait_for_stop();
        world.step_over(2);
        world.wait_for_state(MachineState::Running);
    }
}

#[test]
fn an_access_violation_is_taken_by_the_drivers_handler_if_the_debugger_does_not() {
    for carrier in Carrier::BOTH {
        let mut world = World::stopped(carrier);
        world.step_over(1);
        world.stop_with(Stop::AccessViolation(Chance::First));
        let stop = world.wait_for_stop();
        assert_eq!((code(&stop), is_first_chance(&stop)), (ACCESS_VIOLATION, true));
        let StateDetail::Exception(exception) = stop.detail else { unreachable!() };
        let unmapped = VirtAddr(exception.exception_information[1]);
        assert_eq!((exception.number_parameters, exception.exception_information[0]), (2, 0));
        assert!(world.read(unmapped, 8).is_empty());
        world.resume(NtStatus::DBG_CONTINUE);
        assert_eq!(code(&world.wait_for_stop()), ACCESS_VIOLATION, "the read is tried again");
        world.resume(NtStatus::DBG_EXCEPTION_NOT_HANDLED);
        world.wait_for_state(MachineState::Running);
    }
}

#[test]
fn an_exception_that_nobody_handles_is_a_bug_check() {
    for carrier in Carrier::BOTH {
        let mut world = World::stopped(carrier);
        world.step_over(1);
        world.stop_with(Stop::AccessViolation(Chance::Second));
        let stop = world.wait_for_stop();
        assert_eq!((code(&stop), is_first_chance(&stop)), (ACCESS_VIOLATION, false));
        world.resume(NtStatus::DBG_EXCEPTION_NOT_HANDLED);
        assert_eq!(code(&world.wait_for_stop()), NtStatus::BREAKPOINT);
        let text = world.prints().concat();
        assert!(text.starts_with("\n*** Fatal System Error: 0x0000001e\n"), "{text}");
        assert!(text.contains("***    myfault.sys - Address FFFFF8800447"), "{text}");
    }
}

#[test]
fn a_bug_check_prints_stops_twice_and_restarts() {
    for carrier in Carrier::BOTH {
        let mut world = World::stopped(carrier);
        world.step_over(1);
        world.wait_for_state(MachineState::Running);
        let parameters = [0x62, 0xffff_fa80_0400_1000, 0xffff_fa80_0400_2000, 10];
        world.stop_with(Stop::BugCheck { code: 0xc4, parameters });
        world.wait_for_stop();
        assert_eq!(
            world.prints().concat(),
            "\n*** Fatal System Error: 0x000000c4\n                       \
             (0x0000000000000062,0xFFFFFA8004001000,0xFFFFFA8004002000,0x000000000000000A)\n\n"
        );
        let base = world.version().kern_base;
        let numbers = numbers(&world.read(base.offset(KI_BUG_CHECK_DATA), 40));
        assert_eq!((numbers[0], &numbers[1..]), (0xc4, &parameters[..]), "KiBugCheckData");
        world.resume(NtStatus::DBG_CONTINUE);
        world.wait_for_stop();
        assert_eq!(world.snapshot().boot, 1);
        world.resume(NtStatus::DBG_CONTINUE);
        world.wait_for_state(MachineState::Running);
        assert_eq!(world.snapshot().boot, 2);
    }
}

#[test]
fn a_machine_that_bug_checks_alone_waits_for_whoever_comes() {
    for carrier in Carrier::BOTH {
        let mut world = World::new(carrier);
        world.is_plugged = false;
        world.stop_with(Stop::BugCheck { code: 0xe2, parameters: [0; 4] });
        world.run_for(60 * SECOND);
        assert_eq!(world.state(), MachineState::Stopped);
        world.is_plugged = true;
        world.change_debugger();
        world.break_in();
    }
}

#[test]
fn scenarios_that_bug_check_do_so_with_parameters_that_lead_somewhere() {
    for carrier in Carrier::BOTH {
        for (scenario, code, first) in [
            (Scenario::BugcheckC462, 0xc4, 0x62),
            (Scenario::BugcheckC460, 0xc4, 0x60),
            (Scenario::BugcheckC4F6, 0xc4, 0xf6),
            (Scenario::Bugcheck7e, 0x7e, 0xffff_ffff_c000_0005),
        ] {
            let mut world = World::with(carrier, |config| SimulatorConfig { scenario, ..config });
            world.wait_for_stop();
            let base = world.version().kern_base;
            let numbers = numbers(&world.read(base.offset(KI_BUG_CHECK_DATA), 40));
            assert_eq!(numbers[..2], [code, first], "{scenario}");
            let mut read = |at: u64, count| world.read(VirtAddr(at), count);
            match scenario {
                Scenario::BugcheckC462 => {
                    let name: Vec<u8> = "myfault.sys\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
                    assert_eq!((&read(numbers[2], 24)[..], numbers[4]), (&name[..], 10));
                }
                Scenario::BugcheckC460 => assert_eq!(numbers[2..], [0, 10 * 0xf_b000, 10]),
                Scenario::BugcheckC4F6 => {
                    assert_eq!((numbers[2] % 4, read(numbers[3], 0x100).len()), (0, 0x100));
                    assert!((0xffff_f880_0447_c000..0xffff_f880_0448_4000).contains(&numbers[4]));
                }
                _ => {
                    let record = read(numbers[3], 0x20);
                    assert_eq!(record[..4], [5, 0, 0, 0xc0]);
                    assert_eq!(record[0x10..0x18], numbers[2].to_le_bytes());
                    assert_eq!(read(numbers[4] + 0xf8, 8)[..], numbers[2].to_le_bytes());
                }
            }
        }
    }
}

#[test]
fn unloaded_drivers_are_listed_where_the_debugger_data_block_says() {
    let mut world =
        World::with(Carrier::Kdnet, |config| SimulatorConfig { scenario: Scenario::Unloaded, ..config });
    world.break_in();
    let list = world.version().debugger_data_list.0;
    let mut pointer = |at: u64| numbers(&world.read(VirtAddr(at), 8))[0];
    let block = pointer(list);
    let drivers = pointer(block + 0x220);
    let (list, last) = (pointer(drivers), pointer(block + 0x228));
    assert_eq!(pointer(last) as u32, 2);
    let entry = numbers(&world.read(VirtAddr(list), 0x28));
    assert_eq!(entry[2..4], [0xffff_f880_0447_c000, 0xffff_f880_0448_4000]);
    assert!(entry[4] > 130_160_736_000_000_000, "a time");
    let name = world.read(VirtAddr(entry[1]), entry[0] as u32 & 0xffff);
    assert_eq!(String::from_utf16(&halves(&name)).unwrap(), "myfault.sys");
}

/// Relative to the kernel's base, in the images of Windows 7.
const KI_BUG_CHECK_DATA: u64 = 0x26_6780;

fn numbers(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn halves(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks(2).map(|bytes| u16::from_le_bytes(bytes.try_into().unwrap())).collect()
}

#[test]
fn modules_that_come_and_go_stop_the_machine_until_it_is_let_go() {
    for carrier in Carrier::BOTH {
        for (stop, is_unload) in [(Stop::LoadSymbols, false), (Stop::UnloadSymbols, true)] {
            let mut world = World::stopped(carrier);
            world.step_over(1);
            world.wait_for_state(MachineState::Running);
            world.stop_with(stop);
            let event = world.wait_for("module event", |event| matches!(event, Event::ModuleEvent(_)));
            let Event::ModuleEvent(change) = event else { unreachable!() };
            let StateDetail::LoadSymbols(load) = change.detail else { panic!("{change:?}") };
            assert_eq!((load.base_of_dll.0, load.unload_symbols != 0), (0xffff_f880_0447_c000, is_unload));
            assert!(change.data.ends_with(b"myfault.sys\0"));
            world.wait_for_state(MachineState::Running);
            assert_eq!(world.snapshot().stops, world.snapshot().resumes);
        }
    }
}

#[test]
fn a_machine_may_say_that_it_restarts() {
    for carrier in Carrier::BOTH {
        let mut world = World::stopped(carrier);
        world.step_over(1);
        world.wait_for_state(MachineState::Running);
        world.stop_with(Stop::Restart);
        world.wait_for("restart", |event| matches!(event, Event::Rebooting));
        world.wait_for_state(MachineState::Running);
        assert_eq!(world.snapshot().boot, 2);
    }
}

#[test]
fn a_prompt_waits_for_ever_and_obeys_its_answer() {
    for carrier in Carrier::BOTH {
        let mut world = World::new(carrier);
        world.is_plugged = false;
        world.order(Order::Happen(Happening::Ask(ASSERTION.into())));
        world.run_for(600 * SECOND);
        assert_eq!(world.state(), MachineState::WaitingAtPrompt);
        world.is_plugged = true;
        let answer = |world: &mut World, text: &'static str| {
            let event = world.wait_for("prompt", |event| matches!(event, Event::Prompt(_)));
            let Event::Prompt(prompt) = event else { unreachable!() };
            assert_eq!(&prompt.text[..], ASSERTION.as_bytes());
            world.host.answer_prompt(world.now, &prompt, Bytes::from_static(text.as_bytes()));
            world.exchange();
        };
        answer(&mut world, "x");
        answer(&mut world, "i\n");
        world.wait_for_state(MachineState::Running);
        world.order(Order::Happen(Happening::Ask(ASSERTION.into())));
        answer(&mut world, "b");
        world.wait_for_stop();
        assert_eq!(world.snapshot().answers, ["x", "i", "b"]);
    }
}

#[test]
fn a_debugger_that_comes_while_a_prompt_waits_is_asked_as_well() {
    for carrier in Carrier::BOTH {
        let mut world = World::stopped(carrier);
        world.step_over(1);
        world.wait_for_state(MachineState::Running);
        world.order(Order::Happen(Happening::Ask(ASSERTION.into())));
        world.wait_for("prompt", |event| matches!(event, Event::Prompt(_)));
        // This one goes away without an answer.
        world.change_debugger();
        world.host.break_in(world.now);
        world.wait_for("prompt", |event| matches!(event, Event::Prompt(_)));
    }
}

#[test]
fn prints_wait_until_the_machine_runs_and_hold_it_until_they_are_acknowledged() {
    for carrier in Carrier::BOTH {
        let mut world = World::stopped(carrier);
        world.order(Order::Happen(Happening::Print("hello\n".into())));
        assert!(world.prints().is_empty());
        world.step_over(1);
        world.wait_for("print", |event| matches!(event, Event::DebugPrint(line) if line == "hello\n"));
        world.is_plugged = false;
        world.order(Order::Happen(Happening::Print("is anybody there?\n".into())));
        assert_eq!(world.state(), MachineState::Printing);
        world.wait_for_state(MachineState::Running);
        assert!(world.watched().contains(&SimulatorEvent::DebuggerAbsent));
    }
}

#[test]
fn a_flood_prints_at_its_rate() {
    for carrier in Carrier::BOTH {
        let mut world = World::stopped(carrier);
        world.step_over(1);
        world.wait_for_state(MachineState::Running);
        world.order(Order::Flood(100));
        world.run_for(10 * SECOND);
        let lines = world.prints().iter().filter(|line| line.starts_with("flood: line ")).count();
        assert!((990..=1010).contains(&lines), "{lines}");
        world.order(Order::Flood(0));
        world.prints();
        world.run_for(SECOND);
        assert!(world.prints().iter().all(|line| !line.starts_with("flood")));
    }
}

#[test]
fn what_a_debugger_writes_into_memory_is_counted() {
    let mut world = World::stopped(Carrier::Kdnet);
    let base = world.version().kern_base;
    world.read(base, 0x100);
    world.step_over(1);
    world.break_in();
    assert_eq!(world.snapshot().written, 0, "neither reads nor contexts are writes");
    let arm = Arm::WriteMemory(WriteMemory64 {
        target_base_address: base.offset(0x10).0,
        transfer_count: 3,
        actual_bytes_written: 0,
    });
    let write = Manipulate::new(ApiNumber::WRITE_VIRTUAL_MEMORY, arm);
    world.ask(Manipulate { data: Bytes::from_static(&[1, 2, 3]), ..write }).unwrap();
    world.exchange();
    assert_eq!(world.snapshot().written, 3);
}

#[test]
fn every_build_can_be_loaded_elsewhere() {
    for build in BUILDS {
        let usual = Machine::new(build);
        let moved = Machine::moved(build, Scenario::default(), 0, 0x3ff);
        let bytes = 0x3ff * 0x20_0000;
        assert_eq!(moved.version().kern_base, usual.version().kern_base.offset(bytes));
        let list = moved.version().debugger_data_list;
        let mut flink = [0; 8];
        assert_eq!(moved.read_virtual(list, &mut flink), 8);
        let mut block = [0; 0x20];
        moved.read_virtual(VirtAddr(u64::from_le_bytes(flink)), &mut block);
        assert_eq!(&block[0x10..0x14], b"KDBG");
        assert_eq!(u64::from_le_bytes(block[0x18..].try_into().unwrap()), moved.version().kern_base.0);
    }
}
