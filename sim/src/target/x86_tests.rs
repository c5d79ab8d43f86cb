//! The 32-bit machine as a debugger's end of the link meets it.

use kd_protocol::kd::{Arm, StateChange};
use kd_protocol::link::Event;
use kd_protocol::{PhysAddr, VirtAddr};

use super::world::{Carrier, World, code};
use super::*;
use crate::windows::{Chance, WINDOWS_XP_X86};

const EIP: usize = 0xb8;

fn stopped(carrier: Carrier) -> World {
    let mut world = World::with(carrier, |config| SimulatorConfig {
        build: &WINDOWS_XP_X86,
        scenario: Scenario::VerifierOff,
        ..config
    });
    world.break_in();
    world
}

fn uint(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().unwrap())
}

/// Goes on behind the instruction that stopped the machine, which is `bytes` long.
fn step_over(world: &mut World, bytes: u32) {
    let mut context = world.ask(Manipulate::get_context(0)).unwrap().data.to_vec();
    let eip = uint(&context[EIP..]);
    context[EIP..EIP + 4].copy_from_slice(&(eip + bytes).to_le_bytes());
    let reply = world.ask(Manipulate::set_context(0, context.into())).unwrap();
    assert_eq!(reply.return_status, NtStatus::SUCCESS);
    world.resume(NtStatus::DBG_CONTINUE);
}

#[test]
fn it_stands_on_its_int3_until_eip_is_behind_it() {
    for carrier in Carrier::BOTH {
        let mut world = stopped(carrier);
        for _ in 0..3 {
            world.resume(NtStatus::DBG_CONTINUE);
            let stop = world.wait_for_stop();
            assert_eq!(
                (code(&stop), stop.program_counter),
                (NtStatus::BREAKPOINT, VirtAddr(0xffff_ffff_8052_7bdc))
            );
        }
        step_over(&mut world, 1);
        world.wait_for_state(MachineState::Running);
        world.stop_with(Stop::Assertion);
        assert_eq!(code(&world.wait_for_stop()), NtStatus(0xc000_0420));
        world.resume(NtStatus::DBG_CONTINUE);
        world.wait_for_stop();
        step_over(&mut world, 2);
        world.wait_for_state(MachineState::Running);
        world.stop_with(Stop::AccessViolation(Chance::First));
        assert_eq!(code(&world.wait_for_stop()), NtStatus(0xc000_0005));
        world.resume(NtStatus::DBG_EXCEPTION_NOT_HANDLED);
        world.wait_for_state(MachineState::Running);
    }
}

#[test]
fn its_state_change_has_the_control_report_of_x86() {
    let mut world = World::with(Carrier::Serial, |config| SimulatorConfig {
        build: &WINDOWS_XP_X86,
        scenario: Scenario::VerifierOff,
        ..config
    });
    let stop: StateChange = world.break_in();
    let bytes = stop.encode();
    assert_eq!((bytes.len(), stop.thread), (240, VirtAddr(0xffff_ffff_8055_3740)));
    let report = &bytes[192..];
    assert_eq!((uint(report), uint(&report[4..])), (0xffff_0ff0, 0x400), "Dr6, Dr7");
    assert_eq!(report[8..16], [16, 0, 3, 0, 0xcc, 0xc2, 4, 0], "count, flags, instructions");
    assert_eq!(report[28..36], [8, 0, 0x23, 0, 0x23, 0, 0x30, 0], "segments");
    assert_eq!(uint(&report[36..]), 0x246, "EFlags");
}

