//! Each quirk as a debugger's end of the link meets it, over KDNET and serial.

use kd_protocol::kd::{Arm, BREAK_IN};
use kd_protocol::kdnet::{Channel, Envelope, Offer};
use kd_protocol::link::{Event, RequestError};
use kd_protocol::{PhysAddr, VirtAddr};

use super::world::{Carrier, RIP, World, code};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn with(carrier: Carrier, quirk: Quirk) -> World {
    World::with(carrier, |config| SimulatorConfig { quirks: [quirk].into(), ..config })
}

fn stopped(carrier: Carrier, quirk: Quirk) -> World {
    let mut world = with(carrier, quirk);
    world.break_in();
    world
}

#[test]
fn context_echo_answers_what_was_asked_and_refuses_what_ends_behind_the_context() {
    for carrier in Carrier::BOTH {
        let mut world = stopped(carrier, Quirk::ContextEcho);
        let first = world.ask(Manipulate::get_context_ex(0, 0, 1000)).unwrap();
        let Arm::ContextEx(arm) = first.arm else { unreachable!() };
        assert_eq!((arm.byte_count, arm.bytes_copied, first.data.len()), (1000, 1000, 1000));
        let beyond = world.ask(Manipulate::get_context_ex(0, 1000, 233)).unwrap();
        assert_eq!((beyond.return_status, beyond.data.len()), (NtStatus::UNSUCCESSFUL, 0));
        let rest = world.ask(Manipulate::get_context_ex(0, 1000, 232)).unwrap();
        let whole = world.ask(Manipulate::get_context(0)).unwrap();
        assert_eq!([&first.data[..], &rest.data[..]].concat(), &whole.data[..]);
        let windows = World::stopped(carrier).ask(Manipulate::get_context_ex(0, 0, 1000)).unwrap();
        assert!(matches!(windows.arm, Arm::ContextEx(arm) if arm.byte_count == 1232));
    }
}

#[test]
fn no_context_ex_leaves_get_context() {
    for carrier in Carrier::BOTH {
        let mut world = stopped(carrier, Quirk::NoContextEx);
        let refused = world.ask(Manipulate::get_context_ex(0, 0, 1000)).unwrap();
        assert_eq!(refused.return_status, NtStatus::UNSUCCESSFUL);
        world.step_over(1);
        world.wait_for_state(MachineState::Running);
    }
}

#[test]
fn no_search_prints_in_the_middle_of_the_request_that_it_refuses() {
    for carrier in Carrier::BOTH {
        let mut world = stopped(carrier, Quirk::NoSearch);
        let base = world.version().kern_base;
        let search = Manipulate::search_memory(base, 0x1000, Bytes::from_static(b"PE"));
        assert_eq!(world.ask(search.clone()).unwrap().return_status, NtStatus::UNSUCCESSFUL);
        assert_eq!(world.prints(), ["KdpSearchMemory is UNIMPLEMENTED\n"]);
        assert_eq!(&world.read(base, 2)[..], b"MZ");
        let windows = World::stopped(carrier).ask(search).unwrap();
        assert_eq!(windows.return_status, NtStatus::SUCCESS);
    }
}

#[test]
fn print_mid_request_prints_before_every_third_reply() {
    for carrier in Carrier::BOTH {
        let mut world = stopped(carrier, Quirk::PrintMidRequest);
        for _ in 0..6 {
            world.version();
        }
        assert_eq!(world.prints(), ["request 3 of this stop\n", "request 6 of this stop\n"]);
    }
}

#[test]
fn stops_again_stops_at_an_int3_and_then_lets_go() {
    for carrier in Carrier::BOTH {
        let mut world = stopped(carrier, Quirk::StopsAgain);
        for _ in 0..2 {
            let first = world.ask(Manipulate::get_context(0)).unwrap().data;
            world.step_over(1);
            let again = world.wait_for_stop();
            assert_eq!(code(&again), NtStatus::BREAKPOINT);
            assert_ne!(first[RIP..RIP + 8], again.program_counter.0.to_le_bytes());
            world.step_over(1);
            world.wait_for_state(MachineState::Running);
            assert_eq!(world.snapshot().stops, world.snapshot().resumes);
            world.break_in();
        }
    }
}