#[test]
fn its_version_leads_to_modules_and_debugger_data_with_32_bit_lists() {
    for carrier in Carrier::BOTH {
        let mut world = stopped(carrier);
        let version = world.version();
        assert_eq!((version.machine_type, version.minor_version, version.flags.bits()), (0x14c, 2600, 2));
        assert_eq!(version.kern_base, VirtAddr(0xffff_ffff_804d_8000));
        let refused = world.ask(Manipulate::get_context_ex(0, 0, 0x2cc)).unwrap();
        assert_eq!(refused.return_status, NtStatus::UNSUCCESSFUL);
        let mut read = |at: u64, count| world.read(VirtAddr(at), count);
        let block = uint(&read(version.debugger_data_list.0, 4)).into();
        let data = read(block, 0x290);
        assert_eq!((&data[0x10..0x14], uint(&data[0x14..])), (&b"KDBG"[..], 0x290));
        assert_eq!(data[0x18..0x20], version.kern_base.0.to_le_bytes(), "sign-extended");
        assert_eq!(uint(&data), version.debugger_data_list.0 as u32, "the list goes round in 32 bits");
        let mut names = Vec::new();
        let mut entry = uint(&read(version.ps_loaded_module_list.0, 4));
        while entry != version.ps_loaded_module_list.0 as u32 {
            let bytes = read(entry.into(), 0x50);
            let (length, buffer) = (uint(&bytes[0x2c..]) & 0xffff, uint(&bytes[0x30..]));
            let name: Vec<u16> = read(buffer.into(), length)
                .chunks(2)
                .map(|half| u16::from_le_bytes([half[0], half[1]]))
                .collect();
            assert_eq!(read(uint(&bytes[0x18..]).into(), 2)[..], *b"MZ");
            names.push(String::from_utf16(&name).unwrap());
            entry = uint(&bytes);
        }
        assert_eq!(names, ["ntkrnlpa.exe", "hal.dll", "myfault.sys"]);
    }
}

#[test]
fn its_page_tables_lead_to_the_same_bytes() {
    let mut world = stopped(Carrier::Kdnet);
    let special = world.ask(Manipulate::read_control_space(0, 0x2cc, 0x54)).unwrap().data;
    let physical = |world: &mut World, at: u64, count| {
        world.ask(Manipulate::read_physical(PhysAddr(at), count)).unwrap().data
    };
    let address = 0x804d_8000_u64;
    let mut table = u64::from(uint(&special[8..]));
    for shift in [30, 21, 12] {
        let entry = physical(&mut world, table + (address >> shift & 0x1ff) * 8, 8);
        let entry = u64::from_le_bytes(entry[..].try_into().unwrap());
        assert_eq!(entry & 1, 1, "present");
        table = entry & 0x000f_ffff_ffff_f000;
    }
    let page = physical(&mut world, table, 0x400);
    assert_eq!(page, world.read(VirtAddr(0xffff_ffff_804d_8000), 0x400));
    assert_eq!(page[0x84..0x86], 0x14c_u16.to_le_bytes(), "the file header's machine");
    let search =
        Manipulate::search_memory(VirtAddr(0xffff_ffff_804d_8000), 0x1000, Bytes::from_static(b"RSDS"));
    let Arm::SearchMemory(found) = world.ask(search).unwrap().arm else { unreachable!() };
    assert_eq!(found.search_address, VirtAddr(0xffff_ffff_804d_8340));
}

#[test]
fn it_bug_checks_in_eight_digits() {
    let mut world = World::with(Carrier::Serial, |config| SimulatorConfig {
        build: &WINDOWS_XP_X86,
        scenario: Scenario::Bugcheck7e,
        ..config
    });
    world.wait_for_stop();
    let text = world.prints().concat();
    assert!(
        text.starts_with(
            "\n*** Fatal System Error: 0x0000007e\n                       (0xC0000005,0xF8A8F480,"
        ),
        "{text}"
    );
    assert!(
        text.contains("***    myfault.sys - Address F8A8F480 base at F8A8E000, DateStamp 51c00004\n"),
        "{text}"
    );
}

#[test]
fn a_machine_may_come_back_with_the_other_width() {
    let mut world =
        World::with(Carrier::Kdnet, |config| SimulatorConfig { scenario: Scenario::VerifierOff, ..config });
    world.break_in();
    assert_eq!(world.version().machine_type, 0x8664);
    world.order(Order::Reboot(AtBoot::Runs, Some((&WINDOWS_XP_X86, 1))));
    world.wait_for("restart", |event| matches!(event, Event::Restarted(_)));
    world.break_in();
    assert_eq!(world.version().machine_type, 0x14c);
}