#[test]
fn stops_again_acknowledges_and_stops_in_one_piece_over_a_line() {
    let mut world = stopped(Carrier::Serial, Quirk::StopsAgain);
    let context = world.ask(Manipulate::get_context(0)).unwrap().data;
    let mut moved = context.to_vec();
    moved[RIP] += 1;
    world.ask(Manipulate::set_context(0, moved.into())).unwrap();
    world.host.resume(world.now, NtStatus::DBG_CONTINUE);
    let mut bytes = BytesMut::new();
    world.host.poll_transmit_stream(&mut bytes);
    world.target.stream(world.now, &bytes);
    let mut sent = BytesMut::new();
    world.target.poll_transmit_stream(&mut sent);
    assert!(sent.is_empty(), "not the acknowledgement alone");
    world.target.execute(world.now);
    world.target.poll_transmit_stream(&mut sent);
    assert!(sent.starts_with(b"iiii") && sent.windows(4).any(|bytes| bytes == b"0000"), "{sent:?}");
}

#[test]
fn no_debug_directory_takes_it_from_every_image() {
    let mut world = stopped(Carrier::Kdnet, Quirk::NoDebugDirectory);
    let base = world.version().kern_base;
    for (base, size) in [(base, 8), (VirtAddr(0xffff_f880_0447_c000), 8)] {
        let headers = world.read(base, 0x400);
        let pe = u32::from_le_bytes(headers[0x3c..0x40].try_into().unwrap()) as usize;
        let directory = pe + 0x18 + 0x70 + 6 * 8;
        assert_eq!(
            (&headers[pe..pe + 4], &headers[directory..directory + size]),
            (&b"PE\0\0"[..], &[0; 8][..])
        );
    }
    world.order(Order::Reboot(AtBoot::Runs, None));
    let mut directory = [1; 8];
    let headers_end = world.target.debuggee.machine.read_virtual(base, &mut [0; 0x400]);
    assert_eq!(headers_end, 0x400);
    let mut headers = [0; 0x400];
    world.target.debuggee.machine.read_virtual(base, &mut headers);
    let pe = u32::from_le_bytes(headers[0x3c..0x40].try_into().unwrap()) as usize;
    directory.copy_from_slice(&headers[pe + 0x18 + 0x70 + 6 * 8..][..8]);
    assert_eq!(directory, [0; 8], "another boot has the same quirk");
}

#[test]
fn no_version_and_no_debugger_data_say_nothing_of_the_kernel() {
    for carrier in Carrier::BOTH {
        let mut world = stopped(carrier, Quirk::NoVersion);
        assert_eq!(world.ask(Manipulate::get_version()).unwrap().return_status, NtStatus::UNSUCCESSFUL);
        let mut world = stopped(carrier, Quirk::NoDebuggerData);
        let version = world.version();
        assert_eq!((version.debugger_data_list, version.flags.bits()), (VirtAddr(0), 5));
        let ram = Manipulate::read_physical(PhysAddr(0), 8);
        assert_eq!(world.ask(ram).unwrap().return_status, NtStatus::SUCCESS);
        let search = Manipulate::search_memory(version.kern_base, 0x60_0000, Bytes::from_static(b"KDBG"));
        assert_eq!(world.ask(search).unwrap().return_status, NtStatus::NO_MORE_ENTRIES);
    }
}

/// The lengths of the datagrams of a machine that nobody answers, and when they came.
fn offers(quirk: Option<Quirk>) -> Vec<(Duration, usize)> {
    let mut world = World::with(Carrier::Kdnet, |config| SimulatorConfig {
        quirks: quirk.into_iter().collect(),
        ..config
    });
    let start = world.now;
    let mut offers = Vec::new();
    while world.now < start + 61 * SECOND {
        let mut datagram = BytesMut::new();
        world.target.due(world.now);
        while world.target.poll_transmit(&mut datagram) {
            let cipher = "1.2.3.4".parse::<kd_protocol::kdnet::Key>().unwrap().control_cipher();
            let envelope = Envelope::parse(&datagram).unwrap();
            assert_eq!(envelope.channel(), Channel::Control);
            offers.push((world.now - start, envelope.open(&cipher).unwrap().body.len()));
        }
        world.now += SECOND;
    }
    offers
}

#[test]
fn offers_have_other_lengths_and_come_slowly() {
    let lengths = |quirk| offers(quirk).iter().map(|(_, len)| *len).collect::<Vec<_>>();
    assert_eq!(lengths(None), [Offer::LEN; 21]);
    for (quirk, len) in [(Quirk::Offer34, 34), (Quirk::Offer360, 360), (Quirk::Offer408, 408)] {
        assert_eq!(lengths(Some(quirk)), [len; 21]);
    }
    let times: Vec<_> = offers(Some(Quirk::SlowOffers)).iter().map(|(at, _)| at.as_secs()).collect();
    assert_eq!(times, [0, 20, 40, 60]);
}

#[test]
fn prompt_at_boot_asks_at_every_boot() {
    for carrier in Carrier::BOTH {
        let mut world = with(carrier, Quirk::PromptAtBoot);
        for boot in 1..3 {
            assert!(world.run_until(60 * SECOND, |world| world.snapshot().boot == boot));
            assert_eq!(world.state(), MachineState::WaitingAtPrompt);
            let event = world.wait_for("prompt", |event| matches!(event, Event::Prompt(_)));
            let Event::Prompt(prompt) = event else { unreachable!() };
            world.host.answer_prompt(world.now, &prompt, Bytes::from_static(b"i"));
            world.wait_for_state(MachineState::Running);
            // Over a line, a boot that began as the last one ended would look like a repetition.
            world.run_for(2 * SECOND);
            world.order(Order::Reboot(AtBoot::Runs, None));
        }
    }
}

#[test]
fn silent_after_break_answers_ten_requests() {
    for carrier in Carrier::BOTH {
        let mut world = stopped(carrier, Quirk::SilentAfterBreak);
        for _ in 0..10 {
            world.version();
        }
        assert!(matches!(world.ask(Manipulate::get_version()), Err(RequestError::NoAnswer { .. })));
        assert_eq!((world.state(), world.snapshot().requests), (MachineState::Stopped, 10));
    }
}

#[test]
fn breaks_late_obeys_after_two_seconds() {
    for carrier in Carrier::BOTH {
        let mut world = with(carrier, Quirk::BreaksLate);
        world.run_for(4 * SECOND);
        let asked = world.now;
        world.break_in();
        let late = world.now - asked;
        assert!((2 * SECOND..3 * SECOND).contains(&late), "{late:?}");
    }
}

#[test]
fn swallows_break_loses_one_that_a_packet_follows_and_heeds_one_in_silence() {
    let printing = |quirk| {
        let mut world = World::with(Carrier::Serial, |config| SimulatorConfig { quirks: quirk, ..config });
        world.is_plugged = false;
        world.order(Order::Happen(Happening::Print("hello\n".into())));
        let mut print = BytesMut::new();
        world.target.poll_transmit_stream(&mut print);
        world
    };
    let acknowledgement = b"iiii\x04\0\0\0\0\0\x80\x80\0\0\0\0";
    let after = |quirk, bytes: &[&[u8]], pause: Duration| {
        let mut world = printing(quirk);
        for bytes in bytes {
            world.target.stream(world.now, bytes);
            world.now += pause;
            world.target.due(world.now);
        }
        world.target.settle(world.now);
        world.state()
    };
    let swallows = Quirks::from([Quirk::SwallowsBreak]);
    let (at_once, pause) = (Duration::ZERO, Duration::from_millis(20));
    let sent: [&[u8]; 2] = [&[BREAK_IN], acknowledgement];
    assert_eq!(after(Quirks::default(), &sent, at_once), MachineState::Stopped);
    assert_eq!(after(swallows, &sent, at_once), MachineState::Running);
    assert_eq!(after(swallows, &sent, pause), MachineState::Stopped);
}
